//! Reports of duplicates, kept in the home's folder `dedup`, and what people decided about them.
//!
//! `report.json` is written once. `decisions.jsonl` grows by a line for every decision; what is taken
//! back stays in it. Nothing is removed before a report is applied, and then never a file.

mod decisions;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexer::dedup::{DedupReport, Kind, Member};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::decisions::{Action, Decided, Decision, Journal};
use crate::problem::{Answer, Code, Problem};

const FORMAT: u32 = 1;
/// Pairs of different pictures of one subject that a report holds, the most similar ones.
const MOST_SUBJECTS: usize = 10_000;
/// Reports kept in memory.
const CACHED: usize = 4;

/// What the members of a group are to each other, at the least.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Equal files.
    SameFile,
    /// One picture, edited or stored anew.
    Edited,
    /// Similar embeddings; nobody looked at the pictures.
    Similar,
    /// Different pictures of one subject: shown, and only removed if somebody says so.
    SameSubject,
}

impl GroupKind {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::SameFile, Self::Edited, Self::Similar, Self::SameSubject];

    /// What it is called in requests and answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::SameFile => "same_file",
            Self::Edited => "edited",
            Self::Similar => "similar",
            Self::SameSubject => "same_subject",
        }
    }
}

impl From<Kind> for GroupKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::SameFile => Self::SameFile,
            Kind::SamePixels | Kind::SamePicture => Self::Edited,
            Kind::Similar => Self::Similar,
            Kind::SameSubject => Self::SameSubject,
        }
    }
}

/// An image of a group, as it was when the report was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredMember {
    pub id: u64,
    pub sha256: String,
    pub path: String,
    pub width: u32,
    pub height: u32,
    pub bytes: u64,
    /// With the image to keep.
    pub similarity: f64,
    pub kind: GroupKind,
}

/// Duplicates of each other; the one to keep comes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredGroup {
    pub kind: GroupKind,
    pub members: Vec<StoredMember>,
}

impl StoredGroup {
    /// The image that is to stay unless somebody says otherwise.
    pub fn keep(&self) -> Option<u64> {
        self.members.first().map(|member| member.id)
    }

    pub fn member(&self, id: u64) -> Option<&StoredMember> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// `report.json`; the number of a group is its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format_version: u32,
    pub collection: String,
    pub threshold: f32,
    pub verified: bool,
    pub images: usize,
    pub unseen: usize,
    pub remembered: usize,
    pub truncated: usize,
    pub groups: Vec<StoredGroup>,
}

impl Report {
    /// What was found, as it is kept.
    pub fn new(collection: &str, threshold: f32, verified: bool, found: &DedupReport) -> Self {
        let mut groups = Vec::new();
        for group in &found.groups {
            let kept = group.kept.iter().map(|kept| (kept, 1.0, Kind::SameFile));
            let dropped = group.dropped.iter().map(|d| (&d.member, d.similarity, d.kind));
            let members: Vec<_> = kept.chain(dropped).map(member).collect();
            let kind = members.iter().map(|member| member.kind).max();
            groups.push(StoredGroup { kind: kind.unwrap_or(GroupKind::SameFile), members });
        }
        let mut subjects: Vec<_> =
            found.pairs.iter().filter(|pair| pair.kind == Kind::SameSubject).collect();
        subjects.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        for pair in subjects.into_iter().take(MOST_SUBJECTS) {
            let members = [(&pair.a, 1.0), (&pair.b, pair.similarity)];
            let members = members.map(|(one, similarity)| member((one, similarity, pair.kind)));
            groups.push(StoredGroup { kind: GroupKind::SameSubject, members: members.into() });
        }
        let &DedupReport { images, unseen, remembered, truncated, .. } = found;
        let (format_version, collection) = (FORMAT, collection.to_owned());
        Self {
            format_version,
            collection,
            threshold,
            verified,
            images,
            unseen,
            remembered,
            truncated,
            groups,
        }
    }
}

