//! What a search is asked for, and which requests make no sense.

use serde::{Deserialize, Serialize};

use crate::error::{IndexerError, Result};
use crate::filter::Filter;
use crate::id::ImageId;

/// Most results of one page.
pub const MAX_K: usize = 10_000;
/// Deepest result that paging reaches.
pub const MAX_DEPTH: usize = 100_000;
/// Most examples, positive and negative together.
pub const MAX_EXAMPLES: usize = 100;
/// Most images left out by id.
pub const MAX_EXCLUDED: usize = 10_000;
/// Deepest result that paging reaches when near-duplicates are hidden.
pub const MAX_DISTINCT: usize = 1000;
/// Images looked at when near-duplicates are hidden; results end with them.
pub const DISTINCT_POOL: usize = 10_000;
/// Best images among which a diverse list is chosen; it ends with them.
pub const DIVERSITY_POOL: usize = 500;
/// Similarity from which on two images are near-duplicates, unless another is chosen.
pub const NEAR_DUPLICATE: f32 = 0.95;

/// An image to search with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "an example is the id of an image or a list of numbers")]
pub enum Example {
    /// One of the collection.
    Id(ImageId),
    /// Any vector of the collection's length, such as a picture's embedding; its length is made one.
    Vector(Vec<f32>),
}

/// How several examples make one ranking; formulas in docs/search.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// One query: the mean of the positives, moved away from the mean of the negatives.
    #[default]
    Average,
    /// Similarity with the nearest positive; images at least as near to a negative are left out.
    Best,
}

/// A search. In JSON, everything but `positive` may be left out, and unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Images to be near to; at least one.
    pub positive: Vec<Example>,
    /// Images not to be near to.
    pub negative: Vec<Example>,
    /// Results wanted: 1 to [`MAX_K`].
    pub k: usize,
    /// Results to skip. Not together with a cursor.
    pub offset: usize,
    /// Where an earlier page of the same search ended: its `next_cursor`.
    pub cursor: Option<String>,
    /// Only images that pass.
    pub filter: Option<Filter>,
    /// Only images at least as similar as this, -1 to 1.
    pub min_similarity: Option<f32>,
    /// Show only the best of images that are at least as similar to each other as this.
    pub hide_duplicates: Option<f32>,
    /// 0 to 1: how much variety counts against similarity (1 minus the λ of maximal marginal
    /// relevance).
    pub diversity: Option<f32>,
    /// Images to leave out.
    pub exclude: Vec<ImageId>,
    /// How several examples make one ranking.
    pub scoring: Scoring,
    /// Whether examples given by id may be results; by default only when there is one example.
    pub include_examples: Option<bool>,
    /// Compare every image, even in a large collection.
    pub exact: bool,
}

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            positive: Vec::new(),
            negative: Vec::new(),
            k: 10,
            offset: 0,
            cursor: None,
            filter: None,
            min_similarity: None,
            hide_duplicates: None,
            diversity: None,
            exclude: Vec::new(),
            scoring: Scoring::default(),
            include_examples: None,
            exact: false,
        }
    }
}

impl SearchRequest {
    /// The plain search: what is most similar to this vector.
    pub fn near(vector: Vec<f32>, k: usize) -> Self {
        Self { positive: vec![Example::Vector(vector)], k, ..Self::default() }
    }

    /// Whether examples given by id may be results.
    pub(super) fn shows_examples(&self) -> bool {
        self.include_examples.unwrap_or(self.positive.len() + self.negative.len() == 1)
    }

