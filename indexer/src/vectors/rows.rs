//! Committed rows as readers see them: memory-mapped, immutable, cheap to clone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::kernels::{dot, dot_f16, prefetch};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use roaring::RoaringBitmap;

use super::mapped::Mapped;
use super::{HEADER_BYTES, Precision, ROWS_PER_SHARD, damaged, shard_name};
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ImageId;

/// Bytes of shards that one view keeps in this process's memory; more is let go and read again through the system's file
/// cache. All of a collection of 250,000 images of 384 f16 values, a quarter of one of a million.
pub(super) const RESIDENT_BYTES: usize = if cfg!(test) { 64 << 10 } else { 192 << 20 };
/// The same for a task that reads most rows many times over: 2.7 million of 384 f16 values.
const RESIDENT_BYTES_IN_BULK: usize = 2 << 30;

/// Some rows as they are stored, one after the other.
#[derive(Debug)]
pub(crate) struct CopiedRows {
    rows: Vec<u32>,
    bytes: Vec<u8>,
}

/// Rows `0..len` of a collection's shards.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(super) folder: Arc<Path>,
    pub(super) dim: usize,
    pub(super) precision: Precision,
    pub(super) shards: Vec<Arc<Mapped>>,
    pub(super) len: u64,
    /// Bytes of shards that are kept in memory.
    pub(super) resident_bytes: usize,
}

impl Rows {
    /// The same rows, of which more are kept in memory: for a task that reads most of them many times over.
    pub(crate) fn in_bulk(&self) -> Self {
        Self { resident_bytes: RESIDENT_BYTES_IN_BULK, ..self.clone() }
    }

    /// Number of rows, dead ones too.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Values in a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// The image a row was written for, without checking the row's checksum.
    pub(crate) fn id(&self, row: u64) -> Result<ImageId> {
        Ok(id_in(self.bytes(row)?))
    }

    /// Image and embedding of a row, after checking its checksum.
    pub(crate) fn checked(&self, row: u64) -> Result<(ImageId, Vec<f32>)> {
        let bytes = self.checked_bytes(row)?;
        let mut values = vec![0.0; self.dim];
        self.decode(bytes, &mut values);
        Ok((self.id(row)?, values))
    }

    /// Similarity of a query with each of `rows` and the image it was written for, after checking checksums.
    pub(crate) fn compare(
        &self,
        query: &[f32],
        rows: &[u32],
        mut visit: impl FnMut(u32, ImageId, f32),
    ) -> Result<()> {
        // Rows lie all over the shards: those to come are asked for while one is compared.
        const AHEAD: usize = 4;
        let fetch = |row: Option<&u32>| {
            row.and_then(|&row| self.mapped(u64::from(row))).into_iter().for_each(prefetch);
        };
        rows.iter().take(AHEAD).for_each(|row| fetch(Some(row)));
        let mut buffer = Vec::new();
        for (i, &row) in rows.iter().enumerate() {
            fetch(rows.get(i + AHEAD));
            let bytes = self.verified(u64::from(row), self.near_at_hand(row, &mut buffer)?)?;
            visit(row, id_in(bytes), self.product(query, bytes));
        }
        Ok(())
    }

