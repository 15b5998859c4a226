//! A named, durable set of images and their embeddings.
//!
//! One folder: `manifest.json` (what it is), `catalog/` (records), `vectors/` (embeddings, the
//! truth), `ann/` (derived), `lock`. A commit makes vectors durable first and then, in one atomic
//! batch, the records that point at them: whatever is interrupted, every record has its vector.

mod layout;

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::{Embedding, ModelIdentity};

use self::layout::Lock;
pub use self::layout::{CollectionSummary, Collections};
use crate::ann::{Hnsw, exact};
use crate::background;
use crate::catalog::{Catalog, Changes, Failure, FileStamp, Known, Payload, Record};
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::manifest::Manifest;
use crate::vectors::Vectors;

/// An open collection; this process is its only user.
#[derive(Debug)]
pub struct Collection {
    name: String,
    folder: PathBuf,
    manifest: Manifest,
    catalog: Catalog,
    vectors: Vectors,
    /// Row to image, for rows that a record points at.
    live: BTreeMap<u64, ImageId>,
    next_id: u64,
    changes: Changes,
    /// Committed changes that derived data does not know of yet.
    derived_is_stale: bool,
    hnsw: Option<Hnsw>,
    /// Declared last: released when everything else is closed.
    _lock: Lock,
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
}

/// A search result.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The image.
    pub id: ImageId,
    /// Cosine similarity with the query.
    pub similarity: f32,
    /// What is known of it.
    pub record: Record,
}

/// HNSW is asked for this many times more neighbours than wanted; the best are chosen exactly.
const OVERFETCH: usize = 4;

impl Collection {
    /// Name of the collection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of images, committed or not.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether it holds no image.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Checks that vectors of this model belong into this collection.
    ///
    /// # Errors
    /// [`IndexerError::ModelMismatch`].
    pub fn check_model(&self, model: &ModelIdentity) -> Result<()> {
        if model.fingerprint() == self.manifest.fingerprint {
            return Ok(());
        }
        Err(IndexerError::ModelMismatch {
            name: self.name.clone(),
            expected: describe(&self.manifest.model),
            got: describe(model),
        })
    }

