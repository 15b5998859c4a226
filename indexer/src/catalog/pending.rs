//! Changes noted since the last commit, as final states: what is noted twice counts once.

use std::collections::BTreeMap;

use crate::id::ImageId;
use crate::locator::Locator;
use crate::record::{Failure, Record, Seen, SeenKind};

/// States that differ from the committed ones; `None` means gone.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(super) images: BTreeMap<ImageId, Option<Record>>,
    pub(super) paths: BTreeMap<Vec<u8>, Option<Seen>>,
    pub(super) failures: BTreeMap<Vec<u8>, Option<Failure>>,
    /// Changes noted, for a caller that commits every so many.
    len: usize,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The noted state of an image: unknown, gone or changed.
    pub(crate) fn image(&self, id: ImageId) -> Option<Option<&Record>> {
        self.images.get(&id).map(Option::as_ref)
    }

    /// The noted state of a path: unknown, gone or changed.
    pub(crate) fn path(&self, path: &Locator) -> Option<Option<Seen>> {
        self.paths.get(path.as_bytes()).copied()
    }

    pub(crate) fn failure(&self, path: &Locator) -> Option<Option<&Failure>> {
        self.failures.get(path.as_bytes()).map(Option::as_ref)
    }

    /// An image is at a path, whatever was known of both.
    pub(crate) fn put(&mut self, id: ImageId, record: Record) {
        let path = record.path.as_bytes().to_vec();
        let seen = Seen { kind: SeenKind::Image(id), stamp: record.stamp };
        self.paths.insert(path.clone(), Some(seen));
        self.failures.insert(path, None);
        self.images.insert(id, Some(record));
        self.len += 1;
    }

    /// An image and its path are gone.
    pub(crate) fn remove(&mut self, id: ImageId, path: &Locator) {
        self.images.insert(id, None);
        self.paths.insert(path.as_bytes().to_vec(), None);
        self.len += 1;
    }

    /// An image is gone whose path is another's by now.
    pub(crate) fn remove_unplaced(&mut self, id: ImageId) {
        self.images.insert(id, None);
        self.len += 1;
    }

    /// The path of a moved image is free again.
    pub(crate) fn free(&mut self, path: &Locator) {
        self.paths.insert(path.as_bytes().to_vec(), None);
    }

    /// A file gave no image.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let path = failure.path.as_bytes().to_vec();
        let seen = Seen { kind: SeenKind::Failed, stamp: failure.stamp };
        self.paths.insert(path.clone(), Some(seen));
        self.failures.insert(path, Some(failure));
        self.len += 1;
    }

    /// A file that gave no image is gone.
    pub(crate) fn forget_failure(&mut self, path: &Locator) {
        let path = path.as_bytes().to_vec();
        self.paths.insert(path.clone(), None);
        self.failures.insert(path, None);
        self.len += 1;
    }
}
