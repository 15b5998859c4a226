//! Packed parameters as arrays of a file, and back.

use super::super::super::config::VitConfig;
use super::{Block, Kernels, Packed};
use crate::kernels::{Matrix, Stored};

impl Packed {
    /// The arrays that [`stored`](Self::stored) reads, in its order.
    pub(in super::super) fn arrays(&self) -> Vec<&[u8]> {
        let Self { patch, patch_bias, prefix, pos_table, blocks, norm } = self;
        let small = [patch_bias, prefix, pos_table, &norm[0], &norm[1]];
        let mut arrays: Vec<&[u8]> =
            small.into_iter().map(|values| bytemuck::cast_slice(values)).collect();
        patch.arrays(&mut arrays);
        for Block { qkv, proj, up, down } in blocks {
            for matrix in [qkv, proj, up, down] {
                matrix.arrays(&mut arrays);
            }
        }
        arrays
    }

    /// The parameters that a file holds from there on; `None` unless they are all of it.
    pub(in super::super) fn stored(
        config: &VitConfig,
        kernels: Kernels,
        mut from: Stored,
    ) -> Option<Self> {
        let dim = config.embed_dim;
        let patch_bias = from.values(dim)?;
        let prefix = from.values(config.num_prefix_tokens() * dim)?;
        let pos_table = from.values(config.pos_embed_grid * config.pos_embed_grid * dim)?;
        let norm = [from.values(dim)?, from.values(dim)?];
        let patch = Matrix::stored(kernels.float, kernels.patch_plan(config), &mut from)?;
        let mut blocks = Vec::with_capacity(config.depth);
        for index in 0..config.depth {
            blocks.push(Block::stored(config, kernels, index, &mut from)?);
        }
        let packed = Self { patch, patch_bias, prefix, pos_table, blocks, norm };
        from.is_at_end().then_some(packed)
    }
}

impl Block {
    fn stored(
        config: &VitConfig,
        kernels: Kernels,
        index: usize,
        from: &mut Stored,
    ) -> Option<Self> {
        let mut next = |plan| Matrix::stored(kernels.float, plan, from);
        let [qkv, proj, up, down] = kernels.plans(config, index);
        Some(Self { qkv: next(qkv)?, proj: next(proj)?, up: next(up)?, down: next(down)? })
    }
}
