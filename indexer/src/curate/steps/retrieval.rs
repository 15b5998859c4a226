//! Retrieval: pool images that are like seed images.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

use super::{Inputs, State, seed_for};
use crate::curate::config::{Method, Retrieve};
use crate::curate::hierarchical::root;
use crate::curate::kmeans::{Clusters, KMeans, Start, draw};
use crate::curate::output::{Dropped, Pick, Reference, Retrieved, Rule, SetRef, StepOutput};
use crate::curate::sets::{ImageSet, Points, SetImage};
use crate::curate::similar::nearest;
use crate::dedup::{self, Wanted, neighbours};
use crate::error::Result;
use crate::random::SplitMix64;

/// Clusters of the pool at most, as published.
const MOST_CLUSTERS: usize = 100_000;
/// Up to so many pairs, what is not retrieved is told which seed image it is nearest to.
const EXPLAINED_PAIRS: u64 = 4_000_000_000;

pub(super) fn run(config: &Retrieve, inputs: &Inputs<'_>, state: &State) -> Result<StepOutput> {
    let mut output = StepOutput::default();
    let retrieval = Retrieval { config, inputs, alive: &state.alive };
    let clusters = match config.method {
        Method::Cluster if !state.alive.is_empty() => Some(retrieval.cluster_pool()?),
        Method::Cluster | Method::Sample => None,
    };
    if let Some(clusters) = &clusters {
        let numbers = clusters.assigned.iter().map(|assigned| assigned.number);
        output.clusters = state.alive.iter().copied().zip(numbers).collect();
        output.figures.insert("clusters".to_owned(), clusters.centroids.len() as f64);
        output.figures.extend(clusters.objective.last().map(|&o| ("objective".to_owned(), o)));
        output.figures.insert("passes".to_owned(), clusters.objective.len() as f64);
        output.figures.insert("reseeded".to_owned(), clusters.reseeded as f64);
    }
    let mut over = BTreeMap::new();
    for (number, seeds) in inputs.seeds.iter().enumerate() {
        let found = match &clusters {
            Some(clusters) => retrieval.draw(number as u32, seeds, clusters)?,
            None => retrieval.sample(number as u32, seeds)?,
        };
        output.picks.extend(found.picks);
        output.retrieved.push(found.counts);
        for (item, reason) in found.over {
            over.entry(item).or_insert(reason);
        }
    }
    output.picks.sort_by_key(|pick| (pick.item, pick.set));
    let picked: BTreeSet<u32> = output.picks.iter().map(|pick| pick.item).collect();
    let rest: Vec<u32> =
        state.alive.iter().copied().filter(|item| !picked.contains(item)).collect();
    let nearest = retrieval.nearest_seeds(&rest)?;
    let dropped = |item: u32| {
        let reason = over.get(&item).or(nearest.get(&item));
        Dropped {
            item,
            rule: if over.contains_key(&item) { Rule::OverCap } else { Rule::NotRetrieved },
            because: reason.map(|reason| reason.0),
            similarity: reason.map(|reason| reason.1),
        }
    };
    output.dropped = rest.into_iter().map(dropped).collect();
    Ok(output)
}

struct Retrieval<'a> {
    config: &'a Retrieve,
    inputs: &'a Inputs<'a>,
    alive: &'a [u32],
}

/// What was found for one seed set.
struct Found {
    picks: Vec<Pick>,
    /// Found, but over a limit: the seed image and the similarity with it.
    over: Vec<(u32, Reason)>,
    counts: Retrieved,
}

type Reason = (Reference, f32);

impl Found {
    fn new(picks: Vec<Pick>, over: Vec<Pick>, counts: Retrieved) -> Self {
        let reason = |pick: Pick| {
            let seed = Reference { set: SetRef::Seeds(pick.set), id: pick.seed };
            (pick.item, (seed, pick.similarity))
        };
        let over = over.into_iter().map(reason).collect();
        let counts = Retrieved { retrieved: picks.len(), ..counts };
        Self { picks, over, counts }
    }
}

