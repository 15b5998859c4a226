//! A collection driven by random steps, beside a plain model in memory of what it must hold.
//!
//! Step `n` of a seed is always the same, so that after a crash the model of any step can be made
//! again. Every commit carries the number of its step, in the payload of one image.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, ModelIdentity};
pub use fixtures::Lot;
use indexer::{
    Collection, ContentHash, Failure, FileStamp, Hit, IndexerError, Known, Locator, NewImage,
    Payload, Record, Scalar, ValueRange,
};

pub type Result<T, E = IndexerError> = std::result::Result<T, E>;

/// Paths that images come and go at.
const PATHS: u64 = 400;
const MARK: &str = "/mark";

/// Identity of the model that the vectors pretend to come from.
pub fn identity() -> ModelIdentity {
    ThumbnailEmbedder::default().identity().clone()
}

/// A unit vector that only this content has.
pub fn vector(content: u64) -> Embedding {
    let mut lot = Lot(content.wrapping_mul(0xD1B5_4A32_D192_ED03));
    let dim = identity().dim;
    let values = (0..dim).map(|_| (lot.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
    Embedding::normalised(values).expect("finite and not zero")
}

/// What one image must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub id: u64,
    pub content: u64,
    pub label: Option<u64>,
}

/// What the collection must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub step: u64,
    pub images: BTreeMap<String, Expected>,
    pub failed: BTreeMap<String, u64>,
    next_id: u64,
}

/// One change, decided by the seed and the model so far.
#[derive(Clone, Debug)]
enum Change {
    Put { path: String, content: u64, label: Option<u64> },
    Label { path: String, label: Option<u64> },
    Touch { path: String },
    Move { from: String, to: String },
    Remove { path: String },
    Fail { path: String },
    Forget { path: String },
}

fn payload(label: Option<u64>) -> Payload {
    label.map(|label| ("label".to_owned(), label.into())).into_iter().collect()
}

fn stamp(number: u64) -> FileStamp {
    FileStamp { size: number, mtime_ns: number as i64 }
}

fn new_image(path: &str, content: u64, payload: Payload) -> NewImage {
    NewImage {
        path: Locator::from(Path::new(path)),
        sha256: ContentHash::of(&content.to_le_bytes()),
        stamp: stamp(content),
        width: 1,
        height: 1,
        warning: None,
        payload,
    }
}

impl Model {
    /// The changes of the next step.
    fn draw(&self, seed: u64) -> Vec<Change> {
        let mut lot = Lot(seed ^ (self.step + 1).wrapping_mul(0x2545_F491_4F6C_DD1D));
        let count = 1 + lot.below(30);
        let mut changes = Vec::new();
        for i in 0..count {
            let path = format!("/p/{:03}", lot.below(PATHS));
            let content = (self.step + 1) * 1000 + i;
            let label = (lot.below(2) == 0).then(|| lot.below(5));
            changes.push(match lot.below(12) {
                0..6 => Change::Put { path, content, label },
                6 => Change::Label { path, label },
                7 => Change::Touch { path },
                8 => Change::Move { from: path, to: format!("/p/{:03}", lot.below(PATHS)) },
                9 => Change::Remove { path },
                10 => Change::Fail { path },
                _ => Change::Forget { path },
            });
        }
        changes
    }

    /// Takes a step on its own.
    pub fn advance(&mut self, seed: u64) {
        for change in self.draw(seed) {
            self.apply(&change);
        }
        self.mark();
    }

    fn mark(&mut self) {
        self.step += 1;
        let id = self.id_at(MARK);
        let image = Expected { id, content: 0, label: Some(self.step) };
        self.images.insert(MARK.to_owned(), image);
    }

