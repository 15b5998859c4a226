//! Folders into a collection: only what is new or changed is read, only what has new content is
//! embedded, and whatever stops it, what was committed stays.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::Embedder;

use crate::collection::{Collection, NewImage};
use crate::error::Result;
use crate::id::ImageId;
use crate::locator::Locator;
use crate::pipeline::{self, Outcome, Skipped};
use crate::record::{Failure, Known, Payload, Record};
use crate::source::{self, SourceFile};

/// A commit at least this often, so that an interruption loses little work.
const COMMIT_EVERY: Duration = Duration::from_secs(10);
const COMMIT_IMAGES: usize = 1000;

/// Choices of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngestOptions {
    /// Try files again that failed before and have not changed since.
    pub retry_failed: bool,
    /// Only list what would be done.
    pub dry_run: bool,
}

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum IngestEvent<'a> {
    /// Files were listed; so many are to be read.
    Listed {
        /// Files to read.
        to_read: usize,
    },
    /// One more file is done.
    Done,
    /// One more file was skipped.
    Skipped(&'a Skipped),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// Images embedded that were not in the collection.
    pub added: usize,
    /// Images embedded again because their content changed.
    pub updated: usize,
    /// Files known and unchanged.
    pub unchanged: usize,
    /// Files that are no pictures by content and name.
    pub not_pictures: usize,
    /// Pictures that could not be read, now or before, with reasons.
    pub skipped: Vec<Skipped>,
    /// Whether it was stopped before the end.
    pub cancelled: bool,
    /// In a dry run, the files that would have been read.
    pub would_read: Vec<PathBuf>,
}

/// Brings a collection up to date with files and folders.
///
/// # Errors
/// A source does not exist, the model is not the collection's, or the collection cannot be
/// written. Unreadable pictures are in the report instead.
pub fn ingest(
    collection: &mut Collection,
    embedder: &dyn Embedder,
    sources: &[PathBuf],
    options: IngestOptions,
    on_event: &mut dyn FnMut(IngestEvent<'_>),
    cancel: &AtomicBool,
) -> Result<IngestReport> {
    collection.check_model(embedder.identity())?;
    let listing = source::list(sources)?;
    let mut report = IngestReport::default();
    for (path, reason) in listing.unreadable {
        report.skipped.push(Skipped { path, reason, not_a_picture: false });
    }

    let mut to_read = Vec::new();
    // Images whose file changed in size or time; their content may still be the same.
    let mut touched: HashMap<PathBuf, (ImageId, Record)> = HashMap::new();
    for file in listing.files {
        match collection.known(&Locator::from(file.path.as_path()))? {
            Some(Known::Image(_, record)) if record.stamp == file.stamp => report.unchanged += 1,
            Some(Known::Failed(failure))
                if failure.stamp == file.stamp && !options.retry_failed =>
            {
                note(&mut report, known_failure(&file, &failure));
            }
            known => {
                if let Some(Known::Image(id, record)) = known {
                    touched.insert(file.path.clone(), (id, record));
                }
                to_read.push(file);
            }
        }
    }
    if options.dry_run {
        report.would_read = to_read.into_iter().map(|file| file.path).collect();
        return Ok(report);
    }
    on_event(IngestEvent::Listed { to_read: to_read.len() });

    let mut last_commit = Instant::now();
    pipeline::run(
        &to_read,
        embedder,
        cancel,
        &|file, sha256| touched.get(&file.path).is_some_and(|(_, old)| old.sha256 == *sha256),
        &|batch| embedder.embed(batch),
        &mut |file, outcome| {
            let path = Locator::from(file.path.as_path());
            match outcome {
                Outcome::Done(picture, embedding) => {
                    let image = NewImage {
                        path,
                        sha256: picture.sha256,
                        stamp: file.stamp,
                        width: picture.width,
                        height: picture.height,
                        warning: picture.warning,
                        payload: Payload::new(),
                    };
                    collection.put(image, &embedding)?;
                    match touched.contains_key(&file.path) {
                        true => report.updated += 1,
                        false => report.added += 1,
                    }
                    on_event(IngestEvent::Done);
                }
                Outcome::Unchanged => {
                    if let Some((id, record)) = touched.get(&file.path) {
                        collection.touch(*id, record.clone(), file.stamp)?;
                    }
                    report.unchanged += 1;
                    on_event(IngestEvent::Done);
                }
                Outcome::Skipped(skipped) => {
                    on_event(IngestEvent::Skipped(&skipped));
                    collection.fail(&Failure {
                        path,
                        reason: skipped.reason.clone(),
                        not_a_picture: skipped.not_a_picture,
                        stamp: file.stamp,
                    })?;
                    note(&mut report, skipped);
                }
            }
            let due =
                collection.uncommitted() >= COMMIT_IMAGES || last_commit.elapsed() >= COMMIT_EVERY;
            if due {
                collection.commit()?;
                last_commit = Instant::now();
            }
            Ok(())
        },
    )?;
    collection.finish()?;
    report.cancelled = cancel.load(Ordering::Relaxed);
    report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

fn note(report: &mut IngestReport, skipped: Skipped) {
    if skipped.not_a_picture {
        report.not_pictures += 1;
    } else {
        report.skipped.push(skipped);
    }
}

fn known_failure(file: &SourceFile, failure: &Failure) -> Skipped {
    Skipped {
        path: file.path.clone(),
        reason: failure.reason.clone(),
        not_a_picture: failure.not_a_picture,
    }
}