fn member((member, similarity, kind): (&Member, f32, Kind)) -> StoredMember {
    let image = &member.image;
    StoredMember {
        id: image.id.0,
        sha256: image.sha256.as_str().to_owned(),
        path: image.path.to_string(),
        width: image.width,
        height: image.height,
        bytes: image.bytes,
        similarity: f64::from(similarity),
        kind: kind.into(),
    }
}

/// All reports of a home.
pub struct Reports {
    folder: PathBuf,
    /// Read before, by folder; and held while decisions are written.
    cached: Mutex<BTreeMap<PathBuf, Arc<Report>>>,
    writing: Mutex<()>,
}

impl Reports {
    /// Those below a home.
    pub fn new(home: &Path) -> Self {
        let (cached, writing) = (Mutex::default(), Mutex::default());
        Self { folder: home.join("dedup"), cached, writing }
    }

    /// Keeps a report; its name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep(&self, report: &Report) -> Answer<String> {
        let id = crate::random::hex::<6>().map_err(Problem::internal)?;
        let folder = self.folder(&report.collection, &id)?;
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            serde_json::to_writer(std::io::BufWriter::new(&mut file), report)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(folder.join("report.json")).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(Problem::internal)?;
        Ok(id)
    }

    /// A report with everything decided about it.
    ///
    /// # Errors
    /// There is none of this name, or it is damaged.
    pub fn open(&self, collection: &str, id: &str) -> Answer<(Arc<Report>, Journal)> {
        let folder = self.folder(collection, id)?;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let report = match cached.get(&folder) {
            Some(report) => Arc::clone(report),
            None => {
                let report = Arc::new(read(&folder)?);
                if cached.len() >= CACHED {
                    cached.pop_first();
                }
                cached.insert(folder.clone(), Arc::clone(&report));
                report
            }
        };
        drop(cached);
        let journal = Journal::read(&folder, report.groups.len()).map_err(Problem::internal)?;
        Ok((report, journal))
    }

    /// Held by whoever is about to open a report and add to its journal.
    pub fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folder of a report; names are checked before they are joined.
    fn folder(&self, collection: &str, id: &str) -> Answer<PathBuf> {
        let is_id = id.len() == 12 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match is_id && is_name(collection) {
            true => Ok(self.folder.join(collection).join(id)),
            false => Err(no_report()),
        }
    }
}

/// Whether text can name a folder: what collections and runs may be called.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.chars().all(allowed)
}

fn read(folder: &Path) -> Answer<Report> {
    let bytes = match std::fs::read(folder.join("report.json")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_report()),
        read => read.map_err(Problem::internal)?,
    };
    let report: Report = serde_json::from_slice(&bytes).map_err(Problem::internal)?;
    match report.format_version {
        FORMAT => Ok(report),
        other => Err(Problem::internal(format!("{}: format {other}", folder.display()))),
    }
}

fn no_report() -> Problem {
    Problem::new(Code::NotFound, "there is no such report of duplicates")
        .remedy("POST /api/v1/collections/{name}/dedup makes one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        let home = tempfile::tempdir().expect("temporary folder");
        let reports = Reports::new(home.path());
        for (collection, id) in [
            ("photos", "../../secret"),
            ("photos", ""),
            ("photos", "0123456789AB"),
            ("..", "0123456789ab"),
            ("a/b", "0123456789ab"),
            (".hidden", "0123456789ab"),
            ("a\0", "0123456789ab"),
        ] {
            assert!(reports.folder(collection, id).is_err(), "{collection} {id}");
        }
        assert!(reports.folder("photos", "0123456789ab").is_ok());
        let missing = reports.open("photos", "0123456789ab").expect_err("none");
        assert_eq!(missing.code, Code::NotFound);
    }

    #[test]
    fn a_report_comes_back() {
        let home = tempfile::tempdir().expect("temporary folder");
        let reports = Reports::new(home.path());
        let report = Report::new("photos", 0.5, true, &DedupReport::default());
        let id = reports.keep(&report).expect("kept");
        let (back, journal) = reports.open("photos", &id).expect("there");
        assert_eq!((&*back, journal.decided(0)), (&report, Decided::Pending));
    }
}
