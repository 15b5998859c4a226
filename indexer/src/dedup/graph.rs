//! The nearest neighbours of every image of a view, with exact similarities.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{self, AtomicBool};

use engine::kernels::{Operand, dot, matmul_f32};
use rayon::prelude::*;
use roaring::RoaringBitmap;

use crate::collection::View;
use crate::error::{IndexerError, Result};

/// Images up to which all pairs are compared even where there is a graph: at 100,000 x 384 values
/// that takes about as long as asking HNSW once for each image, and misses nothing.
pub const EXACT_UNTIL: u64 = 100_000;
/// Images whose neighbours one task looks for.
const QUERIES: usize = 512;
/// Images compared with them at a time; the scores of a tile then fit a core's cache.
const GALLERY: usize = 1024;
/// More neighbours kept than asked for while scores come from matrix products, whose last bits
/// depend on the kernel; the best are chosen by exact similarity.
const SPARE: usize = 8;
/// How far a product's score may be from the exact similarity of two unit vectors.
const SLACK: f32 = 1e-4;
/// Neighbours asked of HNSW first where only similar ones count: most images have fewer.
const FIRST: usize = 16;

/// How neighbours are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Every pair is compared, in tiles, by matrix products.
    Exact,
    /// Through the collection's HNSW graph; a view without one compares every pair.
    Hnsw,
    /// `Exact` up to [`EXACT_UNTIL`] images, `Hnsw` above.
    #[default]
    Auto,
}

/// Which neighbours count.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Most neighbours of an image.
    pub k: usize,
    /// Only those at least this similar.
    pub floor: f32,
    /// How they are found.
    pub method: Method,
}

/// Called with the number of images done since the last call, from any thread.
pub type OnDone<'a> = &'a (dyn Fn(usize) + Sync);

/// Two images and how similar they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The lower row.
    pub a: u32,
    /// The higher row.
    pub b: u32,
    /// Cosine similarity of the stored embeddings.
    pub similarity: f32,
}

impl Edge {
    /// An edge between two different rows, whichever comes first.
    pub fn new(one: u32, other: u32, similarity: f32) -> Self {
        Self { a: one.min(other), b: one.max(other), similarity }
    }
}

/// For each of some images its nearest neighbours, most similar first, ties by row.
#[derive(Clone, Debug)]
pub struct KnnGraph {
    rows: Vec<u32>,
    /// Where the neighbours of each row begin, and the end.
    starts: Vec<usize>,
    neighbours: Vec<(u32, f32)>,
    k: usize,
}

impl KnnGraph {
    /// Rows that have neighbours here, ascending.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Most neighbours that an image can have here.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Neighbours (row, similarity) of the image at a position of [`rows`](Self::rows); none beyond
    /// the end.
    pub fn at(&self, position: usize) -> &[(u32, f32)] {
        match (self.starts.get(position), self.starts.get(position + 1)) {
            (Some(&start), Some(&end)) => &self.neighbours[start..end],
            _ => &[],
        }
    }

    /// Neighbours of a row; none for one that is not among [`rows`](Self::rows).
    pub fn of(&self, row: u32) -> &[(u32, f32)] {
        self.rows.binary_search(&row).map_or(&[], |position| self.at(position))
    }

    /// Rows with their neighbours, by row.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[(u32, f32)])> {
        self.rows.iter().enumerate().map(|(position, &row)| (row, self.at(position)))
    }

    /// Pairs at or above a similarity, each once whichever of the two has the other as a neighbour,
    /// by rows. Only for a graph of one view with itself.
    pub fn edges(&self, threshold: f32) -> Vec<Edge> {
        let above = |(row, near): (u32, &[(u32, f32)])| {
            let near = near.iter().take_while(|(_, similarity)| *similarity >= threshold);
            near.map(|&(other, similarity)| Edge::new(row, other, similarity)).collect::<Vec<_>>()
        };
        let mut edges: Vec<Edge> = self.iter().flat_map(above).collect();
        edges.par_sort_unstable_by_key(|edge| (edge.a, edge.b));
        edges.dedup_by_key(|edge| (edge.a, edge.b));
        edges
    }

    /// Images that may have more neighbours at or above a similarity than the `k` kept here.
    pub fn truncated(&self, threshold: f32) -> usize {
        let full = |near: &[(u32, f32)]| {
            near.len() == self.k && near.last().is_some_and(|last| last.1 >= threshold)
        };
        self.iter().filter(|(_, near)| full(near)).count()
    }
}

