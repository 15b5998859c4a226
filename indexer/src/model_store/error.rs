//! What can go wrong with model files, and what to do about it.

use std::path::{Path, PathBuf};

/// Any failure of the model store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelStoreError {
    /// Neither a known name nor a path.
    #[error("there is no model `{name}`; known are {known}, or give the path of a weights file")]
    UnknownModel {
        /// As given.
        name: String,
        /// Known names.
        known: String,
    },
    /// A path that does not exist.
    #[error("no such weights file: {path}")]
    NoSuchPath {
        /// As given.
        path: PathBuf,
    },
    /// A known model that was not pulled.
    #[error(
        "model `{name}` is not on this machine: run `akin model pull {name}`, or put {url} at \
         {weights}, or use `--model PATH`"
    )]
    NotHere {
        /// Name.
        name: &'static str,
        /// Where its weights can be had.
        url: String,
        /// Where they belong.
        weights: PathBuf,
    },
    /// The hub could not be reached, or stopped sending.
    #[error(
        "cannot fetch {url}: {reason}; what has arrived is kept. Try again, set HTTPS_PROXY if \
         you are behind a proxy, or put the file at {target} yourself"
    )]
    Network {
        /// Address.
        url: String,
        /// Cause, with the proxy in use.
        reason: String,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// The hub refuses.
    #[error("{url} answered {status}: {advice}")]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// The hub did not say what is needed to check the file.
    #[error("{url} came without {missing}, so the file could not be checked; is it a model hub?")]
    NoIdentity {
        /// Address.
        url: String,
        /// What the answer lacks.
        missing: &'static str,
    },
    /// What arrived is not what was announced.
    #[error(
        "{file} has {what} {got}, the hub announced {expected}; it was removed. Pull again, and \
         distrust the network if it repeats"
    )]
    WrongFile {
        /// File.
        file: String,
        /// Size or SHA-256.
        what: &'static str,
        /// Of the file that arrived.
        got: String,
        /// Announced.
        expected: String,
    },
    /// The same commit is announced with another content than before.
    #[error(
        "{file} of commit {commit} was recorded as {recorded} and is now announced as {announced}; \
         a commit never changes, so one of the two is not genuine. Delete {folder} to start afresh"
    )]
    Changed {
        /// File.
        file: String,
        /// Commit.
        commit: String,
        /// Hash on record.
        recorded: String,
        /// Hash announced.
        announced: String,
        /// Folder of the model.
        folder: PathBuf,
    },
    /// A file on disk is not what was recorded.
    #[error("{path} has {what} {got}, recorded is {expected}; pull it again with --force")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Size or SHA-256.
        what: &'static str,
        /// Found.
        got: String,
        /// Recorded.
        expected: String,
    },
    /// The record of a model cannot be read.
    #[error("{path} cannot be read: {reason}; delete it and pull the model again")]
    BadRecord {
        /// File.
        path: PathBuf,
        /// Cause.
        reason: String,
    },
    /// Another process is pulling the same model.
    #[error("another process is pulling `{name}`; wait for it")]
    Busy {
        /// Model.
        name: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped; the same command goes on from here")]
    Cancelled,
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
    /// Something else, in words.
    #[error("{0}")]
    Failed(String),
}

/// Attaches what was tried, and on which path, to an IO error.
pub(super) fn io(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> ModelStoreError + use<> {
    let path = path.to_path_buf();
    move |source| ModelStoreError::Io { action, path, source }
}
