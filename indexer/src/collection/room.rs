//! Space on disk: how much there is, is used, and will be needed.

use std::path::Path;

use walkdir::WalkDir;

use super::layout::Collections;
use crate::error::{IndexerError, IoContext, Result};
use crate::manifest::Manifest;
use crate::vectors::stored_bytes;

/// Left alone beside what an operation is known to need.
const SLACK: u64 = 4 << 20;
/// Bytes of an HNSW graph for one image, vector left out.
const GRAPH_BYTES: u64 = 160;

/// Bytes on disk of one collection, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records and what is derived from them for searching.
    pub catalog: u64,
    /// Embeddings, those of images that are gone too.
    pub vectors: u64,
    /// HNSW graphs.
    pub graphs: u64,
    /// An unfinished reindex.
    pub reindex: u64,
    /// Everything else.
    pub other: u64,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { catalog, vectors, graphs, reindex, other } = self;
        catalog + vectors + graphs + reindex + other
    }
}

impl Collections {
    /// Space that a collection takes; it need not be free to be opened.
    ///
    /// # Errors
    /// No such collection, or its folders cannot be listed.
    pub fn usage(&self, name: &str) -> Result<Usage> {
        let manifest = self.manifest(name)?;
        let folder = self.path(name)?;
        let data = folder.join(&manifest.data);
        let mut usage = Usage {
            catalog: folder_bytes(&data.join("catalog"))?,
            vectors: folder_bytes(&data.join("vectors"))?,
            graphs: folder_bytes(&data.join("ann"))?,
            reindex: folder_bytes(&folder.join(super::reindex::FOLDER))?,
            other: 0,
        };
        usage.other = folder_bytes(&folder)?.saturating_sub(usage.total());
        Ok(usage)
    }
}

/// Bytes in all files under a folder; 0 for none.
pub(super) fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in WalkDir::new(folder) {
        let length = entry.and_then(|entry| {
            let metadata = entry.metadata()?;
            Ok(if metadata.is_file() { metadata.len() } else { 0 })
        });
        match length {
            Ok(length) => bytes += length,
            // Files may go while they are listed.
            Err(error) => match error.io_error().map(std::io::Error::kind) {
                Some(std::io::ErrorKind::NotFound) => {}
                _ => return Err(std::io::Error::from(error)).io("list", folder),
            },
        }
    }
    Ok(bytes)
}

/// Bytes that images will take in a collection like this, given those of the catalog.
pub(super) fn needed(like: &Manifest, images: u64, catalog: u64) -> u64 {
    let dim = like.model.dim;
    let vectors = stored_bytes(dim, like.precision, images);
    let graph = match images >= like.ann_from {
        true => images.saturating_mul(dim as u64 + GRAPH_BYTES),
        false => 0,
    };
    vectors.saturating_add(graph).saturating_add(catalog).saturating_add(SLACK)
}

/// Refuses to begin what the disk has no room for.
pub(super) fn require(folder: &Path, needed: u64) -> Result<()> {
    let free = fs4::available_space(folder).io("ask for the free space of", folder)?;
    if free >= needed {
        return Ok(());
    }
    Err(IndexerError::NoRoom { path: folder.to_path_buf(), needed, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(require(folder.path(), 1).is_ok());
        let error = require(folder.path(), u64::MAX).err().map(|error| error.to_string());
        let text = error.unwrap_or_default();
        assert!(text.contains("MB") && text.contains("free"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_takes_no_space() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("create");
        std::fs::write(folder.path().join("a/b/c"), [0; 100]).expect("write");
        std::fs::write(folder.path().join("a/d"), [0; 11]).expect("write");
        assert_eq!(folder_bytes(&folder.path().join("a")).expect("list"), 111);
        assert_eq!(folder_bytes(&folder.path().join("e")).expect("list"), 0);
    }
}
