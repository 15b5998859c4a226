//! What a job tells while it works, and how it hears that it should stop.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indexer::pipeline::Skipped;

use super::{Entry, FailedItem, MOST_ITEMS, ProgressBody};
use crate::clock::Clock;

/// Changes are shown this often at most.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// A job at work.
pub struct Context {
    entry: Arc<Entry>,
    clock: Clock,
    state: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    message: String,
    done: u64,
    total: Option<u64>,
    /// When this stage began.
    began: Duration,
    shown: Option<Duration>,
}

impl Context {
    pub(super) fn new(entry: Arc<Entry>, clock: Clock) -> Self {
        let state = Counted { began: clock.now(), ..Counted::default() };
        Self { entry, clock, state: Mutex::new(state) }
    }

    /// Set once the job should stop.
    pub fn cancel(&self) -> &AtomicBool {
        &self.entry.cancel
    }

    /// A stage begins, with so many steps as far as is known.
    pub fn stage(&self, message: impl Into<String>, total: Option<u64>) {
        let message = message.into();
        self.update(|state, now| {
            *state = Counted { message, total, began: now, ..Counted::default() };
        });
    }

    /// So many more steps are to come.
    pub fn expect(&self, more: u64) {
        self.update(|state, _| state.total = Some(state.total.unwrap_or(0) + more));
    }

    /// So many more steps are done.
    pub fn advance(&self, steps: u64) {
        self.update(|state, _| state.done += steps);
    }

    /// So many steps of the stage are done.
    pub fn at(&self, done: u64, total: Option<u64>) {
        self.update(|state, _| (state.done, state.total) = (done, total));
    }

    /// A file could not be used.
    pub fn failed(&self, skipped: &Skipped) {
        let item = || FailedItem {
            path: skipped.path.to_string_lossy().into_owned(),
            reason: skipped.reason.clone(),
        };
        self.entry.change(|job| {
            job.failed_count += 1;
            if job.failed_items.len() < MOST_ITEMS {
                job.failed_items.push(item());
            }
        });
    }

    /// Shows the last state.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(&mut state, self.clock.now());
    }

    fn update(&self, change: impl FnOnce(&mut Counted, Duration)) {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state, now);
        if state.shown.is_none_or(|shown| now >= shown + SHOW_EVERY) {
            self.show(&mut state, now);
        }
    }

    fn show(&self, state: &mut Counted, now: Duration) {
        state.shown = Some(now);
        let seconds = now.saturating_sub(state.began).as_secs_f64();
        let rate = if seconds > 0.0 { state.done as f64 / seconds } else { 0.0 };
        let left = state.total.map(|total| total.saturating_sub(state.done));
        let progress = ProgressBody {
            done: state.done,
            total: state.total,
            rate,
            eta_s: left.filter(|_| rate > 0.0).map(|left| left as f64 / rate),
            message: state.message.clone(),
        };
        self.entry.change(|job| job.progress = progress);
    }
}
