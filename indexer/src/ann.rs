//! Nearest neighbours over rows of vectors: exact, or HNSW when there are very many.
//!
//! Indexes speak of rows, not of images: rows are append-only, so an index never has to forget or
//! replace one. The collection knows which rows are alive.

mod exact;
mod hnsw;
mod frozen;
mod quantised;
mod snapshot;
mod layers;
mod loose;
mod audit;

use std::cmp::Ordering;

pub(crate) use audit::Audit;
pub(crate) use exact::exact;
pub(crate) use layers::Layers;
pub(crate) use quantised::Candidate;

/// A row and its cosine similarity with the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neighbour {
    pub(crate) row: u32,
    pub(crate) similarity: f32,
}

impl Neighbour {
    /// Most similar first, ties by row.
    pub(crate) fn best_first(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.row.cmp(&other.row))
    }
}

#[cfg(test)]
mod tests;
