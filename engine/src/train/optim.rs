//! AdamW with the published parameter groups, gradient clipping, and the moving average.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor, Var, bail};
use rayon::prelude::*;

use super::ops::is_fused;
use crate::error::Result;
use crate::kernels::elementwise;

/// Values handed to one task.
const VALUES_PER_TASK: usize = 1 << 14;
/// Exponential decay of the two moments (arXiv 2304.07193, table 16, and PyTorch's defaults).
const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// How one parameter is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor on the learning rate.
    pub lr: f64,
    /// Factor on the weight decay: 0 or 1.
    pub weight_decay: f64,
}

impl Group {
    /// The published treatment of a parameter of a backbone of `depth` blocks: the learning rate
    /// falls by `layer_decay` from each block to the one below it, the patch embedding gets
    /// `patch_embed_lr` (0.2) of its own; biases, norms and LayerScale do not decay (reference:
    /// `param_groups.py`).
    pub fn of(name: &str, depth: usize, layer_decay: f64, patch_embed_lr: f64) -> Self {
        let block =
            name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let embeds = ["cls_token", "pos_embed", "mask_token", "register_tokens", "patch_embed."];
        let layer = match block {
            Some(block) => 1usize.saturating_add(block),
            None if embeds.iter().any(|prefix| name.starts_with(prefix)) => 0,
            None => depth + 1,
        };
        let distance = (depth + 1).saturating_sub(layer);
        let mut lr = layer_decay.powi(i32::try_from(distance).unwrap_or(i32::MAX));
        if name.starts_with("patch_embed.") {
            lr *= patch_embed_lr;
        }
        let decays = !(name.ends_with(".bias") || name.contains("norm") || name.contains("gamma"));
        Self { lr, weight_decay: f64::from(u8::from(decays)) }
    }
}

struct Slot {
    variable: Var,
    group: Group,
    first: Tensor,
    second: Tensor,
}

/// AdamW (arXiv 1711.05101) over named parameters.
pub struct AdamW {
    slots: BTreeMap<String, Slot>,
    step: usize,
}

impl std::fmt::Debug for AdamW {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdamW")
            .field("parameters", &self.slots.len())
            .field("step", &self.step)
            .finish()
    }
}

impl AdamW {
    /// With both moments zero.
    ///
    /// # Errors
    /// The device refuses the memory.
    pub fn new(parameters: impl IntoIterator<Item = (String, Var, Group)>) -> Result<Self> {
        let slots = parameters
            .into_iter()
            .map(|(name, variable, group)| {
                let (first, second) = (variable.zeros_like()?, variable.zeros_like()?);
                Ok((name, Slot { variable, group, first, second }))
            })
            .collect::<Result<_>>()?;
        Ok(Self { slots, step: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Norm of all gradients together, in f64.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn gradient_norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut total = 0f64;
        for slot in self.slots.values() {
            if let Some(gradient) = gradients.get(&slot.variable) {
                let sum = gradient.sqr()?.sum_all()?.to_dtype(candle_core::DType::F32)?;
                total += f64::from(sum.to_scalar::<f32>()?);
            }
        }
        Ok(total.sqrt())
    }

    /// One step, gradients first scaled down to a norm of at most `clip` (as PyTorch's
    /// `clip_grad_norm_`). Parameters without a gradient stay as they are. Returns the norm before
    /// clipping; when that is not finite, nothing has been changed.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn step(
        &mut self,
        gradients: &GradStore,
        lr: f64,
        weight_decay: f64,
        clip: Option<f64>,
    ) -> Result<f64> {
        let norm = self.gradient_norm(gradients)?;
        if norm.is_finite() {
            self.apply(gradients, norm, clip, weight_decay, |_| lr)?;
        }
        Ok(norm)
    }

    /// [`step`](Self::step) with the norm already known, and a learning rate of their own for
    /// parameters by name (before the factors of their groups).
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn apply(
        &mut self,
        gradients: &GradStore,
        norm: f64,
        clip: Option<f64>,
        weight_decay: f64,
        lr: impl Fn(&str) -> f64,
    ) -> Result<()> {
        self.step += 1;
        let scale = clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let corrections = (1.0 - BETAS.0.powi(exponent), 1.0 - BETAS.1.powi(exponent));
        for (name, slot) in &mut self.slots {
            let Some(gradient) = gradients.get(&slot.variable) else { continue };
            let gradient = gradient.contiguous()?;
            let lr = lr(name) * slot.group.lr;
            let decay = 1.0 - lr * weight_decay * slot.group.weight_decay;
            slot.update(&gradient, scale, lr, decay, corrections)?;
        }
        Ok(())
    }

    /// The first parameter, by name, whose gradient has a value that is not finite.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn first_broken(&self, gradients: &GradStore) -> Result<Option<&str>> {
        for (name, slot) in &self.slots {
            if let Some(gradient) = gradients.get(&slot.variable) {
                let sum = gradient.abs()?.sum_all()?.to_dtype(candle_core::DType::F32)?;
                if !sum.to_scalar::<f32>()?.is_finite() {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    /// Moments by parameter name, (first, second), for checkpoints.
    pub fn moments(&self) -> impl Iterator<Item = (&str, &Tensor, &Tensor)> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), &slot.first, &slot.second))
    }

