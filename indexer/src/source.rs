//! Where pictures come from: folders and files, archives, tables of URLs, foreign embeddings.
//!
//! A [`Source`] lists what may be a picture, with what tells whether it has changed, in a stable
//! order and without reading contents; then it loads the contents of those that are wanted. So a
//! run over what is known reads nothing. Whatever is wrong with one entry is reported, not fatal.

mod archive;
mod embeddings;
mod files;
mod list;
mod rows;
mod urls;
mod walk;

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

pub use self::archive::ArchiveSource;
pub use self::embeddings::{EmbeddingOptions, EmbeddingSource};
pub use self::files::{FileSource, Touched};
pub use self::list::{ListFile, read_list};
pub(crate) use self::rows::Rows;
pub use self::urls::{UrlOptions, UrlSource};
use self::walk::Walk;
use crate::error::{IndexerError, Result};
use crate::fetch::FetchOptions;
use crate::id::ContentHash;
use crate::locator::{ArchiveKind, Locator, LocatorKind, is_url};
use crate::record::{FileStamp, Payload};

/// A file that may be a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Size and time when listed.
    pub stamp: FileStamp,
}

/// What listing files found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Regular files, sorted by the bytes of their paths, each once.
    pub files: Vec<SourceFile>,
    /// Entries that could not be listed (permissions, link loops), with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Something that may be a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it is; its name in the collection.
    pub locator: Locator,
    /// What tells that it has changed: of a file, size and time; of a member, its size and the time
    /// of the archive; of a row of embeddings, the time of the table. Of a URL it says nothing
    /// before it is fetched: both are 0, and a URL that is known is not fetched again.
    pub stamp: FileStamp,
    /// What the source says about it.
    pub payload: Payload,
    /// Which one it is, for the source that listed it.
    place: u64,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub struct Block {
    /// Sorted by the bytes of their locators, each once.
    pub entries: Vec<Entry>,
    /// What could not be listed, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// What the entries are all of: something known there and not listed may have gone.
    pub scopes: Vec<Scope>,
}

/// A place that was listed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Folder, file or archive.
    pub path: PathBuf,
    /// Bytes that the locators of everything in it start with; of a single file, all of them.
    pub prefix: Vec<u8>,
    /// What it belongs to when it is judged whether too much has gone at once.
    pub root: PathBuf,
    /// What listing it came to.
    pub state: ScopeState,
}

/// What listing a place came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeState {
    /// It is there and was listed.
    Listed,
    /// It is not there, and nothing says whether it is gone for good.
    Missing,
    /// It was seen to go, while its root is there.
    Vanished,
    /// It could be listed in part only; what was not listed is not gone.
    Partial,
}

/// What became of an entry that was wanted.
pub struct Loaded {
    /// As listed.
    pub entry: Entry,
    /// Its content.
    pub content: Content,
}

/// Reads a content unless it has more bytes than this; the error says why not, in words.
pub type ReadLater = Box<dyn FnOnce(u64) -> Result<Vec<u8>, String> + Send>;

/// The content of an entry.
pub enum Content {
    /// To be read by whoever needs it, on any thread.
    Later(ReadLater),
    /// Here already, with the stamp it came with if the listing knew none.
    Bytes(Vec<u8>, Option<FileStamp>),
    /// No picture but its embedding.
    Vector(VectorRow),
    /// There is none, in words.
    Failed(String),
}

/// A row of a table of embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorRow {
    /// Of the picture, where the table says so, else of the vector.
    pub sha256: ContentHash,
    /// In pixels; 0 where the table does not say.
    pub width: u32,
    /// In pixels; 0 where the table does not say.
    pub height: u32,
    /// As stored, of any length.
    pub vector: Vec<f32>,
}

/// Contents in small blocks, so that memory stays bounded.
pub type Loads<'a> = Box<dyn Iterator<Item = Vec<Loaded>> + Send + 'a>;

