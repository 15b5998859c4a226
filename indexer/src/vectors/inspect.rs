//! Shards as they are, damaged or not: what a check looks at. Nothing is changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::mapped::Mapped;
use super::shard::header;
use super::{HEADER_BYTES, Precision, ROWS_PER_SHARD, Rows, shard_name};
use crate::error::{IoContext, Result};

/// Something wrong with a shard as a whole.
#[derive(Debug)]
pub(crate) struct ShardFault {
    pub(crate) path: PathBuf,
    pub(crate) problem: String,
}

/// Maps whatever there is of the shards that should hold `rows` rows (as many as there are, if that
/// is not known), and says what is wrong with them. Reading a row that is not there is an error, and
/// so is one whose checksum is wrong; others can be read even where the header is damaged.
pub(crate) fn inspect(
    folder: &Path,
    dim: usize,
    precision: Precision,
    rows: Option<u64>,
) -> Result<(Rows, Vec<ShardFault>)> {
    let mut faults = Vec::new();
    let mut shards = Vec::new();
    let mut found = 0;
    let wanted = rows.map_or(0, |rows| rows.div_ceil(ROWS_PER_SHARD) as usize);
    for index in 0.. {
        let path = folder.join(shard_name(index, precision));
        let exists = path.exists();
        if index >= wanted && (rows.is_some() || !exists) {
            break;
        }
        let before = index as u64 * ROWS_PER_SHARD;
        let expected = rows.map_or(0, |rows| (rows - before).min(ROWS_PER_SHARD));
        let mut fault = |problem: String| faults.push(ShardFault { path: path.clone(), problem });
        if !exists {
            fault(format!("it is missing, with {expected} rows"));
            shards.push(Mapped::nothing(&path)?);
            continue;
        }
        let file = File::open(&path).io("open", &path)?;
        let length = file.metadata().io("read", &path)?.len();
        let map = Mapped::new(&file, &path)?;
        if map.get(..HEADER_BYTES as usize) != Some(&header(dim, precision)) {
            fault(format!("its header is damaged, or not of {dim} {precision} values"));
        }
        let stride = precision.stride(dim) as u64;
        let present = (length.saturating_sub(HEADER_BYTES) / stride).min(ROWS_PER_SHARD);
        if present < expected {
            fault(format!("it holds {present} rows of {expected}"));
        }
        found = before + present;
        shards.push(map);
    }
    let (folder, len) = (folder.into(), rows.unwrap_or(found));
    let resident_bytes = super::rows::RESIDENT_BYTES;
    let rows = Rows { folder, dim, precision, shards, len, resident_bytes };
    Ok((rows, faults))
}
