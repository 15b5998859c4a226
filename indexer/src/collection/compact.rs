//! Space given back, and stored vectors kept in another way: both copy what is alive and swap.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::layout::{Collections, open_parts};
use super::progress::Progress;
use super::rewrite::Rewrite;
use super::{Collection, rewrite, room};
use crate::catalog::Catalog;
use crate::error::{IndexerError, Result};
use crate::manifest::Manifest;
use crate::vectors::Precision;

/// Images between two steps told.
const STEP: u64 = 256;
const UNTOUCHED: &str = "the collection is as it was";

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactReport {
    /// Whether there was anything to do.
    pub is_rewritten: bool,
    /// Images.
    pub images: u64,
    /// Rows that belonged to no image.
    pub dead_rows: u64,
    /// Bytes on disk before.
    pub bytes_before: u64,
    /// Bytes on disk now.
    pub bytes_after: u64,
}

/// Data that was replaced while the collection stayed open: searches that began before may still use
/// it. Left alone, it is removed when the collection is opened the next time.
#[must_use = "its space is given back by `remove`"]
#[derive(Debug)]
pub struct OldData {
    folder: PathBuf,
    catalog: Weak<Catalog>,
}

impl OldData {
    /// Removes it as soon as no search uses it any more; false when some still do after `longest`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(self, longest: Duration) -> Result<bool> {
        let start = Instant::now();
        while self.catalog.strong_count() > 0 {
            if start.elapsed() >= longest {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        rewrite::remove_folder(&self.folder)?;
        Ok(true)
    }
}

/// Choices that can change without computing embeddings again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageChoices {
    /// How exactly vectors are kept; only less exactly than now.
    pub precision: Option<Precision>,
    /// From this many images on, search goes through HNSW.
    pub ann_from: Option<u64>,
}

impl Collections {
    /// Gives back the space of embeddings that belong to no image any more, and of what the catalog
    /// has replaced. Ids, records and failures stay as they are; an interruption leaves the
    /// collection as it was. Without such embeddings it does nothing, unless `even_if_none`.
    ///
    /// # Errors
    /// The collection cannot be opened, a vector is damaged, or the disk has too little room for
    /// both copies; then nothing was changed.
    pub fn compact(
        &self,
        name: &str,
        even_if_none: bool,
        progress: &mut Progress<'_>,
    ) -> Result<CompactReport> {
        let collection = self.open(name)?;
        let lock = Arc::clone(&collection.lock);
        let bytes_before = self.usage(name)?.total();
        let images = collection.alive.len();
        let dead_rows = collection.meta.rows - images;
        let is_rewritten = dead_rows > 0 || even_if_none;
        if is_rewritten {
            let like = collection.manifest.clone();
            copy_alive(collection, &like, progress)?;
        }
        let bytes_after = self.usage(name)?.total();
        drop(lock);
        Ok(CompactReport { is_rewritten, images, dead_rows, bytes_before, bytes_after })
    }

    /// Keeps the vectors there are in another way. Returns whether anything was changed.
    ///
    /// # Errors
    /// As [`compact`](Self::compact); or the vectors would have to be more exact than they are, for
    /// which pictures must be read again ([`reindex`](Self::reindex)).
    pub fn store_otherwise(
        &self,
        name: &str,
        choices: StorageChoices,
        progress: &mut Progress<'_>,
    ) -> Result<bool> {
        let collection = self.open(name)?;
        let lock = Arc::clone(&collection.lock);
        let old = &collection.manifest;
        let like = Manifest {
            precision: choices.precision.unwrap_or(old.precision),
            ann_from: choices.ann_from.unwrap_or(old.ann_from),
            ..old.clone()
        };
        if (like.precision, like.ann_from) == (old.precision, old.ann_from) {
            return Ok(false);
        }
        if like.precision == Precision::F32 && old.precision == Precision::F16 {
            return Err(IndexerError::InvalidRequest(format!(
                "vectors of `{name}` are stored as f16 and cannot become more exact; they must be \
                 computed again from the pictures"
            )));
        }
        copy_alive(collection, &like, progress)?;
        drop(lock);
        Ok(true)
    }
}

