//! Model output, and the one vector made from it that is indexed.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// Final-normed tokens of a batch.
#[derive(Clone, Debug)]
pub struct Features {
    /// `x_norm_clstoken`, (B, C).
    pub cls_token: Tensor,
    /// `x_norm_regtokens`, (B, R, C); R may be 0.
    pub register_tokens: Tensor,
    /// `x_norm_patchtokens`, (B, rows * columns, C), row-major.
    pub patch_tokens: Tensor,
    /// Patch grid, (rows, columns).
    pub grid: (usize, usize),
}

impl Features {
    /// Splits (B, 1 + R + N, C) tokens.
    pub(crate) fn from_tokens(
        tokens: &Tensor,
        num_register_tokens: usize,
        grid: (usize, usize),
    ) -> Result<Self> {
        Ok(Self {
            cls_token: tokens.get_on_dim(1, 0)?,
            register_tokens: tokens.narrow(1, 1, num_register_tokens)?,
            patch_tokens: tokens.narrow(1, 1 + num_register_tokens, grid.0 * grid.1)?,
            grid,
        })
    }

    /// One unit-length vector per image.
    ///
    /// # Errors
    /// [`EngineError::BadEmbedding`] when the output is zero or not finite.
    pub fn pool(&self, pooling: Pooling) -> Result<Vec<Embedding>> {
        let cls = self.cls_token.to_dtype(DType::F32)?;
        let patches = || self.patch_tokens.to_dtype(DType::F32);
        let pooled = match pooling {
            Pooling::Cls => cls,
            Pooling::MeanPatch => patches()?.mean(1)?,
            Pooling::ClsMeanPatch => Tensor::cat(&[&cls, &patches()?.mean(1)?], 1)?,
            Pooling::Gem => {
                let powered = patches()?.maximum(GEM_FLOOR)?.powf(GEM_EXPONENT)?;
                powered.mean(1)?.powf(1.0 / GEM_EXPONENT)?
            }
        };
        pooled.to_vec2::<f32>()?.into_iter().map(Embedding::normalised).collect()
    }
}

/// Exponent of generalised-mean pooling (Radenović et al., arXiv 1711.02512, section 3.2).
const GEM_EXPONENT: f64 = 3.0;
/// Patch values are clamped to this before GeM's power, as in its reference code.
const GEM_FLOOR: f64 = 1e-6;

/// How tokens become the one vector that is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The CLS token (C values).
    #[default]
    Cls,
    /// Mean of the patch tokens (C values).
    MeanPatch,
    /// CLS followed by the mean of the patch tokens (2 C values).
    ClsMeanPatch,
    /// Generalised mean of the patch tokens, exponent 3 (C values).
    Gem,
}

impl Pooling {
    /// Length of the pooled vector for tokens of width `embed_dim`.
    pub fn dim(self, embed_dim: usize) -> usize {
        match self {
            Self::ClsMeanPatch => 2 * embed_dim,
            Self::Cls | Self::MeanPatch | Self::Gem => embed_dim,
        }
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cls => "cls",
            Self::MeanPatch => "mean-patch",
            Self::ClsMeanPatch => "cls-mean-patch",
            Self::Gem => "gem",
        })
    }
}

/// What linear probes read of one picture: final-normed tokens of the last blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeTokens {
    /// CLS tokens of the last L blocks, (L, C) row-major, the last block last.
    pub cls: Vec<f32>,
    /// Mean of the patch tokens of the last block, (C).
    pub mean_patch: Vec<f32>,
}

impl ProbeTokens {
    /// One for each picture of a batch, from the features of consecutive last blocks.
    ///
    /// # Errors
    /// [`EngineError::BadEmbedding`] when a value is not finite.
    pub(crate) fn of_layers(layers: &[Features]) -> Result<Vec<Self>> {
        let Some(last) = layers.last() else { return Ok(Vec::new()) };
        let cls: Vec<_> = layers.iter().map(|layer| &layer.cls_token).collect();
        let cls = Tensor::cat(&cls, 1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let patches = last.patch_tokens.to_dtype(DType::F32)?.mean(1)?.to_vec2::<f32>()?;
        let join = |(cls, mean_patch): (Vec<f32>, Vec<f32>)| match cls
            .iter()
            .chain(&mean_patch)
            .find(|value| !value.is_finite())
        {
            Some(value) => {
                Err(EngineError::BadEmbedding { reason: format!("a token holds {value}") })
            }
            None => Ok(Self { cls, mean_patch }),
        };
        cls.into_iter().zip(patches).map(join).collect()
    }
}

/// A finite vector of length one: what is stored, and what is compared by dot product.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Scales a vector to length one.
    ///
    /// # Errors
    /// [`EngineError::BadEmbedding`] when it is empty, zero or not finite.
    pub fn normalised(mut vector: Vec<f32>) -> Result<Self> {
        if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
            return Err(EngineError::BadEmbedding { reason: format!("it holds {value}") });
        }
        let norm = vector.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if norm == 0.0 {
            return Err(EngineError::BadEmbedding { reason: "its length is zero".to_owned() });
        }
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
        Ok(Self(vector))
    }

    /// Cosine similarity, in -1..=1 up to rounding. Both must have the same length.
    pub fn similarity(&self, other: &Self) -> f32 {
        debug_assert_eq!(self.0.len(), other.0.len());
        let dot: f64 =
            self.0.iter().zip(&other.0).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        dot as f32
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Number of values.
    pub fn dim(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_has_length_one() -> Result<()> {
        let embedding = Embedding::normalised(vec![3.0, 4.0])?;
        assert_eq!(embedding.as_slice(), [0.6, 0.8]);
        assert!((embedding.similarity(&embedding) - 1.0).abs() < 1e-7);
        Ok(())
    }

    #[test]
    fn zero_and_non_finite_vectors_are_refused() {
        for bad in [vec![], vec![0.0; 3], vec![1.0, f32::NAN], vec![f32::INFINITY]] {
            assert!(matches!(Embedding::normalised(bad), Err(EngineError::BadEmbedding { .. })));
        }
    }
}