    /// Checks all that can be checked without the collection.
    pub(super) fn check(&self) -> Result<()> {
        let examples = self.positive.len() + self.negative.len();
        if self.positive.is_empty() {
            return invalid(
                "there is nothing to search with; give a picture, an id or a vector".into(),
            );
        }
        if examples > MAX_EXAMPLES {
            return invalid(format!(
                "{examples} examples are too many, the limit is {MAX_EXAMPLES}"
            ));
        }
        let both = self.positive.iter().find(|example| self.negative.contains(example));
        match both {
            Some(Example::Id(id)) => {
                return invalid(format!(
                    "image {id} is wanted and unwanted; leave it out on one side"
                ));
            }
            Some(Example::Vector(_)) => {
                return invalid(
                    "one vector is wanted and unwanted; leave it out on one side".to_owned(),
                );
            }
            None => {}
        }
        self.check_values()
    }

    /// Checks everything but the examples.
    pub(super) fn check_values(&self) -> Result<()> {
        if self.exclude.len() > MAX_EXCLUDED {
            return invalid(format!(
                "{} images to leave out are too many, the limit is {MAX_EXCLUDED}; use a filter",
                self.exclude.len()
            ));
        }
        if self.offset > 0 && self.cursor.is_some() {
            return invalid("offset and cursor both say where to go on; give one".to_owned());
        }
        self.check_depth()?;
        self.check_range("min_similarity", self.min_similarity, -1.0)?;
        self.check_range("diversity", self.diversity, 0.0)?;
        self.check_range("hide_duplicates", self.hide_duplicates, 0.0)?;
        if let Some(filter) = &self.filter {
            filter.check()?;
        }
        Ok(())
    }

    /// The deepest result that paging reaches, why, and how to go deeper.
    pub(super) fn deepest(&self) -> (usize, &'static str, &'static str) {
        if self.diversity.is_some() {
            (DIVERSITY_POOL, "a diverse list is chosen among the best", "turn diversity off")
        } else if self.hide_duplicates.is_some() {
            (MAX_DISTINCT, "near-duplicates are hidden among the best", "show near-duplicates")
        } else {
            (MAX_DEPTH, "pages reach the best", "narrow the search with a filter")
        }
    }

    fn check_depth(&self) -> Result<()> {
        let Self { k, offset, .. } = *self;
        if k == 0 {
            return invalid("k is 0: ask for at least 1 result".to_owned());
        }
        if k > MAX_K {
            return invalid(format!(
                "k is {k}, the limit is {MAX_K}; ask for more in pages, with the cursor of each"
            ));
        }
        let (limit, why, remedy) = self.deepest();
        let end = offset.saturating_add(k);
        if end > limit {
            return invalid(format!(
                "results up to {end} are asked for, but {why} {limit}; {remedy} to go deeper"
            ));
        }
        Ok(())
    }

    fn check_range(&self, name: &str, value: Option<f32>, low: f32) -> Result<()> {
        match value {
            // NaN is in no range.
            Some(value) if !(low..=1.0).contains(&value) => {
                invalid(format!("{name} is {value}; it must be from {low} to 1"))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn invalid<T>(message: String) -> Result<T> {
    Err(IndexerError::InvalidRequest(message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_json() {
        let request: SearchRequest = serde_json::from_value(json!({
            "positive": [3, [0.5, 1]], "negative": [9], "k": 5, "min_similarity": 0.2, "scoring": "best",
            "filter": {"eq": {"field": "label", "value": "dog"}}, "exclude": [4],
        }))
        .expect("a request");
        assert_eq!(request.positive, [Example::Id(ImageId(3)), Example::Vector(vec![0.5, 1.0])]);
        assert_eq!(request.filter, Filter::parse("label = 'dog'").ok());
        let back = serde_json::from_value(serde_json::to_value(&request).expect("JSON"));
        assert_eq!(back.ok(), Some(request));
        for (json, reason) in [
            (json!({"positive": [3], "top": 5}), "unknown field `top`"),
            (json!({"positive": ["3"]}), "an example is the id of an image or a list of numbers"),
            (json!({"positive": [3], "scoring": "sum"}), "unknown variant `sum`"),
        ] {
            let error =
                serde_json::from_value::<SearchRequest>(json).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
