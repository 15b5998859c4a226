//! Decisions about the groups of a report, as a journal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody says about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Some stay, the others go when the report is applied.
    Keep,
    /// They are no duplicates, and are not called so again.
    NotDuplicate,
    /// Takes the last decision about the group back.
    Undo,
    /// Those that were to go have gone; noted when a report is applied, not by request.
    Removed,
}

/// What stands about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// Nothing.
    Pending,
    /// Some stay, others are to go.
    Kept,
    /// They are no duplicates.
    NotDuplicate,
    /// Others have gone from the collection.
    Removed,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Number of the group.
    pub group: usize,
    pub action: Action,
    /// Images that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<u64>,
    /// File hashes of pairs that were not known as no duplicates before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<(String, String)>,
}

/// All decisions about a report.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Those that stand, of each group, in their order.
    standing: BTreeMap<usize, Vec<Decision>>,
    /// Bytes of whole lines; what follows was being written when the process ended.
    length: u64,
}

impl Journal {
    /// Reads the journal of a report of so many groups; none is an empty one. Lines that make no
    /// sense are an error: a decision must not be lost in silence.
    pub(super) fn read(folder: &Path, groups: usize) -> std::io::Result<Self> {
        let path = folder.join("decisions.jsonl");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut journal = Self { path, standing: BTreeMap::new(), length: whole as u64 };
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let decision: Decision = serde_json::from_slice(line)?;
            if decision.group >= groups {
                let reason =
                    format!("{}: there is no group {}", journal.path.display(), decision.group);
                return Err(std::io::Error::other(reason));
            }
            journal.apply(decision);
        }
        Ok(journal)
    }

    /// What stands about a group.
    pub fn decided(&self, group: usize) -> Decided {
        match self.last(group).map(|decision| decision.action) {
            Some(Action::Keep) => Decided::Kept,
            Some(Action::NotDuplicate) => Decided::NotDuplicate,
            Some(Action::Removed) => Decided::Removed,
            Some(Action::Undo) | None => Decided::Pending,
        }
    }

    /// The last decision about a group that stands.
    pub fn last(&self, group: usize) -> Option<&Decision> {
        self.standing.get(&group)?.last()
    }

    /// Groups of which some images are to go, with these.
    pub fn to_remove(&self) -> Vec<(usize, &[u64])> {
        let last = |(group, _): (&usize, _)| Some((*group, self.last(*group)?));
        let decided = self.standing.iter().filter_map(last);
        let kept = decided.filter(|(_, decision)| decision.action == Action::Keep);
        kept.map(|(group, decision)| (group, &decision.remove[..])).collect()
    }

    /// Notes decisions: on disk before they count.
    pub fn add(&mut self, decisions: Vec<Decision>) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for decision in &decisions {
            serde_json::to_writer(&mut bytes, decision)?;
            bytes.push(b'\n');
        }
        let mut options = File::options();
        let mut file = options.create(true).truncate(false).write(true).open(&self.path)?;
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        self.length += bytes.len() as u64;
        decisions.into_iter().for_each(|decision| self.apply(decision));
        Ok(())
    }

    fn apply(&mut self, decision: Decision) {
        let standing = self.standing.entry(decision.group).or_default();
        match decision.action {
            Action::Undo => drop(standing.pop()),
            Action::Keep | Action::NotDuplicate | Action::Removed => standing.push(decision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(group: usize, action: Action, remove: &[u64]) -> Decision {
        Decision { group, action, remove: remove.to_vec(), pairs: Vec::new() }
    }

    #[test]
    fn decisions_stand_until_they_are_taken_back() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut journal = Journal::read(folder.path(), 3)?;
        journal.add(vec![decision(1, Action::Keep, &[7, 8])])?;
        journal.add(vec![decision(1, Action::NotDuplicate, &[])])?;
        journal.add(vec![decision(2, Action::Keep, &[9])])?;
        assert_eq!(journal.decided(1), Decided::NotDuplicate);
        journal.add(vec![decision(1, Action::Undo, &[])])?;
        // A line that was being written.
        let mut file = File::options().append(true).open(folder.path().join("decisions.jsonl"))?;
        file.write_all(b"{\"group\":0,\"act")?;
        let mut journal = Journal::read(folder.path(), 3)?;
        assert_eq!(journal.to_remove(), [(1, &[7, 8][..]), (2, &[9])]);
        journal.add(vec![decision(2, Action::Removed, &[])])?;
        let journal = Journal::read(folder.path(), 3)?;
        assert_eq!(journal.to_remove(), [(1, &[7, 8][..])]);
        let all = [0, 1, 2].map(|group| journal.decided(group));
        assert_eq!(all, [Decided::Pending, Decided::Kept, Decided::Removed]);
        assert!(Journal::read(folder.path(), 1).is_err(), "groups that are not in the report");
        Ok(())
    }
}
