//! Curation runs below the home's folder `runs`, a few of them open.
//!
//! An open run holds its lock, so that the command line waits for the server and the other way
//! round; runs that nobody asked about for a while are let go of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use indexer::IndexerError;
use indexer::curate::{Run, RunInfo};

use crate::problem::{Answer, Code, Problem};
use crate::reports::is_name;

/// Runs that are open at once; a ledger of a million images takes some hundred megabytes.
const MOST_OPEN: usize = 4;
/// How long a run stays open that nobody asks about.
const KEPT: Duration = Duration::from_secs(30);

/// Longest wait of a request for a run that is in use.
const PATIENCE: Duration = Duration::from_secs(1);

struct Open {
    run: Arc<Mutex<Run>>,
    used: Instant,
}

/// All runs of a home.
pub struct Runs {
    folder: PathBuf,
    open: Mutex<BTreeMap<String, Open>>,
}

impl Runs {
    /// Those below a home.
    pub fn new(home: &Path) -> Self {
        Self { folder: home.join("runs"), open: Mutex::default() }
    }

    /// Names of all runs, finished or not, in order.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> Answer<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Problem::internal)?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> =
            names.filter(|name| is_name(name) && Run::is_run(&self.folder.join(name))).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Folder of a run, which need not be there. The name is checked before it is joined.
    ///
    /// # Errors
    /// It is no name of a run.
    pub fn folder(&self, name: &str) -> Answer<PathBuf> {
        match is_name(name) {
            true => Ok(self.folder.join(name)),
            false => Err(no_run()),
        }
    }

    /// Whether there is such a run, finished or not.
    ///
    /// # Errors
    /// It is no name of a run.
    pub fn exists(&self, name: &str) -> Answer<bool> {
        Ok(Run::is_run(&self.folder(name)?))
    }

    /// What a run is; `None` while it is not finished.
    ///
    /// # Errors
    /// There is no such run, or it is damaged.
    pub fn info(&self, name: &str) -> Answer<Option<RunInfo>> {
        if !self.exists(name)? {
            return Err(no_run());
        }
        match Run::read_info(&self.folder(name)?) {
            Ok(info) => Ok(Some(info)),
            Err(IndexerError::Source { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Works with a finished run. For threads that may wait a moment.
    ///
    /// # Errors
    /// There is no such run, it is not finished or in use, as it is while it is exported; or the
    /// work fails.
    pub fn with<T>(&self, name: &str, work: impl FnOnce(&mut Run) -> Answer<T>) -> Answer<T> {
        let run = self.open(name)?;
        let start = Instant::now();
        loop {
            match run.try_lock() {
                Ok(mut run) => return work(&mut run),
                Err(TryLockError::Poisoned(poisoned)) => return work(&mut poisoned.into_inner()),
                // Threads that wait here are those that searches need too.
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(in_use(name)),
            }
        }
    }

    /// [`with`](Self::with), for as long as it takes: for jobs.
    ///
    /// # Errors
    /// As there.
    pub fn with_patience<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Run) -> Answer<T>,
    ) -> Answer<T> {
        let run = self.open(name)?;
        let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut run)
    }

    /// Lets go of runs that nobody asked about for a while.
    pub fn tidy(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, entry| now < entry.used + KEPT);
    }

    /// Lets go of a run, which is about to be made anew.
    pub fn release(&self, name: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Open { run, .. }) = open.remove(name) {
            // Whoever works with it comes to an end first.
            drop(run.lock());
        }
    }

    fn open(&self, name: &str) -> Answer<Arc<Mutex<Run>>> {
        if self.info(name)?.is_none() {
            return Err(Problem::new(Code::Conflict, format!("the run `{name}` is not finished"))
                .remedy("wait for its job, or start it again"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|other, entry| other == name || now < entry.used + KEPT);
        if let Some(entry) = open.get_mut(name) {
            entry.used = now;
            return Ok(Arc::clone(&entry.run));
        }
        let run = Run::open(&self.folder(name)?).map_err(|error| match error {
            IndexerError::InvalidRequest(_) => in_use(name),
            error => error.into(),
        })?;
        let run = Arc::new(Mutex::new(run));
        while open.len() >= MOST_OPEN {
            let oldest = open.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            open.remove(&oldest);
        }
        open.insert(name.to_owned(), Open { run: Arc::clone(&run), used: now });
        Ok(run)
    }
}

fn in_use(name: &str) -> Problem {
    Problem::new(Code::Busy, format!("the run `{name}` is in use, by an export or another process"))
        .remedy("try again when that is done")
        .retry_after(Duration::from_secs(5))
}

fn no_run() -> Problem {
    Problem::new(Code::NotFound, "there is no such run").remedy("GET /api/v1/runs lists all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else_and_what_is_not_there_is_not_found() {
        let home = tempfile::tempdir().expect("temporary folder");
        let runs = Runs::new(home.path());
        for name in ["..", ".", "", "a/b", "../secret", ".hidden", "a\\b", "a\0", "%2e%2e"] {
            assert!(runs.folder(name).is_err(), "{name}");
        }
        assert_eq!(runs.info("none").expect_err("none").code, Code::NotFound);
        assert_eq!(runs.names(), Ok(Vec::new()));
    }
}
