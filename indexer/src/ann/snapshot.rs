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

use super::frozen::Frozen;
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

/// What is said about a graph's rows in its snapshot.
pub(super) struct Contents {
    pub(super) rows: u64,
    pub(super) unreachable: Vec<u32>,
    pub(super) base: Option<u32>,
}

/// Writes a graph that searches use as it is; gives its checksum.
pub(super) fn save_frozen(path: &Path, graph: &Frozen, of: Contents) -> Result<u32> {
    write(path, (graph.dim(), graph.scale()), of, graph.bytes())
}

/// Writes a graph that still grows; gives its checksum.
pub(super) fn save_growing(path: &Path, graph: &Graph, of: Contents) -> Result<u32> {
    write(path, (graph.dim(), graph.scale()), of, &graph.to_bytes()?)
}

fn write(path: &Path, (dim, scale): (usize, f32), of: Contents, payload: &[u8]) -> Result<u32> {
    let Contents { rows, unreachable, base } = of;
    let header = Header { dim, m: M, scale, rows, unreachable, base };
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let mut front = Vec::from(MAGIC);
    front.extend((header.len() as u32).to_le_bytes());
    front.extend(&header);
    front.resize(front.len().next_multiple_of(START), 0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&front);
    crc.update(payload);
    let crc = crc.finalize();
    replace_file(path, |file| {
        file.write_all(&front)?;
        file.write_all(payload)?;
        file.write_all(&crc.to_le_bytes())
    })?;
    Ok(crc)
}

/// A snapshot that was read: what it says, the graph, and its checksum.
pub(super) type Opened<G> = Option<(Header, G, u32)>;

/// Reads a graph back to be searched as it is; `None` when it is absent, damaged, or of other parameters, in which case
/// it is to be built anew.
pub(super) fn open_frozen(path: &Path, dim: usize) -> Result<Opened<Frozen>> {
    let Some((memory, header, start, crc)) = read(path, dim)? else { return Ok(None) };
    let end = memory.len() - 4;
    let Some(graph) = Frozen::new(memory, start, end, dim, header.scale) else {
        tracing::warn!(
            "{} is of another form; it is derived and will be made again",
            path.display()
        );
        return Ok(None);
    };
    Ok(Some((header, graph, crc)))
}

/// [`open_frozen`], for a graph that is to grow.
pub(super) fn open_growing(path: &Path, dim: usize) -> Result<Opened<Graph>> {
    let Some((memory, header, start, crc)) = read(path, dim)? else { return Ok(None) };
    let bytes = memory.get(start..memory.len() - 4).unwrap_or_default();
    let graph = Graph::load(dim, header.scale, bytes)?;
    Ok(Some((header, graph, crc)))
}

/// The bytes of a snapshot whose checksum and parameters are right, its header, where in them the graph starts, and the
/// checksum.
fn read(path: &Path, dim: usize) -> Result<Option<(MmapMut, Header, usize, u32)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).io("open", path),
    };
    let length = file.metadata().io("read", path)?.len() as usize;
    if length == 0 {
        return Ok(None);
    }
    let mut memory = large_memory(Frozen::LEAD + length).io("find memory for", path)?;
    let bytes = memory.get_mut(Frozen::LEAD..).unwrap_or_default();
    if let Err(error) = (&file).read_exact(bytes) {
        // Shortened meanwhile: as good as damaged.
        tracing::warn!("{}: {error}", path.display());
        return Ok(None);
    }
    let Some((header, start, crc)) = checked(bytes) else {
        tracing::warn!("{} is damaged; it is derived and will be made again", path.display());
        return Ok(None);
    };
    if header.dim != dim || header.m != M {
        return Ok(None);
    }
    Ok(Some((memory, header, Frozen::LEAD + start, crc)))
}

/// Memory that is read at random: of large pages where the system has them.
pub(super) fn large_memory(length: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(length)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
        tracing::debug!("no huge pages: {error}");
    }
    Ok(memory)
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
