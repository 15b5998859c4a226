//! A finished head: applied to features, and kept in a file that says what it is made for.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::heads::argmax;
use super::recipe::Recipe;
use crate::embedder::ModelIdentity;
use crate::error::{EngineError, Result};
use crate::features::Pooling;
use crate::train::checkpoint::write_whole;

/// Metadata entry of a head file; its presence makes it one.
const INFO: &str = "akin.head";
/// Newest layout of head files this release reads and the one it writes.
const FORMAT_VERSION: u32 = 1;

/// How a head came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Method {
    /// One of a grid of heads trained by SGD.
    Linear {
        /// Learning rate for a batch of 256.
        learning_rate: f64,
        /// Pictures in a step.
        batch: usize,
        /// Steps.
        iterations: usize,
        /// Seed of weights, order and views.
        seed: u64,
        /// Random views of each training picture; 0 for the evaluation crop.
        views: u64,
    },
    /// Logistic regression.
    Logistic {
        /// Inverse strength of the penalty.
        c: f64,
    },
}

/// Right answers among pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Pictures classified right.
    pub correct: usize,
    /// Pictures classified.
    pub pictures: usize,
}

/// What a head is and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadInfo {
    /// Layout of the file.
    pub format_version: u32,
    /// Release that wrote it.
    pub akin_version: String,
    /// Class names, in the order of the weights' rows.
    pub classes: Vec<String>,
    /// What it reads.
    pub recipe: Recipe,
    /// The model whose features it was trained on, and that model's input settings.
    pub model: ModelIdentity,
    /// [`ModelIdentity::fingerprint`] of `model`.
    pub fingerprint: String,
    /// How it was made.
    pub method: Method,
    /// Pictures it was trained on.
    pub training_pictures: usize,
    /// Right answers on the pictures by which it was chosen: not a test result.
    pub validation: Score,
}

impl HeadInfo {
    /// A head of this release.
    pub fn new(
        (model, classes): (&ModelIdentity, Vec<String>),
        recipe: Recipe,
        method: Method,
        training_pictures: usize,
        validation: Score,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            akin_version: env!("CARGO_PKG_VERSION").to_owned(),
            classes,
            recipe,
            fingerprint: model.fingerprint(),
            model: model.clone(),
            method,
            training_pictures,
            validation,
        }
    }
}

/// A linear classifier on frozen features.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    info: HeadInfo,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// What a head makes of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Position of the class in [`HeadInfo::classes`].
    pub class: usize,
    /// Its probability (softmax), 0 to 1.
    pub confidence: f64,
}

impl Head {
    /// Joins weights (classes, dim) and biases (classes) with what is known of them.
    ///
    /// # Errors
    /// [`EngineError::Training`] when shapes do not fit the classes, or a value is not finite.
    pub fn new(info: HeadInfo, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        let head = Self { info, weight, bias };
        match head.problem() {
            Some(reason) => Err(EngineError::Training { reason }),
            None => Ok(head),
        }
    }

    fn problem(&self) -> Option<String> {
        let (classes, bias) = (self.info.classes.len(), self.bias.len());
        if classes < 2 || bias != classes {
            return Some(format!(
                "it has {classes} classes and {bias} biases; 2 at least, as many"
            ));
        }
        if self.weight.is_empty() || !self.weight.len().is_multiple_of(classes) {
            let weights = self.weight.len();
            return Some(format!("{weights} weights cannot be shared out to {classes} classes"));
        }
        let bad = self.weight.iter().chain(&self.bias).find(|v| !v.is_finite());
        bad.map(|value| format!("it holds {value}"))
    }

    /// What is known of it.
    pub fn info(&self) -> &HeadInfo {
        &self.info
    }

    /// Whether embeddings of its model hold all it reads, so that no picture need be opened.
    pub fn reads_stored_vectors(&self) -> bool {
        self.info.recipe.is_stored() && self.info.model.pooling == Pooling::Cls
    }

