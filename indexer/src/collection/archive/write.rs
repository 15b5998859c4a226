//! A collection into a snapshot.

use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::format::{
    BLOCK, END, FORMAT, HEADER, MEMBERS, Member, RecordLine, SUMS, SnapshotInfo, VERSION,
    npy_header, padding, sums,
};
use crate::collection::layout::Collections;
use crate::collection::progress::Progress;
use crate::collection::{Collection, room};
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, IoContext, Result};
use crate::record::Record;
use crate::vectors::Rows;

const STEP: u64 = 1024;
const UNTOUCHED: &str = "no snapshot was written";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Images in it.
    pub images: u64,
    /// Files that gave none.
    pub failures: u64,
    /// Size of the archive.
    pub bytes: u64,
}

/// Passes bytes on, and keeps what a member must be afterwards.
struct Measured<W> {
    to: W,
    bytes: u64,
    sha256: Sha256,
    crc32: Vec<u32>,
    block: crc32fast::Hasher,
    in_block: usize,
}

impl<W: Write> Measured<W> {
    fn new(to: W) -> Self {
        let (sha256, block) = (Sha256::new(), crc32fast::Hasher::new());
        Self { to, bytes: 0, sha256, crc32: Vec::new(), block, in_block: 0 }
    }

    fn end_block(&mut self) {
        self.crc32.push(std::mem::take(&mut self.block).finalize());
        self.in_block = 0;
    }

