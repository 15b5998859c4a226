//! `akin index --watch`: the same again, for whatever is touched.

use std::path::PathBuf;
use std::time::Instant;

use engine::Embedder;
use indexer::metadata::Metadata;
use indexer::source::{Source, SourceOptions};
use indexer::watch::{Watch, WatchTiming};
use indexer::{Collection, IngestOptions, ingest_sources};

use super::{observed, report};
use crate::outcome::{Failure, Outcome, Success, note};
use crate::progress::CANCELLED;
use crate::settings::Settings;

/// Watches the files and folders among what was named.
pub(super) fn start(named: &[PathBuf]) -> Outcome<Watch> {
    let folders: Vec<PathBuf> = named.iter().filter(|path| path.is_dir()).cloned().collect();
    if folders.is_empty() {
        return Err(Failure::Usage("--watch needs a folder among the sources".to_owned()));
    }
    Ok(Watch::new(&folders, WatchTiming::default())?)
}

/// Goes on until Ctrl-C, which ends it well.
pub(super) fn run(
    settings: &Settings,
    mut watch: Watch,
    collection: &mut Collection,
    model: &dyn Embedder,
    metadata: &Metadata,
    options: &SourceOptions,
) -> Outcome {
    if !settings.quiet {
        note("watching; Ctrl-C ends it");
    }
    while let Some(batch) = watch.next(&CANCELLED)? {
        let start = Instant::now();
        let mut sources: Vec<Box<dyn Source>> = batch.sources(options)?;
        let report = observed(settings, &mut |on_event| {
            let choices = IngestOptions::default();
            ingest_sources(collection, model, &mut sources, metadata, choices, on_event, &CANCELLED)
        })?;
        let nothing = report.added + report.updated + report.moved + report.removed == 0;
        if !nothing || settings.json {
            report::show(settings, collection, &report, start.elapsed().as_secs_f64())?;
        }
    }
    Ok(Success::Done)
}
