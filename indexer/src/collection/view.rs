//! What is searched: one committed state, and the handle that gives the newest.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::{Embedding, ModelIdentity};
use roaring::RoaringBitmap;

use super::{describe, layout::Lock};
use crate::ann::{Candidate, Layers, Neighbour, exact};
use crate::catalog::{Catalog, FieldValues, ValueRange};
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::manifest::Manifest;
use crate::record::{Failure, Record};
use crate::vectors::Rows;

/// HNSW is asked for this many times more neighbours than wanted; the best are chosen exactly.
const OVERFETCH: usize = 2;
/// Rows that are compared one by one rather than searched with a filter.
const EXACT_UNTIL: u64 = 20_000;
/// A filter that keeps less than one image in so many is searched exactly: the graph would mostly
/// walk over what it must not return.
const SELECTIVE: u64 = 10;
/// How often a search is repeated that meets images replaced since its view was taken.
const PATIENCE: usize = 4;

/// Searches a collection while its writer goes on. Cheap to clone; any number of threads may use it.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) current: Arc<RwLock<Arc<View>>>,
}

/// One committed state of a collection. It does not change.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) name: Arc<str>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) rows: Rows,
    pub(super) alive: Arc<RoaringBitmap>,
    pub(super) layers: Option<Layers>,
    pub(super) sequence: u64,
    pub(super) catalog: Arc<Catalog>,
    /// Released when the last view is gone; declared after the catalog, closed after it.
    pub(super) _lock: Arc<Lock>,
}

/// An image near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Row of its embedding.
    pub row: u32,
    /// The image.
    pub id: ImageId,
    /// Cosine similarity with the query, from the stored embedding.
    pub similarity: f32,
}

/// A search result.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The image.
    pub id: ImageId,
    /// Cosine similarity with the query.
    pub similarity: f32,
    /// What is known of it.
    pub record: Arc<Record>,
}

impl Reader {
    /// Everything committed by now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, view: View) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The `k` committed images most similar to a query, best first, ties by id.
    ///
    /// # Errors
    /// `k` is 0, the query has the wrong length, or a row on disk is damaged.
    pub fn search(&self, query: &Embedding, k: usize) -> Result<Vec<Hit>> {
        for _ in 1..PATIENCE {
            if let Some(hits) = self.view().try_search(query, k)? {
                return Ok(hits);
            }
        }
        // The writer replaces images faster than this can look them up: leave those out.
        let view = self.view();
        let near = view.nearest(query.as_slice(), k, None)?;
        let hits = near.into_iter().map(|near| view.hit(near)).collect::<Result<Vec<_>>>()?;
        Ok(hits.into_iter().flatten().collect())
    }
}

impl View {
    /// Name of the collection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the collection said about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of the commit that made this state.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.alive.len() as usize
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Upper bound of row numbers, dead rows counted.
    pub fn rows(&self) -> u64 {
        self.rows.len()
    }

    /// The same state for a task that reads most embeddings many times over: up to 2 GiB of them stay in memory, where
    /// searches keep to 192 MiB.
    pub(crate) fn in_bulk(&self) -> Self {
        Self { rows: self.rows.in_bulk(), ..self.clone() }
    }

    /// Rows that belong to an image.
    pub fn alive(&self) -> &RoaringBitmap {
        &self.alive
    }

    /// Whether a search without filter goes through HNSW.
    pub fn is_approximate(&self) -> bool {
        self.layers.is_some()
    }

    /// Checks that vectors of this model belong into this collection.
    ///
    /// # Errors
    /// [`IndexerError::ModelMismatch`].
    pub fn check_model(&self, model: &ModelIdentity) -> Result<()> {
        if model.fingerprint() == self.manifest.fingerprint {
            return Ok(());
        }
        Err(IndexerError::ModelMismatch {
            name: self.name.to_string(),
            expected: describe(&self.manifest.model),
            got: describe(model),
        })
    }

    /// The `k` images most similar to a unit-length query, best first, ties by id; only those whose
    /// rows are `among`, if given. Goes through HNSW or compares all, whichever is faster here.
    ///
    /// # Errors
    /// `k` is 0, the query has the wrong length or is not finite, or a row on disk is damaged.
    pub fn nearest(
        &self,
        query: &[f32],
        k: usize,
        among: Option<&RoaringBitmap>,
    ) -> Result<Vec<Near>> {
        self.nearest_timed(query, k, among, &mut Duration::default())
    }

