//! The two feed-forward networks.

use candle_core::{D, Tensor};

use super::config::{FfnKind, VitConfig};
use super::fused;
use super::layers::{Linear, Loader};
use crate::error::Result;

pub(super) enum Ffn {
    Mlp { fc1: Linear, fc2: Linear },
    SwiGlu { w12: Linear, w3: Linear },
}

impl Ffn {
    pub(super) fn load(from: &Loader<'_>, name: &str, config: &VitConfig) -> Result<Self> {
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        Ok(match config.ffn {
            FfnKind::Mlp => Self::Mlp {
                fc1: Linear::load(from, &format!("{name}.fc1"), dim, hidden)?,
                fc2: Linear::load(from, &format!("{name}.fc2"), hidden, dim)?,
            },
            FfnKind::SwiGlu => Self::SwiGlu {
                w12: Linear::load(from, &format!("{name}.w12"), dim, 2 * hidden)?,
                w3: Linear::load(from, &format!("{name}.w3"), hidden, dim)?,
            },
        })
    }

    /// (B, N, C) to (B, N, C).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Mlp { fc1, fc2 } => fc2.forward(&fused::gelu(fc1.forward(x)?)?),
            Self::SwiGlu { w12, w3 } => {
                let halves = w12.forward(x)?.chunk(2, D::Minus1)?;
                w3.forward(&(halves[0].silu()? * &halves[1])?)
            }
        }
    }
}
