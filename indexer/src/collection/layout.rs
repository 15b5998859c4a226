//! Where collections live, and how one is created and opened.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::ModelIdentity;

use super::Collection;
use crate::catalog::{Catalog, Changes};
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::manifest::Manifest;
use crate::vectors::Vectors;

/// The folder that holds all collections of a user.
#[derive(Clone, Debug)]
pub struct Collections {
    folder: PathBuf,
}

/// One line of a list of collections, read without opening them.
#[derive(Clone, Debug)]
pub struct CollectionSummary {
    /// Name.
    pub name: String,
    /// What it says about itself, or why that cannot be read.
    pub manifest: Result<Manifest, String>,
}

/// How long to wait for another process: long enough for searches to take turns.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Held while a collection is open.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Collections {
    /// Collections under `home`.
    pub fn new(home: &Path) -> Self {
        Self { folder: home.join("collections") }
    }

    /// Every collection, by name.
    ///
    /// # Errors
    /// The folder cannot be listed. A folder that does not exist yet holds none.
    pub fn list(&self) -> Result<Vec<CollectionSummary>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).io("list", &self.folder),
        };
        let mut summaries = Vec::new();
        for entry in entries {
            let entry = entry.io("list", &self.folder)?;
            let path = manifest_path(&entry.path());
            if let Ok(name) = entry.file_name().into_string()
                && path.exists()
            {
                let manifest = Manifest::read(&path, &name).map_err(|error| error.to_string());
                summaries.push(CollectionSummary { name, manifest });
            }
        }
        summaries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(summaries)
    }

    /// Whether a collection of this name exists.
    ///
    /// # Errors
    /// The name cannot be a collection's.
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(manifest_path(&self.path(name)?).exists())
    }

    /// What a collection says about itself, read without opening it.
    ///
    /// # Errors
    /// No such collection, or its manifest is damaged.
    pub fn manifest(&self, name: &str) -> Result<Manifest> {
        self.require(name)?;
        Manifest::read(&manifest_path(&self.path(name)?), name)
    }

    /// Creates an empty collection for vectors of this model. `ann_from` overrides from how many
    /// images on search is approximate.
    ///
    /// # Errors
    /// The name is taken or cannot be a folder name, or the disk refuses.
    pub fn create(
        &self,
        name: &str,
        model: &ModelIdentity,
        ann_from: Option<u64>,
    ) -> Result<Collection> {
        let folder = self.path(name)?;
        if self.exists(name)? {
            return Err(IndexerError::InvalidRequest(format!(
                "there is a collection `{name}` already"
            )));
        }
        std::fs::create_dir_all(folder.join("ann")).io("create", &folder)?;
        let lock = Lock::acquire(&folder, name)?;
        let mut manifest = Manifest::new(model, None);
        manifest.ann_from = ann_from.unwrap_or(manifest.ann_from);
        let collection = open_parts(name, folder.clone(), manifest, lock)?;
        // Written last: a folder without a manifest is not yet a collection.
        collection.write_manifest()?;
        sync_folder(&self.folder)?;
        Ok(collection)
    }

    /// Opens a collection for this process alone.
    ///
    /// # Errors
    /// No such collection, in use, written by a newer release, or damaged.
    pub fn open(&self, name: &str) -> Result<Collection> {
        self.require(name)?;
        let folder = self.path(name)?;
        let lock = Lock::acquire(&folder, name)?;
        let manifest = Manifest::read(&manifest_path(&folder), name)?;
        let mut collection = open_parts(name, folder, manifest, lock)?;
        collection.catch_up()?;
        Ok(collection)
    }

    fn require(&self, name: &str) -> Result<()> {
        if self.exists(name)? {
            return Ok(());
        }
        let names: Vec<_> = self.list()?.into_iter().map(|summary| summary.name).collect();
        let known = if names.is_empty() {
            "make one with `akin index FOLDER -c NAME`".to_owned()
        } else {
            format!("there are: {}", names.join(", "))
        };
        Err(IndexerError::NoSuchCollection {
            name: name.to_owned(),
            home: self.folder.clone(),
            known,
        })
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let sound =
            (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed);
        if sound {
            Ok(self.folder.join(name))
        } else {
            Err(IndexerError::BadCollectionName { name: name.to_owned() })
        }
    }
}

impl Lock {
    fn acquire(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .io("open", &path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(error).io("lock", &path),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(IndexerError::Locked { name: name.to_owned() });
                }
            }
        }
    }
}

pub(super) fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

fn open_parts(name: &str, folder: PathBuf, manifest: Manifest, lock: Lock) -> Result<Collection> {
    let catalog = Catalog::open(&folder.join("catalog"))?;
    let mut vectors = Vectors::open(&folder.join("vectors"), manifest.model.dim)?;
    let mut live = BTreeMap::new();
    for entry in catalog.images() {
        let (id, record) = entry?;
        if record.row >= vectors.rows() {
            return Err(IndexerError::Damaged {
                path: folder.join("vectors"),
                reason: format!(
                    "it ends before row {} of {}; index the folders again into a new collection",
                    record.row, record.path
                ),
            });
        }
        live.insert(record.row, id);
    }
    // Rows whose commit was interrupted before any record pointed at them.
    let live_rows = live.last_key_value().map_or(0, |(row, _)| row + 1);
    vectors.truncate(manifest.rows.max(live_rows))?;
    Ok(Collection {
        name: name.to_owned(),
        next_id: catalog.next_id()?,
        folder,
        manifest,
        catalog,
        vectors,
        live,
        changes: Changes::default(),
        derived_is_stale: false,
        hnsw: None,
        _lock: lock,
    })
}
