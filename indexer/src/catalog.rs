//! What is known about every image and every file that could not be read, in sled.
//!
//! One tree, so that a batch over all kinds of entries is atomic. Keys: `i` + image id
//! (big-endian) to [`Record`]; `p` + path bytes to image id; `f` + path bytes to [`Failure`];
//! `n` to the next image id.
//!
//! sled 0.34 needs three precautions: its `flush` does not fsync, a crash while it writes a
//! snapshot leaves a file that fails every later open, and damage can make it panic.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

/// What tells, without reading it, that a file is still the one we saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// Values attached to an image, by name.
pub type Payload = BTreeMap<String, serde_json::Value>;

/// One indexed image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where the image is.
    pub path: Locator,
    /// SHA-256 of the file.
    pub sha256: ContentHash,
    /// Size and time of the file when it was read.
    #[serde(flatten)]
    pub stamp: FileStamp,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Something odd about a file that still could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Row of its embedding.
    pub row: u64,
    /// What was attached to it, such as a label. It belongs to the content: a picture that changes
    /// loses it. Absent from records of early releases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub payload: Payload,
}

/// A file that could not be indexed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Where the file is.
    pub path: Locator,
    /// Why it was skipped.
    pub reason: String,
    /// Whether it looks like no picture at all; such files are counted, not listed.
    pub not_a_picture: bool,
    /// Size and time of the file when it was tried.
    #[serde(flatten)]
    pub stamp: FileStamp,
}

/// What the catalog knows about a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Indexed.
    Image(ImageId, Record),
    /// Tried and skipped.
    Failed(Failure),
}

/// Writes collected for one commit.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    batch: sled::Batch,
    pub(crate) len: usize,
}

impl Changes {
    /// Adds or replaces an image.
    pub(crate) fn put(&mut self, id: ImageId, record: &Record) -> Result<()> {
        let path = record.path.as_bytes();
        self.batch.insert(image_key(id), encode(record)?);
        self.batch.insert(path_key(b'p', path), &id.0.to_be_bytes());
        self.batch.remove(path_key(b'f', path));
        self.len += 1;
        Ok(())
    }

    /// Notes a failure. An image already indexed at this path is left as it is.
    pub(crate) fn fail(&mut self, failure: &Failure) -> Result<()> {
        self.batch.insert(path_key(b'f', failure.path.as_bytes()), encode(failure)?);
        self.len += 1;
        Ok(())
    }

    /// Removes the image at a path, whose content has become unreadable.
    pub(crate) fn remove(&mut self, id: ImageId, record: &Record) {
        self.batch.remove(image_key(id));
        self.batch.remove(path_key(b'p', record.path.as_bytes()));
        self.len += 1;
    }

    pub(crate) fn set_next_id(&mut self, next: u64) {
        self.batch.insert(b"n", &next.to_be_bytes());
    }
}

/// The sled store of one collection.
#[derive(Debug)]
pub(crate) struct Catalog {
    folder: PathBuf,
    db: sled::Db,
}

impl Catalog {
    /// Opens or creates; the caller holds the collection's lock.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).io("create", folder)?;
        remove_unfinished_snapshots(folder)?;
        let config = sled::Config::new().path(folder).cache_capacity(64 << 20);
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = opened
            .map_err(|_| IndexerError::Damaged {
                path: folder.to_path_buf(),
                reason: "the catalog cannot be opened; index the folders again into a new \
                         collection"
                    .to_owned(),
            })?
            .map_err(|error| failed(folder, &error))?;
        sync_folder(folder)?;
        Ok(Self { folder: folder.to_path_buf(), db })
    }

    /// Applies changes atomically and makes them durable.
    pub(crate) fn commit(&self, changes: Changes) -> Result<()> {
        self.db
            .apply_batch(changes.batch)
            .and_then(|()| self.db.flush())
            .map_err(|error| failed(&self.folder, &error))?;
        let path = self.folder.join("db");
        File::open(&path).and_then(|file| file.sync_all()).io("sync", &path)
    }

    pub(crate) fn next_id(&self) -> Result<u64> {
        let stored = self.db.get(b"n").map_err(|error| failed(&self.folder, &error))?;
        Ok(stored.and_then(|bytes| be_u64(&bytes)).unwrap_or(0))
    }

    pub(crate) fn record(&self, id: ImageId) -> Result<Option<Record>> {
        self.get(&image_key(id))
    }

    /// What is known about a path; an indexed image wins over a failure.
    pub(crate) fn known(&self, path: &Locator) -> Result<Option<Known>> {
        let key = path_key(b'p', path.as_bytes());
        let id = self.db.get(key).map_err(|error| failed(&self.folder, &error))?;
        if let Some(id) = id.and_then(|bytes| be_u64(&bytes)).map(ImageId)
            && let Some(record) = self.record(id)?
        {
            return Ok(Some(Known::Image(id, record)));
        }
        let failure = self.get::<Failure>(&path_key(b'f', path.as_bytes()))?;
        Ok(failure.map(Known::Failed))
    }

    /// Every image, by ascending id.
    pub(crate) fn images(&self) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.db.scan_prefix(b"i").map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            let id = be_u64(&key[1..]).ok_or_else(|| self.damaged(&key))?;
            Ok((ImageId(id), self.decode(&key, &value)?))
        })
    }

    /// Every failure, by path.
    pub(crate) fn failures(&self) -> impl Iterator<Item = Result<Failure>> {
        self.db.scan_prefix(b"f").map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            self.decode(&key, &value)
        })
    }

    fn get<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        let value = self.db.get(key).map_err(|error| failed(&self.folder, &error))?;
        value.map(|value| self.decode(key, &value)).transpose()
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T> {
        serde_json::from_slice(value).map_err(|_| self.damaged(key))
    }

    fn damaged(&self, key: &[u8]) -> IndexerError {
        IndexerError::Damaged {
            path: self.folder.clone(),
            reason: format!("entry `{}` cannot be read", key.escape_ascii()),
        }
    }
}

