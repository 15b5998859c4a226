//! The backbone an embedder runs: on our own kernels on a CPU, on GPUs by the pass made for them, and on
//! candle for shapes that neither knows.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::config::{PATCH_SIZE, PosEmbedRule, VitConfig};
use super::cpu::{Batch, CpuVit, Tokens};
use super::packed_cache::PackedCache;
use super::{VisionTransformer, Weights, WeightsError};
use crate::device::Devices;
use crate::error::{EngineError, Result};
use crate::features::Features;
use crate::kernels::{Isa, Precision, Team};
use crate::preprocess::normalisation_table;
#[cfg(any(test, feature = "cuda"))]
use crate::preprocess::{IMAGENET_MEAN, IMAGENET_STD};

/// Values of tokens that are held at once.
const CHUNK_VALUES: usize = 16 << 20;
/// Rows of the square product whose speed is taken for what a GPU can do.
#[cfg(feature = "cuda")]
const PEAK_ROWS: usize = 8192;

/// A loaded backbone.
#[derive(Debug)]
pub(crate) enum Backbone {
    Kernels(Box<CpuVit>),
    Candle(Box<VisionTransformer>),
    #[cfg(feature = "cuda")]
    Gpus(Box<super::gpu::GpuVit>),
}

/// A square picture as a backbone takes it.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// (3, side, side) normalised values.
    Chw(Vec<f32>),
    /// (side, side, 3) bytes, which a GPU normalises.
    Rgb(Arc<[u8]>),
}

