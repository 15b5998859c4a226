//! A data folder filled beside the one that counts, and swapped with it in one step.
//!
//! Whatever replaces data goes this way (format changes, compaction, another model, a restored
//! snapshot), so that an interruption at any point leaves the old data or the new, never a mixture.

use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use super::layout::manifest_path;
use crate::ann::Layers;
use crate::background;
use crate::catalog::{Catalog, Format1, Meta, Pending};
use crate::durable::sync_folder;
use crate::error::{IoContext, Result};
use crate::id::ImageId;
use crate::locator::Locator;
use crate::manifest::{FORMAT_VERSION, Manifest, data_name};
use crate::record::{Failure, Record, SeenKind};
use crate::vectors::{Precision, Vectors};

/// Changes in one batch of the catalog.
const COMMIT_EVERY: usize = 1000;
/// What a folder is called until it is complete.
const UNFINISHED: &str = "next";

/// New data, not yet the collection's.
#[derive(Debug)]
pub(super) struct Rewrite {
    collection: PathBuf,
    folder: PathBuf,
    vectors: Vectors,
    catalog: Catalog,
    alive: RoaringBitmap,
    pending: Pending,
    meta: Meta,
}

impl Rewrite {
    /// Begins anew; what an interrupted one left is dropped.
    pub(super) fn begin(collection: &Path, dim: usize, precision: Precision) -> Result<Self> {
        remove_folder(&collection.join(UNFINISHED))?;
        Self::resume(collection, UNFINISHED, dim, precision)
    }

    /// Goes on with what a folder holds of an earlier one; it is made if there is none.
    pub(super) fn resume(
        collection: &Path,
        folder: &str,
        dim: usize,
        precision: Precision,
    ) -> Result<Self> {
        let folder = collection.join(folder);
        std::fs::create_dir_all(folder.join("ann")).io("create", &folder)?;
        let catalog = Catalog::open(&folder.join("catalog"))?;
        let meta = catalog.meta()?;
        Ok(Self {
            collection: collection.to_path_buf(),
            vectors: Vectors::open(&folder.join("vectors"), dim, precision, meta.rows)?,
            alive: catalog.alive()?,
            catalog,
            pending: Pending::default(),
            meta,
            folder,
        })
    }

    /// Begins anew and fills it; when that fails, nothing of it stays.
    pub(super) fn filled(
        collection: &Path,
        dim: usize,
        precision: Precision,
        fill: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Self> {
        let mut rewrite = Self::begin(collection, dim, precision)?;
        let filled = fill(&mut rewrite).and_then(|()| rewrite.commit());
        match filled {
            Ok(()) => Ok(rewrite),
            Err(error) => {
                rewrite.discard();
                Err(error)
            }
        }
    }

    /// Images taken over and committed.
    pub(super) fn images(&self) -> u64 {
        self.alive.len()
    }

    /// Drops all of it.
    pub(super) fn discard(self) {
        let Self { folder, vectors, catalog, .. } = self;
        drop((vectors, catalog));
        // Tidiness only: the next open removes it too.
        if let Err(error) = remove_folder(&folder) {
            tracing::warn!("{error}");
        }
    }

    /// Takes an image over, with its id.
    pub(super) fn put(&mut self, id: ImageId, record: Record, vector: &[f32]) -> Result<()> {
        let row = self.vectors.append(id, vector)?;
        self.pending.put(id, Record { row, ..record });
        self.commit_when_due()
    }

    /// Takes a failure over.
    pub(super) fn fail(&mut self, failure: Failure) -> Result<()> {
        self.pending.fail(failure);
        self.commit_when_due()
    }

    /// Replaces what is known of an image that was taken over and committed; its vector stays.
    pub(super) fn set(&mut self, id: ImageId, old: &Record, record: Record) -> Result<()> {
        if old.path != record.path && self.is_at(id, &old.path)? {
            self.pending.free(&old.path);
        }
        self.pending.put(id, record);
        self.commit_when_due()
    }

    /// Drops an image that was taken over and committed.
    pub(super) fn remove(&mut self, id: ImageId, record: &Record) -> Result<()> {
        match self.is_at(id, &record.path)? {
            true => self.pending.remove(id, &record.path),
            false => self.pending.remove_unplaced(id),
        }
        self.commit_when_due()
    }

    fn is_at(&self, id: ImageId, path: &Locator) -> Result<bool> {
        let seen = match self.pending.path(path) {
            Some(state) => state,
            None => self.catalog.seen(path.as_bytes())?,
        };
        Ok(seen.is_some_and(|seen| seen.kind == SeenKind::Image(id)))
    }

    /// Drops a failure that was taken over.
    pub(super) fn forget_failure(&mut self, path: &Locator) -> Result<()> {
        self.pending.forget_failure(path);
        self.commit_when_due()
    }

    /// What was taken over and committed.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn commit_when_due(&mut self) -> Result<()> {
        if self.pending.len() < COMMIT_EVERY {
            return Ok(());
        }
        self.commit()
    }

