//! The backbone an embedder runs: on our own kernels on a CPU, on candle elsewhere and for shapes
//! the kernels do not know.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::config::{PATCH_SIZE, PosEmbedRule, VitConfig};
use super::cpu::{Batch, CpuVit, Tokens};
use super::packed_cache::PackedCache;
use super::{VisionTransformer, Weights, WeightsError};
use crate::error::{EngineError, Result};
use crate::features::Features;
use crate::kernels::{Isa, Precision, Team};

/// Values of tokens that are held at once.
const CHUNK_VALUES: usize = 16 << 20;

/// A loaded backbone.
#[derive(Debug)]
pub(crate) enum Backbone {
    Kernels(Box<CpuVit>),
    Candle(Box<VisionTransformer>),
}

/// How and where a backbone is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    pub(crate) device: &'a Device,
    pub(crate) precision: Precision,
    /// On a CPU, the instruction set; the fastest there is when not given.
    pub(crate) isa: Option<Isa>,
    /// Folder where weights packed for a CPU are kept, if they are.
    pub(crate) packed: Option<&'a Path>,
}

impl Backbone {
    /// Loads checked weights.
    ///
    /// # Errors
    /// A tensor holds a value that is not finite, the device refuses it, the processor lacks the
    /// instruction set, or the shape cannot be computed in this precision.
    pub(crate) fn load(
        weights: &Weights,
        rule: PosEmbedRule,
        place: Placement<'_>,
    ) -> Result<Self> {
        let Placement { device, precision, isa, packed } = place;
        let config = weights.config();
        let fits = CpuVit::supports(config, precision);
        if !device.is_cpu() || (!fits && precision == Precision::F32) {
            let dtype = match precision {
                Precision::F32 => DType::F32,
                Precision::Bf16 => DType::BF16,
                Precision::Int8 => {
                    return Err(EngineError::Device {
                        name: format!("{:?}", device.location()).to_lowercase(),
                        reason: "int8 is for CPUs; use --matmul bf16 or f32, or --device cpu"
                            .to_owned(),
                    });
                }
            };
            let model = VisionTransformer::load(weights, rule, device, dtype)?;
            return Ok(Self::Candle(Box::new(model)));
        }
        let refused = |reason: String| EngineError::Device { name: "cpu".to_owned(), reason };
        if !fits {
            return Err(refused(format!(
                "a backbone of width {} with {} heads cannot be computed in {precision}, which takes \
                 heads of a multiple of 32; use --matmul f32",
                config.embed_dim, config.num_heads
            )));
        }
        let isa = isa.unwrap_or_else(Isa::best);
        let model = match packed {
            Some(folder) => kept(weights, rule, isa, precision, folder)?,
            None => made(weights, rule, isa, precision)?,
        };
        let model = model.ok_or_else(|| {
            let have: Vec<_> =
                Isa::ALL.into_iter().filter(|i| i.is_available()).map(Isa::name).collect();
            let (wanted, have) = (isa.name(), have.join(", "));
            refused(format!("this machine has no {wanted} instructions; it has {have}"))
        })?;
        Ok(Self::Kernels(Box::new(model)))
    }

    /// Shape of the backbone.
    pub(crate) fn config(&self) -> &VitConfig {
        match self {
            Self::Kernels(model) => model.config(),
            Self::Candle(model) => model.config(),
        }
    }

    /// Instructions in use, where they are ours.
    pub(crate) fn isa(&self) -> Option<Isa> {
        match self {
            Self::Kernels(model) => Some(model.isa()),
            Self::Candle(_) => None,
        }
    }

