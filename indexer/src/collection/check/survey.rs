//! A look at everything: files first, then entries (`entries.rs`), then graphs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;

use super::entries;
use super::report::{CheckReport, Cure, LISTED, Violation};
use crate::ann::Audit;
use crate::catalog::{Catalog, Meta};
use crate::collection::layout::manifest_path;
use crate::collection::progress::Progress;
use crate::collection::rewrite::is_temporary;
use crate::collection::{reindex, room};
use crate::error::{IoContext, Result};
use crate::id::ImageId;
use crate::manifest::Manifest;
use crate::vectors::{Rows, inspect};

/// What a look at a collection found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    name: String,
    pub(super) manifest: Option<Manifest>,
    /// `None` when it is missing or damaged.
    pub(super) meta: Option<Meta>,
    /// Rows of readable records.
    pub(super) owned: RoaringBitmap,
    pub(super) images: u64,
    pub(super) failures: u64,
    /// Failures that look like pictures.
    pub(super) pictures_failed: u64,
    pub(super) rows: u64,
    /// Above every id seen.
    pub(super) free_id: u64,
    /// Images to remove, with what is wrong with them.
    pub(super) bad: BTreeMap<ImageId, String>,
    /// What the graphs need, besides violations.
    pub(super) lacks_graph: bool,
    pub(super) leftovers: Vec<PathBuf>,
    /// What cures all of it.
    pub(super) cure: Cure,
    found: u64,
    violations: Vec<Violation>,
    notes: Vec<String>,
}

impl Survey {
    pub(super) fn take(folder: &Path, name: &str, progress: &mut Progress<'_>) -> Result<Self> {
        let mut survey = Self { name: name.to_owned(), ..Self::default() };
        let Some(manifest) = survey.read_manifest(folder) else { return Ok(survey) };
        survey.list_leftovers(folder, &manifest)?;
        let data = folder.join(&manifest.data);
        survey.manifest = Some(manifest.clone());
        let Some(catalog) = survey.open_catalog(&data, &manifest) else { return Ok(survey) };
        survey.read_meta(&catalog, &data, &manifest);
        let rows = survey.read_shards(&data, &manifest)?;
        entries::look_at_all(&mut survey, &catalog, &rows, progress)?;
        survey.look_at_graphs(&data, &manifest);
        Ok(survey)
    }

    pub(super) fn report(&self) -> CheckReport {
        CheckReport {
            images: self.images,
            failures: self.failures,
            rows: self.rows,
            found: self.found,
            remaining: self.found,
            violations: self.violations.clone(),
            notes: self.notes.clone(),
            actions: Vec::new(),
        }
    }

    /// Something that must not be.
    pub(super) fn violation(&mut self, subject: String, problem: impl Into<String>, cure: Cure) {
        self.found += 1;
        self.cure = self.cure.max(cure);
        if self.violations.len() < LISTED {
            let remedy = cure.remedy(&self.name);
            self.violations.push(Violation { subject, problem: problem.into(), remedy });
        }
    }

    fn read_manifest(&mut self, folder: &Path) -> Option<Manifest> {
        let path = manifest_path(folder);
        let subject = path.display().to_string();
        let manifest = match Manifest::read(&path, &self.name) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.violation(subject, format!("it cannot be read: {error}"), Cure::Backup);
                return None;
            }
        };
        if manifest.fingerprint != manifest.model.fingerprint() {
            let problem = "its fingerprint is not that of the model it names";
            self.violation(subject, problem, Cure::Backup);
        }
        Some(manifest)
    }

    fn list_leftovers(&mut self, folder: &Path, manifest: &Manifest) -> Result<()> {
        for entry in std::fs::read_dir(folder).io("list", folder)? {
            let entry = entry.io("list", folder)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == reindex::FOLDER {
                self.notes.push(format!(
                    "an unfinished reindex takes {}: run the same `akin collection reindex` again, \
                     or drop it with --abandon",
                    megabytes(&entry.path())?
                ));
            } else if name == "next" || (name.starts_with("data-") && name != manifest.data) {
                self.notes.push(format!(
                    "{name} ({}) was left by an interruption; it goes when the collection is opened",
                    megabytes(&entry.path())?
                ));
                self.leftovers.push(entry.path());
            } else if is_temporary(&name) {
                self.notes.push(format!("{name} was left by an interruption"));
                self.leftovers.push(entry.path());
            }
        }
        Ok(())
    }

    fn open_catalog(&mut self, data: &Path, manifest: &Manifest) -> Option<Catalog> {
        let path = data.join("catalog");
        let subject = path.display().to_string();
        if !path.is_dir() {
            if manifest.rows > 0 || manifest.failed > 0 {
                self.violation(subject, "the catalog is missing", Cure::Backup);
            }
            return None;
        }
        match Catalog::open(&path) {
            Ok(catalog) if catalog.is_blank() && (manifest.rows > 0 || manifest.failed > 0) => {
                self.violation(
                    subject,
                    "the catalog is damaged: nothing in it can be read",
                    Cure::Backup,
                );
                None
            }
            Ok(catalog) => Some(catalog),
            Err(error) => {
                self.violation(subject, format!("it cannot be opened: {error}"), Cure::Backup);
                None
            }
        }
    }

    fn read_meta(&mut self, catalog: &Catalog, data: &Path, manifest: &Manifest) {
        let subject = data.join("catalog").display().to_string();
        match catalog.meta() {
            Ok(meta) if meta == Meta::default() && manifest.rows > 0 => {
                self.violation(subject, "its counters are missing", Cure::Copy);
            }
            Ok(meta) => {
                if meta.rows < manifest.rows {
                    let problem = format!(
                        "it knows of {} rows, the manifest of {}: images of later commits are lost, \
                         and `akin index` finds their files again",
                        meta.rows, manifest.rows
                    );
                    self.violation(subject, problem, Cure::Copy);
                }
                self.meta = Some(meta);
            }
            Err(error) => {
                self.violation(subject, format!("its counters: {error}"), Cure::Copy);
            }
        }
    }

    fn read_shards(&mut self, data: &Path, manifest: &Manifest) -> Result<Rows> {
        let (dim, precision) = (manifest.model.dim, manifest.precision);
        let wanted = self.meta.map(|meta| meta.rows);
        let (rows, faults) = inspect(&data.join("vectors"), dim, precision, wanted)?;
        for fault in faults {
            self.violation(fault.path.display().to_string(), fault.problem, Cure::Copy);
        }
        self.rows = rows.len();
        if self.meta.is_none() {
            // Ids of removed images are seen in their rows only.
            for row in 0..rows.len() {
                if let Ok((id, _)) = rows.checked(row) {
                    self.free_id = self.free_id.max(id.0.saturating_add(1));
                }
            }
        }
        Ok(rows)
    }

    fn look_at_graphs(&mut self, data: &Path, manifest: &Manifest) {
        let folder = data.join("ann");
        let audit = Audit::of(&folder, manifest.model.dim, self.rows, &self.owned);
        for (file, problem) in audit.problems {
            self.violation(folder.join(file).display().to_string(), problem, Cure::Graphs);
        }
        if self.owned.len() >= manifest.ann_from && !audit.has_base {
            self.lacks_graph = true;
            self.notes.push(format!(
                "there is no graph, though there are {} images: searches compare all of them until \
                 `akin index` or `akin collection check {} --repair` builds one",
                self.owned.len(),
                self.name
            ));
        }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

fn megabytes(folder: &Path) -> Result<String> {
    Ok(format!("{:.1} MB", room::folder_bytes(folder)? as f64 / 1e6))
}
