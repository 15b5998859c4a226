//! The same images under another model: new data grows beside the old, which goes on answering, and
//! takes its place when it is complete.
//!
//! The folder `reindex/` has a marker that says for which model it is, and otherwise what a data
//! folder has. Nothing else is remembered: what is left to do is what the old data has and the new
//! has not, so that going on after an interruption, and catching up with images added meanwhile,
//! are the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Embedder, ModelIdentity};
use serde::{Deserialize, Serialize};

use super::layout::{Collections, Lock};
use super::progress::Progress;
use super::rewrite::{Rewrite, remove_folder};
use super::{Collection, describe, room};
use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::LocatorKind;
use crate::manifest::Manifest;
use crate::pipeline::{self, Outcome, Skipped};
use crate::record::{Failure, FileStamp, Record};
use crate::source::{SourceFile, stamp_of};
use crate::vectors::Precision;

/// Where it grows.
pub(super) const FOLDER: &str = "reindex";
/// What says for which model.
const MARKER: &str = "target.json";
/// So few images are read while nobody else can use the collection; for more, it is let go.
const FEW: usize = 64;
/// Rounds of catching up before nobody else can use the collection for the rest.
const ROUNDS: usize = 4;
/// An interruption loses no more work than this.
const COMMIT_EVERY: Duration = Duration::from_secs(10);
const RESUMABLE: &str = "what was computed is kept, and the same command goes on from there";

/// Choices of a reindex.
#[derive(Clone, Debug, Default)]
pub struct ReindexOptions {
    /// How exactly vectors are kept from now on; as now if not given.
    pub precision: Option<Precision>,
    /// From this many images on, search goes through HNSW; as now if not given.
    pub ann_from: Option<u64>,
    /// What the model is opened by, to be remembered for searches.
    pub model_source: Option<String>,
    /// Drop an unfinished one for another model.
    pub restart: bool,
    /// Images may go whose whole folder, archive or host is not there.
    pub prune: bool,
}

/// What a reindex did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReindexReport {
    /// Images with a vector of the new model.
    pub images: u64,
    /// Of these, computed in this run; the others were there from an interrupted one.
    pub embedded: u64,
    /// Images that have none, because their file is gone or unreadable: they are failures now.
    pub skipped: Vec<Skipped>,
}

/// What the marker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Target {
    model: ModelIdentity,
    precision: Precision,
}

/// Old and new side by side.
struct Reindex<'a> {
    collections: &'a Collections,
    name: &'a str,
    embedder: &'a dyn Embedder,
    new: Rewrite,
    /// Images tried in this run, with the content hash the old data had then.
    tried: HashMap<ImageId, ContentHash>,
    /// Images whose file is gone together with what it lies in.
    unreachable: Vec<PathBuf>,
    report: ReindexReport,
}

impl Collections {
    /// Computes every image's embedding again, with another model or other settings, from the file it
    /// came from, and then swaps. Ids and payloads stay; images whose file is gone or unreadable
    /// become failures. Others can search and write meanwhile: the collection is only taken to list
    /// what is to do and to swap.
    ///
    /// # Errors
    /// No such collection, or it is in use; a reindex for another model is unfinished; whole folders
    /// of images are missing and `prune` is not set; the disk has too little room. In all cases, and
    /// when `progress` says to stop, the collection is as it was, and what was computed is kept for
    /// the next call.
    pub fn reindex(
        &self,
        name: &str,
        embedder: &dyn Embedder,
        options: &ReindexOptions,
        progress: &mut Progress<'_>,
    ) -> Result<ReindexReport> {
        let (collection_folder, lock) = self.lock(name)?;
        let manifest = self.manifest(name)?;
        let folder = collection_folder.join(FOLDER);
        std::fs::create_dir_all(&folder).io("create", &folder)?;
        let own_lock = Lock::acquire(&folder, name)?;
        let like = Manifest {
            fingerprint: embedder.identity().fingerprint(),
            model: embedder.identity().clone(),
            model_source: options.model_source.clone(),
            precision: options.precision.unwrap_or(manifest.precision),
            ann_from: options.ann_from.unwrap_or(manifest.ann_from),
            ..manifest
        };
        prepare(&folder, name, &like, options.restart)?;
        let data = collection_folder.join(&like.data);
        let catalog = room::folder_bytes(&data.join("catalog"))?;
        let needed = room::needed(&like, like.images, catalog);
        room::require(&folder, needed.saturating_sub(room::folder_bytes(&folder)?))?;
        let new = Rewrite::resume(&collection_folder, FOLDER, like.model.dim, like.precision)
            .map_err(|error| unsound(name, &error))?;
        drop(lock);
        let mut reindex = Reindex {
            collections: self,
            name,
            embedder,
            new,
            tried: HashMap::new(),
            unreachable: Vec::new(),
            report: ReindexReport::default(),
        };
        let old = reindex.bring_up_to_date(progress)?;
        reindex.refuse_missing_folders(options.prune)?;
        let Reindex { new, mut report, .. } = reindex;
        report.images = new.images();
        let (next_id, sequence) = (old.meta.next_id, old.meta.sequence);
        let lock = Arc::clone(&old.lock);
        let like = Manifest { data: old.manifest.data.clone(), ..like };
        drop(old);
        let manifest = new.swap(&like, next_id, sequence)?;
        let data = collection_folder.join(&manifest.data);
        for leftover in [MARKER, "lock"] {
            // Harmless where they are; only tidiness.
            let _ = std::fs::remove_file(data.join(leftover));
        }
        drop((own_lock, lock));
        report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }
}

