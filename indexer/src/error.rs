//! What can go wrong between features and answers.
//!
//! A picture that cannot be read is not an error: it is data ([`crate::ingest::Skipped`]). Errors
//! end an operation, and say what to do.

use std::path::{Path, PathBuf};

use engine::EngineError;

/// What to do about damage to what cannot be derived from anything else.
pub(crate) const RESTORE: &str = "restore a snapshot (`akin collection restore`), or index the \
                                  folders again into a new collection";

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexerError {
    /// The model failed, or its weights are unsound.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Reading or writing a file failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A source given by the user does not exist or is of the wrong kind.
    #[error("{path}: {reason}")]
    Source {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A collection name that cannot be a folder name.
    #[error(
        "`{name}` cannot be a collection name: use 1 to 64 letters, digits, `-`, `_` or `.`, not \
         starting with `.`"
    )]
    BadCollectionName {
        /// As given.
        name: String,
    },
    /// No such collection.
    #[error("there is no collection `{name}` in {home}; {known}")]
    NoSuchCollection {
        /// As given.
        name: String,
        /// Where collections were looked for.
        home: PathBuf,
        /// Names that exist, as a sentence.
        known: String,
    },
    /// Another process has the collection open.
    #[error(
        "collection `{name}` is in use by {holder}; try again when that one is done (a running \
         `akin serve` answers searches over HTTP meanwhile)"
    )]
    Locked {
        /// Collection.
        name: String,
        /// The process that has it, as far as it said.
        holder: String,
    },
    /// The collection was written by a later release.
    #[error(
        "collection `{name}` has format {found}, this release reads up to {supported}; use a newer \
         akin"
    )]
    NewerFormat {
        /// Collection.
        name: String,
        /// Version on disk.
        found: u32,
        /// Newest version known.
        supported: u32,
    },
    /// The embedder in hand is not the one the collection was made with.
    #[error(
        "collection `{name}` was made with {expected}, this is {got}; embeddings of different \
         models or settings cannot be mixed: use the same ones, or another collection"
    )]
    ModelMismatch {
        /// Collection.
        name: String,
        /// Model and settings of the collection.
        expected: String,
        /// Model and settings given.
        got: String,
    },
    /// The head in hand reads features of another model than the collection's.
    #[error(
        "head `{head}` was trained on {expected}, collection `{name}` was made with {got}; train \
         a head on that model, with the same settings (`akin train probe --model ...`), or index \
         the pictures into another collection"
    )]
    HeadMismatch {
        /// Name of the head.
        head: String,
        /// Model and settings of the head.
        expected: String,
        /// Collection.
        name: String,
        /// Model and settings of the collection.
        got: String,
    },
    /// A vector of the wrong length.
    #[error("the vector has {got} values, the collection's have {expected}")]
    Dimension {
        /// Values received.
        got: usize,
        /// Values required.
        expected: usize,
    },
    /// Something on disk is not what was written there.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// File or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The catalog's storage engine failed.
    #[error("the catalog in {path} failed: {reason}")]
    Catalog {
        /// Catalog folder.
        path: PathBuf,
        /// Cause.
        reason: String,
    },
    /// The ANN library failed; the index is derived and is rebuilt from the vectors.
    #[error("the ANN index failed: {reason}")]
    Ann {
        /// Cause.
        reason: String,
    },
    /// The caller wanted to stop; what was done before is kept.
    #[error("stopped before the end")]
    Cancelled,
    /// The disk has no room for what was to be done; nothing was changed.
    #[error(
        "{path}: this needs about {} free, there are {}; nothing was changed: make room, or move \
         the home folder to a larger disk",
        megabytes(*needed),
        megabytes(*free)
    )]
    NoRoom {
        /// Folder on that disk.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The caller ended it.
    #[error("stopped; {left}")]
    Stopped {
        /// What that leaves behind.
        left: &'static str,
    },
    /// The snapshot was written by a later release.
    #[error(
        "{path} is a snapshot of format {found}, this release reads up to {supported}; use a newer \
         akin"
    )]
    NewerSnapshot {
        /// Archive.
        path: PathBuf,
        /// Version of the archive.
        found: u32,
        /// Newest version known.
        supported: u32,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Result of this crate.
pub type Result<T, E = IndexerError> = std::result::Result<T, E>;

/// Attaches what was tried, and on which path, to an IO error.
pub(crate) trait IoContext<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| IndexerError::Io { action, path: path.to_path_buf(), source })
    }
}
