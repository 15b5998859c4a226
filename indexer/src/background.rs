//! How similar two unrelated pictures of a collection are: the yardstick that turns a cosine,
//! which means nothing to a person, into a percentile.

use engine::kernels::dot;
use roaring::RoaringBitmap;

use crate::error::{IndexerError, Result};
use crate::random::SplitMix64;
use crate::vectors::Rows;

/// Random pairs compared; their 1,001 quantiles are then accurate to about one percent.
const PAIRS: usize = 10_000;
const QUANTILES: usize = 1000;

/// Quantiles 0, 1/1000, … 1 of the similarity of random pairs of different images; empty when
/// there are fewer than two. The same images give the same quantiles.
pub(crate) fn quantiles(vectors: &Rows, alive: &RoaringBitmap) -> Result<Vec<f32>> {
    let images = alive.len() as usize;
    if images < 2 {
        return Ok(Vec::new());
    }
    let mut random = SplitMix64(images as u64);
    let mut similarities = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let first = random.below(images);
        // Skipping one position makes every pair of different images equally likely.
        let second = (first + 1 + random.below(images - 1)) % images;
        let vector = |nth: usize| {
            let row = alive.select(nth as u32).unwrap_or_default();
            Ok::<_, IndexerError>(vectors.checked(u64::from(row))?.1)
        };
        similarities.push(dot(&vector(first)?, &vector(second)?));
    }
    similarities.sort_by(f32::total_cmp);
    Ok((0..=QUANTILES).map(|q| similarities[q * (PAIRS - 1) / QUANTILES]).collect())
}
