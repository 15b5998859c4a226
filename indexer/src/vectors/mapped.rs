//! A shard as readers see it: mapped, with the number of its pages that are in memory bounded.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

use crate::error::{IoContext, Result};

/// What Linux maps around a page that is asked for (`fault_around_bytes`).
const REGION: usize = 64 << 10;

/// A file mapped for reading.
#[derive(Debug)]
pub(super) struct Mapped {
    map: Mmap,
    /// One bit for each region that was read since it was last let go.
    touched: Box<[AtomicU64]>,
    /// Bits set.
    regions: AtomicUsize,
}

impl Mapped {
    pub(super) fn new(file: &File, path: &Path) -> Result<Arc<Self>> {
        // SAFETY: rows are only ever appended, and a shard is shortened only while it is opened, before
        // there are views of it, by the one process that holds the collection's lock.
        #[expect(unsafe_code, reason = "shards are memory-mapped; see SAFETY")]
        let map = unsafe { Mmap::map(file) }.io("map", path)?;
        Ok(Self::of(map))
    }

    /// In place of a shard that is not there.
    pub(super) fn nothing(path: &Path) -> Result<Arc<Self>> {
        let map = MmapOptions::new().len(1).map_anon().and_then(|map| map.make_read_only());
        Ok(Self::of(map.io("map", path)?))
    }

    fn of(map: Mmap) -> Arc<Self> {
        let words = map.len().div_ceil(REGION * 64);
        let touched = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Arc::new(Self { map, touched, regions: AtomicUsize::new(0) })
    }

    /// Notes that the byte at `offset` is read; true when nothing near it was read before.
    pub(super) fn touch(&self, offset: usize) -> bool {
        let region = offset / REGION;
        let Some(word) = self.touched.get(region / 64) else { return false };
        let bit = 1u64 << (region % 64);
        // A plain load first: nearly always the bit is set, and a line that is only read is not fought over.
        if word.load(Ordering::Relaxed) & bit != 0
            || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            return false;
        }
        self.regions.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// About how many bytes of it are in this process's memory.
    pub(super) fn resident(&self) -> usize {
        self.regions.load(Ordering::Relaxed) * REGION
    }

    /// Takes its pages out of this process's memory. They stay in the system's file cache while there is room, and
    /// come back when read.
    pub(super) fn let_go(&self) {
        self.touched.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.regions.store(0, Ordering::Relaxed);
        // SAFETY: the mapping is read-only and of a file, so that a page dropped is read again with the same bytes,
        // also by those who hold slices of it now.
        #[expect(unsafe_code, reason = "see SAFETY")]
        let advised = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // Only a hint: whoever refuses it keeps more in memory.
        drop(advised);
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_counted_once_and_let_go() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("shard");
        std::fs::write(&path, vec![7; 100 * REGION + 5]).expect("write");
        let map = Mapped::new(&File::open(&path).expect("open"), &path)?;
        assert!(
            map.touch(0) && !map.touch(REGION - 1) && map.touch(REGION) && map.touch(100 * REGION)
        );
        assert_eq!(map.resident(), 3 * REGION);
        let held = &map[70 * REGION..];
        map.let_go();
        assert_eq!(map.resident(), 0);
        assert!(held.iter().all(|&byte| byte == 7) && map.touch(0));
        Ok(())
    }
}