    /// [`nearest`](Self::nearest), which adds the time spent on exact comparisons of the chosen.
    pub(crate) fn nearest_timed(
        &self,
        query: &[f32],
        k: usize,
        among: Option<&RoaringBitmap>,
        rescoring: &mut Duration,
    ) -> Result<Vec<Near>> {
        self.check(query, k)?;
        let pool = &*self.pool(among);
        let k = k.min(pool.len() as usize);
        let Some(layers) = &self.layers else { return self.best(pool, query, k, rescoring) };
        let wanted = k.saturating_mul(OVERFETCH);
        let selective = among.is_some()
            && (pool.len() <= EXACT_UNTIL || pool.len() < self.alive.len() / SELECTIVE);
        if selective || wanted as u64 > pool.len() / 8 {
            return self.best(pool, query, k, rescoring);
        }
        let accept = |row: u32| pool.contains(row);
        let mut found = match among {
            Some(_) => layers.candidates(query, wanted, Some(&accept))?,
            None => layers.candidates(query, wanted, None)?,
        };
        let survive = |found: &mut Vec<Candidate>| {
            found.retain(|candidate| pool.contains(candidate.row));
            // A row that was unreachable when the base was made is in two graphs.
            found.sort_unstable_by(|a, b| a.row.cmp(&b.row).then(b.at_most.total_cmp(&a.at_most)));
            found.dedup_by_key(|candidate| candidate.row);
            found.len() >= k
        };
        if !survive(&mut found) {
            // Most rows near the query have been replaced: look past them.
            found = layers.candidates(query, wanted, Some(&accept))?;
            if !survive(&mut found) {
                return self.best(pool, query, k, rescoring);
            }
        }
        let mut others = layers.nearest_loose(&self.rows, pool, query, k)?;
        if self.rows.len() > layers.rows() {
            let uncovered = u32::try_from(layers.rows()).unwrap_or(u32::MAX);
            others.extend(exact(&self.rows, &pool.range(uncovered..).collect(), query, k)?);
        }
        if !others.is_empty() {
            let others = others.into_iter();
            found.extend(
                others.map(|Neighbour { row, similarity }| Candidate { row, at_most: similarity }),
            );
            survive(&mut found);
        }
        let start = Instant::now();
        let near = self.best_of(found, query, k);
        *rescoring += start.elapsed();
        near
    }

    /// [`nearest`](Self::nearest) without HNSW: every image is compared.
    ///
    /// # Errors
    /// As `nearest`.
    pub fn nearest_exact(
        &self,
        query: &[f32],
        k: usize,
        among: Option<&RoaringBitmap>,
    ) -> Result<Vec<Near>> {
        self.nearest_exact_timed(query, k, among, &mut Duration::default())
    }

    /// [`nearest_exact`](Self::nearest_exact), timed as [`nearest_timed`](Self::nearest_timed) is.
    pub(crate) fn nearest_exact_timed(
        &self,
        query: &[f32],
        k: usize,
        among: Option<&RoaringBitmap>,
        rescoring: &mut Duration,
    ) -> Result<Vec<Near>> {
        self.check(query, k)?;
        let pool = &*self.pool(among);
        self.best(pool, query, k.min(pool.len() as usize), rescoring)
    }

    fn check(&self, query: &[f32], k: usize) -> Result<()> {
        if k == 0 {
            return Err(IndexerError::InvalidRequest(
                "k is 0: ask for at least 1 result".to_owned(),
            ));
        }
        let expected = self.manifest.model.dim;
        if query.len() != expected {
            return Err(IndexerError::Dimension { got: query.len(), expected });
        }
        if !query.iter().all(|value| value.is_finite()) {
            return Err(IndexerError::InvalidRequest(
                "the query vector has values that are not finite".to_owned(),
            ));
        }
        Ok(())
    }