    /// Makes what was taken over so far durable, for a later [`resume`](Self::resume).
    pub(super) fn commit(&mut self) -> Result<()> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        self.vectors.sync()?;
        let meta = Meta { rows: self.vectors.rows(), ..self.meta };
        self.meta = self.catalog.commit(&self.pending, &mut self.alive, &meta)?;
        self.pending = Pending::default();
        Ok(())
    }

    /// Makes the new data the collection's and removes the old. Nothing of the old may be open.
    ///
    /// `like` says all about it but counts; its background is made anew, and its graphs too if it is
    /// to have them. On failure the old data is as it was, and the new is gone unless it can be
    /// resumed.
    pub(super) fn swap(self, like: &Manifest, next_id: u64, sequence: u64) -> Result<Manifest> {
        let collection = self.collection.clone();
        let manifest = self.swap_beside(like, next_id, sequence)?;
        remove_leftovers(&collection, &manifest)?;
        Ok(manifest)
    }

    /// [`swap`](Self::swap) that leaves the old data where it is, which may be open.
    pub(super) fn swap_beside(
        mut self,
        like: &Manifest,
        next_id: u64,
        sequence: u64,
    ) -> Result<Manifest> {
        match self.complete(like, next_id, sequence) {
            Ok(manifest) => self.replace(&manifest).map(|()| manifest),
            Err(error) => {
                if self.folder.ends_with(UNFINISHED) {
                    self.discard();
                }
                Err(error)
            }
        }
    }

    fn complete(&mut self, like: &Manifest, next_id: u64, sequence: u64) -> Result<Manifest> {
        // The counters go on: ids are never given twice, and states of the past stay in the past.
        self.meta.next_id = self.meta.next_id.max(next_id);
        self.meta.sequence = self.meta.sequence.max(sequence);
        self.vectors.sync()?;
        let meta = Meta { rows: self.vectors.rows(), ..self.meta };
        self.meta = self.catalog.commit(&self.pending, &mut self.alive, &meta)?;
        self.pending = Pending::default();
        let rows = self.vectors.snapshot();
        if self.alive.len() >= like.ann_from {
            Layers::build(&self.folder.join("ann"), &rows, &self.alive)?;
        }
        for folder in ["ann", "catalog", "vectors", "."] {
            sync_folder(&self.folder.join(folder))?;
        }
        Ok(Manifest {
            format_version: FORMAT_VERSION,
            data: free_data_name(&self.collection)?,
            background: background::quantiles(&rows, &self.alive)?,
            rows: self.meta.rows,
            images: self.alive.len(),
            failed: self.meta.failed,
            ..like.clone()
        })
    }

    fn replace(self, manifest: &Manifest) -> Result<()> {
        let Self { collection, folder, vectors, catalog, .. } = self;
        drop((vectors, catalog));
        let data = collection.join(&manifest.data);
        std::fs::rename(&folder, &data).io("rename", &data)?;
        sync_folder(&collection)?;
        manifest.write(&manifest_path(&collection))
    }
}

/// A name for a data folder that none has yet. It does not depend on the manifest, which may be
/// damaged.
fn free_data_name(collection: &Path) -> Result<String> {
    let mut last = 0;
    for entry in std::fs::read_dir(collection).io("list", collection)? {
        let name = entry.io("list", collection)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("data-"));
        last = last.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
    }
    Ok(data_name(last + 1))
}

/// Brings a collection of format 1 to the present one.
pub(super) fn from_format_1(collection: &Path, old: &Manifest) -> Result<Manifest> {
    tracing::info!("rewriting {} in format {FORMAT_VERSION}", collection.display());
    let Format1 { images, failures, next_id } = Format1::read(&collection.join("catalog"))?;
    let rows = images.iter().map(|(_, record)| record.row + 1).max().unwrap_or(0);
    let dim = old.model.dim;
    let vectors = Vectors::open(&collection.join("vectors"), dim, Precision::F16, rows)?;
    let rows = vectors.snapshot();
    let mut rewrite = Rewrite::begin(collection, dim, Precision::F16)?;
    for (id, record) in images {
        let vector = rows.read(record.row, id)?;
        rewrite.put(id, record, &vector)?;
    }
    for failure in failures {
        rewrite.fail(failure)?;
    }
    drop((rows, vectors));
    rewrite.swap(old, next_id, 0)
}

/// Removes what interrupted rewrites and earlier data left behind.
pub(super) fn remove_leftovers(collection: &Path, manifest: &Manifest) -> Result<()> {
    remove_temporary(collection)?;
    remove_temporary(&collection.join(&manifest.data).join("ann"))?;
    for entry in std::fs::read_dir(collection).io("list", collection)? {
        let path = entry.io("list", collection)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The three folders of format 1, whose data now lies elsewhere.
        let of_format_1 = matches!(&*name, "catalog" | "vectors" | "ann");
        let old = name.starts_with("data-") && name != manifest.data;
        if path.is_dir() && (old || of_format_1 || name == UNFINISHED) {
            remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Files that were not yet given their name.
fn remove_temporary(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.io("list", folder)?,
    };
    for entry in entries {
        let path = entry.io("list", folder)?.path();
        let is_ours = path.file_name().is_some_and(|name| is_temporary(&name.to_string_lossy()));
        if is_ours && path.is_file() {
            std::fs::remove_file(&path).io("remove", &path)?;
        }
    }
    Ok(())
}

/// Whether a file was made to be renamed when it is complete.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp")
}

pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.io("remove", folder),
    }
}
