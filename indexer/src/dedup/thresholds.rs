//! From what similarity on two pictures are worth a look, or are taken for duplicates unseen.

use engine::{ModelIdentity, Pooling};

/// Thresholds measured for a model on shared photographs and their edited copies
/// (docs/dedup.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// For pairs that are looked at: few copies are less similar.
    pub candidates: f32,
    /// For pairs that nobody looks at: few others are more similar.
    pub alone: f32,
}

/// SHA-256 of the weights, and what was measured for their CLS embedding at the size the model is
/// used with.
const MEASURED: [(&str, Thresholds); 2] = [
    // akin-ti14, 126 px.
    (
        "9834f277f91441b20b35515234823a6229404345e128fd1c5128f9941e86b176",
        Thresholds { candidates: 0.70, alone: 0.97 },
    ),
    // The encoder of Depth-Anything-V2-Small, 224 px.
    (
        "d7c7be2bdd437ab9cf32c9c3608d1e5e79e632c0586498bda9b10e77cf8befe9",
        Thresholds { candidates: 0.70, alone: 0.97 },
    ),
];

/// Thresholds for a model; `None` when nobody has measured any.
pub fn thresholds(model: &ModelIdentity) -> Option<Thresholds> {
    let known = MEASURED.iter().find(|(weights, _)| *weights == model.weights_sha256);
    known.filter(|_| model.pooling == Pooling::Cls).map(|(_, thresholds)| *thresholds)
}
