//! What a step says: which images it drops and why, and which it retrieves for whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ImageId;

/// Why an image is in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// In: it is near a seed image.
    Neighbour,
    /// In: drawn from a cluster that seed images fall into.
    Drawn,
    /// In: its file is a seed image's.
    IsSeed,
    /// In: no step dropped it, and none retrieved.
    Survived,
    /// In: accepted in review.
    Accepted,
    /// Out: its file is the same as another's.
    SameFile,
    /// Out: near-duplicate of another pool image.
    NearDuplicate,
    /// Out: like an excluded image.
    Leak,
    /// Out: in one component with an image like an excluded one.
    LeakByComponent,
    /// Out: no seed image is near enough.
    NotRetrieved,
    /// Out: retrieved, but over the limit of its seed set or cluster.
    OverCap,
    /// Out: near-duplicate of another image of its cluster.
    SemanticDuplicate,
    /// Out: its cluster had its share.
    Balanced,
    /// Out: rejected in review.
    Rejected,
}

impl Rule {
    /// Every rule, for reading them back.
    pub const ALL: [Self; 14] = [
        Self::Neighbour,
        Self::Drawn,
        Self::IsSeed,
        Self::Survived,
        Self::Accepted,
        Self::SameFile,
        Self::NearDuplicate,
        Self::Leak,
        Self::LeakByComponent,
        Self::NotRetrieved,
        Self::OverCap,
        Self::SemanticDuplicate,
        Self::Balanced,
        Self::Rejected,
    ];

    /// As the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour of a seed",
            Self::Drawn => "drawn from a cluster",
            Self::IsSeed => "is a seed",
            Self::Survived => "survived",
            Self::Accepted => "accepted in review",
            Self::SameFile => "same file",
            Self::NearDuplicate => "near-duplicate",
            Self::Leak => "like an excluded image",
            Self::LeakByComponent => "chained to an excluded image",
            Self::NotRetrieved => "not retrieved",
            Self::OverCap => "over the cap",
            Self::SemanticDuplicate => "near-duplicate in its cluster",
            Self::Balanced => "its cluster had its share",
            Self::Rejected => "rejected in review",
        }
    }

    /// The rule of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }
}

/// Another image that is a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Where it is.
    pub(crate) set: SetRef,
    /// In that set's collection.
    pub(crate) id: ImageId,
}

/// One of a curation's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetRef {
    Pool,
    /// By its number.
    Seeds(u32),
    /// By its number.
    Excluded(u32),
}

/// A pool image a step drops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    /// Position in the pool.
    pub(crate) item: u32,
    pub(crate) rule: Rule,
    pub(crate) because: Option<Reference>,
    /// With `because`.
    pub(crate) similarity: Option<f32>,
}

/// A pool image retrieved for a seed set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pick {
    /// Position in the pool.
    pub(crate) item: u32,
    /// Number of the seed set.
    pub(crate) set: u32,
    pub(crate) rule: Rule,
    /// The seed image it is most like, of those that retrieved it.
    pub(crate) seed: ImageId,
    /// Among the neighbours of that seed image, from 1; absent when drawn or a seed itself.
    pub(crate) rank: Option<u32>,
    /// With that seed image.
    pub(crate) similarity: f32,
}

/// The excluded image that a pool image is most like, when that is near the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leak {
    /// Position in the pool.
    pub(crate) item: u32,
    /// Number of the excluded set.
    pub(crate) set: u32,
    /// In its collection.
    pub(crate) id: ImageId,
    pub(crate) similarity: f32,
}

/// Retrieval for one seed set, counted as in table 15 of arXiv 2304.07193.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieved {
    /// Name of the seed set.
    pub seeds: String,
    /// Its images.
    pub images: usize,
    /// `sample` or `cluster`.
    pub method: String,
    /// Neighbours found, or images of all chosen clusters, before limits and collisions.
    pub found: usize,
    /// Found by more than one seed image of the set.
    pub collisions: usize,
    /// Clusters drawn from; 0 for `sample`.
    pub clusters: usize,
    /// Different images left within the limits.
    pub retrieved: usize,
}

/// All that a step says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepOutput {
    /// By item.
    pub(crate) dropped: Vec<Dropped>,
    /// Component of items that are in one, by item; named by its first item.
    pub(crate) components: Vec<(u32, u32)>,
    /// Cluster of items, by item.
    pub(crate) clusters: Vec<(u32, u32)>,
    /// By item; for dropped items of earlier steps too.
    pub(crate) leaks: Vec<Leak>,
    /// By item and set.
    pub(crate) picks: Vec<Pick>,
    pub(crate) retrieved: Vec<Retrieved>,
    /// Threshold that was applied.
    pub(crate) threshold: Option<f32>,
    /// Counts and measures to report, by name.
    pub(crate) figures: BTreeMap<String, f64>,
}
