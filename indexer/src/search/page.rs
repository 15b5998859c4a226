//! One page of a list.

use super::candidates::{Candidates, Found};
use super::cursor::{Cursor, Given, Place};
use super::refine::{Kept, Vectors, diverse, fold};
use super::request::{DISTINCT_POOL, DIVERSITY_POOL, SearchRequest};
use crate::Near;
use crate::error::Result;
use crate::id::ImageId;

/// Results of one page, and where the next one starts if there is one.
pub(super) struct Page {
    pub(super) hits: Vec<Kept>,
    pub(super) next: Option<Place>,
}

/// How a page is cut from a list.
struct Cut<'a> {
    request: &'a SearchRequest,
    cursor: Option<&'a Cursor>,
    /// Results before the page.
    start: usize,
    /// Results of the page.
    k: usize,
}

impl Page {
    /// The page that a request asks for.
    pub(super) fn take(
        request: &SearchRequest,
        cursor: Option<&Cursor>,
        candidates: &Candidates<'_>,
    ) -> Result<Self> {
        let start = cursor.map_or(request.offset, |cursor| cursor.place.count as usize);
        // Pages by offset are checked to end at the limit; those by cursor are cut there.
        let left = request.deepest().0.saturating_sub(start);
        let cut = Cut { request, cursor, start, k: request.k.min(left) };
        if cut.k == 0 {
            return Ok(Self { hits: Vec::new(), next: None });
        }
        match (request.diversity, request.hide_duplicates) {
            (Some(diversity), _) => cut.diverse(diversity, candidates),
            (None, Some(threshold)) => cut.distinct(threshold, candidates),
            (None, None) => cut.plain(candidates),
        }
    }
}

impl Cut<'_> {
    /// Whether the image at a position of the list comes before this page.
    fn is_before(&self, position: usize, near: &Near) -> bool {
        match self.cursor {
            Some(cursor) => cursor.is_past(near),
            None => position < self.start,
        }
    }

    fn plain(&self, candidates: &Candidates<'_>) -> Result<Page> {
        // One more, to know whether the list goes on.
        let mut wanted = self.start + self.k + 1;
        loop {
            let Found { near, all } = candidates.first(wanted)?;
            let rest = near.into_iter().enumerate().filter(|(i, near)| !self.is_before(*i, near));
            let rest: Vec<Kept> = rest.map(|(_, near)| Kept::from(near)).collect();
            if rest.len() > self.k || all {
                return Ok(self.finish(rest));
            }
            // Images that the first page passed by come before the cursor too.
            wanted = wanted.saturating_mul(2);
        }
    }

    fn distinct(&self, threshold: f32, candidates: &Candidates<'_>) -> Result<Page> {
        let mut vectors = Vectors::new(candidates.view);
        let mut wanted = (2 * (self.start + self.k) + 1).min(DISTINCT_POOL);
        loop {
            let Found { near, all } = candidates.first(wanted)?;
            let mut fresh = 0;
            let is_enough = |kept: &[Kept]| {
                let last =
                    kept.last().is_some_and(|last| !self.is_before(kept.len() - 1, &last.near));
                fresh += usize::from(last);
                fresh > self.k
            };
            let kept = fold(&near, threshold, &mut vectors, is_enough)?;
            let rest = kept.into_iter().enumerate();
            let rest = rest.filter(|(i, kept)| !self.is_before(*i, &kept.near));
            let rest: Vec<Kept> = rest.map(|(_, kept)| kept).collect();
            if rest.len() > self.k || all || wanted == DISTINCT_POOL {
                return Ok(self.finish(rest));
            }
            wanted = (2 * wanted).min(DISTINCT_POOL);
        }
    }

    fn diverse(&self, diversity: f32, candidates: &Candidates<'_>) -> Result<Page> {
        let mut vectors = Vectors::new(candidates.view);
        let near = candidates.first(DIVERSITY_POOL)?.near;
        let pool = match self.request.hide_duplicates {
            Some(threshold) => fold(&near, threshold, &mut vectors, |_| false)?,
            None => near.into_iter().map(Kept::from).collect(),
        };
        let given = |kept: &Kept| self.cursor.is_some_and(|cursor| cursor.is_past(&kept.near));
        let (given, pool): (Vec<Kept>, Vec<Kept>) = pool.into_iter().partition(given);
        let given: Vec<Near> = given.into_iter().map(|kept| kept.near).collect();
        let skipped = if self.cursor.is_some() { 0 } else { self.start };
        let wanted = skipped + self.k + 1;
        let mut chosen = diverse(pool, &given, wanted, diversity, &mut vectors)?;
        let rest = chosen.split_off(skipped.min(chosen.len()));
        let mut page = self.finish(rest);
        if let Some(place) = &mut page.next {
            let mut ids: Vec<ImageId> = match self.cursor.map(|cursor| &cursor.place.given) {
                Some(Given::These(ids)) => ids.clone(),
                _ => Vec::new(),
            };
            ids.extend(chosen.iter().chain(&page.hits).map(|kept| kept.near.id));
            place.given = Given::These(ids);
        }
        Ok(page)
    }

    /// The page of what follows, and where the next one starts unless the list or its limit is
    /// reached.
    fn finish(&self, mut rest: Vec<Kept>) -> Page {
        let more = rest.len() > self.k;
        rest.truncate(self.k);
        let end = self.start + rest.len();
        let last = rest.last().filter(|_| more && end < self.request.deepest().0);
        let next = last.map(|Kept { near, .. }| Place {
            count: end as u64,
            given: Given::UpTo { similarity: near.similarity, id: near.id },
        });
        Page { hits: rest, next }
    }
}
