//! What is known about every image and every file that gave none, in sled.
//!
//! One tree, so that a batch over all kinds of entries is atomic. Keys:
//!
//! | key | value |
//! | --- | --- |
//! | `i` + image id | [`Record`] |
//! | `p` + path | [`Seen`]: image id or failure, size and time |
//! | `f` + path | [`Failure`] |
//! | `h` + first 16 bytes of SHA-256 + image id | nothing |
//! | `b` + page | rows alive, 65,536 a page |
//! | `x` + field + value + page | rows with that payload value (`postings.rs`) |
//! | `m` | [`Meta`] |
//!
//! Integers in keys are big-endian, values sealed with a checksum (`record.rs`). sled 0.34 needs
//! three precautions: its `flush` does not fsync, a crash while it writes a snapshot leaves a file
//! that fails every later open, and damage can make it panic.

mod pending;
mod postings;
mod format_1;
mod audit;
mod recent;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

pub(crate) use self::audit::Entry;
pub(crate) use self::format_1::Format1;
pub(crate) use self::pending::Pending;
pub use self::postings::{Scalar, TEXT_BYTES, ValueRange, scalars};
use self::recent::Recent;
pub use self::values::FieldValues;
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::record::{self, Failure, Known, Record, Seen, SeenKind};

/// Memory for pages of the catalog: records of a million images are about 300 MB, of which searches
/// mostly read the same.
const CACHE_BYTES: u64 = 128 << 20;
/// How long a catalog that was just dropped may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// Counters that change with every commit, in the same batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Commits so far.
    pub(crate) sequence: u64,
    /// Id of the next new image.
    pub(crate) next_id: u64,
    /// Rows that belong to a commit; what follows them in the shards does not count.
    pub(crate) rows: u64,
    /// Files that look like pictures and gave none.
    pub(crate) failed: u64,
}

/// The sled store of one collection.
#[derive(Debug)]
pub(crate) struct Catalog {
    folder: PathBuf,
    db: sled::Db,
    recent: Recent,
}

