//! A graph that no longer changes, searched where it lies: in the bytes that `hnsw.rs` wrote.
//!
//! The library builds graphs; this walks them, because a search of a million rows mostly waits for
//! memory, and the library never asks for the rows it is about to compare. It is the search of the
//! HNSW paper (Malkov and Yashunin 2018, algorithms 2 and 5), with the same answers: down the upper
//! levels to the nearest node, then along the base level with a beam.
//!
//! Nothing in the bytes is trusted further than their checksum goes: whatever lies outside them is
//! skipped.

use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use bytemuck::cast_slice;
use engine::kernels::{dot_i8, prefetch};
use memmap2::MmapMut;
use roaring::RoaringBitmap;

use super::hnsw;
use super::quantised::{Candidate, Query};
use crate::error::Result;

/// Rows asked for ahead of the one that is compared.
const AHEAD: usize = 6;
/// First byte of the first vector; they lie one after the other.
const VECTORS: usize = 8;
/// What a node starts with: its row as u64 and its highest level as i16.
const NODE_HEAD: usize = 10;

/// Where the parts of a graph lie in its bytes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    len: usize,
    dim: usize,
    /// First byte of the first node.
    nodes: usize,
    /// Most links of a node, on the base level and above.
    base_links: usize,
    upper_links: usize,
    entry: u32,
    top_level: usize,
}

/// Rows and the links between them, for searching only.
pub(crate) struct Frozen {
    memory: MmapMut,
    /// Where the library's bytes lie in the memory.
    start: usize,
    end: usize,
    layout: Layout,
    /// For each node, lists of links above the base level of the nodes before it.
    upper_before: Vec<u32>,
    scale: f32,
    beam: usize,
    /// Working memory of searches that ended.
    spare: Mutex<Vec<Scratch>>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// A node and its product with the query; larger products come first, then lower nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    product: i32,
    node: std::cmp::Reverse<u32>,
}

impl Found {
    fn new(product: i32, node: u32) -> Self {
        Self { product, node: std::cmp::Reverse(node) }
    }
}

/// Working memory of one search.
#[derive(Debug, Default)]
struct Scratch {
    /// One bit for each node that was seen.
    seen: Vec<u64>,
    /// Which they were, so that the bits are cleared again without touching all of them.
    nodes_seen: Vec<u32>,
    next: BinaryHeap<Found>,
    /// The nearest so far, nearest first.
    top: Vec<Found>,
    fresh: Vec<u32>,
}

impl Scratch {
    /// Notes a node; true when it was not seen before.
    fn see(&mut self, node: u32) -> bool {
        let Some(word) = self.seen.get_mut(node as usize / 64) else { return false };
        let bit = 1 << (node % 64);
        let is_new = *word & bit == 0;
        if is_new {
            *word |= bit;
            self.nodes_seen.push(node);
        }
        is_new
    }

    fn clear(&mut self) {
        for node in self.nodes_seen.drain(..) {
            if let Some(word) = self.seen.get_mut(node as usize / 64) {
                *word = 0;
            }
        }
        self.next.clear();
        self.top.clear();
    }

    /// Keeps one of the `beam` nearest.
    fn keep(&mut self, found: Found, beam: usize) {
        let at = self.top.partition_point(|other| *other > found);
        if at < beam {
            if self.top.len() == beam {
                self.top.pop();
            }
            self.top.insert(at, found);
        }
    }

    /// The product a node must exceed to be of use.
    fn bar(&self, beam: usize) -> i32 {
        self.top.get(beam - 1).map_or(i32::MIN, |last| last.product)
    }
}

/// Whether a search may answer with a row.
pub(crate) type Accept<'a> = Option<&'a (dyn Fn(u32) -> bool + Sync)>;

impl Frozen {
    /// Bytes to leave free before the library's, so that vectors start where cache lines do.
    pub(super) const LEAD: usize = 64 - VECTORS;

