//! Long work, one after the other: indexing, finding duplicates, curating, exporting, compacting,
//! snapshots.
//!
//! One thread does it, so that no two write to one collection and searches keep most of the machine.
//! What jobs do is on disk when they say so; the list of jobs is in memory alone, and a restart
//! begins it anew.

mod context;
pub mod compact;
pub mod curate;
pub mod dedup;
pub mod export;
pub mod index;
pub mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexer::IndexerError;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use utoipa::ToSchema;

pub use self::context::Context;
use crate::clock::{Clock, rfc3339};
use crate::problem::{Answer, Code, Problem};

/// Jobs that may wait.
const MOST_QUEUED: usize = 64;
/// Finished jobs that are remembered.
const MOST_FINISHED: usize = 200;
/// Failed items that are listed.
const MOST_ITEMS: usize = 1000;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Brings a collection up to date with folders.
    Index,
    /// Finds duplicates in a collection.
    Dedup,
    /// Grows a data set.
    Curate,
    /// Writes a curated run as files.
    Export,
    /// Writes a collection into one file.
    Snapshot,
    /// Gives back the space of images that are gone.
    Compact,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for those before it.
    Queued,
    /// At work.
    Running,
    /// Did what it was to do.
    Done,
    /// Could not do it; `problem` says why.
    Failed,
    /// Was told to stop. What an index job had committed stays.
    Cancelled,
}

impl JobState {
    fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// How far work is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ProgressBody {
    /// Steps done.
    pub done: u64,
    /// Steps in all, as far as is known.
    pub total: Option<u64>,
    /// Steps a second.
    pub rate: f64,
    /// Seconds until the end, as far as can be told.
    pub eta_s: Option<f64>,
    /// What is being done.
    pub message: String,
}

/// A file that a job could not use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedItem {
    /// Where it is.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// What it does.
    pub kind: Kind,
    /// How far it is.
    pub state: JobState,
    /// The collection it works on.
    pub collection: String,
    /// The curation run it works on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When it was asked for (RFC 3339).
    pub created: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How far its work is.
    pub progress: ProgressBody,
    /// The first 1,000 files that it could not use.
    pub failed_items: Vec<FailedItem>,
    /// All files that it could not use.
    pub failed_count: u64,
    /// What it did; only when it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why it failed, as a problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub problem: Option<Value>,
}

/// Why a job came to no result.
#[derive(Debug)]
pub enum Ended {
    /// It was told to stop.
    Cancelled,
    /// It could not go on.
    Failed(Problem),
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<IndexerError> for Ended {
    fn from(error: IndexerError) -> Self {
        match error {
            IndexerError::Cancelled | IndexerError::Stopped { .. } => Self::Cancelled,
            // What was to be read, or that the disk is full, is for whoever asked to know.
            IndexerError::Source { .. } | IndexerError::NoRoom { .. } => {
                Self::Failed(Problem::new(Code::Conflict, error.to_string()))
            }
            error => Self::Failed(error.into()),
        }
    }
}

type Work = Box<dyn FnOnce(&Context) -> Result<Value, Ended> + Send>;

/// What is known of one job.
struct Entry {
    job: Mutex<Job>,
    cancel: AtomicBool,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Job)) {
        change(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }
}

#[derive(Default)]
struct State {
    /// All that are remembered, oldest first.
    jobs: BTreeMap<u64, Arc<Entry>>,
    next: u64,
    queue: VecDeque<(Arc<Entry>, Work)>,
    is_ending: bool,
}

/// All jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    clock: Clock,
    /// Whether the thread is at work.
    busy: watch::Sender<bool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> String {
        rfc3339(i64::try_from(self.clock.unix().as_secs()).unwrap_or(i64::MAX))
    }
}

/// A job that is watched.
pub struct Watched {
    entry: Arc<Entry>,
    changes: watch::Receiver<u64>,
}

impl Watched {
    /// The job as it is.
    pub fn job(&self) -> Job {
        self.entry.lock().clone()
    }

    /// Everything up to now counts as known.
    pub fn seen(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits until it is another than it was.
    pub async fn changed(&mut self) {
        // The sender is in the entry, which is held here.
        let _ = self.changes.changed().await;
    }
}

impl Job {
    /// Whether it works on this run.
    pub fn is_about(&self, run: &str) -> bool {
        self.run.as_deref() == Some(run)
    }

    /// Whether it will not change any more.
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }
}

