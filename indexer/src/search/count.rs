//! How many images a search would find, without finding them.

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::query::Query;
use super::request::SearchRequest;
use crate::error::Result;
use crate::filter::FilterCache;
use crate::id::ImageId;
use crate::{Reader, View};

/// Rows that one task looks through.
const ROWS_PER_TASK: u32 = 8192;

/// The number of images of the newest state that pass the filter of a request and, if it has
/// examples, are at least as similar as its `min_similarity` and are not left out. Every image is
/// compared. What a request says about pages, duplicates and variety is of no concern.
///
/// # Errors
/// The request makes no sense, or the collection is damaged.
pub fn count_newest(
    reader: &Reader,
    request: &SearchRequest,
    cache: Option<&FilterCache>,
) -> Result<u64> {
    let request = SearchRequest { cursor: None, offset: 0, ..request.clone() };
    request.check_values()?;
    let view = reader.view();
    let rows = match (&request.filter, cache) {
        (Some(filter), Some(cache)) => cache.rows(filter, &view)?,
        (Some(filter), None) => std::sync::Arc::new(filter.rows(&view)?),
        (None, _) => std::sync::Arc::new(view.alive().clone()),
    };
    if request.positive.is_empty() && request.negative.is_empty() {
        let excluded = rows_of(&view, request.exclude.iter().copied())?;
        return Ok((&*rows - excluded).len());
    }
    request.check()?;
    let query = Query::of(&view, &request)?;
    let mut left_out = rows_of(&view, request.exclude.iter().copied())?;
    if !request.shows_examples() {
        left_out |= rows_of(&view, query.examples.iter().copied())?;
    }
    let rows = &*rows - left_out;
    let enough = request.min_similarity.unwrap_or(f32::NEG_INFINITY);
    let (Some(first), Some(last)) = (rows.min(), rows.max()) else { return Ok(0) };
    let tasks = (first / ROWS_PER_TASK..=last / ROWS_PER_TASK).into_par_iter();
    let count = |task: u32| {
        let start = task * ROWS_PER_TASK;
        let mut count = 0;
        for row in rows.range(start..=start + (ROWS_PER_TASK - 1)) {
            let stored = view.vectors(std::iter::once(row))?;
            let similarity = query.similarity(&stored);
            count += u64::from(similarity >= enough && !query.vetoed(similarity, &stored));
        }
        Ok(count)
    };
    tasks.map(count).sum()
}

/// Rows of the images of these ids.
fn rows_of(view: &View, ids: impl Iterator<Item = ImageId>) -> Result<RoaringBitmap> {
    let mut rows = RoaringBitmap::new();
    for id in ids {
        rows.extend(view.record(id)?.and_then(|record| u32::try_from(record.row).ok()));
    }
    Ok(rows)
}