/// A crash between writing and renaming a snapshot leaves a file sled takes for a broken one.
fn remove_unfinished_snapshots(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).io("list", folder)? {
        let path = entry.io("list", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(&path).io("remove", &path)?;
        }
    }
    Ok(())
}

fn image_key(id: ImageId) -> Vec<u8> {
    let mut key = vec![b'i'];
    key.extend(id.0.to_be_bytes());
    key
}

fn path_key(kind: u8, path: &[u8]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(path);
    key
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| IndexerError::InvalidRequest(error.to_string()))
}

fn failed(folder: &Path, error: &sled::Error) -> IndexerError {
    IndexerError::Catalog { path: folder.to_path_buf(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str, row: u64) -> Record {
        Record {
            path: Locator::from(Path::new(path)),
            sha256: ContentHash::of(path.as_bytes()),
            stamp: FileStamp { size: 1, mtime_ns: -5 },
            width: 2,
            height: 3,
            warning: None,
            row,
            payload: Payload::new(),
        }
    }

    #[test]
    fn a_record_without_payload_is_read_and_one_with_it_comes_back() -> Result<()> {
        let old = r#"{"path":"/a.jpg","sha256":"00","size":1,"mtime_ns":-5,"width":2,"height":3,"row":7}"#;
        let mut image: Record = serde_json::from_str(old).expect("an early record");
        assert!(image.payload.is_empty());
        assert_eq!(serde_json::to_string(&image).expect("JSON"), old);
        image.payload.insert("label_confidence".to_owned(), 0.1.into());
        let again: Record = serde_json::from_slice(&encode(&image)?).expect("JSON");
        assert_eq!(again, image);
        Ok(())
    }

    #[test]
    fn a_commit_survives_reopening_and_a_success_clears_the_failure() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let catalog = Catalog::open(folder.path())?;
        let image = record("/a.jpg", 7);
        let failure = Failure {
            path: image.path.clone(),
            reason: "odd".to_owned(),
            not_a_picture: false,
            stamp: image.stamp,
        };
        let mut changes = Changes::default();
        changes.fail(&failure)?;
        catalog.commit(changes)?;
        assert_eq!(catalog.known(&image.path)?, Some(Known::Failed(failure)));

        let mut changes = Changes::default();
        changes.put(ImageId(4), &image)?;
        changes.set_next_id(5);
        catalog.commit(changes)?;
        drop(catalog);

        let catalog = Catalog::open(folder.path())?;
        assert_eq!(catalog.known(&image.path)?, Some(Known::Image(ImageId(4), image)));
        assert_eq!(catalog.failures().count(), 0);
        assert_eq!(catalog.next_id()?, 5);
        Ok(())
    }

    #[test]
    fn an_unfinished_snapshot_does_not_stop_the_next_open() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let catalog = Catalog::open(folder.path())?;
        let mut changes = Changes::default();
        changes.put(ImageId(0), &record("/a.jpg", 0))?;
        catalog.commit(changes)?;
        drop(catalog);
        let leftover = folder.path().join("snap.FFFFFFFFFFFFFFFF.generating");
        std::fs::write(&leftover, b"").expect("write");

        assert_eq!(Catalog::open(folder.path())?.images().count(), 1);
        assert!(!leftover.exists());
        Ok(())
    }
}
