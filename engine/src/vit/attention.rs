//! Multi-head self-attention.

use candle_core::Tensor;

use super::config::VitConfig;
use super::fused;
use super::layers::{Linear, Loader};
use crate::error::Result;

pub(super) struct Attention {
    qkv: Linear,
    proj: Linear,
    num_heads: usize,
}

impl Attention {
    pub(super) fn load(from: &Loader<'_>, name: &str, config: &VitConfig) -> Result<Self> {
        let dim = config.embed_dim;
        Ok(Self {
            qkv: Linear::load(from, &format!("{name}.qkv"), dim, 3 * dim)?,
            proj: Linear::load(from, &format!("{name}.proj"), dim, dim)?,
            num_heads: config.num_heads,
        })
    }

    /// (B, N, C) to (B, N, C).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, dim) = x.dims3()?;
        let head_dim = dim / self.num_heads;
        let qkv = self
            .qkv
            .forward(x)?
            .reshape((batch, tokens, 3, self.num_heads, head_dim))?
            .permute([2, 0, 3, 1, 4])?;
        let query = (qkv.get(0)?.contiguous()? * (head_dim as f64).powf(-0.5))?;
        let key = qkv.get(1)?.contiguous()?;
        let value = qkv.get(2)?.contiguous()?;
        let weights = fused::softmax(query.matmul(&key.t()?)?)?;
        let out = weights.matmul(&value)?.transpose(1, 2)?.reshape((batch, tokens, dim))?;
        self.proj.forward(&out)
    }
}
