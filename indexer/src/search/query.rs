//! Examples to vectors: what the images of a view are compared with.

use std::collections::BTreeSet;

use engine::Embedding;
use engine::kernels::dot;
use sha2::{Digest, Sha256};

use super::request::{Example, Scoring, SearchRequest, invalid};
use crate::View;
use crate::error::{IndexerError, Result};
use crate::id::ImageId;

/// Length below which a sum of unit vectors says nothing: stored values have errors of that order.
const TOO_SHORT: f64 = 1e-3;

/// Vectors that images are compared with, all of unit length.
#[derive(Debug)]
pub(super) struct Query {
    /// An image's similarity is the greatest with one of these.
    pub(super) targets: Vec<Vec<f32>>,
    /// An image at least as similar to one of these is left out.
    pub(super) vetoes: Vec<Vec<f32>>,
    /// Images given as examples.
    pub(super) examples: BTreeSet<ImageId>,
}

impl Query {
    /// Looks up the examples of a request.
    pub(super) fn of(view: &View, request: &SearchRequest) -> Result<Self> {
        let vectors = |examples: &[Example]| {
            examples.iter().map(|example| vector(view, example)).collect::<Result<Vec<_>>>()
        };
        let (positives, negatives) = (vectors(&request.positive)?, vectors(&request.negative)?);
        let both = request.positive.iter().chain(&request.negative);
        let examples = both
            .filter_map(|example| match example {
                Example::Id(id) => Some(*id),
                Example::Vector(_) => None,
            })
            .collect();
        Ok(match request.scoring {
            Scoring::Average => {
                let targets = vec![average(positives, &negatives)?];
                Self { targets, vetoes: Vec::new(), examples }
            }
            Scoring::Best => Self { targets: positives, vetoes: negatives, examples },
        })
    }

    /// Similarity of a stored vector.
    pub(super) fn similarity(&self, stored: &[f32]) -> f32 {
        greatest(&self.targets, stored)
    }

    /// Whether an image of this similarity is left out for its nearness to a negative.
    pub(super) fn vetoed(&self, similarity: f32, stored: &[f32]) -> bool {
        !self.vetoes.is_empty() && greatest(&self.vetoes, stored) >= similarity
    }

    /// What tells this search from others, page size and place in the list left out.
    pub(super) fn fingerprint(&self, view: &View, request: &SearchRequest) -> u64 {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(view.name().as_bytes());
        add(view.manifest().fingerprint.as_bytes());
        for vectors in [&self.targets, &self.vetoes] {
            add(&(vectors.len() as u64).to_le_bytes());
            for vector in vectors {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                add(&bytes);
            }
        }
        let number = |value: Option<f32>| value.map_or_else(Vec::new, |x| x.to_le_bytes().to_vec());
        add(&number(request.min_similarity));
        add(&number(request.hide_duplicates));
        add(&number(request.diversity));
        let filter = request.filter.as_ref().map(ToString::to_string);
        add(filter.unwrap_or_default().as_bytes());
        let mut excluded: BTreeSet<ImageId> = request.exclude.iter().copied().collect();
        if !request.shows_examples() {
            excluded.extend(&self.examples);
        }
        excluded.iter().for_each(|id| add(&id.0.to_le_bytes()));
        let digest = hash.finalize();
        digest.iter().take(8).fold(0, |all, &byte| all << 8 | u64::from(byte))
    }
}

fn greatest(vectors: &[Vec<f32>], stored: &[f32]) -> f32 {
    vectors.iter().map(|vector| dot(vector, stored)).fold(f32::NEG_INFINITY, f32::max)
}

fn vector(view: &View, example: &Example) -> Result<Vec<f32>> {
    let values = match example {
        Example::Vector(values) => values.clone(),
        Example::Id(id) => stored(view, *id)?,
    };
    let expected = view.manifest().model.dim;
    if values.len() != expected {
        return Err(IndexerError::Dimension { got: values.len(), expected });
    }
    let embedding = Embedding::normalised(values).map_err(|error| {
        IndexerError::InvalidRequest(format!("this vector cannot be searched with: {error}"))
    })?;
    Ok(embedding.as_slice().to_vec())
}

fn stored(view: &View, id: ImageId) -> Result<Vec<f32>> {
    let Some(record) = view.record(id)? else {
        return invalid(format!(
            "there is no image {id} in collection `{}`; it may have been removed",
            view.name()
        ));
    };
    let row = u32::try_from(record.row).ok().filter(|&row| view.alive().contains(row));
    match row {
        Some(row) => view.vector(row, id),
        None => invalid(format!("image {id} was changed just now; search again")),
    }
}

/// The mean of the positives, or twice that minus the mean of the negatives, of unit length.
fn average(mut positives: Vec<Vec<f32>>, negatives: &[Vec<f32>]) -> Result<Vec<f32>> {
    if negatives.is_empty() && positives.len() == 1 {
        return Ok(positives.remove(0));
    }
    let mean = |vectors: &[Vec<f32>], i: usize| {
        vectors.iter().map(|vector| f64::from(vector[i])).sum::<f64>() / vectors.len() as f64
    };
    let sum: Vec<f64> = (0..positives[0].len())
        .map(|i| match negatives {
            [] => mean(&positives, i),
            _ => 2.0 * mean(&positives, i) - mean(negatives, i),
        })
        .collect();
    if sum.iter().map(|x| x * x).sum::<f64>().sqrt() < TOO_SHORT {
        return invalid(
            "the examples cancel each other out, so that nothing is more similar to them than \
             anything else; leave some out, or use scoring `best`"
                .to_owned(),
        );
    }
    let unit = Embedding::normalised(sum.into_iter().map(|x| x as f32).collect())?;
    Ok(unit.as_slice().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_by_hand() -> Result<()> {
        let close = |a: Vec<f32>, b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let (x, y) = (vec![1.0, 0.0], vec![0.0, 1.0]);
        assert_eq!(average(vec![x.clone()], &[])?, x);
        let half = 0.5f32.sqrt();
        assert!(close(average(vec![x.clone(), y.clone()], &[])?, [half, half]));
        // 2 (1, 0) - (0, 1), of length √5.
        let expected = [2.0 / 5f32.sqrt(), -1.0 / 5f32.sqrt()];
        assert!(close(average(vec![x.clone()], std::slice::from_ref(&y))?, expected));
        let error = average(vec![x.clone(), vec![-1.0, 0.0]], &[]).expect_err("cancels");
        assert!(error.to_string().contains("cancel each other out"));
        Ok(())
    }

    #[test]
    fn the_best_positive_counts_and_negatives_veto() {
        let query = Query {
            targets: vec![vec![1.0, 0.0], vec![0.0, 1.0]],
            vetoes: vec![vec![-1.0, 0.0], vec![0.6, 0.8]],
            examples: BTreeSet::new(),
        };
        for (stored, similarity, vetoed) in [
            ([1.0, 0.0], 1.0, false),
            ([0.6, 0.8], 0.8, true),
            ([0.0, 1.0], 1.0, false),
            ([-0.8, 0.6], 0.6, true),
        ] {
            assert_eq!(query.similarity(&stored), similarity);
            assert_eq!(query.vetoed(similarity, &stored), vetoed, "{stored:?}");
        }
    }
}
