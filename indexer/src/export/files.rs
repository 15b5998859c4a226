//! Originals of an export: checked against their recorded hashes, and brought along.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::Files;
use super::entries::Entry;
use super::names::Names;
use crate::curate::sha256;
use crate::curate::stop_if;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ContentHash;
use crate::pipeline::Skipped;
use crate::record::FileStamp;
use crate::source;

/// Files handled between two looks at whether to stop.
const BLOCK: usize = 128;

/// Gives each entry its file below `folder`; entries whose original is missing or changed are left
/// out.
pub(super) fn place(
    folder: &Path,
    entries: Vec<Entry>,
    files: Files,
    on_done: &mut dyn FnMut(usize),
    cancel: &AtomicBool,
) -> Result<(Vec<Entry>, Vec<Skipped>)> {
    let mut names = Names::default();
    let mut placed = Vec::with_capacity(entries.len());
    let mut skipped = Vec::new();
    let mut entries = entries.into_iter();
    loop {
        stop_if(cancel)?;
        let mut block: Vec<Entry> = entries.by_ref().take(BLOCK).collect();
        if block.is_empty() {
            return Ok((placed, skipped));
        }
        if files != Files::None {
            for entry in &mut block {
                let name = names.give(&entry.line.path.to_path(), entry.line.id.0);
                let target = folder.join(&name);
                let parent = target.parent().unwrap_or(folder);
                std::fs::create_dir_all(parent).io("create", parent)?;
                entry.line.file = Some(name);
            }
        }
        let outcomes: Vec<Result<Option<Skipped>>> =
            block.par_iter().map(|entry| bring(folder, entry, files)).collect();
        for (entry, outcome) in block.into_iter().zip(outcomes) {
            match outcome? {
                None => placed.push(entry),
                Some(gone) => skipped.push(gone),
            }
            on_done(1);
        }
    }
}

/// Brings one original along; what keeps it from that is no error when it lies in the original.
fn bring(folder: &Path, entry: &Entry, files: Files) -> Result<Option<Skipped>> {
    let source = entry.line.path.to_path();
    let target = folder.join(entry.line.file.as_deref().unwrap_or_default());
    if files == Files::None {
        return Ok(unchanged(entry).err());
    }
    let bytes = match read(entry) {
        Ok(bytes) => bytes,
        Err(skipped) => return Ok(Some(skipped)),
    };
    match files {
        Files::None => {}
        Files::Copy => std::fs::write(&target, bytes).io("write", &target)?,
        Files::Hardlink => {
            std::fs::hard_link(&source, &target).map_err(|error| IndexerError::Source {
                path: source.clone(),
                reason: format!("no hard link to it can be made ({error}); use `--files copy`"),
            })?;
        }
        Files::Symlink => symlink(&source, &target)?,
    }
    Ok(None)
}

#[cfg(unix)]
fn symlink(source: &Path, target: &Path) -> Result<()> {
    std::os::unix::fs::symlink(source, target).io("create", target)
}

#[cfg(not(unix))]
fn symlink(source: &Path, _target: &Path) -> Result<()> {
    Err(IndexerError::Source {
        path: source.to_path_buf(),
        reason: "links cannot be made on this system; use `--files copy`".to_owned(),
    })
}

/// The bytes of an original that is still what was indexed.
pub(super) fn read(entry: &Entry) -> Result<Vec<u8>, Skipped> {
    let path = entry.line.path.to_path();
    let skipped = |reason: String| Skipped { path: path.clone(), reason, not_a_picture: false };
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => skipped("the original is missing".to_owned()),
        _ => skipped(format!("the original cannot be read: {error}")),
    })?;
    match sha256(&bytes) == entry.line.sha256.as_str() {
        true => Ok(bytes),
        false => Err(skipped("the original has changed since it was indexed".to_owned())),
    }
}

/// Whether an original is still what was indexed; only read when size or time differ.
fn unchanged(entry: &Entry) -> Result<(), Skipped> {
    let path = entry.line.path.to_path();
    let same = |stamp: FileStamp| stamp == entry.stamp;
    match std::fs::metadata(&path) {
        Ok(metadata) if same(source::stamp(&metadata)) => Ok(()),
        _ => read(entry).map(|_| ()),
    }
}

/// Hash of a file, read piece by piece.
pub(super) fn hash_file(path: &Path) -> std::io::Result<(u64, ContentHash)> {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, ContentHash::from_bytes(&hash.finalize().into()))),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