    /// What is known about a file, as of the last commit.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn known(&self, path: &Locator) -> Result<Option<Known>> {
        self.catalog.known(path)
    }

    /// Every committed image, by ascending id.
    pub fn images(&self) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.catalog.images()
    }

    /// Every file that was skipped and that looks like a picture, by path.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn failures(&self) -> Result<Vec<Failure>> {
        let listed = |failure: &Result<Failure>| failure.as_ref().is_ok_and(|f| f.not_a_picture);
        self.catalog.failures().filter(|failure| !listed(failure)).collect()
    }

    /// Adds an image, or replaces the one at the same path (which keeps its id). Durable and
    /// searchable after [`commit`](Self::commit).
    ///
    /// # Errors
    /// The vector has the wrong length, or a shard cannot be created.
    pub fn put(&mut self, image: NewImage, embedding: &Embedding) -> Result<ImageId> {
        let id = match self.catalog.known(&image.path)? {
            Some(Known::Image(id, old)) => {
                self.live.remove(&old.row);
                id
            }
            _ => {
                self.next_id += 1;
                ImageId(self.next_id - 1)
            }
        };
        let row = self.vectors.append(id, embedding)?;
        let NewImage { path, sha256, stamp, width, height, warning } = image;
        let payload = Payload::new();
        let record = Record { path, sha256, stamp, width, height, warning, row, payload };
        self.changes.put(id, &record)?;
        self.live.insert(row, id);
        Ok(id)
    }

    /// Notes that a known image's file was touched without changing its content.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn touch(&mut self, id: ImageId, record: Record, stamp: FileStamp) -> Result<()> {
        self.changes.put(id, &Record { stamp, ..record })
    }

    /// Replaces what is attached to a known image. Durable after [`commit`](Self::commit), together
    /// with everything else noted since the last one.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn set_payload(&mut self, id: ImageId, record: Record, payload: Payload) -> Result<()> {
        self.changes.put(id, &Record { payload, ..record })
    }

    /// Notes that a file could not be read; an image known at this path is gone with its content.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn fail(&mut self, failure: &Failure) -> Result<()> {
        if let Some(Known::Image(id, record)) = self.catalog.known(&failure.path)? {
            self.live.remove(&record.row);
            self.changes.remove(id, &record);
        }
        self.changes.fail(failure)
    }

    /// Images and failures noted since the last commit.
    pub fn uncommitted(&self) -> usize {
        self.changes.len
    }

    /// Makes everything noted so far durable and searchable.
    ///
    /// # Errors
    /// A write failed; what was committed before is intact.
    pub fn commit(&mut self) -> Result<()> {
        if self.changes.len == 0 {
            return Ok(());
        }
        self.vectors.sync()?;
        let mut changes = std::mem::take(&mut self.changes);
        changes.set_next_id(self.next_id);
        self.catalog.commit(changes)?;
        self.derived_is_stale = true;
        self.manifest.rows = self.vectors.rows();
        self.manifest.images = self.live.len() as u64;
        self.manifest.failed = self.failures()?.len() as u64;
        self.write_manifest()
    }

    /// Commits, and brings what is derived from the images up to date.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn finish(&mut self) -> Result<()> {
        self.commit()?;
        if !std::mem::take(&mut self.derived_is_stale) {
            return Ok(());
        }
        self.manifest.background = background::quantiles(&self.vectors, &self.live)?;
        self.write_manifest()?;
        self.catch_up()?;
        match &self.hnsw {
            Some(hnsw) => hnsw.save(&self.hnsw_path()),
            None => Ok(()),
        }
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
        self.write_manifest()
    }

    /// The `k` committed images most similar to a query, best first, ties by id.
    ///
    /// # Errors
    /// `k` is 0, the query has the wrong length, or a row on disk is damaged.
    pub fn search(&self, query: &Embedding, k: usize) -> Result<Vec<Hit>> {
        if k == 0 {
            return Err(IndexerError::InvalidRequest(
                "k is 0: ask for at least 1 result".to_owned(),
            ));
        }
        let expected = self.manifest.model.dim;
        if query.dim() != expected {
            return Err(IndexerError::Dimension { got: query.dim(), expected });
        }
        let mut hits = Vec::new();
        for (row, id) in self.nearest_rows(query.as_slice(), k)? {
            // Read again through the checksum: a damaged vector is named, never served.
            let stored = self.vectors.read(row, id)?;
            let similarity = query.as_slice().iter().zip(&stored).map(|(a, b)| a * b).sum();
            let record = self.catalog.record(id)?.ok_or_else(|| IndexerError::Damaged {
                path: self.folder.join("catalog"),
                reason: format!("image {id} has a vector but no record"),
            })?;
            hits.push(Hit { id, similarity, record });
        }
        hits.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id)));
        Ok(hits)
    }

    /// The stored embedding of an image.
    ///
    /// # Errors
    /// The row on disk is damaged.
    pub fn embedding(&self, id: ImageId, record: &Record) -> Result<Embedding> {
        Ok(Embedding::normalised(self.vectors.read(record.row, id)?)?)
    }

    fn nearest_rows(&self, query: &[f32], k: usize) -> Result<Vec<(u64, ImageId)>> {
        let k = k.min(self.live.len());
        let live = |row: u64| Some((row, *self.live.get(&row)?));
        if let Some(hnsw) = &self.hnsw {
            let found = hnsw.candidates(query, k.saturating_mul(OVERFETCH))?;
            let candidates: Vec<u64> =
                found.into_iter().filter(|row| self.live.contains_key(row)).collect();
            // Too few survive when most rows near the query have been replaced.
            if candidates.len() >= k {
                let best = exact(&self.vectors, &candidates, query, k)?;
                return Ok(best.into_iter().filter_map(|hit| live(hit.row)).collect());
            }
        }
        let rows: Vec<u64> = self.live.keys().copied().collect();
        let best = exact(&self.vectors, &rows, query, k)?;
        Ok(best.into_iter().filter_map(|hit| live(hit.row)).collect())
    }

    /// Loads or builds the HNSW graph when the collection is large enough, and adds what it lacks.
    fn catch_up(&mut self) -> Result<()> {
        if (self.live.len() as u64) < self.manifest.ann_from {
            self.hnsw = None;
            return Ok(());
        }
        let dim = self.manifest.model.dim;
        let rows = self.vectors.rows();
        let loaded = match self.hnsw.take() {
            Some(hnsw) => Some(hnsw),
            None => Hnsw::load(&self.hnsw_path(), dim)?.filter(|hnsw| hnsw.rows() <= rows),
        };
        let mut hnsw = match loaded {
            Some(hnsw) => hnsw,
            None => Hnsw::new(dim)?,
        };
        let new = self.live.range(hnsw.rows()..).map(|(&row, &id)| (row, id));
        hnsw.extend(&self.vectors, new, rows)?;
        self.hnsw = Some(hnsw);
        Ok(())
    }

    fn hnsw_path(&self) -> PathBuf {
        self.folder.join("ann").join("rows.hnsw")
    }

    fn write_manifest(&self) -> Result<()> {
        self.manifest.write(&layout::manifest_path(&self.folder))
    }
}

/// Model and settings in words, for a message about two of them that differ.
pub(crate) fn describe(model: &ModelIdentity) -> String {
    format!(
        "{} (weights {}…, pooling {}, position embeddings {}, resize {}, crop {}, icc {})",
        model.name,
        model.weights_sha256.get(..8).unwrap_or_default(),
        model.pooling,
        model.pos_embed,
        model.preprocess.resize,
        model.preprocess.crop,
        model.icc,
    )
}
