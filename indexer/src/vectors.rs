//! Embeddings on disk: append-only shards of checksummed rows. They are the truth; every index is
//! derived from them.
//!
//! A shard is a 16-byte header (`AKINVEC1`, dimension as u32, precision as u32: 0 for f16, 1 for
//! f32) and rows of `[image id: u64][values][crc32 of both: u32]`, all little-endian. A row is named
//! by its position counted over all shards.

mod mapped;
mod shard;
mod rows;
mod inspect;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use serde::{Deserialize, Serialize};

pub(crate) use self::inspect::inspect;
pub(crate) use self::rows::{CopiedRows, Rows};
use self::shard::Shard;
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ImageId;

const HEADER_BYTES: u64 = 16;
/// Rows in a full shard: 200 MB at 384 f16 values.
const ROWS_PER_SHARD: u64 = 1 << 18;

/// How exactly stored embeddings are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Half precision: relative error below 5e-4 a value, half the space.
    #[default]
    F16,
    /// As computed.
    F32,
}

impl Precision {
    fn code(self) -> u32 {
        match self {
            Self::F16 => 0,
            Self::F32 => 1,
        }
    }

    /// Bytes of one value.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// Bytes of one row.
    const fn stride(self, dim: usize) -> usize {
        8 + self.bytes() * dim + 4
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

/// The vector shards of one collection, for their writer.
#[derive(Debug)]
pub(crate) struct Vectors {
    folder: Arc<Path>,
    dim: usize,
    precision: Precision,
    /// Rows in all shards, written or not.
    rows: u64,
    shards: Vec<Shard>,
}

impl Vectors {
    /// Opens all shards and cuts off what follows `rows`, which no commit knows of.
    pub(crate) fn open(folder: &Path, dim: usize, precision: Precision, rows: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).io("create", folder)?;
        let mut vectors =
            Self { folder: Arc::from(folder), dim, precision, rows: 0, shards: Vec::new() };
        loop {
            let path = vectors.shard_path(vectors.shards.len());
            // A shard begun after the last commit may lack even its header.
            if !path.exists() || vectors.rows >= rows {
                break;
            }
            let shard = Shard::open(&path, dim, precision)?;
            vectors.rows += shard.rows;
            vectors.shards.push(shard);
            let full = vectors.rows == vectors.shards.len() as u64 * ROWS_PER_SHARD;
            if !full && vectors.rows < rows {
                return Err(vectors.too_short(rows));
            }
        }
        if vectors.rows < rows {
            return Err(vectors.too_short(rows));
        }
        vectors.truncate(rows)?;
        Ok(vectors)
    }

    fn too_short(&self, rows: u64) -> IndexerError {
        let path = self.shard_path(self.shards.len().saturating_sub(1));
        let restore = crate::error::RESTORE;
        damaged(&path, format!("rows end at {} of {rows}; {restore}", self.rows))
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn shard_path(&self, index: usize) -> PathBuf {
        self.folder.join(shard_name(index, self.precision))
    }

    /// What is written, for readers.
    pub(crate) fn snapshot(&self) -> Rows {
        let pending = self.shards.iter().map(|shard| shard.pending.len()).sum::<usize>();
        Rows {
            folder: Arc::clone(&self.folder),
            dim: self.dim,
            precision: self.precision,
            shards: self.shards.iter().map(|shard| Arc::clone(&shard.map)).collect(),
            len: self.rows - (pending / self.precision.stride(self.dim)) as u64,
            resident_bytes: rows::RESIDENT_BYTES,
        }
    }

    /// Appends a row and gives its number. Not readable or durable before [`Self::sync`].
    pub(crate) fn append(&mut self, id: ImageId, embedding: &[f32]) -> Result<u64> {
        if embedding.len() != self.dim {
            return Err(IndexerError::Dimension { got: embedding.len(), expected: self.dim });
        }
        if self.rows > u64::from(u32::MAX) {
            return Err(IndexerError::InvalidRequest(format!(
                "a collection holds at most {} embeddings, old ones of changed images counted; \
                 `akin collection compact` drops those",
                u32::MAX
            )));
        }
        if self.rows == self.shards.len() as u64 * ROWS_PER_SHARD {
            let path = self.shard_path(self.shards.len());
            self.shards.push(Shard::create(&path, self.dim, self.precision)?);
            sync_folder(&self.folder)?;
        }
        let Some(shard) = self.shards.last_mut() else {
            return Err(damaged(&self.folder, "no shard to append to".to_owned()));
        };
        let start = shard.pending.len();
        shard.pending.extend(id.0.to_le_bytes());
        for &value in embedding {
            match self.precision {
                Precision::F16 => shard.pending.extend(f16::from_f32(value).to_le_bytes()),
                Precision::F32 => shard.pending.extend(value.to_le_bytes()),
            }
        }
        let crc = crc32fast::hash(&shard.pending[start..]);
        shard.pending.extend(crc.to_le_bytes());
        shard.rows += 1;
        self.rows += 1;
        Ok(self.rows - 1)
    }

    /// Writes appended rows out and makes them durable and readable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.shards.iter_mut().try_for_each(Shard::sync)
    }

    /// Drops rows at the end that nothing refers to.
    fn truncate(&mut self, rows: u64) -> Result<()> {
        self.rows = rows;
        let shards = rows.div_ceil(ROWS_PER_SHARD) as usize;
        self.shards.truncate(shards);
        let before = shards.saturating_sub(1) as u64 * ROWS_PER_SHARD;
        if let Some(shard) = self.shards.last_mut() {
            shard.truncate(rows - before)?;
        }
        for index in shards.. {
            let path = self.shard_path(index);
            if !path.exists() {
                return Ok(());
            }
            std::fs::remove_file(&path).io("remove", &path)?;
        }
        Ok(())
    }
}

/// Bytes of the shards that hold so many rows.
pub(crate) fn stored_bytes(dim: usize, precision: Precision, rows: u64) -> u64 {
    let headers = rows.div_ceil(ROWS_PER_SHARD) * HEADER_BYTES;
    rows.saturating_mul(precision.stride(dim) as u64).saturating_add(headers)
}

fn shard_name(index: usize, precision: Precision) -> String {
    format!("shard-{index:05}.{precision}")
}

fn damaged(path: &Path, reason: String) -> IndexerError {
    IndexerError::Damaged { path: path.to_path_buf(), reason }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use engine::Embedding;
    use engine::kernels::dot;

    use super::*;

    fn embedding(seed: u64) -> Embedding {
        let values = (0..70).map(|i| ((i * 31 + seed * 17) % 101) as f32 - 50.0).collect();
        Embedding::normalised(values).expect("finite and not zero")
    }

    fn filled(folder: &Path, precision: Precision, rows: u64) -> Result<Vectors> {
        let mut vectors = Vectors::open(folder, 70, precision, 0)?;
        for i in 0..rows {
            assert_eq!(vectors.append(ImageId(i + 10), embedding(i).as_slice())?, i);
        }
        vectors.sync()?;
        Ok(vectors)
    }

    #[test]
    fn rows_are_compared_alike_wherever_they_are() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        // Nine times what a view keeps in memory in unit tests.
        let rows = filled(folder.path(), Precision::F16, 4000)?.snapshot();
        let query = embedding(3);
        let wanted: Vec<u32> = (0..4000).map(|i| (i * 1237) % 4000).collect();
        let mut compared = Vec::new();
        rows.compare(query.as_slice(), &wanted, |row, id, similarity| {
            compared.push((row, id, similarity.to_bits()));
        })?;
        let expected = wanted.iter().map(|&row| {
            let similarity =
                dot(&rows.read(u64::from(row), ImageId(u64::from(row) + 10))?, query.as_slice());
            Ok((row, ImageId(u64::from(row) + 10), similarity))
        });
        let expected: Vec<_> = expected.collect::<Result<_>>()?;
        for (one, other) in compared.iter().zip(&expected) {
            assert_eq!((one.0, one.1), (other.0, other.1));
            assert!((f32::from_bits(one.2) - other.2).abs() < 1e-5);
        }
        assert_eq!(compared.len(), 4000);

        let shard = folder.path().join(shard_name(0, Precision::F16));
        let mut bytes = std::fs::read(&shard).expect("shard");
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        std::fs::write(&shard, bytes).expect("write");
        let damaged = Vectors::open(folder.path(), 70, Precision::F16, 4000)?.snapshot();
        let error = damaged.compare(query.as_slice(), &wanted, |_, _, _| {}).expect_err("damaged");
        assert!(error.to_string().contains("row 3999 fails its checksum"), "{error}");

        // What the disk does not give is named; mapped, it would end the process.
        let file = OpenOptions::new().write(true).open(&shard).expect("shard");
        file.set_len(300_000).expect("shortened");
        let error = rows.compare(query.as_slice(), &[3999], |_, _, _| {}).expect_err("cut off");
        assert!(error.to_string().contains("shard-00000.f16"), "{error}");
        Ok(())
    }

