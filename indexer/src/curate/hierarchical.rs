//! Clusters of clusters, and draws that are even over them (arXiv 2405.15613).
//!
//! Plain k-means puts most of its centroids where most images are. Clustering the centroids again,
//! with a few members of each cluster standing for it, spreads them evenly over what images show;
//! sampling from the top of the hierarchy down then gives rare things their share.

use std::sync::atomic::AtomicBool;

use super::config::{Balance, Draw};
use super::kmeans::{Clusters, KMeans, Start, draw};
use super::sets::{Held, Points};
use super::similar::{Match, nearest, stop_if};
use crate::error::Result;
use crate::random::SplitMix64;

/// Points up to which k-means is started several times, and how often.
const FEW: usize = 2000;
const STARTS: u64 = 8;

/// Levels of clusters, finest first: the points of a level are the centroids of the one below.
pub(crate) struct Hierarchy {
    pub(crate) levels: Vec<Clusters>,
}

impl Hierarchy {
    /// Clusters points, then the centroids, and so on.
    pub(crate) fn new(
        points: &dyn Points,
        config: &Balance,
        seed: u64,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let sizes = match config.levels.is_empty() {
            true => {
                let fine = root(points.len());
                vec![fine, root(fine)]
            }
            false => config.levels.clone(),
        };
        let mut levels: Vec<Clusters> = Vec::new();
        for (level, &clusters) in sizes.iter().enumerate() {
            let seed = seed.wrapping_add(0x9E37 * level as u64);
            let next = match levels.last() {
                None => resampled(points, clusters, config, seed, cancel)?,
                Some(below) => resampled(&below.centroids, clusters, config, seed, cancel)?,
            };
            levels.push(next);
        }
        Ok(Self { levels })
    }

    /// Draws `target` points: shares are even over the clusters of the top level, as far as these
    /// have as many, then over their clusters, and so on down. Ascending.
    pub(crate) fn sample(&self, target: usize, how: Draw, seed: u64) -> Vec<u32> {
        let Some(finest) = self.levels.first() else { return Vec::new() };
        let leaves = finest.members();
        // Points below each cluster, level by level.
        let mut sizes: Vec<Vec<usize>> = vec![leaves.iter().map(Vec::len).collect()];
        for (level, clusters) in self.levels.iter().enumerate().skip(1) {
            let below = &sizes[level - 1];
            let sum =
                |members: &Vec<u32>| members.iter().map(|&member| below[member as usize]).sum();
            let sums = clusters.members().iter().map(sum).collect();
            sizes.push(sums);
        }
        let top = self.levels.len() - 1;
        let mut shares = even_shares(&sizes[top], target);
        for level in (1..=top).rev() {
            let mut finer = vec![0; sizes[level - 1].len()];
            for (members, share) in self.levels[level].members().into_iter().zip(shares) {
                let sizes: Vec<usize> =
                    members.iter().map(|&member| sizes[level - 1][member as usize]).collect();
                for (member, share) in members.into_iter().zip(even_shares(&sizes, share)) {
                    finer[member as usize] = share;
                }
            }
            shares = finer;
        }
        let mut drawn = Vec::with_capacity(target);
        for (cluster, (members, share)) in leaves.into_iter().zip(shares).enumerate() {
            match how {
                Draw::Random => {
                    let mut random = SplitMix64(seed ^ (cluster as u64 + 1).wrapping_mul(0xA24B));
                    let numbers = draw(members.len(), share, &mut random);
                    drawn.extend(numbers.into_iter().map(|number| members[number as usize]));
                }
                Draw::Closest => {
                    drawn.extend(closest(&finest.assigned, members).into_iter().take(share));
                }
            }
        }
        drawn.sort_unstable();
        drawn
    }
}

/// k-means whose centroids are moved by clustering, again and again, the few members nearest to
/// each.
fn resampled(
    points: &dyn Points,
    clusters: usize,
    config: &Balance,
    seed: u64,
    cancel: &AtomicBool,
) -> Result<Clusters> {
    let kmeans = KMeans { clusters, iterations: config.iterations, start: Start::Careful, seed };
    let mut found = best_of_several(&kmeans, points, cancel)?;
    for round in 0..config.resamplings {
        stop_if(cancel)?;
        let near = |members| closest(&found.assigned, members).into_iter().take(config.resample);
        let chosen: Vec<u32> = found.members().into_iter().flat_map(near).collect();
        let sample = Held { values: points.gather(&chosen)?, dim: points.dim() };
        let kmeans = KMeans { seed: seed.wrapping_add(1 + round as u64), ..kmeans.clone() };
        let Clusters { centroids, objective, reseeded, .. } =
            best_of_several(&kmeans, &sample, cancel)?;
        let assigned = nearest(points, &centroids, cancel)?;
        found = Clusters { centroids, assigned, objective, reseeded };
    }
    Ok(found)
}

/// Of a few points, the best of several starts: k-means on the centroids of a lower level easily ends
/// where two far groups share a cluster.
fn best_of_several(kmeans: &KMeans, points: &dyn Points, cancel: &AtomicBool) -> Result<Clusters> {
    let mut best = kmeans.run(points, cancel)?;
    let last = |found: &Clusters| found.objective.last().copied().unwrap_or(f64::INFINITY);
    for start in 1..STARTS * u64::from(points.len() <= FEW) {
        let seed = kmeans.seed ^ start.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let next = KMeans { seed, ..kmeans.clone() }.run(points, cancel)?;
        if last(&next) < last(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// Members by falling similarity with their centroid, ties by number.
fn closest(assigned: &[Match], mut members: Vec<u32>) -> Vec<u32> {
    members.sort_by(|&a, &b| {
        let similarity = |member: u32| assigned[member as usize].similarity;
        similarity(b).total_cmp(&similarity(a)).then(a.cmp(&b))
    });
    members
}

/// Shares of `target` that are even, as far as sizes allow, and add up to it or to all there is.
/// What cannot be divided goes to the first that have more.
pub(crate) fn even_shares(sizes: &[usize], target: usize) -> Vec<usize> {
    let mut ascending = sizes.to_vec();
    ascending.sort_unstable();
    let mut left = target;
    let mut level = 0;
    for (i, &size) in ascending.iter().enumerate() {
        let open = ascending.len() - i;
        let raise = size - level;
        if raise * open > left {
            level += left / open;
            left %= open;
            let extra = |&size: &usize| {
                let more = usize::from(size > level && left > 0);
                left -= more;
                size.min(level) + more
            };
            return sizes.iter().map(extra).collect();
        }
        left -= raise * open;
        level = size;
    }
    sizes.to_vec()
}

/// The square root, rounded up.
pub(crate) fn root(count: usize) -> usize {
    (count as f64).sqrt().ceil() as usize
}

#[cfg(test)]
mod tests;
