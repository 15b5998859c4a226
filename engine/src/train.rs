//! Training of DINOv2 backbones: differentiable operations for packed sequences, and the
//! trainable backbone made of them.

pub mod augment;
pub mod checkpoint;
pub mod distill;
mod matching;
pub mod ops;
pub mod optim;
pub mod schedule;
mod student;

pub use student::{CropTokens, Student};
