//! The forward pass over a [`Machine`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::super::config::{FfnKind, PATCH_SIZE, VitConfig};
use super::folded::{self, Folded};
use super::machine::{
    Activation, Affine, Fault, Heads, Machine, Pictures, Recording, Rows, TokenShape,
};
use super::plan::Sizes;

/// What is wanted of every picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Pixels of a side, a multiple of 14.
    pub(crate) side: usize,
    /// Blocks (0-based) whose output is normed and returned, in rising order.
    pub(crate) layers: Vec<usize>,
    /// CLS alone, or all tokens.
    pub(crate) cls_only: bool,
}

impl Ask {
    /// Values that each picture and layer gives.
    pub(crate) fn values(&self, config: &VitConfig) -> usize {
        let tokens = if self.cls_only { 1 } else { Sizes::of(config, 1, self.side).tokens };
        tokens * config.embed_dim
    }
}

/// A backbone on a device.
pub(crate) struct Resident<M: Machine> {
    config: VitConfig,
    patch: M::Matrix,
    prefix: M::Wide,
    blocks: Vec<Block<M>>,
    norm: Affine<M::Wide>,
    /// Position embeddings plus the patch bias, by side in patches.
    positions: HashMap<usize, M::Wide>,
}

struct Block<M: Machine> {
    norm1: Affine<M::Wide>,
    qkv: M::Matrix,
    proj: M::Matrix,
    norm2: Affine<M::Wide>,
    up: M::Matrix,
    down: M::Matrix,
}

/// Buffers of a pass, for batches up to a size.
pub(crate) struct Workspace<M: Machine> {
    sizes: Sizes,
    residual: M::Wide,
    sums: M::Wide,
    normed: M::Narrow,
    qkv: M::Narrow,
    up: M::Narrow,
    gated: Option<M::Narrow>,
}

impl<M: Machine> Workspace<M> {
    /// Makes all buffers.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`] when they do not fit.
    pub(crate) fn new(machine: &mut M, sizes: Sizes) -> Result<Self, Fault> {
        Ok(Self {
            residual: machine.wide(sizes.wide())?,
            sums: machine.wide(sizes.wide())?,
            normed: machine.narrow(sizes.rows() * sizes.dim)?,
            qkv: machine.narrow(sizes.qkv())?,
            up: machine.narrow(sizes.rows() * sizes.up)?,
            gated: match sizes.gated() {
                0 => None,
                values => Some(machine.narrow(values)?),
            },
            sizes,
        })
    }

    /// Whether a batch has room in it.
    pub(crate) fn holds(&self, batch: usize, side: usize) -> bool {
        self.sizes.side == side && batch <= self.sizes.batch
    }
}

impl<M: Machine> Resident<M> {
    /// Brings the parameters to the device.
    ///
    /// # Errors
    /// Its memory does not suffice, or it failed.
    pub(crate) fn load(machine: &mut M, from: &Folded) -> Result<Self, Fault> {
        let affine = |machine: &mut M, norm: &folded::Norm| -> Result<_, Fault> {
            Ok(Affine { gain: machine.upload(&norm.gain)?, shift: machine.upload(&norm.shift)? })
        };
        let mut blocks = Vec::with_capacity(from.blocks.len());
        for block in &from.blocks {
            blocks.push(Block {
                norm1: affine(machine, &block.norm1)?,
                qkv: machine.matrix(&block.qkv)?,
                proj: machine.matrix(&block.proj)?,
                norm2: affine(machine, &block.norm2)?,
                up: machine.matrix(&block.up)?,
                down: machine.matrix(&block.down)?,
            });
        }
        Ok(Self {
            config: from.config.clone(),
            patch: machine.matrix(&from.patch)?,
            prefix: machine.upload(&from.prefix)?,
            blocks,
            norm: affine(machine, &from.norm)?,
            positions: HashMap::new(),
        })
    }

