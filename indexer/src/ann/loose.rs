//! Rows that no graph leads to: few, and compared by every search, so that a copy of them lies together in memory.

use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;

use super::Neighbour;
use super::exact::{Closest, exact};
use crate::error::Result;
use crate::vectors::{CopiedRows, Rows};

/// Most rows that are copied: with 384 halves each, 3 MiB. More are read where they are.
const MOST: u64 = 4096;

/// Rows in no graph. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Loose {
    rows: RoaringBitmap,
    copy: Arc<OnceLock<CopiedRows>>,
}

impl Loose {
    pub(super) fn new(rows: impl IntoIterator<Item = u32>) -> Self {
        Self { rows: rows.into_iter().collect(), copy: Arc::default() }
    }

    pub(super) fn insert(&mut self, row: u32) {
        if self.rows.insert(row) {
            self.copy = Arc::default();
        }
    }

    pub(super) fn rows(&self) -> &RoaringBitmap {
        &self.rows
    }

    /// The `k` of them nearest to a query that are `alive`, in no order; similarities are those of the stored
    /// embeddings, whose checksums are not looked at.
    pub(super) fn nearest(
        &self,
        vectors: &Rows,
        alive: &RoaringBitmap,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<Neighbour>> {
        if self.rows.len() > MOST {
            return exact(vectors, &(&self.rows & alive), query, k);
        }
        let copy = match self.copy.get() {
            Some(copy) => copy,
            None => {
                let copy = vectors.copy_of(&self.rows)?;
                self.copy.get_or_init(|| copy)
            }
        };
        let mut closest = Closest::new(k);
        vectors.dot_products_of(query, copy, |row, similarity| {
            if closest.takes(row, similarity) && alive.contains(row) {
                closest.push(row, similarity);
            }
        });
        Ok(closest.into_vec())
    }
}
