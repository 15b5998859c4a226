//! Differentiable operations that candle lacks or runs on one thread, fused for f32 on the CPU.

mod attention;
mod cross_entropy;
mod gelu;
mod linear;
mod norm;
mod residual;
mod rows;

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

pub use attention::{SequenceLengths, attention, materialised_attention};
pub use cross_entropy::cross_entropy;
pub use gelu::gelu;
pub use linear::{MatmulPrecision, linear};
pub use norm::layer_norm;
pub use residual::scaled_residual;
pub use rows::{RowSubset, add_to_rows, gather_rows};

/// The values of a contiguous f32 tensor in main memory.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(values)) => Ok(&values[start..end]),
        _ => bail!("a fused operation was given a tensor that is not contiguous f32"),
    }
}

/// Reads a tensor's values in place, first made contiguous where it is not.
pub(super) fn with_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(slice(storage, layout)?),
        _ => bail!("a fused CPU operation was given a tensor on another device"),
    }
}

/// A new tensor in main memory.
pub(super) fn tensor<S: Into<candle_core::Shape>>(values: Vec<f32>, shape: S) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Whether the fused CPU path applies.
pub(super) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == candle_core::DType::F32
}

/// Sums rows of `width` values down their columns, on all cores, in an order that does not depend
/// on their number. `add(sums, start, row)` adds the row that starts at value `start`.
pub(super) fn sum_rows(
    values: &[f32],
    width: usize,
    add: impl Fn(&mut [f32], usize, &[f32]) + Sync,
) -> Vec<f32> {
    const ROWS_PER_TASK: usize = 64;
    let task = ROWS_PER_TASK * width;
    let partial: Vec<Vec<f32>> = values
        .par_chunks(task.max(1))
        .enumerate()
        .map(|(i, rows)| {
            let mut sums = vec![0f32; width];
            for (row, values) in rows.chunks_exact(width).enumerate() {
                add(&mut sums, i * task + row * width, values);
            }
            sums
        })
        .collect();
    let mut total = vec![0f32; width];
    for sums in partial {
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    total
}