    #[test]
    fn rows_survive_reopening_and_a_torn_tail_is_cut() -> Result<()> {
        for precision in [Precision::F16, Precision::F32] {
            let folder = tempfile::tempdir().expect("temporary folder");
            drop(filled(folder.path(), precision, 5)?);
            let shard = folder.path().join(shard_name(0, precision));
            let mut file = OpenOptions::new().append(true).open(&shard).expect("shard");
            file.write_all(&[7; 533]).expect("append");
            // A later shard that was only begun.
            std::fs::write(folder.path().join(shard_name(1, precision)), b"AKIN").expect("write");

            let rows = Vectors::open(folder.path(), 70, precision, 5)?.snapshot();
            assert_eq!(rows.len(), 5);
            for i in 0..5 {
                let read = rows.read(i, ImageId(i + 10))?;
                let similarity = dot(&read, embedding(i).as_slice());
                assert!((similarity - 1.0).abs() < 1e-4, "{similarity}");
                if precision == Precision::F32 {
                    assert_eq!(read, embedding(i).as_slice());
                }
            }
            assert!(!folder.path().join(shard_name(1, precision)).exists());
        }
        Ok(())
    }

    #[test]
    fn a_flipped_byte_is_named_and_never_served() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        drop(filled(folder.path(), Precision::F16, 2)?);
        let shard = folder.path().join("shard-00000.f16");
        let mut bytes = std::fs::read(&shard).expect("shard");
        bytes[40] ^= 1;
        std::fs::write(&shard, bytes).expect("write");

