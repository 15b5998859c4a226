//! Pictures to embeddings, in batches, with a recorded identity.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::DType;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decode::{DecodeMode, DecodeOptions, Decoded, IccPolicy};
use crate::device::Devices;
use crate::error::{EngineError, Result};
use crate::features::{Embedding, Features, Pooling, ProbeTokens};
use crate::kernels::{Isa, Precision};
use crate::preprocess::Preprocess;
use crate::vit::backbone::{Backbone, Input, Placement};
use crate::vit::config::{PATCH_SIZE, VitConfig};
use crate::vit::{PosEmbedRule, Weights};

/// Everything that decides what vector a picture gets. Embeddings are comparable exactly when
/// [`fingerprint`](Self::fingerprint) is equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name to show, such as `vits14`; not part of the fingerprint.
    pub name: String,
    /// SHA-256 of the weights file, lower-case hexadecimal.
    pub weights_sha256: String,
    /// Length of an embedding.
    pub dim: usize,
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// How position embeddings are resampled.
    pub pos_embed: PosEmbedRule,
    /// Resize and crop.
    pub preprocess: Preprocess,
    /// Treatment of embedded colour profiles.
    pub icc: IccPolicy,
    /// Numbers that are multiplied. Not written, nor part of the fingerprint, when f32: that is
    /// what every earlier release computed in.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub precision: Precision,
    /// How files are decoded. Not written, nor part of the fingerprint, when exact: that is how every
    /// earlier release decoded.
    #[serde(default, skip_serializing_if = "is_exact")]
    pub decode: DecodeMode,
}

fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

fn is_exact(decode: &DecodeMode) -> bool {
    *decode == DecodeMode::Exact
}

/// Pixels that fast decoding leaves of the shorter side for two of the resized picture: the rest of the
/// way down is then an antialiased resize, and vectors stay within a cosine of 0.999 (with 4 one of 248
/// photographs, of fine patterns in loud colours, came to 0.9989).
const FAST_MARGIN: u32 = 5;

/// Raised when the same picture and weights would give another vector than an earlier release did.
const PIPELINE_VERSION: u32 = 1;

/// What takes the place of a weights hash where the vectors were made by another program.
const FOREIGN: &str = "foreign:";

impl ModelIdentity {
    /// The model of vectors that were made elsewhere, of which no more is known than what it is
    /// called and how long they are. It cannot embed a picture.
    pub fn foreign(name: &str, dim: usize) -> Self {
        let name = format!("{FOREIGN}{name}");
        Self {
            weights_sha256: name.clone(),
            name,
            dim,
            pooling: Pooling::default(),
            pos_embed: PosEmbedRule::default(),
            preprocess: Preprocess::default(),
            icc: IccPolicy::Ignore,
            precision: Precision::default(),
            decode: DecodeMode::default(),
        }
    }

    /// Whether the vectors were made elsewhere, so that no picture can be embedded to match them.
    pub fn is_foreign(&self) -> bool {
        self.weights_sha256.starts_with(FOREIGN)
    }

    /// SHA-256 over weights hash, pooling, position rule, preprocessing, precision, way of decoding
    /// and pipeline version, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        let Self {
            name: _,
            weights_sha256,
            dim,
            pooling,
            pos_embed,
            preprocess,
            icc,
            precision,
            decode,
        } = self;
        let precision = match precision {
            Precision::F32 => String::new(),
            other => format!("; precision {other}"),
        };
        let decode = match decode {
            DecodeMode::Exact => String::new(),
            other => format!("; decode {other}"),
        };
        let text = format!(
            "akin pipeline {PIPELINE_VERSION}; weights {weights_sha256}; dim {dim}; pooling \
             {pooling}; pos_embed {pos_embed}; resize {}; crop {}; icc {icc}{precision}{decode}",
            preprocess.resize, preprocess.crop
        );
        format!("{:x}", Sha256::digest(text))
    }
}

/// Model input made from one picture, square: normalised values, or for a GPU, which normalises them
/// itself, the bytes they are made of.
#[derive(Clone, Debug)]
pub struct Pixels(Input);

impl Pixels {
    /// From (3, side, side) normalised values.
    pub(crate) fn from_chw(values: Vec<f32>) -> Self {
        Self(Input::Chw(values))
    }

    /// The normalised values, (3, side, side).
    pub fn chw(&self) -> Cow<'_, [f32]> {
        self.0.chw()
    }
}

