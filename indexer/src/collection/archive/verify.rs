//! Whether a file is a whole, undamaged snapshot, before anything is taken from it.
//!
//! Names in the archive are compared with what they must be and never used, so that no archive can
//! write anywhere; sizes are compared with the file's before anything is read.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::format::{
    BLOCK, END, FORMAT, HEADER, MEMBERS, Member, SUMS, SnapshotInfo, TAR_BLOCK, VERSION,
    npy_header, padding, sums,
};
use crate::collection::progress::Progress;
use crate::error::{IndexerError, IoContext, Result};
use crate::manifest::FORMAT_VERSION;

/// Larger than that of any collection; a bound on what is read before anything is known.
const HEADER_LIMIT: u64 = 64 << 20;
/// No model has longer embeddings.
const DIM_LIMIT: usize = 1 << 16;

/// An archive whose first member was read.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) info: SnapshotInfo,
    pub(super) input: Input,
    header: Vec<u8>,
}

/// A file read from front to back.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    file: BufReader<File>,
    /// Bytes read so far.
    at: u64,
    length: u64,
}

/// What a snapshot says about itself; its content is not verified.
///
/// # Errors
/// The file cannot be read, is no snapshot, is damaged as far as it was read, or is of a later
/// format.
pub fn read_snapshot_info(path: &Path) -> Result<SnapshotInfo> {
    Ok(Archive::open(path)?.info)
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).io("open", path)?;
        let metadata = file.metadata().io("read", path)?;
        let not_one = |reason: &str| IndexerError::Source {
            path: path.to_path_buf(),
            reason: reason.to_owned(),
        };
        if !metadata.is_file() {
            return Err(not_one("it is no file"));
        }
        let mut file = BufReader::with_capacity(BLOCK, file);
        let mut first = Vec::new();
        file.by_ref().take(TAR_BLOCK).read_to_end(&mut first).io("read", path)?;
        if first.starts_with(&[0x1F, 0x8B]) || first.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            return Err(not_one("it is compressed; unpack it first with `gunzip` or `zstd -d`"));
        }
        let no_snapshot = || not_one("it is no snapshot that `akin collection snapshot` wrote");
        let size = member_size(&first, HEADER).ok_or_else(no_snapshot)?;
        let mut input =
            Input { path: path.to_path_buf(), file, at: TAR_BLOCK, length: metadata.len() };
        if size > HEADER_LIMIT || TAR_BLOCK + size > input.length {
            return Err(input.ends_within(HEADER, TAR_BLOCK, size));
        }
        let mut header = vec![0; size as usize];
        input.read(HEADER, &mut header)?;
        let archive = Self { info: parsed(&input, &header)?, input, header };
        archive.check_info()?;
        archive.check_length()?;
        Ok(archive)
    }

    /// What it says about itself must hold together.
    fn check_info(&self) -> Result<()> {
        let info = &self.info;
        let manifest = &info.manifest;
        if manifest.format_version > FORMAT_VERSION {
            return Err(IndexerError::NewerFormat {
                name: info.collection.clone(),
                found: manifest.format_version,
                supported: FORMAT_VERSION,
            });
        }
        let bad = |what: String| Err(self.input.bad(HEADER, what));
        if manifest.model.fingerprint() != manifest.fingerprint {
            return bad("its fingerprint is not that of its model".to_owned());
        }
        if manifest.metric != "cosine" {
            return bad(format!("metric `{}` is not known", manifest.metric));
        }
        let dim = manifest.model.dim;
        if !(1..=DIM_LIMIT).contains(&dim) || info.images > u64::from(u32::MAX) {
            return bad(format!("{} images of {dim} values are not possible", info.images));
        }
        let names: Vec<&str> = info.members.iter().map(|member| member.name.as_str()).collect();
        if names != MEMBERS {
            return bad(format!("its members are {names:?}, not {MEMBERS:?}"));
        }
        for Member { name, bytes, crc32, .. } in &info.members {
            if crc32.len() as u64 != bytes.div_ceil(BLOCK as u64) {
                return bad(format!("{} checksums are not those of {name}", crc32.len()));
            }
        }
        let precision = manifest.precision;
        let table = npy_header(info.images, dim, precision).len() as u64
            + info.images * (dim * precision.bytes()) as u64;
        if info.members.last().map(|member| member.bytes) != Some(table) {
            return bad(format!(
                "vectors.npy has not the {table} bytes that {} images take",
                info.images
            ));
        }
        Ok(())
    }

    /// Nothing is missing at the end and nothing added, before it is read.
    fn check_length(&self) -> Result<()> {
        let sums = sums(&self.header, &self.info.members).len() as u64;
        let expected = self.info.total_bytes(self.header.len() as u64, sums);
        if self.input.length > expected {
            return Err(IndexerError::Damaged {
                path: self.input.path.clone(),
                reason: format!(
                    "{} bytes follow the {expected} of the snapshot; take another copy of it",
                    self.input.length - expected
                ),
            });
        }
        if self.input.length == expected {
            return Ok(());
        }
        let mut start = self.start();
        for Member { name, bytes, .. } in &self.info.members {
            start = start.saturating_add(TAR_BLOCK);
            if start.saturating_add(*bytes) > self.input.length {
                return Err(self.input.ends_within(name, start, *bytes));
            }
            start = start.saturating_add(*bytes).saturating_add(padding(*bytes));
        }
        Err(self.input.ends_within(SUMS, start + TAR_BLOCK, sums))
    }

    /// Where the first of [`MEMBERS`] has its tar header.
    fn start(&self) -> u64 {
        let header = self.header.len() as u64;
        TAR_BLOCK + header + padding(header)
    }

    /// Where the content of a member begins.
    pub(super) fn offset(&self, wanted: &str) -> u64 {
        let mut start = self.start() + TAR_BLOCK;
        for Member { name, bytes, .. } in &self.info.members {
            if name == wanted {
                break;
            }
            start += bytes + padding(*bytes) + TAR_BLOCK;
        }
        start
    }

    /// Reads all of it and compares everything with its checksums.
    pub(super) fn verify(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        self.skip_padding(HEADER, self.header.len() as u64)?;
        for member in self.info.members.clone() {
            self.begin(&member.name, member.bytes)?;
            self.verify_member(&member, progress)?;
            self.skip_padding(&member.name, member.bytes)?;
        }
        let expected = sums(&self.header, &self.info.members);
        self.begin(SUMS, expected.len() as u64)?;
        let mut found = vec![0; expected.len()];
        self.input.read(SUMS, &mut found)?;
        if found != expected {
            return Err(self.input.bad(SUMS, "the hashes are not those of the members".to_owned()));
        }
        self.skip_padding(SUMS, expected.len() as u64)?;
        self.input.zeros("the end", END)
    }

    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        let mut block = [0; TAR_BLOCK as usize];
        let at = self.input.at;
        self.input.read(name, &mut block)?;
        if member_size(&block, name) == Some(bytes) {
            return Ok(());
        }
        Err(self.input.bad(name, format!("byte {at} of the archive does not begin this member")))
    }

    fn verify_member(&mut self, member: &Member, progress: &mut Progress<'_>) -> Result<()> {
        let Member { name, bytes, .. } = member;
        let mut sha256 = Sha256::new();
        let mut done = 0;
        let mut block = vec![0; BLOCK];
        for crc32 in &member.crc32 {
            progress.step("verifying", self.input.at, self.input.length, "nothing was restored")?;
            let part = (bytes - done).min(BLOCK as u64);
            let block = &mut block[..part as usize];
            let at = self.input.at;
            self.input.read(name, block)?;
            if crc32fast::hash(block) != *crc32 {
                return Err(self.input.bad(
                    name,
                    format!(
                        "bytes {done} to {} (from byte {at} of the archive) are not what was \
                             written",
                        done + part
                    ),
                ));
            }
            sha256.update(&*block);
            done += part;
        }
        if format!("{:x}", sha256.finalize()) != member.sha256 {
            return Err(self.input.bad(name, "its hash is wrong".to_owned()));
        }
        Ok(())
    }

    fn skip_padding(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.input.zeros(name, padding(bytes))
    }
}

