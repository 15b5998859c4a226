//! One shard file: appended to by the writer, mapped by readers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mapped::Mapped;
use super::{HEADER_BYTES, Precision, damaged};
use crate::error::{IoContext, Result};

const MAGIC: &[u8; 8] = b"AKINVEC1";

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    file: File,
    /// Rows, written or pending.
    pub(super) rows: u64,
    stride: u64,
    /// Covers the rows that existed when it was made; remade after every write. Views keep the old
    /// ones, which stay valid, as a shard only grows while views of it exist.
    pub(super) map: Arc<Mapped>,
    /// Rows appended but not yet written.
    pub(super) pending: Vec<u8>,
}

impl Shard {
    pub(super) fn create(path: &Path, dim: usize, precision: Precision) -> Result<Self> {
        // An earlier try may have left the file behind, empty of committed rows.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .io("create", path)?;
        file.write_all(&header(dim, precision)).io("write", path)?;
        let map = Mapped::new(&file, path)?;
        let stride = precision.stride(dim) as u64;
        Ok(Self { path: path.to_path_buf(), file, rows: 0, stride, map, pending: Vec::new() })
    }

    pub(super) fn open(path: &Path, dim: usize, precision: Precision) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).io("open", path)?;
        let length = file.metadata().io("read", path)?.len();
        let mut header = [0u8; HEADER_BYTES as usize];
        if length < HEADER_BYTES {
            return Err(damaged(path, format!("it has {length} bytes, too few for a shard")));
        }
        file.read_exact(&mut header).io("read the header of", path)?;
        if &header[..8] != MAGIC {
            return Err(damaged(path, "it does not start like a vector shard".to_owned()));
        }
        if header[8..12] != (dim as u32).to_le_bytes() {
            return Err(damaged(path, format!("its rows do not have {dim} values")));
        }
        if header[12..] != precision.code().to_le_bytes() {
            return Err(damaged(path, format!("its values are not {precision}")));
        }
        let stride = precision.stride(dim) as u64;
        let rows = (length - HEADER_BYTES) / stride;
        let map = Mapped::new(&file, path)?;
        Ok(Self { path: path.to_path_buf(), file, rows, stride, map, pending: Vec::new() })
    }

    /// Drops rows at the end; only before any view exists.
    pub(super) fn truncate(&mut self, rows: u64) -> Result<()> {
        let length = HEADER_BYTES + rows * self.stride;
        self.rows = rows;
        if self.file.metadata().io("read", &self.path)?.len() != length {
            self.file.set_len(length).io("truncate", &self.path)?;
            self.map = Mapped::new(&self.file, &self.path)?;
        }
        Ok(())
    }

    /// Writes pending rows and makes them durable and readable.
    pub(super) fn sync(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // Written at the place the rows belong, so that a try after a failed one (a full disk)
        // overwrites what that left behind.
        let start = HEADER_BYTES + self.rows * self.stride - self.pending.len() as u64;
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.write_all(&self.pending))
            .and_then(|()| self.file.sync_data())
            .io("write", &self.path)?;
        self.pending = Vec::new();
        self.map = Mapped::new(&self.file, &self.path)?;
        Ok(())
    }
}

/// What a shard starts with.
pub(super) fn header(dim: usize, precision: Precision) -> Vec<u8> {
    let mut header = Vec::from(MAGIC);
    header.extend((dim as u32).to_le_bytes());
    header.extend(precision.code().to_le_bytes());
    header
}
