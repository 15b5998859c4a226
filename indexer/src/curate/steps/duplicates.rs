//! Self-deduplication: of every group of near-duplicates in the pool, one image stays.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

use super::{Inputs, State, self_threshold};
use crate::curate::config::SelfDedup;
use crate::curate::output::{Dropped, Reference, Rule, SetRef, StepOutput};
use crate::curate::sets::ImageSet;
use crate::dedup::{self, DedupOptions, DedupReport, Group, Keep, Kind, Originals};
use crate::error::Result;

pub(super) fn run(config: &SelfDedup, inputs: &Inputs<'_>, state: &State) -> Result<StepOutput> {
    let Inputs { pool, .. } = inputs;
    let threshold = config.threshold.unwrap_or_else(|| self_threshold(pool.view().manifest()));
    let seeds: BTreeSet<[u8; 32]> = inputs.seeds.iter().flat_map(ImageSet::contents).collect();
    let report = Groups { k: config.k, threshold, keep: config.keep, protected: &seeds }
        .find(&state.alive, inputs)?;
    let mut output = StepOutput { threshold: Some(threshold), ..StepOutput::default() };
    for group in &report.groups {
        output.components.extend(in_component(pool, group));
        let because = group.kept.first().map(|kept| kept.image.id);
        for dropped in &group.dropped {
            let Some(item) = pool.position(dropped.member.image.id) else { continue };
            output.dropped.push(Dropped {
                item,
                rule: match dropped.kind {
                    Kind::SameFile => Rule::SameFile,
                    _ => Rule::NearDuplicate,
                },
                because: because.map(|id| Reference { set: SetRef::Pool, id }),
                similarity: Some(dropped.similarity),
            });
        }
    }
    output.dropped.sort_by_key(|dropped| dropped.item);
    output.components.sort_unstable();
    let groups = report.groups.iter();
    let size = |group: &Group| group.kept.len() + group.dropped.len();
    let figures = [
        ("groups", report.groups.len() as f64),
        ("largest_group", groups.clone().map(size).max().unwrap_or(0) as f64),
        ("longest_chain", groups.clone().map(|group| group.chain).max().unwrap_or(0) as f64),
        (
            "least_similar_members",
            groups.map(|group| f64::from(group.spread.lowest)).fold(1.0, f64::min),
        ),
        ("images_with_all_neighbours_over_threshold", report.truncated as f64),
    ];
    output.figures.extend(figures.map(|(name, value)| (name.to_owned(), value)));
    Ok(output)
}

/// How groups of similar pool images are found.
pub(super) struct Groups<'a> {
    pub(super) k: usize,
    pub(super) threshold: f32,
    pub(super) keep: Keep,
    /// File hashes of images that always stay.
    pub(super) protected: &'a BTreeSet<[u8; 32]>,
}

impl Groups<'_> {
    /// Groups among some pool images: connected components by equal files, and by pairs at or above
    /// the threshold.
    pub(super) fn find(&self, items: &[u32], inputs: &Inputs<'_>) -> Result<DedupReport> {
        let pool = inputs.pool;
        let images = || items.iter().map(|&item| &pool.images()[item as usize]);
        let among: RoaringBitmap = images().map(|image| image.row).collect();
        let protected = images().filter(|image| self.protected.contains(&image.sha256));
        let options = DedupOptions {
            k: self.k,
            keep: self.keep,
            among: Some(among),
            protected: protected.map(|image| image.row).collect(),
            ..DedupOptions::new(self.threshold)
        };
        let nothing = Originals::default();
        dedup::dedup(pool.view(), &options, nothing, &|_| {}, &|_| {}, inputs.cancel)
    }
}

/// The members of a group, ascending.
pub(super) fn members(pool: &ImageSet, group: &Group) -> Vec<u32> {
    let dropped = group.dropped.iter().map(|dropped| &dropped.member);
    let ids = group.kept.iter().chain(dropped).map(|member| member.image.id);
    let members: BTreeSet<u32> = ids.filter_map(|id| pool.position(id)).collect();
    members.into_iter().collect()
}

/// Each member of a group with its component's name.
pub(super) fn in_component(pool: &ImageSet, group: &Group) -> BTreeMap<u32, u32> {
    let members = members(pool, group);
    let Some(&first) = members.first() else { return BTreeMap::new() };
    members.into_iter().map(|member| (member, first)).collect()
}
