//! A backbone's parameters, with everything that only scales or shifts them folded in, packed for
//! the kernels.

mod stored;

use rayon::prelude::*;

use super::super::config::{FfnKind, PATCH_SIZE, VitConfig};
use super::calibrate::Largest;
use crate::kernels::{BLOCK, Int8, Kernel, Left, Matrix, Plan};

/// All parameters of a backbone.
pub(super) struct Packed {
    pub(super) patch: Matrix,
    pub(super) patch_bias: Vec<f32>,
    /// CLS with its position embedding, then the registers: (1 + R, C).
    pub(super) prefix: Vec<f32>,
    /// Stored patch position embeddings, row-major grid.
    pub(super) pos_table: Vec<f32>,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: [Vec<f32>; 2],
}

/// One transformer block.
pub(super) struct Block {
    /// Gain and shift of the first norm folded in, and into the queries' part what softmax scales
    /// and takes 2 instead of e to the power of.
    pub(super) qkv: Matrix,
    /// LayerScale folded in, here and in `down`.
    pub(super) proj: Matrix,
    /// Gain and shift of the second norm folded in. For SwiGLU blocks of 16 columns of both halves
    /// alternate.
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// A weight in the published (out, in) order, and its bias.
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
    inner: usize,
}

impl Linear {
    fn row(&self, index: usize) -> &[f32] {
        &self.weight[index * self.inner..(index + 1) * self.inner]
    }

    /// Takes over a norm's gain and shift, which come before it.
    fn after_norm(&mut self, gain: &[f32], shift: &[f32]) {
        for (row, bias) in self.weight.chunks_exact_mut(self.inner).zip(&mut self.bias) {
            let mut sum = 0f64;
            for ((w, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
                sum += f64::from(*w) * f64::from(*shift);
                *w *= gain;
            }
            *bias = (f64::from(*bias) + sum) as f32;
        }
    }

    /// Scales outputs, those of `factors` from the first on.
    fn scale(&mut self, factors: &[f32]) {
        let rows = self.weight.chunks_exact_mut(self.inner).zip(&mut self.bias);
        for ((row, bias), factor) in rows.zip(factors) {
            row.iter_mut().for_each(|w| *w *= factor);
            *bias *= factor;
        }
    }

    fn pack(&self, kernels: Kernels, plan: Plan, left: Left<'_>) -> Matrix {
        self.pack_columns(kernels, plan, left, Some)
    }

    /// Packs the columns of a feed-forward network's first layer, which are filled up to whole
    /// tiles of the second one's inner axis; the two halves of SwiGLU alternate by blocks.
    fn pack_hidden(
        &self,
        kernels: Kernels,
        plan: Plan,
        left: Left<'_>,
        (ffn, hidden): (FfnKind, usize),
    ) -> Matrix {
        match ffn {
            FfnKind::Mlp => self.pack_columns(kernels, plan, left, |column| {
                Some(column).filter(|&column| column < hidden)
            }),
            FfnKind::SwiGlu => self.pack_columns(kernels, plan, left, |column| {
                let (block, inside) = (column / BLOCK, column % BLOCK);
                let of_half = block / 2 * BLOCK + inside;
                (of_half < hidden).then_some(block % 2 * hidden + of_half)
            }),
        }
    }

    /// Packs the planned columns: each that which `source` names, or zeros.
    fn pack_columns(
        &self,
        kernels: Kernels,
        plan: Plan,
        left: Left<'_>,
        source: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Matrix {
        let Plan { panel, inner, columns, bytes } = plan;
        let zeros = vec![0f32; inner];
        let bias = (0..columns).map(|column| source(column).map_or(0.0, |at| self.bias[at]));
        let (bias, float) = (bias.collect(), kernels.float);
        let row = |column| source(column).map_or(&zeros[..], |at| self.row(at));
        match bytes {
            true => Matrix::pack_bytes(float, panel, inner, bias, left, row),
            false => Matrix::pack(float, panel, inner, bias, row),
        }
    }
}

/// What multiplies: floats, and for int8 the bytes between attentions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    pub(super) float: &'static Kernel,
    pub(super) int8: Option<&'static Int8>,
}

impl Kernels {
    /// Column blocks in a panel of weights.
    pub(super) fn panel(self) -> usize {
        self.int8.map_or(self.float.panel, |int8| int8.panel)
    }

    /// What the patch embedding's matrix will be.
    fn patch_plan(self, config: &VitConfig) -> Plan {
        let inner = 3 * PATCH_SIZE * PATCH_SIZE;
        Plan { panel: self.float.panel, inner, columns: config.embed_dim, bytes: false }
    }

