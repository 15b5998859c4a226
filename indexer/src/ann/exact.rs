//! Exact search: every candidate row is compared. Also the judge of approximate search.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::Neighbour;
use crate::error::Result;
use crate::vectors::Vectors;

/// Rows compared by one task: large enough to amortise scheduling, small enough to share out.
const ROWS_PER_TASK: usize = 4096;

/// Orders worst first, so that the heap's root is the neighbour to give up next.
#[derive(PartialEq)]
struct WorstFirst(Neighbour);

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

/// The `k` rows most similar to a unit-length query among `rows`, best first, ties by row.
pub(crate) fn exact(
    vectors: &Vectors,
    rows: &[u64],
    query: &[f32],
    k: usize,
) -> Result<Vec<Neighbour>> {
    let best: Vec<Vec<Neighbour>> = rows
        .par_chunks(ROWS_PER_TASK)
        .map(|chunk| {
            let mut heap = BinaryHeap::new();
            vectors.dot_products(query, chunk.iter().copied(), |row, similarity| {
                heap.push(WorstFirst(Neighbour { row, similarity }));
                if heap.len() > k {
                    heap.pop();
                }
            })?;
            Ok(heap.into_iter().map(|entry| entry.0).collect())
        })
        .collect::<Result<_>>()?;
    let mut best: Vec<Neighbour> = best.into_iter().flatten().collect();
    best.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)));
    best.truncate(k);
    Ok(best)
}