impl Catalog {
    /// Opens or creates; the caller holds the collection's lock.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).io("create", folder)?;
        remove_unfinished_snapshots(folder)?;
        // Every commit flushes; a flush in between would only write more often.
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES);
        let config = config.flush_every_ms(None);
        let start = Instant::now();
        let db = loop {
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
            let opened = opened.map_err(|_| IndexerError::Damaged {
                path: folder.to_path_buf(),
                reason: format!("the catalog cannot be opened; {}", crate::error::RESTORE),
            })?;
            match opened {
                Ok(db) => break db,
                // A thread of the engine may still be closing what this process had open before; nobody else can
                // have it, since the caller holds the collection's lock.
                Err(error) if is_locked(&error) && start.elapsed() < CLOSING => {
                    std::thread::sleep(CLOSING / 500);
                }
                Err(error) => return Err(failed(folder, &error)),
            }
        };
        sync_folder(folder)?;
        Ok(Self { folder: folder.to_path_buf(), db, recent: Recent::new() })
    }

    /// Applies changes atomically and makes them durable. `alive` is brought up to date; `meta`
    /// says how many rows and ids there are, and gets a new sequence number.
    pub(crate) fn commit(
        &self,
        pending: &Pending,
        alive: &mut RoaringBitmap,
        meta: &Meta,
    ) -> Result<Meta> {
        let mut meta = Meta { sequence: meta.sequence + 1, ..*meta };
        let mut batch = sled::Batch::default();
        let mut rows = RowChanges::default();
        for (&id, state) in &pending.images {
            let old = self.record(id)?;
            if let Some(old) = &old {
                batch.remove(hash_key(&old.sha256, Some(id)).unwrap_or_default());
                rows.note(old, false);
            }
            match state {
                Some(record) => {
                    let hash = hash_key(&record.sha256, Some(id));
                    let (Some(hash), Some(bytes)) = (hash, record.encode()) else {
                        return Err(IndexerError::InvalidRequest(format!(
                            "the record of {} cannot be stored: bad hash or payload",
                            record.path
                        )));
                    };
                    batch.insert(hash, &[]);
                    batch.insert(image_key(id), bytes);
                    rows.note(record, true);
                }
                None => batch.remove(image_key(id)),
            }
        }
        for (path, state) in &pending.paths {
            let key = path_key(b'p', path);
            match state {
                Some(seen) => batch.insert(key, self.encoded(seen)?),
                None => batch.remove(key),
            }
        }
        for (path, state) in &pending.failures {
            let key = path_key(b'f', path);
            let counts = |failure: &Failure| u64::from(!failure.not_a_picture);
            meta.failed -= self.failure(path)?.as_ref().map_or(0, counts);
            meta.failed += state.as_ref().map_or(0, counts);
            match state {
                Some(failure) => batch.insert(key, failure.encode().unwrap_or_default()),
                None => batch.remove(key),
            }
        }
        let changed = self.change_rows(rows, alive, &mut batch)?;
        batch.insert(b"m", self.encoded(&meta)?);
        self.recent.forget(pending.images.keys(), || self.apply(batch))?;
        *alive = changed;
        Ok(meta)
    }

    fn apply(&self, batch: sled::Batch) -> Result<()> {
        // A full disk makes sled panic in places; what it had is then still there.
        let applied = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.db.apply_batch(batch).and_then(|()| self.db.flush())
        }));
        applied
            .map_err(|_| IndexerError::Catalog {
                path: self.folder.clone(),
                reason: "the storage engine gave up while writing; is the disk full?".to_owned(),
            })?
            .map_err(|error| failed(&self.folder, &error))?;
        let path = self.folder.join("db");
        File::open(&path).and_then(|file| file.sync_all()).io("sync", &path)
    }

    /// Rewrites the pages of rows that images left or entered.
    fn change_rows(
        &self,
        rows: RowChanges,
        alive: &RoaringBitmap,
        batch: &mut sled::Batch,
    ) -> Result<RoaringBitmap> {
        let mut alive = alive.clone();
        let mut pages = BTreeSet::new();
        for (row, is_alive) in rows.alive {
            match is_alive {
                true => alive.insert(row),
                false => alive.remove(row),
            };
            pages.insert(row >> 16);
        }
        for page in pages {
            let start = page << 16;
            let range = alive.range(start..=start + 0xFFFF).map(|row| row & 0xFFFF);
            self.write_page(page_key(page), range.collect(), batch)?;
        }
        for (key, changes) in rows.postings {
            let mut rows = self.page(&key)?;
            for (row, is_listed) in changes {
                match is_listed {
                    true => rows.insert(row),
                    false => rows.remove(row),
                };
            }
            self.write_page(key, rows, batch)?;
        }
        Ok(alive)
    }

    fn write_page(
        &self,
        key: Vec<u8>,
        mut rows: RoaringBitmap,
        batch: &mut sled::Batch,
    ) -> Result<()> {
        if rows.is_empty() {
            batch.remove(key);
            return Ok(());
        }
        rows.optimize();
        let mut bytes = vec![0; 4];
        rows.serialize_into(&mut bytes).io("write", &self.folder)?;
        batch.insert(key, record::sealed(bytes));
        Ok(())
    }

    fn page(&self, key: &[u8]) -> Result<RoaringBitmap> {
        match self.value(key)? {
            Some(bytes) => self.decoded_page(key, &bytes),
            None => Ok(RoaringBitmap::new()),
        }
    }

    fn decoded_page(&self, key: &[u8], bytes: &[u8]) -> Result<RoaringBitmap> {
        let body = record::checked(bytes).ok_or_else(|| self.damaged(key))?;
        RoaringBitmap::deserialize_from(body).map_err(|_| self.damaged(key))
    }

    /// Rows in all pages of a range of keys.
    fn pages(&self, range: std::ops::Range<Vec<u8>>) -> Result<RoaringBitmap> {
        let mut rows = RoaringBitmap::new();
        for entry in self.db.range(range) {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            let page = postings::page_of(&key).ok_or_else(|| self.damaged(&key))?;
            rows.extend(self.decoded_page(&key, &value)?.iter().map(|row| page << 16 | row));
        }
        Ok(rows)
    }

    /// Rows that belong to an image.
    pub(crate) fn alive(&self) -> Result<RoaringBitmap> {
        self.pages(vec![b'b']..vec![b'b' + 1])
    }

    /// Rows of images whose payload has such a value.
    pub(crate) fn rows_with(&self, field: &str, range: &ValueRange) -> Result<RoaringBitmap> {
        self.pages(postings::key_range(field, range)?)
    }

    /// Whether it holds nothing at all. The engine takes a damaged first segment for the end of its log, and opens empty.
    pub(crate) fn is_blank(&self) -> bool {
        self.db.is_empty()
    }

    pub(crate) fn meta(&self) -> Result<Meta> {
        match self.value(b"m")? {
            Some(bytes) => record::decode(&bytes).ok_or_else(|| self.damaged(b"m")),
            None => Ok(Meta::default()),
        }
    }

    pub(crate) fn record(&self, id: ImageId) -> Result<Option<Record>> {
        let key = image_key(id);
        let decode = |bytes: sled::IVec| Record::decode(&bytes).ok_or_else(|| self.damaged(&key));
        self.value(&key)?.map(decode).transpose()
    }

    /// [`record`](Self::record) for showing: from memory where it was shown lately.
    pub(crate) fn shown(&self, id: ImageId) -> Result<Option<Arc<Record>>> {
        self.recent.get(id, || self.record(id))
    }

    pub(crate) fn seen(&self, path: &[u8]) -> Result<Option<Seen>> {
        let key = path_key(b'p', path);
        let decode = |bytes: sled::IVec| record::decode(&bytes).ok_or_else(|| self.damaged(&key));
        self.value(&key)?.map(decode).transpose()
    }

    pub(crate) fn failure(&self, path: &[u8]) -> Result<Option<Failure>> {
        let key = path_key(b'f', path);
        let decode =
            |bytes: sled::IVec| Failure::decode(path, &bytes).ok_or_else(|| self.damaged(&key));
        self.value(&key)?.map(decode).transpose()
    }

    /// What is known about a path.
    pub(crate) fn known(&self, path: &Locator) -> Result<Option<Known>> {
        Ok(match self.seen(path.as_bytes())?.map(|seen| seen.kind) {
            Some(SeenKind::Image(id)) => self.record(id)?.map(|record| Known::Image(id, record)),
            Some(SeenKind::Failed) => self.failure(path.as_bytes())?.map(Known::Failed),
            None => None,
        })
    }

    /// Images whose file has this hash, by ascending id.
    pub(crate) fn with_content(&self, hash: &ContentHash) -> impl Iterator<Item = Result<ImageId>> {
        let keys = hash_key(hash, None).map(|prefix| self.db.scan_prefix(prefix).keys());
        let ids = keys.into_iter().flatten().map(|key| {
            let key = key.map_err(|error| failed(&self.folder, &error))?;
            let id = key.last_chunk::<8>().ok_or_else(|| self.damaged(&key))?;
            let id = ImageId(u64::from_be_bytes(*id));
            // The key has half the hash; the record has all of it.
            let is_it = self.record(id)?.is_some_and(|record| record.sha256 == *hash);
            Ok(is_it.then_some(id))
        });
        ids.filter_map(Result::transpose)
    }

    /// Every image from an id on, by ascending id.
    pub(crate) fn images_from(
        &self,
        first: ImageId,
    ) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.db.range(image_key(first)..vec![b'i' + 1]).map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id = id.ok_or_else(|| self.damaged(&key))?;
            Ok((ImageId(id), Record::decode(&value).ok_or_else(|| self.damaged(&key))?))
        })
    }

    /// Every failure, by path.
    pub(crate) fn failures(&self) -> impl Iterator<Item = Result<Failure>> {
        self.db.scan_prefix(b"f").map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            Failure::decode(&key[1..], &value).ok_or_else(|| self.damaged(&key))
        })
    }

    /// What is known about every path that starts so, in the order of bytes.
    pub(crate) fn known_under(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Locator, Seen)>> {
        self.db.scan_prefix(path_key(b'p', prefix)).map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&self.folder, &error))?;
            let seen = record::decode(&value).ok_or_else(|| self.damaged(&key))?;
            Ok((Locator::from_bytes(&key[1..]), seen))
        })
    }

    /// Names of payload fields that have values, in order; at most `limit`.
    pub(crate) fn fields(&self, limit: usize) -> Result<Vec<String>> {
        let mut fields = Vec::new();
        let mut from = Bound::Included(vec![b'x']);
        while fields.len() < limit {
            let next = self.db.range((from, Bound::Excluded(vec![b'x' + 1]))).next();
            let Some(entry) = next else { break };
            let (key, _) = entry.map_err(|error| failed(&self.folder, &error))?;
            let field = postings::field_of(&key).ok_or_else(|| self.damaged(&key))?;
            from = Bound::Included(postings::key_range(&field, &ValueRange::Any)?.end);
            fields.push(field);
        }
        Ok(fields)
    }

    fn value(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.db.get(key).map_err(|error| failed(&self.folder, &error))
    }

    fn encoded<T: Serialize>(&self, value: &T) -> Result<Vec<u8>> {
        record::encode(value).ok_or_else(|| IndexerError::Catalog {
            path: self.folder.clone(),
            reason: "a value cannot be encoded".to_owned(),
        })
    }

    fn damaged(&self, key: &[u8]) -> IndexerError {
        IndexerError::Damaged {
            path: self.folder.clone(),
            reason: format!(
                "entry `{}` cannot be read; {}",
                key.escape_ascii(),
                crate::error::RESTORE
            ),
        }
    }
}

