//! The forward pass over packed crops, whole or with its blocks' insides forgotten until they are
//! needed again.

use candle_core::backprop::GradStore;
use candle_core::{D, Tensor, Var};

use super::drop_path::{Branch, CropGroup};
use super::{DropPlan, Student};
use crate::error::{EngineError, Result};
use crate::train::ops::{
    SequenceLengths, add_to_rows, attention, gather_rows, gelu, layer_norm, linear,
    materialised_attention, scaled_residual,
};
use crate::vit::config::{FfnKind, PATCH_SIZE};

/// A batch of crops of one size.
#[derive(Clone, Debug)]
pub struct Crops {
    /// (B, 3, H, W), normalised.
    pub pixels: Tensor,
    /// Patches to hide, (B, N), u8, row-major, 1 where hidden.
    pub masked: Option<Tensor>,
}

impl From<Tensor> for Crops {
    fn from(pixels: Tensor) -> Self {
        Self { pixels, masked: None }
    }
}

/// How a pass is computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// What stochastic depth keeps; everything if absent.
    pub drop_path: Option<&'a DropPlan>,
    /// Keep the inputs of blocks only and compute the rest again for the gradient: the same
    /// gradient bit for bit, for a third more time and a fraction of the memory.
    pub checkpointing: bool,
    /// Compute dropped branches and multiply them by zero, and keep all attention weights: the
    /// usual way, for comparison.
    pub plain: bool,
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

/// What a forward pass gives, and what its gradient needs.
#[derive(Debug)]
pub struct Pass {
    /// By crop size, in the order given.
    pub tokens: Vec<CropTokens>,
    forgotten: Option<Forgotten>,
}

/// A pass whose blocks are to be computed again.
#[derive(Debug)]
struct Forgotten {
    groups: Vec<CropGroup>,
    drop_path: Option<DropPlan>,
    plain: bool,
    /// Input of the first block, with the graph that leads to it.
    embedded: Tensor,
    /// Input of each block, without.
    inputs: Vec<Tensor>,
    /// Output of the last block, as a leaf of the graph that follows.
    output: Var,
}

impl Student {
    /// Tokens of several batches of crops, each (B, 3, H, W), normalised, of its own size, computed
    /// as one packed sequence: equal to separate passes.
    ///
    /// # Errors
    /// [`EngineError::InputShape`], or a failed tensor operation.
    pub fn forward(&mut self, crops: &[Tensor]) -> Result<Vec<CropTokens>> {
        let crops: Vec<Crops> = crops.iter().cloned().map(Crops::from).collect();
        Ok(self.pass(&crops, How::default())?.tokens)
    }

    /// [`forward`](Self::forward) with masks, stochastic depth and checkpointing. Gradients are to
    /// be asked of [`backward`](Self::backward).
    ///
    /// # Errors
    /// As [`forward`](Self::forward); a mask of another shape, or for a student without mask token;
    /// a drop-path plan of another pass.
    pub fn pass(&mut self, crops: &[Crops], how: How) -> Result<Pass> {
        let (mut packed, mut groups) = (Vec::new(), Vec::new());
        for crops in crops {
            let (tokens, grid) = self.embed(crops)?;
            let (batch, count, dim) = tokens.dims3()?;
            groups.push(CropGroup { batch, count, grid });
            packed.push(tokens.reshape((batch * count, dim))?);
        }
        if packed.is_empty() {
            return Ok(Pass { tokens: Vec::new(), forgotten: None });
        }
        let embedded = Tensor::cat(&packed, 0)?;
        if !how.checkpointing {
            let mut x = embedded;
            for i in 0..self.config.depth {
                x = self.block(i, &x, &groups, how)?;
            }
            return Ok(Pass { tokens: self.unpack(&x, &groups)?, forgotten: None });
        }
        let without_graph = self.frozen();
        let mut inputs = Vec::with_capacity(self.config.depth);
        let mut x = embedded.detach();
        for i in 0..self.config.depth {
            inputs.push(x.clone());
            x = without_graph.block(i, &x, &groups, how)?;
        }
        let output = Var::from_tensor(&x)?;
        let tokens = self.unpack(&output, &groups)?;
        let (drop_path, plain) = (how.drop_path.cloned(), how.plain);
        let forgotten = Forgotten { groups, drop_path, plain, embedded, inputs, output };
        Ok(Pass { tokens, forgotten: Some(forgotten) })
    }

