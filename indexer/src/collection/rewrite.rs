//! A data folder filled beside the one that counts, and swapped with it in one step.
//!
//! Format changes and compaction go this way, so that an interruption at any point leaves the old
//! data or the new, never a mixture.

use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use super::layout::manifest_path;
use crate::catalog::{Catalog, Format1, Meta, Pending};
use crate::durable::sync_folder;
use crate::error::{IoContext, Result};
use crate::id::ImageId;
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::record::{Failure, Record};
use crate::vectors::{Precision, Vectors};

/// Changes in one batch of the catalog.
const COMMIT_EVERY: usize = 1000;
/// What a folder is called until it is complete.
const UNFINISHED: &str = "next";

/// New data, not yet the collection's.
pub(super) struct Rewrite {
    collection: PathBuf,
    vectors: Vectors,
    catalog: Catalog,
    alive: RoaringBitmap,
    pending: Pending,
    meta: Meta,
}

impl Rewrite {
    /// Begins anew; what an interrupted one left is dropped.
    pub(super) fn begin(collection: &Path, dim: usize, precision: Precision) -> Result<Self> {
        let folder = collection.join(UNFINISHED);
        remove_folder(&folder)?;
        std::fs::create_dir_all(folder.join("ann")).io("create", &folder)?;
        Ok(Self {
            collection: collection.to_path_buf(),
            vectors: Vectors::open(&folder.join("vectors"), dim, precision, 0)?,
            catalog: Catalog::open(&folder.join("catalog"))?,
            alive: RoaringBitmap::new(),
            pending: Pending::default(),
            meta: Meta::default(),
        })
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

    fn commit_when_due(&mut self) -> Result<()> {
        if self.pending.len() < COMMIT_EVERY {
            return Ok(());
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<()> {
        self.vectors.sync()?;
        let meta = Meta { rows: self.vectors.rows(), ..self.meta };
        self.meta = self.catalog.commit(&self.pending, &mut self.alive, &meta)?;
        self.pending = Pending::default();
        Ok(())
    }

    /// Makes the new data the collection's and removes the old. Nothing of the old may be open.
    pub(super) fn swap(mut self, old: &Manifest, next_id: u64, sequence: u64) -> Result<Manifest> {
        // The counters go on: ids are never given twice, and states of the past stay in the past.
        self.meta.next_id = next_id;
        self.meta.sequence = self.meta.sequence.max(sequence);
        self.commit()?;
        let Self { collection, vectors, catalog, alive, meta, .. } = self;
        drop((vectors, catalog));
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            data: old.next_data(),
            rows: meta.rows,
            images: alive.len(),
            failed: meta.failed,
            ..old.clone()
        };
        let data = collection.join(&manifest.data);
        remove_folder(&data)?;
        std::fs::rename(collection.join(UNFINISHED), &data).io("rename", &data)?;
        sync_folder(&collection)?;
        manifest.write(&manifest_path(&collection))?;
        remove_leftovers(&collection, &manifest)?;
        Ok(manifest)
    }
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

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.io("remove", folder),
    }
}
