//! What is left after the steps so far, and one step applied to it.

mod balance;
mod duplicates;
mod leaks;
mod retrieval;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::config::{CurateConfig, RELATIVE_THRESHOLD, SELF_THRESHOLD, SelfDedup, SemDedup, Step};
use super::output::{Pick, StepOutput};
use super::sets::ImageSet;
use crate::dedup;
use crate::error::Result;
use crate::manifest::Manifest;

/// Everything a step reads.
pub(crate) struct Inputs<'a> {
    pub(crate) pool: &'a ImageSet,
    pub(crate) seeds: &'a [ImageSet],
    pub(crate) excluded: &'a [ImageSet],
    pub(crate) random_seed: u64,
    pub(crate) cancel: &'a AtomicBool,
}

/// What is left.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Positions of pool images that are still in, ascending.
    pub(crate) alive: Vec<u32>,
    /// What seed sets retrieved, by item and set; `None` before retrieval.
    pub(crate) picks: Option<Vec<Pick>>,
    /// Groups of duplicates by self-deduplication, those that went too: item to group.
    pub(crate) duplicates: BTreeMap<u32, u32>,
}

impl State {
    pub(crate) fn new(pool: &ImageSet) -> Self {
        Self {
            alive: (0..pool.images().len() as u32).collect(),
            picks: None,
            duplicates: BTreeMap::new(),
        }
    }

    /// Applies what a step said.
    pub(crate) fn apply(&mut self, step: &Step, output: &StepOutput) {
        let gone = |item: &u32| output.dropped.binary_search_by_key(item, |d| d.item).is_ok();
        self.alive.retain(|item| !gone(item));
        if matches!(step, Step::SelfDedup(_)) {
            self.duplicates.extend(output.components.iter().copied());
        }
        if matches!(step, Step::Retrieve(_)) {
            self.picks = Some(output.picks.clone());
        } else if let Some(picks) = &mut self.picks {
            picks.retain(|pick| !gone(&pick.item));
        }
    }
}

/// Runs one step.
pub(crate) fn run(step: &Step, inputs: &Inputs<'_>, state: &State) -> Result<StepOutput> {
    match step {
        Step::SelfDedup(config) => duplicates::run(config, inputs, state),
        Step::RelativeDedup(config) => leaks::run(config, inputs, state),
        Step::Retrieve(config) => retrieval::run(config, inputs, state),
        Step::SemDedup(config) => balance::sem_dedup(config, inputs, state),
        Step::Balance(config) => balance::balance(config, inputs, state),
    }
}

/// Digests of the sets a step reads, by name: a change in others does not concern it.
pub(crate) fn reads(step: &Step, inputs: &Inputs<'_>) -> BTreeMap<String, String> {
    let named = |kind: &str, sets: &[ImageSet]| -> Vec<(String, String)> {
        let one =
            |(i, set): (usize, &ImageSet)| (format!("{kind} {i} {}", set.name()), set.digest());
        sets.iter().enumerate().map(one).collect()
    };
    let mut reads = BTreeMap::from([("pool".to_owned(), inputs.pool.digest())]);
    match step {
        // Which copy stays depends on the seeds: a seed image does.
        Step::SelfDedup(_) | Step::Retrieve(_) => reads.extend(named("seeds", inputs.seeds)),
        Step::RelativeDedup(_) => reads.extend(named("excluded", inputs.excluded)),
        Step::SemDedup(_) | Step::Balance(_) => {}
    }
    reads
}

/// From what similarity on two pool images are near-duplicates, where nobody says: as measured for
/// the model, else the published threshold, scaled.
pub(super) fn self_threshold(manifest: &Manifest) -> f32 {
    let measured = dedup::thresholds(&manifest.model);
    measured.map_or_else(|| scaled(SELF_THRESHOLD, manifest), |measured| measured.alone)
}

/// From what similarity on a pool image is like an excluded one, where nobody says: few copies are
/// less similar.
pub(super) fn relative_threshold(manifest: &Manifest) -> f32 {
    let measured = dedup::thresholds(&manifest.model);
    measured.map_or_else(|| scaled(RELATIVE_THRESHOLD, manifest), |measured| measured.candidates)
}

/// A threshold published for embeddings whose unrelated pairs have similarity near 0, for this
/// collection: 0 becomes the similarity that 99.9 % of random pairs stay below, 1 stays 1.
fn scaled(published: f32, manifest: &Manifest) -> f32 {
    let quantiles = &manifest.background;
    let at = quantiles.len().saturating_sub(2);
    let unrelated = quantiles.get(at).copied().unwrap_or(0.0).clamp(0.0, 1.0);
    unrelated + published * (1.0 - unrelated)
}

/// A seed of its own for each use, from the run's.
pub(crate) fn seed_for(random_seed: u64, what: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(random_seed.to_le_bytes());
    hash.update(what.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk::<8>().map_or(random_seed, |bytes| u64::from_le_bytes(*bytes))
}

/// The parameters a step runs with, thresholds that follow from the model included: what it does
/// changes exactly when these or what it reads do.
pub(crate) fn parameters(step: &Step, config: &CurateConfig, pool: &Manifest) -> Value {
    let threshold = match step {
        Step::SelfDedup(SelfDedup { threshold, .. })
        | Step::SemDedup(SemDedup { threshold, .. }) => {
            Some(threshold.unwrap_or_else(|| self_threshold(pool)))
        }
        Step::RelativeDedup(step) => {
            Some(step.threshold.unwrap_or_else(|| relative_threshold(pool)))
        }
        Step::Retrieve(_) | Step::Balance(_) => None,
    };
    let random_seed = match step {
        Step::SelfDedup(_) | Step::RelativeDedup(_) => None,
        Step::Retrieve(_) | Step::SemDedup(_) | Step::Balance(_) => Some(config.random_seed),
    };
    json!({"parameters": step, "threshold": threshold, "random_seed": random_seed})
}