/// Something that turns pictures into embeddings: [`DinoEmbedder`], or a test double.
pub trait Embedder: Send + Sync {
    /// What decides its vectors.
    fn identity(&self) -> &ModelIdentity;

    /// Embeddings of a batch, in order. A picture's embedding does not depend on its neighbours in
    /// the batch (up to 1e-5 in f32).
    ///
    /// # Errors
    /// A failed computation or an output that is no embedding; the whole batch is lost.
    fn embed(&self, batch: &[Pixels]) -> Result<Vec<Embedding>>;

    /// Pictures that suit it best at a time, when there are many. On a GPU that is measured at the
    /// first call, which takes a moment.
    fn batch(&self) -> usize {
        DEFAULT_BATCH
    }

    /// The model as one whose patch tokens can be read; a test double has none.
    fn with_patches(&self) -> Option<&DinoEmbedder> {
        None
    }

    /// How pictures for this model are decoded whole, within the default limits.
    fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { icc: self.identity().icc, ..DecodeOptions::default() }
    }

    /// How files are decoded that become this model's input and nothing else:
    /// [`decode_options`](Self::decode_options), scaled down on the way where the model's identity
    /// says so. For [`prepare_decoded`](Self::prepare_decoded).
    fn input_options(&self) -> DecodeOptions {
        let identity = self.identity();
        let shrink_to = match identity.decode {
            DecodeMode::Exact => None,
            DecodeMode::Fast => Some(identity.preprocess.resize.saturating_mul(FAST_MARGIN) / 2),
        };
        DecodeOptions { shrink_to, ..self.decode_options() }
    }

    /// Resizes, crops and normalises one picture; meant for worker threads.
    ///
    /// # Errors
    /// The picture cannot be resized to the model's input.
    fn prepare(&self, image: &RgbImage) -> Result<Pixels> {
        Ok(Pixels::from_chw(self.identity().preprocess.to_chw(image)?))
    }

    /// As [`prepare`](Self::prepare), of a picture that may have been scaled down while it was decoded.
    ///
    /// # Errors
    /// As `prepare`.
    fn prepare_decoded(&self, decoded: &Decoded) -> Result<Pixels> {
        Ok(Pixels::from_chw(self.identity().preprocess.decoded_to_chw(decoded)?))
    }
}

/// Choices made when a model is opened; the defaults are the published ones.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Resize and crop.
    pub preprocess: Preprocess,
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// How position embeddings are resampled.
    pub pos_embed: PosEmbedRule,
    /// Treatment of embedded colour profiles.
    pub icc: IccPolicy,
    /// Numbers that are multiplied; part of the identity, as the others above.
    pub precision: Precision,
    /// How files are decoded; part of the identity, too.
    pub decode: DecodeMode,
    /// Instruction set of a CPU, the fastest there is when not given; no part of the identity.
    pub isa: Option<Isa>,
    /// Folder where weights packed for this machine's processor are kept for the next start, made
    /// when needed and never more than 4 GiB; `None` packs them at every start. No part of the
    /// identity: vectors are the same to the bit.
    pub packed_weights: Option<PathBuf>,
    /// Whether a GPU records the pass over a small batch as a CUDA graph and replays it; no part of the
    /// identity. Not proven: off unless asked for (docs/gpu.md).
    pub cuda_graphs: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            preprocess: Preprocess::default(),
            pooling: Pooling::default(),
            pos_embed: PosEmbedRule::default(),
            // The models were trained and evaluated on stored numbers, profile or not.
            icc: IccPolicy::Ignore,
            precision: Precision::default(),
            decode: DecodeMode::default(),
            isa: None,
            packed_weights: None,
            cuda_graphs: false,
        }
    }
}

/// A frozen DINOv2 backbone as an embedder.
#[derive(Debug)]
pub struct DinoEmbedder {
    backbone: Backbone,
    identity: ModelIdentity,
}

impl DinoEmbedder {
    /// Opens a weights file (see [`Weights::open`]) on the CPU, or on one or more GPUs.
    ///
    /// # Errors
    /// The weights are unsound, do not fit the device, or cannot be computed as the options say.
    pub fn open(path: &Path, options: &ModelOptions, devices: impl Into<Devices>) -> Result<Self> {
        Self::from_weights(&Weights::open(path)?, options, devices)
    }

