//! Threads that work on one computation together and wait for each other often: too often for a
//! pool of tasks, whose sleeping threads take longer to wake than a step takes.
#![expect(unsafe_code, reason = "a borrowed closure is lent to threads that outlive the borrow")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Turns of a waiting loop before a thread lets others run.
const SPINS: usize = 20_000;

/// Threads that stay, each with an index below [`size`](Self::size); the caller is number 0.
pub(crate) struct Team {
    shared: Arc<Shared>,
    size: usize,
    /// Held while a computation runs: one at a time.
    turn: Mutex<()>,
    /// Where the threads may wait for each other, all of them or parts.
    meetings: Vec<Meeting>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Number of the computation begun last; what waiting threads look at.
    round: AtomicUsize,
    /// Threads, the caller not counted, that have not finished.
    busy: AtomicUsize,
    panicked: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure may be called from any thread, and lives until every thread is done with it.
unsafe impl Send for Job {}

struct State {
    job: Option<Job>,
    round: usize,
    quit: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-written under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Team {
    /// The process's team: as many threads as rayon's pool has.
    pub(crate) fn global() -> &'static Self {
        static TEAM: OnceLock<Team> = OnceLock::new();
        TEAM.get_or_init(|| Self::new(rayon::current_num_threads()))
    }

    /// A team of `size` threads, the caller's among them; fewer where the system refuses to start
    /// them.
    pub(crate) fn new(size: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { job: None, round: 0, quit: false }),
            wake: Condvar::new(),
            round: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let mut started = 1;
        while started < size.max(1) {
            let (shared, index) = (Arc::clone(&shared), started);
            let thread = std::thread::Builder::new().name(format!("akin-vit-{index}"));
            if thread.spawn(move || work(&shared, index)).is_err() {
                break;
            }
            started += 1;
        }
        let meetings = (0..=started).map(|_| Meeting::default()).collect();
        Self { shared, size: started, turn: Mutex::new(()), meetings }
    }

    /// Number of threads.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Runs `job` on every thread at once, with its index, and returns when all are done.
    ///
    /// # Panics
    /// `job` panics on a thread.
    pub(crate) fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let _turn = lock(&self.turn);
        for meeting in &self.meetings {
            // A computation that panicked may have left some waiting.
            meeting.count.store(0, Ordering::Relaxed);
        }
        let shared = &*self.shared;
        if self.size > 1 {
            shared.busy.store(self.size - 1, Ordering::Relaxed);
            // SAFETY: only the lifetime changes; this function does not return before every thread
            // has finished with the closure.
            let job = unsafe {
                std::mem::transmute::<&(dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(job)
            };
            let mut state = lock(&shared.state);
            state.job = Some(Job(job));
            state.round += 1;
            shared.round.store(state.round, Ordering::Release);
            drop(state);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        if own.is_err() {
            shared.panicked.store(true, Ordering::Release);
        }
        wait_until(|| shared.busy.load(Ordering::Acquire) == 0);
        let panicked = shared.panicked.swap(false, Ordering::AcqRel);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a thread of a computation panicked");
    }

    /// Barrier `index` (at most the team's size) for `size` threads that a computation of the team
    /// runs on.
    pub(crate) fn barrier(&self, index: usize, size: usize) -> Barrier<'_> {
        Barrier { size, meeting: &self.meetings[index], panicked: &self.shared.panicked }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.quit = true;
        state.round += 1;
        self.shared.round.store(state.round, Ordering::Release);
        drop(state);
        self.shared.wake.notify_all();
    }
}

/// A thread's life: wait for a round, run its job, report.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        for _ in 0..SPINS {
            if shared.round.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut state = lock(&shared.state);
        while state.round == seen {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        seen = state.round;
        if state.quit {
            return;
        }
        let job = state.job;
        drop(state);
        if let Some(Job(job)) = job {
            // SAFETY: `run` keeps the closure alive until this thread has counted itself done.
            if catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index) })).is_err() {
                shared.panicked.store(true, Ordering::Release);
            }
            shared.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let mut turns = 0usize;
    while !done() {
        turns += 1;
        if turns > SPINS {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Threads that wait at a barrier, and how often all have come.
#[derive(Default)]
struct Meeting {
    count: AtomicUsize,
    round: AtomicUsize,
}

/// Where threads of a team wait for each other.
#[derive(Clone, Copy)]
pub(crate) struct Barrier<'a> {
    size: usize,
    meeting: &'a Meeting,
    /// A thread that has panicked will not come.
    panicked: &'a AtomicBool,
}

impl Barrier<'_> {
    /// Returns when `size` threads have called it; what any of them wrote before, all see after.
    pub(crate) fn wait(&self) {
        if self.size == 1 {
            return;
        }
        let Meeting { count, round } = self.meeting;
        let now = round.load(Ordering::Acquire);
        if count.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            count.store(0, Ordering::Relaxed);
            round.store(now.wrapping_add(1), Ordering::Release);
            return;
        }
        wait_until(|| {
            round.load(Ordering::Acquire) != now || self.panicked.load(Ordering::Acquire)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_round_and_barriers_order_their_writes() {
        for size in [1, 2, 5] {
            let team = Team::new(size);
            for round in 0..50 {
                let cells: Vec<AtomicUsize> = (0..size).map(|_| AtomicUsize::new(0)).collect();
                let barrier = team.barrier(0, size);
                team.run(&|index| {
                    for step in 1..4 {
                        cells[index].store(step, Ordering::Relaxed);
                        barrier.wait();
                        let seen = cells.iter().all(|cell| cell.load(Ordering::Relaxed) == step);
                        assert!(seen, "{size} threads, round {round}");
                        barrier.wait();
                    }
                });
            }
        }
    }

    #[test]
    fn a_panic_comes_back_and_the_team_goes_on() {
        let team = Team::new(3);
        let barrier = team.barrier(1, 3);
        let run = || {
            team.run(&|index| {
                assert!(index != 1, "as planned");
                barrier.wait();
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        // The same barrier, at which two were left waiting.
        let count = AtomicUsize::new(0);
        team.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
            barrier.wait();
            assert_eq!(count.load(Ordering::Relaxed), 3);
        });
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let team = Team::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        team.run(&|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 20 * 2);
    }
}
