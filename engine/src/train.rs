//! Training of DINOv2 backbones: differentiable operations for packed sequences, the trainable
//! backbone made of them, self-supervised training and distillation.

pub mod augment;
pub mod pictures;
pub mod checkpoint;
pub mod ops;
pub mod optim;
mod run_state;
pub mod schedule;
mod student;
mod matching;
pub mod distill;
pub mod losses;
pub mod head;
pub mod masking;
pub mod ssl;

pub use student::{CropTokens, Crops, DropPlan, How, Pass, Student};
