//! Decisions of people over a run's result: an append-only journal, replayed over the ledger.
//!
//! `review.jsonl` has one object a line with a checksum of its own. A decision is about a file's
//! content, so that it holds when the curation is run again with other steps. What is taken back
//! stays in the journal, with a line that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ledger::LedgerRow;
use super::output::Rule;
use super::run_folder::sha256;
use crate::durable::sync_folder;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

const JOURNAL: &str = "review.jsonl";

/// What is decided of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// In, whatever the steps say; but never a leak.
    Accept,
    /// Out, whatever the steps say.
    Reject,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Entry {
    Accept(Decision),
    Reject(Decision),
    /// Takes a batch back.
    Undo {
        batch: u64,
        of: u64,
    },
}

/// A batch of decisions, as it was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batch {
    /// Its number, from 1.
    pub batch: u64,
    /// Images let in.
    pub accepted: Vec<ImageId>,
    /// Images taken out.
    pub rejected: Vec<ImageId>,
    /// Whether it was taken back.
    pub is_undone: bool,
}

/// What a line decides about one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Decision {
    /// Decisions made together, and taken back together.
    batch: u64,
    id: ImageId,
    sha256: ContentHash,
    path: Locator,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    /// CRC-32 of the entry alone, in hexadecimal.
    crc32: String,
}

/// All decisions so far.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Bytes of whole lines; what follows was being written when the process ended.
    length: u64,
    sha256: String,
}

impl Journal {
    /// Reads a run's journal; none is an empty one.
    pub(crate) fn read(run: &Path) -> Result<Self> {
        let path = run.join(JOURNAL);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.io("read", &path)?,
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut entries = Vec::new();
        for (number, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            entries.push(parse(line).ok_or_else(|| IndexerError::Damaged {
                path: path.clone(),
                reason: format!(
                    "line {} fails its checksum; restore the file, or remove that line to forget \
                     its decision",
                    number + 1
                ),
            })?);
        }
        let sha256 = sha256(&bytes[..whole]);
        Ok(Self { path, entries, length: whole as u64, sha256 })
    }

    /// Hash of everything decided so far.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    fn next_batch(&self) -> u64 {
        let batch = |entry: &Entry| match entry {
            Entry::Accept(decision) | Entry::Reject(decision) => decision.batch,
            Entry::Undo { batch, .. } => *batch,
        };
        self.entries.iter().map(batch).max().unwrap_or(0) + 1
    }

    /// Batches that were not taken back, ascending.
    fn standing(&self) -> BTreeSet<u64> {
        let mut standing = BTreeSet::new();
        for entry in &self.entries {
            match entry {
                Entry::Accept(decision) | Entry::Reject(decision) => {
                    standing.insert(decision.batch);
                }
                Entry::Undo { of, .. } => {
                    standing.remove(of);
                }
            }
        }
        standing
    }

    /// All batches, in the order in which they were made.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        let standing = self.standing();
        let mut batches: BTreeMap<u64, Batch> = BTreeMap::new();
        for entry in &self.entries {
            let (Entry::Accept(decision) | Entry::Reject(decision)) = entry else { continue };
            let batch = batches.entry(decision.batch).or_insert_with(|| Batch {
                batch: decision.batch,
                accepted: Vec::new(),
                rejected: Vec::new(),
                is_undone: !standing.contains(&decision.batch),
            });
            match entry {
                Entry::Accept(_) => batch.accepted.push(decision.id),
                _ => batch.rejected.push(decision.id),
            }
        }
        batches.into_values().collect()
    }

    /// Notes decisions, as one batch.
    pub(crate) fn decide(&mut self, decisions: &[(Verdict, &LedgerRow)]) -> Result<()> {
        let batch = self.next_batch();
        let entry = |&(verdict, row): &(Verdict, &LedgerRow)| {
            let LedgerRow { id, sha256, path, .. } = row.clone();
            let decision = Decision { batch, id, sha256, path };
            match verdict {
                Verdict::Accept => Entry::Accept(decision),
                Verdict::Reject => Entry::Reject(decision),
            }
        };
        self.append(decisions.iter().map(entry).collect())
    }

    /// Takes the last batch back that stands; how many decisions that was.
    pub(crate) fn undo(&mut self) -> Result<usize> {
        let Some(of) = self.standing().pop_last() else {
            return Err(IndexerError::InvalidRequest(
                "there is no decision to take back".to_owned(),
            ));
        };
        let is_of =
            |entry: &&Entry| matches!(entry, Entry::Accept(d) | Entry::Reject(d) if d.batch == of);
        let decisions = self.entries.iter().filter(is_of).count();
        let batch = self.next_batch();
        self.append(vec![Entry::Undo { batch, of }])?;
        Ok(decisions)
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut bytes = Vec::new();
        for entry in &entries {
            bytes.extend(line(entry).ok_or_else(|| {
                IndexerError::InvalidRequest("a decision cannot be written".to_owned())
            })?);
        }
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.path)
            .io("open", &self.path)?;
        file.set_len(self.length)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_all())
            .io("write", &self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        self.entries.extend(entries);
        self.length += bytes.len() as u64;
        let all = std::fs::read(&self.path).io("read", &self.path)?;
        self.sha256 = sha256(&all);
        Ok(())
    }

    /// Applies every decision that stands, in their order; counts images accepted and rejected.
    pub(crate) fn apply(&self, rows: &mut [LedgerRow]) -> (usize, usize) {
        let standing = self.standing();
        let mut verdicts: BTreeMap<&ContentHash, (Verdict, ImageId)> = BTreeMap::new();
        for entry in &self.entries {
            let (verdict, decision) = match entry {
                Entry::Accept(decision) => (Verdict::Accept, decision),
                Entry::Reject(decision) => (Verdict::Reject, decision),
                Entry::Undo { .. } => continue,
            };
            if standing.contains(&decision.batch) {
                verdicts.insert(&decision.sha256, (verdict, decision.id));
            }
        }
        let leaks = leaks(rows);
        let (mut accepted, mut rejected) = (0, 0);
        for row in rows {
            match verdicts.get(&row.sha256) {
                Some((Verdict::Reject, _)) if row.kept => {
                    row.kept = false;
                    (row.rule, row.step) = (Rule::Rejected, "review".to_owned());
                    rejected += 1;
                }
                Some((Verdict::Accept, id))
                    if !row.kept && *id == row.id && !leaks.contains_key(&row.id) =>
                {
                    row.kept = true;
                    (row.rule, row.step) = (Rule::Accepted, "review".to_owned());
                    accepted += 1;
                }
                _ => {}
            }
        }
        (accepted, rejected)
    }
}

