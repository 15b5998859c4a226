//! A curated run, or a whole collection, as files other programs load.
//!
//! An export is a folder that appears whole or not at all: it is made under another name beside it.
//! Every export has `manifest.jsonl` (what is in it: a contract), `README.md` (a dataset card),
//! `export.json` (what it is, with the hash of every file) and, when sets were excluded,
//! `certificate.json` (nothing in it is like them).

mod names;
mod entries;
mod files;
mod rows;
mod parquet;
mod npy;
mod webdataset;
mod coco;
mod certificate;
mod card;
mod verify;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

pub use self::certificate::{Certificate, CertifiedPair, Side};
use self::entries::Entry;
pub use self::verify::{Verification, verify};
use crate::collection::View;
use crate::curate::manifest::ManifestLine;
use crate::curate::{ImageSet, Run, RunInfo, manifest};
use crate::durable::{replace_file, sync_folder};
use crate::error::{IndexerError, IoContext, Result};
use crate::pipeline::Skipped;

/// Layout of `export.json`.
pub const EXPORT_FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.jsonl";
const EXPORT_FILE: &str = "export.json";
const CERTIFICATE: &str = "certificate.json";
/// Held by the process that makes an export; gone when that is complete.
const LOCK: &str = ".lock";

/// How an export is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `data.parquet`.
    Parquet,
    /// `data.jsonl`.
    Jsonl,
    /// `data.csv`.
    Csv,
    /// `images/` and `metadata.jsonl`, as Hugging Face `datasets` loads them.
    Imagefolder,
    /// `data-NNNNNN.tar` with picture, JSON and perhaps embedding of each image.
    Webdataset,
    /// `annotations.json` and `images/`.
    Coco,
}

/// How originals are brought along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Files {
    /// Not at all: the export names where they are.
    None,
    /// Copied.
    Copy,
    /// By further names of the same files; on one disk only.
    Hardlink,
    /// By links to where they are.
    Symlink,
}

/// Choices of one export.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// Layout.
    pub format: Format,
    /// How originals are brought along; by default copied for formats that hold pictures, not at
    /// all for tables.
    pub files: Option<Files>,
    /// Add the embeddings.
    pub embeddings: bool,
    /// Fail when an original is missing or changed, rather than leave it out.
    pub strict: bool,
    /// Samples in a shard of `webdataset`.
    pub shard_samples: usize,
    /// How far below the threshold pairs are listed in the certificate.
    pub margin: f32,
}

/// What is exported.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// The result of a run, with its pool and the sets it excluded.
    Run {
        /// Finished.
        run: &'a Run,
        /// The pool's collection.
        pool: &'a ImageSet,
        /// In the order of the run.
        excluded: &'a [ImageSet],
    },
    /// All images of a collection.
    Collection(&'a ImageSet),
}

/// What an export did.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// Images in it.
    pub images: usize,
    /// Images left out, with reasons.
    pub skipped: Vec<Skipped>,
    /// Of the certificate, when sets were excluded.
    pub certificate: Option<Certificate>,
}

/// One file of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Below the export's folder, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub sha256: String,
}

/// `export.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportInfo {
    /// Layout of this file.
    pub format_version: u32,
    /// Release that made it.
    pub akin: String,
    /// Layout of the export.
    pub format: Format,
    /// How originals came along.
    pub files: Files,
    /// Images in it.
    pub images: usize,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of model and settings.
    pub fingerprint: String,
    /// Collection of the pool.
    pub collection: String,
    /// The run it is the result of, if it is one's.
    pub run: Option<RunInfo>,
    /// Every file but this one and the originals, which `manifest.jsonl` has.
    pub contents: Vec<Content>,
}

