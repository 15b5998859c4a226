//! Embeddings on disk: append-only shards of checksummed f16 rows. They are the truth; every
//! index is derived from them.
//!
//! A shard is a 16-byte header (`AKINVEC1`, dimension as u32, reserved u32) and rows of
//! `[image id: u64][values: f16 x dim][crc32 of both: u32]`, all little-endian. A row is named by
//! its position counted over all shards.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use engine::Embedding;
use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;

use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ImageId;

const MAGIC: &[u8; 8] = b"AKINVEC1";
const HEADER_BYTES: u64 = 16;
/// Rows in a full shard: 200 MB at 384 dimensions.
const ROWS_PER_SHARD: u64 = 1 << 18;

/// The vector shards of one collection.
#[derive(Debug)]
pub(crate) struct Vectors {
    folder: PathBuf,
    dim: usize,
    /// Rows in all shards, flushed or not.
    rows: u64,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    rows: u64,
    /// Covers the rows that existed when it was made; remade on demand.
    map: Option<Mmap>,
    /// Rows appended but not yet written.
    pending: Vec<u8>,
}

impl Vectors {
    /// Opens all shards; a torn last row is cut off.
    pub(crate) fn open(folder: &Path, dim: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).io("create", folder)?;
        let mut vectors = Self { folder: folder.to_path_buf(), dim, rows: 0, shards: Vec::new() };
        loop {
            let path = vectors.shard_path(vectors.shards.len());
            if !path.exists() {
                return Ok(vectors);
            }
            let shard = Shard::open(&path, dim)?;
            let full = vectors.shards.last().is_none_or(|last| last.rows == ROWS_PER_SHARD);
            if !full {
                return Err(damaged(&path, "a shard before it is not full".to_owned()));
            }
            vectors.rows += shard.rows;
            vectors.shards.push(shard);
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn shard_path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("shard-{index:05}.f16"))
    }

    /// Appends a row and gives its number. Not readable or durable before [`Self::sync`].
    pub(crate) fn append(&mut self, id: ImageId, embedding: &Embedding) -> Result<u64> {
        if embedding.dim() != self.dim {
            return Err(IndexerError::Dimension { got: embedding.dim(), expected: self.dim });
        }
        if self.shards.last().is_none_or(|last| last.rows == ROWS_PER_SHARD) {
            let path = self.shard_path(self.shards.len());
            self.shards.push(Shard::create(&path, self.dim)?);
            sync_folder(&self.folder)?;
        }
        let Some(shard) = self.shards.last_mut() else {
            return Err(damaged(&self.folder, "no shard to append to".to_owned()));
        };
        let start = shard.pending.len();
        shard.pending.extend(id.0.to_le_bytes());
        shard.pending.extend(
            embedding.as_slice().iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()),
        );
        let crc = crc32fast::hash(&shard.pending[start..]);
        shard.pending.extend(crc.to_le_bytes());
        shard.rows += 1;
        self.rows += 1;
        Ok(self.rows - 1)
    }

    /// Writes appended rows out and makes them durable and readable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.shards.iter_mut().try_for_each(|shard| shard.sync(self.dim))
    }

    /// Drops rows at the end that nothing refers to.
    pub(crate) fn truncate(&mut self, rows: u64) -> Result<()> {
        while self.rows > rows {
            let Some(shard) = self.shards.last_mut() else { break };
            let excess = (self.rows - rows).min(shard.rows);
            self.rows -= excess;
            shard.truncate(shard.rows - excess, self.dim)?;
            if shard.rows == 0 {
                let path = shard.path.clone();
                self.shards.pop();
                std::fs::remove_file(&path).io("remove", &path)?;
            }
        }
        Ok(())
    }

    /// The embedding of a row, after checking its checksum and that it belongs to `id`.
    pub(crate) fn read(&self, row: u64, id: ImageId) -> Result<Vec<f32>> {
        let bytes = self.row_bytes(row)?;
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        let shard = &self.shards[(row / ROWS_PER_SHARD) as usize];
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(damaged(&shard.path, format!("row {row} fails its checksum")));
        }
        if body[..8] != id.0.to_le_bytes() {
            return Err(damaged(&shard.path, format!("row {row} does not belong to image {id}")));
        }
        let mut values = vec![0.0; self.dim];
        decode_row(bytes, &mut values);
        Ok(values)
    }

    /// Dot product of a query with each of `rows`, without checking checksums.
    pub(crate) fn dot_products(
        &self,
        query: &[f32],
        rows: impl Iterator<Item = u64>,
        mut visit: impl FnMut(u64, f32),
    ) -> Result<()> {
        let mut values = vec![0.0; self.dim];
        for row in rows {
            decode_row(self.row_bytes(row)?, &mut values);
            visit(row, dot(query, &values));
        }
        Ok(())
    }

    fn row_bytes(&self, row: u64) -> Result<&[u8]> {
        let shard = self.shards.get((row / ROWS_PER_SHARD) as usize);
        let stride = stride(self.dim);
        let start = HEADER_BYTES as usize + (row % ROWS_PER_SHARD) as usize * stride;
        shard
            .and_then(|shard| shard.map.as_ref()?.get(start..start + stride))
            .ok_or_else(|| damaged(&self.folder, format!("row {row} is missing")))
    }
}

