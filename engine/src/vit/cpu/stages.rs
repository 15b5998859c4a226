//! Where the time of passes went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of the work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Patches,
    Qkv,
    Attention,
    Projection,
    Up,
    Down,
    Norm,
    /// For other threads.
    Wait,
}

const NAMES: [&str; 8] =
    ["patches", "norm + qkv", "attention", "projection", "norm + up", "down", "final norm", "wait"];

/// Nanoseconds of each stage, over all threads.
#[derive(Debug, Default)]
pub(super) struct Stages([AtomicU64; NAMES.len()]);

impl Stages {
    pub(super) fn times(&self) -> Vec<(&'static str, Duration)> {
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        NAMES.into_iter().zip(self.0.iter().map(time)).collect()
    }

    /// A clock that starts now.
    pub(super) fn clock(&self) -> Clock<'_> {
        Clock { stages: self, since: Instant::now() }
    }
}

/// One thread's view of the time.
pub(super) struct Clock<'a> {
    stages: &'a Stages,
    since: Instant,
}

impl Clock<'_> {
    /// Books the time since the last call under a stage.
    pub(super) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        let nanos = now.duration_since(self.since).as_nanos() as u64;
        self.stages.0[stage as usize].fetch_add(nanos, Ordering::Relaxed);
        self.since = now;
    }
}