/// Images that can never be in, with the reason in words: like an excluded image, chained to one,
/// or near-duplicates of such.
pub(crate) fn leaks(rows: &[LedgerRow]) -> BTreeMap<ImageId, String> {
    let by_id: BTreeMap<ImageId, &LedgerRow> = rows.iter().map(|row| (row.id, row)).collect();
    let own = |row: &LedgerRow| -> Option<String> {
        let similarity = row.excluded_similarity.unwrap_or(f32::NAN);
        let excluded = row.excluded.as_ref();
        match row.rule {
            _ if row.leak => {
                let excluded = excluded?;
                Some(format!(
                    "it is like the excluded image {} of `{}`, similarity {similarity:.4}",
                    excluded.path, excluded.set
                ))
            }
            Rule::LeakByComponent => {
                let because = row.because.as_ref()?;
                Some(format!(
                    "it is in one component with an image like the excluded image {} of `{}`",
                    because.path, because.set
                ))
            }
            _ => None,
        }
    };
    let copy_of = |row: &LedgerRow| match row.rule {
        Rule::SameFile | Rule::NearDuplicate => by_id.get(&row.because.as_ref()?.id).copied(),
        _ => None,
    };
    let reason = |row: &LedgerRow| match (own(row), copy_of(row)) {
        (Some(reason), _) => Some(reason),
        (None, Some(kept)) => Some(format!(
            "it is a near-duplicate of {}, and that is a leak: {}",
            kept.path,
            own(kept)?
        )),
        (None, None) => None,
    };
    rows.iter().filter_map(|row| Some((row.id, reason(row)?))).collect()
}

fn line(entry: &Entry) -> Option<Vec<u8>> {
    let crc32 = checksum(entry)?;
    let mut bytes = serde_json::to_vec(&Line { entry: entry.clone(), crc32 }).ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

fn parse(line: &[u8]) -> Option<Entry> {
    let Line { entry, crc32 } = serde_json::from_slice(line).ok()?;
    (checksum(&entry)? == crc32).then_some(entry)
}

fn checksum(entry: &Entry) -> Option<String> {
    Some(format!("{:08x}", crc32fast::hash(&serde_json::to_vec(entry).ok()?)))
}
