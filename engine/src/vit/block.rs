//! One pre-norm transformer block.

use candle_core::Tensor;

use super::attention::Attention;
use super::config::VitConfig;
use super::ffn::Ffn;
use super::layers::{LayerNorm, LayerScale, Loader};
use crate::error::Result;

pub(super) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: LayerScale,
    norm2: LayerNorm,
    mlp: Ffn,
    ls2: LayerScale,
}

impl Block {
    pub(super) fn load(from: &Loader<'_>, index: usize, config: &VitConfig) -> Result<Self> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let dim = config.embed_dim;
        Ok(Self {
            norm1: LayerNorm::load(from, &name("norm1"), dim)?,
            attn: Attention::load(from, &name("attn"), config)?,
            ls1: LayerScale::load(from, &name("ls1"), dim)?,
            norm2: LayerNorm::load(from, &name("norm2"), dim)?,
            mlp: Ffn::load(from, &name("mlp"), config)?,
            ls2: LayerScale::load(from, &name("ls2"), dim)?,
        })
    }

    /// The attention half: `x + ls1(attn(norm1(x)))`.
    pub(super) fn attend(&self, x: &Tensor) -> Result<Tensor> {
        self.ls1.add(x, self.attn.forward(&self.norm1.forward(x)?)?)
    }

    /// The feed-forward half: `x + ls2(mlp(norm2(x)))`.
    pub(super) fn transform(&self, x: &Tensor) -> Result<Tensor> {
        self.ls2.add(x, self.mlp.forward(&self.norm2.forward(x)?)?)
    }
}
