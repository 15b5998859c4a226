//! A snapshot into a collection: verified as a whole, then copied into new data beside the old, then
//! swapped.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use half::f16;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::format::{RecordLine, npy_header};
use super::verify::Archive;
use crate::catalog::{Catalog, Meta};
use crate::collection::check::unsound_vector;
use crate::collection::layout::{Collections, Lock, manifest_path};
use crate::collection::progress::Progress;
use crate::collection::rewrite::{Rewrite, remove_folder};
use crate::collection::room;
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::locator::Locator;
use crate::manifest::Manifest;
use crate::record::{Failure, Record};
use crate::vectors::Precision;

const STEP: u64 = 256;
const UNTOUCHED: &str = "nothing was restored";
/// Longest line that is read; far more than a path and a payload take.
const LINE_LIMIT: u64 = 16 << 20;

/// Choices of a restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Name of the collection; the one it had, if not given.
    pub name: Option<String>,
    /// Whether a collection of that name may be replaced.
    pub replace: bool,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// Name of the collection.
    pub name: String,
    /// Images.
    pub images: u64,
    /// Files that gave none.
    pub failures: u64,
    /// Whether it took the place of another.
    pub has_replaced: bool,
}

impl Collections {
    /// Makes a collection of a snapshot, or replaces one by it. Everything in the archive is verified
    /// before anything is changed, and the old collection is removed when the new one is in its
    /// place; after an interruption one of the two is there. Graphs are built before the swap.
    ///
    /// # Errors
    /// The file is no snapshot, is damaged or of a later format, or its content does not hold
    /// together; there is a collection of that name and it is not to be replaced, or it is in use; the
    /// disk has too little room. In all cases nothing was changed.
    pub fn restore(
        &self,
        file: &Path,
        options: &RestoreOptions,
        progress: &mut Progress<'_>,
    ) -> Result<RestoreReport> {
        let mut archive = Archive::open(file)?;
        let name = options.name.clone().unwrap_or_else(|| archive.info.collection.clone());
        let folder = self.path(&name)?;
        let refuse_existing = || match self.exists(&name)? && !options.replace {
            true => Err(IndexerError::InvalidRequest(format!(
                "there is a collection `{name}` already; give the restored one another name with \
                 --as NAME, or replace the one there is with --replace"
            ))),
            false => Ok(()),
        };
        refuse_existing()?;
        archive.verify(progress)?;

        let is_new = !folder.exists();
        std::fs::create_dir_all(&folder).io("create", &folder)?;
        let lock = Lock::acquire(&folder, &name)?;
        refuse_existing()?;
        let has_replaced = self.exists(&name)?;
        let restored = restore_into(&folder, &archive, progress);
        if restored.is_err() && is_new {
            // Tidiness only: without a manifest it is no collection.
            let _ = remove_folder(&folder);
        }
        restored?;
        sync_folder(self.folder())?;
        drop(lock);
        let info = archive.info;
        Ok(RestoreReport { name, images: info.images, failures: info.failures, has_replaced })
    }
}

fn restore_into(folder: &Path, archive: &Archive, progress: &mut Progress<'_>) -> Result<()> {
    let info = &archive.info;
    let present = Manifest::read(&manifest_path(folder), "").ok();
    let like = info.manifest.clone();
    let lines: u64 = info.members.iter().take(2).map(|member| member.bytes).sum();
    // The catalog takes about as much as the lines, and as much again while it grows.
    room::require(folder, room::needed(&like, info.images, lines.saturating_mul(2)))?;
    let fill = |rewrite: &mut Rewrite| {
        let mut paths = HashSet::new();
        images(archive, rewrite, &mut paths, progress)?;
        failures(archive, rewrite, &mut paths)?;
        progress.step("building what is derived", 0, 0, UNTOUCHED)
    };
    let rewrite = Rewrite::filled(folder, like.model.dim, like.precision, fill)?;
    // Ids of the collection that is replaced are not given to other images.
    let meta = present.and_then(|manifest| counters(folder, &manifest)).unwrap_or_default();
    let next_id = info.next_id.max(meta.next_id);
    let sequence = info.sequence.max(meta.sequence);
    rewrite.swap(&like, next_id, sequence).map(drop)
}

/// Counters of the data there is, if it can be read.
fn counters(folder: &Path, manifest: &Manifest) -> Option<Meta> {
    let catalog = folder.join(&manifest.data).join("catalog");
    if !catalog.is_dir() || manifest.format_version == 1 {
        return None;
    }
    Catalog::open(&catalog).and_then(|catalog| catalog.meta()).ok()
}

