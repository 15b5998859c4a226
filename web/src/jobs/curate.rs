//! Growing a data set out of a pool.

use std::collections::BTreeSet;

use indexer::ImageId;
use indexer::curate::config::{Balance, Method, Spread};
use indexer::curate::{self, CurateConfig, CurateEvent, ImageSet, RunInfo, Sources, Step};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Context, Ended, Job, Kind};
use crate::problem::{Answer, Code, Problem};
use crate::reports::is_name;
use crate::state::AppState;

/// Sets of one kind.
const MOST_SETS: usize = 100;
/// Seed images named one by one.
const MOST_IDS: usize = 100_000;

/// What is to be grown, and out of what.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CurateBody {
    /// Name of the run.
    name: String,
    /// Collection to choose from.
    pool: String,
    /// Examples of what is wanted.
    seed: SeedsBody,
    /// What must have nothing like it in the result.
    #[serde(default)]
    exclude: Vec<SetBody>,
    /// How pool images are found for examples: `sample` (the nearest of each) or `cluster`.
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// `sample`: neighbours of each example; by default 4.
    per_seed: Option<usize>,
    /// `cluster`: clusters of the pool.
    clusters: Option<usize>,
    /// `cluster`: draw only from clusters with more examples than this.
    min_seeds: Option<usize>,
    /// `cluster`: images drawn from a cluster at most.
    per_cluster: Option<usize>,
    /// Images retrieved for each set of examples at most.
    cap: Option<usize>,
    /// Similarity from which on two pool images are duplicates.
    self_threshold: Option<f32>,
    /// Similarity with an excluded image from which on an image is dropped.
    threshold: Option<f32>,
    /// What goes with an image that is like an excluded one: `component` or `direct`.
    #[schema(value_type = Option<String>)]
    spread: Option<Spread>,
    /// Keep so many images, drawn evenly over a hierarchy of clusters.
    balance: Option<usize>,
    /// Decides what is drawn by lot.
    random_seed: Option<u64>,
    /// Make a run of this name anew, if there is one.
    #[serde(default)]
    again: bool,
}

/// One set of examples, or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SeedsBody {
    /// One.
    One(SetBody),
    /// Several, each with a quota of its own.
    Several(Vec<SetBody>),
}

/// Images of a collection.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBody {
    /// Collection.
    collection: String,
    /// Only these of its images; all without. Of excluded sets, always all.
    ids: Option<Vec<u64>>,
    /// Name that the set is reported by; that of the collection without.
    name: Option<String>,
}

impl AppState {
    /// Curates, in the background. For threads that may wait.
    ///
    /// # Errors
    /// Something named is not there or makes no sense, or the line of jobs is full.
    pub fn curate(&self, body: CurateBody) -> Answer<Job> {
        let name = &body.name;
        if !is_name(name) {
            let detail = "a run's name has 1 to 64 letters, digits, `-`, `_` or `.`, no `.` first";
            return Err(Problem::new(Code::BadRequest, detail).field("name", detail));
        }
        if self.runs.exists(name)? && !body.again {
            return Err(Problem::new(Code::Conflict, format!("there is a run `{name}` already"))
                .remedy("take another name, or send `\"again\": true` to make it anew"));
        }
        let config = body.config();
        config.check()?;
        // What is wrong with the sets is said now, not when the job's turn comes.
        self.sources(&body)?;
        let state = self.clone();
        let (pool, name) = (body.pool.clone(), body.name.clone());
        let work = move |context: &Context| run(&state, &body, &config, context);
        self.jobs.submit(Kind::Curate, &pool, Some(&name), work)
    }

