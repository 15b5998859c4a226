//! Deduplication against excluded sets: what is like an image of theirs must not be in the result.

use std::collections::{BTreeMap, BTreeSet};

use super::duplicates::{Groups, in_component, members};
use super::{Inputs, State, relative_threshold};
use crate::curate::config::{RelativeDedup, Spread};
use crate::curate::output::{Dropped, Leak, Reference, Rule, SetRef, StepOutput};
use crate::dedup::{Keep, Method, Wanted, neighbours};
use crate::error::Result;

pub(super) fn run(
    config: &RelativeDedup,
    inputs: &Inputs<'_>,
    state: &State,
) -> Result<StepOutput> {
    let Inputs { pool, excluded, .. } = inputs;
    let threshold = config.threshold.unwrap_or_else(|| relative_threshold(pool.view().manifest()));
    let mut output = StepOutput { threshold: Some(threshold), ..StepOutput::default() };
    if excluded.is_empty() {
        return Ok(output);
    }
    output.leaks = nearest_excluded(inputs)?;
    let leak = |item: u32| -> Option<&Leak> {
        let at = output.leaks.binary_search_by_key(&item, |leak| leak.item).ok()?;
        Some(&output.leaks[at]).filter(|leak| leak.similarity >= threshold)
    };
    let dropped = |item: u32, rule: Rule, leak: &Leak| Dropped {
        item,
        rule,
        because: Some(Reference { set: SetRef::Excluded(leak.set), id: leak.id }),
        similarity: (rule == Rule::Leak).then_some(leak.similarity),
    };
    let mut gone: BTreeMap<u32, Dropped> = state
        .alive
        .iter()
        .filter_map(|&item| Some((item, dropped(item, Rule::Leak, leak(item)?))))
        .collect();
    let direct = gone.len();
    if config.spread == Spread::Duplicates {
        let mut worst: BTreeMap<u32, &Leak> = BTreeMap::new();
        for (&item, &group) in &state.duplicates {
            let Some(leak) = leak(item) else { continue };
            let found = worst.entry(group).or_insert(leak);
            if leak.similarity > found.similarity {
                *found = leak;
            }
        }
        for &item in &state.alive {
            if let Some(leak) = state.duplicates.get(&item).and_then(|group| worst.get(group)) {
                gone.entry(item).or_insert_with(|| dropped(item, Rule::LeakByComponent, leak));
            }
        }
    }
    if config.spread == Spread::Component && direct > 0 {
        let groups =
            Groups { k: config.k, threshold, keep: Keep::default(), protected: &BTreeSet::new() };
        for group in groups.find(&state.alive, inputs)?.groups {
            let members = members(pool, &group);
            let touching = members.iter().filter_map(|&item| leak(item));
            let Some(worst) = touching.max_by(|a, b| {
                // Of several as similar, the first.
                a.similarity.total_cmp(&b.similarity).then(b.item.cmp(&a.item))
            }) else {
                continue;
            };
            output.components.extend(in_component(pool, &group));
            for item in members {
                gone.entry(item).or_insert_with(|| dropped(item, Rule::LeakByComponent, worst));
            }
        }
    }
    output.components.sort_unstable();
    let figures = [("leaks", direct), ("leaks_by_component", gone.len() - direct)];
    output.figures.extend(figures.map(|(name, count)| (name.to_owned(), count as f64)));
    output.dropped = gone.into_values().collect();
    Ok(output)
}

/// For every pool image, dropped or not, the excluded image most like it, found by comparing all:
/// review must know of leaks among what earlier steps dropped.
fn nearest_excluded(inputs: &Inputs<'_>) -> Result<Vec<Leak>> {
    let Inputs { pool, excluded, .. } = inputs;
    let mut nearest: Vec<Option<Leak>> = vec![None; pool.images().len()];
    let wanted = Wanted { k: 1, floor: f32::NEG_INFINITY, method: Method::Exact };
    let items: BTreeMap<u32, u32> =
        pool.images().iter().enumerate().map(|(item, image)| (image.row, item as u32)).collect();
    // The same file is a leak whatever its stored vector was rounded to.
    let mut files: BTreeMap<[u8; 32], Leak> = BTreeMap::new();
    for (number, set) in excluded.iter().enumerate() {
        for image in set.images() {
            files.entry(image.sha256).or_insert(Leak {
                item: 0,
                set: number as u32,
                id: image.id,
                similarity: 1.0,
            });
        }
        let others = Some((set.view(), None));
        let graph = neighbours((pool.view(), None), others, wanted, &|_| {}, inputs.cancel)?;
        for (row, near) in graph.iter() {
            let (Some(&item), Some(&(other, similarity))) = (items.get(&row), near.first()) else {
                continue;
            };
            let best = &mut nearest[item as usize];
            if best.is_none_or(|best| similarity > best.similarity) {
                let id = set.view().id_of(other)?;
                *best = Some(Leak { item, set: number as u32, id, similarity });
            }
        }
    }
    for (item, image) in pool.images().iter().enumerate() {
        if let Some(leak) = files.get(&image.sha256) {
            nearest[item] = Some(Leak { item: item as u32, ..*leak });
        }
    }
    Ok(nearest.into_iter().flatten().collect())
}
