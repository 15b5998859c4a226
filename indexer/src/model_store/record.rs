//! `akin-model.json`: where a model's files came from, and what they must hash to.

use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::io;
use super::{ModelStoreError, PublicModel};
use crate::durable::replace_file;

const RECORD_FILE: &str = "akin-model.json";

/// What is known of a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Model name.
    pub name: String,
    /// Repository on the hub.
    pub repository: String,
    /// Commit the files belong to.
    pub commit: String,
    /// Hub they came from.
    pub endpoint: String,
    /// Seconds since 1970 when the pull was complete.
    pub pulled_at: u64,
    /// The files.
    pub files: Vec<FileRecord>,
}

/// One file of a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// File name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file that arrived, in lower-case hexadecimal.
    pub sha256: String,
    /// What the hub announced: the SHA-256 of large files, the git blob id of small ones.
    pub announced: String,
}

impl ModelRecord {
    pub(super) fn new(
        model: &PublicModel,
        endpoint: &str,
        commit: String,
        files: Vec<FileRecord>,
    ) -> Self {
        Self {
            name: model.name.to_owned(),
            repository: model.repository.to_owned(),
            commit,
            endpoint: endpoint.to_owned(),
            pulled_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            files,
        }
    }

    pub(super) fn read(folder: &Path) -> Result<Option<Self>, ModelStoreError> {
        let path = folder.join(RECORD_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| ModelStoreError::BadRecord { path, reason: error.to_string() })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), ModelStoreError> {
        let write = replace_file(&folder.join(RECORD_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        });
        write.map_err(|error| ModelStoreError::Failed(error.to_string()))
    }

    pub(super) fn file(&self, name: &str) -> Option<&FileRecord> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl FileRecord {
    pub(super) fn has_size_in(&self, folder: &Path) -> bool {
        folder.join(&self.name).metadata().is_ok_and(|file| file.len() == self.size)
    }

    pub(super) fn verify(&self, folder: &Path) -> Result<(), ModelStoreError> {
        let path = folder.join(&self.name);
        let size = path.metadata().map_err(io("read", &path))?.len();
        let damaged = |what, got, expected| {
            Err(ModelStoreError::Damaged { path: path.clone(), what, got, expected })
        };
        if size != self.size {
            return damaged("size", size.to_string(), self.size.to_string());
        }
        let sha256 = Hashes::of(&path)?.sha256;
        if sha256 != self.sha256 {
            return damaged("SHA-256", sha256, self.sha256.clone());
        }
        Ok(())
    }
}

/// The two hashes the hub knows files by.
pub(super) struct Hashes {
    pub(super) sha256: String,
    /// Git's id of a blob: SHA-1 of `blob <length>\0` and the content.
    pub(super) git_blob: String,
}

impl Hashes {
    pub(super) fn of(path: &Path) -> Result<Self, ModelStoreError> {
        let mut file = std::fs::File::open(path).map_err(io("read", path))?;
        let length = file.metadata().map_err(io("read", path))?.len();
        let mut sha256 = Sha256::new();
        let mut git_blob = Sha1::new_with_prefix(format!("blob {length}\0"));
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(io("read", path))?;
            if read == 0 {
                break;
            }
            sha256.update(&buffer[..read]);
            git_blob.update(&buffer[..read]);
        }
        Ok(Self {
            sha256: format!("{:x}", sha256.finalize()),
            git_blob: format!("{:x}", git_blob.finalize()),
        })
    }
}