    /// What the matrices of block `index` will be, in the order of its fields. Bytes are too coarse for
    /// the first block, where drawings lose most, and not needed in the last one after its attention:
    /// that is computed for CLS alone (docs/performance.md).
    fn plans(self, config: &VitConfig, index: usize) -> [Plan; 4] {
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let padded = hidden.next_multiple_of(BLOCK * self.float.per_lane);
        let plan = |bytes: bool, inner, columns| match self.int8.filter(|_| bytes && index > 0) {
            Some(int8) => Plan { panel: int8.panel, inner, columns, bytes },
            None => Plan { panel: self.float.panel, inner, columns, bytes: false },
        };
        let inside = index + 1 < config.depth;
        let up = match config.ffn {
            FfnKind::Mlp => plan(inside, dim, padded),
            FfnKind::SwiGlu => Plan { panel: 2, ..plan(inside, dim, 2 * padded) },
        };
        [plan(true, dim, 3 * dim), plan(inside, dim, dim), up, plan(inside, hidden, dim)]
    }
}

impl Packed {
    /// `values` hands out parameters by canonical name, in f32; CLS then carries its position
    /// embedding already, and `pos_embed` is that of the patches alone. `largest` is for bytes.
    pub(super) fn load<E: Send>(
        config: &VitConfig,
        kernels: Kernels,
        values: &(dyn Fn(&str) -> Result<Vec<f32>, E> + Sync),
        largest: Option<&Largest>,
    ) -> Result<Self, E> {
        let blocks = (0..config.depth)
            .into_par_iter()
            .map(|index| Block::load(config, kernels, index, values, largest))
            .collect::<Result<_, E>>()?;
        let Plan { panel, inner, .. } = kernels.patch_plan(config);
        let patch = values("patch_embed.proj.weight")?;
        // Its bias is part of the table of positions.
        let bias = vec![0.0; config.embed_dim];
        let mut prefix = values("cls_token")?;
        prefix.extend(values("register_tokens")?);
        Ok(Self {
            patch: Matrix::pack(kernels.float, panel, inner, bias, |row| {
                &patch[row * inner..(row + 1) * inner]
            }),
            patch_bias: values("patch_embed.proj.bias")?,
            prefix,
            pos_table: values("pos_embed")?,
            blocks,
            norm: [values("norm.weight")?, values("norm.bias")?],
        })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let matrices = |b: &Block| [&b.qkv, &b.proj, &b.up, &b.down].map(Matrix::bytes);
        let blocks = self.blocks.iter().flat_map(matrices).sum::<usize>();
        let others = self.patch_bias.len() + self.prefix.len() + self.pos_table.len();
        blocks + self.patch.bytes() + others * size_of::<f32>()
    }
}

impl Block {
    fn load<E>(
        config: &VitConfig,
        kernels: Kernels,
        index: usize,
        values: &(dyn Fn(&str) -> Result<Vec<f32>, E> + Sync),
        largest: Option<&Largest>,
    ) -> Result<Self, E> {
        let value = |part: &str| values(&format!("blocks.{index}.{part}"));
        let linear = |name: &str, inner: usize| -> Result<Linear, E> {
            let weight = value(&format!("{name}.weight"))?;
            Ok(Linear { weight, bias: value(&format!("{name}.bias"))?, inner })
        };
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let (up_name, down_name) = match config.ffn {
            FfnKind::Mlp => ("mlp.fc1", "mlp.fc2"),
            FfnKind::SwiGlu => ("mlp.w12", "mlp.w3"),
        };

        let mut qkv = linear("attn.qkv", dim)?;
        qkv.after_norm(&value("norm1.weight")?, &value("norm1.bias")?);
        let head = (dim / config.num_heads) as f32;
        qkv.scale(&vec![std::f32::consts::LOG2_E / head.sqrt(); dim]);
        let mut proj = linear("attn.proj", dim)?;
        proj.scale(&value("ls1.gamma")?);
        let mut up = linear(up_name, dim)?;
        up.after_norm(&value("norm2.weight")?, &value("norm2.bias")?);
        let mut down = linear(down_name, hidden)?;
        down.scale(&value("ls2.gamma")?);
        let plans = kernels.plans(config, index);
        let normed =
            |norm| Left::Normed(largest.map_or(&[], |largest| largest.of_norm(index, norm)));
        Ok(Self {
            qkv: qkv.pack(kernels, plans[0], normed(0)),
            proj: proj.pack(kernels, plans[1], Left::Signed),
            up: up.pack_hidden(kernels, plans[2], normed(1), (config.ffn, hidden)),
            down: down.pack(kernels, plans[3], hidden_left(config.ffn)),
        })
    }
}

/// How the rows between the layers of a feed-forward network are stored as bytes.
pub(super) fn hidden_left(ffn: FfnKind) -> Left<'static> {
    match ffn {
        FfnKind::Mlp => Left::Gelu,
        FfnKind::SwiGlu => Left::Signed,
    }
}
