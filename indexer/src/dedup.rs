//! Duplicates of a collection: found, told apart, grouped; and which of each group stays.
//!
//! Equal files first, by content hash; then the nearest neighbours of every other image, those as
//! similar as a threshold; then, if asked for, equal pixels, and a look at both pictures of each
//! pair ([`verify`]), since similar embeddings mean similar subjects. What remains is linked, and
//! each group keeps one. Nothing here changes a collection or a file. The same images give the same
//! report, whatever the number of threads.

mod graph;
mod components;
mod keep;
mod exceptions;
mod originals;
mod verify;
mod nodes;
mod groups;
mod thresholds;
mod calibrate;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roaring::RoaringBitmap;

pub use calibrate::{Count, Labelled, Suggestion, counts, curve, marginal, read_truth, suggest};
pub use components::{Component, UnionFind, components};
pub use exceptions::NotDuplicates;
pub use graph::{EXACT_UNTIL, Edge, KnnGraph, Method, OnDone, Wanted, knn_graph, neighbours};
pub use groups::{Dropped, Group, Grouping, Member, Spread, spread, spread_of_rows};
pub use keep::{Candidate, Keep, representative};
pub use originals::PixelHashes;
pub use thresholds::{Thresholds, thresholds};
pub use verify::{Evidence, Judged, Kind, Verifier, verify};

use crate::collection::View;
use crate::error::{IndexerError, Result};
use crate::pipeline::Skipped;
use groups::Links;
use nodes::Nodes;

/// Neighbours of each image that are looked at by default (the published pipeline's).
pub const K: usize = 64;
/// Pictures of equal pixels have embeddings at least this similar.
const EQUAL: f32 = 0.999;

/// How duplicates are found and chosen.
#[derive(Clone, Debug)]
pub struct DedupOptions {
    /// Neighbours of each image looked at.
    pub k: usize,
    /// Least similarity of a pair, -1 to 1.
    pub threshold: f32,
    /// What makes a group.
    pub grouping: Grouping,
    /// Which of a group stays.
    pub keep: Keep,
    /// How neighbours are found.
    pub method: Method,
    /// Only these rows; all without.
    pub among: Option<RoaringBitmap>,
    /// Rows that always stay.
    pub protected: RoaringBitmap,
    /// Other collections, whose images always stay.
    pub references: Vec<Arc<View>>,
    /// Pairs that are no duplicates.
    pub not_duplicates: NotDuplicates,
}

impl DedupOptions {
    /// The defaults, at a threshold.
    pub fn new(threshold: f32) -> Self {
        Self {
            k: K,
            threshold,
            grouping: Grouping::default(),
            keep: Keep::default(),
            method: Method::default(),
            among: None,
            protected: RoaringBitmap::new(),
            references: Vec::new(),
            not_duplicates: NotDuplicates::default(),
        }
    }

    fn check(&self) -> Result<()> {
        match (-1.0..=1.0).contains(&self.threshold) {
            true => Ok(()),
            false => Err(IndexerError::InvalidRequest(format!(
                "threshold {} is no cosine similarity: it lies between -1 and 1",
                self.threshold
            ))),
        }
    }
}

/// Stages that read original files, when asked for.
#[derive(Debug, Default)]
pub struct Originals<'a> {
    /// Finds equal pixels, and remembers what was decoded.
    pub pixels: Option<&'a mut PixelHashes>,
    /// Looks at both pictures of a pair; without it, similarity alone makes a duplicate.
    pub verifier: Option<&'a Verifier<'a>>,
}

/// What the run is doing, with the number of steps ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Images whose neighbours are looked for.
    Neighbours(usize),
    /// Files that are decoded.
    Pixels(usize),
    /// Pairs that are looked at.
    Pairs(usize),
}

/// A pair that was judged, and its images.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The image of the lower row.
    pub a: Member,
    /// The other.
    pub b: Member,
    /// Similarity of their embeddings.
    pub similarity: f32,
    /// What they are to each other.
    pub kind: Kind,
    /// What was seen, if somebody looked.
    pub evidence: Option<Evidence>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct DedupReport {
    /// Images looked at.
    pub images: usize,
    /// Groups that have something to drop, by smallest row.
    pub groups: Vec<Group>,
    /// Every pair of different files whose pixels were compared, by rows.
    pub pairs: Vec<Pair>,
    /// Pairs at or above the threshold that could not be looked at, since an original is gone; they
    /// are not duplicates for this run.
    pub unseen: usize,
    /// Pairs left out because they are remembered as no duplicates.
    pub remembered: usize,
    /// Images all of whose `k` neighbours are above the threshold: a larger `k` may find more.
    pub truncated: usize,
    /// Originals that could not be read.
    pub skipped: Vec<Skipped>,
}

impl DedupReport {
    /// Images that would go.
    pub fn dropped(&self) -> impl Iterator<Item = &Dropped> {
        self.groups.iter().flat_map(|group| &group.dropped)
    }
}