    /// Brings position embeddings for pictures of this size to the device, once.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn prepare(
        &mut self,
        machine: &mut M,
        side: usize,
        positions: impl FnOnce(usize) -> Vec<f32>,
    ) -> Result<(), Fault> {
        let grid = side / PATCH_SIZE;
        if let Entry::Vacant(place) = self.positions.entry(grid) {
            place.insert(machine.upload(&positions(grid))?);
        }
        Ok(())
    }

    /// Queues the pass over a batch that was staged in `slot`. What all layers but the last give is
    /// appended to `out`, which waits for it; the last one's is left for [`collect`](Self::collect).
    ///
    /// # Errors
    /// The device could not.
    pub(crate) fn launch(
        &self,
        machine: &mut M,
        space: &mut Workspace<M>,
        (slot, batch): (usize, usize),
        ask: &Ask,
        out: &mut Vec<Vec<f32>>,
    ) -> Result<(), Fault> {
        let sizes = Sizes { batch, ..space.sizes };
        let Some(positions) = self.positions.get(&(ask.side / PATCH_SIZE)) else {
            return Err(Fault::Refused(format!("{} px was not prepared", ask.side)));
        };
        let pictures = Pictures { batch, side: ask.side };
        machine.patches(slot, pictures, &mut space.qkv)?;
        let patches = batch * sizes.patches;
        machine.product_wide(&space.qkv, patches, &self.patch, false, &mut space.sums)?;
        let shape = TokenShape {
            batch,
            prefix: self.config.num_prefix_tokens(),
            patches: sizes.patches,
            dim: sizes.dim,
        };
        machine.tokens(&space.sums, &self.prefix, positions, shape, &mut space.residual)?;
        for (index, block) in self.blocks.iter().enumerate() {
            self.block(machine, space, block, &sizes)?;
            if ask.layers.contains(&index) {
                machine.norm_wide(
                    &space.residual,
                    wanted(&sizes, ask),
                    &self.norm,
                    &mut space.sums,
                )?;
                if ask.layers.last() == Some(&index) {
                    return Ok(());
                }
                out.push(self.values(machine, space, batch, ask)?);
            }
        }
        Err(Fault::Refused("no layer was asked for".to_owned()))
    }

    /// Waits for what [`launch`](Self::launch) queued, and takes what the last layer gives.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn values(
        &self,
        machine: &mut M,
        space: &Workspace<M>,
        batch: usize,
        ask: &Ask,
    ) -> Result<Vec<f32>, Fault> {
        let mut values = Vec::new();
        machine.download(&space.sums, batch * ask.values(&self.config), &mut values)?;
        Ok(values)
    }

    fn block(
        &self,
        machine: &mut M,
        space: &mut Workspace<M>,
        block: &Block<M>,
        sizes: &Sizes,
    ) -> Result<(), Fault> {
        let (rows, all) = (sizes.rows(), Rows { count: sizes.rows(), step: 1 });
        machine.norm(&space.residual, all, &block.norm1, &mut space.normed)?;
        machine.product(&space.normed, rows, &block.qkv, Activation::None, &mut space.qkv)?;
        let heads = Heads {
            batch: sizes.batch,
            tokens: sizes.tokens,
            heads: sizes.heads,
            width: sizes.dim / sizes.heads,
        };
        let attended = machine.attention(&space.qkv, heads)?;
        machine.product_wide(&attended, rows, &block.proj, true, &mut space.residual)?;
        drop(attended);

        machine.norm(&space.residual, all, &block.norm2, &mut space.normed)?;
        let act = match self.config.ffn {
            FfnKind::Mlp => Activation::Gelu,
            FfnKind::SwiGlu => Activation::None,
        };
        machine.product(&space.normed, rows, &block.up, act, &mut space.up)?;
        let hidden = match &mut space.gated {
            Some(gated) => {
                machine.swiglu(&space.up, rows, sizes.hidden, gated)?;
                gated
            }
            None => &space.up,
        };
        machine.product_wide(hidden, rows, &block.down, true, &mut space.residual)
    }
}

/// Rows of the residual stream that are wanted.
fn wanted(sizes: &Sizes, ask: &Ask) -> Rows {
    match ask.cls_only {
        true => Rows { count: sizes.batch, step: sizes.tokens },
        false => Rows { count: sizes.rows(), step: 1 },
    }
}

/// The key of a pass that can be recorded: what it queues depends on nothing else.
pub(crate) fn recording(slot: usize, batch: usize, ask: &Ask, depth: usize) -> Option<Recording> {
    let whole = ask.cls_only && ask.layers == [depth - 1];
    whole.then_some(Recording { slot, batch, side: ask.side })
}