/// Rows that images leave and enter.
#[derive(Default)]
struct RowChanges {
    /// In this order: a row that is left and entered again is alive.
    alive: Vec<(u32, bool)>,
    /// By key with page: rows within the page, in order.
    postings: BTreeMap<Vec<u8>, Vec<(u32, bool)>>,
}

impl RowChanges {
    fn note(&mut self, record: &Record, enters: bool) {
        // Rows fit: the vectors refuse more than there are u32.
        let row = record.row as u32;
        self.alive.push((row, enters));
        for key in postings::keys(&record.payload) {
            let key = postings::paged(&key, row >> 16);
            self.postings.entry(key).or_default().push((row & 0xFFFF, enters));
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
    [&b"i"[..], &id.0.to_be_bytes()].concat()
}

fn page_key(page: u32) -> Vec<u8> {
    [&b"b"[..], &page.to_be_bytes()].concat()
}

fn path_key(kind: u8, path: &[u8]) -> Vec<u8> {
    [&[kind], path].concat()
}

/// `None` when the hash is no SHA-256.
fn hash_key(hash: &ContentHash, id: Option<ImageId>) -> Option<Vec<u8>> {
    let mut key = vec![b'h'];
    key.extend(&hash.to_bytes()?[..16]);
    key.extend(id.iter().flat_map(|id| id.0.to_be_bytes()));
    Some(key)
}

/// Whether another handle has the files. The engine says so in words only.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn failed(folder: &Path, error: &sled::Error) -> IndexerError {
    let reason = match error {
        sled::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            "no space left on the device; free some and try again, what was committed is intact"
                .to_owned()
        }
        _ => error.to_string(),
    };
    IndexerError::Catalog { path: folder.to_path_buf(), reason }
}

#[cfg(test)]
mod tests;
