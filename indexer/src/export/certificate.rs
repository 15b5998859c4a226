//! The leak certificate: nothing in the export is like an excluded image, and how near it comes.

use std::sync::atomic::AtomicBool;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Selection;
use super::entries::Entry;
use crate::collection::View;
use crate::curate::ImageSet;
use crate::curate::Step;
use crate::dedup::{Method, Wanted, neighbours};
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

/// Layout of `certificate.json`.
const CERTIFICATE_FORMAT: u32 = 1;
/// Pairs near the threshold that are listed; all are counted.
const LISTED: usize = 10_000;

/// One side of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Name it is reported by.
    pub name: String,
    /// Its collection.
    pub collection: String,
    /// Images compared.
    pub images: usize,
    /// SHA-256 over the file hashes (32 bytes each), ascending.
    pub files_sha256: String,
    /// SHA-256 over file hash and vector (f32, little-endian) of each image, by file hash and id.
    pub vectors_sha256: String,
}

/// An image of the export and an excluded one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertifiedPair {
    /// In the export.
    pub kept_id: ImageId,
    /// Where its original is.
    pub kept_path: Locator,
    /// Name of the excluded set.
    pub excluded_set: String,
    /// In its collection.
    pub excluded_id: ImageId,
    /// Where it is.
    pub excluded_path: Locator,
    /// Cosine similarity of the stored embeddings.
    pub similarity: f32,
}

/// `certificate.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Layout of this file.
    pub format_version: u32,
    /// Release that made it.
    pub akin: String,
    /// In words.
    pub method: String,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of model and settings: what the similarities are of.
    pub fingerprint: String,
    /// Pairs at or above this are leaks.
    pub threshold: f32,
    /// Pairs down to this far below the threshold are listed.
    pub margin: f32,
    /// What is exported.
    pub kept: Side,
    /// What it must not be like.
    pub excluded: Vec<Side>,
    /// Every image of the one side with every image of the other.
    pub pairs_compared: u64,
    /// Of all of these; absent when there are none.
    pub max_similarity: Option<f32>,
    /// Pairs at or above the threshold: 0.
    pub leaks: usize,
    /// Pairs at or above the threshold less the margin.
    pub pairs_within_margin: usize,
    /// The most similar of those, at most 10,000; when there are none, the most similar pair.
    pub pairs: Vec<CertifiedPair>,
}

/// What is compared.
pub(super) struct Comparison<'a> {
    pub(super) pool: &'a View,
    /// Image, row and file hash of everything exported.
    pub(super) kept: Vec<(ImageId, u32, [u8; 32])>,
    pub(super) excluded: &'a [ImageSet],
    pub(super) threshold: f32,
    pub(super) margin: f32,
}

/// The certificate of an export, when sets were excluded.
pub(super) fn of(
    selection: &Selection<'_>,
    entries: &[Entry],
    margin: f32,
    cancel: &AtomicBool,
) -> Result<Option<Certificate>> {
    let Selection::Run { run, pool, excluded } = selection else { return Ok(None) };
    let mut steps = run.info().config.steps.iter().zip(&run.info().steps);
    let threshold = steps.rfind(|(step, _)| matches!(step, Step::RelativeDedup(_)));
    let Some(threshold) = threshold.and_then(|(_, done)| done.threshold) else { return Ok(None) };
    if excluded.is_empty() {
        return Ok(None);
    }
    let kept = entries.iter().map(|entry| {
        let sha256 = entry.line.sha256.to_bytes().unwrap_or_default();
        (entry.line.id, entry.row, sha256)
    });
    let kept = kept.collect();
    let comparison = Comparison { pool: pool.view(), kept, excluded, threshold, margin };
    comparison.certify(cancel).map(Some)
}

