//! Exact search: every candidate row is compared. Also the judge of approximate search.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::Neighbour;
use crate::error::Result;
use crate::vectors::Rows;

/// Rows that one task looks through: large enough to amortise scheduling, small enough to share out.
const ROWS_PER_TASK: u32 = 8192;

/// Orders worst first, so that the heap's root is the neighbour to give up next.
#[derive(PartialEq)]
pub(super) struct WorstFirst(Neighbour);

impl Eq for WorstFirst {}

impl PartialOrd for WorstFirst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WorstFirst {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_similarity = other.0.similarity.total_cmp(&self.0.similarity);
        by_similarity.then(self.0.row.cmp(&other.0.row))
    }
}

/// The `k` nearest of the neighbours shown to it.
pub(super) struct Closest {
    k: usize,
    heap: BinaryHeap<WorstFirst>,
}

impl Closest {
    pub(super) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Whether a neighbour would be among them.
    pub(super) fn takes(&self, row: u32, similarity: f32) -> bool {
        let entry = WorstFirst(Neighbour { row, similarity });
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| entry < *worst)
    }

    pub(super) fn push(&mut self, row: u32, similarity: f32) {
        let entry = WorstFirst(Neighbour { row, similarity });
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// Them, in no order.
    pub(super) fn into_vec(self) -> Vec<Neighbour> {
        self.heap.into_iter().map(|entry| entry.0).collect()
    }
}

/// The `k` rows most similar to a unit-length query among `rows`, best first, ties by row.
pub(crate) fn exact(
    vectors: &Rows,
    rows: &RoaringBitmap,
    query: &[f32],
    k: usize,
) -> Result<Vec<Neighbour>> {
    let (Some(first), Some(last)) = (rows.min(), rows.max()) else { return Ok(Vec::new()) };
    let best_between = |start: u32, end: u32| {
        let mut closest = Closest::new(k);
        vectors.dot_products(query, rows.range(start..=end), |row, similarity| {
            closest.push(row, similarity);
        })?;
        Ok(closest.into_vec())
    };
    let mut best = if rows.len() <= u64::from(ROWS_PER_TASK) {
        best_between(first, last)?
    } else {
        let tasks: Vec<Vec<Neighbour>> = (first / ROWS_PER_TASK..=last / ROWS_PER_TASK)
            .into_par_iter()
            .map(|task| {
                let start = task * ROWS_PER_TASK;
                best_between(start, start + (ROWS_PER_TASK - 1))
            })
            .collect::<Result<_>>()?;
        tasks.into_iter().flatten().collect()
    };
    best.sort_unstable_by(Neighbour::best_first);
    best.truncate(k);
    Ok(best)
}