/// The `k` nearest neighbours of every image of a view (of those `among`, if given, and found among
/// them), itself left out. With fewer other images than `k`, all of them.
///
/// # Errors
/// `k` is 0, a row on disk is damaged, or [`IndexerError::Cancelled`].
pub fn knn_graph(
    view: &View,
    among: Option<&RoaringBitmap>,
    k: usize,
    method: Method,
    on_done: OnDone<'_>,
    cancel: &AtomicBool,
) -> Result<KnnGraph> {
    let wanted = Wanted { k, floor: f32::NEG_INFINITY, method };
    neighbours((view, among), None, wanted, on_done, cancel)
}

/// Nearest neighbours of the images of one view (those `among`, if given) in another of the same
/// model, or, without another, in the view itself, each image itself left out.
///
/// # Errors
/// As [`knn_graph`]; or the views are of different models.
pub fn neighbours(
    (view, among): (&View, Option<&RoaringBitmap>),
    other: Option<(&View, Option<&RoaringBitmap>)>,
    wanted: Wanted,
    on_done: OnDone<'_>,
    cancel: &AtomicBool,
) -> Result<KnnGraph> {
    if wanted.k == 0 {
        let message = "k is 0: every image needs at least 1 neighbour to be compared with";
        return Err(IndexerError::InvalidRequest(message.to_owned()));
    }
    let (gallery_view, gallery_among) = other.unwrap_or((view, among));
    view.check_model(&gallery_view.manifest().model)?;
    let gallery_view = &gallery_view.in_bulk();
    let rows = rows_of(view, among);
    let gallery = Gallery {
        view: gallery_view,
        rows: rows_of(gallery_view, gallery_among),
        among: gallery_among,
        is_self: other.is_none(),
    };
    let possible = gallery.rows.len() - usize::from(gallery.is_self && !gallery.rows.is_empty());
    let wanted = Wanted { k: wanted.k.min(possible.max(1)), ..wanted };
    let exact = match wanted.method {
        Method::Exact => true,
        Method::Hnsw => !gallery_view.is_approximate(),
        Method::Auto => !gallery_view.is_approximate() || gallery.rows.len() as u64 <= EXACT_UNTIL,
    };
    let find = |task: &[u32]| {
        if cancel.load(atomic::Ordering::Relaxed) {
            return Err(IndexerError::Cancelled);
        }
        let found = match exact {
            true => gallery.compare(view, task, wanted)?,
            false => gallery.search(view, task, wanted)?,
        };
        on_done(task.len());
        Ok(found)
    };
    let found: Vec<Vec<Vec<(u32, f32)>>> =
        rows.par_chunks(QUERIES).map(find).collect::<Result<_>>()?;
    let mut starts = Vec::with_capacity(rows.len() + 1);
    starts.push(0);
    let mut all = Vec::with_capacity(found.iter().flatten().map(Vec::len).sum());
    for near in found.into_iter().flatten() {
        all.extend(near);
        starts.push(all.len());
    }
    Ok(KnnGraph { rows, starts, neighbours: all, k: wanted.k })
}

fn rows_of(view: &View, among: Option<&RoaringBitmap>) -> Vec<u32> {
    match among {
        Some(among) => (among & view.alive()).iter().collect(),
        None => view.alive().iter().collect(),
    }
}

/// Where neighbours are looked for.
struct Gallery<'a> {
    view: &'a View,
    rows: Vec<u32>,
    among: Option<&'a RoaringBitmap>,
    is_self: bool,
}

