//! Files of named tensors that appear whole or not at all: checkpoints, and finished weights.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{EngineError, Result};
use crate::vit::config::{PATCH_SIZE, VitConfig};
use crate::vit::weights::file::INT8_SCALE;

/// Metadata entry that holds the state of a training run.
const STATE: &str = "akin.training";

/// Writes `bytes` beside `path`, forces them to disk, and renames: readers see the old file or the
/// new one.
///
/// # Errors
/// The disk is full, or the folder cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        // The rename itself; not every file system lets folders be synced.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        let reason = format!(
            "cannot write {} ({} MB): {error}; the file that was there before is unchanged",
            path.display(),
            bytes.len() / 1_000_000
        );
        EngineError::Training { reason }
    })
}

/// Writes f32 tensors and the state that belongs to them.
///
/// # Errors
/// As [`write_whole`], or a tensor cannot be read back from its device.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, state: &impl Serialize) -> Result<()> {
    let state = serde_json::to_string(state).map_err(|error| failed(path, &error))?;
    let mut stored = Vec::new();
    for (name, tensor) in tensors {
        stored.push((name.clone(), Stored::f32(tensor)?));
    }
    write(path, &stored, HashMap::from([(STATE.to_owned(), state)]))
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// The file is damaged, or is no checkpoint.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    device: &Device,
) -> Result<(BTreeMap<String, Tensor>, T)> {
    let bytes = std::fs::read(path).map_err(|error| failed(path, &error))?;
    let (_, header) =
        safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| failed(path, &error))?;
    let state =
        header.metadata().as_ref().and_then(|entries| entries.get(STATE)).ok_or_else(|| {
            failed(path, &"it holds weights only, no training state; start a new run from it")
        })?;
    let state = serde_json::from_str(state).map_err(|error| failed(path, &error))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)?;
    Ok((tensors.into_iter().collect(), state))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> EngineError {
    let reason = format!("checkpoint {} cannot be used: {error}", path.display());
    EngineError::Training { reason }
}

/// How finished weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsDtype {
    /// As trained.
    F32,
    /// Half precision.
    F16,
    /// Matrices as signed bytes with one f32 scale for each row (largest magnitude = 127),
    /// everything else f16.
    Int8,
}

/// Writes a backbone in the layout of the original release, with `metadata`.
///
/// # Errors
/// As [`write_whole`].
pub fn write_weights(
    path: &Path,
    config: &VitConfig,
    parameters: &BTreeMap<String, Var>,
    dtype: WeightsDtype,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut stored = Vec::new();
    for (name, parameter) in parameters {
        let dim = config.embed_dim;
        let shape = match name.as_str() {
            "cls_token" => vec![1, 1, dim],
            "pos_embed" => vec![1, parameter.dim(0)?, dim],
            "register_tokens" => vec![1, parameter.dim(0)?, dim],
            "patch_embed.proj.weight" => vec![dim, 3, PATCH_SIZE, PATCH_SIZE],
            _ => parameter.dims().to_vec(),
        };
        let is_matrix = name.ends_with(".weight") && shape.len() >= 2;
        let tensor = Stored { shape, ..Stored::f32(parameter)? };
        match dtype {
            WeightsDtype::F32 => stored.push((name.clone(), tensor)),
            WeightsDtype::Int8 if is_matrix => {
                let (bytes, scales) = tensor.int8();
                stored.push((format!("{name}{INT8_SCALE}"), scales));
                stored.push((name.clone(), bytes));
            }
            WeightsDtype::F16 | WeightsDtype::Int8 => stored.push((name.clone(), tensor.f16())),
        }
    }
    if !parameters.contains_key("mask_token") {
        let zeros =
            Stored { shape: vec![1, config.embed_dim], ..Stored::of(vec![0.0; config.embed_dim]) };
        stored.push(("mask_token".to_owned(), zeros));
    }
    write(path, &stored, metadata)
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn of(values: Vec<f32>) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: vec![values.len()], bytes }
    }

    fn f32(tensor: &Tensor) -> Result<Self> {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self { shape: tensor.dims().to_vec(), ..Self::of(values) })
    }

    fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
    }

    fn f16(self) -> Self {
        let bytes = self.values().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
        Self { dtype: Dtype::F16, bytes, shape: self.shape }
    }

    /// Bytes and scales.
    fn int8(self) -> (Self, Self) {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        let values: Vec<f32> = self.values().collect();
        let (mut bytes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
        for row in values.chunks_exact((values.len() / rows).max(1)) {
            let scale = row.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            bytes.extend(row.iter().map(|v| ((v * inverse).round() as i8).cast_unsigned()));
            scales.push(scale);
        }
        (Self { dtype: Dtype::I8, bytes, shape: self.shape }, Self::of(scales))
    }
}

fn write(
    path: &Path,
    tensors: &[(String, Stored)],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let mut views = Vec::new();
    for (name, Stored { dtype, shape, bytes }) in tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        views.push((name.as_str(), view.map_err(|error| failed(path, &error))?));
    }
    let bytes = safetensors::serialize(views, Some(metadata));
    write_whole(path, &bytes.map_err(|error| failed(path, &error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_state_come_back_bit_for_bit() -> Result<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("checkpoint.safetensors");
        let tensor = Tensor::randn(0f32, 1.0, (3, 5), &Device::Cpu)?;
        let tensors = BTreeMap::from([("a.b".to_owned(), tensor.clone())]);
        save(&path, &tensors, &(7usize, "state"))?;
        let (loaded, state) = load::<(usize, String)>(&path, &Device::Cpu)?;
        assert_eq!(state, (7, "state".to_owned()));
        assert_eq!(loaded["a.b"].to_vec2::<f32>()?, tensor.to_vec2::<f32>()?);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
        Ok(())
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_says_so() -> Result<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("missing").join("x");
        let message = write_whole(&path, b"abc").err().map(|e| e.to_string());
        assert!(message.is_some_and(|m| m.contains("is unchanged")));
        Ok(())
    }

    #[test]
    fn signed_bytes_are_within_half_a_step() {
        let values: Vec<f32> = (0..60).map(|i| ((i * 37 % 61) as f32 - 30.0) * 0.01).collect();
        let stored = Stored { shape: vec![4, 15], ..Stored::of(values.clone()) };
        let (bytes, scales) = stored.int8();
        for (i, (byte, value)) in bytes.bytes.iter().zip(values).enumerate() {
            let scale = scales.values().nth(i / 15).unwrap_or(0.0);
            assert!((f32::from(byte.cast_signed()) * scale - value).abs() <= 0.501 * scale);
        }
    }
}
