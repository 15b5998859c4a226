//! The images a curation works on: the pool, seed sets and excluded sets, in a fixed order.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::collection::View;
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::record::Record;

/// Unit vectors that are read block by block.
pub(crate) trait Points: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Values in each.
    fn dim(&self) -> usize;

    /// Those of a range, one after the other.
    fn block(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>>;

    /// Those of some numbers, one after the other.
    fn gather(&self, numbers: &[u32]) -> Result<Vec<f32>>;
}

/// One image of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetImage {
    /// In its collection.
    pub id: ImageId,
    /// Row of its embedding.
    pub row: u32,
    /// Hash of its file.
    pub sha256: [u8; 32],
}

/// All images of a collection, by ascending id.
#[derive(Clone, Debug)]
pub struct ImageSet {
    name: String,
    view: Arc<View>,
    images: Vec<SetImage>,
}

impl ImageSet {
    /// All images of a collection, under a name to be reported by.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn new(name: &str, view: Arc<View>) -> Result<Self> {
        let mut images = Vec::with_capacity(view.len());
        for image in view.images() {
            let (id, record) = image?;
            let row = u32::try_from(record.row).unwrap_or(u32::MAX);
            // An image changed since the view was taken has a row of a later state.
            if view.alive().contains(row) {
                let sha256 = record.sha256.to_bytes().unwrap_or_default();
                images.push(SetImage { id, row, sha256 });
            }
        }
        Ok(Self { name: name.to_owned(), view, images })
    }

    /// Of its images, those with these ids; which of the ids are no image's.
    pub fn only(mut self, ids: &BTreeSet<ImageId>) -> (Self, Vec<ImageId>) {
        self.images.retain(|image| ids.contains(&image.id));
        let missing = ids.iter().filter(|&&id| self.position(id).is_none()).copied().collect();
        (self, missing)
    }

    /// Name it is reported by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state of the collection it was read from.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Its images, by ascending id.
    pub fn images(&self) -> &[SetImage] {
        &self.images
    }

    /// What is known of an image.
    ///
    /// # Errors
    /// The catalog cannot be read, or the image was removed meanwhile.
    pub fn record(&self, id: ImageId) -> Result<Record> {
        self.view.record(id)?.ok_or_else(|| {
            IndexerError::InvalidRequest(format!(
                "image {id} of collection `{}` is gone; curate again",
                self.view.name()
            ))
        })
    }

    /// Position of an image.
    pub fn position(&self, id: ImageId) -> Option<u32> {
        self.images.binary_search_by_key(&id, |image| image.id).ok().map(|at| at as u32)
    }

    /// Hash of what decides results: model, and id, row and file hash of every image.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.view.manifest().fingerprint.as_bytes());
        for image in &self.images {
            hash.update(image.id.0.to_le_bytes());
            hash.update(image.row.to_le_bytes());
            hash.update(image.sha256);
        }
        format!("{:x}", hash.finalize())
    }

    /// File hashes of its images.
    pub(crate) fn contents(&self) -> BTreeSet<[u8; 32]> {
        self.images.iter().map(|image| image.sha256).collect()
    }

    /// All of its vectors.
    pub(crate) fn points(&self) -> Subset<'_> {
        Subset { set: self, items: Cow::Owned((0..self.images.len() as u32).collect()) }
    }

    /// The vectors of some of its images, by position.
    pub(crate) fn subset<'a>(&'a self, items: &'a [u32]) -> Subset<'a> {
        Subset { set: self, items: Cow::Borrowed(items) }
    }
}

/// The file hash as text.
pub(crate) fn hash_text(sha256: &[u8; 32]) -> ContentHash {
    ContentHash::from_bytes(sha256)
}

/// Some images of a set, as points.
pub(crate) struct Subset<'a> {
    pub(crate) set: &'a ImageSet,
    pub(crate) items: Cow<'a, [u32]>,
}

impl Subset<'_> {
    fn rows<'a>(&'a self, numbers: impl Iterator<Item = usize> + 'a) -> impl Iterator<Item = u32> {
        numbers.map(|number| self.set.images[self.items[number] as usize].row)
    }
}

impl Points for Subset<'_> {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn dim(&self) -> usize {
        self.set.view.manifest().model.dim
    }

    fn block(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.set.view.vectors(self.rows(range))?))
    }

    fn gather(&self, numbers: &[u32]) -> Result<Vec<f32>> {
        self.set.view.vectors(self.rows(numbers.iter().map(|&number| number as usize)))
    }
}

/// Points in memory.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) values: Vec<f32>,
    pub(crate) dim: usize,
}

impl Points for Held {
    fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn block(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.values[range.start * self.dim..range.end * self.dim]))
    }

    fn gather(&self, numbers: &[u32]) -> Result<Vec<f32>> {
        let one = |&number: &u32| {
            let start = number as usize * self.dim;
            &self.values[start..start + self.dim]
        };
        Ok(numbers.iter().flat_map(one).copied().collect())
    }
}
