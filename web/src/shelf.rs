//! The collections that are served. The server is their one writer; searches go on beside it.

mod changes;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexer::filter::FilterCache;
use indexer::{Collection, CollectionSummary, Collections, CreateOptions, IndexerError};
use indexer::{Reader, View};
use tokio::sync::OwnedMutexGuard;

pub use self::changes::Attending;
use self::changes::Line;
use crate::problem::{Answer, Code, Problem};

/// When a collection that did not open is tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// Which collections are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of the home, also those that come later.
    All,
    /// These.
    These(Vec<String>),
}

/// A collection that is open.
pub struct Served {
    name: String,
    reader: Reader,
    folder: PathBuf,
    writer: Arc<tokio::sync::Mutex<Collection>>,
    line: Line,
    /// Filters and the rows that pass them.
    pub filters: FilterCache,
}

/// The writer of a collection, held.
pub type Writer = OwnedMutexGuard<Collection>;

impl Served {
    fn new(collection: Collection) -> Arc<Self> {
        let line = Line::default();
        line.note_derived(&collection);
        Arc::new(Self {
            name: collection.name().to_owned(),
            reader: collection.reader(),
            folder: collection.folder().to_path_buf(),
            filters: FilterCache::default(),
            writer: Arc::new(tokio::sync::Mutex::new(collection)),
            line,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle to search with.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The committed state.
    pub fn view(&self) -> Arc<View> {
        self.reader.view()
    }

    /// Folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The writer, for work that can wait as long as it takes, on a thread that may block.
    pub fn write_blocking(&self) -> Writer {
        Arc::clone(&self.writer).blocking_lock_owned()
    }
}

/// All that are open, and where others are.
pub struct Shelf {
    collections: Collections,
    which: Which,
    open: Mutex<BTreeMap<String, Arc<Served>>>,
    /// Those of the home that did not open, and why.
    not_opened: Vec<(String, String)>,
    /// Held while one is opened or created, so that it is done once. Has those that did not open, with
    /// when and why: another process has them, and each try waits for it a while.
    opening: Mutex<HashMap<String, (Instant, Problem)>>,
}

impl Shelf {
    /// Opens the collections that are to be served. Of those named, all must open; of all in the
    /// home, those that do not are left for later.
    ///
    /// # Errors
    /// A collection named does not exist or cannot be opened.
    pub fn open(home: &Path, which: Which) -> Result<Self, IndexerError> {
        let mut shelf = Self {
            collections: Collections::new(home),
            which,
            open: Mutex::default(),
            not_opened: Vec::new(),
            opening: Mutex::default(),
        };
        match shelf.which.clone() {
            Which::These(names) => {
                for name in names {
                    shelf.keep(shelf.collections.open(&name)?);
                }
            }
            Which::All => {
                for CollectionSummary { name, .. } in shelf.collections.list()? {
                    match shelf.collections.open(&name) {
                        Ok(collection) => drop(shelf.keep(collection)),
                        Err(error) => shelf.not_opened.push((name, error.to_string())),
                    }
                }
            }
        }
        Ok(shelf)
    }

    /// Collections of the home that did not open at the start, and why. They are tried again when they
    /// are asked for.
    pub fn not_opened(&self) -> &[(String, String)] {
        &self.not_opened
    }

    /// Takes in a collection that is open already.
    pub fn keep(&self, collection: Collection) -> Arc<Served> {
        let served = Served::new(collection);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(served.name.clone(), Arc::clone(&served));
        served
    }

    /// All that are open, by name.
    pub fn all(&self) -> Vec<Arc<Served>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(Arc::clone).collect()
    }

    /// One that is open.
    pub fn find(&self, name: &str) -> Option<Arc<Served>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(name).map(Arc::clone)
    }

    /// One that is served; opens it if it came later. For threads that may wait.
    ///
    /// # Errors
    /// There is none, or another process has it.
    pub fn find_or_open(&self, name: &str) -> Answer<Arc<Served>> {
        if let Some(served) = self.find(name) {
            return Ok(served);
        }
        // A name that cannot be one is not there, whatever else is wrong with it.
        if self.which != Which::All || !self.collections.exists(name).unwrap_or(false) {
            return Err(Problem::no_collection(name));
        }
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = self.find(name) {
            return Ok(served);
        }
        if let Some((when, problem)) = opening.get(name)
            && when.elapsed() < REOPEN
        {
            return Err(problem.clone());
        }
        match self.collections.open(name) {
            Ok(collection) => {
                opening.remove(name);
                Ok(self.keep(collection))
            }
            Err(error) => {
                let problem = Problem::from(error);
                opening.insert(name.to_owned(), (Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    /// Creates a collection, which is served from now on.
    ///
    /// # Errors
    /// The name is taken or cannot be one, or the disk refuses.
    pub fn create(
        &self,
        name: &str,
        model: &engine::ModelIdentity,
        source: &str,
        options: CreateOptions,
    ) -> Answer<Arc<Served>> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.collections.exists(name)? {
            let detail = format!("there is a collection `{name}` already");
            return Err(Problem::new(Code::CollectionExists, detail).remedy("take another name"));
        }
        let mut collection = self.collections.create(name, model, options)?;
        collection.set_model_source(source)?;
        Ok(self.keep(collection))
    }

    /// Collections of the home that are to be served and are not open, with what is known of them.
    ///
    /// # Errors
    /// The home cannot be listed.
    pub fn closed(&self) -> Answer<Vec<CollectionSummary>> {
        if self.which != Which::All {
            return Ok(Vec::new());
        }
        let mut summaries = self.collections.list()?;
        summaries.retain(|summary| self.find(&summary.name).is_none());
        Ok(summaries)
    }

    /// Where collections are.
    pub fn collections(&self) -> &Collections {
        &self.collections
    }
}
