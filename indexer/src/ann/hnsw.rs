//! Approximate search: HNSW by usearch. This is the only file that names that library.
//!
//! Its safe-looking calls can crash the process when adding races with searching, when more
//! threads search than were reserved, or when a damaged file is loaded. Here adding needs `&mut`,
//! searching takes a permit, and a snapshot is loaded only after its checksum was verified.

use std::path::Path;

use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ImageId;
use crate::vectors::Vectors;

const MAGIC: &[u8; 8] = b"AKINHNSW";
/// Links per node (M); measured to give recall@10 of 0.997 at 200k rows with the two below.
const M: usize = 16;
const EF_CONSTRUCTION: usize = 128;
/// Smallest beam of a search; wider when more neighbours are asked for.
const EF_SEARCH: usize = 64;

/// A graph over rows `0..rows`, of which only those given to [`extend`](Self::extend) are in it.
pub(crate) struct Hnsw {
    index: Index,
    /// Rows up to here have been offered to the index.
    rows: u64,
    /// One token per thread the library has reserved working memory for.
    permits: (Sender<()>, Receiver<()>),
    threads: usize,
}

impl std::fmt::Debug for Hnsw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hnsw").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// What a snapshot says about itself. The file is the magic, the length of this header as u32,
/// the header as JSON, the library's own bytes, and the CRC-32 of all of that.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    dim: usize,
    m: usize,
    rows: u64,
}

impl Hnsw {
    /// An empty index.
    pub(crate) fn new(dim: usize) -> Result<Self> {
        let options = IndexOptions {
            dimensions: dim,
            metric: MetricKind::IP,
            quantization: ScalarKind::F16,
            connectivity: M,
            expansion_add: EF_CONSTRUCTION,
            expansion_search: EF_SEARCH,
            multi: false,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = crossbeam_channel::bounded(threads);
        for _ in 0..threads {
            permits.0.send(()).map_err(|error| ann(&error))?;
        }
        let index = Index::new(&options).map_err(|error| ann(&error))?;
        Ok(Self { index, rows: 0, permits, threads })
    }

    /// Rows the index has caught up with.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds live rows, in ascending order, and notes that everything before `end` is done.
    ///
    /// Rows go in on one thread: the library's parallel insertion leaves some unreachable
    /// (unum-cloud/usearch#735).
    pub(crate) fn extend(
        &mut self,
        vectors: &Vectors,
        rows: impl Iterator<Item = (u64, ImageId)>,
        end: u64,
    ) -> Result<()> {
        let new: Vec<_> = rows.collect();
        self.index
            .reserve_capacity_and_threads(self.index.size() + new.len(), self.threads)
            .map_err(|error| ann(&error))?;
        for (row, id) in new {
            self.index.add(row, &vectors.read(row, id)?).map_err(|error| ann(&error))?;
        }
        self.rows = end;
        Ok(())
    }

    /// About the `k` rows nearest to a unit-length query, in no guaranteed order.
    pub(crate) fn candidates(&self, query: &[f32], k: usize) -> Result<Vec<u64>> {
        if self.index.size() == 0 {
            return Ok(Vec::new());
        }
        self.permits.1.recv().map_err(|error| ann(&error))?;
        let found = self.index.search(query, k);
        self.permits.0.send(()).map_err(|error| ann(&error))?;
        let found = found.map_err(|error| ann(&error))?;
        // The library's mark for an emptied slot; never one of our rows.
        Ok(found.keys.into_iter().filter(|&row| row != u64::MAX).collect())
    }

    /// Writes a snapshot, replacing the file atomically.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut payload = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut payload).map_err(|error| ann(&error))?;
        let header = Header { dim: self.index.dimensions(), m: M, rows: self.rows };
        let header = serde_json::to_vec(&header).map_err(|error| ann(&error))?;
        let length = (header.len() as u32).to_le_bytes();
        let parts: [&[u8]; 4] = [MAGIC, &length, &header, &payload];
        let mut crc = crc32fast::Hasher::new();
        parts.iter().for_each(|part| crc.update(part));
        let crc = crc.finalize().to_le_bytes();
        replace_file(path, |file| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.write_all(&crc)
        })
    }

    /// Reads a snapshot back; `None` when it is absent, damaged, or of other parameters, in which
    /// case the index is to be built anew.
    pub(crate) fn load(path: &Path, dim: usize) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).io("read", path),
        };
        let Some((header, payload)) = checked_parts(&bytes) else { return Ok(None) };
        if header.dim != dim || header.m != M {
            return Ok(None);
        }
        let mut hnsw = Self::new(dim)?;
        hnsw.index.load_from_buffer(payload).map_err(|error| ann(&error))?;
        // Loading sizes the thread pool to the number of cores and forgets the beam widths.
        hnsw.index
            .reserve_capacity_and_threads(hnsw.index.size(), hnsw.threads)
            .map_err(|error| ann(&error))?;
        hnsw.index.change_expansion_add(EF_CONSTRUCTION);
        hnsw.index.change_expansion_search(EF_SEARCH);
        hnsw.rows = header.rows;
        Ok(Some(hnsw))
    }
}

