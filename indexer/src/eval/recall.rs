//! How much of the exact answer HNSW finds in a collection: a sampled check of its own.

use rayon::prelude::*;
use serde::Serialize;

use crate::View;
use crate::error::{IndexerError, Result};
use crate::id::ImageId;
use crate::random::SplitMix64;

/// What a check of recall found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecallReport {
    /// Images of the collection.
    pub images: usize,
    /// Stored vectors that were searched with.
    pub queries: usize,
    /// Neighbours asked for; the image itself is not counted.
    pub k: usize,
    /// Mean share of the exact neighbours that were found, 0 to 1.
    pub recall: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// Queries that missed something.
    pub imperfect: usize,
    /// The query that missed most; of several, that of the lowest id.
    pub worst: ImageId,
    /// Its share.
    pub worst_recall: f64,
    /// Whether searches go through HNSW; without, recall is 1 by construction.
    pub approximate: bool,
}

/// Compares searches for the `k` nearest neighbours of `queries` stored vectors, drawn without
/// replacement, with exact ones. A neighbour as similar as the last exact one counts as found,
/// whichever of equals it is. The same seed and view draw the same.
///
/// The interval is Wilson's for as many draws as queries. Found shares vary less than draws of 0 and 1
/// do, so that it is rather too wide.
///
/// # Errors
/// There are fewer than two images, `k` or `queries` is 0, or a row on disk is damaged.
pub fn recall(view: &View, queries: usize, k: usize, seed: u64) -> Result<RecallReport> {
    if view.len() < 2 || k == 0 || queries == 0 {
        return Err(IndexerError::InvalidRequest(
            "recall needs a collection of at least 2 images, and at least 1 query and neighbour"
                .to_owned(),
        ));
    }
    let rows = draw(view, queries, seed);
    let mut shares: Vec<(ImageId, f64)> =
        rows.par_iter().map(|&row| share(view, row, k)).collect::<Result<_>>()?;
    shares.sort_by_key(|share| share.0);
    let mean = shares.iter().map(|share| share.1).sum::<f64>() / shares.len() as f64;
    let (low, high) = wilson(mean, shares.len() as f64);
    let first = shares[0];
    let (worst, worst_recall) =
        shares.iter().fold(first, |worst, share| if share.1 < worst.1 { *share } else { worst });
    Ok(RecallReport {
        images: view.len(),
        queries: shares.len(),
        k,
        recall: mean,
        low,
        high,
        imperfect: shares.iter().filter(|share| share.1 < 1.0).count(),
        worst,
        worst_recall,
        approximate: view.is_approximate(),
    })
}

/// Different rows, at most as many as there are images.
fn draw(view: &View, count: usize, seed: u64) -> Vec<u32> {
    let mut rows: Vec<u32> = view.alive().iter().collect();
    let mut random = SplitMix64(seed);
    let count = count.min(rows.len());
    for i in 0..count {
        let other = i + random.below(rows.len() - i);
        rows.swap(i, other);
    }
    rows.truncate(count);
    rows
}

/// What share of an image's neighbours a search finds.
fn share(view: &View, row: u32, k: usize) -> Result<(ImageId, f64)> {
    let id = view.id_of(row)?;
    let vector = view.vector(row, id)?;
    let others = |near: Vec<crate::Near>| {
        let others = near.into_iter().filter(|near| near.id != id);
        others.take(k).map(|near| near.similarity).collect::<Vec<f32>>()
    };
    let exact = others(view.nearest_exact(&vector, k + 1, None)?);
    let found = others(view.nearest(&vector, k + 1, None)?);
    let last = exact.last().copied().unwrap_or(f32::NEG_INFINITY);
    let right = found.iter().filter(|&&similarity| similarity >= last).count();
    Ok((id, right as f64 / exact.len().max(1) as f64))
}

/// Wilson's 95 % interval of a share among `n` draws.
fn wilson(share: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Rounding must not put the share itself outside.
    (((centre - spread) / scale).clamp(0.0, share), ((centre + spread) / scale).clamp(share, 1.0))
}

#[cfg(test)]
mod tests {
    use super::wilson;

    #[test]
    fn intervals_by_the_books() {
        // The formula of Wilson 1927 in double precision, computed apart.
        for (share, n, low, high) in [
            (0.5, 10.0, 0.236_593, 0.763_407),
            (1.0, 1000.0, 0.996_173, 1.0),
            (0.0, 10.0, 0.0, 0.277_533),
            (0.99, 1000.0, 0.981_691, 0.994_559),
        ] {
            let (a, b) = wilson(share, n);
            assert!((a - low).abs() < 1e-5 && (b - high).abs() < 1e-5, "{share} {n}: {a} {b}");
        }
    }
}
