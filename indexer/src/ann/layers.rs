//! The graphs of a collection: a large one that never changes while it is searched, a small one for
//! what came later, and a list of rows in neither, which searches compare one by one.
//!
//! So a search is right whatever the graphs lack, opening waits for no insertion, and adding one
//! image rewrites no large file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::Neighbour;
use super::frozen::{Accept, Frozen};
use super::hnsw::Graph;
use super::loose::Loose;
use super::quantised::Candidate;
use super::snapshot::{self, Contents};
use crate::error::Result;
use crate::vectors::Rows;

/// Rows added while searches wait; one takes about 0.3 ms.
const ADDED_AT_ONCE: usize = 4;
/// Share of the base that the tail may reach before both become a new base.
const TAIL_SHARE: f64 = 0.2;
/// Share of dead rows in the base from which on it is built anew.
const DEAD_SHARE: f64 = 0.3;
/// Rows looked at for the largest component.
const SCALE_SAMPLE: usize = 2000;
/// Candidates among which a row must be found with itself as the query, to count as reachable: most
/// are among few; in dense places it takes many.
const REACH: [usize; 2] = [16, 256];

/// Rows of a tail from which on it is looked over when it has doubled; it is also when a quarter came at once.
const LOOKED_OVER_FROM: usize = 50;

#[derive(Debug)]
struct Base {
    graph: Frozen,
    rows: u64,
    unreachable: Vec<u32>,
    checksum: u32,
    /// Rows that were alive when it was built.
    len: u64,
}

/// What searches use; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    base: Arc<Base>,
    tail: Option<Arc<RwLock<Graph>>>,
    /// Rows below this are in the base, in the tail, dead, or loose.
    rows: u64,
    /// Rows that neither graph leads to.
    loose: Loose,
    /// Rows of the tail when all of it was last looked over.
    looked_over: usize,
}

impl Layers {
    /// Opens the snapshots in a folder; `None` when the base is absent, damaged, or ahead of the
    /// rows there are, which a restored backup can make it.
    pub(crate) fn open(folder: &Path, dim: usize, rows: u64) -> Result<Option<Self>> {
        let opened = snapshot::open_frozen(&base_path(folder), dim)?;
        let Some((header, graph, checksum)) = opened.filter(|(header, ..)| header.rows <= rows)
        else {
            return Ok(None);
        };
        let len = (graph.len() + header.unreachable.len()) as u64;
        let base =
            Base { graph, rows: header.rows, unreachable: header.unreachable, checksum, len };
        let loose = Loose::new(base.unreachable.iter().copied());
        let mut layers =
            Self { rows: base.rows, base: Arc::new(base), tail: None, loose, looked_over: 0 };
        let tail = snapshot::open_growing(&tail_path(folder), dim)?;
        if let Some((header, graph, _)) = tail
            && header.base == Some(checksum)
            && header.rows <= rows
        {
            layers.rows = header.rows;
            layers.loose = Loose::new(header.unreachable);
            layers.looked_over = graph.len();
            layers.tail = Some(Arc::new(RwLock::new(graph)));
        }
        Ok(Some(layers))
    }

    /// Builds a base of all rows alive and writes it. Every row is then looked for; those that are
    /// not found are kept in a tail.
    pub(crate) fn build(folder: &Path, vectors: &Rows, alive: &RoaringBitmap) -> Result<Self> {
        let graph = Graph::new(vectors.dim(), largest_component(vectors, alive)?)?;
        Self::grown(folder, graph, vectors, alive, alive.iter().collect())
    }

    fn grown(
        folder: &Path,
        mut graph: Graph,
        vectors: &Rows,
        alive: &RoaringBitmap,
        new: Vec<u32>,
    ) -> Result<Self> {
        graph.build(&new, &|row| Ok(vectors.checked(u64::from(row))?.1))?;
        let graph = graph.frozen()?;
        let search = |vector: &[f32], k| graph.near(vector, k);
        let unreachable = unreachable(&search, vectors, &alive.iter().collect::<Vec<_>>())?;
        let rows = vectors.len();
        let contents = Contents { rows, unreachable: unreachable.clone(), base: None };
        let checksum = snapshot::save_frozen(&base_path(folder), &graph, contents)?;
        let base = Base { graph, rows, unreachable, checksum, len: alive.len() };
        let loose = Loose::default();
        let mut layers = Self { rows, base: Arc::new(base), tail: None, loose, looked_over: 0 };
        // The old tail went with the old base.
        match std::fs::remove_file(tail_path(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", tail_path(folder).display());
            }
            _ => {}
        }
        layers.add_unreachable(vectors)?;
        Ok(layers)
    }

