//! Where a picture is. Paths need not be UTF-8, and none is ever lost or altered on the way.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A file path, stored as text when it is UTF-8 and as bytes otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Locator {
    /// UTF-8.
    Text(String),
    /// Anything else (Unix only).
    Bytes(Vec<u8>),
}

impl Locator {
    /// The bytes of the path: equal exactly for equal paths.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The path that has these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }

    /// The path again.
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Bytes(bytes) => bytes_to_path(bytes),
        }
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

#[cfg(unix)]
fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn bytes_to_path(bytes: &[u8]) -> PathBuf {
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
}
