//! WebDataset shards: tar files whose entries are read where they lie.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{IndexerError, IoContext, Result};

/// A stretch of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// First byte of the content.
    offset: u64,
    /// Bytes of the content.
    size: u64,
}

/// Whether a file is named like a shard.
pub(super) fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// Whether a file is named like a shard that was compressed as a whole.
pub(super) fn is_compressed_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz"].iter().any(|end| name.ends_with(end))
}

/// Keys and places of a shard's regular files, in its order; hidden ones are left out.
///
/// # Errors
/// The shard cannot be read, is no tar file, or ends within an entry.
pub(super) fn index(shard: &Path) -> Result<Vec<(PathBuf, Entry)>> {
    let damaged = |after: &str, reason: String| IndexerError::Damaged {
        path: shard.to_path_buf(),
        reason: match after {
            "" => reason,
            _ => format!("{reason} (after entry {after})"),
        },
    };
    let file = File::open(shard).io("open", shard)?;
    let length = file.metadata().io("read", shard)?.len();
    if length == 0 {
        return Err(damaged("", "the file is empty".to_owned()));
    }
    let mut archive = tar::Archive::new(file);
    let mut found = Vec::new();
    let mut last = String::new();
    for entry in archive.entries_with_seek().io("read", shard)? {
        let entry = entry.map_err(|error| damaged(&last, error.to_string()))?;
        let key = entry.path().map_err(|error| damaged(&last, error.to_string()))?.into_owned();
        last = key.display().to_string();
        let place = Entry { offset: entry.raw_file_position(), size: entry.size() };
        if place.offset.saturating_add(place.size) > length {
            let Entry { offset, size } = place;
            return Err(damaged(
                "",
                format!(
                    "entry {last} should have {size} bytes from {offset} on, the file has {length} \
                     in all; copy it again"
                ),
            ));
        }
        let hidden = key.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if entry.header().entry_type().is_file() && !hidden {
            found.push((key, place));
        }
    }
    Ok(found)
}

/// The content of an entry, unless it is larger than `max_bytes`.
pub(super) fn read(shard: &Path, entry: Entry, max_bytes: u64) -> Result<Vec<u8>, String> {
    let Entry { offset, size } = entry;
    if size > max_bytes {
        return Err(format!("the entry has {size} bytes, the limit is {max_bytes}"));
    }
    let read = || {
        let mut file = File::open(shard)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| format!("it cannot be read: {error}"))
}
