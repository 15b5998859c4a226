//! Images and whole collections that are to go.

use std::path::{Path, PathBuf};

use super::layout::{Collections, Lock, manifest_path};
use super::rewrite::remove_folder;
use super::{Collection, reindex};
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ImageId;
use crate::locator::Locator;
use crate::record::{Known, SeenKind};

/// Removals in one commit.
const COMMIT_EVERY: usize = 1000;
/// How the folder of a deleted collection is called until it is gone; no collection's name starts so.
const DELETED: &str = ".deleted-";

/// Which images to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of this id.
    Id(ImageId),
    /// At this path.
    Path(Locator),
    /// At paths below this folder.
    Under(Locator),
}

/// What a removal took out, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveReport {
    /// Images, by id.
    pub images: Vec<(ImageId, Locator)>,
    /// Files that gave no image and were forgotten.
    pub failures: Vec<Locator>,
}

impl Collection {
    /// Removes images, and forgets files that gave none, and commits. Either all that is named is
    /// known, or nothing is removed. Files are not touched: those still in a folder come back when
    /// it is indexed again.
    ///
    /// # Errors
    /// Something named is not in the collection, or the catalog fails.
    pub fn remove_all(&mut self, which: &[Which], dry_run: bool) -> Result<RemoveReport> {
        let mut report = RemoveReport::default();
        for which in which {
            self.find(which, &mut report)?;
        }
        report.images.sort();
        report.images.dedup();
        report.failures.sort();
        report.failures.dedup();
        if dry_run {
            return Ok(report);
        }
        for (id, _) in &report.images {
            self.remove(*id)?;
            self.commit_when_many()?;
        }
        for path in &report.failures {
            self.forget_failure(path)?;
            self.commit_when_many()?;
        }
        self.finish()?;
        Ok(report)
    }

    fn commit_when_many(&mut self) -> Result<()> {
        if self.uncommitted() < COMMIT_EVERY {
            return Ok(());
        }
        self.commit()
    }

    fn find(&self, which: &Which, report: &mut RemoveReport) -> Result<()> {
        let unknown = |what: String| {
            let name = self.name();
            Err(IndexerError::InvalidRequest(format!(
                "{what} in collection `{name}`; nothing was removed"
            )))
        };
        match which {
            Which::Id(id) => match self.record(*id)? {
                Some(record) => report.images.push((*id, record.path)),
                None => return unknown(format!("there is no image {id}")),
            },
            Which::Path(path) => match self.known(path)? {
                Some(Known::Image(id, _)) => report.images.push((id, path.clone())),
                Some(Known::Failed(_)) => report.failures.push(path.clone()),
                None => return unknown(format!("nothing is known of {path}")),
            },
            Which::Under(folder) => {
                let before = report.images.len() + report.failures.len();
                let mut prefix = folder.as_bytes().to_vec();
                if !prefix.ends_with(b"/") {
                    prefix.push(b'/');
                }
                for entry in self.known_under(&prefix) {
                    let (path, seen) = entry?;
                    match seen.kind {
                        SeenKind::Image(id) => report.images.push((id, path)),
                        SeenKind::Failed => report.failures.push(path),
                    }
                }
                if report.images.len() + report.failures.len() == before {
                    return unknown(format!("nothing is known below {folder}"));
                }
            }
        }
        Ok(())
    }
}

impl Collections {
    /// Deletes a collection with everything in it. It can be one that is damaged. After an
    /// interruption it is whole or gone.
    ///
    /// # Errors
    /// No such collection, another process has it open, or the disk refuses.
    pub fn delete(&self, name: &str) -> Result<()> {
        let (folder, lock) = self.lock(name)?;
        let unfinished = folder.join(reindex::FOLDER);
        let reindex = match unfinished.is_dir() {
            true => Some(Lock::acquire(&unfinished, name)?),
            false => None,
        };
        self.remove_deleted()?;
        let aside = self.folder().join(format!("{DELETED}{name}"));
        std::fs::rename(&folder, &aside).io("rename", &folder)?;
        sync_folder(self.folder())?;
        // Without a manifest it is no collection, whatever it is called.
        let manifest = manifest_path(&aside);
        std::fs::remove_file(&manifest).io("remove", &manifest)?;
        remove_folder(&aside)?;
        drop((reindex, lock));
        Ok(())
    }

    /// Removes what interrupted deletions left.
    fn remove_deleted(&self) -> Result<()> {
        for folder in deleted(self.folder())? {
            // One that is being deleted at this moment is left to who does that.
            let Some(_lock) = Lock::try_acquire(&folder)? else { continue };
            remove_folder(&folder)?;
        }
        Ok(())
    }
}

fn deleted(home: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(home).io("list", home)? {
        let entry = entry.io("list", home)?;
        if entry.file_name().to_string_lossy().starts_with(DELETED) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}
