//! Whether a pair of similar images is one picture, or two pictures of one subject.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::align::{Alignment, Comparable, align};
use engine::decode::DecodeOptions;
use engine::{DinoEmbedder, Embedder, Pixels, Preprocess};
use rayon::prelude::*;
use serde::Serialize;

use super::graph::{Edge, OnDone};
use super::keep::Candidate;
use super::originals::original;
use crate::error::{IndexerError, Result};
use crate::phash::PerceptualHash;
use crate::pipeline::{BATCH, Skipped};

/// Pictures kept prepared at a time: about 0.6 GB.
const PREPARED: usize = 2048;
/// Pictures with too little texture to be laid over each other are copies when their hashes differ
/// in no more bits than this, and their embeddings are as similar as this.
const HASH_BITS: u32 = 4;
const HASH_SIMILARITY: f32 = 0.97;

/// What two images are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Their files are equal.
    SameFile,
    /// Their decoded pixels are equal.
    SamePixels,
    /// One is an edited copy of the other, or both are of a third.
    SamePicture,
    /// Their embeddings are similar; nobody looked at the pixels.
    Similar,
    /// Two different pictures of much the same.
    SameSubject,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SameFile => "same file",
            Self::SamePixels => "same pixels",
            Self::SamePicture => "same picture edited",
            Self::Similar => "similar",
            Self::SameSubject => "same subject",
        })
    }
}

/// What was seen when two pictures were compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The map from the first to the second, in relative positions; none found is none.
    pub map: Option<[[f32; 3]; 2]>,
    /// Correlation of pixels under the map.
    pub correlation: f32,
    /// Blocks of pixels compared.
    pub blocks: usize,
    /// Median correlation of their pixels.
    pub agreement: f32,
    /// Blocks that disagree.
    pub conflicts: usize,
    /// Share of the frame covered.
    pub overlap: f32,
    /// Mutual nearest patches that the map agrees with.
    pub patches: usize,
    /// Mutual nearest patches.
    pub patches_of: usize,
    /// Differing bits of the perceptual hashes, of 64.
    pub hash_bits: Option<u32>,
}

/// A pair after both pictures were looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The pair.
    pub edge: Edge,
    /// What it is; [`Kind::SamePicture`] or [`Kind::SameSubject`].
    pub kind: Kind,
    /// Why.
    pub evidence: Evidence,
}

/// How pictures are prepared for comparison.
pub struct Verifier<'a> {
    model: Option<&'a DinoEmbedder>,
    options: DecodeOptions,
}

impl<'a> Verifier<'a> {
    /// With a model's patch tokens.
    pub fn new(model: &'a DinoEmbedder) -> Self {
        Self { options: model.decode_options(), model: Some(model) }
    }

    /// By pixels alone.
    pub fn of_pixels() -> Self {
        Self { model: None, options: DecodeOptions::default() }
    }
}

impl std::fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("patches", &self.model.is_some()).finish_non_exhaustive()
    }
}

/// Judges pairs whose pictures can be read; the others are left out, and their files named. Pairs
/// that follow each other should share pictures.
///
/// # Errors
/// `image` fails, the model fails, or [`IndexerError::Cancelled`].
pub fn verify(
    edges: &[Edge],
    image: &(dyn Fn(u32) -> Result<Candidate> + Sync),
    verifier: &Verifier<'_>,
    on_done: OnDone<'_>,
    cancel: &AtomicBool,
) -> Result<(Vec<Judged>, Vec<Skipped>)> {
    let mut prepared: BTreeMap<u32, Option<Prepared>> = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut judged = Vec::with_capacity(edges.len());
    let mut rest = edges;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_len(rest));
        rest = later;
        let mut nodes: Vec<u32> = batch.iter().flat_map(|edge| [edge.a, edge.b]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        prepared.retain(|node, _| nodes.binary_search(node).is_ok());
        let new: Vec<u32> = nodes.into_iter().filter(|node| !prepared.contains_key(node)).collect();
        for some in new.chunks(BATCH) {
            if cancel.load(Ordering::Relaxed) {
                return Err(IndexerError::Cancelled);
            }
            let images = some.iter().map(|&node| image(node)).collect::<Result<Vec<_>>>()?;
            for (node, outcome) in some.iter().zip(verifier.prepare(&images)?) {
                let outcome = outcome.map_err(|one| skipped.push(one)).ok();
                prepared.insert(*node, outcome);
            }
        }
        let judge = |edge: &Edge| {
            if cancel.load(Ordering::Relaxed) {
                return None;
            }
            let of = |node: u32| prepared.get(&node).and_then(Option::as_ref);
            let found = of(edge.a).zip(of(edge.b)).map(|(a, b)| judge(*edge, a, b));
            on_done(1);
            found
        };
        judged.extend(batch.par_iter().filter_map(judge).collect::<Vec<_>>());
        if cancel.load(Ordering::Relaxed) {
            return Err(IndexerError::Cancelled);
        }
    }
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    skipped.dedup_by(|a, b| a.path == b.path);
    Ok((judged, skipped))
}

