//! The file of keys: read whole, replaced whole, by one process at a time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FILE, KeyError, Stored};

/// Layout of the file.
const FORMAT: u32 = 1;
/// A file longer than this is none that we wrote.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Content {
    format_version: u32,
    keys: Vec<Stored>,
}

/// The keys of a file; none when there is no file.
pub(super) fn read(path: &Path) -> Result<Vec<Stored>, KeyError> {
    let io = |source| KeyError::Io { action: "read", path: path.to_path_buf(), source };
    let damaged = |reason: String| KeyError::Damaged { path: path.to_path_buf(), reason };
    let length = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        metadata => metadata.map_err(io)?.len(),
    };
    if length > MAX_BYTES {
        return Err(damaged(format!("it has {length} bytes, the most is {MAX_BYTES}")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let content: Content =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    match content.format_version {
        FORMAT => Ok(content.keys),
        other => Err(damaged(format!("it has format {other}, this release reads {FORMAT}"))),
    }
}

/// The file's content, for one process to change.
pub(super) struct Locked {
    pub(super) keys: Vec<Stored>,
    path: PathBuf,
    /// Another file than the one that is replaced, since a lock belongs to a file and not to a name.
    _lock: File,
}

impl Locked {
    pub(super) fn open(home: &Path) -> Result<Self, KeyError> {
        let path = home.join(FILE);
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| KeyError::Io { action, path, source }
        };
        std::fs::create_dir_all(home).map_err(io("create", home))?;
        let name = home.join("keys.lock");
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let lock = options.open(&name).map_err(io("open", &name))?;
        lock.lock().map_err(io("lock", &name))?;
        Ok(Self { keys: read(&path)?, path, _lock: lock })
    }

    /// Replaces the file: the old one or the new one is there, whatever happens.
    pub(super) fn write(&self) -> Result<(), KeyError> {
        let io = |source| KeyError::Io { action: "write", path: self.path.clone(), source };
        let content = Content { format_version: FORMAT, keys: self.keys.clone() };
        let mut bytes = serde_json::to_vec_pretty(&content).map_err(|error| io(error.into()))?;
        bytes.push(b'\n');
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Readable by its owner alone, as temporary files are from the start.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(io)?;
        file.persist(&self.path).map_err(|error| io(error.error))?;
        if cfg!(unix) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(())
    }
}
