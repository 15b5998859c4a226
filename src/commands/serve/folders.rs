//! Folders of `akin serve`: indexed in the background, and watched.

use std::path::PathBuf;
use std::sync::Arc;

use indexer::metadata::Metadata;
use indexer::source::SourceOptions;
use indexer::watch::{Batch, Watch, WatchTiming};
use indexer::{IngestEvent, IngestOptions, IngestReport, ingest_sources};
use web::AppState;
use web::shelf::Served;

use crate::args::ServeArgs;
use crate::outcome::{Failure, Outcome, note};
use crate::progress::CANCELLED;

/// Where folders really are, which must be there.
pub fn real<'a>(folders: impl IntoIterator<Item = &'a PathBuf>) -> Outcome<Vec<PathBuf>> {
    let real = |folder: &PathBuf| match folder.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", folder.display()))),
    };
    folders.into_iter().map(real).collect()
}

/// Begins to note what changes in folders.
pub fn watch(folders: &[PathBuf]) -> Outcome<Watch> {
    if folders.iter().any(|folder| !folder.is_dir()) {
        return Err(Failure::Usage("--watch needs folders after --index".to_owned()));
    }
    Ok(Watch::new(folders, WatchTiming::default())?)
}

/// Indexes folders in the background, and whatever changes in them. Must be called where tasks can
/// be spawned.
pub fn index(
    state: &AppState,
    args: &ServeArgs,
    folders: Vec<PathBuf>,
    watch: Option<Watch>,
) -> Outcome<()> {
    if folders.is_empty() {
        return Ok(());
    }
    let name = args.collection.first().map_or("default", String::as_str);
    let served = state.shelf.find(name);
    let served = served.ok_or_else(|| Failure::Failed(format!("`{name}` is not open")))?;
    let job = state.index(Arc::clone(&served), folders).map_err(Failure::from)?;
    let mut watched = state.jobs.watch(&job.id).map_err(Failure::from)?;
    let name = name.to_owned();
    tokio::spawn(async move {
        let job = loop {
            let job = watched.job();
            if job.is_over() {
                break job;
            }
            watched.changed().await;
        };
        let said = match job.problem {
            Some(problem) => {
                let detail = problem["detail"].as_str().unwrap_or("see the log");
                format!("akin: indexing into `{name}` failed: {detail}")
            }
            None => format!(
                "akin: `{name}` is up to date: {} files looked at, {} could not be read",
                job.progress.done, job.failed_count
            ),
        };
        note(&said);
    });
    if let Some(mut watch) = watch {
        let state = state.clone();
        // It ends with the process: there is nothing to be saved in waiting.
        std::thread::spawn(move || {
            while let Ok(Some(batch)) = watch.next(&CANCELLED) {
                match bring_in(&state, &served, &batch) {
                    Ok(report) => tracing::info!(
                        collection = served.name(),
                        added = report.added,
                        updated = report.updated,
                        moved = report.moved,
                        removed = report.removed,
                        "folders changed"
                    ),
                    Err(error) => tracing::warn!(collection = served.name(), %error, "not indexed"),
                }
            }
        });
    }
    Ok(())
}

fn bring_in(
    state: &AppState,
    served: &Served,
    batch: &Batch,
) -> Result<IngestReport, Box<dyn std::error::Error>> {
    let model = state.models.for_collection(served.view().manifest())?;
    let mut sources = batch.sources(&SourceOptions::default())?;
    let mut collection = served.write_blocking();
    let options = IngestOptions::default();
    let nothing = Metadata::none();
    let cancel = &CANCELLED;
    let attending = served.attending();
    let mut on_event = |event: IngestEvent<'_>| {
        if let IngestEvent::Between(collection) = event {
            served.attend(collection);
        }
    };
    let report = ingest_sources(
        &mut collection,
        &*model,
        &mut sources,
        &nothing,
        options,
        &mut on_event,
        cancel,
    );
    drop(attending);
    served.written(&collection);
    Ok(report?)
}
