//! Where collections live, and how one is created and opened.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use engine::ModelIdentity;

use super::derive::Derived;
use super::{Collection, Reader, View, rewrite};
use crate::ann::Layers;
use crate::catalog::{Catalog, Pending};
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::manifest::Manifest;
use crate::vectors::{Precision, Vectors};

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

/// Choices made when a collection is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// From this many images on, search goes through HNSW; by default
    /// [`ANN_FROM`](crate::ANN_FROM).
    pub ann_from: Option<u64>,
    /// How exactly vectors are kept.
    pub precision: Precision,
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
            // Names with a dot in front are being removed.
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
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

    /// Creates an empty collection for vectors of this model.
    ///
    /// # Errors
    /// The name is taken or cannot be a folder name, or the disk refuses.
    pub fn create(
        &self,
        name: &str,
        model: &ModelIdentity,
        options: CreateOptions,
    ) -> Result<Collection> {
        let folder = self.path(name)?;
        std::fs::create_dir_all(&folder).io("create", &folder)?;
        let lock = Lock::acquire(&folder, name)?;
        if self.exists(name)? {
            return Err(IndexerError::InvalidRequest(format!(
                "there is a collection `{name}` already"
            )));
        }
        let mut manifest = Manifest::new(model, None);
        manifest.ann_from = options.ann_from.unwrap_or(manifest.ann_from);
        manifest.precision = options.precision;
        // A crash before the manifest was written may have left data behind.
        rewrite::remove_leftovers(&folder, &Manifest { data: String::new(), ..manifest.clone() })?;
        let collection = open_parts(name, folder.clone(), manifest, lock)?;
        // Written last: a folder without a manifest is not yet a collection.
        collection.write_manifest()?;
        sync_folder(&self.folder)?;
        Ok(collection)
    }

    /// Opens a collection to write to it and to search it. One of an earlier format is rewritten in
    /// the present one first.
    ///
    /// # Errors
    /// No such collection, another process has it open, or it is damaged or of a later format.
    pub fn open(&self, name: &str) -> Result<Collection> {
        let (folder, lock) = self.lock(name)?;
        self.open_locked(name, folder, lock)
    }

    /// Keeps everybody else from opening a collection. Gives its folder too.
    pub(super) fn lock(&self, name: &str) -> Result<(PathBuf, Arc<Lock>)> {
        self.require(name)?;
        let folder = self.path(name)?;
        let lock = Lock::acquire(&folder, name)?;
        // It may have been deleted while this waited.
        self.require(name)?;
        Ok((folder, lock))
    }

    pub(super) fn open_locked(
        &self,
        name: &str,
        folder: PathBuf,
        lock: Arc<Lock>,
    ) -> Result<Collection> {
        let mut manifest = Manifest::read(&manifest_path(&folder), name)?;
        if manifest.format_version == 1 {
            manifest = rewrite::from_format_1(&folder, &manifest)?;
        }
        rewrite::remove_leftovers(&folder, &manifest)?;
        open_parts(name, folder, manifest, lock)
    }

    pub(super) fn require(&self, name: &str) -> Result<()> {
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

    /// The folder that holds all collections.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, name: &str) -> Result<PathBuf> {
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
    pub(super) fn acquire(folder: &Path, name: &str) -> Result<Arc<Self>> {
        let path = folder.join("lock");
        let mut file = lock_file(&path)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => break,
                // Its folder was deleted while this waited; there may be another of that name.
                Ok(()) => file = lock_file(&path)?,
                Err(TryLockError::Error(error)) => return Err(error).io("lock", &path),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let holder = match holder.trim().parse::<u32>() {
                        Ok(process) => format!("process {process}"),
                        Err(_) => "another process".to_owned(),
                    };
                    return Err(IndexerError::Locked { name: name.to_owned(), holder });
                }
            }
        }
        // Only for that message; a full disk must not keep anybody from searching.
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!("{}: {error}", path.display());
        }
        Ok(Arc::new(Self { _file: file }))
    }

    /// Without waiting; `None` while another process has it.
    pub(super) fn try_acquire(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("lock");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).io("lock", &path),
        }
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).open(path).io("open", path)
}

/// Whether an open file is still the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Folders with open files are not renamed or deleted there.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

pub(super) fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

pub(super) fn open_parts(
    name: &str,
    folder: PathBuf,
    manifest: Manifest,
    lock: Arc<Lock>,
) -> Result<Collection> {
    let data = folder.join(&manifest.data);
    if manifest.rows > 0 && !data.join("catalog").is_dir() {
        return Err(IndexerError::Damaged {
            path: data,
            reason: format!("its catalog is missing; {}", crate::error::RESTORE),
        });
    }
    std::fs::create_dir_all(data.join("ann")).io("create", &data)?;
    let dim = manifest.model.dim;
    let catalog = Catalog::open(&data.join("catalog"))?;
    let meta = catalog.meta()?;
    if meta.rows < manifest.rows {
        return Err(IndexerError::Damaged {
            path: data.join("catalog"),
            reason: format!(
                "it knows of {} rows, the manifest of {}; {}",
                meta.rows,
                manifest.rows,
                crate::error::RESTORE
            ),
        });
    }
    let vectors = Vectors::open(&data.join("vectors"), dim, manifest.precision, meta.rows)?;
    let alive = catalog.alive()?;
    if alive.max().is_some_and(|row| u64::from(row) >= meta.rows) {
        return Err(IndexerError::Damaged {
            path: data.join("catalog"),
            reason: format!("it has images beyond row {}; {}", meta.rows, crate::error::RESTORE),
        });
    }
    let layers = match alive.len() >= manifest.ann_from {
        true => Layers::open(&data.join("ann"), dim, meta.rows)?,
        false => None,
    };
    let (name, catalog) = (Arc::from(name), Arc::new(catalog));
    let view = View {
        name: Arc::clone(&name),
        manifest: Arc::new(manifest.clone()),
        rows: vectors.snapshot(),
        alive: Arc::new(alive.clone()),
        layers: layers.clone(),
        sequence: meta.sequence,
        catalog: Arc::clone(&catalog),
        _lock: Arc::clone(&lock),
    };
    // A damaged graph, or rows committed just before a crash: the next run makes it good.
    let is_stale = alive.len() >= manifest.ann_from
        && layers.as_ref().is_none_or(|layers| layers.rows() < meta.rows);
    let mut collection = Collection {
        name,
        folder,
        manifest,
        catalog,
        vectors,
        meta,
        derived: Derived { is_stale, is_at_work: false },
        alive,
        pending: Pending::default(),
        layers,
        reader: Reader { current: Arc::new(RwLock::new(Arc::new(view))) },
        lock,
    };
    // A crash after a commit may have come before the manifest was written.
    collection.note_counts();
    Ok(collection)
}
