//! What is still to be downloaded, by host.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::random::SplitMix64;

/// One download.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) number: usize,
    pub(super) url: String,
    /// Tries that failed in passing.
    pub(super) tries: u32,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    per_host: usize,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<String, Host>,
    /// Hosts in the order in which they are asked next.
    turns: VecDeque<String>,
    /// Downloads not done, queued or running.
    open: usize,
}

#[derive(Default)]
struct Host {
    tasks: VecDeque<Task>,
    /// Tasks that wait for their time, and until when.
    later: Vec<(Instant, Task)>,
    running: usize,
    /// The host asked for nothing before this.
    not_before: Option<Instant>,
}

impl Queue {
    pub(super) fn new(per_host: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), per_host }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, task: Task) {
        let mut state = self.lock();
        state.open += 1;
        state.host(&task.url).tasks.push_back(task);
    }

    /// The next download that may start; waits for one. `None` when all are done or `stop` is set.
    pub(super) fn take(&self, stop: &AtomicBool, look: Duration) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) || state.open == 0 {
                return None;
            }
            if let Some(task) = state.take(self.per_host, Instant::now()) {
                return Some(task);
            }
            let waited = self.changed.wait_timeout(state, look);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A download that was taken is done.
    pub(super) fn done(&self, url: &str) {
        let mut state = self.lock();
        state.open -= 1;
        state.release(url);
        drop(state);
        self.changed.notify_all();
    }

    /// A download that was taken is to be tried again after `wait`; all of its host's, if the host
    /// asked for it.
    pub(super) fn put_back(&self, task: Task, wait: Duration, whole_host: bool) {
        let mut state = self.lock();
        let then = Instant::now() + wait;
        let url = task.url.clone();
        let host = state.host(&url);
        host.later.push((then, task));
        if whole_host {
            host.not_before = host.not_before.max(Some(then));
        }
        state.release(&url);
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn host(&mut self, url: &str) -> &mut Host {
        let name = host_of(url);
        if !self.hosts.contains_key(&name) {
            self.turns.push_back(name.clone());
        }
        self.hosts.entry(name).or_default()
    }

    fn release(&mut self, url: &str) {
        let name = host_of(url);
        if let Some(host) = self.hosts.get_mut(&name) {
            host.running = host.running.saturating_sub(1);
        }
    }

    fn take(&mut self, per_host: usize, now: Instant) -> Option<Task> {
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(host) = self.hosts.get_mut(&name) else { continue };
            if host.is_done() {
                self.hosts.remove(&name);
                continue;
            }
            let task = host.take(per_host, now);
            self.turns.push_back(name);
            if task.is_some() {
                return task;
            }
        }
        None
    }
}

impl Host {
    fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.later.is_empty() && self.running == 0
    }

    fn take(&mut self, per_host: usize, now: Instant) -> Option<Task> {
        if self.running >= per_host || self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        let due = self.later.iter().position(|(then, _)| *then <= now);
        let task = match due {
            Some(due) => Some(self.later.swap_remove(due).1),
            None => self.tasks.pop_front(),
        }?;
        self.running += 1;
        Some(task)
    }
}

/// Host and port of a URL, as far as they can be told without parsing it.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.to_ascii_lowercase()
}

/// Between 0 and 1, the same for the same try of the same URL.
pub(super) fn lot(url: &str, tries: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (url, tries).hash(&mut hasher);
    let drawn = SplitMix64(hasher.finish()).next();
    drawn as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: usize, url: &str) -> Task {
        Task { number, url: url.to_owned(), tries: 0 }
    }

    #[test]
    fn hosts_take_turns_and_none_gets_more_than_its_share() {
        let queue = Queue::new(2);
        for number in 0..4 {
            queue.push(task(number, "http://a.org/x"));
        }
        queue.push(task(4, "http://B.org/x"));
        let stop = AtomicBool::new(false);
        let take = || queue.lock().take(2, Instant::now()).map(|task| task.number);
        assert_eq!([take(), take(), take(), take()], [Some(0), Some(4), Some(1), None]);
        queue.done("http://a.org/x");
        assert_eq!(take(), Some(2));
        queue.done("http://b.org/y");
        queue.done("http://a.org/x");
        queue.done("http://a.org/x");
        assert_eq!(queue.take(&stop, Duration::ZERO).map(|task| task.number), Some(3));
        queue.done("http://a.org/x");
        assert!(queue.take(&stop, Duration::ZERO).is_none(), "all are done");
    }

    #[test]
    fn a_host_that_asked_to_wait_is_left_alone() {
        let queue = Queue::new(4);
        queue.push(task(0, "http://a.org/x"));
        queue.push(task(1, "http://a.org/y"));
        let now = Instant::now();
        let first = queue.lock().take(4, now).expect("a task");
        queue.put_back(first, Duration::from_secs(60), true);
        assert!(queue.lock().take(4, now).is_none());
        let later = now + Duration::from_secs(61);
        assert_eq!(queue.lock().take(4, later).map(|task| task.number), Some(0));
        assert_eq!(queue.lock().take(4, later).map(|task| task.number), Some(1));
    }
}
