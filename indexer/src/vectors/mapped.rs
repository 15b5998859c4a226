//! A shard as readers see it: mapped, with the number of its pages that are in memory bounded.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

use crate::error::{IoContext, Result};

/// What Linux maps around a page that is asked for (`fault_around_bytes`), at multiples of it in the address space.
const REGION: usize = 64 << 10;

/// A file mapped for reading.
#[derive(Debug)]
pub(super) struct Mapped {
    map: Mmap,
    /// The file, to read from without mapping more of it.
    file: Option<File>,
    /// Bytes between the start of the first region and the map's: regions are aligned, the map need not be.
    skew: usize,
    /// One bit for each region that was read since it was last let go.
    touched: Box<[AtomicU64]>,
    /// Bits set.
    regions: AtomicUsize,
    /// Which word of bits is let go next.
    hand: AtomicUsize,
}

impl Mapped {
    pub(super) fn new(file: &File, path: &Path) -> Result<Arc<Self>> {
        // SAFETY: rows are only ever appended, and a shard is shortened only while it is opened, before
        // there are views of it, by the one process that holds the collection's lock.
        #[expect(unsafe_code, reason = "shards are memory-mapped; see SAFETY")]
        let map = unsafe { Mmap::map(file) }.io("map", path)?;
        let file = file.try_clone().io("open once more", path)?;
        Ok(Self::of(map, Some(file)))
    }

    /// In place of a shard that is not there.
    pub(super) fn nothing(path: &Path) -> Result<Arc<Self>> {
        let map = MmapOptions::new().len(1).map_anon().and_then(|map| map.make_read_only());
        Ok(Self::of(map.io("map", path)?, None))
    }

    fn of(map: Mmap, file: Option<File>) -> Arc<Self> {
        let skew = map.as_ptr() as usize % REGION;
        let words = (map.len() + skew).div_ceil(REGION * 64);
        let touched = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Arc::new(Self {
            map,
            file,
            skew,
            touched,
            regions: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        })
    }

    /// Notes that the byte at `offset` is read; true when nothing near it was read before.
    pub(super) fn touch(&self, offset: usize) -> bool {
        let region = (self.skew + offset) / REGION;
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

    /// Whether something near the byte at `offset` was read and not let go since.
    pub(super) fn is_touched(&self, offset: usize) -> bool {
        let region = (self.skew + offset) / REGION;
        let word = self.touched.get(region / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (region % 64)) != 0)
    }

    /// Copies bytes of the file without mapping them; `None` where there is no way to.
    ///
    /// A disk that cannot read them is an error here, where mapped bytes would end the process.
    pub(super) fn copy(&self, offset: usize, into: &mut [u8]) -> Option<std::io::Result<()>> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileExt;
            self.file.as_ref().map(|file| file.read_exact_at(into, offset as u64))
        }
        #[cfg(not(unix))]
        {
            let _ = (offset, into, &self.file);
            None
        }
    }

    /// About how many bytes of it are in this process's memory.
    pub(super) fn resident(&self) -> usize {
        self.regions.load(Ordering::Relaxed) * REGION
    }

    /// Takes some of its pages, at most 4 MiB, out of this process's memory: a few at a time, since unmapping holds up
    /// the one search that does it. They stay in the system's file cache while there is room, and come back when read.
    pub(super) fn let_some_go(&self) {
        for _ in 0..self.touched.len() {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % self.touched.len();
            let regions = self.touched[at].swap(0, Ordering::Relaxed).count_ones() as usize;
            if regions == 0 {
                continue;
            }
            self.regions.fetch_sub(regions, Ordering::Relaxed);
            let start = (at * REGION * 64).saturating_sub(self.skew);
            let end = ((at + 1) * REGION * 64 - self.skew).min(self.map.len());
            // SAFETY: the mapping is read-only and of a file, so that a page dropped is read again with the same
            // bytes, also by those who hold slices of it now.
            #[expect(unsafe_code, reason = "see SAFETY")]
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
            // Only a hint: whoever refuses it keeps more in memory.
            drop(advised);
            return;
        }
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
        // Offsets at which regions begin, wherever the system put the map.
        let first = REGION - map.skew;
        let offsets = [first, first + REGION - 1, first + REGION, first + 90 * REGION];
        let touched = offsets.map(|offset| map.touch(offset));
        assert_eq!(touched, [true, false, true, true]);
        assert_eq!(map.resident(), 3 * REGION);
        let held = &map[..];
        // The first 64 regions, then those after them, then nothing.
        for left in [REGION, 0, 0] {
            map.let_some_go();
            assert_eq!(map.resident(), left);
        }
        assert!(held.iter().all(|&byte| byte == 7));
        assert!(!map.is_touched(first) && map.touch(first) && map.is_touched(first));
        Ok(())
    }

    #[test]
    #[cfg(unix)]
    fn bytes_are_copied_without_being_mapped() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("shard");
        std::fs::write(&path, [1, 2, 3, 4, 5]).expect("write");
        let map = Mapped::new(&File::open(&path).expect("open"), &path)?;
        let mut bytes = [0; 3];
        assert!(matches!(map.copy(1, &mut bytes), Some(Ok(()))));
        assert_eq!((bytes, map.resident()), ([2, 3, 4], 0));
        assert!(matches!(map.copy(3, &mut bytes), Some(Err(_))), "past the end");
        assert!(Mapped::nothing(&path)?.copy(0, &mut bytes).is_none());
        Ok(())
    }
}
