//! `akin collection`.

use indexer::{CollectionSummary, Collections, Manifest};
use serde_json::json;

use crate::args::{CollectionCommand, CollectionInfoArgs};
use crate::outcome::{Outcome, Success, print, print_json};
use crate::settings::Settings;

pub fn run(settings: &Settings, command: &CollectionCommand) -> Outcome {
    let collections = Collections::new(&settings.home);
    match command {
        CollectionCommand::List => list(settings, &collections),
        CollectionCommand::Info(args) => info(settings, &collections, args),
    }
}

fn list(settings: &Settings, collections: &Collections) -> Outcome {
    let summaries = collections.list()?;
    if settings.json {
        let list: Vec<_> = summaries
            .iter()
            .map(|CollectionSummary { name, manifest }| match manifest {
                Ok(manifest) => info_json(name, manifest),
                Err(error) => json!({"name": name, "error": error}),
            })
            .collect();
        print_json(&list)?;
        return Ok(Success::Done);
    }
    for CollectionSummary { name, manifest } in summaries {
        print(&match manifest {
            Ok(manifest) => format!("{name}  {} images  {}", manifest.images, manifest.model.name),
            Err(error) => format!("{name}  {error}"),
        })?;
    }
    Ok(Success::Done)
}

fn info(settings: &Settings, collections: &Collections, args: &CollectionInfoArgs) -> Outcome {
    let manifest = collections.manifest(&args.name)?;
    let failures = match args.failures {
        true => collections.open(&args.name)?.failures()?,
        false => Vec::new(),
    };
    if settings.json {
        let mut json = info_json(&args.name, &manifest);
        if args.failures {
            let failures: Vec<_> = failures
                .iter()
                .map(|failure| json!({"path": failure.path.to_string(), "reason": failure.reason}))
                .collect();
            json["failures"] = failures.into();
        }
        print_json(&json)?;
        return Ok(Success::Done);
    }
    let Manifest { model, images, failed, fingerprint, .. } = &manifest;
    print(&format!("name         {}", args.name))?;
    print(&format!("images       {images}"))?;
    print(&format!("failed       {failed}"))?;
    print(&format!("model        {} (weights {})", model.name, model.weights_sha256))?;
    print(&format!("embedding    {} x {}", model.dim, model.pooling))?;
    let (resize, crop) = (model.preprocess.resize, model.preprocess.crop);
    print(&format!("input        resize {resize}, crop {crop}, icc {}", model.icc))?;
    print(&format!("positions    {}", model.pos_embed))?;
    print(&format!("fingerprint  {fingerprint}"))?;
    for failure in failures {
        print(&format!("failure      {}: {}", failure.path, failure.reason))?;
    }
    Ok(Success::Done)
}

fn info_json(name: &str, manifest: &Manifest) -> serde_json::Value {
    json!({
        "name": name,
        "images": manifest.images,
        "failed": manifest.failed,
        "dim": manifest.model.dim,
        "model": manifest.model.name,
        "fingerprint": manifest.fingerprint,
        "weights_sha256": manifest.model.weights_sha256,
        "pooling": manifest.model.pooling,
        "pos_embed": manifest.model.pos_embed,
        "preprocess": manifest.model.preprocess,
        "icc": manifest.model.icc,
        "metric": manifest.metric,
        "format_version": manifest.format_version,
    })
}
