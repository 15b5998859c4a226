//! What a search answers, and its JSON.

use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::refine::Kept;
use crate::error::Result;
use crate::id::ImageId;
use crate::{Hit, Record, View};

/// One page of results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchResponse {
    /// Best first, ties by id; by choice where variety is preferred.
    pub hits: Vec<SearchHit>,
    /// Says where the next page starts; none when there is no other.
    pub next_cursor: Option<String>,
    /// Whether every image was certainly compared: not through HNSW.
    pub exact: bool,
    /// Number of the commit that was searched.
    #[serde(skip)]
    pub sequence: u64,
}

/// An image that was found. In JSON: `rank`, `id`, `path`, `similarity`, `percentile`, `width`,
/// `height`, `payload`, and `duplicates` if they are hidden.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// Place in the list, from 1; goes on over pages.
    pub rank: usize,
    /// The image.
    pub id: ImageId,
    /// Cosine similarity, by the scoring asked for.
    pub similarity: f32,
    /// Share of random pairs of images that are less similar, in percent.
    pub percentile: Option<f32>,
    /// What is known of it.
    pub record: Arc<Record>,
    /// Near-duplicates that it stands for, best first; none where they are not hidden.
    pub duplicates: Option<Vec<ImageId>>,
}

impl Serialize for SearchHit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { rank, id, similarity, percentile, record, duplicates } = self;
        let mut hit = serializer.serialize_struct("SearchHit", 9)?;
        hit.serialize_field("rank", rank)?;
        hit.serialize_field("id", id)?;
        hit.serialize_field("path", &record.path.to_string())?;
        hit.serialize_field("similarity", similarity)?;
        hit.serialize_field("percentile", percentile)?;
        hit.serialize_field("width", &record.width)?;
        hit.serialize_field("height", &record.height)?;
        hit.serialize_field("payload", &record.payload)?;
        match duplicates {
            Some(duplicates) => hit.serialize_field("duplicates", duplicates)?,
            None => hit.skip_field("duplicates")?,
        }
        hit.end()
    }
}

/// The images of a page with their records; those changed since the view was taken are left out.
pub(super) fn hits(
    view: &View,
    start: usize,
    with_duplicates: bool,
    page: &[Kept],
) -> Result<Vec<SearchHit>> {
    let mut hits = Vec::with_capacity(page.len());
    for (i, Kept { near, duplicates }) in page.iter().enumerate() {
        let Some(Hit { id, similarity, record }) = view.hit(*near)? else { continue };
        hits.push(SearchHit {
            rank: start + i + 1,
            id,
            similarity,
            percentile: view.manifest().percentile(similarity),
            record,
            duplicates: with_duplicates.then(|| duplicates.clone()),
        });
    }
    Ok(hits)
}
