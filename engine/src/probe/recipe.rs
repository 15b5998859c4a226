//! Which tokens a head reads, and how they become its input.

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::features::{Embedding, ProbeTokens};

/// Length of the tokens a head reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// As they leave the final norm: the published protocol.
    #[default]
    Raw,
    /// Each token brought to a root mean square of 1 (unit length times the square root of its
    /// width): what can be had again from a stored embedding, in the range that the published
    /// learning rates are made for.
    Unit,
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Unit => "unit",
        })
    }
}

/// Input of a head: CLS of the last `blocks` blocks, perhaps followed by the mean patch token of
/// the last (`create_linear_input` of the reference).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipe {
    /// Blocks whose CLS tokens are joined, the last block last.
    pub blocks: usize,
    /// Whether the mean patch token of the last block is appended.
    pub avg_pool: bool,
    /// Length of the tokens.
    pub scale: Scale,
}

impl Recipe {
    /// The CLS token of the last block.
    pub fn cls(scale: Scale) -> Self {
        Self { blocks: 1, avg_pool: false, scale }
    }

    /// Number of features for tokens of width `embed_dim`.
    pub fn dim(self, embed_dim: usize) -> usize {
        (self.blocks + usize::from(self.avg_pool)) * embed_dim
    }

    /// Whether an embedding pooled as CLS holds all of it.
    pub fn is_stored(self) -> bool {
        self == Self::cls(Scale::Unit)
    }

    /// Checks that a backbone of this many blocks has what is asked for.
    ///
    /// # Errors
    /// [`EngineError::Training`] with the choices there are.
    pub fn check(self, depth: usize) -> Result<()> {
        if (1..=depth).contains(&self.blocks) {
            return Ok(());
        }
        let reason = format!(
            "CLS of the last {} blocks is asked for, and this model has {depth}; choose 1 to \
             {depth} with `--layers`",
            self.blocks
        );
        Err(EngineError::Training { reason })
    }

    /// Appends the features of a picture to `out`: [`dim`](Self::dim) values. The tokens are of
    /// at least `blocks` blocks and have this recipe's scale already ([`Scale::apply`]).
    pub(super) fn gather(self, tokens: &ProbeTokens, out: &mut Vec<f32>) {
        let wanted = self.blocks * tokens.mean_patch.len();
        out.extend(&tokens.cls[tokens.cls.len() - wanted..]);
        if self.avg_pool {
            out.extend(&tokens.mean_patch);
        }
    }

    /// Features of a picture, [`dim`](Self::dim) values.
    ///
    /// # Errors
    /// [`EngineError::Training`] when the tokens are of fewer blocks.
    pub fn features(self, tokens: &ProbeTokens) -> Result<Vec<f32>> {
        let width = tokens.mean_patch.len().max(1);
        self.check(tokens.cls.len() / width)?;
        let mut features = Vec::with_capacity(self.dim(width));
        self.gather(&self.scale.apply(tokens.clone()), &mut features);
        Ok(features)
    }

    /// The same from a stored CLS embedding; `None` when the recipe reads more than that.
    pub fn features_of_stored(self, cls: &Embedding) -> Option<Vec<f32>> {
        self.is_stored().then(|| {
            let mut features = cls.as_slice().to_vec();
            to_unit_rms(&mut features);
            features
        })
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.blocks {
            1 => f.write_str("CLS of the last block")?,
            blocks => write!(f, "CLS of the last {blocks} blocks")?,
        }
        let patches = if self.avg_pool { " and the mean patch token" } else { "" };
        write!(f, "{patches}, {} length", self.scale)
    }
}

impl Scale {
    /// Brings every token to this scale.
    pub(super) fn apply(self, mut tokens: ProbeTokens) -> ProbeTokens {
        if self == Self::Unit {
            let width = tokens.mean_patch.len().max(1);
            tokens.cls.chunks_exact_mut(width).for_each(to_unit_rms);
            to_unit_rms(&mut tokens.mean_patch);
        }
        tokens
    }
}

/// A zero token stays zero.
fn to_unit_rms(token: &mut [f32]) {
    let sum: f64 = token.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    if sum > 0.0 {
        let factor = (token.len() as f64 / sum).sqrt();
        token.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ProbeTokens {
        ProbeTokens { cls: vec![1.0, 2.0, 30.0, 40.0], mean_patch: vec![6.0, -8.0] }
    }

    #[test]
    fn tokens_are_joined_as_in_the_reference() -> Result<()> {
        let recipe = |blocks, avg_pool| Recipe { blocks, avg_pool, scale: Scale::Raw };
        assert_eq!(recipe(1, false).features(&tokens())?, [30.0, 40.0]);
        assert_eq!(recipe(2, false).features(&tokens())?, [1.0, 2.0, 30.0, 40.0]);
        assert_eq!(recipe(2, true).features(&tokens())?, [1.0, 2.0, 30.0, 40.0, 6.0, -8.0]);
        let message = recipe(4, true).features(&tokens()).err().map(|e| e.to_string());
        assert!(message.is_some_and(|m| m.contains("last 4 blocks") && m.contains("1 to 2")));
        Ok(())
    }

    #[test]
    fn a_stored_embedding_gives_the_same_features() -> Result<()> {
        let recipe = Recipe::cls(Scale::Unit);
        let direct = recipe.features(&tokens())?;
        let stored = Embedding::normalised(vec![30.0, 40.0])?;
        let again = recipe.features_of_stored(&stored).unwrap_or_default();
        assert!(direct.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-6), "{direct:?}");
        assert!((direct.iter().map(|v| v * v).sum::<f32>() / 2.0 - 1.0).abs() < 1e-6);
        assert_eq!(Recipe::cls(Scale::Raw).features_of_stored(&stored), None);
        Ok(())
    }
}
