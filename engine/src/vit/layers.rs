//! The three elementary layers: linear, layer norm, layer scale.

use candle_core::{DType, Device, Tensor};

use super::fused;
use super::weights::Weights;
use crate::error::Result;

/// Where and how parameters are placed: read once by every layer's loader.
pub(super) struct Loader<'a> {
    pub(super) weights: &'a Weights,
    pub(super) device: &'a Device,
    pub(super) dtype: DType,
}

impl Loader<'_> {
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.tensor(name, shape, self.dtype, self.device)
    }
}

/// `x W^T + b`.
pub(super) struct Linear {
    /// Stored (out, in) as published, kept transposed as a view.
    weight_t: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(super) fn load(from: &Loader<'_>, name: &str, input: usize, output: usize) -> Result<Self> {
        let weight = from.tensor(&format!("{name}.weight"), &[output, input])?;
        Self::new(&weight, from.tensor(&format!("{name}.bias"), &[output])?)
    }

    pub(super) fn new(weight: &Tensor, bias: Tensor) -> Result<Self> {
        Ok(Self { weight_t: weight.t()?, bias })
    }

    /// (B, N, in) to (B, N, out).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, input) = x.dims3()?;
        // One tall product instead of a batched one with a broadcast weight.
        let rows = x.reshape((batch * tokens, input))?;
        let out = fused::add_bias(rows.matmul(&self.weight_t)?, &self.bias)?;
        Ok(out.reshape((batch, tokens, ()))?)
    }
}

/// Normalisation over the last axis, with a learned gain and shift.
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(super) fn load(from: &Loader<'_>, name: &str, dim: usize) -> Result<Self> {
        Ok(Self {
            weight: from.tensor(&format!("{name}.weight"), &[dim])?,
            bias: from.tensor(&format!("{name}.bias"), &[dim])?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        fused::layer_norm(x, &self.weight, &self.bias)
    }
}

/// A learned gain per channel on a residual branch.
pub(super) struct LayerScale {
    gamma: Tensor,
}

impl LayerScale {
    pub(super) fn load(from: &Loader<'_>, name: &str, dim: usize) -> Result<Self> {
        Ok(Self { gamma: from.tensor(&format!("{name}.gamma"), &[dim])? })
    }

    /// `x + gamma * branch`.
    pub(super) fn add(&self, x: &Tensor, branch: Tensor) -> Result<Tensor> {
        fused::scaled_residual(x, branch, &self.gamma)
    }
}
