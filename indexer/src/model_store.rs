//! Model files on this machine: which there are, how they come here, and whether they are intact.
//!
//! `<home>/models/<name>/` holds the files of one model and `akin-model.json`, which records where
//! they came from and their hashes as the hub announced them.

mod download;
mod error;
mod record;
mod registry;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::download::Downloader;
pub use self::error::ModelStoreError;
pub use self::record::{FileRecord, ModelRecord};
pub use self::registry::{CONFIG_FILE, MODELS, PublicModel, WEIGHTS_FILE};
use crate::durable::sync_folder;
pub use crate::http::HttpOptions;

type Result<T, E = ModelStoreError> = std::result::Result<T, E>;

/// Where the public models are, unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// The models under a home folder.
#[derive(Clone, Debug)]
pub struct ModelStore {
    folder: PathBuf,
}

/// A public model and what of it is here.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// The model.
    pub model: &'static PublicModel,
    /// What was pulled, if it was.
    pub record: Option<ModelRecord>,
    /// Where its weights are, or would be.
    pub weights: PathBuf,
}

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Base URL of the hub.
    pub endpoint: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Access token; sent to the endpoint's host only.
    pub token: Option<String>,
    /// Download even what is here.
    pub force: bool,
    /// Make no request.
    pub offline: bool,
    /// Tries in a row without a single new byte before giving up.
    pub attempts: u32,
    /// Wait after the first failed try; doubled each time, at most 30 s.
    pub backoff: Duration,
    /// Timeouts and proxy.
    pub http: HttpOptions,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            revision: "main".to_owned(),
            token: None,
            force: false,
            offline: false,
            attempts: 5,
            backoff: Duration::from_secs(1),
            http: HttpOptions::default(),
        }
    }
}

/// How far a pull is.
#[derive(Clone, Copy, Debug)]
pub struct PullProgress<'a> {
    /// File being received.
    pub file: &'a str,
    /// Bytes here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a pull did.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Where the weights are.
    pub weights: PathBuf,
    /// What is known of them.
    pub record: ModelRecord,
    /// Whether everything was here before.
    pub was_here: bool,
}

impl ModelStore {
    /// The store under `home`.
    pub fn new(home: &Path) -> Self {
        Self { folder: home.join("models") }
    }

    /// Every public model, and what of it is here.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<ModelEntry>> {
        MODELS.iter().map(|model| self.entry(model)).collect()
    }

    /// One public model, by name (`vits14`, `dinov2_vits14` or `facebook/dinov2-small`).
    ///
    /// # Errors
    /// The name is unknown, or its record cannot be read.
    pub fn info(&self, name: &str) -> Result<ModelEntry> {
        self.entry(registry::find(name)?)
    }

    /// The weights of a model name, or of a path to a file or a folder.
    ///
    /// # Errors
    /// Neither a model that is here nor an existing path; says what to do about it.
    pub fn resolve(&self, name_or_path: &str) -> Result<PathBuf> {
        match registry::find(name_or_path) {
            Ok(model) => {
                let entry = self.entry(model)?;
                match entry.weights.exists() {
                    true => Ok(entry.weights),
                    false => Err(not_here(&entry, DEFAULT_ENDPOINT)),
                }
            }
            Err(unknown) => {
                let path = PathBuf::from(name_or_path);
                let is_path = path.components().count() > 1 || path.extension().is_some();
                match path.exists() {
                    true => Ok(path),
                    false if is_path => Err(ModelStoreError::NoSuchPath { path }),
                    false => Err(unknown),
                }
            }
        }
    }

    /// Downloads a model, going on where an earlier try stopped. Makes no request when everything
    /// is here.
    ///
    /// # Errors
    /// [`ModelStoreError`]; a partial download is kept for the next try unless it is wrong.
    pub fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &mut dyn FnMut(PullProgress<'_>),
        cancel: &AtomicBool,
    ) -> Result<Pulled> {
        let model = registry::find(name)?;
        let entry = self.entry(model)?;
        let weights = entry.weights.clone();
        let folder = self.folder.join(model.name);
        if let Some(record) = entry.record.clone().filter(|_| !options.force)
            && record.files.iter().all(|file| file.has_size_in(&folder))
        {
            return Ok(Pulled { weights, record, was_here: true });
        }
        if options.offline {
            return Err(not_here(&entry, &options.endpoint));
        }
        std::fs::create_dir_all(&folder).map_err(error::io("create", &folder))?;
        let _lock = lock(&folder, model.name)?;
        let mut downloader = Downloader::new(model, &folder, options, progress, cancel)?;
        // The first answer pins the commit, so that all files belong together.
        let files = [CONFIG_FILE, WEIGHTS_FILE]
            .iter()
            .map(|file| downloader.fetch(file, entry.record.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let record = ModelRecord::new(model, &options.endpoint, downloader.commit(), files);
        record.write(&folder)?;
        sync_folder(&folder).map_err(|error| ModelStoreError::Failed(error.to_string()))?;
        Ok(Pulled { weights, record, was_here: false })
    }

    /// Reads the files of a pulled model again and compares them with their recorded hashes.
    ///
    /// # Errors
    /// Not pulled, a file is missing, or it is not what was recorded.
    pub fn verify(&self, name: &str) -> Result<ModelRecord> {
        let entry = self.info(name)?;
        let record = entry.record.clone().ok_or_else(|| not_here(&entry, DEFAULT_ENDPOINT))?;
        let folder = self.folder.join(entry.model.name);
        record.files.iter().try_for_each(|file| file.verify(&folder))?;
        Ok(record)
    }

    fn entry(&self, model: &'static PublicModel) -> Result<ModelEntry> {
        let folder = self.folder.join(model.name);
        let record = ModelRecord::read(&folder)?;
        Ok(ModelEntry { model, record, weights: folder.join(WEIGHTS_FILE) })
    }
}

fn not_here(entry: &ModelEntry, endpoint: &str) -> ModelStoreError {
    ModelStoreError::NotHere {
        name: entry.model.name,
        url: registry::url(endpoint, entry.model, "main", WEIGHTS_FILE),
        weights: entry.weights.clone(),
    }
}

/// Held while files of a model are written.
fn lock(folder: &Path, name: &'static str) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ModelStoreError::Busy { name }),
        Err(TryLockError::Error(cause)) => Err(error::io("lock", &path)(cause)),
    }
}