    fn member(mut self, name: &str) -> Member {
        if self.in_block > 0 {
            self.end_block();
        }
        let sha256 = format!("{:x}", self.sha256.finalize());
        Member { name: name.to_owned(), bytes: self.bytes, sha256, crc32: self.crc32 }
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(BLOCK - self.in_block);
        let written = self.to.write(&bytes[..fits])?;
        let bytes = &bytes[..written];
        self.sha256.update(bytes);
        self.block.update(bytes);
        self.bytes += written as u64;
        self.in_block += written;
        if self.in_block == BLOCK {
            self.end_block();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Collections {
    /// Writes all that is committed into one file, to be kept and [restored](Self::restore). The
    /// file appears complete or not at all.
    ///
    /// # Errors
    /// There is such a file and it is not to be replaced, the collection cannot be opened, a vector
    /// is damaged, or the disk refuses.
    pub fn snapshot(
        &self,
        name: &str,
        out: &Path,
        replace: bool,
        progress: &mut Progress<'_>,
    ) -> Result<SnapshotReport> {
        self.require(name)?;
        if out.exists() && !replace {
            return Err(IndexerError::InvalidRequest(format!(
                "{} exists already; choose another name, or replace it with --force",
                out.display()
            )));
        }
        self.open(name)?.snapshot(out, progress)
    }
}

impl Collection {
    /// Writes all that is committed into one file, replacing one of that name. Searches go on
    /// meanwhile.
    ///
    /// # Errors
    /// A vector is damaged, or the disk refuses; then there is no new file.
    pub fn snapshot(&self, out: &Path, progress: &mut Progress<'_>) -> Result<SnapshotReport> {
        // First of all, so that a folder that cannot be written to costs no time.
        let file = temporary_beside(out)?;
        // Tar says sizes before contents, so everything is written twice: first to be measured.
        let mut contents = Contents { collection: self, rows: self.vectors.snapshot(), progress };
        let mut members = Vec::new();
        for name in MEMBERS {
            let mut measured = Measured::new(io::sink());
            contents.write(name, "measuring", &mut measured)?;
            members.push(measured.member(name));
        }
        let info = self.info(members);
        let header = serde_json::to_vec_pretty(&info).map_err(io::Error::from).io("write", out)?;
        let sums = sums(&header, &info.members);
        let bytes = info.total_bytes(header.len() as u64, sums.len() as u64);
        let beside = file.path().parent().unwrap_or(Path::new("."));
        room::require(beside, bytes)?;

        let mut archive = io::BufWriter::with_capacity(BLOCK, &file);
        small(&mut archive, HEADER, &header, info.created).io("write", out)?;
        for expected in &info.members {
            begin(&mut archive, &expected.name, expected.bytes, info.created).io("write", out)?;
            let mut measured = Measured::new(&mut archive);
            contents.write(&expected.name, "writing", &mut measured)?;
            if measured.member(&expected.name) != *expected {
                return Err(IndexerError::Damaged {
                    path: self.data_folder(),
                    reason: format!(
                        "it read differently the second time ({}); check the disk",
                        expected.name
                    ),
                });
            }
            end(&mut archive, expected.bytes).io("write", out)?;
        }
        small(&mut archive, SUMS, &sums, info.created).io("write", out)?;
        archive.write_all(&[0; END as usize]).and_then(|()| archive.flush()).io("write", out)?;
        drop(archive);
        persist(file, out)?;
        Ok(SnapshotReport { images: info.images, failures: info.failures, bytes })
    }

    fn info(&self, members: Vec<Member>) -> SnapshotInfo {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        SnapshotInfo {
            format: FORMAT.to_owned(),
            format_version: VERSION,
            akin: env!("CARGO_PKG_VERSION").to_owned(),
            created: since_1970.map_or(0, |time| time.as_secs()),
            collection: self.name().to_owned(),
            images: self.alive.len(),
            failures: self.catalog.failures().count() as u64,
            next_id: self.meta.next_id,
            sequence: self.meta.sequence,
            manifest: self.manifest.clone(),
            members,
        }
    }
}

/// What goes into the members.
struct Contents<'a, 'b> {
    collection: &'a Collection,
    rows: Rows,
    progress: &'a mut Progress<'b>,
}

impl Contents<'_, '_> {
    fn write(&mut self, member: &str, doing: &'static str, to: &mut dyn Write) -> Result<()> {
        match member {
            "records.jsonl" => self.records(doing, to),
            "failures.jsonl" => self.failures(to),
            _ => self.vectors(doing, to),
        }
    }

    fn records(&mut self, doing: &'static str, to: &mut dyn Write) -> Result<()> {
        let images = self.collection.alive.len();
        let mut written = 0;
        for (row, image) in (0..).zip(self.collection.images()) {
            if row % STEP == 0 {
                self.progress.step(doing, row, 2 * images, UNTOUCHED)?;
            }
            let (id, record) = image?;
            line(to, &RecordLine { id, record: Record { row, ..record } })?;
            written += 1;
        }
        if written != images {
            return Err(IndexerError::Damaged {
                path: self.collection.data_folder().join("catalog"),
                reason: format!(
                    "it has {written} records and {images} images alive; run `akin collection \
                     check {} --repair`",
                    self.collection.name()
                ),
            });
        }
        Ok(())
    }

    fn failures(&mut self, to: &mut dyn Write) -> Result<()> {
        self.collection.catalog.failures().try_for_each(|failure| line(to, &failure?))
    }

    fn vectors(&mut self, doing: &'static str, to: &mut dyn Write) -> Result<()> {
        let manifest = &self.collection.manifest;
        let images = self.collection.alive.len();
        let header = npy_header(images, manifest.model.dim, manifest.precision);
        to.write_all(&header).io("write", Path::new("vectors.npy"))?;
        for (done, image) in (0..).zip(self.collection.images()) {
            if done % STEP == 0 {
                self.progress.step(doing, images + done, 2 * images, UNTOUCHED)?;
            }
            let (id, record) = image?;
            let values = self.rows.stored(record.row, id)?;
            to.write_all(values).io("write", Path::new("vectors.npy"))?;
        }
        Ok(())
    }
}

fn line(to: &mut dyn Write, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut *to, value)
        .map_err(io::Error::from)
        .and_then(|()| to.write_all(b"\n"))
        .io("write", Path::new("a line of the snapshot"))
}

/// The header of a member.
fn begin(archive: &mut dyn Write, name: &str, bytes: u64, created: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(created);
    header.set_cksum();
    archive.write_all(header.as_bytes())
}

/// A member at once.
fn small(archive: &mut dyn Write, name: &str, content: &[u8], created: u64) -> io::Result<()> {
    begin(archive, name, content.len() as u64, created)?;
    archive.write_all(content)?;
    end(archive, content.len() as u64)
}

/// What follows the content of a member.
fn end(archive: &mut dyn Write, bytes: u64) -> io::Result<()> {
    archive.write_all(&[0; 512][..padding(bytes) as usize])
}
