//! Links to groups: which images belong together, and which of them stay.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use engine::kernels::dot;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::components::{Component, components};
use super::graph::Edge;
use super::keep::{Candidate, representative};
use super::nodes::Nodes;
use super::verify::{Evidence, Kind};
use super::{DedupOptions, Pair};
use crate::collection::View;
use crate::error::Result;

/// Members up to which all pairs of a group are compared for its spread.
const EXACT_SPREAD: usize = 256;

/// What makes a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    /// Everything that links connect, through however many others.
    #[default]
    Components,
    /// One image and those linked with it directly: no chains.
    Medoid,
}

/// An image in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The reference it is of; `None` for the collection itself.
    pub reference: Option<String>,
    /// The image.
    pub image: Candidate,
}

/// An image that would go.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// The image.
    pub member: Member,
    /// Similarity of its embedding to that of the first image kept.
    pub similarity: f32,
    /// What it is to that image; of a chain, the weakest kind of its links.
    pub kind: Kind,
    /// Whether the two are linked, not only through others.
    pub direct: bool,
    /// What was seen when the two were compared.
    pub evidence: Option<Evidence>,
}

/// How unlike the members of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Similarity of the two least similar members; no more than that if not `exact`.
    pub lowest: f32,
    /// Whether all pairs were compared.
    pub exact: bool,
}

/// Duplicates of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What stays: the one that the others are dropped for, then protected ones.
    pub kept: Vec<Member>,
    /// What would go, by row.
    pub dropped: Vec<Dropped>,
    /// Similarity of the weakest link.
    pub weakest: f32,
    /// Links between the two members farthest apart.
    pub chain: usize,
    /// Whether `chain` is exact, or a lower bound.
    pub chain_is_exact: bool,
    /// How unlike the members are.
    pub spread: Spread,
}

/// The least similarity between any two of these vectors: exact for a few, and for many a bound by
/// the triangle inequality of angles around the first.
pub fn spread(vectors: &[Vec<f32>]) -> Spread {
    if vectors.len() <= EXACT_SPREAD {
        let pairs = (0..vectors.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let lowest = pairs.map(|(i, j)| dot(&vectors[i], &vectors[j])).fold(1.0, f32::min);
        return Spread { lowest, exact: true };
    }
    let mut angles: Vec<f32> =
        vectors[1..].iter().map(|v| dot(&vectors[0], v).clamp(-1.0, 1.0).acos()).collect();
    angles.sort_unstable_by(|a, b| b.total_cmp(a));
    let farthest = angles.iter().take(2).sum::<f32>().min(std::f32::consts::PI);
    Spread { lowest: farthest.cos(), exact: false }
}

/// Similarity, kind and what was seen.
type Link = (f32, Kind, Option<Evidence>);

/// The links of a run.
pub(super) struct Links<'a> {
    nodes: &'a Nodes<'a>,
    options: &'a DedupOptions,
    links: BTreeMap<(u32, u32), Link>,
    /// For images of equal files, the one that was compared with others.
    twins: BTreeMap<u32, u32>,
}

