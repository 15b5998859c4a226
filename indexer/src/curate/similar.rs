//! Vectors of one side compared with all of another, by blocked matrix products.
//!
//! Blocks have fixed sizes and are computed by one thread each: results do not depend on how many
//! threads there are.

use std::sync::atomic::{AtomicBool, Ordering};

use engine::kernels::{Operand, matmul_f32};
use rayon::prelude::*;

use super::sets::Points;
use crate::error::{IndexerError, Result};

/// Queries of one task, and vectors they are compared with at a time: the product of two blocks
/// fits a core's cache.
const QUERIES: usize = 256;
const BASE: usize = 1024;

/// A vector of the other side, and the cosine similarity with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    /// Number on the other side.
    pub(crate) number: u32,
    /// Cosine similarity.
    pub(crate) similarity: f32,
}

/// Takes similarities of a query with a run of vectors into what is known of it so far.
type Visit<'a, T> = dyn Fn(&mut T, (usize, usize), &[f32]) + Sync + 'a;

/// Compares each query with all of `base`: `visit` gets the result of the query so far, the numbers
/// of the query and of the first vector compared, and similarities. One result for each query.
pub(crate) fn scan<T: Clone + Send + Sync>(
    (queries, base): (&dyn Points, &dyn Points),
    start: T,
    visit: &Visit<'_, T>,
    cancel: &AtomicBool,
) -> Result<Vec<T>> {
    let dim = queries.dim();
    let results: Vec<Vec<T>> = (0..queries.len().div_ceil(QUERIES))
        .into_par_iter()
        .map(|task| {
            let first = task * QUERIES;
            let count = QUERIES.min(queries.len() - first);
            let block = queries.block(first..first + count)?;
            let mut results = vec![start.clone(); count];
            let mut scores = vec![0.0; count * BASE.min(base.len())];
            for from in (0..base.len()).step_by(BASE) {
                stop_if(cancel)?;
                let width = BASE.min(base.len() - from);
                let others = base.block(from..from + width)?;
                let scores = &mut scores[..count * width];
                let (a, b) = (Operand::new(&block, count, dim), Operand::new(&others, width, dim));
                matmul_f32(a, b.t(), scores);
                let lines = scores.chunks_exact(width).enumerate();
                for (result, (query, scores)) in results.iter_mut().zip(lines) {
                    visit(result, (first + query, from), scores);
                }
            }
            Ok(results)
        })
        .collect::<Result<_>>()?;
    Ok(results.into_iter().flatten().collect())
}

/// The most similar of `base` for each query; the lowest number of several.
pub(crate) fn nearest(
    queries: &dyn Points,
    base: &dyn Points,
    cancel: &AtomicBool,
) -> Result<Vec<Match>> {
    let start = Match { number: 0, similarity: f32::NEG_INFINITY };
    scan((queries, base), start, &|best, (_, from), scores| best.take_better(from, scores), cancel)
}

impl Match {
    /// The first of several that are as similar stays.
    pub(crate) fn take_better(&mut self, from: usize, scores: &[f32]) {
        for (i, &similarity) in scores.iter().enumerate() {
            if similarity > self.similarity {
                *self = Self { number: (from + i) as u32, similarity };
            }
        }
    }
}

/// Fails once the caller wants to stop.
pub(crate) fn stop_if(cancel: &AtomicBool) -> Result<()> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(IndexerError::Cancelled),
        false => Ok(()),
    }
}