    /// Takes up a state saved from [`moments`](Self::moments) and [`steps`](Self::steps).
    ///
    /// # Errors
    /// A moment is missing or of another shape; nothing has been changed then.
    pub fn restore(
        &mut self,
        step: usize,
        mut moment: impl FnMut(&str) -> Option<(Tensor, Tensor)>,
    ) -> Result<()> {
        let mut restored = Vec::new();
        for (name, slot) in &self.slots {
            match moment(name) {
                Some((first, second))
                    if first.shape() == slot.first.shape()
                        && second.shape() == slot.second.shape() =>
                {
                    restored.push((first.force_contiguous()?, second.force_contiguous()?));
                }
                Some((first, second)) => {
                    let message = format!(
                        "optimizer state of `{name}` has shapes {:?} and {:?}, expected {:?}",
                        first.dims(),
                        second.dims(),
                        slot.first.dims()
                    );
                    return Err(candle_core::Error::Msg(message).into());
                }
                None => {
                    let message = format!("optimizer state of `{name}` is missing");
                    return Err(candle_core::Error::Msg(message).into());
                }
            }
        }
        for (slot, (first, second)) in self.slots.values_mut().zip(restored) {
            (slot.first, slot.second) = (first, second);
        }
        self.step = step;
        Ok(())
    }
}

impl Slot {
    fn update(
        &mut self,
        gradient: &Tensor,
        scale: f64,
        lr: f64,
        decay: f64,
        (first_correction, second_correction): (f64, f64),
    ) -> Result<()> {
        let (rate, root) = (lr / first_correction, second_correction.sqrt());
        if is_fused(&self.first) {
            let (b1, b2, scale) = (BETAS.0 as f32, BETAS.1 as f32, scale as f32);
            self.first.inplace_op2(
                gradient,
                &Elementwise2(|m: &mut [f32], g: &[f32]| elementwise::blend(m, g, b1, scale)),
            )?;
            self.second.inplace_op2(
                gradient,
                &Elementwise2(|v: &mut [f32], g: &[f32]| {
                    elementwise::blend_squares(v, g, b2, scale);
                }),
            )?;
            let settings = [decay as f32, rate as f32, root as f32, EPS as f32];
            self.variable.inplace_op3(
                &self.first,
                &self.second,
                &Elementwise3(|p: &mut [f32], m: &[f32], v: &[f32]| {
                    elementwise::adam(p, m, v, settings);
                }),
            )?;
            return Ok(());
        }
        let gradient = (gradient * scale)?;
        self.first = ((&self.first * BETAS.0)? + (&gradient * (1.0 - BETAS.0))?)?;
        self.second = ((&self.second * BETAS.1)? + (gradient.sqr()? * (1.0 - BETAS.1))?)?;
        let denominator = ((self.second.sqrt()? / root)? + EPS)?;
        let change = ((&self.first / denominator)? * rate)?;
        Ok(self.variable.set(&((self.variable.as_tensor() * decay)? - change)?)?)
    }
}

/// `average = momentum * average + (1 - momentum) * current`, parameter by parameter.
///
/// # Errors
/// The two hold other parameters, or a failed tensor operation.
pub fn ema_update(
    average: &BTreeMap<String, Var>,
    current: &BTreeMap<String, Var>,
    momentum: f64,
) -> Result<()> {
    if !average.keys().eq(current.keys()) {
        let message = "the moving average and the model hold different parameters";
        return Err(candle_core::Error::Msg(message.to_owned()).into());
    }
    for (average, current) in average.values().zip(current.values()) {
        if is_fused(average) {
            let keep = momentum as f32;
            average.inplace_op2(
                current,
                &Elementwise2(|a: &mut [f32], c: &[f32]| elementwise::blend(a, c, keep, 1.0)),
            )?;
        } else {
            let mean =
                (average.as_tensor() * momentum)? + (current.as_tensor() * (1.0 - momentum))?;
            average.set(&mean?)?;
        }
    }
    Ok(())
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    super::ops::slice(storage, layout)
}

fn values_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(values)) => Ok(&mut values[start..end]),
        _ => bail!("an optimizer state is not contiguous f32"),
    }
}

/// In-place work on one tensor that reads another of the same shape.
struct Elementwise2<F>(F);

impl<F: Fn(&mut [f32], &[f32]) + Sync> InplaceOp2 for Elementwise2<F> {
    fn name(&self) -> &'static str {
        "optimizer-moment"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        let target = values_mut(target, target_layout)?;
        let source = values(source, source_layout)?;
        if target.len() != source.len() {
            bail!("{} values meet {}", target.len(), source.len());
        }
        target
            .par_chunks_mut(VALUES_PER_TASK)
            .zip(source.par_chunks(VALUES_PER_TASK))
            .for_each(|(target, source)| self.0(target, source));
        Ok(())
    }
}

/// In-place work on one tensor that reads two others of the same shape.
struct Elementwise3<F>(F);

impl<F: Fn(&mut [f32], &[f32], &[f32]) + Sync> InplaceOp3 for Elementwise3<F> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<()> {
        let target = values_mut(target, target_layout)?;
        let (first, second) = (values(first, first_layout)?, values(second, second_layout)?);
        if (first.len(), second.len()) != (target.len(), target.len()) {
            bail!("{} values meet {} and {}", target.len(), first.len(), second.len());
        }
        target
            .par_chunks_mut(VALUES_PER_TASK)
            .zip(first.par_chunks(VALUES_PER_TASK).zip(second.par_chunks(VALUES_PER_TASK)))
            .for_each(|(target, (first, second))| self.0(target, first, second));
        Ok(())
    }
}