impl<'a> Selection<'a> {
    fn pool(&self) -> &'a ImageSet {
        match self {
            Self::Run { pool, .. } | Self::Collection(pool) => pool,
        }
    }

    fn view(&self) -> &'a View {
        self.pool().view()
    }

    fn check(&self) -> Result<()> {
        let Self::Run { run, pool, excluded } = self else { return Ok(()) };
        let info = run.info();
        let (ours, theirs) = (&info.fingerprint, &pool.view().manifest().fingerprint);
        if ours != theirs || info.pool.collection != pool.view().name() {
            return Err(IndexerError::InvalidRequest(format!(
                "the run was made of collection `{}` with model fingerprint {ours}; `{}` is not \
                 that: curate again",
                info.pool.collection,
                pool.view().name()
            )));
        }
        match excluded.len() == info.excluded.len() {
            true => Ok(()),
            false => Err(IndexerError::InvalidRequest(
                "not all excluded sets of the run are there: nothing can be certified".to_owned(),
            )),
        }
    }
}

/// Writes an export.
///
/// # Errors
/// `out` exists and is not empty, something would be a leak, an original is missing or changed and
/// `strict` is set, the disk refuses, or [`IndexerError::Cancelled`]; nothing is left then.
pub fn export(
    out: &Path,
    selection: Selection<'_>,
    options: &ExportOptions,
    on_done: &mut dyn FnMut(usize),
    cancel: &AtomicBool,
) -> Result<ExportReport> {
    selection.check()?;
    let files = files_of(options)?;
    let work = Workplace::create(out)?;
    let (entries, mut skipped) = entries::of(&selection)?;
    let placed = match options.format {
        Format::Webdataset => {
            webdataset::write(work.path(), &selection, entries, options, on_done, cancel)?
        }
        _ => files::place(work.path(), entries, files, on_done, cancel)?,
    };
    let (entries, gone) = placed;
    skipped.extend(gone);
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(first) = skipped.first().filter(|_| options.strict) {
        return Err(IndexerError::InvalidRequest(format!(
            "{} of the images cannot be exported, and nothing was; the first is {}: {}",
            skipped.len(),
            first.path.display(),
            first.reason
        )));
    }
    write_format(work.path(), &selection, &entries, options)?;
    let lines: Vec<&ManifestLine> = entries.iter().map(|entry| &entry.line).collect();
    manifest::write(&work.path().join(MANIFEST), lines.into_iter())?;
    let certificate = certificate::of(&selection, &entries, options.margin, cancel)?;
    if let Some(certificate) = &certificate {
        refuse_leaks(certificate)?;
        write_json(&work.path().join(CERTIFICATE), certificate)?;
    }
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    card::write(work.path(), &name, &selection, &entries, (options, certificate.as_ref()))?;
    let manifest = selection.view().manifest();
    let run = match selection {
        Selection::Run { run, .. } => Some(run.info().clone()),
        Selection::Collection(_) => None,
    };
    let info = ExportInfo {
        format_version: EXPORT_FORMAT,
        akin: env!("CARGO_PKG_VERSION").to_owned(),
        format: options.format,
        files,
        images: entries.len(),
        model: manifest.model.name.clone(),
        fingerprint: manifest.fingerprint.clone(),
        collection: selection.view().name().to_owned(),
        run,
        contents: verify::contents(work.path(), &entries)?,
    };
    write_json(&work.path().join(EXPORT_FILE), &info)?;
    work.finish()?;
    Ok(ExportReport { images: entries.len(), skipped, certificate })
}

/// How originals come along, if these choices go together.
fn files_of(options: &ExportOptions) -> Result<Files> {
    let default = match options.format {
        Format::Parquet | Format::Jsonl | Format::Csv | Format::Coco => Files::None,
        Format::Imagefolder | Format::Webdataset => Files::Copy,
    };
    let files = options.files.unwrap_or(default);
    let bad = |reason: &str| Err(IndexerError::InvalidRequest(reason.to_owned()));
    match (options.format, files) {
        (Format::Imagefolder, Files::None) => {
            bad("an image folder needs its pictures: choose copy, hardlink or symlink")
        }
        (Format::Webdataset, Files::Hardlink | Files::Symlink | Files::None) => {
            bad("shards hold copies of the pictures; leave `--files` out")
        }
        _ if options.shard_samples == 0 => bad("a shard needs at least 1 sample"),
        _ => Ok(files),
    }
}