/// Finds duplicates in a view.
///
/// # Errors
/// An option is out of range, a reference is of another model, a row on disk is damaged, an image
/// changed meanwhile, or [`IndexerError::Cancelled`].
pub fn dedup(
    view: &View,
    options: &DedupOptions,
    mut originals: Originals<'_>,
    on_stage: &(dyn Fn(Stage) + Sync),
    on_done: OnDone<'_>,
    cancel: &AtomicBool,
) -> Result<DedupReport> {
    options.check()?;
    for reference in &options.references {
        reference.check_model(&view.manifest().model)?;
        if reference.name() == view.name() {
            return Err(IndexerError::InvalidRequest(format!(
                "`{}` cannot be its own reference",
                view.name()
            )));
        }
    }
    let mut nodes = Nodes::new(view, &options.references)?;
    let (unique, same_files) = nodes.same_files(options.among.as_ref())?;
    let images = unique.len() as usize + same_files.len();
    on_stage(Stage::Neighbours(unique.len() as usize * (1 + options.references.len())));
    let wanted = Wanted { k: options.k, floor: options.threshold, method: options.method };
    let among = (unique != *view.alive()).then_some(&unique);
    let graph = neighbours((view, among), None, wanted, on_done, cancel)?;
    let mut truncated = graph.truncated(options.threshold);
    // With all others among the neighbours, none is missing.
    if unique.len() <= options.k as u64 + 1 {
        truncated = 0;
    }
    let mut edges = graph.edges(options.threshold);
    drop(graph);
    for (number, reference) in options.references.iter().enumerate() {
        let found = neighbours((view, among), Some((reference, None)), wanted, on_done, cancel)?;
        edges.extend(nodes.of_reference(number, &found)?);
    }
    let before = edges.len();
    if !options.not_duplicates.is_empty() {
        let mut kept = Vec::with_capacity(edges.len());
        for edge in edges {
            let (a, b) = (nodes.image(edge.a)?, nodes.image(edge.b)?);
            if !options.not_duplicates.contains(&a.sha256, &b.sha256) {
                kept.push(edge);
            }
        }
        edges = kept;
    }
    let remembered = before - edges.len();
    let mut report = DedupReport { images, remembered, truncated, ..DedupReport::default() };

    let mut links = Links::new(&nodes, options);
    for edge in same_files {
        links.add(edge, Kind::SameFile, None);
    }
    if !options.references.is_empty() {
        edges = links.take_same_files(edges)?;
    }
    if let Some(pixels) = originals.pixels.as_deref_mut() {
        let mut images = Vec::new();
        let mut maybe = Vec::new();
        for edge in &edges {
            if edge.similarity < EQUAL {
                continue;
            }
            let (a, b) = (nodes.image(edge.a)?, nodes.image(edge.b)?);
            if (a.width, a.height) == (b.width, b.height) {
                maybe.push((*edge, a.sha256.clone(), b.sha256.clone()));
                images.extend([a, b]);
            }
        }
        on_stage(Stage::Pixels(images.len()));
        report.skipped = pixels.add(&images, on_done, cancel)?;
        maybe.retain(|(_, a, b)| pixels.of(a).is_some() && pixels.of(a) == pixels.of(b));
        for (edge, ..) in &maybe {
            links.add(*edge, Kind::SamePixels, None);
        }
        maybe.sort_by_key(|(edge, ..)| (edge.a, edge.b));
        let equal = |edge: &Edge| maybe.binary_search_by_key(&(edge.a, edge.b), |m| (m.0.a, m.0.b));
        edges.retain(|edge| equal(edge).is_err());
    }
    match originals.verifier {
        None => edges.into_iter().for_each(|edge| links.add(edge, Kind::Similar, None)),
        Some(verifier) => {
            sort_by_component(&mut edges);
            on_stage(Stage::Pairs(edges.len()));
            let image = |node: u32| nodes.image(node);
            let (judged, skipped) = verify(&edges, &image, verifier, on_done, cancel)?;
            report.unseen = edges.len() - judged.len();
            report.skipped.extend(skipped);
            for Judged { edge, kind, evidence } in judged {
                links.add(edge, kind, Some(evidence));
            }
        }
    }
    report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    report.skipped.dedup_by(|a, b| a.path == b.path);
    report.pairs = links.pairs()?;
    report.groups = links.groups()?;
    Ok(report)
}

/// Edges of one component after the other, so that they share pictures.
fn sort_by_component(edges: &mut [Edge]) {
    let mut names: Vec<(u32, u32)> = components(edges)
        .iter()
        .flat_map(|found| found.members.iter().map(|&node| (node, found.members[0])))
        .collect();
    names.sort_unstable();
    let name = |node: u32| match names.binary_search_by_key(&node, |(node, _)| *node) {
        Ok(place) => names[place].1,
        Err(_) => node,
    };
    edges.sort_by_cached_key(|edge| (name(edge.a), edge.a, edge.b));
}
