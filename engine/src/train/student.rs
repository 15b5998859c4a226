//! A backbone with trainable parameters, run over packed crops of any sizes.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};

use super::ops::{
    MatmulPrecision, SequenceLengths, attention, gelu, layer_norm, linear, scaled_residual,
};
use crate::error::{EngineError, Result};
use crate::vit::config::{FfnKind, PATCH_SIZE, PosEmbedRule, VitConfig};
use crate::vit::{Weights, pos_embed};

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

/// Final-normed tokens of a batch of crops of one size.
#[derive(Debug)]
pub struct CropTokens {
    /// `x_norm_clstoken`, (B, C).
    pub cls: Tensor,
    /// `x_norm_patchtokens`, (B, N, C), row-major.
    pub patches: Tensor,
    /// Patch rows and columns.
    pub grid: (usize, usize),
}

impl Student {
    /// Starts from weights, in f32.
    ///
    /// # Errors
    /// The weights are unsound, do not fit the device, or are of a SwiGLU model (ViT-g), which
    /// cannot be trained yet.
    pub fn from_weights(
        weights: &Weights,
        rule: PosEmbedRule,
        precision: MatmulPrecision,
        device: &Device,
    ) -> Result<Self> {
        let config = weights.config().clone();
        if config.ffn != FfnKind::Mlp {
            return Err(unsupported("training knows MLP blocks only, not SwiGLU (ViT-g)"));
        }
        let (dim, hidden) = (config.embed_dim, config.ffn_hidden_dim);
        let table = config.pos_embed_grid * config.pos_embed_grid;
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("cls_token".into(), vec![1, dim]),
            ("patch_embed.proj.weight".into(), vec![dim, 3 * PATCH_SIZE * PATCH_SIZE]),
            ("patch_embed.proj.bias".into(), vec![dim]),
            ("norm.weight".into(), vec![dim]),
            ("norm.bias".into(), vec![dim]),
        ];
        if config.num_register_tokens > 0 {
            shapes.push(("register_tokens".into(), vec![config.num_register_tokens, dim]));
        }
        for i in 0..config.depth {
            let mut add = |part: &str, shape: &[usize]| {
                shapes.push((format!("blocks.{i}.{part}"), shape.to_vec()));
            };
            for norm in ["norm1", "norm2"] {
                add(&format!("{norm}.weight"), &[dim]);
                add(&format!("{norm}.bias"), &[dim]);
            }
            let products =
                [("attn.qkv", dim, 3 * dim), ("attn.proj", dim, dim), ("mlp.fc1", dim, hidden)];
            for (name, input, output) in products.into_iter().chain([("mlp.fc2", hidden, dim)]) {
                add(&format!("{name}.weight"), &[output, input]);
                add(&format!("{name}.bias"), &[output]);
            }
            add("ls1.gamma", &[dim]);
            add("ls2.gamma", &[dim]);
        }
        let mut parameters = BTreeMap::new();
        for (name, shape) in shapes {
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

    /// Shape of the backbone.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Every trainable parameter, by the names of the original release: matrices (out, in), tables
    /// (rows, C), vectors (C).
    pub fn parameters(&self) -> &BTreeMap<String, Var> {
        &self.parameters
    }

    /// Tokens of several batches of crops, each (B, 3, H, W), normalised, of its own size, computed
    /// as one packed sequence: equal to separate passes.
    ///
    /// # Errors
    /// [`EngineError::InputShape`], or a failed tensor operation.
    pub fn forward(&mut self, crops: &[Tensor]) -> Result<Vec<CropTokens>> {
        let mut packed = Vec::new();
        let mut lengths = Vec::new();
        let mut shapes = Vec::new();
        for pixels in crops {
            let (tokens, grid) = self.embed(pixels)?;
            let (batch, count, dim) = tokens.dims3()?;
            lengths.extend(std::iter::repeat_n(count, batch));
            shapes.push((batch, count, grid));
            packed.push(tokens.reshape((batch * count, dim))?);
        }
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        let lengths = SequenceLengths::new(lengths);
        let mut x = Tensor::cat(&packed, 0)?;
        for i in 0..self.config.depth {
            x = self.block(i, &x, &lengths)?;
        }
        let x = layer_norm(&x, self.get("norm.weight")?, self.get("norm.bias")?)?;
        let prefix = self.config.num_prefix_tokens();
        let mut start = 0;
        shapes
            .into_iter()
            .map(|(batch, count, grid)| {
                let rows = x.narrow(0, start, batch * count)?.reshape((batch, count, ()))?;
                start += batch * count;
                let cls = rows.narrow(1, 0, 1)?.squeeze(1)?;
                Ok(CropTokens { cls, patches: rows.narrow(1, prefix, count - prefix)?, grid })
            })
            .collect()
    }

    fn block(&self, i: usize, x: &Tensor, lengths: &SequenceLengths) -> Result<Tensor> {
        let get = |part: &str| self.get(&format!("blocks.{i}.{part}"));
        let norm = |name: &str, x: &Tensor| {
            layer_norm(x, get(&format!("{name}.weight"))?, get(&format!("{name}.bias"))?)
        };
        let product = |name: &str, x: &Tensor| {
            let (weight, bias) = (get(&format!("{name}.weight"))?, get(&format!("{name}.bias"))?);
            linear(x, weight, bias, self.precision)
        };
        let qkv = product("attn.qkv", &norm("norm1", x)?)?;
        let branch = product("attn.proj", &attention(&qkv, lengths, self.config.num_heads)?)?;
        let x = scaled_residual(x, &branch, get("ls1.gamma")?)?;
        let hidden = gelu(&product("mlp.fc1", &norm("norm2", &x)?)?)?;
        scaled_residual(&x, &product("mlp.fc2", &hidden)?, get("ls2.gamma")?)
    }

    /// Pixels to tokens with positions, (B, 1 + R + N, C).
    fn embed(&mut self, pixels: &Tensor) -> Result<(Tensor, (usize, usize))> {
        let shape_error = || EngineError::InputShape {
            got: pixels.dims().to_vec(),
            expected: "(batch >= 1, 3, height, width) with height and width multiples of 14",
        };
        let &[batch, 3, height, width] = pixels.dims() else { return Err(shape_error()) };
        let grid = (height / PATCH_SIZE, width / PATCH_SIZE);
        let count = grid.0 * grid.1;
        if batch * count == 0 || (grid.0 * PATCH_SIZE, grid.1 * PATCH_SIZE) != (height, width) {
            return Err(shape_error());
        }
        let patches = pixels
            .reshape(&[batch, 3, grid.0, PATCH_SIZE, grid.1, PATCH_SIZE][..])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((batch * count, 3 * PATCH_SIZE * PATCH_SIZE))?;
        let resampler = self.resampler(grid)?;
        let dim = self.config.embed_dim;
        let weight = self.get("patch_embed.proj.weight")?;
        let bias = self.get("patch_embed.proj.bias")?;
        let patches = linear(&patches, weight, bias, self.precision)?;
        let table = self.get("pos_embed")?;
        let positions = resampler.matmul(&table.narrow(0, 1, table.dim(0)? - 1)?)?;
        let patches = patches.reshape((batch, count, dim))?.broadcast_add(&positions)?;
        let mut prefix = (self.get("cls_token")? + table.narrow(0, 0, 1)?)?;
        if self.config.num_register_tokens > 0 {
            prefix = Tensor::cat(&[&prefix, self.get("register_tokens")?], 0)?;
        }
        let prefix = prefix.unsqueeze(0)?.broadcast_as((batch, prefix.dim(0)?, dim))?;
        Ok((Tensor::cat(&[&prefix, &patches], 1)?, grid))
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