    fn add_unreachable(&mut self, vectors: &Rows) -> Result<()> {
        let base = Arc::clone(&self.base);
        self.loose = Loose::default();
        self.add(vectors, base.unreachable.iter().copied())
    }

    /// Rows below this need not be compared one by one.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The `k` nearest, in no order, of the rows below [`rows`](Self::rows) that no graph leads to and that are `alive`.
    pub(crate) fn nearest_loose(
        &self,
        vectors: &Rows,
        alive: &RoaringBitmap,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<Neighbour>> {
        self.loose.nearest(vectors, alive, query, k)
    }

    /// Brings the tail up to date with the rows alive; searches go on meanwhile.
    pub(crate) fn extend(&mut self, vectors: &Rows, alive: &RoaringBitmap) -> Result<()> {
        if self.tail.is_none() && self.rows == self.base.rows {
            self.add_unreachable(vectors)?;
        }
        let from = u32::try_from(self.rows).unwrap_or(u32::MAX);
        let before = self.tail_len();
        self.add(vectors, alive.range(from..))?;
        self.rows = vectors.len();
        let (now, seen) = (self.tail_len(), self.looked_over.max(LOOKED_OVER_FROM));
        if now >= 2 * seen || (now > before && 4 * (now - before) >= now) {
            self.look_over(vectors, alive)?;
        }
        Ok(())
    }

    /// Looks for every row of the tail: as it grows, it cuts off a few that it led to when they were added.
    fn look_over(&mut self, vectors: &Rows, alive: &RoaringBitmap) -> Result<()> {
        let Some(tail) = self.tail.clone() else { return Ok(()) };
        let mut rows: RoaringBitmap = self.base.unreachable.iter().copied().collect();
        rows.extend(
            u32::try_from(self.base.rows).unwrap_or(u32::MAX)
                ..u32::try_from(self.rows).unwrap_or(u32::MAX),
        );
        let rows: Vec<u32> = ((rows & alive) - self.loose.rows()).iter().collect();
        let search = |vector: &[f32], k| {
            tail.read().unwrap_or_else(PoisonError::into_inner).candidates(vector, k, None)
        };
        for row in unreachable(&search, vectors, &rows)? {
            self.loose.insert(row);
        }
        self.looked_over = self.tail_len();
        Ok(())
    }

    fn add(&mut self, vectors: &Rows, rows: impl Iterator<Item = u32>) -> Result<()> {
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let mut slice = Vec::with_capacity(ADDED_AT_ONCE);
            for row in rows.by_ref().take(ADDED_AT_ONCE) {
                slice.push((row, vectors.checked(u64::from(row))?.1));
            }
            let tail = match &self.tail {
                Some(tail) => Arc::clone(tail),
                None => {
                    let graph = Graph::new(vectors.dim(), self.base.graph.scale())?;
                    let tail = Arc::new(RwLock::new(graph));
                    self.tail = Some(Arc::clone(&tail));
                    tail
                }
            };
            tail.write().unwrap_or_else(PoisonError::into_inner).add(&slice)?;
            let tail = tail.read().unwrap_or_else(PoisonError::into_inner);
            for (row, vector) in &slice {
                let search = |vector: &[f32], k| tail.candidates(vector, k, None);
                if !is_reached(&search, vectors, *row, vector)? {
                    self.loose.insert(*row);
                }
            }
        }
        Ok(())
    }

    /// Whether [`save`](Self::save) would make a new base.
    pub(crate) fn is_overgrown(&self, alive: &RoaringBitmap) -> bool {
        self.dead_share(alive) > DEAD_SHARE || self.tail_share() > TAIL_SHARE
    }

    fn dead_share(&self, alive: &RoaringBitmap) -> f64 {
        let in_base = alive.rank(u32::try_from(self.base.rows.max(1) - 1).unwrap_or(u32::MAX));
        self.base.len.saturating_sub(in_base) as f64 / self.base.len.max(1) as f64
    }

    fn tail_share(&self) -> f64 {
        self.tail_len() as f64 / self.base.len.max(1) as f64
    }

