//! How many requests are worked on at once, and how many may wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns, and a short queue for them.
#[derive(Debug)]
pub struct Queue {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    longest: Duration,
}

/// A request's turn; the next one gets it when this is dropped.
#[derive(Debug)]
pub struct Turn(
    #[expect(dead_code, reason = "dropping it is what it is for")] OwnedSemaphorePermit,
);

/// No turn: too many wait, or this one waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// One more waits, as long as this lives. A client may go away while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// `in_flight` turns; at most `most_waiting` wait, each no longer than `longest`.
    pub fn new(in_flight: usize, most_waiting: usize, longest: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(in_flight.max(1)));
        Self { turns, waiting: AtomicUsize::new(0), most_waiting, longest }
    }

    /// Requests waiting now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a turn, first come, first served.
    ///
    /// # Errors
    /// [`Overloaded`].
    pub async fn turn(&self) -> Result<Turn, Overloaded> {
        if let Ok(permit) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(Turn(permit));
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Overloaded);
        }
        let _waiting = Waiting(&self.waiting);
        let turn = tokio::time::timeout(self.longest, Arc::clone(&self.turns).acquire_owned());
        match turn.await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

/// Bytes that all bodies together may take.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    taken: AtomicU64,
}

/// Bytes taken from a budget; given back when this is dropped.
#[derive(Debug)]
pub struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// So many bytes.
    pub fn new(most: u64) -> Self {
        Self { most, taken: AtomicU64::new(0) }
    }

    /// Nothing taken yet.
    pub fn open(self: &Arc<Self>) -> Taken {
        Taken { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Taken {
    /// Takes more; false when there is no more, and then takes nothing.
    pub fn more(&mut self, bytes: u64) -> bool {
        let before = self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.most {
            self.budget.taken.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_works_one_waits_and_the_third_is_refused() {
        let queue = Arc::new(Queue::new(1, 1, Duration::from_secs(5)));
        let first = queue.turn().await.expect("a turn");
        let second = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.turn().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.waiting(), 1);
        assert_eq!(queue.turn().await.err(), Some(Overloaded));
        drop(first);
        assert!(second.await.expect("joined").is_ok());
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_and_a_client_that_leaves_frees_its_place() {
        let queue = Queue::new(1, 1, Duration::from_secs(5));
        let _first = queue.turn().await.expect("a turn");
        {
            let mut gone = std::pin::pin!(queue.turn());
            let poll = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(gone.as_mut().poll(cx).is_pending())
            });
            assert!(poll.await);
            assert_eq!(queue.waiting(), 1);
        }
        assert_eq!(queue.waiting(), 0);
        assert_eq!(queue.turn().await.err(), Some(Overloaded), "after five seconds");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_budget_is_given_back() {
        let budget = Arc::new(Budget::new(10));
        let (mut a, mut b) = (budget.open(), budget.open());
        assert!(a.more(6) && !b.more(5) && b.more(4) && !a.more(1));
        drop(b);
        assert!(a.more(4));
    }
}
