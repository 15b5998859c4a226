//! Searches as requests have them, and what they are answered.

mod given;

use indexer::search::{NEAR_DUPLICATE, Scoring, SearchHit};
use indexer::{ImageId, Payload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use self::given::Examples;
use crate::likeness;

/// Results of a page unless another number is asked for.
pub const DEFAULT_K: usize = 24;

/// A part of a picture. All four numbers at most 1: shares of its width and height; otherwise pixels of
/// the upright picture, which are whole numbers. At least 16 x 16 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CropBody {
    /// Left edge.
    #[schema(minimum = 0)]
    pub x: f64,
    /// Upper edge.
    #[schema(minimum = 0)]
    pub y: f64,
    /// Width.
    #[schema(minimum = 0)]
    pub width: f64,
    /// Height.
    #[schema(minimum = 0)]
    pub height: f64,
}

/// A filter as text, or as a tree of conditions; docs/search.md has both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FilterBody {
    /// Such as `label = "dog" and date >= "2024-01-01"`.
    Text(String),
    /// Such as `{"eq": {"field": "label", "value": "dog"}}`.
    #[schema(value_type = Object)]
    Tree(Value),
}

/// From what similarity on images are near-duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum HideDuplicates {
    /// The usual 0.95, or not at all.
    Usual(bool),
    /// This one, 0 to 1.
    From(f32),
}

impl HideDuplicates {
    /// The threshold, if there is one.
    pub fn threshold(self) -> Option<f32> {
        match self {
            Self::Usual(false) => None,
            Self::Usual(true) => Some(NEAR_DUPLICATE),
            Self::From(threshold) => Some(threshold),
        }
    }
}

/// An example: exactly one of `id`, `url`, `vector` and `query`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExampleBody {
    /// An image of the collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// A picture on the net.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A vector of the collection's length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
    /// A picture searched with before: `query` of that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The part of the picture that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<CropBody>,
}

/// How several examples make one ranking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScoringBody {
    /// The mean of the positives, moved away from the mean of the negatives.
    #[default]
    Average,
    /// Similarity with the nearest positive, without what is nearer to a negative.
    Best,
}

impl From<ScoringBody> for Scoring {
    fn from(scoring: ScoringBody) -> Self {
        match scoring {
            ScoringBody::Average => Self::Average,
            ScoringBody::Best => Self::Best,
        }
    }
}

/// A search. There must be an example: at most one of `id`, `url`, `vector` and `query` here, others
/// in `positive` and `negative`; in a form, pictures as parts `image` and `negative` too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchBody {
    /// An image of the collection to be near to.
    pub id: Option<u64>,
    /// A picture on the net to be near to.
    pub url: Option<String>,
    /// A vector to be near to.
    pub vector: Option<Vec<f32>>,
    /// A picture searched with before to be near to: `query` of that answer.
    pub query: Option<String>,
    /// The part of that picture that counts; in a form, of the first `image`.
    pub crop: Option<CropBody>,
    /// Further examples to be near to; 100 in all.
    pub positive: Vec<ExampleBody>,
    /// Examples not to be near to.
    pub negative: Vec<ExampleBody>,
    /// Results wanted.
    #[schema(minimum = 1, maximum = 1000, default = 24)]
    pub k: Option<usize>,
    /// Results to skip; not together with `cursor`.
    pub offset: Option<usize>,
    /// Where the page before ended: its `next_cursor`.
    pub cursor: Option<String>,
    /// Only images that pass.
    pub filter: Option<FilterBody>,
    /// Only images at least as similar as this.
    #[schema(minimum = -1, maximum = 1)]
    pub min_similarity: Option<f32>,
    /// Show only the best of near-duplicates: true, or from what similarity on.
    pub hide_duplicates: Option<HideDuplicates>,
    /// How much variety counts against similarity.
    #[schema(minimum = 0, maximum = 1)]
    pub diversity: Option<f32>,
    /// How several examples make one ranking.
    pub scoring: ScoringBody,
    /// Whether examples given by id may be results; by default only when there is one example.
    pub include_examples: Option<bool>,
    /// Images to leave out.
    pub exclude: Vec<u64>,
    /// Compare every image, even in a large collection.
    pub exact: bool,
    /// Whether results come with what is attached to them; by default they do.
    pub payload: Option<bool>,
}

/// Time spent, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct TookMs {
    /// Fetching, reading and decoding examples.
    pub decode: f64,
    /// Opening the collection and its model.
    pub open: f64,
    /// The model, waiting for it included.
    pub embed: f64,
    /// Searching.
    pub search: f64,
    /// All of it.
    pub total: f64,
}

/// An image that was found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HitBody {
    /// Place in the list, from 1; goes on over pages.
    pub rank: usize,
    /// The image.
    pub id: u64,
    /// Where it is on the server.
    pub path: String,
    /// Cosine similarity, by the scoring asked for.
    pub similarity: f32,
    /// Share of random pairs of images that are less similar, in percent; none in small collections.
    pub percentile: Option<f32>,
    /// The similarity in words: `same picture`, `near copy`, `very similar`, `similar`, `loosely
    /// related` or `unrelated`.
    pub label: &'static str,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// What is attached to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Payload>,
    /// Near-duplicates that it stands for, best first, where they are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<Vec<u64>>,
}

impl HitBody {
    /// A result as it is sent.
    pub fn new(hit: SearchHit, model: &engine::ModelIdentity, payload: bool) -> Self {
        let SearchHit { rank, id, similarity, percentile, record, duplicates } = hit;
        Self {
            rank,
            id: id.0,
            path: record.path.to_string(),
            similarity,
            percentile,
            label: likeness::words(model, similarity, percentile),
            width: record.width,
            height: record.height,
            payload: payload.then(|| record.payload.clone()),
            duplicates: duplicates.map(|ids| ids.into_iter().map(|ImageId(id)| id).collect()),
        }
    }
}

/// One page of results.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SearchAnswer {
    /// Name of the collection.
    pub collection: String,
    /// Name of its model.
    pub model: String,
    /// Time spent.
    pub took_ms: TookMs,
    /// Whether every image was certainly compared.
    pub exact: bool,
    /// Says where the next page starts; null when there is no other.
    pub next_cursor: Option<String>,
    /// Best first.
    pub hits: Vec<HitBody>,
    /// By which the first picture of this search can be searched with again, for ten minutes after it
    /// was last used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The same for all its pictures: those of the form in their order, positive before negative, then
    /// those of the JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub queries: Vec<String>,
}
