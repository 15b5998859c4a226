//! Self-deduplication: of every group of near-duplicates in the pool, one image stays.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

use super::{Inputs, State, self_threshold};
use crate::curate::config::SelfDedup;
use crate::curate::output::{Dropped, Reference, Rule, SetRef, StepOutput};
use crate::curate::sets::ImageSet;
use crate::dedup::{self, Candidate, Edge, Keep, Method, Wanted, components, neighbours};
use crate::error::Result;

pub(super) fn run(config: &SelfDedup, inputs: &Inputs<'_>, state: &State) -> Result<StepOutput> {
    let Inputs { pool, .. } = inputs;
    let threshold = config.threshold.unwrap_or_else(|| self_threshold(pool.view().manifest()));
    let groups = groups(pool, &state.alive, config.k, threshold, inputs)?;
    let seeds: BTreeSet<[u8; 32]> = inputs.seeds.iter().flat_map(ImageSet::contents).collect();
    let mut output = StepOutput { threshold: Some(threshold), ..StepOutput::default() };
    for members in &groups.members {
        let Some(&first) = members.first() else { continue };
        let kept = representative(config.keep, pool, members, &seeds)?;
        let image = |item: u32| &pool.images()[item as usize];
        output.components.extend(members.iter().map(|&member| (member, first)));
        for &item in members.iter().filter(|&&item| item != kept) {
            let same = image(item).sha256 == image(kept).sha256;
            let vectors = pool.view().vectors([image(item).row, image(kept).row].into_iter())?;
            let (a, b) = vectors.split_at(vectors.len() / 2);
            output.dropped.push(Dropped {
                item,
                rule: if same { Rule::SameFile } else { Rule::NearDuplicate },
                because: Some(Reference { set: SetRef::Pool, id: image(kept).id }),
                similarity: Some(engine::kernels::dot(a, b)),
            });
        }
    }
    output.dropped.sort_by_key(|dropped| dropped.item);
    output.components.sort_unstable();
    let figures = [
        ("groups", groups.members.len() as f64),
        ("largest_group", groups.members.iter().map(Vec::len).max().unwrap_or(0) as f64),
        ("longest_chain", groups.longest_chain as f64),
        ("weakest_link", f64::from(groups.weakest_link)),
    ];
    output.figures.extend(figures.map(|(name, value)| (name.to_owned(), value)));
    Ok(output)
}

/// Images that hang together.
pub(super) struct Groups {
    /// Positions in the pool, ascending; at least two each.
    pub(super) members: Vec<Vec<u32>>,
    pub(super) longest_chain: usize,
    pub(super) weakest_link: f32,
}

/// Connected components of some pool images by pairs of the same file, and pairs at or above a
/// threshold.
pub(super) fn groups(
    pool: &ImageSet,
    items: &[u32],
    k: usize,
    threshold: f32,
    inputs: &Inputs<'_>,
) -> Result<Groups> {
    let row = |item: u32| pool.images()[item as usize].row;
    let rows: RoaringBitmap = items.iter().map(|&item| row(item)).collect();
    let wanted = Wanted { k, floor: threshold, method: Method::Auto };
    let graph = neighbours((pool.view(), Some(&rows)), None, wanted, &|_| {}, inputs.cancel)?;
    let mut edges = graph.edges(threshold);
    // More copies of one file than an image has neighbours would fall apart.
    let mut files: BTreeMap<[u8; 32], u32> = BTreeMap::new();
    for &item in items {
        let image = &pool.images()[item as usize];
        match files.get(&image.sha256) {
            Some(&first) => edges.push(Edge::new(first, image.row, 1.0)),
            None => {
                files.insert(image.sha256, image.row);
            }
        }
    }
    let by_row: BTreeMap<u32, u32> = items.iter().map(|&item| (row(item), item)).collect();
    let found = components(&edges);
    let mut members: Vec<Vec<u32>> = found
        .iter()
        .map(|component| {
            let rows = component.members.iter();
            let mut items: Vec<u32> = rows.filter_map(|row| by_row.get(row).copied()).collect();
            items.sort_unstable();
            items
        })
        .collect();
    members.sort_unstable();
    Ok(Groups {
        members,
        longest_chain: found.iter().map(|component| component.chain).max().unwrap_or(0),
        weakest_link: found.iter().map(|component| component.weakest).fold(1.0, f32::min),
    })
}

/// The member that stays: a seed image before all others, then by policy.
fn representative(
    keep: Keep,
    pool: &ImageSet,
    members: &[u32],
    seeds: &BTreeSet<[u8; 32]>,
) -> Result<u32> {
    let images = || members.iter().map(|&item| &pool.images()[item as usize]);
    let candidates: Vec<Candidate> = images()
        .map(|image| Ok(Candidate::new(image.row, image.id, pool.record(image.id)?)))
        .collect::<Result<_>>()?;
    let protected = images().filter(|image| seeds.contains(&image.sha256)).map(|image| image.row);
    let row = dedup::representative(keep, &candidates, &protected.collect());
    let of_row = members.iter().zip(images()).find(|(_, image)| Some(image.row) == row);
    Ok(of_row.map_or(members[0], |(&item, _)| item))
}