impl Shard {
    fn create(path: &Path, dim: usize) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .io("create", path)?;
        let mut header = Vec::from(MAGIC);
        header.extend((dim as u32).to_le_bytes());
        header.extend([0; 4]);
        file.write_all(&header).io("write", path)?;
        Ok(Self { path: path.to_path_buf(), file, rows: 0, map: None, pending: Vec::new() })
    }

    fn open(path: &Path, dim: usize) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).io("open", path)?;
        let length = file.metadata().io("read", path)?.len();
        let mut header = [0u8; HEADER_BYTES as usize];
        file.read_exact(&mut header).io("read the header of", path)?;
        if &header[..8] != MAGIC {
            return Err(damaged(path, "it does not start like a vector shard".to_owned()));
        }
        if header[8..12] != (dim as u32).to_le_bytes() {
            return Err(damaged(path, format!("its rows do not have {dim} values")));
        }
        let rows = (length - HEADER_BYTES) / stride(dim) as u64;
        let mut shard =
            Self { path: path.to_path_buf(), file, rows, map: None, pending: Vec::new() };
        shard.truncate(rows, dim)?;
        Ok(shard)
    }

    fn truncate(&mut self, rows: u64, dim: usize) -> Result<()> {
        let length = HEADER_BYTES + rows * stride(dim) as u64;
        self.map = None;
        if self.file.metadata().io("read", &self.path)?.len() != length {
            self.file.set_len(length).io("truncate", &self.path)?;
        }
        self.rows = rows;
        self.remap()
    }

    fn sync(&mut self, dim: usize) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Written at the place the rows belong, so that a try after a failed one (a full disk)
        // overwrites what that left behind.
        let start = HEADER_BYTES + self.rows * stride(dim) as u64 - self.pending.len() as u64;
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.write_all(&self.pending))
            .and_then(|()| self.file.sync_data())
            .io("write", &self.path)?;
        self.pending.clear();
        self.remap()
    }

    fn remap(&mut self) -> Result<()> {
        // SAFETY: rows are only ever appended, and a shard is shortened only here after its map
        // was dropped, by the one process that holds the collection's lock.
        #[expect(unsafe_code, reason = "shards are memory-mapped; see SAFETY")]
        let map = unsafe { Mmap::map(&self.file) }.io("map", &self.path)?;
        self.map = Some(map);
        Ok(())
    }
}

/// Bytes of one row.
const fn stride(dim: usize) -> usize {
    8 + 2 * dim + 4
}

fn decode_row(row: &[u8], values: &mut [f32]) {
    let mut halves = [f16::ZERO; 64];
    let body = &row[8..row.len() - 4];
    for (bytes, out) in body.chunks(2 * halves.len()).zip(values.chunks_mut(halves.len())) {
        for (half, pair) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*pair);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

/// Sum of products in eight lanes, which compilers turn into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

fn damaged(path: &Path, reason: String) -> IndexerError {
    IndexerError::Damaged { path: path.to_path_buf(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(seed: u64) -> Embedding {
        let values = (0..70).map(|i| ((i * 31 + seed * 17) % 101) as f32 - 50.0).collect();
        Embedding::normalised(values).expect("finite and not zero")
    }

    #[test]
    fn rows_survive_reopening_and_a_torn_tail_is_cut() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut vectors = Vectors::open(folder.path(), 70)?;
        for i in 0..5 {
            assert_eq!(vectors.append(ImageId(i + 10), &embedding(i))?, i);
        }
        vectors.sync()?;
        let shard = folder.path().join("shard-00000.f16");
        let mut file = OpenOptions::new().append(true).open(&shard).expect("shard");
        file.write_all(&[7; 33]).expect("append");
        drop(vectors);

        let vectors = Vectors::open(folder.path(), 70)?;
        assert_eq!(vectors.rows(), 5);
        for i in 0..5 {
            let read = vectors.read(i, ImageId(i + 10))?;
            let similarity = dot(&read, embedding(i).as_slice());
            assert!((similarity - 1.0).abs() < 1e-4, "{similarity}");
        }
        Ok(())
    }

    #[test]
    fn a_flipped_byte_is_named_and_never_served() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut vectors = Vectors::open(folder.path(), 70)?;
        vectors.append(ImageId(1), &embedding(1))?;
        vectors.sync()?;
        drop(vectors);
        let shard = folder.path().join("shard-00000.f16");
        let mut bytes = std::fs::read(&shard).expect("shard");
        bytes[40] ^= 1;
        std::fs::write(&shard, bytes).expect("write");

        let error = Vectors::open(folder.path(), 70)?.read(0, ImageId(1)).err();
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("row 0 fails its checksum"), "{text}");
        Ok(())
    }

    #[test]
    fn truncating_drops_only_the_tail() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut vectors = Vectors::open(folder.path(), 70)?;
        for i in 0..4 {
            vectors.append(ImageId(i), &embedding(i))?;
        }
        vectors.sync()?;
        vectors.truncate(2)?;
        assert!(vectors.read(1, ImageId(1)).is_ok());
        assert!(vectors.read(2, ImageId(2)).is_err());
        assert_eq!(vectors.append(ImageId(9), &embedding(9))?, 2);
        Ok(())
    }
}
