//! Unit vectors as bytes, with one scale for the rows of a graph: distances only choose candidates, which are then
//! compared exactly.

use engine::kernels::dot;

use crate::error::{IndexerError, Result};

/// Standard deviations that the error of a distance is taken to stay below: it does but for one of 10^9.
const CERTAIN: f32 = 6.0;

/// A row that may be near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) row: u32,
    /// What its similarity hardly exceeds.
    pub(crate) at_most: f32,
}

/// The bytes of a vector whose components are mostly below `scale`; larger ones are cut off.
pub(super) fn quantised(vector: &[f32], dim: usize, scale: f32) -> Result<Vec<i8>> {
    if vector.len() != dim {
        return Err(IndexerError::Dimension { got: vector.len(), expected: dim });
    }
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(IndexerError::InvalidRequest(
            "the vector has values that are not finite".to_owned(),
        ));
    }
    let factor = 127.0 / scale;
    Ok(vector.iter().map(|value| (value * factor).round().clamp(-127.0, 127.0) as i8).collect())
}

/// A query as bytes, and what products with it mean.
pub(super) struct Query {
    pub(super) bytes: Vec<i8>,
    /// Similarity for each unit of a product.
    step: f32,
    /// What rounding hardly adds.
    margin: f32,
}

impl Query {
    /// For rows whose bytes were made with `scale`.
    pub(super) fn new(query: &[f32], dim: usize, scale: f32) -> Result<Self> {
        // The order of products does not depend on the query's length: it gets all levels.
        let largest = query.iter().fold(f32::MIN_POSITIVE, |max, value| max.max(value.abs()));
        let bytes = quantised(query, dim, largest)?;
        let (row_step, query_step) = (scale / 127.0, largest / 127.0);
        // Rounding errors of a component are spread evenly over a step; what they add to a product of unit vectors has
        // their variance.
        let of_rows = dot(query, query) * row_step * row_step;
        let deviation = ((of_rows + query_step * query_step) / 12.0).sqrt();
        Ok(Self { bytes, step: row_step * query_step, margin: CERTAIN * deviation })
    }

    pub(super) fn candidate(&self, row: u32, product: f32) -> Candidate {
        Candidate { row, at_most: product * self.step + self.margin }
    }
}
