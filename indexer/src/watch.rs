//! Folders being watched: what was touched, once it has come to rest.
//!
//! Events are many, doubled and sometimes lost; they only tell where to look. What is handed on is
//! a set of paths to be listed again, when nothing has happened to them for a moment. When too much
//! happens, or the system says that it lost count, the whole folder is to be listed again.

mod pending;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use self::pending::Pending;
use crate::error::{IndexerError, Result};
use crate::source::{self, FileSource, Source, SourceOptions, Touched};

/// How soon what was touched is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchTiming {
    /// A path is at rest when nothing has happened to it for this long. Default: 500 ms.
    pub quiet: Duration,
    /// What is at rest is handed on at the latest after this, even if other paths are not.
    /// Default: 5 s.
    pub at_most: Duration,
    /// How often folders that have vanished are looked for. Default: 1 s.
    pub look: Duration,
    /// More touched paths than this in one folder, and the whole of it is listed again instead.
    /// Default: 20,000.
    pub most_paths: usize,
}

impl Default for WatchTiming {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(500),
            at_most: Duration::from_secs(5),
            look: Duration::from_secs(1),
            most_paths: 20_000,
        }
    }
}

/// What to list again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Folders of which only these paths were touched.
    pub touched: Vec<Touched>,
    /// Folders to list as a whole.
    pub rescan: Vec<PathBuf>,
}

impl Batch {
    /// What to list again, as sources. A folder that has vanished is left alone: what it held is
    /// kept until it is back, or until it is indexed with `--prune`.
    ///
    /// # Errors
    /// A pattern of the options is wrong.
    pub fn sources(&self, options: &SourceOptions) -> Result<Vec<Box<dyn Source>>> {
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        if !self.touched.is_empty() {
            sources.push(Box::new(FileSource::of_touched(&self.touched, options)?));
        }
        for root in self.rescan.iter().filter(|root| root.exists()) {
            sources.extend(source::open(std::slice::from_ref(root), options)?);
        }
        Ok(sources)
    }
}

/// Folders being watched.
pub struct Watch {
    watcher: RecommendedWatcher,
    events: Receiver<notify::Result<Event>>,
    roots: BTreeMap<PathBuf, Root>,
    timing: WatchTiming,
    last_look: Instant,
}

#[derive(Default)]
struct Root {
    /// Whether the system reports events of it.
    watched: bool,
    pending: Pending,
}

impl Watch {
    /// Starts watching; what happens from now on is seen. A root that is not there is waited for.
    ///
    /// # Errors
    /// The system cannot watch, for instance because too many folders are being watched already.
    pub fn new(roots: &[PathBuf], timing: WatchTiming) -> Result<Self> {
        let (sender, events) = crossbeam_channel::unbounded();
        let watcher = notify::recommended_watcher(move |event| {
            // The receiver is gone only when the watch is.
            let _ = sender.send(event);
        })
        .map_err(|error| failed(Path::new("folders"), &error))?;
        let mut named = BTreeMap::new();
        for root in roots {
            let path = root.canonicalize().or_else(|_| std::path::absolute(root));
            named.insert(path.unwrap_or_else(|_| root.clone()), Root::default());
        }
        let mut watch = Self { watcher, events, roots: named, timing, last_look: Instant::now() };
        for path in watch.roots.keys().cloned().collect::<Vec<_>>() {
            if path.exists() {
                watch.attach(&path)?;
            }
        }
        Ok(watch)
    }

    /// Waits for something to have been touched and come to rest. `None` once `cancel` is set.
    ///
    /// # Errors
    /// A folder that came back cannot be watched.
    pub fn next(&mut self, cancel: &AtomicBool) -> Result<Option<Batch>> {
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match self.events.recv_timeout(self.timing.quiet.min(Duration::from_millis(50))) {
                Ok(event) => {
                    self.note(event);
                    // All that is here already, before anything is decided.
                    while let Ok(event) = self.events.try_recv() {
                        self.note(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the system stopped reporting changes; start again".to_owned();
                    return Err(IndexerError::InvalidRequest(reason));
                }
            }
            if self.last_look.elapsed() >= self.timing.look {
                self.look_for_roots()?;
            }
            let batch = self.take(Instant::now());
            if batch != Batch::default() {
                return Ok(Some(batch));
            }
        }
    }

    fn attach(&mut self, path: &Path) -> Result<()> {
        self.watcher.watch(path, RecursiveMode::Recursive).map_err(|error| failed(path, &error))?;
        if let Some(root) = self.roots.get_mut(path) {
            root.watched = true;
        }
        Ok(())
    }

    /// Notices roots that have gone, and watches those that have come.
    fn look_for_roots(&mut self) -> Result<()> {
        self.last_look = Instant::now();
        let changed: Vec<(PathBuf, bool)> = self
            .roots
            .iter()
            .map(|(path, root)| (path.clone(), root.watched, path.exists()))
            .filter(|(_, watched, exists)| watched != exists)
            .map(|(path, _, exists)| (path, exists))
            .collect();
        for (path, exists) in changed {
            match exists {
                true => {
                    self.attach(&path)?;
                    if let Some(root) = self.roots.get_mut(&path) {
                        root.pending.touch_all(Instant::now());
                    }
                }
                false => self.detach(&path),
            }
        }
        Ok(())
    }

    fn detach(&mut self, path: &Path) {
        // It fails when the watch ended with the folder.
        let _ = self.watcher.unwatch(path);
        if let Some(root) = self.roots.get_mut(path) {
            *root = Root::default();
        }
    }

    fn note(&mut self, event: notify::Result<Event>) {
        let now = Instant::now();
        let event = match event {
            Ok(event) if event.need_rescan() => {
                return self.roots.values_mut().for_each(|root| root.pending.touch_all(now));
            }
            Ok(event) => event,
            // What it failed to see may be anything.
            Err(_) => {
                return self.roots.values_mut().for_each(|root| root.pending.touch_all(now));
            }
        };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in &event.paths {
            if matches!(event.kind, EventKind::Remove(_)) && self.roots.contains_key(path) {
                // Its watch is gone too, even if something else has its name by now.
                self.detach(path);
                continue;
            }
            let root = self.roots.iter_mut().find(|(root, _)| path.starts_with(root));
            if let Some((_, root)) = root {
                root.pending.touch(path, now);
                if root.pending.len() > self.timing.most_paths {
                    root.pending.touch_all(now);
                }
            }
        }
    }

    /// What has come to rest by now.
    fn take(&mut self, now: Instant) -> Batch {
        let mut batch = Batch::default();
        for (path, root) in &mut self.roots {
            let Some(paths) = root.pending.take(now, self.timing.quiet, self.timing.at_most) else {
                continue;
            };
            match paths.is_empty() || paths.contains(path) {
                true => batch.rescan.push(path.clone()),
                false => batch.touched.push(Touched { root: path.clone(), paths }),
            }
        }
        batch
    }
}

fn failed(path: &Path, error: &notify::Error) -> IndexerError {
    let remedy = match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "; more folders than the system allows to watch: raise fs.inotify.max_user_watches"
        }
        _ => "",
    };
    IndexerError::Io {
        action: "watch",
        path: path.to_path_buf(),
        source: std::io::Error::other(format!("{error}{remedy}")),
    }
}