    /// The graph whose bytes lie from `start` to `end` in memory; none when they are not as the library writes them.
    pub(super) fn new(
        memory: MmapMut,
        start: usize,
        end: usize,
        dim: usize,
        scale: f32,
    ) -> Option<Self> {
        let bytes = memory.get(start..end)?;
        let layout = Layout::of(bytes, dim)?;
        let upper_before = layout.upper_before(bytes)?;
        let beam = hnsw::beam(layout.len);
        let spare = Mutex::default();
        Some(Self { memory, start, end, layout, upper_before, scale, beam, spare })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Rows in the graph.
    pub(crate) fn len(&self) -> usize {
        self.layout.len
    }

    pub(super) fn dim(&self) -> usize {
        self.layout.dim
    }

    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// The rows in the graph, reachable or not.
    pub(super) fn rows(&self) -> RoaringBitmap {
        (0..self.layout.len as u32).filter_map(|node| self.row(node)).collect()
    }

    /// About the `k` rows nearest to a query, nearest first as far as bytes tell; only such as `accept` takes, if given.
    pub(crate) fn candidates(
        &self,
        query: &[f32],
        k: usize,
        accept: Accept<'_>,
    ) -> Result<Vec<Candidate>> {
        self.candidates_with(self.beam, query, k, accept)
    }

    /// [`candidates`](Self::candidates) with the narrowest beam there is: enough for the vector of one of the rows.
    pub(super) fn near(&self, vector: &[f32], k: usize) -> Result<Vec<Candidate>> {
        self.candidates_with(hnsw::EF_SEARCH, vector, k, None)
    }

    fn candidates_with(
        &self,
        beam: usize,
        query: &[f32],
        k: usize,
        accept: Accept<'_>,
    ) -> Result<Vec<Candidate>> {
        let query = Query::new(query, self.layout.dim, self.scale)?;
        if self.layout.len == 0 || k == 0 {
            return Ok(Vec::new());
        }
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_default();
        scratch.seen.resize(self.layout.len.div_ceil(64), 0);
        self.walk(&query.bytes, beam.max(k), accept, &mut scratch);
        let candidate =
            |found: &Found| Some(query.candidate(self.row(found.node.0)?, found.product as f32));
        let candidates = scratch.top.iter().take(k).filter_map(candidate).collect();
        scratch.clear();
        spare().push(scratch);
        Ok(candidates)
    }

    fn walk(&self, query: &[i8], beam: usize, accept: Accept<'_>, scratch: &mut Scratch) {
        let accepts = |node| {
            accept
                .is_none_or(|accept| self.row(node).is_some_and(|row| hnsw::accepted(accept, row)))
        };
        let start = self.nearest_above(query);
        scratch.see(start.node.0);
        scratch.next.push(start);
        if accepts(start.node.0) {
            scratch.keep(start, beam);
        }
        while let Some(nearest) = scratch.next.pop() {
            if nearest.product < scratch.bar(beam) {
                break;
            }
            let mut fresh = std::mem::take(&mut scratch.fresh);
            fresh.extend(self.links(nearest.node.0, 0).filter(|&node| scratch.see(node)));
            fresh.iter().take(AHEAD).for_each(|&node| prefetch(self.vector(node)));
            for (i, &node) in fresh.iter().enumerate() {
                fresh.get(i + AHEAD).into_iter().for_each(|&node| prefetch(self.vector(node)));
                let found = Found::new(dot_i8(query, cast_slice(self.vector(node))), node);
                if found.product > scratch.bar(beam) {
                    // It is likely to be the next whose links are followed.
                    if scratch.next.peek().is_none_or(|best| found > *best) {
                        prefetch(self.node(node));
                    }
                    scratch.next.push(found);
                    if accepts(node) {
                        scratch.keep(found, beam);
                    }
                }
            }
            fresh.clear();
            scratch.fresh = fresh;
        }
    }

    /// The node of the upper levels nearest to a query, as far as going downhill finds it.
    fn nearest_above(&self, query: &[i8]) -> Found {
        let entry = self.layout.entry;
        let mut nearest = Found::new(dot_i8(query, cast_slice(self.vector(entry))), entry);
        for level in (1..=self.layout.top_level).rev() {
            loop {
                let links = || self.links(nearest.node.0, level);
                links().for_each(|node| prefetch(self.vector(node)));
                let compared = links()
                    .map(|node| Found::new(dot_i8(query, cast_slice(self.vector(node))), node));
                match compared.max() {
                    Some(found) if found.product > nearest.product => nearest = found,
                    _ => break,
                }
            }
        }
        nearest
    }

    fn vector(&self, node: u32) -> &[u8] {
        let at = self.start + VECTORS + node as usize * self.layout.dim;
        self.memory.get(at..at + self.layout.dim).unwrap_or_default()
    }

    /// A node up to the end of its links on the base level.
    fn node(&self, node: u32) -> &[u8] {
        let at = self.start + self.layout.node(node, &self.upper_before);
        self.memory.get(at..at + NODE_HEAD + list(self.layout.base_links)).unwrap_or_default()
    }

    fn row(&self, node: u32) -> Option<u32> {
        u64::from_le_bytes(*self.node(node).first_chunk()?).try_into().ok()
    }

    /// Nodes that one has links to on a level.
    fn links(&self, node: u32, level: usize) -> impl Iterator<Item = u32> {
        let at = self.start + self.layout.node(node, &self.upper_before) + NODE_HEAD;
        let (skip, most) = match level {
            0 => (0, self.layout.base_links),
            _ => {
                let below =
                    list(self.layout.base_links) + (level - 1) * list(self.layout.upper_links);
                (below, self.layout.upper_links)
            }
        };
        let bytes = self.memory.get(at + skip..at + skip + list(most)).unwrap_or_default();
        let (numbers, _) = bytes.as_chunks::<4>();
        let count = numbers.first().map_or(0, |count| u32::from_le_bytes(*count) as usize);
        let len = self.layout.len;
        let links = numbers.iter().skip(1).take(count).map(|node| u32::from_le_bytes(*node));
        links.filter(move |&node| (node as usize) < len)
    }
}

/// Bytes of a list of at most so many links, which starts with how many there are.
fn list(links: usize) -> usize {
    4 + 4 * links
}

impl Layout {
    /// Reads the heads: rows and bytes of a row as u32; the vectors; the library's own head; numbers of nodes and of
    /// links on the upper levels and on the base level, highest level and entry as u64; a level as i16 for each node.
    fn of(bytes: &[u8], dim: usize) -> Option<Self> {
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        let long = |at: usize| {
            let bytes = bytes.get(at..)?.first_chunk()?;
            usize::try_from(u64::from_le_bytes(*bytes)).ok()
        };
        let (len, width) = (number(0)? as usize, number(4)? as usize);
        let head = VECTORS + len.checked_mul(dim)?;
        if width != dim || !hnsw::is_head_of(bytes.get(head..)?, len, dim) {
            return None;
        }
        let graph = head + hnsw::HEAD;
        let [nodes, upper_links, base_links, top_level, entry] =
            [0, 1, 2, 3, 4].map(|field| long(graph + 8 * field));
        let layout = Self {
            len,
            dim,
            nodes: graph + 40 + 2 * len,
            base_links: base_links.filter(|links| (1..1 << 16).contains(links))?,
            upper_links: upper_links.filter(|links| (1..1 << 16).contains(links))?,
            // What an empty graph says here means nothing.
            entry: entry.map(|entry| entry as u32)?,
            top_level: top_level?,
        };
        let is_entry = (layout.entry as usize) < len && layout.top_level <= MOST_LEVELS;
        (nodes? == len && (is_entry || len == 0)).then_some(layout)
    }

    fn node(&self, node: u32, upper_before: &[u32]) -> usize {
        let upper = upper_before.get(node as usize).map_or(0, |&lists| lists as usize);
        self.nodes
            + node as usize * (NODE_HEAD + list(self.base_links))
            + upper * list(self.upper_links)
    }

    /// Adds up the levels; none if the nodes do not end where the bytes do.
    fn upper_before(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        let levels = bytes.get(self.nodes - 2 * self.len..self.nodes)?;
        let mut before = Vec::with_capacity(self.len);
        let mut sum = 0u32;
        for level in levels.as_chunks::<2>().0 {
            before.push(sum);
            let level = usize::try_from(i16::from_le_bytes(*level)).ok()?;
            sum = sum.checked_add(u32::try_from(level.min(MOST_LEVELS + 1)).ok()?)?;
        }
        let end = self.nodes
            + self.len * (NODE_HEAD + list(self.base_links))
            + sum as usize * list(self.upper_links);
        (end == bytes.len()).then_some(before)
    }
}

/// More levels than any graph has: with 16 links, one for each factor of 16 of its rows.
const MOST_LEVELS: usize = 64;