/// Somewhere that pictures come from.
///
/// Contract, tested for every implementation in `tests/sources.rs`: listing twice gives the same
/// entries in the same order with the same stamps; no entry comes twice; entries of a block are
/// sorted; what cannot be listed or loaded is reported and the rest is there; loading gives exactly
/// the entries that are wanted, each once, in any order.
pub trait Source: Send {
    /// As messages name it.
    fn name(&self) -> String;

    /// The next part of the listing; `None` at the end.
    ///
    /// # Errors
    /// The source as a whole cannot be read, or is of the wrong kind.
    fn next_block(&mut self, cancel: &AtomicBool) -> Result<Option<Block>>;

    /// Contents of entries of the latest block, in its order. A content that is larger than
    /// `max_bytes` is not read. Ends early once `cancel` is set.
    fn load<'a>(
        &'a mut self,
        wanted: Vec<Entry>,
        max_bytes: u64,
        cancel: &'a AtomicBool,
    ) -> Loads<'a>;
}

/// How sources are listed and loaded.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Glob patterns of what is left out; see [`FileSource`].
    pub exclude: Vec<String>,
    /// List hidden files and folders too.
    pub hidden: bool,
    /// `.json` files are about pictures, not candidates themselves.
    pub sidecars: bool,
    /// A named file that does not exist is reported, even if nothing is known of it; for long lists.
    pub lenient: bool,
    /// Tables of URLs.
    pub urls: UrlOptions,
    /// Downloads.
    pub fetch: FetchOptions,
}

/// Extensions of files that are tables of URLs when they are named as sources.
const TABLES: &[&str] = &["csv", "jsonl", "ndjson", "parquet", "tsv", "txt"];

/// Sources for what a user named: files and folders, archives (`.tar`, `.tar.gz`, `.tgz`, `.zip`),
/// tables of URLs (`.parquet`, `.csv`, `.tsv`, `.jsonl`, `.txt`), URLs. Archives and tables that
/// are merely found in folders are files like all others.
///
/// # Errors
/// A pattern is wrong, a table cannot be opened, or something is neither file nor folder. What does
/// not exist is no error yet: it may be known to a collection.
pub fn open(named: &[PathBuf], options: &SourceOptions) -> Result<Vec<Box<dyn Source>>> {
    let walk = Walk::new(options)?;
    let mut files = Vec::new();
    let mut archives = Vec::new();
    let mut tables = Vec::new();
    let mut urls = Vec::new();
    for path in named {
        if let Some(text) = path.to_str().filter(|text| is_url(text)) {
            urls.push(text.to_owned());
        } else if ArchiveKind::of_path(path).is_some() && !path.is_dir() {
            archives.push(files::absolute(path)?);
        } else if is_table(path) && !path.is_dir() {
            tables.push(path.clone());
        } else {
            files.push(path.clone());
        }
    }
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if !files.is_empty() {
        sources.push(Box::new(FileSource::open(&files, walk.clone())?));
    }
    archives.sort();
    archives.dedup();
    for archive in archives {
        sources.push(Box::new(ArchiveSource::open(&archive, walk.clone())));
    }
    for table in tables {
        sources.push(Box::new(UrlSource::open(&table, &options.urls, &options.fetch)?));
    }
    if !urls.is_empty() {
        sources.push(Box::new(UrlSource::of_urls(urls, &options.fetch)?));
    }
    Ok(sources)
}

fn is_table(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| TABLES.contains(&extension.to_ascii_lowercase().as_str()))
}

/// Lists files and, recursively, folders. Hidden entries inside folders are left out; symbolic
/// links are followed, loops reported.
///
/// # Errors
/// A source does not exist or is neither file nor folder.
pub fn list(sources: &[PathBuf]) -> Result<Listing> {
    let walk = Walk::new(&SourceOptions::default())?;
    let mut source = FileSource::open(sources, walk)?;
    if let Some(missing) = source.missing() {
        return Err(no_such(missing));
    }
    let block = source.next_block(&AtomicBool::new(false))?.unwrap_or_default();
    let file = |entry: Entry| SourceFile { path: entry.locator.to_path(), stamp: entry.stamp };
    let files = block.entries.into_iter().map(file).collect();
    Ok(Listing { files, unreadable: block.unreadable })
}

