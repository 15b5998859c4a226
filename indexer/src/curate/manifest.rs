//! `manifest.jsonl`: one object for every image of the result. A contract with other programs.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ledger::LedgerRow;
use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

/// The seed image that an image is there for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestSeed {
    /// Name of the seed set.
    pub set: String,
    /// In its collection.
    pub id: ImageId,
    /// Where it is.
    pub path: Locator,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestLine {
    /// In the pool's collection.
    pub id: ImageId,
    /// Where the original is.
    pub path: Locator,
    /// Where its file is below the manifest's folder; absent when it was not brought along.
    pub file: Option<String>,
    /// SHA-256 of the file.
    pub sha256: ContentHash,
    /// Why it is there; absent without retrieval, and for what review alone let in.
    pub seed: Option<ManifestSeed>,
    /// Cosine similarity with that seed image.
    pub similarity: Option<f32>,
    /// The step that brought it in.
    pub step: Option<String>,
}

impl From<&LedgerRow> for ManifestLine {
    fn from(row: &LedgerRow) -> Self {
        let seed = row.seed.as_ref().map(|seed| ManifestSeed {
            set: seed.set.clone(),
            id: seed.id,
            path: seed.path.clone(),
        });
        Self {
            id: row.id,
            path: row.path.clone(),
            file: None,
            sha256: row.sha256.clone(),
            similarity: row.similarity.filter(|_| seed.is_some()),
            seed,
            step: Some(row.step.clone()),
        }
    }
}

/// Writes a manifest: whole or not at all.
///
/// # Errors
/// The disk refuses.
pub fn write<'a>(path: &Path, lines: impl Iterator<Item = &'a ManifestLine>) -> Result<()> {
    replace_file(path, |file| {
        for line in lines {
            write_line(file, line)?;
        }
        Ok(())
    })
}

/// Appends a line.
pub(crate) fn write_line(
    file: &mut (impl Write + ?Sized),
    line: &impl Serialize,
) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// Reads a manifest.
///
/// # Errors
/// The file cannot be read, or a line is no object of a manifest.
pub fn read(path: &Path) -> Result<Vec<ManifestLine>> {
    let text = std::fs::read_to_string(path).io("read", path)?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| IndexerError::Damaged {
            path: path.to_path_buf(),
            reason: format!("line {}: {error}", number + 1),
        })
    };
    text.lines().enumerate().map(parse).collect()
}