impl Collection {
    /// [`Collections::compact`] of a collection that stays open: its readers go on, and see the new
    /// data when it is there. Commits first. Gives the data that was replaced, if any.
    ///
    /// # Errors
    /// As [`Collections::compact`]; the collection goes on as it was.
    pub fn compact(
        &mut self,
        even_if_none: bool,
        progress: &mut Progress<'_>,
    ) -> Result<(CompactReport, Option<OldData>)> {
        self.commit()?;
        let bytes_before = room::folder_bytes(&self.folder)?;
        let images = self.alive.len();
        let dead_rows = self.meta.rows - images;
        let report = CompactReport {
            is_rewritten: dead_rows > 0 || even_if_none,
            images,
            dead_rows,
            bytes_before,
            bytes_after: bytes_before,
        };
        if !report.is_rewritten {
            return Ok((report, None));
        }
        let like = self.manifest.clone();
        let rewrite = filled(self, &like, progress)?;
        let manifest = rewrite.swap_beside(&like, self.meta.next_id, self.meta.sequence)?;
        let old = OldData { folder: self.data_folder(), catalog: Arc::downgrade(&self.catalog) };
        let lock = Arc::clone(&self.lock);
        let mut new = match open_parts(&self.name, self.folder.clone(), manifest, lock) {
            Ok(new) => new,
            Err(error) => {
                // Back to the old data, which is still there and goes on.
                self.write_manifest()?;
                return Err(error);
            }
        };
        new.reader = self.reader.clone();
        *self = new;
        self.publish();
        let old_bytes = room::folder_bytes(&old.folder)?;
        let bytes_after = room::folder_bytes(&self.folder)?.saturating_sub(old_bytes);
        Ok((CompactReport { bytes_after, ..report }, Some(old)))
    }
}

/// Copies everything alive to a new data folder, to be kept as `like` says, and swaps.
fn copy_alive(
    collection: Collection,
    like: &Manifest,
    progress: &mut Progress<'_>,
) -> Result<Manifest> {
    let rewrite = filled(&collection, like, progress)?;
    let (next_id, sequence) = (collection.meta.next_id, collection.meta.sequence);
    let lock = Arc::clone(&collection.lock);
    drop(collection);
    let manifest = rewrite.swap(like, next_id, sequence)?;
    drop(lock);
    Ok(manifest)
}

/// New data with everything alive, to be kept as `like` says.
fn filled(
    collection: &Collection,
    like: &Manifest,
    progress: &mut Progress<'_>,
) -> Result<Rewrite> {
    let images = collection.alive.len();
    let catalog = room::folder_bytes(&collection.data_folder().join("catalog"))?;
    room::require(&collection.folder, room::needed(like, images, catalog))?;
    let rows = collection.vectors.snapshot();
    let fill = |rewrite: &mut Rewrite| {
        for (done, image) in collection.images().enumerate() {
            if (done as u64).is_multiple_of(STEP) {
                progress.step("copying images", done as u64, images, UNTOUCHED)?;
            }
            let (id, record) = image?;
            let vector = rows.read(record.row, id)?;
            rewrite.put(id, record, &vector)?;
        }
        collection.catalog.failures().try_for_each(|failure| rewrite.fail(failure?))?;
        progress.step("building what is derived", 0, 0, UNTOUCHED)
    };
    let rewrite = Rewrite::filled(&collection.folder, like.model.dim, like.precision, fill)?;
    if rewrite.images() != images {
        rewrite.discard();
        return Err(IndexerError::Damaged {
            path: collection.data_folder().join("catalog"),
            reason: format!(
                "its records and its {images} images alive do not agree; run `akin collection check \
                 {} --repair`",
                collection.name
            ),
        });
    }
    Ok(rewrite)
}
