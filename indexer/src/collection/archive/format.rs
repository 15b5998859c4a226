//! What the members of a snapshot hold.

use serde::{Deserialize, Serialize};

use crate::id::{ContentHash, ImageId};
use crate::manifest::Manifest;
use crate::record::Record;
use crate::vectors::Precision;

/// Newest snapshot format this release reads, and the one it writes.
pub(super) const VERSION: u32 = 1;
/// What `format` says.
pub(super) const FORMAT: &str = "akin snapshot";
/// The first member.
pub(super) const HEADER: &str = "snapshot.json";
/// The others, in order.
pub(super) const MEMBERS: [&str; 3] = ["records.jsonl", "failures.jsonl", "vectors.npy"];
/// The last one: hashes of all before it, as `sha256sum` writes them.
pub(super) const SUMS: &str = "SHA256SUMS";
/// Zeros at the end of a tar.
pub(super) const END: u64 = 1024;
/// Bytes that one checksum covers, to say where an archive is damaged.
pub(super) const BLOCK: usize = 1 << 20;
/// The unit of tar.
pub(super) const TAR_BLOCK: u64 = 512;

/// `snapshot.json`: what a snapshot says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// `akin snapshot`.
    pub format: String,
    /// Version of the archive.
    pub format_version: u32,
    /// Release that wrote it.
    pub akin: String,
    /// Seconds since 1970 when it was written.
    pub created: u64,
    /// Name of the collection then.
    pub collection: String,
    /// Images.
    pub images: u64,
    /// Files that gave none, those that are no pictures too.
    pub failures: u64,
    /// Id of the next new image.
    pub next_id: u64,
    /// Commits so far.
    pub sequence: u64,
    /// What the collection said about itself.
    pub manifest: Manifest,
    /// The other members, in order.
    pub members: Vec<Member>,
}

impl SnapshotInfo {
    /// Bytes of the whole archive, given those of its first and last member.
    pub(super) fn total_bytes(&self, header: u64, sums: u64) -> u64 {
        let size = |bytes: u64| TAR_BLOCK.saturating_add(bytes).saturating_add(padding(bytes));
        let members = self.members.iter().map(|member| size(member.bytes));
        members.fold(size(header) + size(sums) + END, u64::saturating_add)
    }
}

/// What a member must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name in the archive.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hash of its content, lower-case hexadecimal.
    pub sha256: String,
    /// CRC-32 of every 1,048,576 bytes of it.
    pub crc32: Vec<u32>,
}

/// A line of `records.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RecordLine {
    pub(super) id: ImageId,
    #[serde(flatten)]
    pub(super) record: Record,
}

/// The content of the last member.
pub(super) fn sums(header: &[u8], members: &[Member]) -> Vec<u8> {
    let mut lines = format!("{}  {HEADER}\n", ContentHash::of(header));
    for Member { name, sha256, .. } in members {
        lines.push_str(&format!("{sha256}  {name}\n"));
    }
    lines.into_bytes()
}

/// What `vectors.npy` starts with: 128 bytes, as NumPy 1.0 files have.
pub(super) fn npy_header(rows: u64, dim: usize, precision: Precision) -> Vec<u8> {
    let kind = precision.bytes();
    let mut text =
        format!("{{'descr': '<f{kind}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let front = 10;
    while text.len() < 128 - front - 1 {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// Zeros that follow a member of so many bytes.
pub(super) fn padding(bytes: u64) -> u64 {
    (TAR_BLOCK - bytes % TAR_BLOCK) % TAR_BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_starts_as_numpy_wants_it() {
        for rows in [0, 7, u64::from(u32::MAX)] {
            let header = npy_header(rows, 65_536, Precision::F32);
            assert_eq!(header.len(), 128);
            assert_eq!(header.last(), Some(&b'\n'));
        }
        let header = String::from_utf8_lossy(&npy_header(3, 384, Precision::F16)).into_owned();
        assert!(header.contains("'descr': '<f2'") && header.contains("'shape': (3, 384), }"));
    }

    #[test]
    fn members_are_padded_to_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
