//! Packed weights kept between starts: one file for each model, precision and instruction set, in a
//! folder that may be deleted at any time.
//!
//! A file is written beside its place and renamed, so that whoever opens it sees all or nothing, and
//! is mapped by every process that uses it. It is not synced: what a power cut leaves of it fails
//! the checksums. Nothing that goes wrong here is more than a slower start; it is logged, and weights
//! are packed as without a cache.

mod file;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

pub(crate) use self::file::Found;
use self::file::Problem;

/// Most bytes that the folder may hold; the files used least recently go first.
const MOST_BYTES: u64 = 4 << 30;
const EXTENSION: &str = "packed";
const TEMPORARY: &str = "packed-part";
/// Age from which a temporary file is one that a killed process left.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// Where the packed weights of one model are kept.
#[derive(Debug)]
pub(crate) struct PackedCache {
    folder: PathBuf,
    path: PathBuf,
    /// Hash of everything but the weights that decides what is in the file.
    layout: [u8; 32],
}

impl PackedCache {
    /// In `folder`, for the weights file `weights` packed as `layout` says; `kind` tells such
    /// layouts apart in names.
    pub(crate) fn new(folder: &Path, weights: &Path, kind: &str, layout: &str) -> Self {
        let whole = weights.canonicalize().unwrap_or_else(|_| weights.to_path_buf());
        let place = format!("{:x}", Sha256::digest(whole.as_os_str().as_encoded_bytes()));
        let stem = weights.file_stem().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let stem: String = stem.chars().take(40).map(plain).collect();
        Self {
            folder: folder.to_path_buf(),
            path: folder.join(format!("{stem}-{}-{kind}.{EXTENSION}", &place[..12])),
            layout: Sha256::digest(layout).into(),
        }
    }

    /// The file, if it is whole and of this layout; of which weights, the caller has to compare.
    pub(crate) fn find(&self) -> Option<Found> {
        match file::open(&self.path, &self.layout) {
            Ok(found) => Some(found),
            Err(Problem::Io(error)) if error.kind() == ErrorKind::NotFound => None,
            Err(Problem::Io(error)) => {
                self.give_up(&error);
                None
            }
            Err(Problem::Layout) => {
                self.is_stale("another release or other settings");
                None
            }
            Err(Problem::Damaged(reason)) => {
                self.is_damaged(reason);
                None
            }
        }
    }

    /// Marks the file as used now.
    pub(crate) fn touch(&self) {
        // Only the order in which files are removed depends on it.
        let file = std::fs::File::options().append(true).open(&self.path);
        let _unimportant = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Says that the file is of something else, and will be replaced.
    pub(crate) fn is_stale(&self, of: &str) {
        tracing::info!(file = %self.path.display(), "packed weights are of {of}; packing again");
    }

    /// Says that the file is damaged, and will be replaced.
    pub(crate) fn is_damaged(&self, reason: &str) {
        let file = self.path.display();
        tracing::warn!(%file, "kept packed weights are damaged ({reason}); packing again");
    }

    /// Writes the arrays of packed weights, in place of what is there.
    pub(crate) fn keep(&self, weights_sha256: &str, arrays: &[&[u8]]) {
        let bytes = file::length(arrays);
        if bytes > MOST_BYTES {
            tracing::debug!(bytes, MOST_BYTES, "packed weights are too large to keep");
            return;
        }
        match self.write(weights_sha256, arrays) {
            Ok(()) => {
                tracing::debug!(file = %self.path.display(), bytes, "kept packed weights");
                self.make_room(MOST_BYTES);
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn write(&self, weights_sha256: &str, arrays: &[&[u8]]) -> std::io::Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(&self.folder)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}-{count}.{TEMPORARY}", std::process::id());
        let temporary = self.path.with_extension(unique);
        let written = std::fs::File::create_new(&temporary)
            .and_then(|file| file::write(file, &self.layout, weights_sha256, arrays))
            .and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            // What cannot be removed now is old enough in an hour.
            let _removed_later = std::fs::remove_file(&temporary);
        }
        written
    }

    /// Removes files until the folder holds no more than `most` bytes, and what killed processes left.
    fn make_room(&self, most: u64) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let now = SystemTime::now();
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for entry in entries.flatten() {
            let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
            let used = about.modified().unwrap_or(now);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => {
                    bytes += about.len();
                    kept.push((used, about.len(), path));
                }
                Some(TEMPORARY) if now.duration_since(used).is_ok_and(|age| age > FORGOTTEN) => {
                    let _gone_already = std::fs::remove_file(path);
                }
                _ => {}
            }
        }
        kept.sort();
        for (_, size, path) in kept {
            if bytes <= most {
                break;
            }
            // Whoever has it mapped keeps what it maps.
            if path != self.path && std::fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }

    /// Says, once in a process, that it goes on without a cache.
    fn give_up(&self, error: &std::io::Error) {
        static SAID: AtomicBool = AtomicBool::new(false);
        if !SAID.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                folder = %self.folder.display(),
                "cannot keep packed weights ({error}); models are packed at every start"
            );
        }
    }
}