    fn sources(&self, body: &CurateBody) -> Answer<Sources> {
        let seeds = match &body.seed {
            SeedsBody::One(one) => std::slice::from_ref(one),
            SeedsBody::Several(several) => several,
        };
        if seeds.len() > MOST_SETS || body.exclude.len() > MOST_SETS {
            let detail = format!("at most {MOST_SETS} sets can be named");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        if body.exclude.iter().any(|set| set.ids.is_some()) {
            let detail =
                "an excluded set is a whole collection, or an export could not be certified";
            return Err(Problem::new(Code::BadRequest, detail).field("exclude", detail));
        }
        let sets = |sets: &[SetBody]| -> Answer<Vec<ImageSet>> {
            sets.iter().map(|set| self.set(set)).collect()
        };
        let pool = self.shelf.find_or_open(&body.pool)?;
        let pool = ImageSet::new(pool.name(), pool.view())?;
        Ok(Sources { pool, seeds: sets(seeds)?, excluded: sets(&body.exclude)? })
    }

    fn set(&self, body: &SetBody) -> Answer<ImageSet> {
        let served = self.shelf.find_or_open(&body.collection)?;
        let set = ImageSet::new(body.name.as_deref().unwrap_or(served.name()), served.view())?;
        let Some(ids) = &body.ids else { return Ok(set) };
        if ids.is_empty() || ids.len() > MOST_IDS {
            let detail = format!("{} ids are named, 1 to {MOST_IDS} can be", ids.len());
            return Err(Problem::new(Code::BadRequest, detail.clone()).field("seed", detail));
        }
        let ids: BTreeSet<ImageId> = ids.iter().map(|&id| ImageId(id)).collect();
        let (set, missing) = set.only(&ids);
        match missing.first() {
            Some(first) => Err(Problem::no_image(&body.collection, first.0)),
            None => Ok(set),
        }
    }
}

impl CurateBody {
    fn config(&self) -> CurateConfig {
        let mut config = CurateConfig::default();
        config.random_seed = self.random_seed.unwrap_or(config.random_seed);
        for step in &mut config.steps {
            match step {
                Step::SelfDedup(step) => step.threshold = self.self_threshold.or(step.threshold),
                Step::RelativeDedup(step) => {
                    step.threshold = self.threshold.or(step.threshold);
                    step.spread = self.spread.unwrap_or(step.spread);
                }
                Step::Retrieve(step) => {
                    step.method = self.method.unwrap_or(step.method);
                    step.k = self.per_seed.unwrap_or(step.k);
                    step.clusters = self.clusters.or(step.clusters);
                    step.min_seeds = self.min_seeds.unwrap_or(step.min_seeds);
                    step.per_cluster = self.per_cluster.unwrap_or(step.per_cluster);
                    step.cap = self.cap.unwrap_or(step.cap);
                }
                Step::SemDedup(_) | Step::Balance(_) => {}
            }
        }
        if let Some(target) = self.balance {
            config.steps.push(Step::Balance(Balance { target, ..Balance::default() }));
        }
        config
    }
}

fn run(
    state: &AppState,
    body: &CurateBody,
    config: &CurateConfig,
    context: &Context,
) -> Result<Value, Ended> {
    let sources = state.sources(body)?;
    let folder = state.runs.folder(&body.name)?;
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(Problem::internal)?;
    }
    state.runs.release(&body.name);
    let steps = config.steps.len() as u64;
    let mut done = 0;
    let mut on_event = |event: CurateEvent<'_>| match event {
        CurateEvent::Started { folder, images } => {
            context.stage(format!("{folder}: {images} images"), Some(steps));
            context.at(done, Some(steps));
        }
        CurateEvent::Done { .. } => {
            done += 1;
            context.at(done, Some(steps));
        }
        CurateEvent::Writing => context.stage("writing ledger and manifest", None),
        CurateEvent::Computed { .. } => {}
    };
    let info = curate::run(&folder, &sources, config, &mut on_event, context.cancel())?;
    let RunInfo { kept, accounts, pool, .. } = &info;
    Ok(json!({"run": body.name, "pool": pool.images, "kept": kept, "accounts": accounts}))
}