impl Jobs {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(clock: Clock) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            clock,
            busy: watch::Sender::new(false),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("jobs".to_owned()).spawn(move || {
            while let Some(shared) = weak.upgrade() {
                if !turn(&shared) {
                    break;
                }
            }
        })?;
        Ok(Self(shared))
    }

    /// Adds a job to the line.
    ///
    /// # Errors
    /// The line is full, or the server is ending.
    pub fn submit(
        &self,
        kind: Kind,
        collection: &str,
        run: Option<&str>,
        work: impl FnOnce(&Context) -> Result<Value, Ended> + Send + 'static,
    ) -> Answer<Job> {
        let id = crate::random::hex::<6>().map_err(Problem::internal)?;
        let job = Job {
            id: format!("{}-{id}", word(kind)),
            kind,
            state: JobState::Queued,
            collection: collection.to_owned(),
            run: run.map(str::to_owned),
            created: self.0.now(),
            started: None,
            ended: None,
            progress: ProgressBody::default(),
            failed_items: Vec::new(),
            failed_count: 0,
            result: None,
            problem: None,
        };
        let entry = Arc::new(Entry {
            job: Mutex::new(job.clone()),
            cancel: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        });
        let mut state = self.0.lock();
        if state.is_ending {
            return Err(Problem::new(Code::Draining, "the server is ending and takes no jobs"));
        }
        if state.queue.len() >= MOST_QUEUED {
            return Err(Problem::overloaded("jobs", MOST_QUEUED));
        }
        let number = state.next;
        state.next += 1;
        state.jobs.insert(number, Arc::clone(&entry));
        state.queue.push_back((entry, Box::new(work)));
        self.0.arrived.notify_one();
        Ok(job)
    }

    /// All that are remembered, newest first.
    pub fn list(&self) -> Vec<Job> {
        let entries: Vec<_> = self.0.lock().jobs.values().rev().map(Arc::clone).collect();
        entries.iter().map(|entry| entry.lock().clone()).collect()
    }

    /// Jobs of this kind that are at work or wait, for a status.
    pub fn active(&self, kind: Kind) -> Vec<String> {
        let of = |job: &Job| job.kind == kind && !job.is_over();
        self.list().into_iter().filter(of).map(|job| job.id).collect()
    }

    /// One job.
    ///
    /// # Errors
    /// There is none of this id, or it has been forgotten.
    pub fn find(&self, id: &str) -> Answer<Job> {
        Ok(self.watch(id)?.job())
    }

    /// One job, to be told of its changes.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn watch(&self, id: &str) -> Answer<Watched> {
        let state = self.0.lock();
        let entry = state.jobs.values().find(|entry| entry.lock().id == id).ok_or_else(|| {
            Problem::new(Code::NotFound, "there is no such job")
                .remedy("GET /api/v1/jobs lists those since the server was started")
        })?;
        Ok(Watched { entry: Arc::clone(entry), changes: entry.changed.subscribe() })
    }

    /// Tells a job to stop: at once when it waits, else at the next safe point.
    ///
    /// # Errors
    /// As [`find`](Self::find); or it is over already.
    pub fn cancel(&self, id: &str) -> Answer<Job> {
        let entry = self.watch(id)?.entry;
        let mut state = self.0.lock();
        if entry.lock().is_over() {
            return Err(Problem::new(Code::Conflict, "the job is over already"));
        }
        entry.cancel.store(true, Ordering::Relaxed);
        if let Some(at) = state.queue.iter().position(|(queued, _)| Arc::ptr_eq(queued, &entry)) {
            state.queue.remove(at);
            let now = self.0.now();
            entry.change(|job| {
                job.state = JobState::Cancelled;
                job.ended = Some(now);
            });
        }
        let job = entry.lock().clone();
        Ok(job)
    }

    /// Tells everything to stop, and takes no more jobs.
    pub fn stop(&self) {
        let ids: Vec<String> = {
            let mut state = self.0.lock();
            state.is_ending = true;
            self.0.arrived.notify_all();
            let open = |entry: &&Arc<Entry>| !entry.lock().is_over();
            state.jobs.values().filter(open).map(|entry| entry.lock().id.clone()).collect()
        };
        for id in ids {
            let _ = self.cancel(&id);
        }
    }

    /// Stops everything; completes when the job at work has stopped, or after `longest`.
    pub async fn end(&self, longest: Duration) {
        self.stop();
        let mut busy = self.0.busy.subscribe();
        if tokio::time::timeout(longest, busy.wait_for(|is| !is)).await.is_err() {
            tracing::warn!("a job did not stop in time; what it had committed is kept");
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Index => "index",
        Kind::Dedup => "dedup",
        Kind::Curate => "curate",
        Kind::Export => "export",
        Kind::Snapshot => "snapshot",
        Kind::Compact => "compact",
    }
}

/// Waits a moment for a job and does it; false when there is nothing to do any more.
fn turn(shared: &Arc<Shared>) -> bool {
    let (entry, work) = {
        let mut state = shared.lock();
        match state.queue.pop_front() {
            Some(next) => {
                shared.busy.send_replace(true);
                next
            }
            None if state.is_ending => return false,
            None => {
                // Not for ever: when nobody has the jobs any more, this thread ends.
                let wait = shared.arrived.wait_timeout(state, Duration::from_secs(1));
                drop(wait);
                return true;
            }
        }
    };
    let now = shared.now();
    entry.change(|job| {
        job.state = JobState::Running;
        job.started = Some(now);
    });
    let context = Context::new(Arc::clone(&entry), shared.clock.clone());
    let done = catch_unwind(AssertUnwindSafe(|| work(&context)));
    let done = done.unwrap_or_else(|_| Err(Problem::internal("a job panicked").into()));
    context.finish();
    let now = shared.now();
    entry.change(|job| {
        job.ended = Some(now);
        match done {
            Ok(result) => (job.state, job.result) = (JobState::Done, Some(result)),
            Err(Ended::Cancelled) => job.state = JobState::Cancelled,
            Err(Ended::Failed(problem)) => {
                job.state = JobState::Failed;
                job.problem = serde_json::to_value(problem.body()).ok();
            }
        }
    });
    let mut state = shared.lock();
    let is_over = |entry: &Arc<Entry>| entry.lock().is_over();
    let over: Vec<u64> =
        state.jobs.iter().filter(|(_, entry)| is_over(entry)).map(|(number, _)| *number).collect();
    for number in over.iter().take(over.len().saturating_sub(MOST_FINISHED)) {
        state.jobs.remove(number);
    }
    shared.busy.send_replace(false);
    true
}

#[cfg(test)]
mod tests;
