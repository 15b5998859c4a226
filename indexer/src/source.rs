//! Folders to files: what is there, in a stable order.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use crate::error::{IndexerError, Result};
use crate::record::FileStamp;

/// A file that may be a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Size and time when listed.
    pub stamp: FileStamp,
}

/// What listing found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Regular files, sorted by path, each once.
    pub files: Vec<SourceFile>,
    /// Entries that could not be listed (permissions, link loops), with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Lists files and, recursively, folders. Hidden entries inside folders are left out; symbolic
/// links are followed, loops reported.
///
/// # Errors
/// A source does not exist or is neither file nor folder.
pub fn list(sources: &[PathBuf]) -> Result<Listing> {
    let mut listing = Listing::default();
    for source in sources {
        let bad = |reason: String| IndexerError::Source { path: source.clone(), reason };
        let root = source.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => bad("no such file or folder".to_owned()),
            _ => bad(error.to_string()),
        })?;
        let metadata = root.metadata().map_err(|error| bad(error.to_string()))?;
        if metadata.is_dir() {
            list_folder(&root, &mut listing);
        } else if metadata.is_file() {
            listing.files.push(SourceFile { path: root, stamp: stamp(&metadata) });
        } else {
            return Err(bad("neither a file nor a folder".to_owned()));
        }
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    listing.files.dedup_by(|a, b| a.path == b.path);
    Ok(listing)
}

fn list_folder(root: &Path, listing: &mut Listing) {
    let entries = WalkDir::new(root)
        .follow_links(true)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path()));
    for entry in entries {
        let file = entry.and_then(|entry| {
            let metadata = entry.metadata()?;
            Ok(metadata.is_file().then(|| (entry.into_path(), stamp(&metadata))))
        });
        match file {
            Ok(Some((path, stamp))) => listing.files.push(SourceFile { path, stamp }),
            Ok(None) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                listing.unreadable.push((path, error.to_string()));
            }
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Size and time of a file.
pub(crate) fn stamp_of(path: &Path) -> std::io::Result<FileStamp> {
    std::fs::metadata(path).map(|metadata| stamp(&metadata))
}

fn stamp(metadata: &Metadata) -> FileStamp {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_sorted_for_binary_search() {
        assert!(PICTURE_EXTENSIONS.is_sorted());
        assert!(has_picture_extension(Path::new("a/B.JPG")));
        assert!(!has_picture_extension(Path::new("a/jpg")));
    }

    #[test]
    fn files_come_sorted_once_and_without_hidden_ones() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().canonicalize().expect("canonical");
        for name in ["b.jpg", "a.png", ".hidden.jpg", "sub/c.jpg", ".git/d.jpg"] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
            std::fs::write(path, name).expect("write");
        }
        let listing = list(&[root.clone(), root.join("a.png")]).expect("list");
        let names: Vec<_> = listing
            .files
            .iter()
            .map(|file| file.path.strip_prefix(&root).expect("under root").to_path_buf())
            .collect();
        assert_eq!(names, ["a.png", "b.jpg", "sub/c.jpg"].map(PathBuf::from));
        assert_eq!(listing.files[0].stamp.size, 5);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_loop_is_reported_and_ends() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).expect("link");
        std::fs::write(folder.path().join("a.jpg"), "x").expect("write");
        let listing = list(&[folder.path().to_path_buf()]).expect("list");
        assert_eq!(listing.files.len(), 1);
        assert_eq!(listing.unreadable.len(), 1);
    }

    #[test]
    fn a_missing_source_is_an_error_that_names_it() {
        let error = list(&[PathBuf::from("/no/such/folder")]).err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("/no/such/folder: no such file or folder"));
    }
}
