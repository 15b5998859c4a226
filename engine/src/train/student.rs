//! A backbone with trainable parameters, run over packed crops of any sizes.

mod drop_path;
mod forward;
pub(super) mod init;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};

use super::ops::MatmulPrecision;
use crate::error::{EngineError, Result};
use crate::vit::config::{PosEmbedRule, VitConfig};
use crate::vit::{Weights, pos_embed};

pub use drop_path::DropPlan;
pub use forward::{CropTokens, Crops, How, Pass};

/// Side of the patch grid at 224 px, the size of the published pretraining and evaluation.
const PUBLISHED_GRID: usize = 16;

/// A DINOv2 backbone under training: the same function as
/// [`VisionTransformer`](crate::vit::VisionTransformer), differentiable.
#[derive(Debug)]
pub struct Student {
    config: VitConfig,
    rule: PosEmbedRule,
    precision: MatmulPrecision,
    device: Device,
    /// By the names of the original release.
    parameters: BTreeMap<String, Var>,
    /// The same values as operations see them: detached when frozen, so that no graph is kept.
    tensors: BTreeMap<String, Tensor>,
    /// Matrices (rows x columns, stored grid^2) that resample position embeddings, by grid.
    resamplers: HashMap<(usize, usize), Tensor>,
}

impl Student {
    /// Starts from weights, in f32.
    ///
    /// # Errors
    /// The weights are unsound, or do not fit the device.
    pub fn from_weights(
        weights: &Weights,
        rule: PosEmbedRule,
        precision: MatmulPrecision,
        device: &Device,
    ) -> Result<Self> {
        let config = weights.config().clone();
        let dim = config.embed_dim;
        let table = config.pos_embed_grid * config.pos_embed_grid;
        let mut parameters = BTreeMap::new();
        for (name, shape) in init::shapes(&config) {
            let tensor = weights.tensor(&name, &shape, DType::F32, device)?;
            parameters.insert(name, Var::from_tensor(&tensor)?);
        }
        // Files that keep the position of CLS inside CLS get a row of zeros for it.
        let mut positions = weights.values("pos_embed")?.unwrap_or_default();
        if positions.len() == table * dim {
            positions.splice(0..0, std::iter::repeat_n(0.0, dim));
        }
        let positions = Tensor::from_vec(positions, (1 + table, dim), device)?;
        parameters.insert("pos_embed".into(), Var::from_tensor(&positions)?);
        Ok(Self::new(config, rule, precision, device.clone(), parameters))
    }

