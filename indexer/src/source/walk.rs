//! Folders, walked with what is left out left out.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::WalkDir;

use super::{Entry, SourceOptions, stamp};
use crate::error::{IndexerError, Result};
use crate::locator::Locator;
use crate::record::Payload;

/// What of a folder is listed.
#[derive(Clone, Debug)]
pub struct Walk {
    exclude: GlobSet,
    hidden: bool,
    sidecars: bool,
    pub(super) lenient: bool,
}

impl Walk {
    /// # Errors
    /// A pattern is no glob.
    pub(super) fn new(options: &SourceOptions) -> Result<Self> {
        let mut exclude = GlobSetBuilder::new();
        for pattern in &options.exclude {
            let bad = |reason: &dyn std::fmt::Display| {
                IndexerError::InvalidRequest(format!("`{pattern}` is no pattern: {reason}"))
            };
            let glob = GlobBuilder::new(pattern.trim_end_matches('/'))
                .literal_separator(true)
                .build()
                .map_err(|error| bad(error.kind()))?;
            exclude.add(glob);
        }
        let exclude =
            exclude.build().map_err(|error| IndexerError::InvalidRequest(error.to_string()))?;
        let SourceOptions { hidden, sidecars, lenient, .. } = *options;
        Ok(Self { exclude, hidden, sidecars, lenient })
    }

    /// Whether an entry is wanted, by its path below the root.
    pub(super) fn wants(&self, relative: &Path) -> bool {
        let name = relative.file_name().unwrap_or_default();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        (self.hidden || !hidden)
            && !self.exclude.is_match(relative)
            && !self.exclude.is_match(Path::new(name))
    }

    /// Whether an entry below a root would be met by walking it: it and all folders above it are
    /// wanted.
    pub(super) fn reaches(&self, relative: &Path) -> bool {
        let above = relative.ancestors().take_while(|path| !path.as_os_str().is_empty());
        above.into_iter().all(|path| self.wants(path))
    }

    /// Whether a file is left out for being about a picture.
    pub(super) fn is_sidecar(&self, path: &Path) -> bool {
        self.sidecars
            && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
    }

    /// Adds the regular files below `folder`, which lies in `root`. Links are followed; a loop is
    /// reported where it closes and ends there.
    pub(super) fn list(
        &self,
        root: &Path,
        folder: &Path,
        entries: &mut Vec<Entry>,
        unreadable: &mut Vec<(PathBuf, String)>,
    ) {
        let walk = WalkDir::new(folder).follow_links(true).into_iter().filter_entry(|entry| {
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            entry.depth() == 0 || self.wants(relative)
        });
        for entry in walk {
            let file = entry.and_then(|entry| {
                if entry.file_type().is_dir() {
                    return Ok(None);
                }
                let metadata = entry.metadata()?;
                Ok(metadata.is_file().then(|| (entry.into_path(), stamp(&metadata))))
            });
            match file {
                Ok(Some((path, _))) if self.is_sidecar(&path) => {}
                Ok(Some((path, stamp))) => {
                    let locator = Locator::from(path.as_path());
                    entries.push(Entry { locator, stamp, payload: Payload::new(), place: 0 });
                }
                Ok(None) => {}
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_path_buf();
                    // What vanishes while it is walked is as if it had never been there.
                    let vanished = error
                        .io_error()
                        .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
                        && std::fs::symlink_metadata(&path).is_err();
                    if !vanished {
                        unreadable.push((path, error.to_string()));
                    }
                }
            }
        }
    }
}