impl Collections {
    /// Drops what an unfinished reindex computed. False when there is none.
    ///
    /// # Errors
    /// No such collection, or it or the reindex is in use.
    pub fn abandon_reindex(&self, name: &str) -> Result<bool> {
        let (folder, lock) = self.lock(name)?;
        let folder = folder.join(FOLDER);
        if !folder.is_dir() {
            return Ok(false);
        }
        let own_lock = Lock::acquire(&folder, name)?;
        // Without its marker it is not gone on with, whatever is left of it.
        let marker = folder.join(MARKER);
        match std::fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).io("remove", &marker);
            }
            _ => remove_folder(&folder)?,
        }
        drop((own_lock, lock));
        Ok(true)
    }
}

/// Makes sure that what is in the folder is for this target, or nothing.
fn prepare(folder: &Path, name: &str, like: &Manifest, restart: bool) -> Result<()> {
    let marker = folder.join(MARKER);
    let target = Target { model: like.model.clone(), precision: like.precision };
    let found = std::fs::read(&marker).ok();
    let found: Option<Target> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match found {
        Some(found) if found == target && !restart => return Ok(()),
        Some(found) if !restart => {
            return Err(IndexerError::InvalidRequest(format!(
                "a reindex of `{name}` to {}, {} is unfinished, this is {}, {}: go on with that one, \
                 or drop what it computed with --restart",
                describe(&found.model),
                found.precision,
                describe(&target.model),
                target.precision,
            )));
        }
        _ => {}
    }
    for part in ["catalog", "vectors", "ann"] {
        remove_folder(&folder.join(part))?;
    }
    replace_file(&marker, |file| Ok(serde_json::to_writer_pretty(file, &target)?))
}

fn unsound(name: &str, error: &IndexerError) -> IndexerError {
    IndexerError::InvalidRequest(format!(
        "the unfinished reindex of `{name}` cannot be gone on with ({error}); begin anew with \
         --restart"
    ))
}

