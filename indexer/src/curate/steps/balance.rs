//! Steps that thin out what there is too much of.

use std::sync::atomic::AtomicBool;

use super::{Inputs, State, seed_for, self_threshold};
use crate::curate::config::{Balance, SemDedup};
use crate::curate::hierarchical::{Hierarchy, root};
use crate::curate::kmeans::{KMeans, Start};
use crate::curate::output::{Dropped, Reference, Rule, SetRef, StepOutput};
use crate::curate::sets::{ImageSet, Points};
use crate::curate::similar::{Match, scan};
use crate::error::Result;

/// SemDeDup: in each cluster, of two images more alike than the threshold, the one nearer to the
/// centroid goes. As published, an image that goes still counts against those after it.
pub(super) fn sem_dedup(
    config: &SemDedup,
    inputs: &Inputs<'_>,
    state: &State,
) -> Result<StepOutput> {
    let Inputs { pool, cancel, .. } = inputs;
    let threshold = config.threshold.unwrap_or_else(|| self_threshold(pool.view().manifest()));
    let mut output = StepOutput { threshold: Some(threshold), ..StepOutput::default() };
    if state.alive.is_empty() {
        return Ok(output);
    }
    let points = pool.subset(&state.alive);
    let kmeans = KMeans {
        clusters: config.clusters.unwrap_or_else(|| root(state.alive.len())),
        iterations: config.iterations,
        start: Start::Careful,
        seed: seed_for(inputs.random_seed, "sem-dedup"),
    };
    let found = kmeans.run(&points, cancel)?;
    for (cluster, mut members) in found.members().into_iter().enumerate() {
        let similarity = |&member: &u32| found.assigned[member as usize].similarity;
        members.sort_by(|a, b| similarity(a).total_cmp(&similarity(b)).then(a.cmp(b)));
        let items: Vec<u32> = members.iter().map(|&member| state.alive[member as usize]).collect();
        output.clusters.extend(items.iter().map(|&item| (item, cluster as u32)));
        for (item, Match { number, similarity }) in most_alike_before(pool, &items, cancel)? {
            if similarity > threshold {
                let kept = items[number as usize];
                let id = pool.images()[kept as usize].id;
                output.dropped.push(Dropped {
                    item,
                    rule: Rule::SemanticDuplicate,
                    because: Some(Reference { set: SetRef::Pool, id }),
                    similarity: Some(similarity),
                });
            }
        }
    }
    output.dropped.sort_by_key(|dropped| dropped.item);
    output.clusters.sort_unstable();
    output.figures.insert("clusters".to_owned(), found.centroids.len() as f64);
    output.figures.extend(found.objective.last().map(|&last| ("objective".to_owned(), last)));
    Ok(output)
}

/// For each image, the most similar of those before it.
fn most_alike_before(
    pool: &ImageSet,
    items: &[u32],
    cancel: &AtomicBool,
) -> Result<impl Iterator<Item = (u32, Match)>> {
    let points = pool.subset(items);
    let none = Match { number: 0, similarity: f32::NEG_INFINITY };
    let visit = |best: &mut Match, (query, from): (usize, usize), scores: &[f32]| {
        let before = query.saturating_sub(from).min(scores.len());
        best.take_better(from, &scores[..before]);
    };
    let found = scan((&points, &points), none, &visit, cancel)?;
    Ok(items.iter().copied().zip(found))
}

/// Draws evenly over a hierarchy of clusters.
pub(super) fn balance(config: &Balance, inputs: &Inputs<'_>, state: &State) -> Result<StepOutput> {
    let Inputs { pool, cancel, .. } = inputs;
    let mut output = StepOutput::default();
    if state.alive.len() <= config.target {
        return Ok(output);
    }
    let points = pool.subset(&state.alive);
    let seed = seed_for(inputs.random_seed, "balance");
    let hierarchy = Hierarchy::new(&points, config, seed, cancel)?;
    let drawn = hierarchy.sample(config.target, config.draw, seed_for(seed, "draw"));
    let Some(finest) = hierarchy.levels.first() else { return Ok(output) };
    let mut sizes = vec![[0usize; 2]; finest.centroids.len()];
    let mut stays = drawn.into_iter().peekable();
    for (number, (&item, assigned)) in state.alive.iter().zip(&finest.assigned).enumerate() {
        let size = &mut sizes[assigned.number as usize];
        size[0] += 1;
        output.clusters.push((item, assigned.number));
        if stays.next_if_eq(&(number as u32)).is_some() {
            size[1] += 1;
        } else {
            output.dropped.push(Dropped {
                item,
                rule: Rule::Balanced,
                because: None,
                similarity: None,
            });
        }
    }
    for (when, name) in ["largest_to_mean_before", "largest_to_mean_after"].iter().enumerate() {
        let of = sizes.iter().map(|size| size[when]);
        let mean = of.clone().sum::<usize>() as f64 / sizes.len() as f64;
        let ratio = of.max().unwrap_or(0) as f64 / mean.max(f64::MIN_POSITIVE);
        output.figures.insert((*name).to_owned(), ratio);
    }
    output.figures.insert("levels".to_owned(), hierarchy.levels.len() as f64);
    output.figures.insert("clusters".to_owned(), points.len().min(sizes.len()) as f64);
    Ok(output)
}