    /// Writes the tail; or, when it has grown large or many rows have died, a new base.
    pub(crate) fn save(
        &mut self,
        folder: &Path,
        vectors: &Rows,
        alive: &RoaringBitmap,
    ) -> Result<()> {
        if self.dead_share(alive) > DEAD_SHARE {
            *self = Self::build(folder, vectors, alive)?;
        } else if self.tail_share() > TAIL_SHARE {
            let opened = snapshot::open_growing(&base_path(folder), vectors.dim())?;
            *self = match opened {
                Some((header, graph, _)) => {
                    let from = u32::try_from(header.rows).unwrap_or(u32::MAX);
                    Self::grown(folder, graph, vectors, alive, alive.range(from..).collect())?
                }
                None => Self::build(folder, vectors, alive)?,
            };
        }
        self.save_tail(folder)
    }

    /// Writes the tail.
    pub(crate) fn save_tail(&self, folder: &Path) -> Result<()> {
        if let Some(tail) = &self.tail {
            let tail = tail.read().unwrap_or_else(PoisonError::into_inner);
            let unreachable = self.loose.rows().iter().collect();
            let base = Some(self.base.checksum);
            let contents = Contents { rows: self.rows, unreachable, base };
            snapshot::save_growing(&tail_path(folder), &tail, contents)?;
        }
        Ok(())
    }

    fn tail_len(&self) -> usize {
        let len =
            |tail: &Arc<RwLock<Graph>>| tail.read().unwrap_or_else(PoisonError::into_inner).len();
        self.tail.as_ref().map_or(0, len)
    }

    /// About the `k` rows of each graph nearest to a query, in no order, some twice; dead ones may be
    /// among them unless `accept` says no.
    pub(crate) fn candidates(
        &self,
        query: &[f32],
        k: usize,
        accept: Accept<'_>,
    ) -> Result<Vec<Candidate>> {
        let mut rows = self.base.graph.candidates(query, k, accept)?;
        if let Some(tail) = &self.tail {
            let tail = tail.read().unwrap_or_else(PoisonError::into_inner);
            rows.extend(tail.candidates(query, k, accept)?);
        }
        Ok(rows)
    }
}

/// About the nearest rows of a graph to a vector, so many.
type Search<'a> = &'a (dyn Fn(&[f32], usize) -> Result<Vec<Candidate>> + Sync);

/// Rows that no search is sure to find.
fn unreachable(search: Search<'_>, vectors: &Rows, rows: &[u32]) -> Result<Vec<u32>> {
    let missed = |&row: &u32| {
        let (_, vector) = vectors.checked(u64::from(row))?;
        Ok((!is_reached(search, vectors, row, &vector)?).then_some(row))
    };
    let missed: Vec<Option<u32>> = rows.par_iter().map(missed).collect::<Result<_>>()?;
    Ok(missed.into_iter().flatten().collect())
}

/// Whether a search with a row as the query finds it, or as many others that are the same.
fn is_reached(search: Search<'_>, vectors: &Rows, row: u32, vector: &[f32]) -> Result<bool> {
    let mut found = Vec::new();
    for reach in REACH {
        let candidates = search(vector, reach)?;
        found = candidates.into_iter().map(|candidate| candidate.row).collect();
        if found.contains(&row) {
            return Ok(true);
        }
    }
    let others = vectors.gather(found.iter().copied())?;
    let same = |other: &&[f32]| engine::kernels::dot(vector, other) > 0.9999;
    Ok(others.chunks_exact(vectors.dim()).filter(same).count() >= REACH[0])
}

/// Largest component of a sample, a little enlarged.
fn largest_component(vectors: &Rows, alive: &RoaringBitmap) -> Result<f32> {
    let step = (alive.len() as usize / SCALE_SAMPLE).max(1);
    let mut largest = f32::MIN_POSITIVE;
    for row in alive.iter().step_by(step) {
        let (_, vector) = vectors.checked(u64::from(row))?;
        largest = vector.iter().fold(largest, |max, value| max.max(value.abs()));
    }
    Ok(largest)
}

pub(super) const BASE: &str = "base.hnsw";
pub(super) const TAIL: &str = "tail.hnsw";

fn base_path(folder: &Path) -> PathBuf {
    folder.join(BASE)
}

fn tail_path(folder: &Path) -> PathBuf {
    folder.join(TAIL)
}
