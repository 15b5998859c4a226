//! Training of DINOv2 backbones: differentiable operations for packed sequences.

pub mod ops;