impl Retrieval<'_> {
    /// Pool images with the content of a seed image: in, and no neighbours of that set.
    fn seeds_in_pool(&self, set: u32, seeds: &ImageSet) -> Vec<Pick> {
        let by_content: BTreeMap<[u8; 32], _> =
            seeds.images().iter().rev().map(|image| (image.sha256, image.id)).collect();
        let pick = |&item: &u32| {
            let seed = *by_content.get(&self.image(item).sha256)?;
            Some(Pick { item, set, rule: Rule::IsSeed, seed, rank: None, similarity: 1.0 })
        };
        self.alive.iter().filter_map(pick).collect()
    }

    fn image(&self, item: u32) -> &SetImage {
        &self.inputs.pool.images()[item as usize]
    }

    fn counts(&self, seeds: &ImageSet, method: &str) -> Retrieved {
        Retrieved {
            seeds: seeds.name().to_owned(),
            images: seeds.images().len(),
            method: method.to_owned(),
            ..Retrieved::default()
        }
    }

    /// The nearest pool images of every seed image; of several seed images that have the same one,
    /// the most similar counts.
    fn sample(&self, set: u32, seeds: &ImageSet) -> Result<Found> {
        let mut picks = self.seeds_in_pool(set, seeds);
        let are_seeds: BTreeSet<u32> = picks.iter().map(|pick| pick.item).collect();
        let others = self.alive.iter().filter(|item| !are_seeds.contains(item));
        let by_row: BTreeMap<u32, u32> = others.map(|&i| (self.image(i).row, i)).collect();
        let rows: RoaringBitmap = by_row.keys().copied().collect();
        let gallery = Some((self.inputs.pool.view(), Some(&rows)));
        let wanted =
            Wanted { k: self.config.k, floor: f32::NEG_INFINITY, method: dedup::Method::Auto };
        let graph = neighbours((seeds.view(), None), gallery, wanted, &|_| {}, self.inputs.cancel)?;
        let mut counts = self.counts(seeds, "sample");
        let mut best: BTreeMap<u32, Pick> = BTreeMap::new();
        for seed in seeds.images() {
            for (rank, &(row, similarity)) in graph.of(seed.row).iter().enumerate() {
                let Some(&item) = by_row.get(&row) else { continue };
                counts.found += 1;
                let rank = Some(rank as u32 + 1);
                let rule = Rule::Neighbour;
                let pick = Pick { item, set, rule, seed: seed.id, rank, similarity };
                match best.get(&item) {
                    Some(other) if other.similarity >= similarity => {}
                    _ => {
                        best.insert(item, pick);
                    }
                }
            }
        }
        counts.collisions = counts.found - best.len();
        let mut best: Vec<Pick> = best.into_values().collect();
        best.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.item.cmp(&b.item)));
        let over = best.split_off(best.len().min(self.config.cap));
        picks.extend(best);
        Ok(Found::new(picks, over, counts))
    }

    fn cluster_pool(&self) -> Result<Clusters> {
        let count = self.alive.len();
        let kmeans = KMeans {
            clusters: self.config.clusters.unwrap_or_else(|| root(count).min(MOST_CLUSTERS)),
            iterations: self.config.iterations,
            start: Start::Careful,
            seed: seed_for(self.inputs.random_seed, "retrieve"),
        };
        kmeans.run(&self.inputs.pool.subset(self.alive), self.inputs.cancel)
    }

    /// Images by lot from the clusters that enough seed images fall into.
    fn draw(&self, set: u32, seeds: &ImageSet, clusters: &Clusters) -> Result<Found> {
        let Inputs { pool, cancel, .. } = self.inputs;
        let mut picks = self.seeds_in_pool(set, seeds);
        let are_seeds: BTreeSet<u32> = picks.iter().map(|pick| pick.item).collect();
        let mut seeds_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let assigned = nearest(&seeds.points(), &clusters.centroids, cancel)?;
        for (seed, assigned) in assigned.iter().enumerate() {
            seeds_of.entry(assigned.number).or_default().push(seed as u32);
        }
        seeds_of.retain(|_, seeds| seeds.len() > self.config.min_seeds);

        let mut counts = self.counts(seeds, "cluster");
        counts.clusters = seeds_of.len();
        let mut members = clusters.members();
        let mut drawn = Vec::new();
        let mut over = Vec::new();
        for (&cluster, seed_numbers) in &seeds_of {
            let numbers = std::mem::take(&mut members[cluster as usize]);
            let items = numbers.into_iter().map(|number| self.alive[number as usize]);
            let items: Vec<u32> = items.filter(|item| !are_seeds.contains(item)).collect();
            counts.found += items.len();
            let near = nearest(&pool.subset(&items), &seeds.subset(seed_numbers), cancel)?;
            let what = format!("draw {} {cluster}", seeds.name());
            let mut random = SplitMix64(seed_for(self.inputs.random_seed, &what));
            let chosen = draw(items.len(), self.config.per_cluster, &mut random);
            for (number, (item, near)) in items.into_iter().zip(near).enumerate() {
                let seed = seeds.images()[seed_numbers[near.number as usize] as usize].id;
                let (rule, rank, similarity) = (Rule::Drawn, None, near.similarity);
                let pick = Pick { item, set, rule, seed, rank, similarity };
                match chosen.binary_search(&(number as u32)) {
                    Ok(_) => drawn.push(pick),
                    Err(_) => over.push(pick),
                }
            }
        }
        let what = format!("cap {}", seeds.name());
        let mut random = SplitMix64(seed_for(self.inputs.random_seed, &what));
        let chosen = draw(drawn.len(), self.config.cap, &mut random);
        for (number, pick) in drawn.into_iter().enumerate() {
            match chosen.binary_search(&(number as u32)) {
                Ok(_) => picks.push(pick),
                Err(_) => over.push(pick),
            }
        }
        Ok(Found::new(picks, over, counts))
    }

    /// The seed image nearest to each of some items, of any set; none when that would take long.
    fn nearest_seeds(&self, items: &[u32]) -> Result<BTreeMap<u32, Reason>> {
        let Inputs { pool, seeds, cancel, .. } = self.inputs;
        let images: usize = seeds.iter().map(|set| set.images().len()).sum();
        let mut found: BTreeMap<u32, Reason> = BTreeMap::new();
        if images as u64 * items.len() as u64 > EXPLAINED_PAIRS {
            return Ok(found);
        }
        for (number, set) in seeds.iter().enumerate().filter(|(_, set)| !set.images().is_empty()) {
            let near = nearest(&pool.subset(items), &set.points(), cancel)?;
            for (&item, near) in items.iter().zip(near) {
                let id = set.images()[near.number as usize].id;
                let reason = (Reference { set: SetRef::Seeds(number as u32), id }, near.similarity);
                match found.get(&item) {
                    Some(other) if other.1 >= near.similarity => {}
                    _ => {
                        found.insert(item, reason);
                    }
                }
            }
        }
        Ok(found)
    }
}