/// How and where a backbone is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    pub(crate) devices: &'a Devices,
    pub(crate) precision: Precision,
    /// On a CPU, the instruction set; the fastest there is when not given.
    pub(crate) isa: Option<Isa>,
    /// Folder where weights packed for a CPU are kept, if they are.
    pub(crate) packed: Option<&'a Path>,
    /// Pixels of a picture's side.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "GPUs make room beforehand"))]
    pub(crate) side: usize,
    /// On a GPU, whether small passes are recorded and replayed.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "GPUs alone can"))]
    pub(crate) recordings: bool,
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
        let Placement { devices, precision, isa, packed, .. } = place;
        let config = weights.config();
        let fits = CpuVit::supports(config, precision);
        if !devices.is_cpu() {
            return Self::on_gpus(weights, rule, place);
        }
        let refused = |reason: String| EngineError::Device { name: "cpu".to_owned(), reason };
        if precision == Precision::F16 {
            return Err(refused("f16 is for GPUs; use --matmul bf16 or f32".to_owned()));
        }
        if !fits && precision == Precision::F32 {
            let model = VisionTransformer::load(weights, rule, &Device::Cpu, DType::F32)?;
            return Ok(Self::Candle(Box::new(model)));
        }
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

    #[cfg(feature = "cuda")]
    fn on_gpus(weights: &Weights, rule: PosEmbedRule, place: Placement<'_>) -> Result<Self> {
        use super::gpu;

        let Placement { devices, precision, side, recordings, .. } = place;
        let config = weights.config();
        if !gpu::GpuVit::supports(config) {
            return Err(EngineError::Device {
                name: devices.to_string(),
                reason: format!(
                    "a backbone of width {} with {} heads is none that it computes: heads must be \
                     multiples of 8 and fill the width; use --device cpu",
                    config.embed_dim, config.num_heads
                ),
            });
        }
        let values = |name: &str| parameter(weights, name);
        let folded = gpu::Folded::load(config, rule, &values)?;
        let choices = gpu::Choices { side, precision, recordings };
        Ok(Self::Gpus(Box::new(gpu::start(devices.gpus(), folded, choices)?)))
    }

    #[cfg(not(feature = "cuda"))]
    fn on_gpus(_: &Weights, _: PosEmbedRule, place: Placement<'_>) -> Result<Self> {
        let name = place.devices.to_string();
        Err(EngineError::Device { name, reason: crate::device::WITHOUT_CUDA.to_owned() })
    }

    /// Shape of the backbone.
    pub(crate) fn config(&self) -> &VitConfig {
        match self {
            Self::Kernels(model) => model.config(),
            Self::Candle(model) => model.config(),
            #[cfg(feature = "cuda")]
            Self::Gpus(model) => model.config(),
        }
    }

    /// Whether pictures are best given as bytes.
    pub(crate) fn takes_bytes(&self) -> bool {
        !matches!(self, Self::Kernels(_) | Self::Candle(_))
    }

    /// Pictures that suit it best at a time, where that is known; it may be measured first.
    ///
    /// # Errors
    /// A GPU failed.
    pub(crate) fn batch(&self) -> Result<Option<usize>> {
        match self {
            Self::Kernels(_) | Self::Candle(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Gpus(model) => model.batch().map(Some),
        }
    }

    /// What its GPUs are called, and operations a second of all of them in large products, taken to be
    /// as fast as the first.
    ///
    /// # Errors
    /// A GPU failed.
    pub(crate) fn gpu_peak(&self) -> Result<Option<(String, f64)>> {
        match self {
            Self::Kernels(_) | Self::Candle(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Gpus(model) => {
                let names = model.names();
                let peak = model.peak(PEAK_ROWS)? * names.len() as f64;
                Ok(Some((names.join(","), peak)))
            }
        }
    }

    /// Instructions in use, where they are ours.
    pub(crate) fn isa(&self) -> Option<Isa> {
        match self {
            Self::Kernels(model) => Some(model.isa()),
            _ => None,
        }
    }

    /// Time spent in each stage, by name, and bytes of packed weights, where they are ours.
    pub(crate) fn usage(&self) -> Option<(Vec<(&'static str, Duration)>, usize)> {
        match self {
            Self::Kernels(model) => Some((model.stages(), model.bytes())),
            _ => None,
        }
    }

    /// Final-normed CLS tokens of square pictures, one after the other; `None` where computing all
    /// tokens is no more work.
    ///
    /// # Errors
    /// A GPU failed.
    pub(crate) fn cls(&self, pictures: &[&Input], side: usize) -> Result<Option<Vec<f32>>> {
        match self {
            Self::Kernels(model) => {
                let config = model.config();
                let mut out = vec![0f32; pictures.len() * config.embed_dim];
                let values = chw(pictures);
                let images: Vec<&[f32]> = values.iter().map(AsRef::as_ref).collect();
                let batch = Batch { images: &images, height: side, width: side };
                model.forward(Team::global(), batch, &[config.depth - 1], Tokens::Cls, &mut out);
                Ok(Some(out))
            }
            Self::Candle(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Gpus(model) => {
                Ok(model.tokens(&rgb(pictures), &[model.config().depth - 1], true)?.pop())
            }
        }
    }

    /// Hands the features of square pictures to `run`: for some pictures at a time, one [`Features`] for
    /// each of `layers`.
    ///
    /// # Errors
    /// A failed computation, or an error of `run`.
    pub(crate) fn features<T: Send>(
        &self,
        pictures: &[&Input],
        side: usize,
        layers: &[usize],
        run: impl Fn(&[Features]) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let one = |chunk: &[&Input]| match self {
            Self::Kernels(model) => {
                let values = chw(chunk);
                let images: Vec<&[f32]> = values.iter().map(AsRef::as_ref).collect();
                run(&computed(model, &images, side, layers)?)
            }
            Self::Candle(model) => {
                let values: Vec<f32> = chw(chunk).iter().flat_map(|v| v.iter().copied()).collect();
                let input = Tensor::from_vec(values, (chunk.len(), 3, side, side), model.device())?;
                run(&model.intermediate_layers(&input, layers)?)
            }
            #[cfg(feature = "cuda")]
            Self::Gpus(model) => {
                let config = model.config();
                let values = model.tokens(&rgb(chunk), layers, false)?;
                let features = values.iter().map(|layer| split(layer, chunk.len(), config, side));
                run(&features.collect::<Result<Vec<_>>>()?)
            }
        };
        let chunks: Vec<_> = match self {
            // candle runs elementwise operations of a CPU on one thread.
            Self::Candle(_) => {
                let share = pictures.len().div_ceil(rayon::current_num_threads());
                pictures.par_chunks(share).map(one).collect::<Result<_>>()?
            }
            _ => {
                let config = self.config();
                let tokens = (side / PATCH_SIZE).pow(2) + config.num_prefix_tokens();
                let values = tokens * config.embed_dim * layers.len();
                let count = (CHUNK_VALUES / values.max(1)).max(1);
                pictures.chunks(count).map(one).collect::<Result<_>>()?
            }
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

/// Pictures as normalised values.
fn chw<'a>(pictures: &[&'a Input]) -> Vec<Cow<'a, [f32]>> {
    pictures.iter().map(|picture| picture.chw()).collect()
}

/// Pictures as bytes.
#[cfg(feature = "cuda")]
fn rgb(pictures: &[&Input]) -> Vec<Arc<[u8]>> {
    pictures.iter().map(|picture| picture.rgb()).collect()
}

impl Input {
    /// Normalised values, (3, side, side).
    pub(crate) fn chw(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Chw(values) => Cow::Borrowed(values),
            Self::Rgb(bytes) => {
                let plane = |channel: usize| {
                    let table = normalisation_table(channel);
                    bytes.iter().skip(channel).step_by(3).map(move |&byte| table[usize::from(byte)])
                };
                Cow::Owned((0..3).flat_map(plane).collect())
            }
        }
    }

    /// Bytes, (side, side, 3): those that the values were made of.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn rgb(&self) -> Arc<[u8]> {
        match self {
            Self::Rgb(bytes) => Arc::clone(bytes),
            Self::Chw(values) => {
                let pixels = values.len() / 3;
                let byte = |at: usize| {
                    let (pixel, channel) = (at / 3, at % 3);
                    let value = values[channel * pixels + pixel];
                    ((value * IMAGENET_STD[channel] + IMAGENET_MEAN[channel]) * 255.0).round() as u8
                };
                (0..3 * pixels).map(byte).collect()
            }
        }
    }
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
    out.chunks_exact(values).map(|layer| split(layer, images.len(), config, side)).collect()
}

/// All tokens of some pictures, taken apart.
fn split(layer: &[f32], pictures: usize, config: &VitConfig, side: usize) -> Result<Features> {
    let grid = side / PATCH_SIZE;
    let tokens = grid * grid + config.num_prefix_tokens();
    let shape = (pictures, tokens, config.embed_dim);
    let tokens = Tensor::from_slice(layer, shape, &Device::Cpu)?;
    Features::from_tokens(&tokens, config.num_register_tokens, (grid, grid))
}

/// Values of a parameter as the kernels want them: CLS with its position embedding, `pos_embed`
/// without.
pub(super) fn parameter(weights: &Weights, name: &str) -> Result<Vec<f32>, WeightsError> {
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
