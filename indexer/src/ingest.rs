//! Sources into a collection: only what is new or changed is read, only what has new content is
//! embedded, and whatever stops it, what was committed stays.
//!
//! What was listed is compared with what is known, both in the order of their bytes. A new file with
//! the content of one that has gone is that image, moved: it keeps its id and vector. A new file
//! with the content of one that is still there takes over its vector. What has gone is removed,
//! unless so much has gone that it may only be out of reach.
//!
//! Whoever runs it may change the collection between two of its steps ([`IngestEvent::Between`]). So
//! what was known when a block was listed is looked up again before it is written: an image that was
//! removed meanwhile stays away, and a payload that was changed stays changed.

mod block;
mod gone;
mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::Embedder;

use self::gone::Gone;
use crate::collection::Collection;
use crate::error::{IndexerError, Result};
use crate::metadata::{Metadata, Unmatched};
use crate::pipeline::Skipped;
use crate::source::{self, EmbeddingSource, Source, SourceOptions};

/// A commit at least this often, so that an interruption loses little work. The first ones come sooner,
/// each after twice the time, so that there is something to search soon.
const COMMIT_EVERY: Duration = Duration::from_secs(10);
const FIRST_COMMIT: Duration = Duration::from_secs(1);
const COMMIT_IMAGES: usize = 1000;

/// Choices of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngestOptions {
    /// Try files again that failed before and have not changed since.
    pub retry_failed: bool,
    /// Only list what would be done.
    pub dry_run: bool,
    /// Remove what has gone, however much it is and even if its whole folder has.
    pub prune: bool,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum IngestEvent<'a> {
    /// Files were listed; so many more are to be read.
    Listed {
        /// Files to read.
        to_read: usize,
    },
    /// One more file is done.
    Done,
    /// One more file was skipped.
    Skipped(&'a Skipped),
    /// Between two steps: the collection may be changed here, and the changes committed, with what
    /// the run has noted so far. Comes several times a second, except while a batch is computed.
    Between(&'a mut Collection),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// Images that were not in the collection.
    pub added: usize,
    /// Of those added or updated, images that took over the vector of another with their content.
    pub copied: usize,
    /// Images whose content changed.
    pub updated: usize,
    /// Images found at another path; nothing was computed for them.
    pub moved: usize,
    /// Images that were removed because their files have gone.
    pub removed: usize,
    /// Files known and unchanged.
    pub unchanged: usize,
    /// Of those unchanged, images whose payload changed.
    pub payload_updated: usize,
    /// Files that are no pictures by content and name.
    pub not_pictures: usize,
    /// Pictures that could not be read, now or before, with reasons.
    pub skipped: Vec<Skipped>,
    /// Where images have gone that were not removed.
    pub held_back: Vec<HeldBack>,
    /// Rows of the payload table that no picture was found for.
    pub unmatched: Unmatched,
    /// Whether it was stopped before the end.
    pub cancelled: bool,
    /// In a dry run, the files that would have been read.
    pub would_read: Vec<PathBuf>,
    /// In a dry run, those of them that are not in the collection.
    pub would_add: Vec<PathBuf>,
    /// In a dry run, those of them that are, and that changed in size or time.
    pub would_update: Vec<PathBuf>,
    /// In a dry run, images that would be found at another path: from where to where.
    pub would_move: Vec<(PathBuf, PathBuf)>,
    /// In a dry run, images that would be removed.
    pub would_remove: Vec<PathBuf>,
}

/// Images that have gone and were kept all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Folder or archive.
    pub root: PathBuf,
    /// Images that have gone.
    pub gone: usize,
    /// Images known there.
    pub known: usize,
    /// Whether it is not there at all.
    pub missing: bool,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, gone, known, missing } = self;
        let state = if *missing { " is not there and" } else { "" };
        write!(
            f,
            "{}{state} lacks {gone} of the {known} images known in it; they were kept; if they are \
             gone for good: --prune",
            root.display()
        )
    }
}

