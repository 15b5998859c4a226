//! Lists of pictures: one path a line, or the manifest of a curated run.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{IndexerError, IoContext, Result};
use crate::locator::Locator;

/// One line that names a picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// Where it may be; the first that exists counts.
    pub(super) candidates: Vec<PathBuf>,
}

/// What of a manifest's object says where the picture is.
#[derive(Deserialize)]
struct Named {
    /// Copied beside the manifest; relative to its folder.
    file: Option<Locator>,
    /// Where it was when it was curated.
    path: Option<Locator>,
}

/// Whether a file is named like a list or a manifest.
pub(super) fn is_list(path: &Path) -> bool {
    is_manifest(path) || path.extension().is_some_and(|extension| extension == "txt")
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// Every line of a list (`#` starts a comment) or manifest that names a picture; relative paths
/// are those from the list's folder.
///
/// # Errors
/// The list cannot be read, or a line of a manifest has no `file` and no `path`.
pub(super) fn read(list: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(list).io("read", list)?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let (number, line) = (i + 1, line.trim());
        let bad = |reason: String| IndexerError::Source {
            path: list.to_path_buf(),
            reason: format!("line {number}: {reason}"),
        };
        let named = match is_manifest(list) {
            _ if line.is_empty() => continue,
            true => {
                let named: Named =
                    serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
                [named.file, named.path].into_iter().flatten().map(|l| l.to_path()).collect()
            }
            false if line.starts_with('#') => continue,
            false => vec![PathBuf::from(line)],
        };
        if named.is_empty() {
            return Err(bad("it has neither `file` nor `path`".to_owned()));
        }
        let candidates = named.into_iter().map(|path| folder.join(path)).collect();
        lines.push(Line { number, candidates });
    }
    Ok(lines)
}
