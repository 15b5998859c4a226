//! How similar two unrelated pictures of a collection are: the yardstick that turns a cosine,
//! which means nothing to a person, into a percentile.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::id::ImageId;
use crate::random::SplitMix64;
use crate::vectors::Vectors;

/// Random pairs compared; their 1,001 quantiles are then accurate to about one percent.
const PAIRS: usize = 10_000;
const QUANTILES: usize = 1000;

/// Quantiles 0, 1/1000, … 1 of the similarity of random pairs of different images; empty when
/// there are fewer than two. The same images give the same quantiles.
pub(crate) fn quantiles(vectors: &Vectors, live: &BTreeMap<u64, ImageId>) -> Result<Vec<f32>> {
    let images: Vec<(u64, ImageId)> = live.iter().map(|(&row, &id)| (row, id)).collect();
    if images.len() < 2 {
        return Ok(Vec::new());
    }
    let mut random = SplitMix64(images.len() as u64);
    let mut similarities = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let first = random.below(images.len());
        // Skipping one position makes every pair of different images equally likely.
        let second = (first + 1 + random.below(images.len() - 1)) % images.len();
        let a = vectors.read(images[first].0, images[first].1)?;
        let b = vectors.read(images[second].0, images[second].1)?;
        similarities.push(a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>());
    }
    similarities.sort_by(f32::total_cmp);
    Ok((0..=QUANTILES).map(|q| similarities[q * (PAIRS - 1) / QUANTILES]).collect())
}