    /// Rows alive, of those given.
    fn pool(&self, among: Option<&RoaringBitmap>) -> Cow<'_, RoaringBitmap> {
        match among {
            Some(among) => Cow::Owned(among & &*self.alive),
            None => Cow::Borrowed(&self.alive),
        }
    }

    /// The best of `rows`, compared exactly and read through their checksums.
    fn best(
        &self,
        rows: &RoaringBitmap,
        query: &[f32],
        k: usize,
        rescoring: &mut Duration,
    ) -> Result<Vec<Near>> {
        let best = exact(&self.rows, rows, query, k)?;
        let start = Instant::now();
        // Read again through the checksum: a damaged vector is named, never served.
        let rows: Vec<u32> = best.into_iter().map(|Neighbour { row, .. }| row).collect();
        let mut near = Vec::with_capacity(rows.len());
        self.scored(&rows, query, &mut near)?;
        sort(&mut near);
        *rescoring += start.elapsed();
        Ok(near)
    }

    /// The best of candidates, compared exactly: the promising ones first, and no further than a candidate could still be
    /// among the best.
    fn best_of(&self, mut found: Vec<Candidate>, query: &[f32], k: usize) -> Result<Vec<Near>> {
        const AT_A_TIME: usize = 8;
        found.sort_unstable_by(|a, b| b.at_most.total_cmp(&a.at_most).then(a.row.cmp(&b.row)));
        let mut near = Vec::with_capacity(found.len());
        let mut rows = Vec::with_capacity(k.max(AT_A_TIME));
        while let Some(next) = found.get(near.len()) {
            if near.len() >= k {
                sort(&mut near);
                if next.at_most < near[k - 1].similarity {
                    break;
                }
            }
            let count = if near.is_empty() { k } else { AT_A_TIME.max(k / 4) };
            rows.clear();
            rows.extend(found.iter().skip(near.len()).take(count).map(|candidate| candidate.row));
            self.scored(&rows, query, &mut near)?;
        }
        sort(&mut near);
        near.truncate(k);
        Ok(near)
    }

    /// Rows with their exact similarities.
    fn scored(&self, rows: &[u32], query: &[f32], near: &mut Vec<Near>) -> Result<()> {
        let mut add = |row, id, similarity| near.push(Near { row, id, similarity });
        self.rows.compare(query, rows, &mut add)
    }

    /// The stored embedding of an image; unit length up to rounding.
    ///
    /// # Errors
    /// The row on disk is damaged, or is another image's.
    pub fn vector(&self, row: u32, id: ImageId) -> Result<Vec<f32>> {
        self.rows.read(u64::from(row), id)
    }

    /// Stored embeddings of rows, one after the other, without checking their checksums: for work
    /// over all of them, whose results are checked.
    ///
    /// # Errors
    /// There is no such row.
    pub fn vectors(&self, rows: impl Iterator<Item = u32>) -> Result<Vec<f32>> {
        self.rows.gather(rows)
    }

    /// The image that a row was written for.
    ///
    /// # Errors
    /// There is no such row.
    pub fn id_of(&self, row: u32) -> Result<ImageId> {
        self.rows.id(u64::from(row))
    }

    /// What is known of an image. The newest, if it changed since this state.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn record(&self, id: ImageId) -> Result<Option<Record>> {
        self.catalog.record(id)
    }

    /// The first image whose file has this hash, in the newest state.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn first_with_content(&self, hash: &ContentHash) -> Result<Option<ImageId>> {
        self.catalog.with_content(hash).next().transpose()
    }

    /// Every image, by ascending id. Images changed meanwhile may come in their new state.
    pub fn images(&self) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.images_from(ImageId(0))
    }

    /// Every image from an id on, as [`images`](Self::images) gives them.
    pub fn images_from(&self, first: ImageId) -> impl Iterator<Item = Result<(ImageId, Record)>> {
        self.catalog.images_from(first)
    }

    /// Every file that was skipped and that looks like a picture, by path.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn failures(&self) -> Result<Vec<Failure>> {
        let listed = |failure: &Result<Failure>| failure.as_ref().is_ok_and(|f| f.not_a_picture);
        self.catalog.failures().filter(|failure| !listed(failure)).collect()
    }

    /// Rows of images whose payload has such a value. Rows that died since this state, or came
    /// later, may be missing or among them: combine with [`alive`](Self::alive).
    ///
    /// # Errors
    /// The range is none, or the catalog cannot be read.
    pub fn rows_with(&self, field: &str, range: ValueRange) -> Result<RoaringBitmap> {
        self.catalog.rows_with(field, &range)
    }

    /// Names of payload fields, in order; at most `limit`.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn payload_fields(&self, limit: usize) -> Result<Vec<String>> {
        self.catalog.fields(limit)
    }

    /// The values of a payload field with how many images have each, most frequent first, ties by
    /// value; at most `top`, from the first `looked_at` values in the order of values.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn field_values(&self, field: &str, top: usize, looked_at: usize) -> Result<FieldValues> {
        self.catalog.field_values(field, top, looked_at)
    }

    /// Hits, or `None` when one of them has been replaced or removed since this state.
    fn try_search(&self, query: &Embedding, k: usize) -> Result<Option<Vec<Hit>>> {
        let near = self.nearest(query.as_slice(), k, None)?;
        near.into_iter().map(|near| self.hit(near)).collect()
    }

    /// A result with its record, unless that is of a later state.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn hit(&self, Near { row, id, similarity }: Near) -> Result<Option<Hit>> {
        let record = self.catalog.shown(id)?.filter(|record| record.row == u64::from(row));
        Ok(record.map(|record| Hit { id, similarity, record }))
    }
}

/// Most similar first, ties by id.
fn sort(near: &mut [Near]) {
    near.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id)));
}