    /// Like [`open`](Self::open), from weights already checked.
    ///
    /// # Errors
    /// As `open`.
    pub fn from_weights(
        weights: &Weights,
        options: &ModelOptions,
        devices: impl Into<Devices>,
    ) -> Result<Self> {
        let place = Placement {
            devices: &devices.into(),
            precision: options.precision,
            isa: options.isa,
            packed: options.packed_weights.as_deref(),
            side: options.preprocess.crop as usize,
            recordings: options.cuda_graphs,
        };
        // One thread hashes while the others pack, or check what was packed before.
        let (backbone, sha256) =
            rayon::join(|| Backbone::load(weights, options.pos_embed, place), || weights.sha256());
        let (backbone, sha256) = (backbone?, sha256?);
        let config = backbone.config();
        let identity = ModelIdentity {
            name: weights.metadata("akin.name").unwrap_or_else(|| config.variant_name()),
            weights_sha256: sha256.to_owned(),
            dim: options.pooling.dim(config.embed_dim),
            pooling: options.pooling,
            pos_embed: options.pos_embed,
            preprocess: options.preprocess.clone(),
            icc: options.icc,
            precision: options.precision,
            decode: options.decode,
        };
        Ok(Self { backbone, identity })
    }

    /// Shape of the backbone.
    pub fn config(&self) -> &VitConfig {
        self.backbone.config()
    }

    /// Instructions that our own kernels use; `None` where candle computes.
    pub fn isa(&self) -> Option<Isa> {
        self.backbone.isa()
    }

    /// Time that our own kernels spent in each stage so far, by name and over all threads, and bytes
    /// of packed weights; `None` where candle computes.
    pub fn usage(&self) -> Option<(Vec<(&'static str, Duration)>, usize)> {
        self.backbone.usage()
    }

    /// What the GPUs are called that compute, and their operations a second in large products (all taken
    /// to be as fast as the first), measured now; `None` where a CPU computes.
    ///
    /// # Errors
    /// A GPU failed.
    pub fn gpu_peak(&self) -> Result<Option<(String, f64)>> {
        self.backbone.gpu_peak()
    }

    /// Patches per picture and channels per patch of [`embed_dense`](Self::embed_dense).
    pub fn patch_tokens_shape(&self) -> (usize, usize) {
        let side = self.side() / PATCH_SIZE;
        (side * side, self.config().embed_dim)
    }

    /// Embeddings with the patch tokens they come with.
    ///
    /// # Errors
    /// As [`embed`](Embedder::embed).
    pub fn embed_dense(&self, batch: &[Pixels]) -> Result<Vec<DenseEmbedding>> {
        self.features(batch, &[self.config().depth - 1], |layers| {
            let features = &layers[0];
            let embeddings = features.pool(self.identity.pooling)?;
            let patches = features.patch_tokens.to_dtype(DType::F32)?.flatten_from(1)?;
            let dense = embeddings.into_iter().zip(patches.to_vec2()?);
            Ok(dense
                .map(|(embedding, patch_tokens)| DenseEmbedding { embedding, patch_tokens })
                .collect())
        })
    }

    /// What probes read of each picture, from the last `blocks` blocks, final norm applied to each
    /// (the reference's `get_intermediate_layers(n=blocks, norm=True)`).
    ///
    /// # Errors
    /// [`EngineError::NoSuchLayer`] when the model has fewer blocks, or as
    /// [`embed`](Embedder::embed).
    pub fn probe_tokens(&self, batch: &[Pixels], blocks: usize) -> Result<Vec<ProbeTokens>> {
        let depth = self.config().depth;
        let first = depth
            .checked_sub(blocks)
            .ok_or(EngineError::NoSuchLayer { layer: blocks.saturating_sub(1), depth })?;
        let layers: Vec<usize> = (first..depth).collect();
        self.features(batch, &layers, ProbeTokens::of_layers)
    }

    fn side(&self) -> usize {
        self.identity.preprocess.crop as usize
    }

    fn features<T: Send>(
        &self,
        batch: &[Pixels],
        layers: &[usize],
        run: impl Fn(&[Features]) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        self.backbone.features(&inputs(batch), self.side(), layers, run)
    }
}

/// An embedding and the patch tokens of the same pass.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseEmbedding {
    /// The pooled, unit-length vector.
    pub embedding: Embedding,
    /// `x_norm_patchtokens`, (N, C) row-major; not normalised. Empty when not asked for.
    pub patch_tokens: Vec<f32>,
}

impl From<Embedding> for DenseEmbedding {
    fn from(embedding: Embedding) -> Self {
        Self { embedding, patch_tokens: Vec::new() }
    }
}

