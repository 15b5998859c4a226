//! Files that are either the old one or the new one, whatever happens in between.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{IoContext, Result};

/// Replaces a file atomically: temporary file beside it, fsync, rename, fsync of the folder.
pub(crate) fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut file = temporary_beside(path)?;
    let mut buffer = std::io::BufWriter::new(&mut file);
    write(&mut buffer).and_then(|()| buffer.flush()).io("write", path)?;
    drop(buffer);
    persist(file, path)
}

/// A file in the folder of `path`, removed again unless it is [`persist`]ed.
pub(crate) fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    // Private by default; what we write is meant for whoever may read the folder.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).io("create a file in", folder)
}

/// Gives a complete file its name, replacing what is there.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().io("sync", path)?;
    file.persist(path).map_err(|error| error.error).io("replace", path)?;
    sync_folder(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes renames and new files in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Folders cannot be opened for syncing on Windows, where renames are durable by themselves.
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).io("sync", folder)?;
    }
    Ok(())
}
