//! A backbone's parameters as a GPU multiplies them, in f32 on the host: LayerScale is folded into the
//! layer before it, and the patch embedding's bias into the positions.

use super::super::config::{FfnKind, PATCH_SIZE, PosEmbedRule, VitConfig};
use super::super::pos_embed;
use super::plan::PATCH_ROW;

/// A linear layer, outputs first as published.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    /// (outputs, inputs), row-major.
    pub(crate) weight: Vec<f32>,
    /// One for each output; empty where there is none.
    pub(crate) bias: Vec<f32>,
    pub(crate) inputs: usize,
}

impl Dense {
    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.len() / self.inputs
    }

    /// Scales outputs.
    fn scale(&mut self, factors: &[f32]) {
        let rows = self.weight.chunks_exact_mut(self.inputs).zip(&mut self.bias);
        for ((row, bias), factor) in rows.zip(factors) {
            row.iter_mut().for_each(|weight| *weight *= factor);
            *bias *= factor;
        }
    }

    /// The largest magnitude, bias included.
    pub(crate) fn largest(&self) -> f32 {
        self.weight.iter().chain(&self.bias).fold(0.0, |most, value| most.max(value.abs()))
    }
}

/// Gain and shift of a LayerNorm.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    pub(crate) qkv: Dense,
    /// LayerScale folded in, here and in `down`.
    pub(crate) proj: Dense,
    pub(crate) norm2: Norm,
    /// For SwiGLU both halves, one after the other.
    pub(crate) up: Dense,
    pub(crate) down: Dense,
}

/// All parameters of a backbone.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub(crate) config: VitConfig,
    /// Rows of [`PATCH_ROW`] values, the last ones zero.
    pub(crate) patch: Dense,
    /// CLS with its position embedding, then the registers: (1 + R, C).
    pub(crate) prefix: Vec<f32>,
    pub(crate) positions: Positions,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
}

/// Position embeddings for any size, and the patch embedding's bias with them.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    config: VitConfig,
    rule: PosEmbedRule,
    table: Vec<f32>,
    patch_bias: Vec<f32>,
}

impl Positions {
    /// Those of a square grid, (N, C).
    pub(crate) fn of(&self, grid: usize) -> Vec<f32> {
        let mut rows = pos_embed::resample(&self.table, &self.config, self.rule, (grid, grid));
        for row in rows.chunks_exact_mut(self.config.embed_dim) {
            row.iter_mut().zip(&self.patch_bias).for_each(|(value, bias)| *value += bias);
        }
        rows
    }
}

impl Folded {
    /// `values` hands out parameters by canonical name, in f32; CLS then carries its position
    /// embedding already, and `pos_embed` is that of the patches alone.
    ///
    /// # Errors
    /// Those of `values`.
    pub(crate) fn load<E>(
        config: &VitConfig,
        rule: PosEmbedRule,
        values: &dyn Fn(&str) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut prefix = values("cls_token")?;
        prefix.extend(values("register_tokens")?);
        Ok(Self {
            patch: patch(&values("patch_embed.proj.weight")?),
            prefix,
            positions: Positions {
                config: config.clone(),
                rule,
                table: values("pos_embed")?,
                patch_bias: values("patch_embed.proj.bias")?,
            },
            blocks: (0..config.depth)
                .map(|index| Block::load(config, index, values))
                .collect::<Result<_, E>>()?,
            norm: norm("norm", values)?,
            config: config.clone(),
        })
    }

    /// The largest magnitude among the matrices.
    pub(crate) fn largest(&self) -> f32 {
        let matrices =
            |block: &Block| [&block.qkv, &block.proj, &block.up, &block.down].map(Dense::largest);
        let all = self.blocks.iter().flat_map(matrices).chain([self.patch.largest()]);
        all.fold(0.0, f32::max)
    }
}

impl Block {
    fn load<E>(
        config: &VitConfig,
        index: usize,
        values: &dyn Fn(&str) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let dense = |part: &str, inputs: usize| -> Result<Dense, E> {
            let weight = values(&name(&format!("{part}.weight")))?;
            Ok(Dense { weight, bias: values(&name(&format!("{part}.bias")))?, inputs })
        };
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let (up, down) = match config.ffn {
            FfnKind::Mlp => ("mlp.fc1", "mlp.fc2"),
            FfnKind::SwiGlu => ("mlp.w12", "mlp.w3"),
        };
        let mut proj = dense("attn.proj", dim)?;
        proj.scale(&values(&name("ls1.gamma"))?);
        let mut down = dense(down, hidden)?;
        down.scale(&values(&name("ls2.gamma"))?);
        Ok(Self {
            norm1: norm(&name("norm1"), values)?,
            qkv: dense("attn.qkv", dim)?,
            proj,
            norm2: norm(&name("norm2"), values)?,
            up: dense(up, dim)?,
            down,
        })
    }
}

fn norm<E>(name: &str, values: &dyn Fn(&str) -> Result<Vec<f32>, E>) -> Result<Norm, E> {
    Ok(Norm { gain: values(&format!("{name}.weight"))?, shift: values(&format!("{name}.bias"))? })
}

/// The patch embedding's weights in rows that products like, its bias elsewhere.
fn patch(weight: &[f32]) -> Dense {
    let mut padded = Vec::new();
    for row in weight.chunks_exact(3 * PATCH_SIZE * PATCH_SIZE) {
        padded.extend_from_slice(row);
        padded.resize(padded.len().next_multiple_of(PATCH_ROW), 0.0);
    }
    Dense { weight: padded, bias: Vec::new(), inputs: PATCH_ROW }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_a_layer_scales_what_it_gives() {
        let mut dense =
            Dense { weight: vec![1.0, 2.0, 3.0, 4.0], bias: vec![5.0, -6.0], inputs: 2 };
        assert_eq!((dense.outputs(), dense.largest()), (2, 6.0));
        dense.scale(&[2.0, 0.5]);
        assert_eq!(dense.weight, [2.0, 4.0, 1.5, 2.0]);
        assert_eq!(dense.bias, [10.0, -3.0]);
    }

    #[test]
    fn patch_rows_are_filled_up_with_zeros() {
        let row = 3 * PATCH_SIZE * PATCH_SIZE;
        let weight: Vec<f32> = (0..2 * row).map(|i| i as f32).collect();
        let dense = patch(&weight);
        assert_eq!((dense.outputs(), dense.inputs), (2, PATCH_ROW));
        assert_eq!(dense.weight[PATCH_ROW..][..row], weight[row..]);
        assert!(dense.weight[row..PATCH_ROW].iter().all(|&value| value == 0.0));
    }
}