impl Gallery<'_> {
    /// Neighbours of each row of `task`, by comparing all.
    fn compare(&self, view: &View, task: &[u32], wanted: Wanted) -> Result<Vec<Vec<(u32, f32)>>> {
        let dim = view.manifest().model.dim;
        let queries = view.vectors(task.iter().copied())?;
        let mut best: Vec<Best> = task.iter().map(|_| Best::new(wanted)).collect();
        let mut scores = vec![0.0; task.len() * GALLERY.min(self.rows.len())];
        for block in self.rows.chunks(GALLERY) {
            let values = self.view.vectors(block.iter().copied())?;
            let scores = &mut scores[..task.len() * block.len()];
            let others = Operand::new(&values, block.len(), dim).t();
            matmul_f32(Operand::new(&queries, task.len(), dim), others, scores);
            let lines = scores.chunks_exact(block.len());
            for ((best, &own), line) in best.iter_mut().zip(task).zip(lines) {
                for (&row, &score) in block.iter().zip(line) {
                    if score > best.bar && !(self.is_self && row == own) {
                        best.push(row, score);
                    }
                }
            }
        }
        let exactly = |(best, query): (Best, &[f32])| self.exactly(best, query, wanted);
        best.into_iter().zip(queries.chunks_exact(dim)).map(exactly).collect()
    }

    /// The best candidates by the similarity that every other part of the program computes.
    fn exactly(&self, best: Best, query: &[f32], wanted: Wanted) -> Result<Vec<(u32, f32)>> {
        let mut rows: Vec<u32> = best.heap.into_iter().map(|entry| entry.row).collect();
        rows.sort_unstable();
        let values = self.view.vectors(rows.iter().copied())?;
        let mut near: Vec<(u32, f32)> = rows
            .into_iter()
            .zip(values.chunks_exact(query.len()))
            .map(|(row, values)| (row, dot(query, values)))
            .filter(|(_, similarity)| *similarity >= wanted.floor)
            .collect();
        near.sort_by(best_first);
        near.truncate(wanted.k);
        Ok(near)
    }

    /// Neighbours of each row of `task`, through HNSW.
    fn search(&self, view: &View, task: &[u32], wanted: Wanted) -> Result<Vec<Vec<(u32, f32)>>> {
        let of_row = |&own: &u32| {
            let query = view.vector(own, view.id_of(own)?)?;
            let ask = |k: usize| {
                let found = self.view.nearest(&query, k + usize::from(self.is_self), self.among)?;
                let mut near: Vec<(u32, f32)> = found
                    .into_iter()
                    .filter(|near| !(self.is_self && near.row == own))
                    .map(|near| (near.row, near.similarity))
                    .collect();
                near.sort_by(best_first);
                near.truncate(k);
                Ok::<_, IndexerError>(near)
            };
            let mut near = Vec::new();
            if wanted.floor > f32::NEG_INFINITY && wanted.k > FIRST {
                near = ask(FIRST)?;
            }
            if near.last().is_none_or(|last| last.1 >= wanted.floor) {
                near = ask(wanted.k)?;
            }
            near.retain(|(_, similarity)| *similarity >= wanted.floor);
            // Most of what it had room for was not near enough, and there may be millions of these.
            near.shrink_to_fit();
            Ok(near)
        };
        task.iter().map(of_row).collect()
    }
}

fn best_first(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The best candidates seen so far.
struct Best {
    heap: BinaryHeap<Candidate>,
    capacity: usize,
    /// Scores up to this are of no interest.
    bar: f32,
}

/// Ordered worst first, for the heap's root to be the one to give up.
#[derive(Clone, Copy)]
struct Candidate {
    row: u32,
    score: f32,
}

impl Best {
    fn new(wanted: Wanted) -> Self {
        let capacity = wanted.k.saturating_add(SPARE);
        Self { heap: BinaryHeap::new(), capacity, bar: wanted.floor - SLACK }
    }

    fn push(&mut self, row: u32, score: f32) {
        self.heap.push(Candidate { row, score });
        if self.heap.len() > self.capacity {
            self.heap.pop();
        }
        if self.heap.len() == self.capacity
            && let Some(worst) = self.heap.peek()
        {
            self.bar = self.bar.max(worst.score);
        }
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}
