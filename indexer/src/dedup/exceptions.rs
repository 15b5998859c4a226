//! Pairs that somebody looked at and found to be no duplicates.

use std::collections::BTreeSet;
use std::path::Path;

use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ContentHash;

/// Name of the file in a collection's folder.
pub const FILE: &str = "not-duplicates.csv";

/// Pairs of file contents, so that a changed file is judged again and a moved one is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotDuplicates {
    /// Lower hash first.
    pairs: BTreeSet<(ContentHash, ContentHash)>,
}

impl NotDuplicates {
    /// Reads the file of a collection's folder; none yet means no pairs.
    ///
    /// # Errors
    /// It cannot be read, or is not what [`write`](Self::write) writes.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            text => text.io("read", &path)?,
        };
        let hash = |digits: &str| {
            let hash: ContentHash = serde_json::from_value(digits.into()).ok()?;
            let sound = hash.to_bytes().is_some();
            sound.then_some(hash)
        };
        let mut found = Self::default();
        for (number, line) in text.lines().enumerate().skip(1) {
            let pair = line.split_once(',').and_then(|(a, b)| Some((hash(a)?, hash(b)?)));
            let (a, b) = pair.ok_or_else(|| IndexerError::Damaged {
                path: path.clone(),
                reason: format!(
                    "line {} is not two SHA-256 hashes; remove it, or the file",
                    number + 1
                ),
            })?;
            found.insert(&a, &b);
        }
        Ok(found)
    }

    /// Replaces the file of a collection's folder.
    ///
    /// # Errors
    /// It cannot be written; the old one is intact.
    pub fn write(&self, folder: &Path) -> Result<()> {
        replace_file(&folder.join(FILE), |file| {
            writeln!(file, "sha256_a,sha256_b")?;
            self.pairs.iter().try_for_each(|(a, b)| writeln!(file, "{a},{b}"))
        })
    }

    /// Remembers a pair; false when it is known, or is one content twice.
    pub fn insert(&mut self, a: &ContentHash, b: &ContentHash) -> bool {
        a != b && self.pairs.insert(ordered(a, b))
    }

    /// Forgets a pair; false when it is not known.
    pub fn remove(&mut self, a: &ContentHash, b: &ContentHash) -> bool {
        self.pairs.remove(&ordered(a, b))
    }

    /// Whether a pair is known.
    pub fn contains(&self, a: &ContentHash, b: &ContentHash) -> bool {
        !self.pairs.is_empty() && self.pairs.contains(&ordered(a, b))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn ordered(a: &ContentHash, b: &ContentHash) -> (ContentHash, ContentHash) {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    (low.clone(), high.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_no_order_and_survive_the_disk() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let hashes: Vec<ContentHash> = (0..4u8).map(|n| ContentHash::of(&[n])).collect();
        let mut pairs = NotDuplicates::read(folder.path())?;
        assert!(pairs.is_empty());
        assert!(pairs.insert(&hashes[0], &hashes[1]) && pairs.insert(&hashes[3], &hashes[2]));
        assert!(!pairs.insert(&hashes[1], &hashes[0]) && !pairs.insert(&hashes[1], &hashes[1]));
        pairs.write(folder.path())?;
        let mut back = NotDuplicates::read(folder.path())?;
        assert_eq!(back, pairs);
        assert!(back.contains(&hashes[2], &hashes[3]) && !back.contains(&hashes[0], &hashes[2]));
        assert!(back.remove(&hashes[2], &hashes[3]) && !back.remove(&hashes[2], &hashes[3]));
        assert_eq!(back.len(), 1);
        Ok(())
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join(FILE), "sha256_a,sha256_b\n12,34\n").expect("write");
        let error = NotDuplicates::read(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
