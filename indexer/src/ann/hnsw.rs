//! One HNSW graph, by usearch. This is the only file that names that library.
//!
//! Its safe-looking calls can crash the process, or answer wrongly, in many ways. Here:
//! - adding needs `&mut`, so that it never races with a search; the first add is alone, and only
//!   [`Graph::build`] adds from several threads, before anybody searches;
//! - capacity is reserved with `&mut`; a search takes one permit per thread the library has working
//!   memory for, and waits rather than fails;
//! - bytes are opened only after the container's checksum was verified
//!   (`snapshot.rs`), and their shape is compared with what the container says;
//! - large graphs are not searched by it at all but by our own walk (`frozen.rs`);
//! - vectors come from checksummed, unit-length rows, so that they are finite; queries are checked;
//! - nothing is ever removed or renamed, so that no search sees an emptied slot;
//! - a panic in a filter is caught before it reaches C++.
//!
//! Vectors are kept as bytes with one scale for the graph: distances only choose candidates, which
//! are then compared exactly. The library's own conversion to bytes is not used: it spends most of
//! its 255 levels on values that components of unit vectors never have.

use std::panic::AssertUnwindSafe;

use crossbeam_channel::{Receiver, Sender};
use rayon::prelude::*;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::frozen::Frozen;
use super::quantised::{Candidate, Query, quantised};
use super::snapshot::large_memory;
use crate::error::{IndexerError, Result};

/// Links per node.
pub(super) const M: usize = 16;
const EF_CONSTRUCTION: usize = 128;
/// Smallest beam of a search of [`EF_ROWS`] rows; it grows with the rows to the power of 0.52,
/// and when more neighbours are asked for. Measured to give recall@10 above 0.99 (`bench/peers/ann.py`).
pub(super) const EF_SEARCH: usize = 40;
const EF_ROWS: usize = 200_000;

/// Rows and the links between them.
pub(crate) struct Graph {
    index: Index,
    dim: usize,
    /// Largest component that is kept exactly in proportion; larger ones are cut off.
    scale: f32,
    /// One token per thread the library has reserved working memory for.
    permits: (Sender<()>, Receiver<()>),
    threads: usize,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("rows", &self.len()).finish_non_exhaustive()
    }
}

impl Graph {
    /// An empty graph for vectors whose components are mostly below `scale`.
    pub(crate) fn new(dim: usize, scale: f32) -> Result<Self> {
        let options = IndexOptions {
            dimensions: dim,
            metric: MetricKind::IP,
            quantization: ScalarKind::I8,
            connectivity: M,
            expansion_add: EF_CONSTRUCTION,
            expansion_search: EF_SEARCH,
            multi: false,
        };
        let index = Index::new(&options).map_err(|error| ann(&error))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.max(rayon::current_num_threads());
        let permits = crossbeam_channel::bounded(threads);
        for _ in 0..threads {
            permits.0.send(()).map_err(|error| ann(&error))?;
        }
        Ok(Self { index, dim, scale, permits, threads })
    }

