//! The DINOv2 Vision Transformer: on candle tensors, and (`cpu`) on our own kernels.
//!
//! One definition serves every variant; what differs between them is data ([`config`]). Field and
//! module names follow the published model, so weights map by name.

pub mod config;
pub mod weights;
pub(crate) mod fused;
mod layers;
mod patch_embed;
pub(crate) mod pos_embed;
mod attention;
mod ffn;
mod block;
mod model;
pub(crate) mod cpu;
mod packed_cache;
// Without CUDA there is nobody to use it but its tests.
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod gpu;
pub(crate) mod backbone;

pub use config::{FfnKind, PosEmbedRule, VARIANTS, Variant, VitConfig};
pub use model::{Stage, VisionTransformer};
pub use weights::{Layout, TensorProblem, Weights, WeightsError};
