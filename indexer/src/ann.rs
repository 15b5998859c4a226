//! Nearest neighbours over rows of vectors: exact, or HNSW when there are very many.
//!
//! Indexes speak of rows, not of images: rows are append-only, so an index never has to forget or
//! replace one. The collection maps rows to the images alive in it.

mod exact;
mod hnsw;

pub(crate) use exact::exact;
pub(crate) use hnsw::Hnsw;

/// A row and its cosine similarity with the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neighbour {
    pub(crate) row: u64,
    pub(crate) similarity: f32,
}
