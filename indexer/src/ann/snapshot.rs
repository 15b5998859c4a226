//! A graph in a file: derived, checksummed, replaced atomically.
//!
//! It is read into memory of its own rather than mapped: pages of 2 MB make searches faster (a graph
//! is walked at random), and nobody who shortens the file can take the process down.
//!
//! The file is `AKINHNS2`, the length of the header as u32 (little-endian), the header as JSON,
//! zeros up to byte 4096, the library's bytes, and the CRC-32 of all of that.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::MmapMut;
use serde::{Deserialize, Serialize};

use super::hnsw::{Graph, M};
use crate::durable::replace_file;
use crate::error::{IoContext, Result};

const MAGIC: &[u8; 8] = b"AKINHNS2";
/// Where the graph starts: a page, so that the library finds it aligned as in a file of its own.
const START: usize = 4096;

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    dim: usize,
    m: usize,
    scale: f32,
    /// Rows below this are in the graph, were dead when it was made, or are listed as unreachable.
    pub(super) rows: u64,
    /// Rows that searches do not find.
    pub(super) unreachable: Vec<u32>,
    /// For a tail: checksum of the base it goes with.
    pub(super) base: Option<u32>,
}

/// Whether an opened graph is to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Grow,
    View,
}

/// Writes a snapshot and gives its checksum.
pub(super) fn save(
    path: &Path,
    graph: &Graph,
    rows: u64,
    unreachable: Vec<u32>,
    base: Option<u32>,
) -> Result<u32> {
    let header = Header { dim: graph.dim(), m: M, scale: graph.scale(), rows, unreachable, base };
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let mut front = Vec::from(MAGIC);
    front.extend((header.len() as u32).to_le_bytes());
    front.extend(&header);
    front.resize(front.len().next_multiple_of(START), 0);
    let payload = graph.to_bytes()?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&front);
    crc.update(&payload);
    let crc = crc.finalize();
    replace_file(path, |file| {
        file.write_all(&front)?;
        file.write_all(&payload)?;
        file.write_all(&crc.to_le_bytes())
    })?;
    Ok(crc)
}

/// Reads a snapshot back with its checksum; `None` when it is absent, damaged, or of other
/// parameters, in which case the graph is to be built anew.
pub(super) fn open(path: &Path, dim: usize, mode: Mode) -> Result<Option<(Header, Graph, u32)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).io("open", path),
    };
    let length = file.metadata().io("read", path)?.len() as usize;
    if length == 0 {
        return Ok(None);
    }
    let mut memory = MmapMut::map_anon(length).io("find memory for", path)?;
    // Not every system has large pages; it works with small ones.
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
        tracing::debug!("no huge pages: {error}");
    }
    if let Err(error) = (&file).read_exact(&mut memory) {
        // Shortened meanwhile: as good as damaged.
        tracing::warn!("{}: {error}", path.display());
        return Ok(None);
    }
    let Some((header, start, crc)) = checked(&memory) else {
        tracing::warn!("{} is damaged; it is derived and will be made again", path.display());
        return Ok(None);
    };
    if header.dim != dim || header.m != M {
        return Ok(None);
    }
    let graph = match mode {
        Mode::Grow => {
            let end = memory.len() - 4;
            Graph::load(dim, header.scale, memory.get(start..end).unwrap_or_default())?
        }
        Mode::View => Graph::view(dim, header.scale, memory, start)?,
    };
    Ok(Some((header, graph, crc)))
}

fn checked(bytes: &[u8]) -> Option<(Header, usize, u32)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let crc = u32::from_le_bytes(*crc);
    if crc32fast::hash(body) != crc {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let header = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((header, (MAGIC.len() + 4 + length).next_multiple_of(START), crc))
}