    /// Gradients of `loss`, a scalar made from the tokens of `passes`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn backward(&self, passes: &[Pass], loss: &Tensor) -> Result<GradStore> {
        let mut gradients = loss.backward()?;
        for pass in passes.iter().filter_map(|pass| pass.forgotten.as_ref()) {
            if let Some(upstream) = gradients.remove(&pass.output) {
                self.recompute(pass, upstream, &mut gradients)?;
            }
        }
        Ok(gradients)
    }

    /// Adds the gradients of a forgotten pass, from that of its last block's output.
    fn recompute(
        &self,
        pass: &Forgotten,
        mut upstream: Tensor,
        gradients: &mut GradStore,
    ) -> Result<()> {
        let how =
            How { drop_path: pass.drop_path.as_ref(), checkpointing: false, plain: pass.plain };
        // d sum(out * upstream) / d out is `upstream`, exactly.
        let vector_product = |out: &Tensor, upstream: &Tensor| -> Result<GradStore> {
            Ok((out * upstream)?.sum_all()?.backward()?)
        };
        for (i, input) in pass.inputs.iter().enumerate().rev() {
            let input = Var::from_tensor(input)?;
            let out = self.block(i, &input, &pass.groups, how)?;
            let mut part = vector_product(&out, &upstream)?;
            let prefix = format!("blocks.{i}.");
            let own = self.parameters.iter().filter(|(name, _)| name.starts_with(&prefix));
            for (_, parameter) in own {
                merge(gradients, &mut part, parameter)?;
            }
            upstream = part.remove(&input).ok_or_else(|| EngineError::Training {
                reason: format!("block {i} gave no gradient"),
            })?;
        }
        let mut part = vector_product(&pass.embedded, &upstream)?;
        for parameter in self.parameters.values() {
            merge(gradients, &mut part, parameter)?;
        }
        Ok(())
    }

    /// Final norm, and tokens by crop size.
    fn unpack(&self, x: &Tensor, groups: &[CropGroup]) -> Result<Vec<CropTokens>> {
        let x = layer_norm(x, self.get("norm.weight")?, self.get("norm.bias")?)?;
        let prefix = self.config.num_prefix_tokens();
        let mut start = 0;
        groups
            .iter()
            .map(|&CropGroup { batch, count, grid }| {
                let rows = x.narrow(0, start, batch * count)?.reshape((batch, count, ()))?;
                start += batch * count;
                let cls = rows.narrow(1, 0, 1)?.squeeze(1)?;
                Ok(CropTokens { cls, patches: rows.narrow(1, prefix, count - prefix)?, grid })
            })
            .collect()
    }

    fn block(&self, i: usize, x: &Tensor, groups: &[CropGroup], how: How) -> Result<Tensor> {
        let x = self.residual(i, Branch::Attention, x, groups, how)?;
        self.residual(i, Branch::FeedForward, &x, groups, how)
    }

    /// `x` plus a branch of a block, computed for the sequences that stochastic depth keeps.
    fn residual(
        &self,
        i: usize,
        branch: Branch,
        x: &Tensor,
        groups: &[CropGroup],
        how: How,
    ) -> Result<Tensor> {
        let gamma = self.get(&match branch {
            Branch::Attention => format!("blocks.{i}.ls1.gamma"),
            Branch::FeedForward => format!("blocks.{i}.ls2.gamma"),
        })?;
        let all = || {
            let lengths = groups.iter().flat_map(|g| std::iter::repeat_n(g.count, g.batch));
            SequenceLengths::new(lengths)
        };
        let Some(plan) = how.drop_path else {
            return scaled_residual(x, &self.branch(i, branch, x, &all(), how.plain)?, gamma);
        };
        let (subset, lengths) = plan.subset(i, branch, groups)?;
        if how.plain {
            let out = self.branch(i, branch, x, &all(), true)?;
            let mask = subset.to_mask(x.dim(0)?, x)?;
            return scaled_residual(x, &out.broadcast_mul(&mask)?, gamma);
        }
        let out = self.branch(i, branch, &gather_rows(x, &subset)?, &lengths, false)?;
        add_to_rows(x, &out, gamma, &subset)
    }

    fn branch(
        &self,
        i: usize,
        branch: Branch,
        x: &Tensor,
        lengths: &SequenceLengths,
        plain: bool,
    ) -> Result<Tensor> {
        let get = |part: &str| self.get(&format!("blocks.{i}.{part}"));
        let norm = |name: &str, x: &Tensor| {
            layer_norm(x, get(&format!("{name}.weight"))?, get(&format!("{name}.bias"))?)
        };
        let product = |name: &str, x: &Tensor| {
            let (weight, bias) = (get(&format!("{name}.weight"))?, get(&format!("{name}.bias"))?);
            linear(x, weight, bias, self.precision)
        };
        match branch {
            Branch::Attention => {
                let qkv = product("attn.qkv", &norm("norm1", x)?)?;
                let heads = self.config.num_heads;
                let out = match plain {
                    true => materialised_attention(&qkv, lengths, heads)?,
                    false => attention(&qkv, lengths, heads)?,
                };
                product("attn.proj", &out)
            }
            Branch::FeedForward => match self.config.ffn {
                FfnKind::Mlp => {
                    product("mlp.fc2", &gelu(&product("mlp.fc1", &norm("norm2", x)?)?)?)
                }
                FfnKind::SwiGlu => {
                    let halves = product("mlp.w12", &norm("norm2", x)?)?.chunk(2, D::Minus1)?;
                    product("mlp.w3", &(halves[0].silu()? * &halves[1])?)
                }
            },
        }
    }

    /// Pixels to tokens with positions, (B, 1 + R + N, C).
    fn embed(&mut self, crops: &Crops) -> Result<(Tensor, (usize, usize))> {
        let pixels = &crops.pixels;
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
        let mut patches = linear(&patches, weight, bias, self.precision)?;
        if let Some(masked) = &crops.masked {
            if masked.dims() != [batch, count] {
                return Err(EngineError::InputShape {
                    got: masked.dims().to_vec(),
                    expected: "one mask value for each patch of each crop",
                });
            }
            let shape = (batch * count, dim);
            let masked = masked.reshape((batch * count, 1))?.broadcast_as(shape)?;
            let token = self.get("mask_token")?.broadcast_as(shape)?;
            patches = masked.where_cond(&token, &patches)?;
        }
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
}

/// Moves the gradient of `parameter` from `part` to `total`, adding it to what is there.
fn merge(total: &mut GradStore, part: &mut GradStore, parameter: &Tensor) -> Result<()> {
    if let Some(gradient) = part.remove(parameter) {
        let sum = match total.get(parameter) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        total.insert(parameter, sum);
    }
    Ok(())
}
