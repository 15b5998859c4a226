//! The list that says which picture is an edited copy of which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{IndexerError, Result};

/// A CSV with columns `original` and `copy` (file names beside it) and optionally `source` (the
/// end of the path under which the original occurs among the distractors).
#[derive(Clone, Debug)]
pub struct CopyTruth {
    /// Copy to original.
    pairs: BTreeMap<PathBuf, PathBuf>,
    sources: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    original: String,
    copy: String,
    source: Option<String>,
}

impl CopyTruth {
    /// Reads the list; every file it names must be there.
    ///
    /// # Errors
    /// It cannot be read, lacks a column, or names a missing file.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let mut reader = csv::Reader::from_path(path).map_err(|error| bad(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = |name: &str| {
            let file = folder.join(name).canonicalize();
            file.map_err(|error| bad(format!("it names `{name}`: {error}")))
        };
        let mut truth = Self { pairs: BTreeMap::new(), sources: Vec::new() };
        for line in reader.deserialize() {
            let Line { original, copy, source } = line.map_err(|error| bad(error.to_string()))?;
            truth.pairs.insert(file(&copy)?, file(&original)?);
            truth.sources.extend(source.map(PathBuf::from));
        }
        Ok(truth)
    }

    /// Originals, each once, by path.
    pub fn originals(&self) -> Vec<PathBuf> {
        let mut originals: Vec<_> = self.pairs.values().cloned().collect();
        originals.sort_unstable();
        originals.dedup();
        originals
    }

    /// Edited copies, by path.
    pub fn copies(&self) -> Vec<PathBuf> {
        self.pairs.keys().cloned().collect()
    }

    /// The original of a copy.
    pub fn original_of(&self, copy: &Path) -> Option<&Path> {
        self.pairs.get(copy).map(PathBuf::as_path)
    }

    /// Whether a file is one of the pairs or the source of one, and so no distractor.
    pub fn names(&self, path: &Path) -> bool {
        self.pairs.contains_key(path)
            || self.pairs.values().any(|original| original == path)
            || self.sources.iter().any(|source| path.ends_with(source))
    }
}
