//! What is known about an image or about a file that gave none, and how that is written.
//!
//! A stored value is the CRC-32 of the rest (little-endian) and then [postcard] bytes. The checksum
//! is ours because the storage engine's own covers its pages, not what is read back from them.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

/// What tells, without reading it, that a file is still the one we saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// Values attached to an image, by name.
pub type Payload = BTreeMap<String, serde_json::Value>;

/// One indexed image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where the image is.
    pub path: Locator,
    /// SHA-256 of the file.
    pub sha256: ContentHash,
    /// Size and time of the file when it was read.
    #[serde(flatten)]
    pub stamp: FileStamp,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Something odd about a file that still could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Row of its embedding.
    pub row: u64,
    /// What was attached to it, such as a label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub payload: Payload,
}

/// A file that could not be indexed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Where the file is.
    pub path: Locator,
    /// Why it was skipped.
    pub reason: String,
    /// Whether it looks like no picture at all; such files are counted, not listed.
    pub not_a_picture: bool,
    /// Size and time of the file when it was tried.
    #[serde(flatten)]
    pub stamp: FileStamp,
}

/// What the catalog knows about a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Indexed.
    Image(ImageId, Record),
    /// Tried and skipped.
    Failed(Failure),
}

/// The little about a path that tells whether its file must be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What became of it.
    pub kind: SeenKind,
    /// Size and time of the file when it was read.
    pub stamp: FileStamp,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeenKind {
    /// Indexed.
    Image(ImageId),
    /// Tried and skipped.
    Failed,
}

#[derive(Serialize, Deserialize)]
struct StoredRecord<'a> {
    #[serde(borrow)]
    path: &'a [u8],
    sha256: [u8; 32],
    stamp: FileStamp,
    width: u32,
    height: u32,
    warning: Option<&'a str>,
    row: u64,
    /// JSON, since payloads are; empty for none.
    payload: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct StoredFailure<'a> {
    reason: &'a str,
    not_a_picture: bool,
    stamp: FileStamp,
}

impl Record {
    /// Bytes to store. `None` when the hash is not one, or the payload is no JSON.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let payload = match self.payload.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(&self.payload).ok()?,
        };
        encode(&StoredRecord {
            path: self.path.as_bytes(),
            sha256: self.sha256.to_bytes()?,
            stamp: self.stamp,
            width: self.width,
            height: self.height,
            warning: self.warning.as_deref(),
            row: self.row,
            payload: &payload,
        })
    }

    /// The record in stored bytes; `None` when they are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: StoredRecord<'_> = postcard::from_bytes(checked(bytes)?).ok()?;
        let payload = match stored.payload.is_empty() {
            true => Payload::new(),
            false => serde_json::from_slice(stored.payload).ok()?,
        };
        Some(Self {
            path: Locator::from_bytes(stored.path),
            sha256: ContentHash::from_bytes(&stored.sha256),
            stamp: stored.stamp,
            width: stored.width,
            height: stored.height,
            warning: stored.warning.map(str::to_owned),
            row: stored.row,
            payload,
        })
    }
}

impl Failure {
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let Self { reason, not_a_picture, stamp, .. } = self;
        encode(&StoredFailure { reason, not_a_picture: *not_a_picture, stamp: *stamp })
    }

    pub(crate) fn decode(path: &[u8], bytes: &[u8]) -> Option<Self> {
        let stored: StoredFailure<'_> = postcard::from_bytes(checked(bytes)?).ok()?;
        Some(Self {
            path: Locator::from_bytes(path),
            reason: stored.reason.to_owned(),
            not_a_picture: stored.not_a_picture,
            stamp: stored.stamp,
        })
    }
}

/// Checksum and postcard bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let bytes = postcard::to_extend(value, vec![0; 4]).ok()?;
    Some(sealed(bytes))
}

/// A value written by [`encode`]; `None` when it is damaged.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(checked(bytes)?).ok()
}

/// Fills in the checksum that four bytes at the start were left free for.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a sealed value holds; `None` when its checksum is wrong.
pub(crate) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (crc, body) = bytes.split_first_chunk::<4>()?;
    (crc32fast::hash(body).to_le_bytes() == *crc).then_some(body)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_record_comes_back_and_any_flipped_bit_is_noticed() {
        let mut record = Record {
            path: Locator::from(Path::new("/a.jpg")),
            sha256: ContentHash::of(b"a"),
            stamp: FileStamp { size: 1, mtime_ns: -5 },
            width: 2,
            height: 3,
            warning: Some("odd".to_owned()),
            row: 7,
            payload: Payload::new(),
        };
        let plain = record.encode().expect("encodes");
        assert_eq!(Record::decode(&plain).as_ref(), Some(&record));
        record.payload.insert("label_confidence".to_owned(), 0.1.into());
        let bytes = record.encode().expect("encodes");
        assert_eq!(Record::decode(&bytes), Some(record));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_format_1_is_read() {
        let old = r#"{"path":"/a.jpg","sha256":"00","size":1,"mtime_ns":-5,"width":2,"height":3,"row":7}"#;
        let image: Record = serde_json::from_str(old).expect("a record of format 1");
        assert!(image.payload.is_empty());
        assert_eq!(serde_json::to_string(&image).expect("JSON"), old);
    }
}
