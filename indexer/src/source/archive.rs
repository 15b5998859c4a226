//! Archives of pictures: tar, compressed tar and zip. Nothing is unpacked to disk, no archive is
//! held in memory: members are read where they lie, those of a compressed tar as it goes by.

mod list;
mod tar;
mod zip;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

use self::list::{Contents, Member, list};
use self::tar::{Stream, TarWalk};
use super::walk::Walk;
use super::{
    Block, Content, Entry, Loaded, Loads, Scope, ScopeState, Source, cannot_read, stamp, too_large,
};
use crate::error::{IoContext, Result};
use crate::locator::{ArchiveKind, Locator, bytes_to_path};
use crate::record::FileStamp;

/// Members of a compressed archive that wait together, by number and by bytes.
const LOAD_MEMBERS: usize = 64;
const LOAD_BYTES: usize = 64 << 20;

/// One archive; a WebDataset shard is a tar whose `.json`, `.txt` and `.cls` members say something
/// about the pictures with the same key: the fields of the JSON object, `caption` and `cls`.
///
/// Members are named by their names in the archive, which are bytes; hidden ones, and those the
/// patterns leave out, are not listed. Names are never used as paths to write to.
#[derive(Debug)]
pub struct ArchiveSource {
    path: PathBuf,
    walk: Walk,
    contents: Option<Arc<Contents>>,
    listed: bool,
}

impl ArchiveSource {
    /// The archive at an absolute path, which need not exist.
    pub(super) fn open(path: &Path, walk: Walk) -> Self {
        Self { path: path.to_path_buf(), walk, contents: None, listed: false }
    }

    fn entry(&self, place: u64, member: &Member, stamp: FileStamp) -> Entry {
        Entry {
            locator: Locator::member(&self.path, &member.name),
            // Size tells two versions of a member apart, the time of the archive does the rest.
            stamp: FileStamp { size: member.size, ..stamp },
            payload: member.payload.clone(),
            place,
        }
    }
}

impl Source for ArchiveSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn next_block(&mut self, cancel: &AtomicBool) -> Result<Option<Block>> {
        if std::mem::replace(&mut self.listed, true) {
            return Ok(None);
        }
        let mut block = Block::default();
        let mut prefix = Locator::from(self.path.as_path()).as_bytes().to_vec();
        prefix.extend(b"!/");
        let path = self.path.clone();
        let mut scope = Scope { path: path.clone(), prefix, root: path, state: ScopeState::Listed };
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.walk.lenient {
                    let reason = "no such file or folder".to_owned();
                    block.unreadable.push((self.path.clone(), reason));
                }
                scope.state = ScopeState::Missing;
                block.scopes.push(scope);
                return Ok(Some(block));
            }
            Err(error) => return Err(error).io("read", &self.path),
        };
        let contents = Arc::new(list(&self.path, cancel).io("read", &self.path)?);
        if let Some(damage) = &contents.damage {
            let reason = format!("damaged at byte {}: {}", damage.offset, damage.reason);
            block.unreadable.push((self.path.clone(), reason));
        }
        if contents.damage.is_some() || cancel.load(Ordering::Relaxed) {
            scope.state = ScopeState::Partial;
        }
        let stamp = stamp(&metadata);
        for (place, member) in (0..).zip(&contents.members) {
            let name = bytes_to_path(&member.name);
            // A name such as `./a.jpg` or `../b.jpg` is no hidden file.
            let plain: PathBuf = name
                .components()
                .filter(|part| matches!(part, std::path::Component::Normal(_)))
                .collect();
            if !member.is_note && self.walk.reaches(&plain) && !self.walk.is_sidecar(&plain) {
                block.entries.push(self.entry(place, member, stamp));
            }
        }
        super::sort_entries(&mut block.entries);
        self.contents = Some(contents);
        block.scopes.push(scope);
        Ok(Some(block))
    }

    fn load<'a>(
        &'a mut self,
        mut wanted: Vec<Entry>,
        max_bytes: u64,
        cancel: &'a AtomicBool,
    ) -> Loads<'a> {
        let Some(contents) = self.contents.clone().filter(|_| !wanted.is_empty()) else {
            return Box::new(std::iter::empty());
        };
        // In the order of the file: forward, whatever the names are.
        wanted.sort_by_key(|entry| entry.place);
        if contents.kind == ArchiveKind::TarGz {
            return Box::new(Passing::open(&self.path, contents, wanted.into(), max_bytes, cancel));
        }
        let mut wanted = wanted.into_iter();
        let path = self.path.clone();
        let load = move |entry: Entry| {
            let (contents, path) = (Arc::clone(&contents), path.clone());
            let place = entry.place as usize;
            let read = move |max_bytes| contents.read(&path, place, max_bytes);
            Loaded { entry, content: Content::Later(Box::new(read)) }
        };
        Box::new(std::iter::from_fn(move || {
            let block: Vec<Loaded> = wanted.by_ref().take(LOAD_MEMBERS).map(&load).collect();
            (!block.is_empty()).then_some(block)
        }))
    }
}

