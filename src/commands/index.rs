//! `akin index`.

use std::path::PathBuf;
use std::time::Instant;

use engine::{Embedder, shipped};
use indexer::{Collection, Collections, CreateOptions, IngestEvent, IngestOptions, IngestReport, ingest};
use serde_json::json;

use crate::args::{IndexArgs, InputArgs};
use crate::embedder::{self, Opened};
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::{CANCELLED, FileProgress, list_skipped};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &IndexArgs) -> Outcome {
    // A wrong path should not cost the time of opening a model first.
    indexer::source::list(&args.sources)?;
    let (mut collection, opened) = open_or_create(settings, &args.collection, &args.input)?;
    let start = Instant::now();
    let options = IngestOptions { retry_failed: args.retry_failed, dry_run: args.dry_run };
    let report =
        with_progress(settings, &mut collection, &opened.embedder, &args.sources, options)?;
    show(settings, &collection, &report, start.elapsed().as_secs_f64())?;
    end(&collection, &report)
}

/// A collection and the model it is made with: its own when it exists, else that of the settings.
pub fn open_or_create(
    settings: &Settings,
    name: &str,
    input: &InputArgs,
) -> Outcome<(Collection, Opened)> {
    let collections = Collections::new(&settings.home);
    let opened = match collections.exists(name)? {
        true => embedder::for_collection(settings, input, &collections.manifest(name)?)?,
        false => {
            if settings.model.is_none() && !settings.quiet {
                note(&format!(
                    "using the built-in model {}; for a larger one: `akin model pull vits14_reg`, \
                     then `--model vits14_reg`",
                    shipped::NAME
                ));
            }
            embedder::open(settings, input)?
        }
    };
    Ok((open_with(settings, name, &opened)?, opened))
}

/// A collection made with this model, new if there is none.
pub fn open_with(settings: &Settings, name: &str, opened: &Opened) -> Outcome<Collection> {
    let collections = Collections::new(&settings.home);
    let identity = opened.embedder.identity();
    let mut collection = match collections.exists(name)? {
        true => collections.open(name)?,
        false => collections.create(name, identity, CreateOptions::default())?,
    };
    collection.check_model(identity)?;
    collection.set_model_source(&opened.source)?;
    Ok(collection)
}

/// Brings a collection up to date, with a bar, and lists what was skipped.
pub fn with_progress(
    settings: &Settings,
    collection: &mut Collection,
    model: &dyn Embedder,
    sources: &[PathBuf],
    options: IngestOptions,
) -> Outcome<IngestReport> {
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
    let report = ingest(collection, model, sources, options, &mut on_event, &CANCELLED)?;
    if let Some(progress) = progress {
        progress.finish();
    }
    list_skipped(&report.skipped);
    Ok(report)
}

/// How a command that brought a collection up to date ends.
pub fn end(collection: &Collection, report: &IngestReport) -> Outcome {
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
