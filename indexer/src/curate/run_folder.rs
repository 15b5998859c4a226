//! The folder of a run: one folder per step, written whole, and `run.json` when all is done.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::CurateConfig;
use super::output::{Retrieved, StepOutput};
use crate::durable::{replace_file, sync_folder};
use crate::error::{IndexerError, IoContext, Result};
use crate::record;

/// Layout of a run's folder.
pub const RUN_FORMAT: u32 = 1;
/// Marks a folder as a run's, and is locked while one works on it.
const LOCK: &str = "run.lock";
const RUN_FILE: &str = "run.json";
const STEP_FILE: &str = "step.json";
const OUTPUT_FILE: &str = "output.bin";

/// A set as a run used it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetInfo {
    /// Name it is reported by.
    pub name: String,
    /// Its collection.
    pub collection: String,
    /// Images in it.
    pub images: usize,
    /// Hash over ids, rows and file hashes.
    pub digest: String,
}

/// One step as it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Number and name: `01-self-dedup`.
    pub folder: String,
    /// Hash of everything that decides what it does: parameters, what it reads, the step before.
    pub key: String,
    /// Parameters as configured.
    pub parameters: serde_json::Value,
    /// Digests of the sets it reads.
    pub reads: BTreeMap<String, String>,
    /// Images before it.
    pub images_in: usize,
    /// Images after it.
    pub images_out: usize,
    /// Cosine similarity that was applied, if one was.
    pub threshold: Option<f32>,
    /// Counts and measures, by name.
    pub figures: BTreeMap<String, f64>,
    /// SHA-256 of its output.
    pub output_sha256: String,
}

/// A line of the accounting table: one seed set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// How retrieval went.
    #[serde(flatten)]
    pub retrieved: Retrieved,
    /// Of `retrieved`, still there after later steps.
    pub left: usize,
    /// Of `left`, counted for another seed set, that they are more like.
    pub shared: usize,
    /// In the result for this set.
    pub kept: usize,
}

/// `run.json`: what a finished run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Layout of the folder.
    pub format_version: u32,
    /// Release that made it.
    pub akin: String,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of model and settings.
    pub fingerprint: String,
    /// What was curated.
    pub pool: SetInfo,
    /// What it grew from.
    pub seeds: Vec<SetInfo>,
    /// What it must not be like.
    pub excluded: Vec<SetInfo>,
    /// Steps and seed.
    pub config: CurateConfig,
    /// Steps as done, in order.
    pub steps: Vec<StepInfo>,
    /// One line for each seed set.
    pub accounts: Vec<Account>,
    /// Images in the result.
    pub kept: usize,
    /// Images in by a decision of review alone.
    pub accepted: usize,
    /// Images out by a decision of review.
    pub rejected: usize,
    /// SHA-256 of the journal of decisions that `manifest.jsonl` and `ledger.parquet` honour.
    pub journal_sha256: String,
}

/// The finished run of a folder; an unfinished one is an error.
pub(crate) fn read_info(folder: &Path) -> Result<RunInfo> {
    let path = folder.join(RUN_FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(IndexerError::Source {
                path: folder.to_path_buf(),
                reason: "the curation is not finished; run the same `akin curate` again".to_owned(),
            });
        }
        read => read.io("read", &path)?,
    };
    let damaged = |reason: String| IndexerError::Damaged { path: path.clone(), reason };
    let info: RunInfo = serde_json::from_slice(&bytes)
        .map_err(|error| damaged(format!("{error}; run the same `akin curate` again")))?;
    match info.format_version {
        RUN_FORMAT => Ok(info),
        other => Err(damaged(format!(
            "it has format {other}, this release reads {RUN_FORMAT}; use a newer akin"
        ))),
    }
}