    /// The bytes of one row of many that lie all over a collection: where the shards have their share of memory already,
    /// they are copied, which costs less than mapping a page, letting another go, and telling the other cores.
    fn near_at_hand<'a>(&'a self, row: u32, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let row = u64::from(row);
        if self.mapped(row).is_none()
            && self.resident() >= self.resident_bytes
            && let Some((shard, start, stride)) = self.place(row)
        {
            buffer.resize(stride, 0);
            match shard.copy(start, buffer) {
                Some(Ok(())) => return Ok(buffer),
                Some(error) => error.io("read", &self.shard_path(row))?,
                None => {}
            }
        }
        self.bytes(row)
    }

    /// The bytes of a row, if they are in memory already.
    fn mapped(&self, row: u64) -> Option<&[u8]> {
        let (shard, start, stride) = self.place(row)?;
        if shard.is_touched(start) { shard.get(start..start + stride) } else { None }
    }

    /// Dot product with the values of a row, without widening them into memory where they are halves.
    fn product(&self, query: &[f32], row: &[u8]) -> f32 {
        if let (Precision::F16, true) = (self.precision, cfg!(target_endian = "little"))
            && let Ok(bits) = bytemuck::try_cast_slice::<u8, u16>(&row[8..row.len() - 4])
        {
            return dot_f16(query, bits);
        }
        let mut values = vec![0.0; self.dim];
        self.decode(row, &mut values);
        dot(query, &values)
    }

    /// The values of a row as they are stored, little-endian, after checking its checksum and that
    /// it belongs to `id`.
    pub(crate) fn stored(&self, row: u64, id: ImageId) -> Result<&[u8]> {
        let bytes = self.checked_bytes(row)?;
        match self.id(row)? {
            found if found == id => Ok(&bytes[8..bytes.len() - 4]),
            found => Err(self.of_another(row, found, id)),
        }
    }

    fn checked_bytes(&self, row: u64) -> Result<&[u8]> {
        self.verified(row, self.bytes(row)?)
    }

    /// The bytes of a row, if its checksum is right.
    fn verified<'a>(&self, row: u64, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(damaged(
                &self.shard_path(row),
                format!("row {row} fails its checksum; run `akin collection check --repair`"),
            ));
        }
        Ok(bytes)
    }

    /// The file that a row is in.
    fn shard_path(&self, row: u64) -> PathBuf {
        self.folder.join(shard_name((row / ROWS_PER_SHARD) as usize, self.precision))
    }

    fn of_another(&self, row: u64, found: ImageId, id: ImageId) -> IndexerError {
        damaged(&self.folder, format!("row {row} belongs to image {found}, not to image {id}"))
    }

    /// The embedding of a row, after checking its checksum and that it belongs to `id`.
    pub(crate) fn read(&self, row: u64, id: ImageId) -> Result<Vec<f32>> {
        match self.checked(row)? {
            (found, values) if found == id => Ok(values),
            (found, _) => Err(self.of_another(row, found, id)),
        }
    }

    /// Dot product of a query with each of `rows`, without checking checksums.
    pub(crate) fn dot_products(
        &self,
        query: &[f32],
        rows: impl Iterator<Item = u32>,
        mut visit: impl FnMut(u32, f32),
    ) -> Result<()> {
        for row in rows {
            visit(row, self.product(query, self.bytes(u64::from(row))?));
        }
        Ok(())
    }

    /// A copy of `rows`, without checking checksums.
    pub(crate) fn copy_of(&self, rows: &RoaringBitmap) -> Result<CopiedRows> {
        let mut bytes = Vec::with_capacity(rows.len() as usize * self.precision.stride(self.dim));
        for row in rows {
            bytes.extend(self.bytes(u64::from(row))?);
        }
        Ok(CopiedRows { rows: rows.iter().collect(), bytes })
    }

    /// [`dot_products`](Self::dot_products) with rows that were copied from here.
    pub(crate) fn dot_products_of(
        &self,
        query: &[f32],
        copied: &CopiedRows,
        mut visit: impl FnMut(u32, f32),
    ) {
        let each = copied.bytes.chunks_exact(self.precision.stride(self.dim));
        copied
            .rows
            .iter()
            .zip(each)
            .for_each(|(&row, bytes)| visit(row, self.product(query, bytes)));
    }

    /// Embeddings of `rows`, one after the other, without checking checksums.
    pub(crate) fn gather(&self, rows: impl Iterator<Item = u32>) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        for row in rows {
            let start = out.len();
            out.resize(start + self.dim, 0.0);
            self.decode(self.bytes(u64::from(row))?, &mut out[start..]);
        }
        Ok(out)
    }

    /// Shard of a row, where in it the row starts, and its length in bytes; none for a row that is missing.
    fn place(&self, row: u64) -> Option<(&Mapped, usize, usize)> {
        let stride = self.precision.stride(self.dim);
        let start = HEADER_BYTES as usize + (row % ROWS_PER_SHARD) as usize * stride;
        let shard = self.shards.get((row / ROWS_PER_SHARD) as usize).filter(|_| row < self.len)?;
        (start + stride <= shard.len()).then_some((&**shard, start, stride))
    }

    fn bytes(&self, row: u64) -> Result<&[u8]> {
        let place = self.place(row);
        let found =
            place.and_then(|(map, start, len)| Some((map, start, map.get(start..start + len)?)));
        let Some((shard, start, bytes)) = found else {
            return Err(damaged(&self.folder, format!("row {row} is missing")));
        };
        if shard.touch(start) && self.resident() > self.resident_bytes {
            let fullest = self.shards.iter().max_by_key(|map| map.resident());
            fullest.into_iter().for_each(|map| map.let_some_go());
        }
        Ok(bytes)
    }

    /// About how many bytes of the shards are in this process's memory.
    fn resident(&self) -> usize {
        self.shards.iter().map(|map| map.resident()).sum()
    }

    fn decode(&self, row: &[u8], values: &mut [f32]) {
        let body = &row[8..row.len() - 4];
        match self.precision {
            Precision::F32 => {
                for (value, bytes) in values.iter_mut().zip(body.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Precision::F16 => match bytemuck::try_cast_slice::<u8, u16>(body) {
                // Rows start at even addresses, so that this is the usual way.
                Ok(bits) if cfg!(target_endian = "little") => {
                    bits.reinterpret_cast::<f16>().convert_to_f32_slice(values);
                }
                _ => {
                    for (value, bytes) in values.iter_mut().zip(body.as_chunks::<2>().0) {
                        *value = f16::from_le_bytes(*bytes).to_f32();
                    }
                }
            },
        }
    }
}

fn id_in(row: &[u8]) -> ImageId {
    ImageId(row.first_chunk::<8>().map_or(u64::MAX, |id| u64::from_le_bytes(*id)))
}