/// Brings a collection up to date with files, folders and whatever else [`source::open`] takes.
///
/// # Errors
/// As [`ingest_sources`].
pub fn ingest(
    collection: &mut Collection,
    embedder: &dyn Embedder,
    sources: &[PathBuf],
    options: IngestOptions,
    on_event: &mut dyn FnMut(IngestEvent<'_>),
    cancel: &AtomicBool,
) -> Result<IngestReport> {
    let mut sources = source::open(sources, &SourceOptions::default())?;
    let metadata = Metadata::none();
    ingest_sources(collection, embedder, &mut sources, &metadata, options, on_event, cancel)
}

/// Brings a collection up to date with sources.
///
/// # Errors
/// A source does not exist and nothing of it is known, the model is not the collection's, or the
/// collection cannot be written. Unreadable pictures are in the report instead.
pub fn ingest_sources(
    collection: &mut Collection,
    embedder: &dyn Embedder,
    sources: &mut [Box<dyn Source>],
    metadata: &Metadata,
    options: IngestOptions,
    on_event: &mut dyn FnMut(IngestEvent<'_>),
    cancel: &AtomicBool,
) -> Result<IngestReport> {
    collection.check_model(embedder.identity())?;
    let mut run = Run::new(collection, Some(embedder), metadata, options, on_event, cancel);
    for source in sources {
        run.source(&mut **source)?;
    }
    run.end()
}

/// Brings a collection up to date with embeddings that were computed elsewhere.
///
/// # Errors
/// The model that made them is not the collection's, or the collection cannot be written. Vectors
/// that are none are in the report instead.
pub fn ingest_embeddings(
    collection: &mut Collection,
    source: &mut EmbeddingSource,
    metadata: &Metadata,
    options: IngestOptions,
    on_event: &mut dyn FnMut(IngestEvent<'_>),
    cancel: &AtomicBool,
) -> Result<IngestReport> {
    let (got, expected) = (source.identity().dim, collection.manifest().model.dim);
    if got != expected {
        return Err(IndexerError::Dimension { got, expected });
    }
    collection.check_model(source.identity())?;
    let mut run = Run::new(collection, None, metadata, options, on_event, cancel);
    run.source(source)?;
    run.end()
}

/// One run over some sources.
struct Run<'a> {
    collection: &'a mut Collection,
    /// None where all sources give vectors.
    embedder: Option<&'a dyn Embedder>,
    metadata: &'a Metadata,
    options: IngestOptions,
    on_event: &'a mut dyn FnMut(IngestEvent<'_>),
    cancel: &'a AtomicBool,
    report: IngestReport,
    last_commit: Instant,
    commit_after: Duration,
}

impl<'a> Run<'a> {
    fn new(
        collection: &'a mut Collection,
        embedder: Option<&'a dyn Embedder>,
        metadata: &'a Metadata,
        options: IngestOptions,
        on_event: &'a mut dyn FnMut(IngestEvent<'_>),
        cancel: &'a AtomicBool,
    ) -> Self {
        let report = IngestReport::default();
        let (last_commit, commit_after) = (Instant::now(), FIRST_COMMIT);
        Self {
            collection,
            embedder,
            metadata,
            options,
            on_event,
            cancel,
            report,
            last_commit,
            commit_after,
        }
    }

    fn source(&mut self, source: &mut dyn Source) -> Result<()> {
        while !self.cancelled() {
            self.between();
            let Some(block) = source.next_block(self.cancel)? else { break };
            self.block(source, block)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<IngestReport> {
        if !self.options.dry_run {
            let on_event = &mut *self.on_event;
            let between = &mut |collection: &mut Collection| {
                on_event(IngestEvent::Between(collection));
            };
            self.collection.finish_between(between)?;
        }
        self.report.cancelled = self.cancelled();
        self.report.unmatched = self.metadata.unmatched();
        self.report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.report)
    }

    /// Lets whoever runs this change the collection.
    fn between(&mut self) {
        if !self.options.dry_run {
            (self.on_event)(IngestEvent::Between(self.collection));
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn block(&mut self, source: &mut dyn Source, block: source::Block) -> Result<()> {
        let plan = self.plan(block)?;
        let mut gone =
            Gone::new(self.collection, plan.gone, plan.tallies, !plan.wanted.is_empty())?;
        for (entry, id) in plan.recheck {
            self.update_payload(&entry, id)?;
        }
        match self.options.dry_run {
            true => self.dry_block(source, plan.wanted, &plan.priors, &mut gone)?,
            false => self.load_block(source, plan.wanted, &plan.priors, &mut gone)?,
        }
        // What was not read may be where something has gone to.
        if !self.cancelled() {
            self.settle(gone)?;
        }
        Ok(())
    }

    fn commit_if_due(&mut self) -> Result<()> {
        let due = self.collection.uncommitted() >= COMMIT_IMAGES
            || self.last_commit.elapsed() >= self.commit_after;
        if due {
            self.collection.commit()?;
            self.last_commit = Instant::now();
            self.commit_after = (2 * self.commit_after).min(COMMIT_EVERY);
        }
        Ok(())
    }

    fn note(&mut self, skipped: Skipped) {
        if skipped.not_a_picture {
            self.report.not_pictures += 1;
        } else {
            self.report.skipped.push(skipped);
        }
    }

    /// Removes what has gone, or says why it is kept.
    fn settle(&mut self, gone: Gone) -> Result<()> {
        let known_under = |prefix: &[u8]| gone::count_images(self.collection, prefix);
        let verdict = gone.judge(self.options.prune, &known_under)?;
        self.report.held_back.extend(verdict.held_back);
        for (id, path) in verdict.remove {
            if self.options.dry_run {
                self.report.would_remove.push(path.to_path());
                continue;
            }
            if self.collection.remove(id)? {
                self.report.removed += 1;
            }
            self.commit_if_due()?;
        }
        if !self.options.dry_run {
            for path in verdict.forget {
                self.collection.forget_failure(&path)?;
                self.commit_if_due()?;
            }
        }
        Ok(())
    }
}

/// By what their roots are called, in a stable order.
type Tallies = BTreeMap<PathBuf, gone::Tally>;
