//! The whole backbone: pixels in, final-normed tokens out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use super::block::Block;
use super::config::{PosEmbedRule, VitConfig};
use super::layers::{LayerNorm, Loader};
use super::patch_embed::PatchEmbed;
use super::pos_embed;
use super::weights::Weights;
use crate::error::{EngineError, Result};
use crate::features::Features;

/// A point of the forward pass whose activations can be observed; see
/// [`VisionTransformer::forward_observed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Patch tokens before position embeddings, (B, N, C).
    PatchEmbed,
    /// CLS, registers and patches as they enter the first block, (B, 1 + R + N, C).
    Tokens,
    /// After the attention residual of block i.
    Attention(usize),
    /// After the feed-forward residual of block i, that is, its output.
    Block(usize),
    /// After the final layer norm.
    Norm,
}

/// A frozen DINOv2 backbone on one device, in one dtype.
pub struct VisionTransformer {
    config: VitConfig,
    rule: PosEmbedRule,
    device: Device,
    dtype: DType,
    patch_embed: PatchEmbed,
    /// CLS with its position embedding and the registers (which have none): (1, 1 + R, C).
    prefix: Tensor,
    /// Stored patch position embeddings, row-major grid, on the CPU in f32.
    pos_table: Vec<f32>,
    /// Resampled position embeddings, (1, N, C), by (rows, columns).
    pos_cache: Mutex<HashMap<(usize, usize), Tensor>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl std::fmt::Debug for VisionTransformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VisionTransformer")
            .field("config", &self.config)
            .field("rule", &self.rule)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

impl VisionTransformer {
    /// Loads checked weights onto a device.
    ///
    /// # Errors
    /// A tensor holds a value that is not finite, or the device refuses it.
    pub fn load(
        weights: &Weights,
        rule: PosEmbedRule,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let config = weights.config().clone();
        let from = Loader { weights, device, dtype };
        let dim = config.embed_dim;

        let mut pos_table = weights.values("pos_embed")?.unwrap_or_default();
        let mut prefix = weights.values("cls_token")?.unwrap_or_default();
        if !weights.layout().cls_outside_pos_embed(config.num_register_tokens) {
            let patches = pos_table.split_off(dim);
            prefix.iter_mut().zip(&pos_table).for_each(|(cls, pos)| *cls += pos);
            pos_table = patches;
        }
        prefix.extend(weights.values("register_tokens")?.unwrap_or_default());
        let prefix = Tensor::from_vec(prefix, (1, config.num_prefix_tokens(), dim), device)?;

        Ok(Self {
            patch_embed: PatchEmbed::load(&from, &config)?,
            prefix: prefix.to_dtype(dtype)?,
            pos_table,
            pos_cache: Mutex::default(),
            blocks: (0..config.depth)
                .map(|i| Block::load(&from, i, &config))
                .collect::<Result<_>>()?,
            norm: LayerNorm::load(&from, "norm", dim)?,
            rule,
            device: device.clone(),
            dtype,
            config,
        })
    }

    /// Shape of the backbone.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// How position embeddings are resampled.
    pub fn pos_embed_rule(&self) -> PosEmbedRule {
        self.rule
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Features of a batch.
    ///
    /// `pixels` is (B, 3, H, W), normalised, on any device and of any floating dtype; H and W are
    /// multiples of 14, in any aspect ratio.
    ///
    /// # Errors
    /// [`EngineError::InputShape`], or a failed tensor operation.
    pub fn forward(&self, pixels: &Tensor) -> Result<Features> {
        self.forward_observed(pixels, &mut |_, _| Ok(()))
    }

    /// Like [`forward`](Self::forward), showing the activations of every stage on the way.
    ///
    /// # Errors
    /// As `forward`; an error of `observe` ends the pass.
    pub fn forward_observed(
        &self,
        pixels: &Tensor,
        observe: &mut dyn FnMut(Stage, &Tensor) -> Result<()>,
    ) -> Result<Features> {
        let pixels = pixels.to_device(&self.device)?.to_dtype(self.dtype)?;
        let (patches, grid) = self.patch_embed.forward(&pixels)?;
        observe(Stage::PatchEmbed, &patches)?;
        let batch = patches.dim(0)?;
        let patches = patches.broadcast_add(&self.pos_embed(grid)?)?;
        let prefix_shape = (batch, self.config.num_prefix_tokens(), self.config.embed_dim);
        let prefix = self.prefix.expand(prefix_shape)?;
        let mut x = Tensor::cat(&[&prefix, &patches], 1)?;
        observe(Stage::Tokens, &x)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.attend(&x)?;
            observe(Stage::Attention(i), &x)?;
            x = block.transform(&x)?;
            observe(Stage::Block(i), &x)?;
        }
        let x = self.norm.forward(&x)?;
        observe(Stage::Norm, &x)?;
        Features::from_tokens(&x, self.config.num_register_tokens, grid)
    }

    /// Features after the given blocks (0-based), final norm applied to each, in the order asked
    /// for. Dense heads use blocks 3/6/9/12 of S and B, 5/12/18/24 of L, 10/20/30/40 of g
    /// (counted from 1).
    ///
    /// # Errors
    /// [`EngineError::NoSuchLayer`], or as [`forward`](Self::forward).
    pub fn intermediate_layers(&self, pixels: &Tensor, layers: &[usize]) -> Result<Vec<Features>> {
        let depth = self.config.depth;
        if let Some(&layer) = layers.iter().find(|&&layer| layer >= depth) {
            return Err(EngineError::NoSuchLayer { layer, depth });
        }
        let mut outputs = HashMap::new();
        let last = self.forward_observed(pixels, &mut |stage, x| {
            if let Stage::Block(i) = stage
                && layers.contains(&i)
            {
                outputs.insert(i, self.norm.forward(x)?);
            }
            Ok(())
        })?;
        let registers = self.config.num_register_tokens;
        layers.iter().map(|i| Features::from_tokens(&outputs[i], registers, last.grid)).collect()
    }

    /// Position embeddings for a grid, (1, N, C), resampled on first use.
    fn pos_embed(&self, grid: (usize, usize)) -> Result<Tensor> {
        // A cache of immutable tensors cannot be left half-written, so poison is harmless.
        let mut cache = self.pos_cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache.get(&grid) {
            return Ok(known.clone());
        }
        let rows = pos_embed::resample(&self.pos_table, &self.config, self.rule, grid);
        let shape = (1, grid.0 * grid.1, self.config.embed_dim);
        let tensor = Tensor::from_vec(rows, shape, &self.device)?.to_dtype(self.dtype)?;
        cache.insert(grid, tensor.clone());
        Ok(tensor)
    }
}
