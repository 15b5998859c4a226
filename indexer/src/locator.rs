//! Where a picture is: a file, a member of an archive, or a URL. Paths and names need not be
//! UTF-8, and none is ever lost or altered on the way.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The place of a picture, stored as text when it is UTF-8 and as bytes otherwise.
///
/// A file is its path, a member of an archive `/folder/shard.tar!/inner/name.jpg`, a picture on the
/// net its URL. What kind it is follows from the text alone: see [`kind`](Self::kind).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Locator {
    /// UTF-8.
    Text(String),
    /// Anything else (Unix only).
    Bytes(Vec<u8>),
}

/// What a locator points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocatorKind<'a> {
    /// A file of its own, or whatever name a foreign table gave its row.
    File,
    /// A member of an archive.
    Member {
        /// Path of the archive.
        archive: PathBuf,
        /// Name inside it, as stored there.
        name: &'a [u8],
    },
    /// An `http` or `https` URL.
    Url(&'a str),
}

/// What separates an archive's path from the name of a member.
const SEPARATOR: &[u8] = b"!/";

impl Locator {
    /// The path that has these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }

    /// A member of an archive, by its name there.
    pub fn member(archive: &Path, name: &[u8]) -> Self {
        let mut bytes = archive.as_os_str().as_encoded_bytes().to_vec();
        bytes.extend(SEPARATOR);
        bytes.extend(name);
        Self::from_bytes(&bytes)
    }

    /// The bytes of the path: equal exactly for equal paths.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The path again; for members and URLs, something to show.
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Bytes(bytes) => bytes_to_path(bytes),
        }
    }

    /// What it points at. A member is told by `!/` after the name of an archive, such as `.tar!/`.
    pub fn kind(&self) -> LocatorKind<'_> {
        if let Self::Text(text) = self
            && is_url(text)
        {
            return LocatorKind::Url(text);
        }
        let bytes = self.as_bytes();
        for (at, window) in bytes.windows(SEPARATOR.len()).enumerate() {
            if window == SEPARATOR && ArchiveKind::of_name(&bytes[..at]).is_some() {
                return LocatorKind::Member {
                    archive: bytes_to_path(&bytes[..at]),
                    name: &bytes[at + SEPARATOR.len()..],
                };
            }
        }
        LocatorKind::File
    }
}

/// Whether text is a URL that can be fetched.
pub(crate) fn is_url(text: &str) -> bool {
    let starts = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    starts("http://") || starts("https://")
}

/// Archives whose members can be pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Tar,
    TarGz,
    Zip,
}

impl ArchiveKind {
    /// Told by the end of the name.
    pub(crate) fn of_name(name: &[u8]) -> Option<Self> {
        let ends = |end: &[u8]| {
            let start = name.len().checked_sub(end.len());
            start.is_some_and(|start| name[start..].eq_ignore_ascii_case(end))
        };
        if ends(b".tar") {
            Some(Self::Tar)
        } else if ends(b".tar.gz") || ends(b".tgz") {
            Some(Self::TarGz)
        } else if ends(b".zip") {
            Some(Self::Zip)
        } else {
            None
        }
    }

    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        Self::of_name(path.as_os_str().as_encoded_bytes())
    }
}

impl From<&Path> for Locator {
    fn from(path: &Path) -> Self {
        let path: &OsStr = path.as_os_str();
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_encoded_bytes().to_vec()),
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// A path from its bytes, whatever they are.
#[cfg(unix)]
pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_utf8_comes_back_unchanged() -> Result<(), serde_json::Error> {
        let odd = bytes_to_path(b"/tmp/\xff\xfe.jpg");
        let json = serde_json::to_string(&Locator::from(odd.as_path()))?;
        let back: Locator = serde_json::from_str(&json)?;
        assert_eq!(back.to_path(), odd);
        assert!(back.to_string().ends_with(".jpg"));
        Ok(())
    }

    #[test]
    fn the_kind_follows_from_the_text() {
        let member = Locator::member(Path::new("/a/shard.TAR"), b"x!/\xff.jpg");
        let expected = LocatorKind::Member { archive: "/a/shard.TAR".into(), name: b"x!/\xff.jpg" };
        assert_eq!(member.kind(), expected);
        for (text, kind) in [
            ("/a/b.jpg", LocatorKind::File),
            ("/a/wow!/b.jpg", LocatorKind::File),
            ("/a/shard.tar", LocatorKind::File),
            ("row-000000001", LocatorKind::File),
            ("HTTPS://a.org/b.jpg", LocatorKind::Url("HTTPS://a.org/b.jpg")),
            ("/http://a.org", LocatorKind::File),
        ] {
            assert_eq!(Locator::Text(text.to_owned()).kind(), kind, "{text}");
        }
        let inner = Locator::Text("/a/b.tgz!/c.zip!/d.jpg".to_owned());
        let outermost =
            LocatorKind::Member { archive: "/a/b.tgz".into(), name: b"c.zip!/d.jpg".as_slice() };
        assert_eq!(inner.kind(), outermost);
    }
}