impl Input {
    fn zeros(&mut self, name: &str, bytes: u64) -> Result<()> {
        let mut block = vec![1; bytes as usize];
        let at = self.at;
        self.read(name, &mut block)?;
        match block.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(self.bad(name, format!("the zeros at byte {at} of the archive are none"))),
        }
    }

    fn read(&mut self, member: &str, bytes: &mut [u8]) -> Result<()> {
        match self.file.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.ends_within(member, self.at, bytes.len() as u64))
            }
            Err(error) => Err(error).io("read", &self.path),
        }
    }

    fn ends_within(&self, member: &str, start: u64, bytes: u64) -> IndexerError {
        self.bad(
            member,
            format!(
                "it should take {bytes} bytes from byte {start} on, and the archive ends at byte {}",
                self.length
            ),
        )
    }

    pub(super) fn bad(&self, member: &str, what: String) -> IndexerError {
        IndexerError::Damaged {
            path: self.path.clone(),
            reason: format!("{member}: {what}; take another copy of the snapshot"),
        }
    }
}

fn parsed(input: &Input, header: &[u8]) -> Result<SnapshotInfo> {
    #[derive(Deserialize)]
    struct Version {
        format: String,
        format_version: u32,
    }
    let bad = |error: serde_json::Error| input.bad(HEADER, error.to_string());
    let Version { format, format_version } = serde_json::from_slice(header).map_err(bad)?;
    if format != FORMAT {
        return Err(input.bad(HEADER, format!("`{format}` is not `{FORMAT}`")));
    }
    if format_version > VERSION {
        let (path, supported) = (input.path.clone(), VERSION);
        return Err(IndexerError::NewerSnapshot { path, found: format_version, supported });
    }
    serde_json::from_slice(header).map_err(bad)
}

/// The size of a regular file of this name, from its tar header; `None` if that is something else.
fn member_size(block: &[u8], name: &str) -> Option<u64> {
    let block: &[u8; TAR_BLOCK as usize] = block.try_into().ok()?;
    let header = tar::Header::from_byte_slice(block);
    let sum = |(place, &byte): (usize, &u8)| match (148..156).contains(&place) {
        true => u32::from(b' '),
        false => u32::from(byte),
    };
    let sum: u32 = block.iter().enumerate().map(sum).sum();
    let sound = header.cksum().ok()? == sum
        && header.entry_type().is_file()
        && header.path_bytes() == name.as_bytes();
    if sound { header.size().ok() } else { None }
}
