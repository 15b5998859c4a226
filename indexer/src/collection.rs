//! A named, durable set of images and their embeddings.
//!
//! One folder: `manifest.json` (what it is, and which data folder counts), `lock`, and the data
//! folder with `catalog/` (records), `vectors/` (embeddings, the truth) and `ann/` (derived). A
//! commit makes vectors durable first and then, in one atomic batch, the records that point at them:
//! whatever is interrupted, every record has its vector.

mod layout;
mod view;
mod progress;
mod rewrite;
mod room;
mod check;
mod compact;
mod derive;
mod delete;
mod reindex;
mod archive;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Embedding, ModelIdentity};
use roaring::RoaringBitmap;

pub use self::archive::{
    RestoreOptions, RestoreReport, SnapshotInfo, SnapshotReport, read_snapshot_info,
};
pub use self::check::{CheckReport, Violation};
pub use self::compact::{CompactReport, OldData, StorageChoices};
pub use self::delete::{RemoveReport, Which};
use self::derive::Derived;
use self::layout::Lock;
pub use self::layout::{CollectionSummary, Collections, CreateOptions};
pub use self::progress::{Progress, Step};
pub use self::reindex::{ReindexOptions, ReindexReport};
pub use self::room::Usage;
pub use self::view::{Hit, Near, Reader, View};
use crate::ann::Layers;
use crate::catalog::{Catalog, Meta, Pending};
use crate::error::Result;
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::manifest::Manifest;
use crate::record::{Failure, FileStamp, Known, Payload, Record, Seen, SeenKind};
use crate::vectors::Vectors;

/// An open collection; this is its only writer, and this process its only user.
#[derive(Debug)]
pub struct Collection {
    name: Arc<str>,
    folder: PathBuf,
    manifest: Manifest,
    catalog: Arc<Catalog>,
    vectors: Vectors,
    meta: Meta,
    alive: RoaringBitmap,
    pending: Pending,
    layers: Option<Layers>,
    derived: Derived,
    reader: Reader,
    lock: Arc<Lock>,
}

/// What is known of an image when it is added.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Where it is.
    pub path: Locator,
    /// Hash of the file.
    pub sha256: ContentHash,
    /// Size and time of the file.
    pub stamp: FileStamp,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Something odd about the file.
    pub warning: Option<String>,
    /// What is attached to it.
    pub payload: Payload,
}

impl Collection {
    /// Name of the collection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder that holds its files, where what belongs to it may be kept beside them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A handle to search with, which sees what is committed from now on too.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The committed state.
    pub fn view(&self) -> Arc<View> {
        self.reader.view()
    }

    /// Number of committed images.
    pub fn len(&self) -> usize {
        self.alive.len() as usize
    }

    /// Whether no image is committed.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Checks that vectors of this model belong into this collection.
    ///
    /// # Errors
    /// [`IndexerError::ModelMismatch`](crate::IndexerError::ModelMismatch).
    pub fn check_model(&self, model: &ModelIdentity) -> Result<()> {
        self.view().check_model(model)
    }

