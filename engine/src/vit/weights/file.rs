//! The two containers: memory-mapped safetensors, and PyTorch's zipped pickle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::WeightsError;

/// Shape and dtype of a stored tensor.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: StoredDtype,
    /// Byte range in the memory map; unused for pickles.
    range: std::ops::Range<usize>,
}

#[cfg(test)]
impl TensorInfo {
    /// An f32 tensor that is only described.
    pub(super) fn f32(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dtype: StoredDtype::F32, range: 0..0 }
    }
}

/// dtype of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredDtype {
    F32,
    F16,
    Bf16,
    /// Signed bytes to be multiplied by the f32 scale of their row; where the scales lie.
    Int8 {
        scales: std::ops::Range<usize>,
    },
    /// Anything else, by its name.
    Other(String),
}

impl std::fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::Bf16 => f.write_str("BF16"),
            Self::Int8 { .. } => f.write_str("I8"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

pub(super) type TensorInfos = BTreeMap<String, TensorInfo>;

/// Ends the name of the f32 scales (one for each row) of a matrix stored as signed bytes.
pub(crate) const INT8_SCALE: &str = ".int8_scale";

/// Bytes of a safetensors file.
enum Bytes {
    Map(Mmap),
    Embedded(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

enum Container {
    Safetensors(Bytes),
    Pickle(PthTensors),
}

pub(super) struct WeightsFile {
    path: PathBuf,
    container: Container,
    tensors: TensorInfos,
}

impl std::fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightsFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl WeightsFile {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length == 0 {
            return Err(unreadable(path, "the file is empty; fetch it again"));
        }
        let mut head = [0u8; 4];
        let is_zip = file.read_exact(&mut head).is_ok() && &head == b"PK\x03\x04";
        // Pickle protocol 2, as torch.save wrote it before version 1.6.
        if head.starts_with(&[0x80, 0x02]) && path.extension().is_some_and(|e| e != "safetensors") {
            return Err(unreadable(
                path,
                "it is a PyTorch file from before version 1.6; load it with torch.load and save \
                 it again with torch.save",
            ));
        }
        if is_zip { Self::open_pickle(path) } else { Self::open_safetensors(path, &file) }
    }

    fn open_safetensors(path: &Path, file: &File) -> Result<Self, WeightsError> {
        // SAFETY: the map is read-only and private to this struct. As with any memory map,
        // another process truncating the file while it is open would raise SIGBUS; model files
        // are replaced by rename, never rewritten in place.
        #[expect(unsafe_code, reason = "weights are memory-mapped; see SAFETY")]
        let map = unsafe { Mmap::map(file) }
            .map_err(|source| WeightsError::Io { path: path.to_path_buf(), source })?;
        Self::parse(path, Bytes::Map(map))
    }

    /// A safetensors file that is part of the program; `path` only names it.
    pub(super) fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self, WeightsError> {
        Self::parse(path, Bytes::Embedded(bytes))
    }

    fn parse(path: &Path, map: Bytes) -> Result<Self, WeightsError> {
        let parsed = SafeTensors::deserialize(&map).map_err(|error| {
            unreadable(path, &format!("{error}; it is cut short, damaged, or not safetensors"))
        })?;
        let base = map.as_ptr() as usize;
        let range = |view: &TensorView<'_>| {
            let start = view.data().as_ptr() as usize - base;
            start..start + view.data().len()
        };
        let scales = |name: &str, view: &TensorView<'_>| {
            let scale = parsed.tensor(&format!("{name}{INT8_SCALE}")).ok()?;
            let rows = view.shape().first().copied().unwrap_or(1);
            (scale.dtype() == Dtype::F32 && scale.shape() == [rows]).then(|| range(&scale))
        };
        let tensors = parsed
            .iter()
            .filter(|(name, _)| {
                let of = name.strip_suffix(INT8_SCALE).and_then(|of| parsed.tensor(of).ok());
                of.is_none_or(|of| of.dtype() != Dtype::I8)
            })
            .map(|(name, view)| {
                let dtype = match view.dtype() {
                    Dtype::I8 => match scales(name, &view) {
                        Some(scales) => StoredDtype::Int8 { scales },
                        None => StoredDtype::Other("I8 without scales".to_owned()),
                    },
                    Dtype::F32 => StoredDtype::F32,
                    Dtype::F16 => StoredDtype::F16,
                    Dtype::BF16 => StoredDtype::Bf16,
                    other => StoredDtype::Other(format!("{other:?}")),
                };
                let (shape, range) = (view.shape().to_vec(), range(&view));
                (name.to_owned(), TensorInfo { shape, dtype, range })
            })
            .collect();
        drop(parsed);
        Ok(Self { path: path.to_path_buf(), container: Container::Safetensors(map), tensors })
    }

    fn open_pickle(path: &Path) -> Result<Self, WeightsError> {
        let open = |key| {
            PthTensors::new(path, key)
                .map_err(|error| unreadable(path, &format!("{error} (PyTorch zip file)")))
        };
        // Checkpoints often keep the parameters one level down, beside an optimizer.
        let mut pickle = open(None)?;
        for key in ["state_dict", "model"] {
            if pickle.tensor_infos().is_empty() {
                pickle = open(Some(key)).unwrap_or(pickle);
            }
        }
        let tensors = pickle
            .tensor_infos()
            .iter()
            .map(|(name, info)| {
                let dtype = match info.dtype {
                    candle_core::DType::F32 => StoredDtype::F32,
                    candle_core::DType::F16 => StoredDtype::F16,
                    candle_core::DType::BF16 => StoredDtype::Bf16,
                    other => StoredDtype::Other(format!("{other:?}")),
                };
                let shape = info.layout.shape().dims().to_vec();
                (name.clone(), TensorInfo { shape, dtype, range: 0..0 })
            })
            .collect();
        Ok(Self { path: path.to_path_buf(), container: Container::Pickle(pickle), tensors })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tensors(&self) -> &TensorInfos {
        &self.tensors
    }

    pub(super) fn sha256(&self) -> std::io::Result<String> {
        let mut hasher = Sha256::new();
        match &self.container {
            Container::Safetensors(map) => hasher.update(&**map),
            Container::Pickle(_) => {
                std::io::copy(&mut File::open(&self.path)?, &mut hasher)?;
            }
        }
        Ok(format!("{:x}", hasher.finalize()))
    }

    /// Values of one stored tensor, widened to f32 and known to be finite.
    pub(super) fn read_f32(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let values = match &self.container {
            Container::Safetensors(map) => self.mapped(map, name),
            Container::Pickle(pickle) => read_pickled(pickle, name),
        }
        .map_err(|reason| unreadable(&self.path, &format!("tensor `{name}`: {reason}")))?;
        // One number that says whether there is anything to find: vectors of it are fast.
        let largest = values.iter().fold(0u32, |most, value| most.max(value.abs().to_bits()));
        if largest < f32::INFINITY.to_bits() {
            return Ok(values);
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(WeightsError::NotFinite {
                path: self.path.clone(),
                tensor: name.to_owned(),
                index,
                value: values[index],
            }),
        }
    }

    fn mapped(&self, map: &[u8], name: &str) -> Result<Vec<f32>, String> {
        let info = self.tensors.get(name).ok_or("not in the file")?;
        let bytes = map.get(info.range.clone()).ok_or("outside the file")?;
        Ok(match &info.dtype {
            StoredDtype::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            StoredDtype::F16 => widened(bytes),
            StoredDtype::Bf16 => {
                let halves = bytes.as_chunks::<2>().0.iter();
                halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            StoredDtype::Int8 { scales } => {
                let scales = map.get(scales.clone()).ok_or("scales outside the file")?;
                let scales = scales.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                let row = bytes.len() / scales.len().max(1);
                let rows = bytes.chunks_exact(row.max(1)).zip(scales);
                rows.flat_map(|(row, scale)| {
                    row.iter().map(move |b| f32::from(b.cast_signed()) * scale)
                })
                .collect()
            }
            StoredDtype::Other(dtype) => return Err(format!("dtype {dtype} is not supported")),
        })
    }

    /// An entry of the `__metadata__` of a safetensors file.
    pub(super) fn metadata(&self, key: &str) -> Option<String> {
        let Container::Safetensors(bytes) = &self.container else { return None };
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        header.metadata().as_ref()?.get(key).cloned()
    }
}

/// Values of half precision, many at a time: the processor's instruction takes eight.
fn widened(bytes: &[u8]) -> Vec<f32> {
    const STEP: usize = 256;
    let mut values = vec![0f32; bytes.len() / 2];
    let mut halves = [f16::ZERO; STEP];
    for (bytes, values) in bytes.chunks(2 * STEP).zip(values.chunks_mut(STEP)) {
        let bytes = bytes.as_chunks::<2>().0;
        for (half, bytes) in halves.iter_mut().zip(bytes) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..values.len()].convert_to_f32_slice(values);
    }
    values
}

fn read_pickled(pickle: &PthTensors, name: &str) -> Result<Vec<f32>, String> {
    let tensor = pickle.get(name).map_err(|error| error.to_string())?.ok_or("not in the file")?;
    tensor
        .to_dtype(candle_core::DType::F32)
        .and_then(|tensor| tensor.flatten_all()?.to_vec1())
        .map_err(|error| error.to_string())
}

fn unreadable(path: &Path, reason: &str) -> WeightsError {
    WeightsError::Unreadable { path: path.to_path_buf(), reason: reason.to_owned() }
}