    /// Time spent in each stage, by name, and bytes of packed weights, where they are ours.
    pub(crate) fn usage(&self) -> Option<(Vec<(&'static str, Duration)>, usize)> {
        match self {
            Self::Kernels(model) => Some((model.stages(), model.bytes())),
            Self::Candle(_) => None,
        }
    }

    /// Final-normed CLS tokens of square images, one after the other; `None` where computing all
    /// tokens is no more work.
    pub(crate) fn cls(&self, images: &[&[f32]], side: usize) -> Option<Vec<f32>> {
        let Self::Kernels(model) = self else { return None };
        let config = model.config();
        let mut out = vec![0f32; images.len() * config.embed_dim];
        let batch = Batch { images, height: side, width: side };
        model.forward(Team::global(), batch, &[config.depth - 1], Tokens::Cls, &mut out);
        Some(out)
    }

    /// Hands the features of square images, (3, side, side) each, to `run`: for some images at a
    /// time, one [`Features`] for each of `layers`.
    ///
    /// # Errors
    /// A failed computation, or an error of `run`.
    pub(crate) fn features<T: Send>(
        &self,
        images: &[&[f32]],
        side: usize,
        layers: &[usize],
        run: impl Fn(&[Features]) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let one = |chunk: &[&[f32]]| match self {
            Self::Kernels(model) => run(&computed(model, chunk, side, layers)?),
            Self::Candle(model) => {
                let values: Vec<f32> = chunk.iter().copied().flatten().copied().collect();
                let input = Tensor::from_vec(values, (chunk.len(), 3, side, side), model.device())?;
                run(&model.intermediate_layers(&input, layers)?)
            }
        };
        let chunks: Vec<_> = match self {
            Self::Kernels(model) => {
                let values = model.tokens(side, side) * model.config().embed_dim * layers.len();
                let count = (CHUNK_VALUES / values.max(1)).max(1);
                images.chunks(count).map(one).collect::<Result<_>>()?
            }
            // candle runs elementwise operations of a CPU on one thread.
            Self::Candle(model) if model.device().is_cpu() => {
                let share = images.len().div_ceil(rayon::current_num_threads());
                images.par_chunks(share).map(one).collect::<Result<_>>()?
            }
            Self::Candle(_) => return one(images),
        };
        Ok(chunks.into_iter().flatten().collect())
    }
}

fn made(
    weights: &Weights,
    rule: PosEmbedRule,
    isa: Isa,
    precision: Precision,
) -> Result<Option<CpuVit>, WeightsError> {
    let values = |name: &str| parameter(weights, name);
    CpuVit::load(weights.config(), rule, isa, precision, &values)
}

/// [`made`], or as it was made before and kept in a folder: the same bits.
fn kept(
    weights: &Weights,
    rule: PosEmbedRule,
    isa: Isa,
    precision: Precision,
    folder: &Path,
) -> Result<Option<CpuVit>, WeightsError> {
    let config = weights.config();
    let Some(layout) = CpuVit::layout(config, isa, precision) else { return Ok(None) };
    let kind = format!("{}-{precision}", isa.name());
    let cache = PackedCache::new(folder, weights.path(), &kind, &layout);
    if let Some(found) = cache.find() {
        if found.weights_sha256() != weights.sha256()? {
            cache.is_stale("other weights");
        } else if let Some(model) = CpuVit::stored(config, rule, isa, precision, found.stored()) {
            cache.touch();
            return Ok(Some(model));
        } else {
            cache.is_damaged("not the arrays of this model");
        }
    }
    let model = made(weights, rule, isa, precision)?;
    if let Some(model) = &model {
        cache.keep(weights.sha256()?, &model.arrays());
    }
    Ok(model)
}

fn computed(
    model: &CpuVit,
    images: &[&[f32]],
    side: usize,
    layers: &[usize],
) -> Result<Vec<Features>> {
    let config = model.config();
    let tokens = model.tokens(side, side);
    let values = images.len() * tokens * config.embed_dim;
    let mut out = vec![0f32; layers.len() * values];
    let batch = Batch { images, height: side, width: side };
    model.forward(Team::global(), batch, layers, Tokens::All, &mut out);
    let grid = (side / PATCH_SIZE, side / PATCH_SIZE);
    out.chunks_exact(values)
        .map(|layer| {
            let shape = (images.len(), tokens, config.embed_dim);
            let tokens = Tensor::from_slice(layer, shape, &Device::Cpu)?;
            Features::from_tokens(&tokens, config.num_register_tokens, grid)
        })
        .collect()
}

/// Values of a parameter as the kernels want them: CLS with its position embedding, `pos_embed`
/// without.
fn parameter(weights: &Weights, name: &str) -> Result<Vec<f32>, WeightsError> {
    let registers = weights.config().num_register_tokens;
    let dim = weights.config().embed_dim;
    let outside = weights.layout().cls_outside_pos_embed(registers);
    let mut values = match name {
        "register_tokens" => weights.values(name)?.unwrap_or_default(),
        _ => weights.required(name)?,
    };
    if !outside && name == "pos_embed" {
        values.drain(..dim);
    } else if !outside && name == "cls_token" {
        let positions = weights.required("pos_embed")?;
        values.iter_mut().zip(&positions).for_each(|(cls, position)| *cls += position);
    }
    Ok(values)
}