/// Edges whose pictures fit into memory together; at least one.
fn batch_len(edges: &[Edge]) -> usize {
    let mut nodes = std::collections::BTreeSet::new();
    let fits = |edge: &&Edge| {
        nodes.extend([edge.a, edge.b]);
        nodes.len() <= PREPARED
    };
    edges.iter().take_while(fits).count().max(1)
}

struct Prepared {
    picture: Comparable,
    hash: Option<PerceptualHash>,
}

impl Verifier<'_> {
    /// Reads, decodes and embeds a batch.
    fn prepare(&self, images: &[Candidate]) -> Result<Vec<Result<Prepared, Skipped>>> {
        let read = |image: &Candidate| {
            let picture = original(image, &self.options)?;
            let pixels = match self.model.map(|model| model.prepare(&picture)).transpose() {
                Ok(pixels) => pixels,
                Err(error) => {
                    let (path, reason) = (image.path.to_path(), error.to_string());
                    return Err(Skipped { path, reason, not_a_picture: false });
                }
            };
            Ok((Comparable::new(&picture), pixels))
        };
        let read: Vec<Result<(Comparable, Option<Pixels>), Skipped>> =
            images.par_iter().map(read).collect();
        let batch: Vec<Pixels> =
            read.iter().flatten().filter_map(|(_, pixels)| pixels.clone()).collect();
        let tokens = match self.model {
            Some(model) => model.embed_dense(&batch)?,
            None => Vec::new(),
        };
        let mut tokens = tokens.into_iter();
        let mut finish = |(picture, _): (Comparable, Option<Pixels>)| {
            let picture = match (self.model, tokens.next()) {
                (Some(model), Some(dense)) => {
                    let (_, dim) = model.patch_tokens_shape();
                    let preprocess: &Preprocess = &model.identity().preprocess;
                    picture.with_patch_tokens(&dense.patch_tokens, dim, preprocess)
                }
                _ => picture,
            };
            let (width, height, grey) = picture.grey();
            let hash = PerceptualHash::of(width, height, grey);
            Prepared { picture, hash }
        };
        Ok(read.into_iter().map(|one| one.map(&mut finish)).collect())
    }
}

fn judge(edge: Edge, a: &Prepared, b: &Prepared) -> Judged {
    let found = align(&a.picture, &b.picture);
    let hash_bits = a.hash.as_ref().zip(b.hash.as_ref()).map(|(a, b)| a.distance(b));
    let evidence = match found {
        Some(Alignment { map, correlation, agreement, patches }) => Evidence {
            map: Some(map.0),
            correlation,
            blocks: agreement.blocks,
            agreement: agreement.median,
            conflicts: agreement.conflicts,
            overlap: agreement.overlap,
            patches: patches.0,
            patches_of: patches.1,
            hash_bits,
        },
        None => Evidence {
            map: None,
            correlation: 0.0,
            blocks: 0,
            agreement: 0.0,
            conflicts: 0,
            overlap: 0.0,
            patches: 0,
            patches_of: 0,
            hash_bits,
        },
    };
    let by_pixels = found.is_some_and(|found| found.agreement.is_copy());
    let by_hash = found.is_some_and(|found| !found.agreement.is_telling())
        && hash_bits.is_some_and(|bits| bits <= HASH_BITS)
        && edge.similarity >= HASH_SIMILARITY;
    let kind = if by_pixels || by_hash { Kind::SamePicture } else { Kind::SameSubject };
    Judged { edge, kind, evidence }
}