        let rows = Vectors::open(folder.path(), 70, Precision::F16, 2)?.snapshot();
        let text = rows.read(0, ImageId(10)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("row 0 fails its checksum"), "{text}");
        assert!(rows.read(1, ImageId(11)).is_ok());
        let text = rows.read(1, ImageId(10)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("belongs to image 11, not to image 10"), "{text}");
        Ok(())
    }

    #[test]
    fn a_snapshot_sees_what_was_written_when_it_was_taken() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut vectors = filled(folder.path(), Precision::F16, 2)?;
        let before = vectors.snapshot();
        vectors.append(ImageId(12), embedding(2).as_slice())?;
        assert_eq!(vectors.snapshot().len(), 2, "pending rows are not read");
        vectors.sync()?;
        assert!(before.read(2, ImageId(12)).is_err());
        assert!(vectors.snapshot().read(2, ImageId(12)).is_ok());
        assert!(before.read(1, ImageId(11)).is_ok());
        Ok(())
    }

    #[test]
    fn opening_drops_rows_of_no_commit_and_refuses_missing_ones() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        drop(filled(folder.path(), Precision::F16, 4)?);
        let mut vectors = Vectors::open(folder.path(), 70, Precision::F16, 2)?;
        assert!(vectors.snapshot().read(2, ImageId(12)).is_err());
        assert_eq!(vectors.append(ImageId(9), embedding(9).as_slice())?, 2);
        vectors.sync()?;
        drop(vectors);
        let error = Vectors::open(folder.path(), 70, Precision::F16, 4).err();
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("rows end at 3 of 4"), "{text}");
        Ok(())
    }
}
