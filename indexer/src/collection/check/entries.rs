//! Every entry of the catalog, against the others and against the vectors.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::report::{Cure, unsound_vector};
use super::survey::Survey;
use crate::catalog::{Catalog, Entry, Meta};
use crate::collection::progress::Progress;
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::record::{Failure, Record, Seen, SeenKind};
use crate::vectors::{Precision, Rows};

const STEP: u64 = 256;
const UNTOUCHED: &str = "nothing was changed";

/// Looks at every entry. What the catalog cannot even read ends it, as a violation.
pub(super) fn look_at_all(
    survey: &mut Survey,
    catalog: &Catalog,
    rows: &Rows,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let manifest = survey.manifest.as_ref();
    let precision = manifest.map(|manifest| manifest.precision).unwrap_or_default();
    let expected = manifest.map_or(0, |manifest| manifest.images);
    let mut look = Look {
        survey,
        catalog,
        rows,
        precision,
        alive: RoaringBitmap::new(),
        postings: BTreeMap::new(),
    };
    for entry in catalog.entries() {
        let looked = entry.and_then(|(key, entry)| look.at(&key, entry));
        if let Err(error) = looked {
            look.survey.violation("catalog".to_owned(), error.to_string(), Cure::Backup);
            return Ok(());
        }
        let done = look.survey.images;
        if done.is_multiple_of(STEP) {
            progress.step("checking images", done, expected, UNTOUCHED)?;
        }
    }
    look.compare_rows();
    look.compare_postings();
    look.compare_counts();
    Ok(())
}

struct Look<'a> {
    survey: &'a mut Survey,
    catalog: &'a Catalog,
    rows: &'a Rows,
    precision: Precision,
    /// As the catalog says.
    alive: RoaringBitmap,
    /// As the records say: rows within the page, by key. What the catalog has is taken out.
    postings: BTreeMap<Vec<u8>, RoaringBitmap>,
}