/// Lines of a member, as values.
struct Lines<'a> {
    archive: &'a Archive,
    member: &'static str,
    file: Take<BufReader<File>>,
    line: u64,
}

impl<'a> Lines<'a> {
    fn open(archive: &'a Archive, member: &'static str) -> Result<Self> {
        let file = content(archive, member)?;
        Ok(Self { archive, member, file, line: 0 })
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut bytes = Vec::new();
        let mut limited = self.file.by_ref().take(LINE_LIMIT);
        limited.read_until(b'\n', &mut bytes).io("read", &self.archive.input.path)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if bytes.pop() != Some(b'\n') {
            return Err(self.bad("has no end"));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(self.bad(&error.to_string())),
        }
    }

    fn bad(&self, what: &str) -> IndexerError {
        self.archive.input.bad(self.member, format!("line {}: {what}", self.line))
    }
}

fn content(archive: &Archive, member: &str) -> Result<Take<BufReader<File>>> {
    let path = &archive.input.path;
    let mut file = File::open(path).io("open", path)?;
    file.seek(SeekFrom::Start(archive.offset(member))).io("read", path)?;
    let bytes = archive.info.members.iter().find(|one| one.name == member).map(|one| one.bytes);
    Ok(BufReader::with_capacity(1 << 20, file).take(bytes.unwrap_or(0)))
}

fn images(
    archive: &Archive,
    rewrite: &mut Rewrite,
    paths: &mut HashSet<[u8; 16]>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let info = &archive.info;
    let (dim, precision) = (info.manifest.model.dim, info.manifest.precision);
    let mut lines = Lines::open(archive, "records.jsonl")?;
    let mut table = content(archive, "vectors.npy")?;
    let path = &archive.input.path;
    let expected = npy_header(info.images, dim, precision);
    let mut header = vec![0; expected.len()];
    table.read_exact(&mut header).io("read", path)?;
    if header != expected {
        return Err(archive.input.bad("vectors.npy", "its header is another".to_owned()));
    }
    let mut values = vec![0; dim * precision.bytes()];
    let mut first_free = 0;
    for row in 0..info.images {
        if row % STEP == 0 {
            progress.step("restoring images", row, info.images, UNTOUCHED)?;
        }
        let Some(RecordLine { id, record }) = lines.next()? else {
            return Err(lines.bad("images are missing from here on"));
        };
        if id.0 < first_free || id.0 >= info.next_id {
            return Err(lines.bad(&format!("id {id} is not possible here")));
        }
        first_free = id.0 + 1;
        if record.row != row {
            return Err(lines.bad(&format!("row {} should be {row}", record.row)));
        }
        if record.sha256.to_bytes().is_none() {
            return Err(lines.bad("`sha256` is no hash"));
        }
        let record = Record { path: place(&lines, &record.path, paths)?, ..record };
        table.read_exact(&mut values).io("read", path)?;
        let vector = decode(&values, precision);
        if let Some(problem) = unsound_vector(&vector, precision) {
            return Err(archive.input.bad("vectors.npy", format!("row {row}: {problem}")));
        }
        rewrite.put(id, record, &vector)?;
    }
    match lines.next::<serde::de::IgnoredAny>()? {
        None => Ok(()),
        Some(_) => Err(lines.bad(&format!("there should be {} images only", info.images))),
    }
}

fn failures(archive: &Archive, rewrite: &mut Rewrite, paths: &mut HashSet<[u8; 16]>) -> Result<()> {
    let mut lines = Lines::open(archive, "failures.jsonl")?;
    while let Some(failure) = lines.next::<Failure>()? {
        let path = place(&lines, &failure.path, paths)?;
        rewrite.fail(Failure { path, ..failure })?;
    }
    if lines.line == archive.info.failures {
        return Ok(());
    }
    Err(lines.bad(&format!("there should be {} failures", archive.info.failures)))
}

/// A path in its one form, and of one line only.
fn place(lines: &Lines<'_>, path: &Locator, paths: &mut HashSet<[u8; 16]>) -> Result<Locator> {
    let bytes = path.as_bytes();
    let digest = Sha256::digest(bytes);
    let digest = digest.first_chunk::<16>().copied().unwrap_or_default();
    if bytes.is_empty() || !paths.insert(digest) {
        return Err(lines.bad(&format!("path `{path}` is empty or was there before")));
    }
    Ok(Locator::from_bytes(bytes))
}

fn decode(bytes: &[u8], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        Precision::F32 => {
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
    }
}