fn write_format(
    folder: &Path,
    selection: &Selection<'_>,
    entries: &[Entry],
    options: &ExportOptions,
) -> Result<()> {
    let vectors = options.embeddings.then(|| selection.view());
    match options.format {
        Format::Parquet => {
            let path = folder.join("data.parquet");
            return parquet::write(&path, entries, selection.view(), options.embeddings);
        }
        Format::Jsonl => rows::write_jsonl(&folder.join("data.jsonl"), entries)?,
        Format::Csv => rows::write_csv(&folder.join("data.csv"), entries)?,
        Format::Imagefolder => rows::write_metadata(&folder.join("metadata.jsonl"), entries)?,
        Format::Coco => coco::write(&folder.join("annotations.json"), entries)?,
        // Its shards have everything.
        Format::Webdataset => return Ok(()),
    }
    match vectors {
        Some(view) => npy::write(&folder.join("embeddings.npy"), entries, view),
        None => Ok(()),
    }
}

fn refuse_leaks(certificate: &Certificate) -> Result<()> {
    let Some(pair) = certificate.pairs.first().filter(|_| certificate.leaks > 0) else {
        return Ok(());
    };
    Err(IndexerError::InvalidRequest(format!(
        "{} pairs of the result and of excluded sets are at or above the threshold {}, and nothing \
         was exported; the first is {} and {}, similarity {:.4}: curate again",
        certificate.leaks,
        certificate.threshold,
        pair.kept_path,
        pair.excluded_path,
        pair.similarity
    )))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    replace_file(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Where an export is made before it gets its name.
struct Workplace {
    out: PathBuf,
    partial: PathBuf,
    finished: bool,
    _lock: File,
}

impl Workplace {
    /// Refuses a folder that has something in it; starts anew what was not finished.
    fn create(out: &Path) -> Result<Self> {
        let refuse = |reason: &str| {
            Err(IndexerError::Source { path: out.to_path_buf(), reason: reason.to_owned() })
        };
        match std::fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                return refuse("it is not empty, and nothing is overwritten; name a new folder");
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return refuse("this is a file; name a new folder");
            }
            Err(error) => return Err(error).io("open", out),
        }
        let Some(name) = out.file_name() else { return refuse("this cannot be a new folder") };
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).io("create", parent)?;
        let partial = parent.join(format!(".{}.partial", name.to_string_lossy()));
        std::fs::create_dir_all(&partial).io("create", &partial)?;
        let lock = partial.join(LOCK);
        let mut options = File::options();
        let file =
            options.create(true).truncate(false).write(true).open(&lock).io("open", &lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error).io("lock", &lock),
            Err(TryLockError::WouldBlock) => {
                return refuse("another process is exporting to it; wait, or name another folder");
            }
        }
        for entry in std::fs::read_dir(&partial).io("list", &partial)? {
            let path = entry.io("list", &partial)?.path();
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path).io("remove", &path)?;
            } else if path != lock {
                std::fs::remove_file(&path).io("remove", &path)?;
            }
        }
        Ok(Self { out: out.to_path_buf(), partial, finished: false, _lock: file })
    }

    fn path(&self) -> &Path {
        &self.partial
    }

    fn finish(mut self) -> Result<()> {
        let lock = self.partial.join(LOCK);
        std::fs::remove_file(&lock).io("remove", &lock)?;
        sync_folder(&self.partial)?;
        if self.out.is_dir() {
            // Empty, or this fails.
            std::fs::remove_dir(&self.out).io("replace", &self.out)?;
        }
        std::fs::rename(&self.partial, &self.out).io("create", &self.out)?;
        self.finished = true;
        sync_folder(
            self.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is removed by the next export of this name.
            let _ = std::fs::remove_dir_all(&self.partial);
        }
    }
}