impl Comparison<'_> {
    /// Compares all pairs.
    pub(super) fn certify(&self, cancel: &AtomicBool) -> Result<Certificate> {
        let Self { pool, kept, excluded, threshold, margin } = self;
        if !(0.0..=2.0).contains(margin) {
            return Err(IndexerError::InvalidRequest(format!(
                "the margin {margin} is no difference of cosines (0 to 2)"
            )));
        }
        let floor = threshold - margin;
        let rows: RoaringBitmap = kept.iter().map(|(_, row, _)| *row).collect();
        let mut nearest = Vec::new();
        let mut within = Vec::new();
        for (number, set) in excluded.iter().enumerate() {
            let compare = |rows: &RoaringBitmap, k: usize, floor: f32| {
                let wanted = Wanted { k, floor, method: Method::Exact };
                let others = Some((set.view(), None));
                neighbours((pool, Some(rows)), others, wanted, &|_| {}, cancel)
            };
            let best = compare(&rows, 1, f32::NEG_INFINITY)?;
            let best = best.iter().filter_map(|(row, near)| Some((row, *near.first()?)));
            let best: Vec<(u32, (u32, f32))> = best.collect();
            // Only of those whose nearest is within the margin, others are too.
            let near = best.iter().filter(|(_, near)| near.1 >= floor).map(|(row, _)| *row);
            let near: RoaringBitmap = near.collect();
            nearest.extend(best.into_iter().map(|(row, near)| (number, row, near)));
            if !near.is_empty() {
                for (row, all) in compare(&near, set.images().len(), floor)?.iter() {
                    within.extend(all.iter().map(|&near| (number, row, near)));
                }
            }
        }
        let most_similar = |pairs: &mut Vec<(usize, u32, (u32, f32))>| {
            pairs.sort_by(|a, b| {
                let by_similarity = b.2.1.total_cmp(&a.2.1);
                by_similarity.then((a.1, a.0, a.2.0).cmp(&(b.1, b.0, b.2.0)))
            });
        };
        most_similar(&mut nearest);
        most_similar(&mut within);
        let leaks = within.iter().filter(|pair| pair.2.1 >= *threshold).count();
        let max_similarity = nearest.first().map(|pair| pair.2.1);
        let pairs_within_margin = within.len();
        let listed = if within.is_empty() {
            nearest.into_iter().take(1)
        } else {
            within.into_iter().take(LISTED)
        };
        let images: u64 = excluded.iter().map(|set| set.images().len() as u64).sum();
        Ok(Certificate {
            format_version: CERTIFICATE_FORMAT,
            akin: env!("CARGO_PKG_VERSION").to_owned(),
            method: "every exported image compared with every excluded image, without an \
                     approximate index"
                .to_owned(),
            model: pool.manifest().model.name.clone(),
            fingerprint: pool.manifest().fingerprint.clone(),
            threshold: *threshold,
            margin: *margin,
            kept: side("kept", pool, kept)?,
            excluded: excluded.iter().map(side_of).collect::<Result<_>>()?,
            pairs_compared: kept.len() as u64 * images,
            max_similarity,
            leaks,
            pairs_within_margin,
            pairs: listed.map(|pair| self.named(pair)).collect::<Result<_>>()?,
        })
    }

    fn named(&self, (set, row, near): (usize, u32, (u32, f32))) -> Result<CertifiedPair> {
        let set = &self.excluded[set];
        let path = |view: &View, id: ImageId| {
            let gone = || IndexerError::InvalidRequest(format!("image {id} is gone meanwhile"));
            Ok::<_, IndexerError>(view.record(id)?.ok_or_else(gone)?.path)
        };
        let (kept_id, excluded_id) = (self.pool.id_of(row)?, set.view().id_of(near.0)?);
        Ok(CertifiedPair {
            kept_id,
            kept_path: path(self.pool, kept_id)?,
            excluded_set: set.name().to_owned(),
            excluded_id,
            excluded_path: path(set.view(), excluded_id)?,
            similarity: near.1,
        })
    }
}

fn side_of(set: &ImageSet) -> Result<Side> {
    let images = set.images().iter().map(|image| (image.id, image.row, image.sha256));
    side(set.name(), set.view(), &images.collect::<Vec<_>>())
}

fn side(name: &str, view: &View, images: &[(ImageId, u32, [u8; 32])]) -> Result<Side> {
    let mut images = images.to_vec();
    images.sort_by_key(|&(id, _, sha256)| (sha256, id));
    let mut vectors = Sha256::new();
    for (id, row, sha256) in &images {
        vectors.update(sha256);
        for value in view.vector(*row, *id)? {
            vectors.update(value.to_le_bytes());
        }
    }
    Ok(Side {
        name: name.to_owned(),
        collection: view.name().to_owned(),
        images: images.len(),
        files_sha256: files_sha256(images.iter().map(|(_, _, sha256)| *sha256)),
        vectors_sha256: ContentHash::from_bytes(&vectors.finalize().into()).as_str().to_owned(),
    })
}

/// Hash over file hashes, ascending.
pub(super) fn files_sha256(hashes: impl Iterator<Item = [u8; 32]>) -> String {
    let mut hashes: Vec<[u8; 32]> = hashes.collect();
    hashes.sort_unstable();
    let mut files = Sha256::new();
    hashes.iter().for_each(|hash| files.update(hash));
    ContentHash::from_bytes(&files.finalize().into()).as_str().to_owned()
}
