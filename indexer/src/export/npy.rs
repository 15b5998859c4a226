//! Embeddings as a NumPy array, one row for every line of the manifest.

use std::path::Path;

use super::entries::Entry;
use crate::collection::View;
use crate::durable::replace_file;
use crate::error::Result;
use crate::table::npy_header;

/// Writes (images, dim) f32.
pub(super) fn write(path: &Path, entries: &[Entry], view: &View) -> Result<()> {
    let dim = view.manifest().model.dim;
    let mut damaged = None;
    replace_file(path, |file| {
        file.write_all(&npy_header(entries.len(), &[dim]))?;
        for entry in entries {
            match view.vector(entry.row, entry.line.id) {
                Ok(vector) => file.write_all(&bytes(&vector))?,
                Err(error) => {
                    let words = error.to_string();
                    damaged = Some(error);
                    return Err(std::io::Error::other(words));
                }
            }
        }
        Ok(())
    })
    .map_err(|error| damaged.unwrap_or(error))
}

/// One vector as a file of its own, shape (dim,).
pub(super) fn one(vector: &[f32]) -> Vec<u8> {
    [npy_header(vector.len(), &[]), bytes(vector)].concat()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}
