//! Folders and single files.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::walk::Walk;
use super::{
    Block, Content, Entry, Loaded, Loads, Scope, ScopeState, Source, read_file, sort_entries, stamp,
};
use crate::error::{IndexerError, Result};
use crate::locator::Locator;
use crate::record::Payload;

/// Files handed to the readers at once.
const READ_BLOCK: usize = 64;

/// Folders, listed recursively, and files.
///
/// Hidden entries are left out unless asked for. Patterns of what is left out are compared with the
/// path below the folder named, in which `*` does not cross `/` and `**` does, and with the bare
/// name; a folder that matches is not entered. Symbolic links are followed; a loop is reported.
#[derive(Debug)]
pub struct FileSource {
    roots: Vec<Root>,
    walk: Walk,
    listed: bool,
}

/// What was touched below a root that is being watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Folder being watched.
    pub root: PathBuf,
    /// Files and folders below it that came, changed or went.
    pub paths: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct Root {
    path: PathBuf,
    /// What it belongs to: itself, or the folder it was touched in.
    within: PathBuf,
    kind: RootKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootKind {
    Folder,
    File,
    /// Named by the user, not there.
    Missing,
    /// Seen to go.
    Vanished,
}

impl FileSource {
    /// Files and folders as named by the user. One that does not exist is kept as missing.
    ///
    /// # Errors
    /// One is neither file nor folder, or cannot be looked at.
    pub(super) fn open(named: &[PathBuf], walk: Walk) -> Result<Self> {
        let mut roots = Vec::new();
        for path in named {
            let bad = |reason: String| IndexerError::Source { path: path.clone(), reason };
            let absolute = absolute(path)?;
            let kind = match std::fs::metadata(&absolute) {
                Ok(metadata) if metadata.is_dir() => RootKind::Folder,
                Ok(metadata) if metadata.is_file() => RootKind::File,
                Ok(_) => return Err(bad("neither a file nor a folder".to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => RootKind::Missing,
                Err(error) => return Err(bad(error.to_string())),
            };
            roots.push(Root { path: absolute.clone(), within: absolute, kind });
        }
        Ok(Self { roots: without_nested(roots), walk, listed: false })
    }

    /// Only what was touched below folders that are being watched.
    ///
    /// # Errors
    /// A pattern of the options is wrong.
    pub fn of_touched(touched: &[Touched], options: &super::SourceOptions) -> Result<Self> {
        let walk = Walk::new(options)?;
        let mut roots = Vec::new();
        for Touched { root, paths } in touched {
            for path in paths {
                let relative = path.strip_prefix(root).unwrap_or(path);
                if !walk.reaches(relative) {
                    continue;
                }
                let kind = match std::fs::metadata(path) {
                    Ok(metadata) if metadata.is_dir() => RootKind::Folder,
                    Ok(metadata) if metadata.is_file() => RootKind::File,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        RootKind::Vanished
                    }
                    _ => continue,
                };
                roots.push(Root { path: path.clone(), within: root.clone(), kind });
            }
        }
        Ok(Self { roots: without_nested(roots), walk, listed: false })
    }

    /// The first root that is not there.
    pub fn missing(&self) -> Option<&Path> {
        let missing = self.roots.iter().find(|root| root.kind == RootKind::Missing);
        missing.map(|root| root.path.as_path())
    }
}

/// A path that stays the same whatever the current folder is, with links resolved as far as it
/// exists.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let absolute = std::path::absolute(path).map_err(|error| IndexerError::Source {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    // The folder above usually exists, and what is known was stored with its links resolved.
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}

/// Sorted by path, without what lies in another folder of the list.
fn without_nested(mut roots: Vec<Root>) -> Vec<Root> {
    roots.sort_by(|a, b| bytes(&a.path).cmp(bytes(&b.path)));
    roots.dedup_by(|a, b| a.path == b.path);
    let folders: std::collections::BTreeSet<PathBuf> = roots
        .iter()
        .filter(|root| root.kind == RootKind::Folder)
        .map(|root| root.path.clone())
        .collect();
    roots.retain(|root| !root.path.ancestors().skip(1).any(|above| folders.contains(above)));
    roots
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// What the paths of all files in a folder start with.
fn folder_prefix(folder: &Path) -> Vec<u8> {
    let mut prefix = bytes(folder).to_vec();
    if !prefix.ends_with(std::path::MAIN_SEPARATOR_STR.as_bytes()) {
        prefix.extend(std::path::MAIN_SEPARATOR_STR.as_bytes());
    }
    prefix
}

impl Source for FileSource {
    fn name(&self) -> String {
        match self.roots.as_slice() {
            [root] => root.path.display().to_string(),
            roots => format!("{} files and folders", roots.len()),
        }
    }

    fn next_block(&mut self, _cancel: &AtomicBool) -> Result<Option<Block>> {
        if std::mem::replace(&mut self.listed, true) {
            return Ok(None);
        }
        let mut block = Block::default();
        for Root { path, within, kind } in &self.roots {
            let scope = |prefix: Vec<u8>, state: ScopeState| {
                let (path, root) = (path.clone(), within.clone());
                Scope { path, prefix, root, state }
            };
            match kind {
                RootKind::Folder => {
                    self.walk.list(within, path, &mut block.entries, &mut block.unreadable);
                    block.scopes.push(scope(folder_prefix(path), ScopeState::Listed));
                }
                RootKind::File => match std::fs::metadata(path) {
                    Ok(_) if self.walk.is_sidecar(path) => {}
                    Ok(metadata) => block.entries.push(Entry {
                        locator: Locator::from(path.as_path()),
                        stamp: stamp(&metadata),
                        payload: Payload::new(),
                        place: 0,
                    }),
                    // It was there a moment ago.
                    Err(error) => block.unreadable.push((path.clone(), error.to_string())),
                },
                RootKind::Missing | RootKind::Vanished => {
                    let state = match kind {
                        RootKind::Missing => ScopeState::Missing,
                        _ => ScopeState::Vanished,
                    };
                    if *kind == RootKind::Missing && self.walk.lenient {
                        let reason = "no such file or folder".to_owned();
                        block.unreadable.push((path.clone(), reason));
                    }
                    // It may have been a file or a folder.
                    block.scopes.push(scope(bytes(path).to_vec(), state));
                    block.scopes.push(scope(folder_prefix(path), state));
                }
            }
        }
        sort_entries(&mut block.entries);
        Ok(Some(block))
    }

    fn load<'a>(&'a mut self, wanted: Vec<Entry>, _: u64, _: &'a AtomicBool) -> Loads<'a> {
        let mut wanted = wanted.into_iter();
        let load = |entry: Entry| {
            let path = entry.locator.to_path();
            let read = Box::new(move |max_bytes| read_file(&path, max_bytes));
            Loaded { entry, content: Content::Later(read) }
        };
        Box::new(std::iter::from_fn(move || {
            let block: Vec<Loaded> = wanted.by_ref().take(READ_BLOCK).map(load).collect();
            (!block.is_empty()).then_some(block)
        }))
    }
}