/// A compressed tar going by, of which the wanted members are kept.
struct Passing<'a> {
    contents: Arc<Contents>,
    walk: Option<TarWalk<GzStream>>,
    /// Number of the next member of the walk.
    next: u64,
    wanted: VecDeque<Entry>,
    max_bytes: u64,
    /// Why the rest cannot be read.
    failed: String,
    cancel: &'a AtomicBool,
}

pub(super) type GzStream = Stream<MultiGzDecoder<BufReader<File>>>;

/// Opens a compressed tar for walking.
pub(super) fn open_gz(path: &Path) -> std::io::Result<TarWalk<GzStream>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    Ok(TarWalk::new(Stream(MultiGzDecoder::new(file))))
}

impl<'a> Passing<'a> {
    fn open(
        path: &Path,
        contents: Arc<Contents>,
        wanted: VecDeque<Entry>,
        max_bytes: u64,
        cancel: &'a AtomicBool,
    ) -> Self {
        let (walk, failed) = match open_gz(path) {
            Ok(walk) => (Some(walk), String::new()),
            Err(error) => (None, cannot_read(&error)),
        };
        Self { contents, walk, next: 0, wanted, max_bytes, failed, cancel }
    }

    /// The content of the next wanted member.
    fn load(&mut self, entry: &Entry) -> Result<Vec<u8>, String> {
        let Some(walk) = &mut self.walk else {
            return Err(self.failed.clone());
        };
        loop {
            let member = match walk.next() {
                Ok(Some(member)) => member,
                Ok(None) | Err(_) => {
                    self.failed = "the archive ends before it".to_owned();
                    self.walk = None;
                    return Err(self.failed.clone());
                }
            };
            let number = self.next;
            self.next += 1;
            if number < entry.place {
                continue;
            }
            let listed = self.contents.members.get(number as usize);
            if listed.is_none_or(|listed| listed.name != member.name || listed.size != member.size)
            {
                self.failed = "the archive changed while it was read".to_owned();
                self.walk = None;
                return Err(self.failed.clone());
            }
            if member.size > self.max_bytes {
                return Err(too_large(member.size, self.max_bytes));
            }
            return walk.content(&member).map_err(|error| cannot_read(&error));
        }
    }
}

impl Iterator for Passing<'_> {
    type Item = Vec<Loaded>;

    fn next(&mut self) -> Option<Vec<Loaded>> {
        let mut block = Vec::new();
        let mut bytes = 0;
        while block.len() < LOAD_MEMBERS
            && bytes < LOAD_BYTES
            && !self.cancel.load(Ordering::Relaxed)
        {
            let Some(entry) = self.wanted.pop_front() else { break };
            let content = match self.load(&entry) {
                Ok(content) => {
                    bytes += content.len();
                    Content::Bytes(content, None)
                }
                Err(reason) => Content::Failed(reason),
            };
            block.push(Loaded { entry, content });
        }
        (!block.is_empty()).then_some(block)
    }
}

/// Archives whose contents are remembered for [`read_member`].
const REMEMBERED: usize = 4;

/// What the archives read last contain, so that reading many members walks each archive once.
static CONTENTS: Mutex<VecDeque<(PathBuf, FileStamp, Arc<Contents>)>> = Mutex::new(VecDeque::new());

/// The content of one member, by the name of it in the archive.
pub(super) fn read_member(path: &Path, name: &[u8], max_bytes: u64) -> Result<Vec<u8>, String> {
    let contents = remembered(path).map_err(|error| cannot_read(&error))?;
    let place = contents
        .members
        .iter()
        .position(|member| member.name == name)
        .ok_or("the archive has no member of this name")?;
    contents.read(path, place, max_bytes)
}

fn remembered(path: &Path) -> std::io::Result<Arc<Contents>> {
    let now = stamp(&std::fs::metadata(path)?);
    let remembered = || CONTENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = remembered().iter().find(|(p, s, _)| p == path && *s == now).map(|k| k.2.clone());
    if let Some(contents) = known {
        return Ok(contents);
    }
    let contents = Arc::new(list(path, &AtomicBool::new(false))?);
    let mut remembered = remembered();
    remembered.retain(|(other, ..)| other != path);
    remembered.push_front((path.to_path_buf(), now, Arc::clone(&contents)));
    remembered.truncate(REMEMBERED);
    Ok(contents)
}

/// Reads all of a reader that is said to give `size` bytes, and no more than that.
fn read_exactly(reader: impl Read, size: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(std::io::Error::other(format!(
            "it should have {size} bytes and has {}",
            if bytes.len() as u64 > size { "more" } else { "fewer" }
        ))),
    }
}