/// A run's folder, locked.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Creates or opens the folder of a run.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let is_new = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).io("create", path)?;
                true
            }
            Err(error) => return Err(error).io("open", path),
        };
        if !is_new && !Self::is_one(path) {
            return Err(IndexerError::Source {
                path: path.to_path_buf(),
                reason: "it is not empty and no curation's; name another folder".to_owned(),
            });
        }
        Self::lock(path)
    }

    /// Opens the folder of a run that there is.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !Self::is_one(path) {
            return Err(IndexerError::Source {
                path: path.to_path_buf(),
                reason: "this is no folder of `akin curate`".to_owned(),
            });
        }
        Self::lock(path)
    }

    /// Whether a folder is a run's, finished or not.
    pub(crate) fn is_one(path: &Path) -> bool {
        path.join(LOCK).is_file()
    }

    fn lock(path: &Path) -> Result<Self> {
        let name = path.join(LOCK);
        let mut options = File::options();
        let file =
            options.create(true).truncate(false).write(true).open(&name).io("open", &name)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: file }),
            Err(TryLockError::Error(error)) => Err(error).io("lock", &name),
            Err(TryLockError::WouldBlock) => Err(IndexerError::InvalidRequest(format!(
                "another process works on {}; try again when it is done",
                path.display()
            ))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The finished run; an unfinished one is an error.
    pub(crate) fn info(&self) -> Result<RunInfo> {
        read_info(&self.path)
    }

    /// Says that the run is finished.
    pub(crate) fn finish(&self, info: &RunInfo) -> Result<()> {
        replace_file(&self.path.join(RUN_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, info)?;
            file.write_all(b"\n")
        })
    }

    /// Says that the run is being worked on.
    pub(crate) fn unfinish(&self) -> Result<()> {
        let path = self.path.join(RUN_FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => {
                removed.io("remove", &path)?;
                sync_folder(&self.path)
            }
        }
    }

    /// What a step with this key said, and the hash of that, if it is there and intact.
    pub(crate) fn load(&self, folder: &str, key: &str) -> Option<(StepOutput, String)> {
        let folder = self.path.join(folder);
        let info = std::fs::read(folder.join(STEP_FILE)).ok()?;
        let info: StepInfo = serde_json::from_slice(&info).ok()?;
        let output = std::fs::read(folder.join(OUTPUT_FILE)).ok()?;
        let intact = info.key == key && info.output_sha256 == sha256(&output);
        Some((record::decode(&output)?, info.output_sha256)).filter(|_| intact)
    }

    /// Writes a step's folder: whole or not at all.
    pub(crate) fn save(&self, info: &mut StepInfo, output: &StepOutput) -> Result<()> {
        let bytes = record::encode(output).ok_or_else(|| {
            IndexerError::InvalidRequest(format!("step {} cannot be written", info.folder))
        })?;
        info.output_sha256 = sha256(&bytes);
        let partial = self.path.join(format!(".{}.partial", info.folder));
        let folder = self.path.join(&info.folder);
        remove(&partial)?;
        std::fs::create_dir(&partial).io("create", &partial)?;
        replace_file(&partial.join(OUTPUT_FILE), |file| file.write_all(&bytes))?;
        replace_file(&partial.join(STEP_FILE), |file| {
            serde_json::to_writer_pretty(&mut *file, info)?;
            file.write_all(b"\n")
        })?;
        remove(&folder)?;
        std::fs::rename(&partial, &folder).io("replace", &folder)?;
        sync_folder(&self.path)
    }

    /// Removes folders of steps that are no longer part of the run.
    pub(crate) fn remove_others(&self, steps: &[StepInfo]) -> Result<()> {
        for entry in std::fs::read_dir(&self.path).io("list", &self.path)? {
            let path = entry.io("list", &self.path)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_step = path.is_dir()
                && name.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit())
                && (path.join(STEP_FILE).is_file() || name.ends_with(".partial"));
            if is_step && steps.iter().all(|step| step.folder != name) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.io("remove", folder),
    }
}

/// In lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