impl<'a> Links<'a> {
    pub(super) fn new(nodes: &'a Nodes<'a>, options: &'a DedupOptions) -> Self {
        Self { nodes, options, links: BTreeMap::new(), twins: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, edge: Edge, kind: Kind, evidence: Option<Evidence>) {
        self.links.insert((edge.a, edge.b), (edge.similarity, kind, evidence));
        if kind == Kind::SameFile {
            self.twins.insert(edge.b, edge.a);
        }
    }

    /// Links those of equal files (an image and one of a reference); gives back the others.
    pub(super) fn take_same_files(&mut self, edges: Vec<Edge>) -> Result<Vec<Edge>> {
        let mut others = Vec::with_capacity(edges.len());
        for edge in edges {
            let same = self.nodes.is_reference(edge.b)
                && self.nodes.image(edge.a)?.sha256 == self.nodes.image(edge.b)?.sha256;
            match same {
                true => self.add(edge, Kind::SameFile, None),
                false => others.push(edge),
            }
        }
        Ok(others)
    }

    /// Pairs whose pixels were looked at, by rows.
    pub(super) fn pairs(&self) -> Result<Vec<Pair>> {
        let member = |node: u32| Ok(self.nodes.member(self.nodes.image(node)?));
        let mut pairs = Vec::new();
        for (&(a, b), &(similarity, kind, evidence)) in &self.links {
            if !matches!(kind, Kind::SameFile | Kind::Similar) {
                let (a, b): (Result<Member>, Result<Member>) = (member(a), member(b));
                pairs.push(Pair { a: a?, b: b?, similarity, kind, evidence });
            }
        }
        Ok(pairs)
    }

    pub(super) fn groups(&self) -> Result<Vec<Group>> {
        let linking = |&(_, kind, _): &Link| kind != Kind::SameSubject;
        let edges: Vec<Edge> = self
            .links
            .iter()
            .filter(|(_, link)| linking(link))
            .map(|(&(a, b), &(similarity, ..))| Edge { a, b, similarity })
            .collect();
        let grouped: Vec<Vec<Group>> =
            components(&edges).par_iter().map(|found| self.group(found)).collect::<Result<_>>()?;
        Ok(grouped.into_iter().flatten().collect())
    }

    /// The link between two images; what holds for a file holds for its equals.
    fn link(&self, a: u32, b: u32) -> Option<Link> {
        let twin = |node: u32| self.twins.get(&node).copied().unwrap_or(node);
        let (a, b) = (twin(a), twin(b));
        if a == b {
            return Some((1.0, Kind::SameFile, None));
        }
        let link = self.links.get(&(a.min(b), a.max(b))).copied();
        link.filter(|(_, kind, _)| *kind != Kind::SameSubject)
    }

    fn stays(&self, node: u32) -> bool {
        self.nodes.is_reference(node) || self.options.protected.contains(node)
    }

    fn group(&self, found: &Component) -> Result<Vec<Group>> {
        let images: Vec<Candidate> =
            found.members.iter().map(|&node| self.nodes.image(node)).collect::<Result<_>>()?;
        let apart = !self.options.not_duplicates.is_empty() && self.holds_non_duplicates(&images);
        if self.options.grouping == Grouping::Medoid || apart {
            return self.around_medoids(images);
        }
        let protected = images.iter().map(|image| image.row).filter(|&row| self.stays(row));
        let protected = protected.collect();
        let Some(first) = representative(self.options.keep, &images, &protected) else {
            return Ok(Vec::new());
        };
        let group = self.made(first, images, found)?;
        Ok(group.into_iter().collect())
    }

    /// Whether two members are remembered as no duplicates: a chain must not make them so.
    fn holds_non_duplicates(&self, images: &[Candidate]) -> bool {
        let pairs = &self.options.not_duplicates;
        images
            .iter()
            .enumerate()
            .any(|(i, a)| images[..i].iter().any(|b| pairs.contains(&a.sha256, &b.sha256)))
    }

    /// The best image takes those linked with it, then the best of the rest, and so on.
    fn around_medoids(&self, mut images: Vec<Candidate>) -> Result<Vec<Group>> {
        let keep = self.options.keep;
        images.sort_by(|a, b| {
            let stays = |image: &Candidate| std::cmp::Reverse(self.stays(image.row));
            stays(a).cmp(&stays(b)).then_with(|| keep.compare(a, b))
        });
        let mut groups = Vec::new();
        while !images.is_empty() {
            let first = images.remove(0);
            let mut members = vec![first.clone()];
            let mut weakest = f32::INFINITY;
            images.retain(|image| {
                let link = self.link(first.row, image.row).filter(|_| !self.stays(image.row));
                if let Some((similarity, ..)) = link {
                    weakest = weakest.min(similarity);
                    members.push(image.clone());
                }
                link.is_none()
            });
            if members.len() > 1 {
                members.sort_by_key(|image| image.row);
                let rows = members.iter().map(|image| image.row).collect();
                let chain = Component { members: rows, weakest, chain: 1, chain_is_exact: true };
                groups.extend(self.made(first.row, members, &chain)?);
            }
        }
        groups.sort_by_key(|group: &Group| {
            group.dropped.iter().map(|dropped| dropped.member.image.row).min()
        });
        Ok(groups)
    }

    /// The group of these images that keeps `first`; none when nothing would go.
    fn made(&self, first: u32, images: Vec<Candidate>, found: &Component) -> Result<Option<Group>> {
        let own = self.nodes.vector(first)?;
        let mut vectors = vec![own.clone()];
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        let chained = OnceCell::new();
        for image in images {
            let node = image.row;
            if node == first {
                kept.insert(0, self.nodes.member(image));
                continue;
            }
            let vector = self.nodes.vector(node)?;
            let similarity = dot(&own, &vector);
            vectors.push(vector);
            if self.stays(node) {
                kept.push(self.nodes.member(image));
                continue;
            }
            let link = self.link(first, node);
            let kind = match link {
                Some((_, kind, _)) => kind,
                None => *chained.get_or_init(|| self.weakest_kind(&found.members)),
            };
            let evidence = link.and_then(|(.., evidence)| evidence);
            let (member, direct) = (self.nodes.member(image), link.is_some());
            dropped.push(Dropped { member, similarity, kind, direct, evidence });
        }
        let Component { weakest, chain, chain_is_exact, .. } = *found;
        let group =
            Group { kept, dropped, weakest, chain, chain_is_exact, spread: spread(&vectors) };
        Ok((!group.dropped.is_empty()).then_some(group))
    }

    /// The least certain kind of link within a component: what a chain amounts to.
    fn weakest_kind(&self, members: &[u32]) -> Kind {
        let linked = |node: &u32| self.links.range((*node, 0)..=(*node, u32::MAX));
        let kinds = members.iter().flat_map(linked).map(|(_, (_, kind, _))| *kind);
        kinds.filter(|kind| *kind != Kind::SameSubject).max().unwrap_or(Kind::Similar)
    }
}

/// The spread of rows of a view.
///
/// # Errors
/// A row on disk is damaged.
pub fn spread_of_rows(view: &View, rows: &[u32]) -> Result<Spread> {
    let vector = |&row: &u32| view.vector(row, view.id_of(row)?);
    Ok(spread(&rows.iter().map(vector).collect::<Result<Vec<_>>>()?))
}
