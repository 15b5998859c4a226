//! A file of packed weights: header, checksums, arrays.
//!
//! ```text
//! 0    magic, 8 bytes
//! 8    u32 format; u32 bytes of a chunk; u64 bytes of all arrays
//! 24   SHA-256 of the layout, 32 bytes
//! 56   SHA-256 of the weights file, 64 hexadecimal digits
//! 120  u32 zero; u32 CRC-32 of the bytes before and of the list that follows
//! 128  u32 CRC-32 of each chunk of the arrays; zeros up to a multiple of 64
//! ...  arrays, each filled up with zeros to a multiple of 64 bytes
//! ```
//!
//! Numbers are in the byte order of the machine; to one with the other order the format is unknown.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;

use crate::kernels::{ALIGN, Stored};

const MAGIC: &[u8; 8] = b"AKINPACK";
/// Raised when the arrays, their order or what is computed from weights changes; the test
/// `what_is_packed_changes_only_with_the_format` notices.
pub(super) const FORMAT: u32 = 1;
/// Bytes under one checksum.
const CHUNK: usize = 1 << 20;
const HEADER: usize = 128;

/// Why a file is not used.
#[derive(Debug)]
pub(super) enum Problem {
    Io(std::io::Error),
    /// Sound, as far as can be told, but made by another release or for something else.
    Layout,
    Damaged(&'static str),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A mapped file whose checksums are right.
#[derive(Debug)]
pub(crate) struct Found {
    map: Arc<Mmap>,
    start: usize,
    weights_sha256: String,
}

impl Found {
    /// SHA-256 of the weights file that was packed, in lower-case hexadecimal.
    pub(crate) fn weights_sha256(&self) -> &str {
        &self.weights_sha256
    }

    /// What was packed.
    pub(crate) fn stored(&self) -> Stored {
        Stored::new(Arc::clone(&self.map), self.start)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(number)
}

/// Where the arrays start in a file with so many bytes of them.
fn start_of_arrays(length: usize) -> usize {
    (HEADER + 4 * length.div_ceil(CHUNK)).next_multiple_of(ALIGN)
}

/// Bytes of all arrays, filled up.
fn filled(arrays: &[&[u8]]) -> usize {
    arrays.iter().map(|array| array.len().next_multiple_of(ALIGN)).sum()
}

/// Bytes of the file that the arrays will be written to.
pub(super) fn length(arrays: &[&[u8]]) -> u64 {
    let length = filled(arrays);
    (start_of_arrays(length) + length) as u64
}

/// Checks everything but whose weights they are. All bytes are read, by all threads: that costs a few
/// hundredths of packing, and brings into memory what the first picture needs anyway.
pub(super) fn open(path: &Path, layout: &[u8; 32]) -> Result<Found, Problem> {
    let file = File::open(path)?;
    if file.metadata()?.len() < HEADER as u64 {
        return Err(Problem::Damaged("cut short"));
    }
    // SAFETY: the map is read-only. As with any map, another process truncating the file would raise
    // SIGBUS; files of this folder are replaced by rename or removed, never rewritten in place.
    #[expect(unsafe_code, reason = "packed weights are memory-mapped; see SAFETY")]
    let map = unsafe { Mmap::map(&file) }?;
    let header = &map[..HEADER];
    if !header.starts_with(MAGIC) {
        return Err(Problem::Damaged("no header"));
    }
    if number(header, 8) != FORMAT {
        return Err(Problem::Layout);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[16..24]);
    let sizes = usize::try_from(u64::from_ne_bytes(bytes)).ok().and_then(|length| {
        let room = map.len().checked_sub(length)?;
        (room == start_of_arrays(length)).then_some(length)
    });
    let length = sizes.ok_or(Problem::Damaged("of the wrong length"))?;
    let start = start_of_arrays(length);
    let list = &map[HEADER..start];
    if crc32fast::hash(&[&header[..HEADER - 4], list].concat()) != number(header, HEADER - 4) {
        return Err(Problem::Damaged("wrong checksum of the header"));
    }
    if header[24..56] != *layout || number(header, 12) != CHUNK as u32 {
        return Err(Problem::Layout);
    }
    let chunks = map[start..].par_chunks(CHUNK).enumerate();
    if !chunks.all(|(index, chunk)| crc32fast::hash(chunk) == number(list, 4 * index)) {
        return Err(Problem::Damaged("wrong checksum"));
    }
    let weights_sha256 = String::from_utf8_lossy(&header[56..120]).into_owned();
    Ok(Found { map: Arc::new(map), start, weights_sha256 })
}

/// Writes header, list and arrays.
pub(super) fn write(
    mut file: impl Write + Seek,
    layout: &[u8; 32],
    weights_sha256: &str,
    arrays: &[&[u8]],
) -> std::io::Result<()> {
    let length = filled(arrays);
    let start = start_of_arrays(length);
    let mut list = Vec::with_capacity(start);
    // Until the arrays are there, the file has no header.
    file.write_all(&vec![0; start])?;
    let mut chunk = Vec::with_capacity(CHUNK);
    for array in arrays {
        let mut parts = [*array, &[0; ALIGN][..array.len().next_multiple_of(ALIGN) - array.len()]];
        for part in &mut parts {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(CHUNK - chunk.len()));
                chunk.extend_from_slice(now);
                *part = later;
                if chunk.len() == CHUNK {
                    list.extend(crc32fast::hash(&chunk).to_ne_bytes());
                    file.write_all(&chunk)?;
                    chunk.clear();
                }
            }
        }
    }
    if !chunk.is_empty() {
        list.extend(crc32fast::hash(&chunk).to_ne_bytes());
        file.write_all(&chunk)?;
    }
    list.resize(start - HEADER, 0);

    let mut header = Vec::with_capacity(start);
    header.extend(MAGIC);
    header.extend(FORMAT.to_ne_bytes());
    header.extend((CHUNK as u32).to_ne_bytes());
    header.extend((length as u64).to_ne_bytes());
    header.extend(layout);
    let mut digits = weights_sha256.as_bytes().to_vec();
    digits.resize(64, 0);
    header.extend(digits);
    header.extend([0; 4]);
    let checksum = crc32fast::hash(&[&header[..], &list].concat());
    header.extend(checksum.to_ne_bytes());
    header.extend(list);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.flush()
}
