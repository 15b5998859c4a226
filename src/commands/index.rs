//! `akin index`.

use std::time::Instant;

use engine::{Embedder, shipped};
use indexer::{Collection, Collections, IngestEvent, IngestOptions, IngestReport, ingest};
use serde_json::json;

use crate::args::IndexArgs;
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::{CANCELLED, FileProgress, list_skipped};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &IndexArgs) -> Outcome {
    let collections = Collections::new(&settings.home);
    let exists = collections.exists(&args.collection)?;
    // A wrong path should not cost the time of opening a model first.
    indexer::source::list(&args.sources)?;
    let opened = match exists {
        true => {
            let manifest = collections.manifest(&args.collection)?;
            embedder::for_collection(settings, &args.input, &manifest)?
        }
        false => {
            if settings.model.is_none() && !settings.quiet {
                note(&format!(
                    "using the built-in model {}; for a larger one: `akin model pull vits14_reg`, \
                     then `--model vits14_reg`",
                    shipped::NAME
                ));
            }
            embedder::open(settings, &args.input)?
        }
    };
    let identity = opened.embedder.identity();
    let mut collection = match exists {
        true => collections.open(&args.collection)?,
        false => collections.create(&args.collection, identity, None)?,
    };
    collection.check_model(identity)?;
    collection.set_model_source(&opened.source)?;

    let start = Instant::now();
    let mut progress = None;
    let mut on_event = |event: IngestEvent<'_>| match event {
        IngestEvent::Listed { to_read } => progress = Some(FileProgress::new(settings, to_read)),
        IngestEvent::Done => {
            if let Some(progress) = &progress {
                progress.done();
            }
        }
        IngestEvent::Skipped(skipped) => {
            if let Some(progress) = &mut progress {
                progress.skipped(skipped);
            }
        }
    };
    let options = IngestOptions { retry_failed: args.retry_failed, dry_run: args.dry_run };
    let report = ingest(
        &mut collection,
        &opened.embedder,
        &args.sources,
        options,
        &mut on_event,
        &CANCELLED,
    )?;
    if let Some(progress) = progress {
        progress.finish();
    }
    list_skipped(&report.skipped);
    show(settings, &collection, &report, start.elapsed().as_secs_f64())?;
    if report.cancelled {
        let name = collection.name();
        return Err(Failure::Failed(format!(
            "stopped; `{name}` is usable as far as it got, and the same command goes on from here"
        )));
    }
    Ok(Success::unless_skipped(report.skipped.len()))
}

fn show(
    settings: &Settings,
    collection: &Collection,
    report: &IngestReport,
    seconds: f64,
) -> Outcome<()> {
    let IngestReport { added, updated, unchanged, not_pictures, skipped, .. } = report;
    if settings.json {
        let listed: Vec<_> = skipped
            .iter()
            .map(
                |skipped| json!({"path": skipped.path.to_string_lossy(), "reason": skipped.reason}),
            )
            .collect();
        let would_read: Vec<_> =
            report.would_read.iter().map(|path| path.to_string_lossy()).collect();
        return print_json(&json!({
            "collection": collection.name(),
            "model": collection.manifest().model.name,
            "images": collection.len(),
            "added": added,
            "updated": updated,
            "unchanged": unchanged,
            "not_pictures": not_pictures,
            "skipped": listed,
            "would_read": would_read,
            "cancelled": report.cancelled,
            "seconds": seconds,
        }));
    }
    for path in &report.would_read {
        print(&format!("would read {}", path.display()))?;
    }
    if settings.quiet {
        return Ok(());
    }
    let rate = (added + updated) as f64 / seconds.max(1e-9);
    note(&format!(
        "{}: {} images ({added} added, {updated} updated, {unchanged} unchanged, {} skipped, \
         {not_pictures} other files) in {seconds:.1} s, {rate:.1} images/s",
        collection.name(),
        collection.len(),
        skipped.len(),
    ));
    Ok(())
}
