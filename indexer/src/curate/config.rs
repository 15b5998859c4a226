//! What a curation does, as data: the steps in their order, with their parameters.

use serde::{Deserialize, Serialize};

use crate::dedup::Keep;
use crate::error::{IndexerError, Result};

/// Published threshold of self-deduplication (arXiv 2304.07193, appendix A), for SSCD embeddings.
pub const SELF_THRESHOLD: f32 = 0.6;
/// Published threshold of deduplication against excluded sets.
pub const RELATIVE_THRESHOLD: f32 = 0.45;

/// Steps and seed of a curation: the table `[curate]` of a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CurateConfig {
    /// Decides everything that is drawn by lot.
    pub random_seed: u64,
    /// In this order; the union of what the seed sets retrieved follows the last one.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Keeps one image of every group of near-duplicates in the pool.
    SelfDedup(SelfDedup),
    /// Drops what is like an excluded image.
    RelativeDedup(RelativeDedup),
    /// Keeps what is like the seed images.
    Retrieve(Retrieve),
    /// Drops near-duplicates within clusters (SemDeDup, arXiv 2303.09540).
    SemDedup(SemDedup),
    /// Draws evenly over a hierarchy of clusters (arXiv 2405.15613).
    Balance(Balance),
}

/// Parameters of [`Step::SelfDedup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfDedup {
    /// Cosine similarity from which on two images are near-duplicates; absent: the published
    /// threshold, scaled to the model.
    pub threshold: Option<f32>,
    /// Neighbours looked at of every image.
    pub k: usize,
    /// Which image of a group stays.
    pub keep: Keep,
}

/// Parameters of [`Step::RelativeDedup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelativeDedup {
    /// Cosine similarity with an excluded image from which on an image is dropped; absent: the
    /// published threshold, scaled to the model.
    pub threshold: Option<f32>,
    /// Neighbours looked at of every pool image, for components.
    pub k: usize,
    /// What is dropped beside images like an excluded one.
    pub spread: Spread,
}

/// What is dropped beside the images that are like an excluded one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// What self-deduplication kept for such images: it stands for a leak.
    #[default]
    Duplicates,
    /// Every image that a chain of pairs over this step's threshold leads to, as published.
    Component,
    /// Nothing.
    Direct,
}

/// Parameters of [`Step::Retrieve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retrieve {
    /// By neighbours or by clusters.
    pub method: Method,
    /// `sample`: neighbours of every seed image.
    pub k: usize,
    /// `cluster`: clusters of the pool; absent: the square root of its size, at most 100,000.
    pub clusters: Option<usize>,
    /// `cluster`: only clusters with more seed images than this are drawn from.
    pub min_seeds: usize,
    /// `cluster`: images drawn from a cluster at most.
    pub per_cluster: usize,
    /// Images retrieved for a seed set at most.
    pub cap: usize,
    /// `cluster`: passes of k-means at most.
    pub iterations: usize,
}

/// How pool images are found for seed images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The nearest of every seed image: for large seed sets.
    #[default]
    Sample,
    /// By lot from the clusters that seed images fall into: for small seed sets.
    Cluster,
}

/// Parameters of [`Step::SemDedup`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemDedup {
    /// Cosine similarity above which the image nearer to its centroid is dropped; absent: the
    /// published threshold of self-deduplication, scaled to the model.
    pub threshold: Option<f32>,
    /// Clusters; absent: the square root of the number of images.
    pub clusters: Option<usize>,
    /// Passes of k-means at most.
    pub iterations: usize,
}

/// Parameters of [`Step::Balance`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    /// Images to keep; when there are no more, all stay.
    pub target: usize,
    /// Clusters of each level, finest first; empty: two levels, the square root of the number of
    /// images and the square root of that.
    pub levels: Vec<usize>,
    /// Rounds of resampling at each level.
    pub resamplings: usize,
    /// Images of a cluster, nearest to the centroid, that a round of resampling clusters again.
    pub resample: usize,
    /// Which images of a finest cluster are taken.
    pub draw: Draw,
    /// Passes of k-means at most.
    pub iterations: usize,
}

