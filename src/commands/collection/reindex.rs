//! `akin collection reindex`.

use engine::Embedder;
use indexer::{Collections, Manifest, Precision, ReindexOptions, ReindexReport, StorageChoices};
use serde_json::json;

use super::count;
use crate::args::{PrecisionArg, ReindexArgs};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print_json};
use crate::progress::{list_skipped, with_steps};
use crate::settings::Settings;

pub fn run(settings: &Settings, collections: &Collections, args: &ReindexArgs) -> Outcome {
    let name = &args.name;
    if args.keep_missing {
        return Err(Failure::Usage(
            "images whose picture is missing cannot keep their embedding: those of two models cannot \
             be compared, so a collection has one model; they become failures, and come back when \
             their files do"
                .to_owned(),
        ));
    }
    if args.abandon {
        return abandon(settings, collections, name);
    }
    let manifest = collections.manifest(name)?;
    let precision = args.precision.map(|precision| match precision {
        PrecisionArg::F16 => Precision::F16,
        PrecisionArg::F32 => Precision::F32,
    });
    let is_finer = precision == Some(Precision::F32) && manifest.precision == Precision::F16;
    let may_differ = settings.model.is_some() || !args.input.is_default();
    if !is_finer && !may_differ {
        return store(settings, collections, args, &manifest, precision);
    }
    let opened = embedder::to_replace(settings, &args.input, &manifest)?;
    if !is_finer && opened.embedder.identity().fingerprint() == manifest.fingerprint {
        return store(settings, collections, args, &manifest, precision);
    }
    let options = ReindexOptions {
        precision,
        ann_from: args.ann_from,
        model_source: Some(opened.source.clone()),
        restart: args.restart,
        prune: args.prune,
    };
    let report = with_steps(settings, |progress| {
        collections.reindex(name, &opened.embedder, &options, progress)
    })?;
    show(settings, name, &collections.manifest(name)?, &report)?;
    list_skipped(&report.skipped);
    Ok(Success::unless_skipped(report.skipped.len()))
}

/// What needs no picture.
fn store(
    settings: &Settings,
    collections: &Collections,
    args: &ReindexArgs,
    manifest: &Manifest,
    precision: Option<Precision>,
) -> Outcome {
    let name = &args.name;
    let choices = StorageChoices { precision, ann_from: args.ann_from };
    if choices == StorageChoices::default() {
        return Err(Failure::Usage(format!(
            "`{name}` is made with {} and these settings already; name another model (--model), \
             other settings (--size, --pooling, …), --precision or --ann-from",
            manifest.model.name
        )));
    }
    let is_changed =
        with_steps(settings, |progress| collections.store_otherwise(name, choices, progress))?;
    if settings.json {
        print_json(&json!({
            "collection": name, "is_changed": is_changed, "images": manifest.images, "embedded": 0,
            "skipped": [],
        }))?;
    } else if !settings.quiet {
        note(&match is_changed {
            true => format!("{name}: rewritten from the vectors there were"),
            false => format!("{name}: it is so already, nothing to do"),
        });
    }
    Ok(Success::Done)
}

fn abandon(settings: &Settings, collections: &Collections, name: &str) -> Outcome {
    let is_dropped = collections.abandon_reindex(name)?;
    if settings.json {
        print_json(&json!({"collection": name, "is_dropped": is_dropped}))?;
    } else if !settings.quiet {
        note(&match is_dropped {
            true => format!("{name}: dropped the unfinished reindex"),
            false => format!("{name}: there is no unfinished reindex"),
        });
    }
    Ok(Success::Done)
}

fn show(
    settings: &Settings,
    name: &str,
    manifest: &Manifest,
    report: &ReindexReport,
) -> Outcome<()> {
    if settings.json {
        let skipped: Vec<_> = report
            .skipped
            .iter()
            .map(
                |skipped| json!({"path": skipped.path.to_string_lossy(), "reason": skipped.reason}),
            )
            .collect();
        return print_json(&json!({
            "collection": name,
            "is_changed": true,
            "model": manifest.model.name,
            "images": report.images,
            "embedded": report.embedded,
            "skipped": skipped,
        }));
    }
    if !settings.quiet {
        note(&format!(
            "{name}: {} under {} now, {} embedded in this run, {} without a picture",
            count(report.images, "image"),
            manifest.model.name,
            report.embedded,
            report.skipped.len()
        ));
    }
    Ok(())
}
