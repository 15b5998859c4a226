//! Everything in a catalog as it is stored, damaged or not: what a check looks at.

use std::panic::AssertUnwindSafe;

use roaring::RoaringBitmap;

use super::{Catalog, failed, hash_key, postings};
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::record::{self, Failure, Payload, Record, Seen};

/// One entry. A value is `None` where it does not pass its checksum or cannot be decoded.
#[derive(Debug)]
pub(crate) enum Entry {
    Image(ImageId, Option<Record>),
    /// With the bytes of the path.
    Path(Vec<u8>, Option<Seen>),
    /// With the bytes of the path.
    Failure(Vec<u8>, Option<Failure>),
    /// First half of a content hash.
    Hash([u8; 16], ImageId),
    /// Page number and rows within the page.
    Alive(u32, Option<RoaringBitmap>),
    /// The whole key and rows within the page.
    Posting(Vec<u8>, Option<RoaringBitmap>),
    /// The counters, which have a call of their own.
    Meta,
    /// A key of no known kind.
    Unknown,
}

impl Catalog {
    /// Every entry, by key. The engine's own failures and panics come as errors, after which there is
    /// nothing more.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(Vec<u8>, Entry)>> {
        let mut entries = self.db.iter();
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let next = std::panic::catch_unwind(AssertUnwindSafe(|| entries.next()));
            let entry = match next {
                Ok(entry) => entry?.map_err(|error| failed(&self.folder, &error)),
                Err(_) => Err(IndexerError::Catalog {
                    path: self.folder.clone(),
                    reason: "the storage engine gave up while reading".to_owned(),
                }),
            };
            is_over = entry.is_err();
            Some(entry.map(|(key, value)| {
                let entry = Entry::of(&key, &value).unwrap_or(Entry::Unknown);
                (key.to_vec(), entry)
            }))
        })
    }

    /// Whether an image is listed under a content hash.
    pub(crate) fn has_hash(&self, hash: &ContentHash, id: ImageId) -> Result<bool> {
        match hash_key(hash, Some(id)) {
            Some(key) => Ok(self.value(&key)?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether there is an entry for a failure, damaged or not.
    pub(crate) fn has_failure(&self, path: &[u8]) -> Result<bool> {
        Ok(self.value(&super::path_key(b'f', path))?.is_some())
    }

    /// Keys, with page, of the postings that a row with this payload belongs to.
    pub(crate) fn posting_keys(payload: &Payload, row: u32) -> impl Iterator<Item = Vec<u8>> {
        postings::keys(payload).into_iter().map(move |key| postings::paged(&key, row >> 16))
    }

    /// The payload field in the key of a posting.
    pub(crate) fn posting_field(key: &[u8]) -> String {
        postings::field_of(key).unwrap_or_else(|| key.escape_ascii().to_string())
    }
}

impl Entry {
    /// `None` for a key of no known shape.
    fn of(key: &[u8], value: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let page = |value: &[u8]| {
            record::checked(value).and_then(|body| RoaringBitmap::deserialize_from(body).ok())
        };
        Some(match kind {
            b'i' => Self::Image(ImageId(number(rest)?), Record::decode(value)),
            b'p' => Self::Path(rest.to_vec(), record::decode(value)),
            b'f' => Self::Failure(rest.to_vec(), Failure::decode(rest, value)),
            b'h' => {
                let (hash, id) = rest.split_first_chunk::<16>()?;
                Self::Hash(*hash, ImageId(number(id)?))
            }
            b'b' => Self::Alive(u32::from_be_bytes(rest.try_into().ok()?), page(value)),
            b'x' => {
                postings::page_of(key)?;
                Self::Posting(key.to_vec(), page(value))
            }
            b'm' if rest.is_empty() => Self::Meta,
            _ => return None,
        })
    }
}

#[cfg(test)]
impl Catalog {
    /// Writes any bytes under any key, or removes it, behind the back of everything.
    pub(crate) fn tamper(&self, key: &[u8], value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.db.insert(key, value),
            None => self.db.remove(key),
        }
        .expect("write");
        self.db.flush().expect("flush");
    }
}
