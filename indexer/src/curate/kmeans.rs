//! Spherical k-means: clusters of unit vectors by cosine similarity.
//!
//! Assignment goes by matrix products. A centroid is the sum of its members in the order of their
//! numbers, in f64, so that the same points and seed give the same clusters, whatever the number of
//! threads.

use std::sync::atomic::AtomicBool;

use engine::kernels::dot;
use rayon::prelude::*;

use super::sets::{Held, Points};
use super::similar::{Match, nearest, stop_if};
use crate::error::{IndexerError, Result};
use crate::random::SplitMix64;

/// Points that k-means++ draws its starts from, for each cluster and at least.
const START_PER_CLUSTER: usize = 16;
const START_LEAST: usize = 4096;
/// More starts than this are drawn plainly: k-means++ reads its sample once for each.
const CAREFUL_STARTS: usize = 2000;
/// Members of a cluster that are read at a time.
const MEMBERS: usize = 1024;

/// Where k-means starts.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// k-means++ (Arthur and Vassilvitskii, 2007) on a sample of the points.
    Careful,
    /// These centroids.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare with a reference"))]
    Given(Vec<f32>),
}

/// Choices of one run.
#[derive(Clone, Debug)]
pub(crate) struct KMeans {
    /// At most as many as there are points.
    pub(crate) clusters: usize,
    /// Passes at most; it ends when no point moves.
    pub(crate) iterations: usize,
    pub(crate) start: Start,
    pub(crate) seed: u64,
}

/// Points by cluster.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    /// Unit vectors, one for each cluster.
    pub(crate) centroids: Held,
    /// Cluster of each point, and the similarity with its centroid.
    pub(crate) assigned: Vec<Match>,
    /// Sum over all points of 1 - similarity, after each assignment.
    pub(crate) objective: Vec<f64>,
    /// Empty clusters that were started anew.
    pub(crate) reseeded: usize,
}

impl Clusters {
    /// Members of each cluster, ascending.
    pub(crate) fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.centroids.len()];
        for (point, assigned) in self.assigned.iter().enumerate() {
            members[assigned.number as usize].push(point as u32);
        }
        members
    }
}

impl KMeans {
    /// Clusters points. Ties go to the lowest centroid.
    ///
    /// # Errors
    /// There are no points, a row on disk is damaged, or the caller wants to stop.
    pub(crate) fn run(&self, points: &dyn Points, cancel: &AtomicBool) -> Result<Clusters> {
        let (count, dim) = (points.len(), points.dim());
        let clusters = self.clusters.min(count);
        if clusters == 0 {
            return Err(IndexerError::InvalidRequest(
                "there are no images to cluster, or no clusters to sort them into".to_owned(),
            ));
        }
        let start = match &self.start {
            Start::Given(values) => values.clone(),
            Start::Careful => careful(points, clusters, self.seed, cancel)?,
        };
        let mut result = Clusters {
            centroids: Held { values: start, dim },
            assigned: Vec::new(),
            objective: Vec::new(),
            reseeded: 0,
        };
        for iteration in 0..=self.iterations {
            stop_if(cancel)?;
            let assigned = nearest(points, &result.centroids, cancel)?;
            let moved = assigned.len() != result.assigned.len()
                || assigned.iter().zip(&result.assigned).any(|(new, old)| new.number != old.number);
            result.objective.push(objective(&assigned));
            result.assigned = assigned;
            if !moved || iteration == self.iterations {
                break;
            }
            result.reseeded += result.update(points)?;
        }
        Ok(result)
    }
}

/// Sum of 1 - similarity, in the order of points.
fn objective(assigned: &[Match]) -> f64 {
    assigned.iter().map(|assigned| 1.0 - f64::from(assigned.similarity)).sum()
}

