//! Embeddings as files other programs read: Parquet, or NumPy arrays with a JSON-lines companion.
//!
//! Both are written beside their final name and renamed when complete.

mod npy;
mod npy_reader;
mod parquet;

use std::path::Path;

use engine::ModelIdentity;

use self::npy::NpyTable;
pub use self::npy_reader::NpyReader;
use self::parquet::ParquetTable;
use crate::error::{IndexerError, Result};
use crate::id::ContentHash;
use crate::locator::Locator;

/// One row: a picture and its vectors.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where the picture is.
    pub path: Locator,
    /// Hash of the file.
    pub sha256: ContentHash,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// The embedding; unit length.
    pub embedding: Vec<f32>,
    /// Patch tokens, row-major over (patch, channel), when they were asked for.
    pub patch_tokens: Vec<f32>,
}

/// What every row of a table has in common.
#[derive(Clone, Debug)]
pub struct TableShape {
    /// What made the vectors; recorded beside them.
    pub model: ModelIdentity,
    /// Patches per picture and channels per patch; `None` without patch tokens.
    pub patch_tokens: Option<(usize, usize)>,
}

/// A table being written.
pub struct TableWriter(Kind);

enum Kind {
    Npy(NpyTable),
    Parquet(ParquetTable),
}

impl TableWriter {
    /// Starts a table; the format is chosen by the extension.
    ///
    /// - `.parquet`: columns `path`, `sha256`, `width`, `height`, `embedding` (fixed-size list of
    ///   f32) and, if asked for, `patch_tokens` (fixed-size list of f32).
    /// - `.npy`: f32 array (N, dim); beside it `NAME.jsonl` with one object per row (the first one
    ///   says all about the model, as `identity`) and, if asked for, `NAME.patch_tokens.npy`, f32 array (N, patches, channels).
    ///
    /// # Errors
    /// Another extension, or the folder cannot be written.
    pub fn create(path: &Path, shape: TableShape) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        Ok(Self(match extension {
            Some("npy") => Kind::Npy(NpyTable::create(path, &shape)?),
            Some("parquet") => Kind::Parquet(ParquetTable::create(path, shape)?),
            _ => {
                return Err(IndexerError::Source {
                    path: path.to_path_buf(),
                    reason: "the output must end in .parquet or .npy".to_owned(),
                });
            }
        }))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, row: Row) -> Result<()> {
        match &mut self.0 {
            Kind::Npy(table) => table.write(&row),
            Kind::Parquet(table) => table.write(row),
        }
    }

    /// Completes the files and puts them under their names.
    ///
    /// # Errors
    /// The disk refuses; nothing is left under the final names.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Kind::Npy(table) => table.finish(),
            Kind::Parquet(table) => table.finish(),
        }
    }
}
