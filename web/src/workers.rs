//! Work that blocks, off the async threads: a few at once, and no endless line before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::problem::{Answer, Problem};
use crate::request_id;

/// Threads for one kind of work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Workers {
    what: &'static str,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
}

/// One that waits; counts while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Runs at most `at_once`, lets `max_waiting` more wait. `what` is the work, as a plural.
    pub fn new(what: &'static str, at_once: usize, max_waiting: usize) -> Self {
        Self {
            what,
            permits: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Arc::default(),
            max_waiting,
        }
    }

    /// Does the work on a thread that may block. When the request is given up while it waits, it is
    /// not done; once it has begun, it ends.
    ///
    /// # Errors
    /// `overloaded`, or what the work returns. A panic is an internal failure.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let before = self.waiting.fetch_add(1, Ordering::Relaxed);
                let _waiting = Waiting(&self.waiting);
                if before >= self.max_waiting {
                    return Err(Problem::overloaded(self.what, self.max_waiting));
                }
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                permit.map_err(Problem::internal)?
            }
        };
        let work = request_id::carried(work);
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        done.await.map_err(Problem::internal)?
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[tokio::test]
    async fn more_than_may_wait_are_refused_and_who_gives_up_makes_room() {
        let workers = Workers::new("tests", 1, 1);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let workers = workers.clone();
            async move {
                let work = move || {
                    let _ = begun.send(());
                    Ok(ended.recv().is_ok())
                };
                workers.run(work).await
            }
        });
        begins.await.expect("begins");
        let second = tokio::spawn({
            let workers = workers.clone();
            async move { workers.run(|| Ok(2)).await }
        });
        while workers.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let third = workers.run(|| Ok(3)).await;
        assert_eq!(third.map_err(|problem| problem.code), Err(Code::Overloaded));
        second.abort();
        assert!(second.await.is_err());
        assert_eq!(workers.waiting(), 0);
        end.send(()).expect("send");
        assert_eq!(first.await.expect("joined"), Ok(true));
        assert_eq!(workers.run(|| Ok(4)).await, Ok(4));
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_frees_the_thread() {
        let workers = Workers::new("tests", 1, 1);
        let failed = workers.run(|| -> Answer<()> { panic!("on purpose") }).await;
        assert_eq!(failed.map_err(|problem| problem.code), Err(Code::Internal));
        assert_eq!(workers.run(|| Ok(1)).await, Ok(1));
    }
}
