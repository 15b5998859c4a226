//! Changes of single images, in a line: whoever has the writer makes them, many in one commit.
//!
//! A request that finds the writer free takes it; where a job has it, the job makes the changes
//! between two of its steps. Either way they are durable before they are answered. A change that is
//! given up before it is begun is not made.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexer::Collection;
use tokio::sync::oneshot;

use super::{Served, Writer};
use crate::problem::{Answer, Code, Problem};
use crate::request_id;
use crate::workers::Workers;

/// Longest wait for whoever has the writer and makes no changes of others, such as a compaction.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for a job that does: it may be computing a batch of a large model.
const ATTENDED_PATIENCE: Duration = Duration::from_secs(30);
/// How often a request that waits looks which of the two it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Changes in one commit.
const AT_ONCE: usize = 64;
/// Up to this many images, what is derived from all of them is brought up to date with every change;
/// in larger collections that takes longer than the change, and is done in the background.
const DERIVE_UNTIL: usize = 20_000;
/// What is derived is brought up to date this long after the last change, or, while changes go on,
/// after the first.
const DERIVE_AFTER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// What is to be noted, and what remains to be done after the commit.
type Change = Box<dyn FnOnce(&mut Collection) -> Option<Settle> + Send>;
type Settle = Box<dyn FnOnce(&Collection, Result<(), Problem>)>;

/// The changes that wait, and who makes them.
#[derive(Default)]
pub(super) struct Line {
    waiting: Mutex<VecDeque<Arc<Ticket>>>,
    /// Whoever has the writer makes them between two steps.
    is_attended: AtomicBool,
    /// First and last change that what is derived does not know of.
    stale: Mutex<Option<[Instant; 2]>>,
}

/// A change that waits, until somebody takes it out.
struct Ticket(Mutex<Option<Change>>);

