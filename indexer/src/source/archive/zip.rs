//! Zip files: listed by their directory or, where that is lost, header by header from the start.
//! Members are read where they lie: stored or deflated, with their checksum verified.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::read_exactly;
use super::tar::Damage;

/// How many times larger than its compressed form a member may be. DEFLATE itself ends at 1032, so
/// more is a forged header, and no picture comes near.
const MAX_RATIO: u64 = 1100;

/// Where and how a member is stored.
#[derive(Clone, Debug)]
pub(super) struct ZipMember {
    pub(super) name: Vec<u8>,
    /// Bytes of the content, as declared.
    pub(super) size: u64,
    /// Its own header, in the file.
    header: u64,
    compressed: u64,
    crc32: u32,
    method: Method,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Method {
    Stored,
    Deflated,
    Encrypted,
    Other(String),
}

const LOCAL_HEADER: usize = 30;
const LOCAL_SIGNATURE: &[u8] = b"PK\x03\x04";

/// Lists the members that are files, in the order of the directory.
///
/// # Errors
/// The file cannot be opened. Damage inside it is part of the result.
pub(super) fn list(path: &Path) -> io::Result<(Vec<ZipMember>, Option<Damage>)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    match ZipArchive::new(BufReader::new(file)) {
        Ok(archive) => Ok(by_directory(&archive)),
        Err(error) => {
            let mut file = BufReader::new(File::open(path)?);
            let (members, end) = by_headers(&mut file, length);
            Ok((members, Some(Damage { offset: end, reason: error.to_string() })))
        }
    }
}

fn by_directory<R: Read + Seek>(archive: &ZipArchive<R>) -> (Vec<ZipMember>, Option<Damage>) {
    let mut members = Vec::new();
    for number in 0..archive.len() {
        let entry = match archive.by_index_data(number) {
            Ok(entry) => entry,
            Err(error) => {
                let offset = archive.central_directory_start();
                return (members, Some(Damage { offset, reason: error.to_string() }));
            }
        };
        if !entry.is_file() {
            continue;
        }
        let method = match entry.compression() {
            _ if entry.encrypted() => Method::Encrypted,
            CompressionMethod::STORE => Method::Stored,
            CompressionMethod::DEFLATE => Method::Deflated,
            other => Method::Other(other.to_string()),
        };
        members.push(ZipMember {
            name: entry.name_raw().to_vec(),
            size: entry.size(),
            header: entry.header_start(),
            compressed: entry.compressed_size(),
            crc32: entry.crc32(),
            method,
        });
    }
    (members, None)
}

/// What can be found without a directory, and where that ends.
fn by_headers<R: Read + Seek>(file: &mut R, length: u64) -> (Vec<ZipMember>, u64) {
    let mut members = Vec::new();
    let mut at = 0;
    while let Some((member, next)) = local_member(file, at).filter(|(_, next)| *next <= length) {
        if !member.name.ends_with(b"/") {
            members.push(member);
        }
        at = next;
    }
    (members, at)
}

/// The member whose header is at this place, and the end of its content.
fn local_member<R: Read + Seek>(file: &mut R, at: u64) -> Option<(ZipMember, u64)> {
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut header = [0; LOCAL_HEADER];
    file.read_exact(&mut header).ok()?;
    let two = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let four = |at: usize| two(at) | two(at + 2) << 16;
    let (flags, compressed, size) = (two(6), four(18), four(22));
    // Sizes that come after the content, or are too large for this header, are only in the
    // directory.
    let unknown = flags & 8 != 0 || compressed == 0xffff_ffff || size == 0xffff_ffff;
    if &header[..4] != LOCAL_SIGNATURE || unknown {
        return None;
    }
    let mut name = vec![0; two(26) as usize];
    file.read_exact(&mut name).ok()?;
    let method = match (flags & 1, two(8)) {
        (1, _) => Method::Encrypted,
        (_, 0) => Method::Stored,
        (_, 8) => Method::Deflated,
        (_, other) => Method::Other(format!("method {other}")),
    };
    let end = at + LOCAL_HEADER as u64 + two(26) + two(28) + compressed;
    Some((ZipMember { name, size, header: at, compressed, crc32: four(14) as u32, method }, end))
}

/// The content of a member, whose declared size the caller has checked.
pub(super) fn read(path: &Path, member: &ZipMember) -> io::Result<Vec<u8>> {
    let refuse = |reason: String| Err(io::Error::other(reason));
    match &member.method {
        Method::Encrypted => return refuse("it is encrypted".to_owned()),
        Method::Other(name) => {
            return refuse(format!("its compression, {name}, is not supported; use DEFLATE"));
        }
        Method::Stored | Method::Deflated => {}
    }
    if member.size / MAX_RATIO > member.compressed {
        return refuse(format!(
            "it declares {} bytes compressed to {}, which is more than {MAX_RATIO} to 1",
            member.size, member.compressed
        ));
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(member.header))?;
    let mut header = [0; LOCAL_HEADER];
    file.read_exact(&mut header)?;
    if &header[..4] != LOCAL_SIGNATURE {
        return refuse("the archive has no header where the directory says".to_owned());
    }
    let length = |at: usize| i64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    file.seek(SeekFrom::Current(length(26) + length(28)))?;
    let stored = BufReader::new(file.take(member.compressed));
    let bytes = match member.method {
        Method::Deflated => read_exactly(DeflateDecoder::new(stored), member.size)?,
        _ => read_exactly(stored, member.size)?,
    };
    match crc32fast::hash(&bytes) == member.crc32 {
        true => Ok(bytes),
        false => refuse("its checksum is wrong".to_owned()),
    }
}