    /// Number of features it reads.
    pub fn dim(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// A score for each class, from [`dim`](Self::dim) features of its recipe.
    ///
    /// # Panics
    /// The number of features is another.
    pub fn scores(&self, features: &[f32]) -> Vec<f32> {
        assert_eq!(features.len(), self.dim(), "the head's features");
        let score = |(weight, bias): (&[f32], &f32)| {
            let products = weight.iter().zip(features).map(|(&w, &x)| f64::from(w) * f64::from(x));
            (products.sum::<f64>() + f64::from(*bias)) as f32
        };
        self.weight.chunks_exact(self.dim()).zip(&self.bias).map(score).collect()
    }

    /// The most probable class; `None` when the scores overflow.
    ///
    /// # Panics
    /// As [`scores`](Self::scores).
    pub fn predict(&self, features: &[f32]) -> Option<Prediction> {
        let scores = self.scores(features);
        let class = argmax(&scores)? as usize;
        let sum: f64 =
            scores.iter().map(|s| (f64::from(*s) - f64::from(scores[class])).exp()).sum();
        Some(Prediction { class, confidence: 1.0 / sum })
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |reason: String| EngineError::Head { path: path.to_path_buf(), reason };
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (weight, bias): (Vec<u8>, Vec<u8>) = (bytes(&self.weight), bytes(&self.bias));
        let view = |shape, bytes| {
            TensorView::new(Dtype::F32, shape, bytes).map_err(|error| failed(error.to_string()))
        };
        let views = [
            ("weight", view(vec![self.bias.len(), self.dim()], &weight)?),
            ("bias", view(vec![self.bias.len()], &bias)?),
        ];
        let info = serde_json::to_string(&self.info).map_err(|error| failed(error.to_string()))?;
        let file = safetensors::serialize(views, Some(HashMap::from([(INFO.to_owned(), info)])));
        write_whole(path, &file.map_err(|error| failed(error.to_string()))?)
    }

    /// Reads what [`save`](Self::save) wrote; also returns the SHA-256 of the file, in lower-case
    /// hexadecimal.
    ///
    /// # Errors
    /// [`EngineError::Head`]: it cannot be read, is damaged, is something else, or was written by a
    /// newer release.
    pub fn load(path: &Path) -> Result<(Self, String)> {
        let failed = |reason: String| EngineError::Head { path: path.to_path_buf(), reason };
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let no_file = |_| {
            let reason = "it is no safetensors file, or is cut off; make a head with `akin train \
                          probe`";
            failed(reason.to_owned())
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(no_file)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(no_file)?;
        let info = header.metadata().as_ref().and_then(|entries| entries.get(INFO));
        let info = info.ok_or_else(|| {
            let reason = "it holds tensors but no head; make one with `akin train probe`";
            failed(reason.to_owned())
        })?;
        let info = read_info(info).map_err(failed)?;
        let values = |name: &str| {
            let tensor = tensors.tensor(name).map_err(|error| failed(error.to_string()))?;
            match tensor.dtype() {
                Dtype::F32 => Ok(f32_values(tensor.data())),
                other => Err(failed(format!("`{name}` has dtype {other}, expected F32"))),
            }
        };
        let head = Self { info, weight: values("weight")?, bias: values("bias")? };
        match head.problem() {
            Some(reason) => Err(failed(reason)),
            None => Ok((head, format!("{:x}", Sha256::digest(&bytes)))),
        }
    }
}

fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn read_info(text: &str) -> Result<HeadInfo, String> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let damaged = |error: serde_json::Error| format!("its description is damaged: {error}");
    let Version { format_version } = serde_json::from_str(text).map_err(damaged)?;
    if format_version > FORMAT_VERSION {
        return Err(format!(
            "it has format {format_version}, this release reads up to {FORMAT_VERSION}; use a \
             newer akin"
        ));
    }
    serde_json::from_str(text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::super::recipe::Scale;
    use super::*;
    use crate::decode::{DecodeMode, IccPolicy};
    use crate::kernels::Precision;
    use crate::preprocess::Preprocess;
    use crate::vit::PosEmbedRule;

    fn head() -> Head {
        let model = ModelIdentity {
            name: "tiny".to_owned(),
            weights_sha256: "0".repeat(64),
            dim: 2,
            pooling: Pooling::Cls,
            pos_embed: PosEmbedRule::Published,
            preprocess: Preprocess::default(),
            icc: IccPolicy::Ignore,
            precision: Precision::F32,
            decode: DecodeMode::Exact,
        };
        let info = HeadInfo::new(
            (&model, vec!["cat".to_owned(), "dog".to_owned()]),
            Recipe::cls(Scale::Unit),
            Method::Logistic { c: 0.5 },
            20,
            Score { correct: 3, pictures: 4 },
        );
        Head::new(info, vec![1.0, 0.0, 0.0, 2.0], vec![0.5, 0.0]).expect("sound")
    }

    #[test]
    fn predictions_are_softmax_probabilities() {
        let prediction = head().predict(&[1.0, 1.0]).expect("finite");
        assert_eq!(prediction.class, 1);
        let expected = 2f64.exp() / (2f64.exp() + 1.5f64.exp());
        assert!((prediction.confidence - expected).abs() < 1e-7);
        assert_eq!(head().predict(&[f32::MAX, f32::MAX]), None);
    }

    #[test]
    fn a_file_gives_the_same_head_and_other_files_are_named() -> Result<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("head.safetensors");
        head().save(&path)?;
        let (loaded, sha256) = Head::load(&path)?;
        assert_eq!((loaded, sha256.len()), (head(), 64));

        let bytes = std::fs::read(&path).expect("read");
        let cases: [(&[u8], &str); 3] = [
            (b"words, many words", "no safetensors file"),
            (&bytes[..bytes.len() - 3], "no safetensors file"),
            (b"", "no safetensors file"),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes).expect("write");
            let message = Head::load(&path).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(expected) && message.contains("head.safetensors"));
        }
        let weights = fixtures::path("golden/tiny_plain.hf.safetensors");
        let message = Head::load(&weights).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("no head"), "{message}");
        Ok(())
    }

    #[test]
    fn a_newer_or_unsound_head_is_refused() {
        let text = serde_json::to_string(head().info()).expect("JSON");
        let newer = text.replace("\"format_version\":1", "\"format_version\":2");
        assert!(read_info(&newer).is_err_and(|reason| reason.contains("use a newer akin")));
        let Head { info, weight, bias } = head();
        let broken = vec![f32::NAN; weight.len()];
        assert!(Head::new(info.clone(), broken, bias.clone()).is_err());
        assert!(Head::new(info, weight, bias[1..].to_vec()).is_err());
    }
}
