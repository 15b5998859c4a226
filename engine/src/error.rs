//! What can go wrong between picture bytes and features.

use std::path::PathBuf;

use crate::decode::DecodeError;
use crate::preprocess::PreprocessError;
use crate::vit::weights::WeightsError;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The file is not a picture we can read; the message says why and what would help.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The picture or the chosen sizes cannot be prepared as model input.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The weights file is not a complete, sound DINOv2 backbone.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The caller's tensor has the wrong shape.
    #[error("model input has shape {got:?}, expected {expected}")]
    InputShape {
        /// Shape received.
        got: Vec<usize>,
        /// Shape required, in words.
        expected: &'static str,
    },
    /// A block index beyond the model's depth was asked for.
    #[error("layer {layer} asked for, but the model has blocks 0..{depth}")]
    NoSuchLayer {
        /// Index received.
        layer: usize,
        /// Number of blocks.
        depth: usize,
    },
    /// The model produced a vector that cannot be an embedding.
    #[error("the model's output is not an embedding: {reason}")]
    BadEmbedding {
        /// What is wrong with it.
        reason: String,
    },
    /// The requested compute device cannot be used.
    #[error("device `{name}` cannot be used: {reason}")]
    Device {
        /// As asked for.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Training cannot start or go on.
    #[error("{reason}")]
    Training {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file is no classification head that can be used.
    #[error("{path} is not a usable head: {reason}")]
    Head {
        /// File.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A tensor operation failed; this is a defect or an exhausted device.
    #[error("tensor computation failed: {}", first_line(.0))]
    Compute(#[from] candle_core::Error),
}

/// What candle says, without the backtrace it appends when `RUST_BACKTRACE` is set.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