    /// Id of the image at a path, or the next new one.
    fn id_at(&mut self, path: &str) -> u64 {
        let known = self.images.get(path).map(|image| image.id);
        known.unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id - 1
        })
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { path, content, label } => {
                self.failed.remove(path);
                let id = self.id_at(path);
                self.images.insert(path.clone(), Expected { id, content: *content, label: *label });
            }
            Change::Label { path, label } => {
                if let Some(image) = self.images.get_mut(path) {
                    image.label = *label;
                }
            }
            Change::Touch { .. } => {}
            Change::Move { from, to } => {
                if let Some(image) = self.images.remove(from) {
                    self.failed.remove(to);
                    self.images.insert(to.clone(), image);
                }
            }
            Change::Remove { path } => {
                self.images.remove(path);
            }
            Change::Fail { path } => {
                self.images.remove(path);
                self.failed.insert(path.clone(), self.step);
            }
            Change::Forget { path } => {
                self.failed.remove(path);
            }
        }
    }

    /// Takes a step, and has the collection take it up to its commit.
    pub fn drive(&mut self, seed: u64, collection: &mut Collection) -> Result<()> {
        for change in self.draw(seed) {
            self.tell(&change, collection)?;
            self.apply(&change);
        }
        self.mark();
        let mark = payload(Some(self.step));
        let known = image_at(collection, MARK)?;
        match known {
            Some((id, record)) => collection.set_payload(id, record, mark)?,
            None => drop(collection.put(new_image(MARK, 0, mark), &vector(0))?),
        }
        collection.commit()
    }

    fn tell(&self, change: &Change, collection: &mut Collection) -> Result<()> {
        match change {
            Change::Put { path, content, label } => {
                let image = new_image(path, *content, payload(*label));
                collection.put(image, &vector(*content))?;
            }
            Change::Label { path, label } => {
                if let Some((id, record)) = image_at(collection, path)? {
                    collection.set_payload(id, record, payload(*label))?;
                }
            }
            Change::Touch { path } => {
                if let Some((id, record)) = image_at(collection, path)? {
                    collection.touch(id, record, stamp(self.step))?;
                }
            }
            Change::Move { from, to } => {
                if let Some((id, record)) = image_at(collection, from)? {
                    let to = Locator::from(Path::new(to));
                    collection.relocate(id, record, to, stamp(self.step))?;
                }
            }
            Change::Remove { path } => {
                if let Some((id, _)) = image_at(collection, path)? {
                    assert!(collection.remove(id)?);
                    assert!(!collection.remove(id)?, "removed twice");
                }
            }
            Change::Fail { path } => collection.fail(&Failure {
                path: Locator::from(Path::new(path)),
                reason: "by lot".to_owned(),
                not_a_picture: false,
                stamp: stamp(self.step),
            })?,
            Change::Forget { path } => {
                collection.forget_failure(&Locator::from(Path::new(path)))?;
            }
        }
        Ok(())
    }

    /// Compares everything a collection says with the model; `sample` images are searched for too.
    pub fn compare(&self, collection: &Collection, sample: usize) -> Result<()> {
        let view = collection.view();
        assert_eq!(view.len(), self.images.len());
        let mut found = BTreeMap::new();
        for image in collection.images() {
            let (id, record) = image?;
            let path = record.path.to_string();
            let expected = &self.images[&path];
            assert_eq!((id.0, &record.payload), (expected.id, &payload(expected.label)), "{path}");
            let stored = view.vector(record.row as u32, id)?;
            let similarity = similarity(&stored, expected.content);
            assert!(similarity > 0.999, "{path} has another's vector: {similarity}");
            let hash = ContentHash::of(&expected.content.to_le_bytes());
            assert_eq!(record.sha256, hash);
            assert!(collection.with_content(&hash)?.contains(&id), "{path} by its content");
            assert!(view.alive().contains(record.row as u32), "{path} is not alive");
            assert!(found.insert(path, record.row).is_none(), "a path twice");
        }
        let mut rows: Vec<u64> = found.into_values().collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), self.images.len(), "a row twice, or an image is missing");
        let failed: Vec<String> =
            collection.failures()?.into_iter().map(|failure| failure.path.to_string()).collect();
        assert_eq!(failed, self.failed.keys().cloned().collect::<Vec<_>>());
        assert_eq!(collection.manifest().failed, failed.len() as u64);

        for label in 0..5 {
            let with: Vec<u64> = self.rows_labelled(collection, label)?;
            let range = ValueRange::Eq(Scalar::Number(label as f64));
            let rows = view.rows_with("label", range)?;
            assert_eq!(rows.iter().map(u64::from).collect::<Vec<_>>(), with, "label {label}");
        }
        let step = self.images.len().div_ceil(sample.max(1)).max(1);
        for expected in self.images.values().step_by(step).take(sample) {
            let hits = collection.search(&vector(expected.content), 5)?;
            self.check_hits(&hits);
            let first = &hits[0];
            assert!(first.id.0 == expected.id && first.similarity > 0.999, "{first:?}");
        }
        Ok(())
    }

    fn rows_labelled(&self, collection: &Collection, label: u64) -> Result<Vec<u64>> {
        let mut rows = Vec::new();
        for (path, image) in &self.images {
            if image.label == Some(label)
                && let Some((_, record)) = image_at(collection, path)?
            {
                rows.push(record.row);
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Results are images there are, each once, with the similarity they say.
    pub fn check_hits(&self, hits: &[Hit]) {
        assert!(hits.is_sorted_by(|a, b| a.similarity >= b.similarity));
        let mut ids: Vec<u64> = hits.iter().map(|hit| hit.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), hits.len());
        for hit in hits {
            let expected = &self.images[&hit.record.path.to_string()];
            assert_eq!(expected.id, hit.id.0);
        }
    }
}

/// The step that a collection's last commit was.
pub fn marked_step(collection: &Collection) -> Result<u64> {
    let mark = image_at(collection, MARK)?;
    Ok(mark.and_then(|(_, record)| record.payload.get("label")?.as_u64()).unwrap_or(0))
}

fn image_at(collection: &Collection, path: &str) -> Result<Option<(indexer::ImageId, Record)>> {
    Ok(match collection.known(&Locator::from(Path::new(path)))? {
        Some(Known::Image(id, record)) => Some((id, record)),
        _ => None,
    })
}

pub fn similarity(stored: &[f32], content: u64) -> f32 {
    engine::kernels::dot(stored, vector(content).as_slice())
}
