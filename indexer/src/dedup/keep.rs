//! Which of several duplicates stays.

use std::cmp::{Ordering, Reverse};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::collection::View;
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::record::Record;

/// The rule that chooses; ties go to the smallest id, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The most pixels, then the largest file.
    #[default]
    Best,
    /// The largest file, then the most pixels.
    Largest,
    /// The file changed longest ago.
    Oldest,
    /// The first path in the order of bytes.
    PathOrder,
}

/// What there is to choose by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Row of its embedding.
    pub row: u32,
    /// The image.
    pub id: ImageId,
    /// Where it is.
    pub path: Locator,
    /// Hash of the file.
    pub sha256: ContentHash,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes of the file.
    pub bytes: u64,
    /// When the file was changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Candidate {
    /// From what is recorded of an image.
    pub fn new(row: u32, id: ImageId, record: Record) -> Self {
        let Record { path, sha256, stamp, width, height, .. } = record;
        let (bytes, mtime_ns) = (stamp.size, stamp.mtime_ns);
        Self { row, id, path, sha256, width, height, bytes, mtime_ns }
    }

    /// The image that a row of a view is of.
    ///
    /// # Errors
    /// The catalog cannot be read, or the image changed since the view was taken.
    pub fn of(view: &View, row: u32) -> Result<Self> {
        let id = view.id_of(row)?;
        match view.record(id)?.filter(|record| record.row == u64::from(row)) {
            Some(record) => Ok(Self::new(row, id, record)),
            None => Err(IndexerError::InvalidRequest(format!(
                "image {id} of `{}` was changed meanwhile; run the command again",
                view.name()
            ))),
        }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl Keep {
    /// Orders the one to keep first.
    pub fn compare(self, a: &Candidate, b: &Candidate) -> Ordering {
        let by_size = |candidate: &Candidate| Reverse((candidate.pixels(), candidate.bytes));
        let by_file = |candidate: &Candidate| Reverse((candidate.bytes, candidate.pixels()));
        let order = match self {
            Self::Best => by_size(a).cmp(&by_size(b)),
            Self::Largest => by_file(a).cmp(&by_file(b)),
            Self::Oldest => a.mtime_ns.cmp(&b.mtime_ns),
            Self::PathOrder => a.path.as_bytes().cmp(b.path.as_bytes()),
        };
        order.then(a.id.cmp(&b.id))
    }
}

/// The row to keep: a protected one, if there is any. `None` without members.
pub fn representative(keep: Keep, members: &[Candidate], protected: &RoaringBitmap) -> Option<u32> {
    let rank = |a: &&Candidate, b: &&Candidate| {
        let protected = |candidate: &Candidate| Reverse(protected.contains(candidate.row));
        protected(a).cmp(&protected(b)).then_with(|| keep.compare(a, b))
    };
    members.iter().min_by(rank).map(|candidate| candidate.row)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn candidate(row: u32, side: u32, bytes: u64, mtime_ns: i64, path: &str) -> Candidate {
        Candidate {
            row,
            id: ImageId(u64::from(100 - row)),
            path: Locator::from(Path::new(path)),
            sha256: ContentHash::of(path.as_bytes()),
            width: side,
            height: side,
            bytes,
            mtime_ns,
        }
    }

    #[test]
    fn each_rule_chooses_its_own_and_protected_ones_come_first() {
        let members = [
            candidate(0, 10, 900, 5, "/c"),
            candidate(1, 20, 500, 7, "/b"),
            candidate(2, 20, 600, 9, "/d"),
            candidate(3, 5, 900, 1, "/e"),
            candidate(4, 1, 1, 3, "/a"),
        ];
        let none = RoaringBitmap::new();
        let choose = |keep| representative(keep, &members, &none);
        let rules = [Keep::Best, Keep::Largest, Keep::Oldest, Keep::PathOrder];
        assert_eq!(rules.map(choose), [Some(2), Some(0), Some(3), Some(4)]);
        let protected = RoaringBitmap::from_iter([1, 4]);
        assert_eq!(representative(Keep::Best, &members, &protected), Some(1));
        let equal = [candidate(0, 1, 1, 1, "/x"), candidate(1, 1, 1, 1, "/x")];
        assert_eq!(representative(Keep::Best, &equal, &none), Some(1), "the smaller id");
        assert_eq!(representative(Keep::Best, &[], &none), None);
    }
}
