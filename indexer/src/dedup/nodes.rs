//! Images of a view and of the references beside it, under one numbering.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::graph::{Edge, KnnGraph};
use super::groups::Member;
use super::keep::Candidate;
use crate::collection::View;
use crate::error::{IndexerError, Result};

/// A node below [`first_reference`](Self::first_reference) is a row of the view; the others are
/// images of references.
pub(super) struct Nodes<'a> {
    view: &'a View,
    references: &'a [Arc<View>],
    first_reference: u32,
    /// Reference and row of each node from there on, ascending.
    in_references: Vec<(usize, u32)>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(view: &'a View, references: &'a [Arc<View>]) -> Result<Self> {
        let first_reference = u32::try_from(view.rows()).map_err(|_| too_many())?;
        Ok(Self { view, references, first_reference, in_references: Vec::new() })
    }

    /// One row of each file content, the lowest; and links of the others to it.
    pub(super) fn same_files(
        &self,
        among: Option<&RoaringBitmap>,
    ) -> Result<(RoaringBitmap, Vec<Edge>)> {
        let looked_at = |row: u32| {
            self.view.alive().contains(row) && among.is_none_or(|among| among.contains(row))
        };
        let mut contents = Vec::with_capacity(self.view.len());
        for entry in self.view.images() {
            let (_, record) = entry?;
            if let Ok(row) = u32::try_from(record.row)
                && looked_at(row)
                && let Some(hash) = record.sha256.to_bytes()
            {
                contents.push((hash, row));
            }
        }
        contents.sort_unstable();
        let mut unique: RoaringBitmap = match among {
            Some(among) => among & self.view.alive(),
            None => self.view.alive().clone(),
        };
        let mut links = Vec::new();
        for same in contents.chunk_by(|a, b| a.0 == b.0) {
            for &(_, row) in &same[1..] {
                links.push(Edge::new(same[0].1, row, 1.0));
                unique.remove(row);
            }
        }
        links.sort_by_key(|edge| (edge.a, edge.b));
        Ok((unique, links))
    }

    /// Edges between rows of the view and those of a reference; references come in their order.
    pub(super) fn of_reference(&mut self, number: usize, graph: &KnnGraph) -> Result<Vec<Edge>> {
        let mut rows: Vec<u32> =
            graph.iter().flat_map(|(_, near)| near.iter().map(|(row, _)| *row)).collect();
        rows.sort_unstable();
        rows.dedup();
        let start = self.in_references.len() as u64 + u64::from(self.first_reference);
        let start = u32::try_from(start).map_err(|_| too_many())?;
        start
            .checked_add(u32::try_from(rows.len()).map_err(|_| too_many())?)
            .ok_or_else(too_many)?;
        let mut edges = Vec::new();
        for (own, near) in graph.iter() {
            for &(row, similarity) in near {
                let place = rows.binary_search(&row).unwrap_or_default() as u32;
                edges.push(Edge::new(own, start + place, similarity));
            }
        }
        self.in_references.extend(rows.into_iter().map(|row| (number, row)));
        Ok(edges)
    }

    /// Whether a node is of a reference.
    pub(super) fn is_reference(&self, node: u32) -> bool {
        node >= self.first_reference
    }

    fn place(&self, node: u32) -> (&View, u32) {
        let beyond = node.checked_sub(self.first_reference);
        match beyond.and_then(|place| self.in_references.get(place as usize)) {
            Some(&(number, row)) => (&self.references[number], row),
            None => (self.view, node),
        }
    }

    /// What there is to know of a node; its `row` is the node.
    pub(super) fn image(&self, node: u32) -> Result<Candidate> {
        let (view, row) = self.place(node);
        Ok(Candidate { row: node, ..Candidate::of(view, row)? })
    }

    /// A node's image for the report, with its row.
    pub(super) fn member(&self, image: Candidate) -> Member {
        let (view, row) = self.place(image.row);
        let reference = self.is_reference(image.row).then(|| view.name().to_owned());
        Member { reference, image: Candidate { row, ..image } }
    }

    /// The embedding of a node.
    pub(super) fn vector(&self, node: u32) -> Result<Vec<f32>> {
        let (view, row) = self.place(node);
        view.vector(row, view.id_of(row)?)
    }
}

fn too_many() -> IndexerError {
    IndexerError::InvalidRequest(
        "there are more than 4,294,967,295 images in the collection and its references; split it"
            .to_owned(),
    )
}
