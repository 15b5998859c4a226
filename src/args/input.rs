//! How pictures become vectors, as typed.

use clap::{Args, ValueEnum};
use engine::decode::{DecodeMode, IccPolicy};
use engine::{ModelIdentity, ModelOptions, Pooling, Precision, Preprocess, vit::PosEmbedRule};

/// How pictures become vectors; part of a collection's identity.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model input and output")]
pub struct InputArgs {
    /// Side of the model's input in pixels, a multiple of 14; resizes in proportion
    #[arg(long, value_name = "PX", conflicts_with_all = ["resize", "crop"])]
    pub size: Option<u32>,
    /// Shorter side after resizing [default: the model's own, else 256]
    #[arg(long, value_name = "PX")]
    pub resize: Option<u32>,
    /// Side of the centre crop, a multiple of 14 [default: the model's own, else 224]
    #[arg(long, value_name = "PX")]
    pub crop: Option<u32>,
    /// How tokens become one vector [default: cls]
    #[arg(long, value_enum)]
    pub pooling: Option<PoolingArg>,
    /// How position embeddings are resampled [default: published]
    #[arg(long, value_enum)]
    pub pos_embed: Option<PosEmbedArg>,
    /// What to do with embedded colour profiles [default: ignore]
    #[arg(long, value_enum)]
    pub icc: Option<IccArg>,
    /// Precision of matrix products [default: f32 on a CPU, bf16 on a GPU]
    ///
    /// bf16 is faster where the processor has instructions for it, int8 faster still (on a CPU, with
    /// attention in bf16); f16 is for GPUs. Their vectors differ a little, so each is compared with its
    /// own only.
    #[arg(long, value_enum)]
    pub matmul: Option<MatmulArg>,
    /// How files are decoded [default: exact, or `decode` of the configuration file]
    ///
    /// fast decodes large JPEGs at a half, a quarter or an eighth of their size. Its vectors differ a
    /// little, so a collection holds those of one way only.
    #[arg(long, value_enum)]
    pub decode: Option<DecodeArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DecodeArg {
    /// All pixels of a picture
    Exact,
    /// Large JPEGs scaled down on the way
    Fast,
}

impl From<DecodeArg> for DecodeMode {
    fn from(arg: DecodeArg) -> Self {
        match arg {
            DecodeArg::Exact => Self::Exact,
            DecodeArg::Fast => Self::Fast,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PoolingArg {
    /// The CLS token
    Cls,
    /// Mean of the patch tokens
    MeanPatch,
    /// CLS and the mean of the patch tokens, one after the other
    ClsMeanPatch,
    /// Generalised mean (exponent 3) of the patch tokens
    Gem,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PosEmbedArg {
    /// As the released models were evaluated
    Published,
    /// As Hugging Face transformers does
    Transformers,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IccArg {
    /// Convert to sRGB, so that wide-gamut photos look as they should
    Srgb,
    /// Take stored numbers, as the published pipeline does
    Ignore,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MatmulArg {
    /// Single precision
    F32,
    /// Factors rounded to bf16, sums in f32
    Bf16,
    /// Half precision, for models that stay within its range; on GPUs only
    F16,
    /// Factors rounded to bytes with a scale for each row, exact sums
    Int8,
}

impl From<MatmulArg> for Precision {
    fn from(arg: MatmulArg) -> Self {
        match arg {
            MatmulArg::F32 => Self::F32,
            MatmulArg::Bf16 => Self::Bf16,
            MatmulArg::F16 => Self::F16,
            MatmulArg::Int8 => Self::Int8,
        }
    }
}

impl InputArgs {
    /// No choice made.
    pub const NONE: Self = Self {
        size: None,
        resize: None,
        crop: None,
        pooling: None,
        pos_embed: None,
        icc: None,
        matmul: None,
        decode: None,
    };

    /// Whether any choice was made; a collection's own choices apply otherwise.
    pub fn is_default(&self) -> bool {
        let Self { size, resize, crop, pooling, pos_embed, icc, matmul, decode } = self;
        size.is_none()
            && resize.is_none()
            && crop.is_none()
            && pooling.is_none()
            && pos_embed.is_none()
            && icc.is_none()
            && matmul.is_none()
            && decode.is_none()
    }

    /// The choices, completed with those of an existing collection.
    pub fn over(&self, present: &ModelIdentity) -> engine::Result<ModelOptions> {
        let chosen = self.to_options(&present.preprocess)?;
        Ok(ModelOptions {
            preprocess: chosen.preprocess,
            pooling: self.pooling.map_or(present.pooling, |_| chosen.pooling),
            pos_embed: self.pos_embed.map_or(present.pos_embed, |_| chosen.pos_embed),
            icc: self.icc.map_or(present.icc, |_| chosen.icc),
            precision: self.matmul.map_or(present.precision, Precision::from),
            decode: self.decode.map_or(present.decode, DecodeMode::from),
            ..ModelOptions::default()
        })
    }

    /// The choices, completed with `default` input sizes and published defaults.
    pub fn to_options(&self, default: &Preprocess) -> engine::Result<ModelOptions> {
        let preprocess = match self.size {
            Some(size) => Preprocess::for_size(size)?,
            None => Preprocess::new(
                self.resize.unwrap_or(default.resize),
                self.crop.unwrap_or(default.crop),
            )?,
        };
        Ok(ModelOptions {
            preprocess,
            pooling: match self.pooling {
                None | Some(PoolingArg::Cls) => Pooling::Cls,
                Some(PoolingArg::MeanPatch) => Pooling::MeanPatch,
                Some(PoolingArg::ClsMeanPatch) => Pooling::ClsMeanPatch,
                Some(PoolingArg::Gem) => Pooling::Gem,
            },
            pos_embed: match self.pos_embed {
                None | Some(PosEmbedArg::Published) => PosEmbedRule::Published,
                Some(PosEmbedArg::Transformers) => PosEmbedRule::Transformers,
            },
            icc: match self.icc {
                None => ModelOptions::default().icc,
                Some(IccArg::Srgb) => IccPolicy::ConvertToSrgb,
                Some(IccArg::Ignore) => IccPolicy::Ignore,
            },
            precision: self.matmul.map(Precision::from).unwrap_or_default(),
            decode: self.decode.map(DecodeMode::from).unwrap_or_default(),
            ..ModelOptions::default()
        })
    }
}