fn checked_parts(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body).to_le_bytes() != *crc {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (header, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(header).ok()?, payload))
}

fn ann(error: &dyn std::fmt::Display) -> IndexerError {
    IndexerError::Ann { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use engine::Embedding;

    use super::*;
    use crate::ann::exact;

    const DIM: usize = 48;

    fn embedding(seed: u64) -> Embedding {
        // A cheap integer hash gives well-spread directions.
        let values = (0..DIM as u64).map(|i| {
            let mut h = (seed * 1_000_003 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            h ^= h >> 31;
            (h % 2001) as f32 - 1000.0
        });
        Embedding::normalised(values.collect()).expect("finite and not zero")
    }

    fn filled(folder: &Path, rows: u64) -> (Vectors, Hnsw) {
        let mut vectors = Vectors::open(folder, DIM).expect("open");
        for row in 0..rows {
            vectors.append(ImageId(row), &embedding(row)).expect("append");
        }
        vectors.sync().expect("sync");
        let mut hnsw = Hnsw::new(DIM).expect("new");
        let all = (0..rows).map(|row| (row, ImageId(row)));
        hnsw.extend(&vectors, all, rows).expect("extend");
        (vectors, hnsw)
    }

    #[test]
    fn recall_against_exact_search_and_again_after_a_round_trip() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (vectors, hnsw) = filled(&folder.path().join("vectors"), 2000);
        let snapshot = folder.path().join("gen.hnsw");
        hnsw.save(&snapshot).expect("save");
        let loaded = Hnsw::load(&snapshot, DIM).expect("load").expect("sound");
        assert_eq!(loaded.rows(), 2000);

        let rows: Vec<u64> = (0..2000).collect();
        for index in [&hnsw, &loaded] {
            let mut found = 0;
            for query in 0..50 {
                let query = embedding(10_000 + query);
                let truth = exact(&vectors, &rows, query.as_slice(), 10).expect("exact");
                let rows = index.candidates(query.as_slice(), 100).expect("candidates");
                found += truth.iter().filter(|hit| rows.contains(&hit.row)).count();
            }
            assert!(found >= 475, "recall@10 {}", found as f64 / 500.0);
        }
    }

    #[test]
    fn a_damaged_snapshot_is_not_loaded() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (_, hnsw) = filled(&folder.path().join("vectors"), 50);
        let snapshot = folder.path().join("gen.hnsw");
        hnsw.save(&snapshot).expect("save");
        let sound = std::fs::read(&snapshot).expect("read");
        for at in [0, 9, 20, sound.len() / 2, sound.len() - 1] {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&snapshot, &bytes).expect("write");
            assert!(Hnsw::load(&snapshot, DIM).expect("load").is_none(), "byte {at}");
        }
        std::fs::write(&snapshot, &sound[..sound.len() - 7]).expect("write");
        assert!(Hnsw::load(&snapshot, DIM).expect("load").is_none());
        assert!(Hnsw::load(&folder.path().join("absent"), DIM).expect("load").is_none());
    }

    #[test]
    fn more_searching_threads_than_permits_wait_instead_of_failing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (_, hnsw) = filled(folder.path(), 200);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32)
                .map(|t| {
                    let hnsw = &hnsw;
                    scope.spawn(move || {
                        (0..50).all(|q| {
                            let query = embedding(t * 50 + q);
                            hnsw.candidates(query.as_slice(), 5).is_ok_and(|rows| rows.len() == 5)
                        })
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap_or(false)));
        });
    }
}