impl Look<'_> {
    fn at(&mut self, key: &[u8], entry: Entry) -> Result<()> {
        let damaged = || format!("entry `{}`", key.escape_ascii());
        match entry {
            Entry::Image(id, Some(record)) => self.image(id, &record)?,
            Entry::Image(id, None) => {
                let problem = "its record is damaged";
                self.survey.free_id = self.survey.free_id.max(id.0.saturating_add(1));
                self.survey.bad.insert(id, problem.to_owned());
                self.survey.violation(format!("image {id}"), problem, Cure::Copy);
            }
            Entry::Path(path, Some(seen)) => self.path(&path, seen)?,
            Entry::Failure(path, Some(failure)) => self.failure(&path, &failure)?,
            Entry::Hash(hash, id) => self.hash(hash, id)?,
            Entry::Alive(page, Some(rows)) => {
                self.alive.extend(rows.iter().map(|row| page << 16 | row));
            }
            Entry::Posting(key, Some(rows)) => self.posting(&key, &rows),
            // Looked at before all others.
            Entry::Meta => {}
            Entry::Path(_, None)
            | Entry::Failure(_, None)
            | Entry::Alive(_, None)
            | Entry::Posting(_, None) => {
                self.survey.violation(damaged(), "it fails its checksum", Cure::Copy);
            }
            Entry::Unknown => {
                self.survey.violation(damaged(), "it is of no known kind", Cure::Copy);
            }
        }
        Ok(())
    }

    fn image(&mut self, id: ImageId, record: &Record) -> Result<()> {
        self.survey.images += 1;
        self.survey.free_id = self.survey.free_id.max(id.0.saturating_add(1));
        let subject = format!("image {id} ({})", record.path);
        if let Some((problem, cure)) = self.vector(id, record) {
            self.survey.bad.insert(id, format!("{}: {problem}", record.path));
            self.survey.violation(subject, problem, cure);
            return Ok(());
        }
        match sound(self.catalog.seen(record.path.as_bytes()))? {
            // A damaged one is listed on its own.
            None => {}
            Some(Some(Seen { kind: SeenKind::Image(other), stamp }))
                if other == id && stamp != record.stamp =>
            {
                let problem = "size and time in its path entry are others than in its record";
                self.survey.violation(subject.clone(), problem, Cure::Copy);
            }
            Some(Some(Seen { kind: SeenKind::Image(other), .. })) if other == id => {}
            Some(Some(Seen { kind: SeenKind::Image(other), .. }))
                if self.has_path(other, record.path.as_bytes())? =>
            {
                let problem = format!("image {other} is at the same path");
                self.survey.bad.insert(id, format!("{}: {problem}", record.path));
                self.survey.violation(subject.clone(), problem, Cure::Copy);
            }
            Some(seen) => {
                let problem = match seen.map(|seen| seen.kind) {
                    None => "its path has no entry".to_owned(),
                    Some(SeenKind::Failed) => "its path is that of a failure".to_owned(),
                    Some(SeenKind::Image(other)) => format!("its path leads to image {other}"),
                };
                self.survey.violation(subject.clone(), problem, Cure::Copy);
            }
        }
        if !self.catalog.has_hash(&record.sha256, id)? {
            self.survey.violation(subject, "it is not listed under its hash", Cure::Copy);
        }
        let row = record.row as u32;
        for key in Catalog::posting_keys(&record.payload, row) {
            self.postings.entry(key).or_default().insert(row & 0xFFFF);
        }
        Ok(())
    }

    /// What is wrong with an image's row. Where it may be another image's, removing this one would
    /// take it from that.
    fn vector(&mut self, id: ImageId, record: &Record) -> Option<(String, Cure)> {
        let row = u32::try_from(record.row).ok().filter(|row| u64::from(*row) < self.rows.len());
        let Some(row) = row else {
            let rows = self.rows.len();
            return Some((
                format!("its row {} is beyond the {rows} there are", record.row),
                Cure::Copy,
            ));
        };
        if !self.survey.owned.insert(row) {
            return Some((format!("its row {row} is another image's too"), Cure::Copy));
        }
        let problem = match self.rows.checked(record.row) {
            Ok((found, _)) if found != id => {
                Some((format!("its row {row} is that of image {found}"), Cure::Copy))
            }
            Ok((_, vector)) => {
                unsound_vector(&vector, self.precision).map(|problem| (problem, Cure::Removal))
            }
            Err(error) => Some((error.to_string(), Cure::Removal)),
        };
        if problem.is_some() {
            self.survey.owned.remove(row);
            // Not reported again as a row that belongs to nobody.
            self.alive.remove(row);
        }
        problem
    }

    fn has_path(&self, id: ImageId, path: &[u8]) -> Result<bool> {
        let record = sound(self.catalog.record(id))?.flatten();
        Ok(record.is_some_and(|record| record.path.as_bytes() == path))
    }

    fn path(&mut self, path: &[u8], seen: Seen) -> Result<()> {
        let problem = match seen.kind {
            SeenKind::Image(id) if self.survey.bad.contains_key(&id) => None,
            SeenKind::Image(id) => match self.has_path(id, path)? {
                true => None,
                false => Some(format!("its entry leads to image {id}, which is not there")),
            },
            SeenKind::Failed => match self.catalog.has_failure(path)? {
                true => None,
                false => Some("its entry leads to a failure that is not there".to_owned()),
            },
        };
        if let Some(problem) = problem {
            self.survey.violation(
                format!("path {}", Locator::from_bytes(path)),
                problem,
                Cure::Copy,
            );
        }
        Ok(())
    }

    fn failure(&mut self, path: &[u8], failure: &Failure) -> Result<()> {
        self.survey.failures += 1;
        self.survey.pictures_failed += u64::from(!failure.not_a_picture);
        let seen = sound(self.catalog.seen(path))?;
        let leads_here = |seen: Option<Seen>| {
            seen.is_some_and(|seen| seen.kind == SeenKind::Failed && seen.stamp == failure.stamp)
        };
        if !seen.is_none_or(leads_here) {
            let subject = format!("failure {}", failure.path);
            self.survey.violation(subject, "its path does not lead to it", Cure::Copy);
        }
        Ok(())
    }

    fn hash(&mut self, hash: [u8; 16], id: ImageId) -> Result<()> {
        let Some(record) = sound(self.catalog.record(id))? else { return Ok(()) };
        let half = |hash: &ContentHash| hash.to_bytes()?.first_chunk::<16>().copied();
        let problem = match record {
            None => format!("it leads to image {id}, which is not there"),
            Some(record) if half(&record.sha256) == Some(hash) => return Ok(()),
            Some(_) => format!("it leads to image {id}, which has another hash"),
        };
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.survey.violation(format!("hash entry {digits}…"), problem, Cure::Copy);
        Ok(())
    }

    fn posting(&mut self, key: &[u8], rows: &RoaringBitmap) {
        let expected = self.postings.remove(key).unwrap_or_default();
        let page = key.last_chunk::<4>().map_or(0, |page| u32::from_be_bytes(*page));
        // Rows of images that are bad are no news.
        let is_known = |row: &u32| self.survey.owned.contains(page << 16 | row);
        let wrong =
            (rows - &expected).iter().filter(is_known).count() as u64 + (&expected - rows).len();
        let strangers = (rows - &expected).iter().filter(|row| !is_known(row)).count();
        if wrong > 0 || (strangers > 0 && self.survey.bad.is_empty()) {
            let field = Catalog::posting_field(key);
            let problem = format!("{} rows are listed wrongly", wrong + strangers as u64);
            self.survey.violation(format!("payload field `{field}`"), problem, Cure::Copy);
        }
    }

    fn compare_rows(&mut self) {
        for row in (&self.survey.owned - &self.alive).iter().take(super::report::LISTED) {
            let problem = "it belongs to an image and is not marked alive";
            self.survey.violation(format!("row {row}"), problem, Cure::Copy);
        }
        // Rows of damaged records belong to an image that cannot be known.
        let strangers = &self.alive - &self.survey.owned;
        for row in strangers.iter().take(super::report::LISTED) {
            let id = self.rows.id(u64::from(row)).ok();
            if id.is_some_and(|id| self.survey.bad.contains_key(&id)) {
                continue;
            }
            let problem = "it is marked alive and belongs to no image";
            self.survey.violation(format!("row {row}"), problem, Cure::Copy);
        }
    }

    fn compare_postings(&mut self) {
        for (key, rows) in std::mem::take(&mut self.postings) {
            let field = Catalog::posting_field(&key);
            let problem = format!("{} rows are not listed under a value", rows.len());
            self.survey.violation(format!("payload field `{field}`"), problem, Cure::Copy);
        }
    }

    fn compare_counts(&mut self) {
        let survey = &mut *self.survey;
        let Some(Meta { next_id, failed, .. }) = survey.meta else { return };
        if next_id < survey.free_id {
            let problem = format!("the next id {next_id} is not above {}", survey.free_id - 1);
            survey.violation("counters".to_owned(), problem, Cure::Copy);
        }
        if failed != survey.pictures_failed {
            let problem =
                format!("{failed} failures are counted, there are {}", survey.pictures_failed);
            survey.violation("counters".to_owned(), problem, Cure::Copy);
        }
        let Some(manifest) = &survey.manifest else { return };
        let counts = (manifest.images, manifest.failed, manifest.rows);
        let present = (survey.owned.len() + survey.bad.len() as u64, failed, survey.rows);
        if counts != present {
            survey.note(format!(
                "the manifest says {} images, {} failures and {} rows, there are {}, {} and {}: it \
                 was not written after the last commit, and is at the next",
                counts.0, counts.1, counts.2, present.0, present.1, present.2
            ));
        }
    }
}

/// What could be read; `None` where a value is damaged, which is reported where it stands.
fn sound<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(IndexerError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
