//! Searching a view: from examples to a page of results.
//!
//! Pictures come as vectors, since this crate has no model; see [`Example`]. What is done, in order:
//! the filter gives the rows to choose from, the examples a ranking of them, near-duplicates are folded
//! and variety preferred where asked for, and one page of the list is given with its records.
//!
//! Pages of one search neither overlap nor leave a gap, and a page after the first is always searched
//! exactly. In a collection large enough for HNSW the first page may lack a neighbour, as any answer of
//! HNSW may; that one then is on no page. `exact` rules this out.

mod request;
mod query;
mod candidates;
mod refine;
mod cursor;
mod page;
mod response;
mod count;
pub mod crop;
pub mod vector_file;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use self::candidates::Candidates;
pub use self::count::count_newest;
use self::cursor::Cursor;
use self::page::Page;
use self::query::Query;
pub use self::request::{
    DISTINCT_POOL, DIVERSITY_POOL, Example, MAX_DEPTH, MAX_DISTINCT, MAX_EXAMPLES, MAX_EXCLUDED,
    MAX_K, NEAR_DUPLICATE, Scoring, SearchRequest,
};
pub use self::response::{SearchHit, SearchResponse};
use crate::error::Result;
use crate::filter::FilterCache;
use crate::{Reader, View};

/// How often a search is repeated that meets images replaced since its view was taken.
const PATIENCE: usize = 4;

/// Searches one state of a collection. Images that were changed or removed since that state are left
/// out of the page. Filters are evaluated once for each view when a cache is given.
///
/// # Errors
/// The request makes no sense (the message says why and what to do), or the collection is damaged.
pub fn search(
    view: &View,
    request: &SearchRequest,
    cache: Option<&FilterCache>,
) -> Result<SearchResponse> {
    Ok(attempt(view, request, cache)?.response)
}

/// Searches the newest state, again when the collection changes under the search.
///
/// # Errors
/// As [`search`].
pub fn search_newest(
    reader: &Reader,
    request: &SearchRequest,
    cache: Option<&FilterCache>,
) -> Result<SearchResponse> {
    Ok(search_newest_timed(reader, request, cache)?.0)
}

/// What the time of a search was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchTook {
    /// Choosing images: filter, graph or comparison of all, folding.
    pub choosing: Duration,
    /// Comparing the chosen exactly.
    pub rescoring: Duration,
    /// Reading records.
    pub records: Duration,
}

/// [`search_newest`], and what its time was spent on.
///
/// # Errors
/// As [`search`].
pub fn search_newest_timed(
    reader: &Reader,
    request: &SearchRequest,
    cache: Option<&FilterCache>,
) -> Result<(SearchResponse, SearchTook)> {
    let mut left = PATIENCE;
    loop {
        left -= 1;
        let Attempt { response, is_whole, took } = attempt(&reader.view(), request, cache)?;
        if is_whole || left == 0 {
            return Ok((response, took));
        }
    }
}

/// One try of a search.
struct Attempt {
    response: SearchResponse,
    /// Whether no image changed under the search.
    is_whole: bool,
    took: SearchTook,
}

fn attempt(view: &View, request: &SearchRequest, cache: Option<&FilterCache>) -> Result<Attempt> {
    let begun = Instant::now();
    request.check()?;
    let query = Query::of(view, request)?;
    let fingerprint = query.fingerprint(view, request);
    let cursor = match &request.cursor {
        Some(text) => Some(Cursor::decode(text, view, fingerprint)?),
        None => None,
    };
    let start = cursor.as_ref().map_or(request.offset, |cursor| cursor.place.count as usize);
    let among = among(view, request, cursor.as_ref(), cache)?;
    let mut left_out: BTreeSet<_> = request.exclude.iter().copied().collect();
    if !request.shows_examples() {
        left_out.extend(&query.examples);
    }
    let candidates = Candidates {
        view,
        query: &query,
        among: among.as_deref(),
        min_similarity: request.min_similarity,
        left_out,
        exact: request.exact || start > 0 || request.diversity.is_some(),
        rescoring: Cell::default(),
    };
    let page = Page::take(request, cursor.as_ref(), &candidates)?;
    let next_cursor = match &page.next {
        Some(place) => match &cursor {
            Some(cursor) => cursor.advanced(place.clone()).encode(),
            None => Cursor::new(view, fingerprint, place.clone()).encode(),
        },
        None => None,
    };
    let (chosen, rescoring) = (begun.elapsed(), candidates.rescoring.get());
    let hits = response::hits(view, start, request.hide_duplicates.is_some(), &page.hits)?;
    let is_whole = hits.len() == page.hits.len();
    let exact = candidates.exact || !view.is_approximate();
    let response = SearchResponse { hits, next_cursor, exact, sequence: view.sequence() };
    let choosing = chosen.saturating_sub(rescoring);
    let took = SearchTook { choosing, rescoring, records: begun.elapsed() - chosen };
    Ok(Attempt { response, is_whole, took })
}

/// The rows to choose from; none means all. Later pages of a list stay with the images that were there
/// at its first page and have not changed since: others could be given twice.
fn among(
    view: &View,
    request: &SearchRequest,
    cursor: Option<&Cursor>,
    cache: Option<&FilterCache>,
) -> Result<Option<Arc<RoaringBitmap>>> {
    let rows = match (&request.filter, cache) {
        (Some(filter), Some(cache)) => Some(cache.rows(filter, view)?),
        (Some(filter), None) => Some(Arc::new(filter.rows(view)?)),
        (None, _) => None,
    };
    let Some(cursor) = cursor.filter(|cursor| cursor.rows < view.rows()) else { return Ok(rows) };
    let mut old = rows.as_deref().unwrap_or(view.alive()).clone();
    old.remove_range(u32::try_from(cursor.rows).unwrap_or(u32::MAX)..);
    Ok(Some(Arc::new(old)))
}
