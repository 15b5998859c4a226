//! What long operations tell while they go on, and how they are stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{IndexerError, Result};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done, such as `copying images`.
    pub doing: &'static str,
    /// Parts done.
    pub done: u64,
    /// Parts in all; 0 when that is not known.
    pub of: u64,
}

/// A caller's ear and hand on an operation.
pub struct Progress<'a> {
    on_step: &'a mut dyn FnMut(Step),
    cancel: &'a AtomicBool,
}

impl<'a> Progress<'a> {
    /// Calls `on_step` now and then, and stops at the next safe point once `cancel` is set.
    pub fn new(on_step: &'a mut dyn FnMut(Step), cancel: &'a AtomicBool) -> Self {
        Self { on_step, cancel }
    }

    /// Whether the caller wants an end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub(super) fn flag(&self) -> &'a AtomicBool {
        self.cancel
    }

    /// Tells how far it is; an error once the caller wants an end, saying what that leaves behind.
    pub(super) fn step(
        &mut self,
        doing: &'static str,
        done: u64,
        of: u64,
        left: &'static str,
    ) -> Result<()> {
        if self.is_cancelled() {
            return Err(IndexerError::Stopped { left });
        }
        (self.on_step)(Step { doing, done, of });
        Ok(())
    }
}

impl std::fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}
