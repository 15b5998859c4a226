//! Records that searches showed lately, decoded: the same images come back in search after search.

use std::sync::{Arc, PoisonError, RwLock};

use moka::sync::Cache;

use crate::error::Result;
use crate::id::ImageId;
use crate::record::Record;

/// Memory for them: about 150,000 records without payload.
const BYTES: u64 = 64 << 20;
/// Memory of a record besides its texts: the struct, the hash, and what allocating and keeping it adds.
const RECORD_BYTES: usize = 360;

/// Shared by the writer and all views. What it gives is never older than the last commit that had ended when it was asked.
#[derive(Debug)]
pub(super) struct Recent {
    cache: Cache<ImageId, Arc<Record>>,
    /// Held from reading a record to keeping it, so that whoever takes out what a commit changed waits for those who may
    /// have read it before.
    reading: RwLock<()>,
}

/// About how much memory a record takes.
fn weight(record: &Record) -> u32 {
    let payload: usize =
        record.payload.iter().map(|(name, value)| 64 + name.len() + size(value)).sum();
    let warning = record.warning.as_ref().map_or(0, String::len);
    (RECORD_BYTES + record.path.as_bytes().len() + warning + payload).try_into().unwrap_or(u32::MAX)
}

/// About how much memory a value of a payload takes.
fn size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| 64 + name.len() + size(value)).sum()
        }
        _ => 0,
    }
}

impl Recent {
    pub(super) fn new() -> Self {
        let cache =
            Cache::builder().max_capacity(BYTES).weigher(|_, record: &Arc<Record>| weight(record));
        Self { cache: cache.build(), reading: RwLock::new(()) }
    }

    /// What is kept of an image, or what `read` finds.
    pub(super) fn get(
        &self,
        id: ImageId,
        read: impl FnOnce() -> Result<Option<Record>>,
    ) -> Result<Option<Arc<Record>>> {
        if let Some(record) = self.cache.get(&id) {
            return Ok(Some(record));
        }
        let reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = read()?.map(Arc::new) else { return Ok(None) };
        self.cache.insert(id, Arc::clone(&record));
        drop(reading);
        Ok(Some(record))
    }

    /// Runs a commit that changes `ids`, after which none of them is kept.
    pub(super) fn forget<'a, T>(
        &self,
        ids: impl Iterator<Item = &'a ImageId>,
        commit: impl FnOnce() -> T,
    ) -> T {
        let done = commit();
        let _alone = self.reading.write().unwrap_or_else(PoisonError::into_inner);
        ids.for_each(|id| self.cache.invalidate(id));
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{ContentHash, FileStamp, Locator};

    fn record(width: u32) -> Record {
        Record {
            path: Locator::from_bytes(b"/a"),
            sha256: ContentHash::of(b"a"),
            stamp: FileStamp::default(),
            width,
            height: 1,
            warning: None,
            row: 0,
            payload: Default::default(),
        }
    }

    fn width(recent: &Recent, read: impl FnOnce() -> Result<Option<Record>>) -> Option<u32> {
        recent.get(ImageId(1), read).expect("read").map(|record| record.width)
    }

    #[test]
    fn a_record_is_read_once_until_a_commit_changes_it() {
        let recent = Recent::new();
        assert_eq!(width(&recent, || Ok(None)), None);
        assert_eq!(width(&recent, || Ok(Some(record(1)))), Some(1));
        assert_eq!(width(&recent, || unreachable!("kept")), Some(1));
        recent.forget([ImageId(2)].iter(), || ());
        assert_eq!(width(&recent, || unreachable!("kept")), Some(1));
        recent.forget([ImageId(1)].iter(), || ());
        assert_eq!(width(&recent, || Ok(Some(record(2)))), Some(2));
    }

    #[test]
    fn readers_beside_commits_never_see_less_than_the_last_commit_that_ended() {
        let (recent, stored, ended) = (Recent::new(), AtomicU32::new(1), AtomicU32::new(1));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while ended.load(Ordering::SeqCst) < 5_000 {
                        let at_least = ended.load(Ordering::SeqCst);
                        let read = || Ok(Some(record(stored.load(Ordering::SeqCst))));
                        let seen = width(&recent, read).expect("there");
                        assert!(seen >= at_least, "{seen} after commit {at_least}");
                    }
                });
            }
            for number in 2..=5_000 {
                recent.forget([ImageId(1)].iter(), || stored.store(number, Ordering::SeqCst));
                ended.store(number, Ordering::SeqCst);
            }
        });
    }
}
