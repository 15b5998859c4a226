//! Weights files: opened, recognised, checked tensor by tensor, identified by SHA-256.
//!
//! Four key layouts are understood ([`Layout`]); inside this crate tensors go by the names of the
//! original release. A file is accepted only when it holds exactly the tensors of one backbone,
//! each with the right shape, a floating-point dtype and finite values.

pub(crate) mod file;
mod layout;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};

use self::file::WeightsFile;
pub use self::layout::Layout;
use self::layout::{Parameter, Part};
use super::config::VitConfig;
use crate::preprocess::Preprocess;

/// A weights file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// Reading failed.
    #[error("cannot read weights file {path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Neither safetensors nor a PyTorch zip file, or damaged.
    #[error("{path} is not a readable weights file: {reason}")]
    Unreadable {
        /// File.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The tensors are not those of a DINOv2 backbone.
    #[error("{path} does not hold a DINOv2 backbone: {reason}")]
    NotABackbone {
        /// File.
        path: PathBuf,
        /// Which tensor is missing or odd.
        reason: String,
    },
    /// Tensors are missing, left over, or of the wrong shape or dtype.
    #[error("{path} ({layout} layout, read as {variant}) has {} wrong tensor(s): {}", .problems.len(), summary(.problems))]
    Mismatch {
        /// File.
        path: PathBuf,
        /// Recognised key layout.
        layout: Layout,
        /// Variant the file was taken for.
        variant: String,
        /// Every problem found.
        problems: Vec<TensorProblem>,
    },
    /// A tensor holds NaN or an infinity.
    #[error(
        "tensor `{tensor}` of {path} holds {value} at element {index}; the file is damaged or training diverged"
    )]
    NotFinite {
        /// File.
        path: PathBuf,
        /// Name in the file.
        tensor: String,
        /// First offending element, counted in storage order.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// One tensor that is not as the backbone needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// Not in the file.
    #[error("`{name}` is missing (expected shape {expected:?})")]
    Missing {
        /// Name in the file's layout.
        name: String,
        /// Shape needed.
        expected: Vec<usize>,
    },
    /// In the file, but not part of the backbone.
    #[error("`{name}` with shape {got:?} does not belong to the backbone")]
    Surplus {
        /// Name in the file.
        name: String,
        /// Its shape.
        got: Vec<usize>,
    },
    /// Wrong shape.
    #[error("`{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Name in the file.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// Shape needed.
        expected: Vec<usize>,
    },
    /// Not f32, f16 or bf16.
    #[error("`{name}` has dtype {got}, expected F32, F16 or BF16")]
    Dtype {
        /// Name in the file.
        name: String,
        /// Its dtype.
        got: String,
    },
}

fn summary(problems: &[TensorProblem]) -> String {
    const SHOWN: usize = 4;
    let mut text: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    if problems.len() > SHOWN {
        text.push(format!("and {} more", problems.len() - SHOWN));
    }
    text.join("; ")
}

/// A checked weights file, ready to hand out tensors by canonical name.
#[derive(Debug)]
pub struct Weights {
    file: WeightsFile,
    config: VitConfig,
    layout: Layout,
    /// Known once it has been asked for; who asks meanwhile waits.
    sha256: OnceLock<std::io::Result<String>>,
    parameters: Vec<Parameter>,
}