    /// Starts from random values, as the reference does, with a mask token: matrices and positions
    /// normal with deviation 0.02, LayerScale 1e-5. A function of the seed.
    ///
    /// # Errors
    /// Heads that do not divide the width, or a device that refuses the memory.
    pub fn random(
        config: VitConfig,
        rule: PosEmbedRule,
        precision: MatmulPrecision,
        device: &Device,
        seed: u64,
    ) -> Result<Self> {
        let VitConfig { embed_dim: width, depth, num_heads: heads, .. } = config;
        if depth == 0 || heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            let message = format!(
                "there is no backbone {width} wide with {depth} blocks and {heads} heads: take at \
                 least one block, and heads that divide the width"
            );
            return Err(unsupported(&message));
        }
        let parameters = init::random(&config, seed, device)?;
        Ok(Self::new(config, rule, precision, device.clone(), parameters))
    }

    /// Adds the token that stands for masked patches: that of `weights` if they have one, zeros
    /// (as the reference starts) otherwise. A student that has one keeps it.
    ///
    /// # Errors
    /// The weights are unsound, or do not fit the device.
    pub fn add_mask_token(&mut self, weights: Option<&Weights>) -> Result<()> {
        let dim = self.config.embed_dim;
        if self.parameters.contains_key("mask_token") {
            return Ok(());
        }
        let values = match weights {
            Some(weights) => weights.values("mask_token")?.filter(|v| v.len() == dim),
            None => None,
        };
        let values = values.unwrap_or_else(|| vec![0.0; dim]);
        let token = init::variable(values, &[1, dim], &self.device)?;
        self.tensors.insert("mask_token".to_owned(), token.as_tensor().clone());
        self.parameters.insert("mask_token".to_owned(), token);
        Ok(())
    }

    /// Sets every LayerScale to `value`. The published 1e-5 lets deep models start gently, and
    /// short runs from random values slowly: at first all pictures get nearly the same CLS token.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn set_layer_scale(&self, value: f64) -> Result<()> {
        for (_, gamma) in self.parameters.iter().filter(|(name, _)| name.ends_with(".gamma")) {
            let values = Tensor::full(value as f32, gamma.shape(), &self.device)?;
            gamma.set(&values)?;
        }
        Ok(())
    }

    /// A copy with parameters of its own, without gradients: a teacher at its start.
    ///
    /// # Errors
    /// The device refuses the memory.
    pub fn frozen_copy(&self) -> Result<Self> {
        let copy = |(name, parameter): (&String, &Var)| -> Result<(String, Var)> {
            Ok((name.clone(), Var::from_tensor(&parameter.as_detached_tensor().copy()?)?))
        };
        let parameters = self.parameters.iter().map(copy).collect::<Result<_>>()?;
        let copy = Self::new(
            self.config.clone(),
            self.rule,
            self.precision,
            self.device.clone(),
            parameters,
        );
        Ok(copy.frozen())
    }

    fn new(
        config: VitConfig,
        rule: PosEmbedRule,
        precision: MatmulPrecision,
        device: Device,
        parameters: BTreeMap<String, Var>,
    ) -> Self {
        let tensors = parameters.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
        Self { config, rule, precision, device, parameters, tensors, resamplers: HashMap::new() }
    }

    /// The same function without gradients; its parameters are shared, not copied.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let parameters = self.parameters.clone();
        let mut frozen = Self::new(
            self.config.clone(),
            self.rule,
            self.precision,
            self.device.clone(),
            parameters,
        );
        frozen.tensors.values_mut().for_each(|tensor| *tensor = tensor.detach());
        frozen
    }

    /// A student that starts as some blocks of this model, in the order given, with an own table
    /// of `grid` x `grid` position embeddings.
    ///
    /// The table is the central window of the positions this model uses at 224 px (the whole,
    /// resampled, where `grid` is larger than 16). Windows keep the distances between positions
    /// that the blocks were trained with; resampling to few patches does not, and costs most of
    /// the model's quality (docs/training.md).
    ///
    /// # Errors
    /// A block that this model lacks, no blocks, an empty grid, or a failed tensor operation.
    pub fn start_from(&mut self, blocks: &[usize], grid: usize) -> Result<Self> {
        let depth = self.config.depth;
        if blocks.is_empty() || grid == 0 || blocks.iter().any(|&block| block >= depth) {
            let message = format!(
                "a student of blocks {blocks:?} on {grid} x {grid} patches cannot start from a \
                 model of {depth} blocks (0 to {}); name at least one of those, and one patch",
                depth - 1
            );
            return Err(unsupported(&message));
        }
        let mut parameters = BTreeMap::new();
        let mut copy = |from: &str, to: String| -> Result<()> {
            parameters.insert(to, Var::from_tensor(&self.get(from)?.detach().copy()?)?);
            Ok(())
        };
        for name in self.parameters.keys().filter(|name| !name.starts_with("blocks.")) {
            copy(name, name.clone())?;
        }
        for (new, old) in blocks.iter().enumerate() {
            let prefix = format!("blocks.{old}.");
            for name in self.parameters.keys() {
                if let Some(part) = name.strip_prefix(&prefix) {
                    copy(name, format!("blocks.{new}.{part}"))?;
                }
            }
        }
        let table = self.get("pos_embed")?.detach();
        let dim = self.config.embed_dim;
        let side = PUBLISHED_GRID.max(grid);
        let patches = self.resampler((side, side))?.matmul(&table.narrow(
            0,
            1,
            self.config.pos_embed_grid * self.config.pos_embed_grid,
        )?)?;
        let start = (side - grid) / 2;
        let window = patches
            .reshape((side, side, dim))?
            .narrow(0, start, grid)?
            .narrow(1, start, grid)?
            .reshape((grid * grid, dim))?;
        let positions = Tensor::cat(&[&table.narrow(0, 0, 1)?, &window], 0)?;
        parameters.insert("pos_embed".to_owned(), Var::from_tensor(&positions)?);
        let config = VitConfig { depth: blocks.len(), pos_embed_grid: grid, ..self.config.clone() };
        Ok(Self::new(config, self.rule, self.precision, self.device.clone(), parameters))
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Arithmetic of its matrix products.
    pub fn precision(&self) -> MatmulPrecision {
        self.precision
    }

    /// Shape of the backbone.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Every trainable parameter, by the names of the original release: matrices (out, in), tables
    /// (rows, C), vectors (C).
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// Resampling is linear, so its matrix is what it makes of the unit tables.
    fn resampler(&mut self, grid: (usize, usize)) -> Result<Tensor> {
        if let Some(found) = self.resamplers.get(&grid) {
            return Ok(found.clone());
        }
        let table = self.config.pos_embed_grid * self.config.pos_embed_grid;
        let mut units = vec![0f32; table * table];
        units.iter_mut().step_by(table + 1).for_each(|x| *x = 1.0);
        let config = VitConfig { embed_dim: table, ..self.config.clone() };
        let matrix = pos_embed::resample(&units, &config, self.rule, grid);
        let matrix = Tensor::from_vec(matrix, (grid.0 * grid.1, table), &self.device)?;
        self.resamplers.insert(grid, matrix.clone());
        Ok(matrix)
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor),
            None => Err(unsupported(&format!("the model has no parameter `{name}`"))),
        }
    }
}

fn unsupported(reason: &str) -> EngineError {
    EngineError::Compute(candle_core::Error::Msg(reason.to_owned()))
}
