//! `akin collection list` and `info`.

use indexer::{CollectionSummary, Collections, Manifest, Usage};
use serde_json::json;

use super::megabytes;
use crate::args::CollectionInfoArgs;
use crate::outcome::{Outcome, Success, print, print_json};
use crate::settings::Settings;

pub fn list(settings: &Settings, collections: &Collections) -> Outcome {
    let summaries = collections.list()?;
    if settings.json {
        let list: Vec<_> = summaries
            .iter()
            .map(|CollectionSummary { name, manifest }| match manifest {
                Ok(manifest) => manifest_json(name, manifest),
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

pub fn info(settings: &Settings, collections: &Collections, args: &CollectionInfoArgs) -> Outcome {
    let manifest = collections.manifest(&args.name)?;
    let usage = collections.usage(&args.name)?;
    let failures = match args.failures {
        true => collections.open(&args.name)?.failures()?,
        false => Vec::new(),
    };
    let dead_rows = manifest.rows.saturating_sub(manifest.images);
    if settings.json {
        let mut json = manifest_json(&args.name, &manifest);
        let Usage { catalog, vectors, graphs, reindex, other } = usage;
        json["dead_rows"] = dead_rows.into();
        json["search"] = search(&manifest, &usage).into();
        json["bytes"] = json!({
            "total": usage.total(), "catalog": catalog, "vectors": vectors, "graphs": graphs,
            "reindex": reindex, "other": other,
        });
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
    let Manifest { images, failed, rows, precision, .. } = &manifest;
    print(&format!("name         {}", args.name))?;
    print(&format!("images       {images}"))?;
    print(&format!("failed       {failed}"))?;
    model(&manifest)?;
    print(&format!("stored       {precision}, {rows} rows, {dead_rows} of no image"))?;
    print(&format!("search       {}", search(&manifest, &usage)))?;
    print(&format!(
        "on disk      {} (vectors {}, records {}, graphs {}) in {}",
        megabytes(usage.total()),
        megabytes(usage.vectors),
        megabytes(usage.catalog),
        megabytes(usage.graphs),
        manifest.data,
    ))?;
    if usage.reindex > 0 {
        print(&format!(
            "unfinished   a reindex of {}: run the same `akin collection reindex` again, or add \
             --abandon",
            megabytes(usage.reindex)
        ))?;
    }
    for failure in failures {
        print(&format!("failure      {}: {}", failure.path, failure.reason))?;
    }
    Ok(Success::Done)
}

/// What a manifest says of its model.
pub fn model(manifest: &Manifest) -> Outcome<()> {
    let Manifest { model, fingerprint, .. } = manifest;
    print(&format!("model        {} (weights {})", model.name, model.weights_sha256))?;
    print(&format!("embedding    {} x {}", model.dim, model.pooling))?;
    let (resize, crop) = (model.preprocess.resize, model.preprocess.crop);
    print(&format!(
        "input        resize {resize}, crop {crop}, icc {}, decode {}",
        model.icc, model.decode
    ))?;
    print(&format!("positions    {}", model.pos_embed))?;
    print(&format!("fingerprint  {fingerprint}"))
}

/// How searches without filter go.
fn search(manifest: &Manifest, usage: &Usage) -> &'static str {
    match (manifest.images >= manifest.ann_from, usage.graphs > 0) {
        (false, _) => "exact",
        (true, true) => "graph",
        (true, false) => "exact, its graph is missing",
    }
}

pub fn manifest_json(name: &str, manifest: &Manifest) -> serde_json::Value {
    json!({
        "name": name,
        "images": manifest.images,
        "failed": manifest.failed,
        "rows": manifest.rows,
        "dim": manifest.model.dim,
        "model": manifest.model.name,
        "model_source": manifest.model_source,
        "fingerprint": manifest.fingerprint,
        "weights_sha256": manifest.model.weights_sha256,
        "pooling": manifest.model.pooling,
        "pos_embed": manifest.model.pos_embed,
        "preprocess": manifest.model.preprocess,
        "icc": manifest.model.icc,
        "decode": manifest.model.decode,
        "metric": manifest.metric,
        "precision": manifest.precision,
        "ann_from": manifest.ann_from,
        "data": manifest.data,
        "format_version": manifest.format_version,
    })
}