impl Reindex<'_> {
    /// Until the new data has what the old has. The old is returned open, so that nobody changes it
    /// before the swap.
    fn bring_up_to_date(&mut self, progress: &mut Progress<'_>) -> Result<Collection> {
        for round in 1.. {
            let old = self.collections.open(self.name)?;
            let to_read = self.difference(&old)?;
            if to_read.is_empty() {
                return Ok(old);
            }
            if to_read.len() <= FEW || round >= ROUNDS {
                self.embed(to_read, progress)?;
                // Nobody else can have changed anything.
                self.difference(&old)?;
                return Ok(old);
            }
            drop(old);
            self.embed(to_read, progress)?;
        }
        Err(IndexerError::Stopped { left: RESUMABLE })
    }

    /// Brings everything over that needs no picture, and gives the images whose picture is to be
    /// read.
    fn difference(&mut self, old: &Collection) -> Result<Vec<(ImageId, Record)>> {
        let mut to_read = Vec::new();
        for image in old.images() {
            let (id, record) = image?;
            let was_tried = self.tried.get(&id) == Some(&record.sha256);
            match self.new.catalog().record(id)? {
                Some(new) if was_tried || new.sha256 == record.sha256 => {
                    self.follow(id, new, record)?;
                }
                _ if was_tried => {}
                _ => to_read.push((id, record)),
            }
        }
        // What the old data no longer knows of. Only that is collected, not everything.
        let is_gone = |image: &Result<(ImageId, Record)>| match image {
            Ok((id, _)) => !matches!(old.record(*id), Ok(Some(_))),
            Err(_) => true,
        };
        let gone: Vec<(ImageId, Record)> =
            self.new.catalog().images_from(ImageId(0)).filter(is_gone).collect::<Result<_>>()?;
        for (id, record) in gone {
            self.new.remove(id, &record)?;
        }
        let is_gone = |failure: &Result<Failure>| match failure {
            Ok(failure) => !matches!(old.known(&failure.path), Ok(Some(_))),
            Err(_) => true,
        };
        let gone: Vec<Failure> =
            self.new.catalog().failures().filter(is_gone).collect::<Result<_>>()?;
        for failure in gone {
            self.new.forget_failure(&failure.path)?;
        }
        for failure in old.catalog.failures() {
            let failure = failure?;
            if self.new.catalog().failure(failure.path.as_bytes())?.as_ref() != Some(&failure) {
                self.new.fail(failure)?;
            }
        }
        self.new.commit()?;
        Ok(to_read)
    }

    /// Brings over what changed of an image besides its picture.
    fn follow(&mut self, id: ImageId, new: Record, old: Record) -> Result<()> {
        if new.path == old.path && new.payload == old.payload {
            return Ok(());
        }
        let stamp = if new.path == old.path { new.stamp } else { old.stamp };
        let record = Record { path: old.path, payload: old.payload, stamp, ..new.clone() };
        self.new.set(id, &new, record)
    }

    fn embed(&mut self, images: Vec<(ImageId, Record)>, progress: &mut Progress<'_>) -> Result<()> {
        let of = images.len() as u64;
        let mut files = Vec::with_capacity(images.len());
        let mut waiting = Vec::with_capacity(images.len());
        for (id, record) in images {
            match present(&record) {
                Ok(stamp) => {
                    files.push(SourceFile { path: record.path.to_path(), stamp });
                    waiting.push((id, record));
                }
                Err(Missing { reason, is_unreachable }) => {
                    let path = record.path.to_path();
                    if is_unreachable {
                        self.unreachable.push(path.clone());
                    }
                    // A stamp that no file has: when it comes back, it is read.
                    let skipped = Skipped { path, reason, not_a_picture: false };
                    self.skip(id, record, skipped, FileStamp::default())?;
                }
            }
        }
        let mut waiting = waiting.into_iter();
        let mut done = of - files.len() as u64;
        progress.step("embedding", done, of, RESUMABLE)?;
        let mut last_commit = Instant::now();
        let (embedder, cancel) = (self.embedder, progress.flag());
        pipeline::run(
            &files,
            embedder,
            cancel,
            &|_, _| false,
            &|batch| embedder.embed(batch),
            &mut |file, outcome| {
                let Some((id, record)) = waiting.next() else { return Ok(()) };
                match outcome {
                    Outcome::Done(picture, embedding) => {
                        self.tried.insert(id, record.sha256.clone());
                        self.report.embedded += 1;
                        let record = Record {
                            sha256: picture.sha256,
                            stamp: file.stamp,
                            width: picture.width,
                            height: picture.height,
                            warning: picture.warning,
                            ..record
                        };
                        self.forget(id)?;
                        self.new.put(id, record, embedding.as_slice())?;
                    }
                    Outcome::Skipped(skipped) => {
                        // The net may only be away for now.
                        if matches!(record.path.kind(), LocatorKind::Url(_)) {
                            self.unreachable.push(file.path.clone());
                        }
                        self.skip(id, record, skipped, file.stamp)?;
                    }
                    // Nothing is taken for unchanged here.
                    Outcome::Unchanged => {}
                }
                done += 1;
                if last_commit.elapsed() >= COMMIT_EVERY {
                    self.new.commit()?;
                    last_commit = Instant::now();
                }
                // The flag is looked at between batches; what is complete is kept.
                let _ = progress.step("embedding", done, of, RESUMABLE);
                Ok(())
            },
        )?;
        self.new.commit()?;
        progress.step("embedding", done, of, RESUMABLE)
    }

    fn skip(
        &mut self,
        id: ImageId,
        record: Record,
        skipped: Skipped,
        stamp: FileStamp,
    ) -> Result<()> {
        self.tried.insert(id, record.sha256);
        self.forget(id)?;
        self.new.fail(Failure {
            path: record.path,
            reason: skipped.reason.clone(),
            not_a_picture: false,
            stamp,
        })?;
        self.report.skipped.push(skipped);
        Ok(())
    }

    /// An earlier vector of this image, if any, is of a file that is no more.
    fn forget(&mut self, id: ImageId) -> Result<()> {
        match self.new.catalog().record(id)? {
            Some(earlier) => self.new.remove(id, &earlier),
            None => Ok(()),
        }
    }

    /// A disk that is not mounted must not empty a collection.
    fn refuse_missing_folders(&self, prune: bool) -> Result<()> {
        let Some(first) = self.unreachable.first().filter(|_| !prune) else { return Ok(()) };
        Err(IndexerError::InvalidRequest(format!(
            "{} images are missing together with their folder, archive or host, such as {}; `{}` is as \
             it was, and the new vectors are kept. Is a disk not mounted, or the net away? Then run \
             this again when it is back; if they are gone for good, add --prune",
            self.unreachable.len(),
            first.display(),
            self.name,
        )))
    }
}

/// Why a picture cannot be read.
struct Missing {
    reason: String,
    /// Not only it is not there, but what it lies in.
    is_unreachable: bool,
}

/// The stamp that the picture's record is to have, if there is something to read.
fn present(record: &Record) -> Result<FileStamp, Missing> {
    let path = record.path.to_path();
    match record.path.kind() {
        LocatorKind::Url(_) => Ok(record.stamp),
        // A folder may be named like an archive, with the exclamation mark.
        LocatorKind::Member { archive, .. } if !path.exists() => match archive.exists() {
            true => Ok(record.stamp),
            false => {
                let reason = format!("the archive {} is gone", archive.display());
                Err(Missing { reason, is_unreachable: true })
            }
        },
        _ => stamp_of(&path).map_err(|error| Missing {
            is_unreachable: !path.parent().is_some_and(Path::exists),
            reason: match error.kind() {
                std::io::ErrorKind::NotFound => "the file is gone".to_owned(),
                _ => format!("it cannot be read: {error}"),
            },
        }),
    }
}