impl Embedder for DinoEmbedder {
    fn with_patches(&self) -> Option<&DinoEmbedder> {
        Some(self)
    }

    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, batch: &[Pixels]) -> Result<Vec<Embedding>> {
        let pooling = self.identity.pooling;
        if pooling == Pooling::Cls
            && let Some(tokens) = self.backbone.cls(&inputs(batch), self.side())?
        {
            let mut embeddings = Vec::with_capacity(batch.len());
            for token in tokens.chunks_exact(self.config().embed_dim) {
                embeddings.push(Embedding::normalised(token.to_vec())?);
            }
            return Ok(embeddings);
        }
        self.features(batch, &[self.config().depth - 1], |layers| layers[0].pool(pooling))
    }

    fn batch(&self) -> usize {
        // A GPU that fails will say so when it is given pictures.
        self.backbone.batch().ok().flatten().unwrap_or(DEFAULT_BATCH)
    }

    fn prepare(&self, image: &RgbImage) -> Result<Pixels> {
        let preprocess = &self.identity.preprocess;
        match self.backbone.takes_bytes() {
            true => Ok(bytes(preprocess.to_rgb8(image)?)),
            false => Ok(Pixels::from_chw(preprocess.to_chw(image)?)),
        }
    }

    fn prepare_decoded(&self, decoded: &Decoded) -> Result<Pixels> {
        let preprocess = &self.identity.preprocess;
        match self.backbone.takes_bytes() {
            true => Ok(bytes(preprocess.decoded_to_rgb8(decoded)?)),
            false => Ok(Pixels::from_chw(preprocess.decoded_to_chw(decoded)?)),
        }
    }
}

/// Pictures that a model takes at a time unless something else suits it better.
const DEFAULT_BATCH: usize = 16;

fn inputs(batch: &[Pixels]) -> Vec<&Input> {
    batch.iter().map(|pixels| &pixels.0).collect()
}

fn bytes(picture: RgbImage) -> Pixels {
    Pixels(Input::Rgb(picture.into_raw().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_values_of_a_picture_are_each_others() {
        let picture =
            RgbImage::from_fn(28, 28, |x, y| image::Rgb([x as u8, y as u8, (9 * x * y) as u8]));
        let values = crate::preprocess::normalise(&picture);
        let Pixels(rgb) = bytes(picture.clone());
        assert_eq!(rgb.chw(), values);
        assert_eq!(Input::Chw(values).rgb()[..], picture.as_raw()[..]);
        // Every byte comes back.
        let all = RgbImage::from_fn(256, 1, |x, _| image::Rgb([x as u8; 3]));
        let values = Input::Chw(crate::preprocess::normalise(&all));
        assert_eq!(values.rgb()[..], all.as_raw()[..]);
    }

    #[test]
    fn choices_that_came_later_leave_identities_without_them_as_they_were() {
        // As a release without the choice wrote it, with the fingerprint it gave.
        let written = r#"{"name":"m","weights_sha256":"ab","dim":3,"pooling":"cls",
            "pos_embed":"published","preprocess":{"resize":256,"crop":224},"icc":"ignore"}"#;
        let old: ModelIdentity = serde_json::from_str(written).expect("identity");
        let text = "akin pipeline 1; weights ab; dim 3; pooling cls; pos_embed published; resize \
                    256; crop 224; icc ignore";
        assert_eq!(old.fingerprint(), format!("{:x}", Sha256::digest(text)));
        let again = serde_json::to_string(&old).expect("JSON");
        assert!(!again.contains("precision"), "{again}");

        let mut fingerprints = vec![old.fingerprint()];
        for precision in [Precision::Bf16, Precision::F16, Precision::Int8] {
            let other = ModelIdentity { precision, ..old.clone() };
            assert!(!fingerprints.contains(&other.fingerprint()), "{precision}");
            fingerprints.push(other.fingerprint());
            let json = serde_json::to_string(&other).expect("JSON");
            assert!(json.contains(&format!(r#""precision":"{precision}""#)), "{json}");
            assert_eq!(serde_json::from_str::<ModelIdentity>(&json).expect("identity"), other);
        }

        assert!(!again.contains("decode"), "{again}");
        let fast = ModelIdentity { decode: DecodeMode::Fast, ..old.clone() };
        assert_ne!(fast.fingerprint(), old.fingerprint());
        let json = serde_json::to_string(&fast).expect("JSON");
        assert_eq!(serde_json::from_str::<ModelIdentity>(&json).expect("identity"), fast);
    }
}