pub(crate) fn no_such(path: &Path) -> IndexerError {
    IndexerError::Source { path: path.to_path_buf(), reason: "no such file or folder".to_owned() }
}

impl Locator {
    /// The bytes of the picture it points at, unless there are more than `max_bytes`. A member is
    /// read out of its archive (of a compressed tar, everything before it too), a URL is fetched
    /// with the default options.
    ///
    /// # Errors
    /// In words, without the name.
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, String> {
        match self.kind() {
            LocatorKind::Url(url) => crate::fetch::fetch_one(url, max_bytes),
            // A folder may be named like an archive, with the exclamation mark.
            LocatorKind::Member { archive, name } if !self.to_path().exists() => {
                archive::read_member(&archive, name, max_bytes)
            }
            _ => read_file(&self.to_path(), max_bytes),
        }
    }
}

/// Reads a file unless it is larger than `max_bytes`, which is checked before reading and while.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        if size > max_bytes {
            return Ok(Err(size));
        }
        let mut bytes = Vec::new();
        (&mut file).take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > max_bytes {
            true => Ok(Err(bytes.len() as u64)),
            false => Ok(Ok(bytes)),
        }
    };
    match read() {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(size)) => Err(too_large(size, max_bytes)),
        Err(error) => Err(cannot_read(&error)),
    }
}

/// Size and time of a file.
pub(crate) fn stamp_of(path: &Path) -> std::io::Result<FileStamp> {
    std::fs::metadata(path).map(|metadata| stamp(&metadata))
}

pub(crate) fn too_large(size: u64, max_bytes: u64) -> String {
    format!("the file has {size} bytes, the limit is {max_bytes}")
}

pub(crate) fn cannot_read(error: &std::io::Error) -> String {
    format!("it cannot be read: {error}")
}

pub(crate) fn stamp(metadata: &Metadata) -> FileStamp {
    let mtime = metadata.modified().ok();
    let mtime_ns = mtime.map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    });
    FileStamp { size: metadata.len(), mtime_ns }
}

/// Extensions of picture formats, readable here or not: a file that has one and cannot be read is
/// listed as skipped, while other files that are no pictures are only counted.
const PICTURE_EXTENSIONS: &[&str] = &[
    "apng", "arw", "avif", "avifs", "blp", "bmp", "cr2", "cr3", "cur", "dcx", "dds", "dib", "dng",
    "eps", "exr", "fits", "flc", "fli", "ftc", "ftu", "gbr", "gif", "hdr", "heic", "heif", "hif",
    "icns", "ico", "im", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jpx", "jxl", "mpo", "msp",
    "nef", "orf", "pbm", "pcx", "pfm", "pgm", "pict", "png", "pnm", "ppm", "psd", "qoi", "raf",
    "ras", "rgb", "rgba", "rw2", "sgi", "spider", "tga", "tif", "tiff", "webp", "xbm", "xpm",
];

/// Whether a file is named like a picture.
pub fn has_picture_extension(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| {
        PICTURE_EXTENSIONS.binary_search(&extension.to_ascii_lowercase().as_str()).is_ok()
    })
}

/// Sorts by the bytes of the locators and leaves each once, the first one named.
fn sort_entries(entries: &mut Vec<Entry>) {
    entries.sort_by(|a, b| a.locator.as_bytes().cmp(b.locator.as_bytes()));
    entries.dedup_by(|a, b| a.locator.as_bytes() == b.locator.as_bytes());
}

/// Sixteen bytes that tell names apart, for knowing those that come twice in a long table.
fn short_hash(name: &[u8]) -> u128 {
    let digest = Sha256::digest(name);
    digest.iter().take(16).fold(0, |hash, &byte| hash << 8 | u128::from(byte))
}

#[cfg(test)]
mod tests;