    /// What is known about a path, uncommitted changes included.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn known(&self, path: &Locator) -> Result<Option<Known>> {
        let Some(state) = self.pending.path(path) else { return self.catalog.known(path) };
        Ok(match state.map(|seen| seen.kind) {
            Some(SeenKind::Image(id)) => self.record(id)?.map(|record| Known::Image(id, record)),
            Some(SeenKind::Failed) => {
                self.pending.failure(path).flatten().cloned().map(Known::Failed)
            }
            None => None,
        })
    }

    /// What is committed about every path that starts with these bytes, in the order of bytes.
    pub fn known_under(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(Locator, Seen)>> {
        self.catalog.known_under(prefix)
    }

    /// Committed images whose file has this hash, by ascending id.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn with_content(&self, hash: &ContentHash) -> Result<Vec<ImageId>> {
        self.catalog.with_content(hash).collect()
    }

    /// What is known of an image, uncommitted changes included.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn record(&self, id: ImageId) -> Result<Option<Record>> {
        match self.pending.image(id) {
            Some(state) => Ok(state.cloned()),
            None => self.catalog.record(id),
        }
    }

    /// Every committed image, by ascending id.
    pub fn images(&self) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.catalog.images_from(ImageId(0))
    }

    /// Every file that was skipped and that looks like a picture, by path.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn failures(&self) -> Result<Vec<Failure>> {
        self.view().failures()
    }

    /// Adds an image, or replaces the one at the same path (which keeps its id). Durable and
    /// searchable after [`commit`](Self::commit).
    ///
    /// # Errors
    /// The vector has the wrong length, or a shard cannot be created.
    pub fn put(&mut self, image: NewImage, embedding: &Embedding) -> Result<ImageId> {
        let id = match self.seen(&image.path)?.map(|seen| seen.kind) {
            Some(SeenKind::Image(id)) => id,
            Some(SeenKind::Failed) | None => {
                self.meta.next_id += 1;
                ImageId(self.meta.next_id - 1)
            }
        };
        let row = self.vectors.append(id, embedding.as_slice())?;
        let NewImage { path, sha256, stamp, width, height, warning, payload } = image;
        let record = Record { path, sha256, stamp, width, height, warning, row, payload };
        self.pending.put(id, record);
        Ok(id)
    }

    fn seen(&self, path: &Locator) -> Result<Option<Seen>> {
        match self.pending.path(path) {
            Some(state) => Ok(state),
            None => self.catalog.seen(path.as_bytes()),
        }
    }

    /// Notes that a known image's file was touched without changing its content.
    ///
    /// # Errors
    /// None at present.
    pub fn touch(&mut self, id: ImageId, record: Record, stamp: FileStamp) -> Result<()> {
        self.pending.put(id, Record { stamp, ..record });
        Ok(())
    }

    /// Notes that a known image is at another path now; id and embedding stay. An image known at
    /// that path is gone.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn relocate(
        &mut self,
        id: ImageId,
        record: Record,
        path: Locator,
        stamp: FileStamp,
    ) -> Result<()> {
        if let Some(SeenKind::Image(occupant)) = self.seen(&path)?.map(|seen| seen.kind)
            && occupant != id
        {
            self.pending.remove(occupant, &path);
        }
        if self.seen(&record.path)?.is_some_and(|seen| seen.kind == SeenKind::Image(id)) {
            self.pending.free(&record.path);
        }
        self.pending.put(id, Record { path, stamp, ..record });
        Ok(())
    }

    /// Replaces what is attached to a known image. Durable after [`commit`](Self::commit), together
    /// with everything else noted since the last one.
    ///
    /// # Errors
    /// None at present.
    pub fn set_payload(&mut self, id: ImageId, record: Record, payload: Payload) -> Result<()> {
        self.pending.put(id, Record { payload, ..record });
        Ok(())
    }

    /// Notes that an image is gone; false when there is none of this id.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn remove(&mut self, id: ImageId) -> Result<bool> {
        let Some(record) = self.record(id)? else { return Ok(false) };
        self.pending.remove(id, &record.path);
        Ok(true)
    }

    /// Notes that a file could not be read; an image known at this path is gone with its content.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn fail(&mut self, failure: &Failure) -> Result<()> {
        if let Some(SeenKind::Image(id)) = self.seen(&failure.path)?.map(|seen| seen.kind) {
            self.pending.remove(id, &failure.path);
        }
        self.pending.fail(failure.clone());
        Ok(())
    }

    /// Notes that a file that gave no image is gone.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn forget_failure(&mut self, path: &Locator) -> Result<()> {
        if self.seen(path)?.is_some_and(|seen| seen.kind == SeenKind::Failed) {
            self.pending.forget_failure(path);
        }
        Ok(())
    }

    /// Changes noted since the last commit. A commit is one batch of the catalog: commit every
    /// thousand or so.
    pub fn uncommitted(&self) -> usize {
        self.pending.len()
    }

    /// Makes everything noted so far durable and searchable.
    ///
    /// # Errors
    /// A write failed; what was committed before is intact, and the changes are still noted.
    pub fn commit(&mut self) -> Result<()> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        self.vectors.sync()?;
        let meta = Meta { rows: self.vectors.rows(), ..self.meta };
        self.meta = self.catalog.commit(&self.pending, &mut self.alive, &meta)?;
        self.pending = Pending::default();
        self.derived.is_stale = true;
        self.note_counts();
        self.extend_layers_if_due()?;
        self.publish();
        self.write_manifest()
    }

    /// Remembers which weights to open for a search that names none.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn set_model_source(&mut self, source: &str) -> Result<()> {
        if self.manifest.model_source.as_deref() == Some(source) {
            return Ok(());
        }
        self.manifest.model_source = Some(source.to_owned());
        self.publish();
        self.write_manifest()
    }

    /// The `k` committed images most similar to a query, best first, ties by id.
    ///
    /// # Errors
    /// `k` is 0, the query has the wrong length, or a row on disk is damaged.
    pub fn search(&self, query: &Embedding, k: usize) -> Result<Vec<Hit>> {
        self.reader.search(query, k)
    }

    /// The stored embedding of a committed image.
    ///
    /// # Errors
    /// The row on disk is damaged.
    pub fn embedding(&self, id: ImageId, record: &Record) -> Result<Embedding> {
        Ok(Embedding::normalised(self.vectors.snapshot().read(record.row, id)?)?)
    }

    fn note_counts(&mut self) {
        self.manifest.rows = self.meta.rows;
        self.manifest.images = self.alive.len();
        self.manifest.failed = self.meta.failed;
    }

    fn data_folder(&self) -> PathBuf {
        self.folder.join(&self.manifest.data)
    }

    fn publish(&self) {
        self.reader.publish(View {
            name: Arc::clone(&self.name),
            manifest: Arc::new(self.manifest.clone()),
            rows: self.vectors.snapshot(),
            alive: Arc::new(self.alive.clone()),
            layers: self.layers.clone(),
            sequence: self.meta.sequence,
            catalog: Arc::clone(&self.catalog),
            _lock: Arc::clone(&self.lock),
        });
    }

    fn write_manifest(&self) -> Result<()> {
        self.manifest.write(&layout::manifest_path(&self.folder))
    }
}

/// Model and settings in words, for a message about two of them that differ.
pub(crate) fn describe(model: &ModelIdentity) -> String {
    format!(
        "{} (weights {}…, pooling {}, position embeddings {}, resize {}, crop {}, icc {}, \
         matmul {}, decode {})",
        model.name,
        model.weights_sha256.get(..8).unwrap_or_default(),
        model.pooling,
        model.pos_embed,
        model.preprocess.resize,
        model.preprocess.crop,
        model.icc,
        model.precision,
        model.decode,
    )
}
