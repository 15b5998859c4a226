//! Devices that share work: each is owned by one thread, and all take from one line.
//!
//! A device is made, used and let go of on its own thread, because CUDA keeps a stream for each thread.
//! Whoever is free takes the next job, so a slower device simply takes fewer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::machine::Fault;

/// Something that does jobs on a thread of its own.
pub(crate) trait Owner<J, R> {
    /// Does one job. After [`Fault::Broken`] it is given no more.
    fn run(&mut self, job: J) -> Result<R, Fault>;
}

/// A job that was not done: by which device, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undone {
    pub(crate) device: String,
    pub(crate) fault: Fault,
}

struct Waiting<J, R> {
    job: J,
    place: usize,
    reply: Sender<(usize, Result<R, Undone>)>,
}

/// Owners at work. Dropping it waits for their threads to end.
pub(crate) struct Owners<J, R> {
    names: Vec<String>,
    line: Option<Sender<Waiting<J, R>>>,
    threads: Vec<JoinHandle<()>>,
    /// Why the device that failed last did.
    failed: Arc<Mutex<Option<Undone>>>,
}

impl<J: Send + 'static, R: Send + 'static> Owners<J, R> {
    /// Starts one thread for each name, on which `make` makes the owner of that number, and waits
    /// until all are ready.
    ///
    /// # Errors
    /// The first device, in order, that could not be made.
    pub(crate) fn start<O: Owner<J, R>>(
        names: Vec<String>,
        make: impl Fn(usize) -> Result<O, Fault> + Send + Sync + 'static,
    ) -> Result<Self, Undone> {
        let (line, taken) = channel();
        let taken = Arc::new(Mutex::new(taken));
        let (made, ready) = channel();
        let make = Arc::new(make);
        let failed = Arc::<Mutex<Option<Undone>>>::default();
        let mut threads = Vec::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            let undone = |fault| Undone { device: name.clone(), fault };
            let own =
                Thread { name: name.clone(), line: Arc::clone(&taken), failed: failed.clone() };
            let (make, made) = (Arc::clone(&make), made.clone());
            let work = move || {
                // What `make` holds for all owners can go once the last has been made.
                let owner = guarded(|| make(number));
                drop(make);
                match owner {
                    Ok(owner) => {
                        let _ = made.send((number, Ok(())));
                        // Whoever waits for all to be ready waits for this to go.
                        drop(made);
                        own.serve(owner);
                    }
                    Err(fault) => drop(made.send((number, Err(fault)))),
                }
            };
            let spawned = std::thread::Builder::new().name(name.clone()).spawn(work);
            threads.push(spawned.map_err(|error| undone(Fault::Broken(error.to_string())))?);
        }
        let owners = Self { names, line: Some(line), threads, failed };
        drop(made);
        let mut results: Vec<_> = ready.iter().collect();
        results.sort_by_key(|(number, _)| *number);
        match results.into_iter().find_map(|(number, result)| Some((number, result.err()?))) {
            Some((number, fault)) => Err(Undone { device: owners.names[number].clone(), fault }),
            None => Ok(owners),
        }
    }

    /// Number of devices there were at the start.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// What they are called.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Does jobs, shared by all devices; results come in the order of the jobs.
    ///
    /// # Errors
    /// The first job, in order, that was not done. Those after it are done all the same.
    pub(crate) fn run(&self, jobs: Vec<J>) -> Result<Vec<R>, Undone> {
        let (reply, replies) = channel();
        let count = jobs.len();
        for (place, job) in jobs.into_iter().enumerate() {
            let waiting = Waiting { job, place, reply: reply.clone() };
            let sent = self.line.as_ref().is_some_and(|line| line.send(waiting).is_ok());
            if !sent {
                return Err(self.nobody());
            }
        }
        drop(reply);
        let mut results: Vec<Option<Result<R, Undone>>> = Vec::new();
        results.resize_with(count, || None);
        // Ends when every job has been answered or thrown away.
        for (place, result) in replies {
            results[place] = Some(result);
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(self.nobody()))).collect()
    }

    /// No device is left.
    fn nobody(&self) -> Undone {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone().unwrap_or_else(|| Undone {
            device: self.names.join(","),
            fault: Fault::Broken("its thread has ended".to_owned()),
        })
    }
}

impl<J, R> Drop for Owners<J, R> {
    fn drop(&mut self) {
        self.line = None;
        for thread in self.threads.drain(..) {
            // Its panics were caught.
            let _ = thread.join();
        }
    }
}

/// One owner's thread.
struct Thread<J, R> {
    name: String,
    line: Arc<Mutex<Receiver<Waiting<J, R>>>>,
    failed: Arc<Mutex<Option<Undone>>>,
}

impl<J, R> Thread<J, R> {
    fn serve(self, mut owner: impl Owner<J, R>) {
        loop {
            // One thread waits for a job, the others for their turn to wait.
            let next = self.line.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Waiting { job, place, reply }) = next else { break };
            let result = guarded(|| owner.run(job));
            let result = result.map_err(|fault| Undone { device: self.name.clone(), fault });
            let broken = match &result {
                Err(undone) if matches!(undone.fault, Fault::Broken(_)) => Some(undone.clone()),
                _ => None,
            };
            if let Some(undone) = &broken {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                *failed = Some(undone.clone());
            }
            // Whoever asked may have gone.
            let _ = reply.send((place, result));
            if broken.is_some() {
                break;
            }
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Fault::Broken(format!("it panicked: {}", words.unwrap_or("no reason given"))))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Doubles numbers; says who did it. Odd devices are slow, and some jobs are not for them.
    struct Doubler {
        number: usize,
        bad: fn(usize, u32) -> Option<Fault>,
    }