impl Weights {
    /// Opens a `.safetensors` or `.pth` file, or a folder holding `model.safetensors` or just one
    /// such file.
    ///
    /// The number of heads is read from a `config.json` beside the file when there is one
    /// (`num_attention_heads`) and is `embed_dim / 64` otherwise.
    ///
    /// # Errors
    /// [`WeightsError`] names the file and the first few offending tensors.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let path = if path.is_dir() { weights_in(path)? } else { path.to_path_buf() };
        let num_heads = heads_from_config(&path)?;
        Self::check(WeightsFile::open(&path)?, num_heads)
    }

    /// Like [`open`](Self::open), from the bytes of a safetensors file within the program; `name`
    /// stands for its path in messages.
    ///
    /// # Errors
    /// As `open`.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, WeightsError> {
        Self::check(WeightsFile::embedded(Path::new(name), bytes)?, None)
    }

    fn check(file: WeightsFile, num_heads: Option<usize>) -> Result<Self, WeightsError> {
        let path = file.path().to_path_buf();
        let infos = file.tensors();
        let layout = Layout::detect(infos).map_err(|reason| not_a_backbone(&path, reason))?;
        let config = layout
            .infer_config(infos, num_heads)
            .map_err(|reason| not_a_backbone(&path, reason))?;
        let parameters = layout.parameters(&config);
        let problems = layout::check(infos, &parameters);
        if !problems.is_empty() {
            let variant = config.variant_name();
            return Err(WeightsError::Mismatch { path, layout, variant, problems });
        }
        Ok(Self { file, config, layout, sha256: OnceLock::new(), parameters })
    }

    /// Shape of the backbone, inferred from the tensors.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Key layout of the file.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What the file says about itself under `key` (safetensors metadata).
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.file.metadata(key)
    }

    /// The input the model was made for, if the file says so (`akin.resize`, `akin.crop`).
    ///
    /// # Errors
    /// It says something impossible.
    pub fn preprocess(&self) -> crate::error::Result<Option<Preprocess>> {
        let side = |key| self.metadata(key)?.parse().ok();
        match (side("akin.resize"), side("akin.crop")) {
            (Some(resize), Some(crop)) => Ok(Some(Preprocess::new(resize, crop)?)),
            _ => Ok(None),
        }
    }

    /// SHA-256 of the file's bytes, in lower-case hexadecimal. The first call reads the file.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn sha256(&self) -> Result<&str, WeightsError> {
        match self.sha256.get_or_init(|| self.file.sha256()) {
            Ok(sha256) => Ok(sha256),
            Err(error) => Err(WeightsError::Io {
                path: self.path().to_path_buf(),
                source: std::io::Error::new(error.kind(), error.to_string()),
            }),
        }
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Number of stored parameters.
    pub fn num_parameters(&self) -> usize {
        self.file.tensors().values().map(|info| info.shape.iter().product::<usize>()).sum()
    }

    /// dtype the tensors are stored in, in words ("F16", or "F16, F32" when mixed).
    pub fn stored_dtype(&self) -> String {
        let mut names: Vec<_> =
            self.file.tensors().values().map(|info| info.dtype.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }

    /// Reads every tensor once and fails on the first value that is not finite.
    ///
    /// # Errors
    /// [`WeightsError::NotFinite`], or a read error.
    pub fn check_values(&self) -> Result<(), WeightsError> {
        self.file.tensors().keys().try_for_each(|name| self.file.read_f32(name).map(drop))
    }

    /// Values of a parameter by canonical name, in f32 and row-major order; `None` when this
    /// layout does not store it (only `mask_token` may be absent, in timm files).
    pub(crate) fn values(&self, canonical: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(parameter) = self.parameters.iter().find(|p| p.canonical == canonical) else {
            return Ok(None);
        };
        let mut parts = parameter.parts.iter();
        let Some(Part { name, .. }) = parts.next() else { return Ok(Some(Vec::new())) };
        let mut values = self.file.read_f32(name)?;
        for Part { name, .. } in parts {
            values.extend(self.file.read_f32(name)?);
        }
        Ok(Some(values))
    }

    /// [`values`](Self::values) of a parameter that every backbone has.
    pub(crate) fn required(&self, canonical: &str) -> Result<Vec<f32>, WeightsError> {
        self.values(canonical)?
            .ok_or_else(|| not_a_backbone(self.path(), format!("it stores no `{canonical}`")))
    }

    /// A required parameter as a tensor of the canonical shape.
    pub(crate) fn tensor(
        &self,
        canonical: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> crate::error::Result<Tensor> {
        let values = self.required(canonical)?;
        Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
    }
}

fn not_a_backbone(path: &Path, reason: String) -> WeightsError {
    WeightsError::NotABackbone { path: path.to_path_buf(), reason }
}

/// The weights file of a folder.
fn weights_in(folder: &Path) -> Result<PathBuf, WeightsError> {
    let usual = folder.join("model.safetensors");
    if usual.exists() {
        return Ok(usual);
    }
    let io = |source| WeightsError::Io { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "safetensors" || e == "pth") {
            found.push(path);
        }
    }
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (found, others) => {
            let count = others + usize::from(found.is_some());
            let reason = format!(
                "it holds no model.safetensors and {count} other .safetensors or .pth files; name \
                 the one to use"
            );
            Err(WeightsError::Unreadable { path: folder.to_path_buf(), reason })
        }
    }
}

/// `num_attention_heads` of the `config.json` beside the weights, when both exist.
fn heads_from_config(weights: &Path) -> Result<Option<usize>, WeightsError> {
    let path = weights.with_file_name("config.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WeightsError::Io { path, source }),
    };
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        let reason = format!("not JSON ({error}); delete it or fetch it again");
        WeightsError::Unreadable { path, reason }
    })?;
    Ok(json["num_attention_heads"].as_u64().map(|heads| heads as usize))
}