/// Which images of a cluster are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Draw {
    /// By lot.
    #[default]
    Random,
    /// The nearest to the centroid.
    Closest,
}

impl Default for CurateConfig {
    fn default() -> Self {
        Self {
            random_seed: 0,
            steps: vec![
                Step::SelfDedup(SelfDedup::default()),
                Step::RelativeDedup(RelativeDedup::default()),
                Step::Retrieve(Retrieve::default()),
            ],
        }
    }
}

impl Default for SelfDedup {
    fn default() -> Self {
        Self { threshold: None, k: 64, keep: Keep::default() }
    }
}

impl Default for RelativeDedup {
    fn default() -> Self {
        Self { threshold: None, k: 64, spread: Spread::default() }
    }
}

impl Default for Retrieve {
    fn default() -> Self {
        Self {
            method: Method::default(),
            k: 4,
            clusters: None,
            min_seeds: 3,
            per_cluster: 10_000,
            cap: 1_000_000,
            iterations: 25,
        }
    }
}

impl Default for SemDedup {
    fn default() -> Self {
        Self { threshold: None, clusters: None, iterations: 25 }
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            target: 0,
            levels: Vec::new(),
            resamplings: 10,
            resample: 10,
            draw: Draw::default(),
            iterations: 25,
        }
    }
}

impl Step {
    /// Name of the step, as in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SelfDedup(_) => "self-dedup",
            Self::RelativeDedup(_) => "relative-dedup",
            Self::Retrieve(_) => "retrieve",
            Self::SemDedup(_) => "sem-dedup",
            Self::Balance(_) => "balance",
        }
    }

    fn check(&self) -> Result<()> {
        let at_least_one = |name: &str, value: usize| match value {
            0 => Err(bad(format!("step {}: {name} is 0, it must be at least 1", self.name()))),
            _ => Ok(()),
        };
        let cosine = |value: Option<f32>| match value {
            Some(t) if !(-1.0..=1.0).contains(&t) => {
                Err(bad(format!("step {}: threshold {t} is no cosine (-1 to 1)", self.name())))
            }
            _ => Ok(()),
        };
        match self {
            Self::SelfDedup(step) => {
                at_least_one("k", step.k)?;
                cosine(step.threshold)
            }
            Self::RelativeDedup(step) => {
                at_least_one("k", step.k)?;
                cosine(step.threshold)
            }
            Self::Retrieve(step) => {
                at_least_one("k", step.k)?;
                at_least_one("clusters", step.clusters.unwrap_or(1))?;
                at_least_one("per_cluster", step.per_cluster)?;
                at_least_one("cap", step.cap)?;
                at_least_one("iterations", step.iterations)
            }
            Self::SemDedup(step) => {
                at_least_one("clusters", step.clusters.unwrap_or(1))?;
                at_least_one("iterations", step.iterations)?;
                cosine(step.threshold)
            }
            Self::Balance(step) => {
                at_least_one("target", step.target)?;
                at_least_one("resample", step.resample)?;
                at_least_one("iterations", step.iterations)?;
                step.levels.iter().try_for_each(|&level| at_least_one("levels", level))
            }
        }
    }
}

impl CurateConfig {
    /// Refuses parameters that make no sense.
    ///
    /// # Errors
    /// The first such parameter.
    pub fn check(&self) -> Result<()> {
        if self.steps.is_empty() {
            return Err(bad("there are no steps to curate by".to_owned()));
        }
        let retrievals = self.steps.iter().filter(|step| matches!(step, Step::Retrieve(_))).count();
        if retrievals > 1 {
            return Err(bad("there is more than one step `retrieve`; name the seed sets with \
                            `--seed NAME=SET` instead"
                .to_owned()));
        }
        self.steps.iter().try_for_each(Step::check)
    }

    /// Whether seed images are asked for.
    pub fn needs_seeds(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Retrieve(_)))
    }

    /// Whether excluded images have an effect.
    pub fn can_exclude(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::RelativeDedup(_)))
    }
}

fn bad(reason: String) -> IndexerError {
    IndexerError::InvalidRequest(reason)
}