impl Ticket {
    fn take(&self) -> Option<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Takes a change back when its request is given up.
struct Withdrawn(Arc<Ticket>);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// While it lives, changes of others wait longer, since they are made.
pub struct Attending<'a>(&'a AtomicBool);

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Served {
    /// Makes a change. `note` notes it in the collection; `settle` runs after the commit, and before
    /// anything else changes. Both run on a thread that may block.
    ///
    /// # Errors
    /// What the two return; `busy` when the writer is not to be had in time, and nothing was changed.
    pub async fn change<N: 'static, T: Send + 'static>(
        self: &Arc<Self>,
        workers: &Workers,
        note: impl FnOnce(&mut Collection) -> Answer<N> + Send + 'static,
        settle: impl FnOnce(N, &Collection) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (answer, mut answered) = oneshot::channel();
        let request = request_id::current();
        let change = move |collection: &mut Collection| -> Option<Settle> {
            if answer.is_closed() {
                return None;
            }
            match request_id::under(request.clone(), || note(collection)) {
                Ok(noted) => Some(Box::new(move |collection, committed| {
                    let settled = || committed.and_then(|()| settle(noted, collection));
                    // Whoever asked may have gone meanwhile.
                    let _ = answer.send(request_id::under(request, settled));
                })),
                Err(problem) => {
                    let _ = answer.send(Err(problem));
                    None
                }
            }
        };
        let ticket = self.line.add(Box::new(change));
        let _withdrawn = Withdrawn(Arc::clone(&ticket));
        let lost = |_| Err(Problem::internal("a change was begun and came to no end"));
        let writer = Arc::clone(&self.writer).lock_owned();
        tokio::pin!(writer);
        let start = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(lost),
                writer = &mut writer => {
                    let (served, own) = (Arc::clone(self), Arc::clone(&ticket));
                    let make = move || {
                        served.make_until(writer, &own);
                        Ok(())
                    };
                    if let Err(problem) = workers.run(make).await && ticket.take().is_some() {
                        return Err(problem);
                    }
                    return answered.await.unwrap_or_else(lost);
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if start.elapsed() >= self.line.patience() {
                return match ticket.take() {
                    Some(_) => Err(self.busy()),
                    // It is being made.
                    None => answered.await.unwrap_or_else(lost),
                };
            }
        }
    }

    fn busy(&self) -> Problem {
        Problem::new(Code::Busy, format!("collection `{}` is being written to", self.name))
            .remedy("wait for its job to end, or cancel it (GET /api/v1/jobs)")
            .retry_after(Duration::from_secs(5))
    }

    /// Says that changes are made by who has the writer, by calling [`attend`](Self::attend) again
    /// and again.
    pub fn attending(&self) -> Attending<'_> {
        self.line.is_attended.store(true, Ordering::Relaxed);
        Attending(&self.line.is_attended)
    }

    /// Makes changes that wait, for who has the writer. What is derived is left to it.
    pub fn attend(&self, collection: &mut Collection) {
        self.make(collection, false);
    }

    /// Makes changes in their order until this one is made.
    fn make_until(&self, mut writer: Writer, own: &Ticket) {
        while own.is_waiting() && self.make(&mut writer, true) {}
    }

    /// Makes some changes in one commit; false when there were none.
    fn make(&self, collection: &mut Collection, derive: bool) -> bool {
        let changes = self.line.next();
        if changes.is_empty() {
            return false;
        }
        let settles: Vec<Settle> =
            changes.into_iter().filter_map(|change| change(collection)).collect();
        if settles.is_empty() {
            return true;
        }
        let is_small = collection.len() <= DERIVE_UNTIL && !collection.view().is_approximate();
        let committed = match derive && is_small {
            true => collection.finish(),
            false => collection.commit(),
        };
        self.line.note_derived(collection);
        let committed = committed.map_err(Problem::from);
        for settle in settles {
            settle(collection, committed.clone());
        }
        true
    }

    /// To be called by who had the writer, before it is given back: whether what is derived has to be
    /// brought up to date.
    pub fn written(&self, collection: &Collection) {
        self.line.note_derived(collection);
    }

    /// Whether there are changes that what is derived does not know of.
    pub fn lacks_derivation(&self) -> bool {
        self.line.stale.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether what is derived should be brought up to date by now.
    pub fn is_derivation_due(&self) -> bool {
        let stale = *self.line.stale.lock().unwrap_or_else(PoisonError::into_inner);
        let [after_last, after_first] = DERIVE_AFTER;
        stale.is_some_and(|[first, last]| {
            last.elapsed() >= after_last || first.elapsed() >= after_first
        })
    }

    /// Brings what is derived from the images up to date, making changes meanwhile; not while
    /// somebody else has the writer, who does it or is followed by somebody who does. For threads
    /// that may wait, minutes for a new graph.
    ///
    /// # Errors
    /// The disk refuses, or a vector is damaged.
    pub fn derive(&self) -> Answer<()> {
        let Ok(mut writer) = Arc::clone(&self.writer).try_lock_owned() else { return Ok(()) };
        // What comes from now on is for the next time.
        self.line.forget_stale();
        let attending = self.attending();
        let derived = writer.finish_between(&mut |collection| self.attend(collection));
        drop(attending);
        self.line.note_derived(&writer);
        if derived.is_err() {
            // Not again before there are changes.
            self.line.forget_stale();
        }
        Ok(derived?)
    }

    /// Writes the graphs as far as that takes seconds, so that the next start need not add to them
    /// what was added since they were written. For threads that may wait.
    ///
    /// # Errors
    /// The disk refuses, or a vector is damaged.
    pub fn save_graphs(&self) -> Answer<()> {
        let mut writer = self.write_blocking();
        Ok(writer.save_graphs()?)
    }
}

impl Line {
    /// Remembers whether what is derived has to be brought up to date.
    pub(super) fn note_derived(&self, collection: &Collection) {
        let now = Instant::now();
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        *stale = match (collection.is_derived_stale(), *stale) {
            (true, Some([first, _])) => Some([first, now]),
            (true, None) => Some([now, now]),
            (false, _) => None,
        };
    }

    fn forget_stale(&self) {
        *self.stale.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn add(&self, change: Change) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket(Mutex::new(Some(change))));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Those taken back are let go of here, since nobody may come for them for long.
        while waiting.front().is_some_and(|ticket| !ticket.is_waiting()) {
            waiting.pop_front();
        }
        waiting.push_back(Arc::clone(&ticket));
        ticket
    }

    fn next(&self) -> Vec<Change> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        while changes.len() < AT_ONCE
            && let Some(ticket) = waiting.pop_front()
        {
            changes.extend(ticket.take());
        }
        changes
    }

    fn patience(&self) -> Duration {
        match self.is_attended.load(Ordering::Relaxed) {
            true => ATTENDED_PATIENCE,
            false => PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests;
