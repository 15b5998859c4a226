//! Space given back, and stored vectors kept in another way: both copy what is alive and swap.

use std::sync::Arc;

use super::layout::Collections;
use super::progress::Progress;
use super::rewrite::Rewrite;
use super::{Collection, room};
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

/// Copies everything alive to a new data folder, to be kept as `like` says, and swaps.
fn copy_alive(
    collection: Collection,
    like: &Manifest,
    progress: &mut Progress<'_>,
) -> Result<Manifest> {
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
    let (next_id, sequence) = (collection.meta.next_id, collection.meta.sequence);
    let lock = Arc::clone(&collection.lock);
    drop((rows, collection));
    let manifest = rewrite.swap(like, next_id, sequence)?;
    drop(lock);
    Ok(manifest)
}