    impl Owner<u32, (u32, usize)> for Doubler {
        fn run(&mut self, job: u32) -> Result<(u32, usize), Fault> {
            if let Some(fault) = (self.bad)(self.number, job) {
                return Err(fault);
            }
            if self.number % 2 == 1 {
                std::thread::yield_now();
            }
            Ok((2 * job, self.number))
        }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("cuda:{number}")).collect()
    }

    fn start(count: usize, bad: fn(usize, u32) -> Option<Fault>) -> Owners<u32, (u32, usize)> {
        Owners::start(names(count), move |number| Ok(Doubler { number, bad })).expect("starts")
    }

    #[test]
    fn results_come_in_the_order_of_jobs() {
        for count in [1, 2, 5] {
            let owners = start(count, |_, _| None);
            assert_eq!(owners.count(), count);
            let results = owners.run((0..200).collect()).expect("done");
            let values: Vec<u32> = results.iter().map(|(value, _)| *value).collect();
            assert_eq!(values, (0..200).map(|job| 2 * job).collect::<Vec<_>>());
            assert_eq!(owners.run(Vec::new()), Ok(Vec::new()));
        }
    }

    #[test]
    fn all_devices_work_at_once() {
        struct Meeting(Arc<Barrier>);
        impl Owner<(), std::thread::ThreadId> for Meeting {
            fn run(&mut self, (): ()) -> Result<std::thread::ThreadId, Fault> {
                // Nobody passes before all three are here.
                self.0.wait();
                Ok(std::thread::current().id())
            }
        }
        let barrier = Arc::new(Barrier::new(3));
        let make = move |_| Ok(Meeting(Arc::clone(&barrier)));
        let owners = Owners::start(names(3), make).expect("starts");
        let mut threads = owners.run(vec![(); 3]).expect("done");
        threads.sort_by_key(|id| format!("{id:?}"));
        threads.dedup();
        assert_eq!(threads.len(), 3);
    }

    #[test]
    fn a_device_that_fails_is_named_and_gets_no_more_work() {
        let broken = |number: usize, job: u32| {
            (number == 0 && job > 2).then(|| Fault::Broken("an illegal address".to_owned()))
        };
        let owners = start(1, broken);
        assert!(owners.run(vec![1, 2]).is_ok());
        let undone = owners.run(vec![1, 9, 2]).expect_err("fails");
        assert_eq!(undone.device, "cuda:0");
        assert_eq!(undone.fault, Fault::Broken("an illegal address".to_owned()));
        // There is no other: the reason is given again.
        assert_eq!(owners.run(vec![1]).expect_err("nobody"), undone);

        let owners = start(2, |number, _| {
            (number == 1).then(|| Fault::Broken("fell off the bus".to_owned()))
        });
        // The other goes on, whether or not the failing one has had its one job.
        let mut failures = 0;
        for _ in 0..50 {
            match owners.run((0..4).collect()) {
                Ok(results) => assert!(results.iter().all(|(_, number)| *number == 0)),
                Err(undone) => {
                    assert_eq!(undone.device, "cuda:1");
                    failures += 1;
                }
            }
        }
        assert!(failures <= 1, "{failures}");
    }

    #[test]
    fn a_job_that_is_refused_leaves_the_device_at_work() {
        let owners = start(1, |_, job| (job == 7).then(|| Fault::Refused("7".to_owned())));
        let undone = owners.run(vec![6, 7, 8]).expect_err("7");
        assert_eq!(
            undone,
            Undone { device: "cuda:0".to_owned(), fault: Fault::Refused("7".to_owned()) }
        );
        assert_eq!(owners.run(vec![8]), Ok(vec![(16, 0)]));
    }

    #[test]
    fn a_panic_is_a_failure_of_that_device() {
        struct Fragile;
        impl Owner<u32, u32> for Fragile {
            fn run(&mut self, job: u32) -> Result<u32, Fault> {
                assert!(job < 3, "too much");
                Ok(job)
            }
        }
        let owners = Owners::start(names(1), |_| Ok(Fragile)).expect("starts");
        assert_eq!(owners.run(vec![1, 2]), Ok(vec![1, 2]));
        let Err(Undone { device, fault: Fault::Broken(reason) }) = owners.run(vec![3]) else {
            panic!("done")
        };
        assert_eq!(device, "cuda:0");
        assert!(reason.contains("too much"), "{reason}");
    }

    #[test]
    fn a_device_that_cannot_be_made_is_named() {
        let make = |number: usize| match number {
            0 => Ok(Doubler { number, bad: |_, _| None }),
            _ => Err(Fault::Refused(format!("no memory on {number}"))),
        };
        let undone = Owners::start(names(3), make).err().expect("fails");
        assert_eq!(undone.device, "cuda:1");
        assert_eq!(undone.fault, Fault::Refused("no memory on 1".to_owned()));
    }
}