impl Clusters {
    /// Moves each centroid to the mean direction of its members; gives how many had none and were
    /// moved to the point that is least like its own centroid.
    fn update(&mut self, points: &dyn Points) -> Result<usize> {
        let dim = points.dim();
        let mut members = self.members();
        let empty: Vec<usize> = (0..members.len()).filter(|&c| members[c].is_empty()).collect();
        if !empty.is_empty() {
            let mut worst: Vec<u32> = (0..points.len() as u32).collect();
            worst.sort_by(|&a, &b| {
                let similarity = |point: u32| self.assigned[point as usize].similarity;
                similarity(a).total_cmp(&similarity(b)).then(a.cmp(&b))
            });
            let mut worst = worst.into_iter();
            for &cluster in &empty {
                // One that is alone in its cluster would only leave another empty.
                let taken = worst.find(|&point| {
                    members[self.assigned[point as usize].number as usize].len() > 1
                });
                let Some(point) = taken else { break };
                let from = self.assigned[point as usize].number as usize;
                members[from].retain(|&member| member != point);
                members[cluster].push(point);
            }
        }
        let moved: Vec<Option<Vec<f32>>> =
            members.par_iter().map(|members| mean(points, members)).collect::<Result<_>>()?;
        let centroids = self.centroids.values.chunks_exact_mut(dim);
        for (centroid, moved) in centroids.zip(moved) {
            if let Some(moved) = moved {
                centroid.copy_from_slice(&moved);
            }
        }
        Ok(empty.len())
    }
}

/// The mean direction of some points; `None` when they have none.
fn mean(points: &dyn Points, members: &[u32]) -> Result<Option<Vec<f32>>> {
    let dim = points.dim();
    let mut sum = vec![0f64; dim];
    for members in members.chunks(MEMBERS) {
        for point in points.gather(members)?.chunks_exact(dim) {
            for (sum, &value) in sum.iter_mut().zip(point) {
                *sum += f64::from(value);
            }
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Members in opposite directions cancel out; the centroid then stays where it is.
    Ok((length > 1e-12).then(|| sum.iter().map(|value| (value / length) as f32).collect()))
}

/// Starts spread over a sample of the points.
fn careful(
    points: &dyn Points,
    clusters: usize,
    seed: u64,
    cancel: &AtomicBool,
) -> Result<Vec<f32>> {
    let mut random = SplitMix64(seed);
    let dim = points.dim();
    let size = (clusters * START_PER_CLUSTER).max(START_LEAST);
    if clusters > CAREFUL_STARTS {
        return points.gather(&draw(points.len(), clusters, &mut random));
    }
    let sample = points.gather(&draw(points.len(), size, &mut random))?;
    let count = sample.len() / dim;
    let vector = |number: usize| &sample[number * dim..(number + 1) * dim];
    // 1 - similarity with the nearest start: half the squared distance.
    let mut gaps = vec![f64::INFINITY; count];
    let mut starts = Vec::with_capacity(clusters * dim);
    let mut next = random.below(count);
    loop {
        stop_if(cancel)?;
        starts.extend_from_slice(vector(next));
        if starts.len() == clusters * dim {
            return Ok(starts);
        }
        let start = vector(next);
        gaps.par_iter_mut().with_min_len(256).enumerate().for_each(|(number, gap)| {
            let new = 1.0 - f64::from(dot(vector(number), start));
            *gap = gap.min(new.max(0.0));
        });
        gaps[next] = 0.0;
        let total: f64 = gaps.iter().sum();
        let mut left = total * (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        next = gaps
            .iter()
            .position(|gap| {
                left -= gap;
                left < 0.0
            })
            // All that is left are copies of starts, or rounding: any will do.
            .unwrap_or_else(|| random.below(count));
    }
}

/// `wanted` different numbers below `count` by lot, ascending; all when there are no more.
pub(crate) fn draw(count: usize, wanted: usize, random: &mut SplitMix64) -> Vec<u32> {
    if wanted >= count {
        return (0..count as u32).collect();
    }
    // Selection sampling (Knuth, algorithm S): ascending, each subset equally likely.
    let mut drawn = Vec::with_capacity(wanted);
    for number in 0..count {
        if random.below(count - number) < wanted - drawn.len() {
            drawn.push(number as u32);
        }
    }
    drawn
}

#[cfg(test)]
pub(crate) mod tests;
