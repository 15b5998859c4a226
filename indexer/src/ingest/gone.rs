//! What has gone: moved elsewhere, to be removed, or only out of reach.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::{HeldBack, Tallies};
use crate::collection::Collection;
use crate::error::Result;
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::record::{Record, SeenKind};
use crate::source::{Scope, ScopeState};

/// So many may go at once without a question; more only if they are not most of what is known.
const FEW: usize = 20;

/// Something known that was not listed and is not there.
pub(super) struct GoneImage {
    /// None for a file that had failed.
    id: Option<ImageId>,
    path: Locator,
    root: PathBuf,
}

impl GoneImage {
    pub(super) fn image(id: ImageId, path: Locator, scope: &Scope) -> Self {
        Self { id: Some(id), path, root: scope.root.clone() }
    }

    pub(super) fn failure(path: Locator, scope: &Scope) -> Self {
        Self { id: None, path, root: scope.root.clone() }
    }
}

/// What was found in one root.
#[derive(Debug)]
pub(super) struct Tally {
    /// Images known in what was listed.
    pub(super) known: usize,
    /// Files listed.
    pub(super) listed: usize,
    /// Whether anything at all is known there.
    pub(super) anything: bool,
    missing: bool,
    /// All of the root was listed, not only what was touched.
    whole: bool,
}

impl Tally {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            known: 0,
            listed: 0,
            anything: false,
            missing: scope.state == ScopeState::Missing,
            whole: scope.path == scope.root,
        }
    }
}

/// What has gone, some of which may turn up elsewhere.
pub(super) struct Gone {
    images: BTreeMap<ImageId, GoneImage>,
    failures: Vec<GoneImage>,
    tallies: Tallies,
    /// Images that may have moved, by content.
    by_content: HashMap<ContentHash, Vec<(ImageId, Record)>>,
}

/// What becomes of what has gone.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) remove: Vec<(ImageId, Locator)>,
    pub(super) forget: Vec<Locator>,
    pub(super) held_back: Vec<HeldBack>,
}

impl Gone {
    /// With `may_move`, prepares for finding them elsewhere.
    pub(super) fn new(
        collection: &Collection,
        gone: Vec<GoneImage>,
        tallies: Tallies,
        may_move: bool,
    ) -> Result<Self> {
        let mut new = Self {
            images: BTreeMap::new(),
            failures: Vec::new(),
            tallies,
            by_content: HashMap::new(),
        };
        for one in gone {
            let Some(id) = one.id else {
                new.failures.push(one);
                continue;
            };
            // An empty folder may be where a disk is to be: what is elsewhere then is a copy.
            let in_reach = new
                .tallies
                .get(&one.root)
                .is_some_and(|tally| !tally.missing && (tally.listed > 0 || !tally.whole));
            if may_move
                && in_reach
                && let Some(record) = collection.record(id)?
            {
                new.by_content.entry(record.sha256.clone()).or_default().push((id, record));
            }
            new.images.insert(id, one);
        }
        Ok(new)
    }

    /// Whether an image of this size, in bytes, may turn up elsewhere.
    pub(super) fn has_size(&self, size: u64) -> bool {
        self.by_content.values().flatten().any(|(_, record)| record.stamp.size == size)
    }

    /// An image with this content that has gone: it is found, and not gone any more.
    pub(super) fn found(&mut self, sha256: &ContentHash) -> Option<(ImageId, Record)> {
        let found = self.by_content.get_mut(sha256)?.pop()?;
        self.images.remove(&found.0);
        Some(found)
    }

    /// Decides root by root. `known_under` counts the images under a prefix.
    pub(super) fn judge(
        self,
        prune: bool,
        known_under: &dyn Fn(&[u8]) -> Result<usize>,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let mut held = Vec::new();
        for (root, tally) in &self.tallies {
            let gone = self.images.values().filter(|image| image.root == *root).count();
            let known = match tally.whole || gone <= FEW {
                true => tally.known,
                false => known_under(&folder_prefix(root))?,
            };
            let none_left = tally.whole && gone == known;
            let most = gone > FEW && gone * 2 > known;
            if tally.missing || (gone > 0 && (none_left || most)) {
                held.push(root.clone());
                if gone > 0 && !prune {
                    let (root, missing) = (root.clone(), tally.missing);
                    verdict.held_back.push(HeldBack { root, gone, known, missing });
                }
            }
        }
        let is_held = |root: &PathBuf| !prune && held.contains(root);
        for (id, image) in self.images {
            if !is_held(&image.root) {
                verdict.remove.push((id, image.path));
            }
        }
        let failures = self.failures.into_iter().filter(|failure| !is_held(&failure.root));
        verdict.forget.extend(failures.map(|failure| failure.path));
        Ok(verdict)
    }
}

fn folder_prefix(root: &Path) -> Vec<u8> {
    let mut prefix = root.as_os_str().as_encoded_bytes().to_vec();
    if !prefix.ends_with(std::path::MAIN_SEPARATOR_STR.as_bytes()) {
        prefix.extend(std::path::MAIN_SEPARATOR_STR.as_bytes());
    }
    prefix
}

/// Committed images whose paths start with this.
pub(super) fn count_images(collection: &Collection, prefix: &[u8]) -> Result<usize> {
    let mut count = 0;
    for known in collection.known_under(prefix) {
        count += usize::from(matches!(known?.1.kind, SeenKind::Image(_)));
    }
    Ok(count)
}