    /// Rows in the graph.
    pub(crate) fn len(&self) -> usize {
        self.index.size()
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// Makes room for `more` rows, at least doubling when there is too little.
    fn reserve(&mut self, more: usize) -> Result<()> {
        let wanted = self.index.size() + more;
        if wanted <= self.index.capacity() {
            return Ok(());
        }
        let capacity = wanted.max(2 * self.index.capacity());
        self.index.reserve_capacity_and_threads(capacity, self.threads).map_err(|error| ann(&error))
    }

    /// Adds rows, one after the other.
    pub(crate) fn add(&mut self, rows: &[(u32, Vec<f32>)]) -> Result<()> {
        self.reserve(rows.len())?;
        rows.iter().try_for_each(|(row, vector)| self.add_one(*row, vector))
    }

    /// Adds rows on all cores. Concurrent insertion can leave some that no search reaches
    /// (unum-cloud/usearch#735); the caller looks for them.
    pub(crate) fn build(
        &mut self,
        rows: &[u32],
        vector: &(dyn Fn(u32) -> Result<Vec<f32>> + Sync),
    ) -> Result<()> {
        self.reserve(rows.len())?;
        let Some((&first, rest)) = rows.split_first() else { return Ok(()) };
        self.add_one(first, &vector(first)?)?;
        let graph = &*self;
        rest.par_iter().try_for_each(|&row| graph.add_one(row, &vector(row)?))
    }

    fn add_one(&self, row: u32, vector: &[f32]) -> Result<()> {
        let bytes = quantised(vector, self.dim, self.scale)?;
        self.index.add(u64::from(row), &bytes).map_err(|error| ann(&error))
    }

    /// About the `k` rows nearest to a query, roughly nearest first; only such as
    /// `accept` takes, if given.
    pub(crate) fn candidates(
        &self,
        query: &[f32],
        k: usize,
        accept: Option<&(dyn Fn(u32) -> bool + Sync)>,
    ) -> Result<Vec<Candidate>> {
        let query = Query::new(query, self.dim, self.scale)?;
        if self.index.size() == 0 || k == 0 {
            return Ok(Vec::new());
        }
        self.permits.1.recv().map_err(|error| ann(&error))?;
        let found = match accept {
            None => self.index.search(&query.bytes, k),
            Some(accept) => {
                self.index.filtered_search(&query.bytes, k, |row| accepted(accept, row as u32))
            }
        };
        self.permits.0.send(()).map_err(|error| ann(&error))?;
        let found = found.map_err(|error| ann(&error))?;
        let candidate = |(row, distance): (u64, f32)| {
            Some(query.candidate(row.try_into().ok()?, 1.0 - distance))
        };
        Ok(found.keys.into_iter().zip(found.distances).filter_map(candidate).collect())
    }

    /// The library's own bytes.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut bytes).map_err(|error| ann(&error))?;
        Ok(bytes)
    }

    /// The graph as it is searched once it has grown enough.
    pub(super) fn frozen(self) -> Result<Frozen> {
        let length = self.index.serialized_length();
        let mut memory = large_memory(Frozen::LEAD + length).map_err(|error| ann(&error))?;
        let bytes = memory.get_mut(Frozen::LEAD..).unwrap_or_default();
        self.index.save_to_buffer(bytes).map_err(|error| ann(&error))?;
        let (dim, scale) = (self.dim, self.scale);
        drop(self);
        Frozen::new(memory, Frozen::LEAD, Frozen::LEAD + length, dim, scale)
            .ok_or_else(|| ann(&"the library wrote a graph in a form that is not known"))
    }

    /// A graph that can grow, from bytes whose checksum was verified.
    pub(super) fn load(dim: usize, scale: f32, bytes: &[u8]) -> Result<Self> {
        let graph = Self::new(dim, scale)?;
        graph.index.load_from_buffer(bytes).map_err(|error| ann(&error))?;
        graph.opened(dim)
    }

    /// Opening takes dimension and number type from the bytes, sizes the pool of threads to the
    /// cores, and forgets the beam widths.
    fn opened(self, dim: usize) -> Result<Self> {
        let index = &self.index;
        if index.dimensions() != dim || index.scalar_kind() != ScalarKind::I8 {
            return Err(ann(&"the graph has another shape than its header says"));
        }
        index
            .reserve_capacity_and_threads(index.size(), self.threads)
            .map_err(|error| ann(&error))?;
        index.change_expansion_add(EF_CONSTRUCTION);
        index.change_expansion_search(beam(index.size()));
        Ok(self)
    }
}

/// Beam of a search over so many rows.
pub(super) fn beam(rows: usize) -> usize {
    let growth = (rows as f64 / EF_ROWS as f64).powf(0.52).max(1.0);
    (EF_SEARCH as f64 * growth) as usize
}

/// What a filter says, where a panic of it counts as no: it must not go through the library.
pub(super) fn accepted(accept: &dyn Fn(u32) -> bool, row: u32) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(|| accept(row))).unwrap_or(false)
}

/// Length of the library's head, between the vectors and the graph.
pub(super) const HEAD: usize = 64;

/// Whether bytes start with the head of a graph of so many rows, none removed, in a form this program knows.
pub(super) fn is_head_of(bytes: &[u8], rows: usize, dim: usize) -> bool {
    let long = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    // The name, major, minor and patch version as u16, four kinds in a byte each, then what follows.
    bytes.starts_with(b"usearch\x02\0")
        && long(17) == Some(rows as u64)
        && long(25) == Some(0)
        && long(33) == Some(dim as u64)
}

fn ann(error: &dyn std::fmt::Display) -> IndexerError {
    IndexerError::Ann { reason: error.to_string() }
}
