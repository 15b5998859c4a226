//! Elementwise work of the forward pass, fused for f32 on the CPU, where candle runs each step on
//! one thread and through memory. Elsewhere the same is composed of candle's operations.
//!
//! All of these work in place and are given tensors the caller has just made.

use candle_core::{CpuStorage, D, DType, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Tensor, bail};
use rayon::prelude::*;

use super::config::LAYER_NORM_EPS;
use crate::error::Result;
use crate::kernels::elementwise;

/// Values handed to one task: enough to amortise scheduling.
const VALUES_PER_TASK: usize = 1 << 15;

fn is_cpu_f32(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && x.is_contiguous()
}

/// `x + bias`, with the bias along the last axis.
pub(super) fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !is_cpu_f32(&x) {
        return Ok(x.broadcast_add(bias)?);
    }
    x.inplace_op2(bias, &RowOp2("add-bias", elementwise::add))?;
    Ok(x)
}

/// `x * Phi(x)` with the exact normal distribution function.
pub(super) fn gelu(x: Tensor) -> Result<Tensor> {
    if !is_cpu_f32(&x) {
        // The exact form: candle's `gelu` is the tanh approximation.
        return Ok(x.gelu_erf()?);
    }
    x.inplace_op1(&RowOp1("gelu", elementwise::gelu))?;
    Ok(x)
}

/// Softmax over the last axis, in f32 whatever the dtype.
pub(super) fn softmax(x: Tensor) -> Result<Tensor> {
    if !is_cpu_f32(&x) {
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?;
        let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
        return Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?.to_dtype(dtype)?);
    }
    x.inplace_op1(&RowOp1("softmax", elementwise::softmax))?;
    Ok(x)
}

/// Normalisation over the last axis; statistics in f32 whatever the dtype, as PyTorch does.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if !is_cpu_f32(x) {
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + LAYER_NORM_EPS)?.sqrt()?)?;
        return Ok(normed.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias)?);
    }
    let out = x.copy()?;
    out.inplace_op3(weight, bias, &RowOp3("layer-norm", elementwise::layer_norm))?;
    Ok(out)
}

/// `x + gamma * branch`: LayerScale and the residual in one.
pub(super) fn scaled_residual(x: &Tensor, branch: Tensor, gamma: &Tensor) -> Result<Tensor> {
    if !is_cpu_f32(&branch) || !is_cpu_f32(x) {
        return Ok((x + branch.broadcast_mul(gamma)?)?);
    }
    branch.inplace_op3(x, gamma, &ScaledResidual)?;
    Ok(branch)
}

struct RowOp1(&'static str, fn(&mut [f32]));
struct RowOp2(&'static str, fn(&mut [f32], &[f32]));
struct RowOp3(&'static str, fn(&mut [f32], &[f32], &[f32]));
struct ScaledResidual;

impl InplaceOp1 for RowOp1 {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        for_rows(x, layout, self.1)
    }
}

impl InplaceOp2 for RowOp2 {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
    ) -> candle_core::Result<()> {
        let a = values(a, a_layout)?;
        for_rows(x, layout, |row| (self.1)(row, a))
    }
}

impl InplaceOp3 for RowOp3 {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (a, b) = (values(a, a_layout)?, values(b, b_layout)?);
        for_rows(x, layout, |row| (self.1)(row, a, b))
    }
}

impl InplaceOp3 for ScaledResidual {
    fn name(&self) -> &'static str {
        "scaled-residual"
    }

    fn cpu_fwd(
        &self,
        branch: &mut CpuStorage,
        layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (x, gamma) = (values(x, x_layout)?, values(gamma, gamma_layout)?);
        let (branch, width) = rows(branch, layout)?;
        let chunk = chunk_of(width);
        branch.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(branch, x)| {
            for (branch, x) in branch.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                elementwise::scaled_residual(branch, x, gamma);
            }
        });
        Ok(())
    }
}

fn for_rows(
    x: &mut CpuStorage,
    layout: &Layout,
    op: impl Fn(&mut [f32]) + Sync,
) -> candle_core::Result<()> {
    let (x, width) = rows(x, layout)?;
    x.par_chunks_mut(chunk_of(width)).for_each(|chunk| chunk.chunks_exact_mut(width).for_each(&op));
    Ok(())
}

/// A whole number of rows of about [`VALUES_PER_TASK`] values.
fn chunk_of(width: usize) -> usize {
    width * (VALUES_PER_TASK / width).max(1)
}

/// The values of a contiguous f32 tensor, and the length of its last axis.
fn rows<'a>(x: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<(&'a mut [f32], usize)> {
    let (CpuStorage::F32(values), Some((start, end))) = (x, layout.contiguous_offsets()) else {
        bail!("a fused operation needs a contiguous f32 tensor")
    };
    let width = layout.dims().last().copied().unwrap_or(1).max(1);
    Ok((&mut values[start..end], width))
}

fn values<'a>(x: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (CpuStorage::F32(values), Some((start, end))) = (x, layout.contiguous_offsets()) else {
        bail!("a fused operation needs contiguous f32 tensors")
    };
    Ok(&values[start..end])
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn ramp(shape: (usize, usize)) -> Tensor {
        let values = (0..shape.0 * shape.1).map(|i| ((i * 37) % 401) as f32 / 40.0 - 5.0);
        Tensor::from_iter(values, &Device::Cpu).and_then(|x| x.reshape(shape)).expect("tensor")
    }

    fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
        let b = b.to_dtype(DType::F64).expect("f64");
        let difference = (a.to_dtype(DType::F64).expect("f64") - b).expect("same shape");
        let max = difference.abs().and_then(|d| d.flatten_all()?.max(0)).expect("max");
        max.to_scalar().expect("scalar")
    }

    /// Each fused operation against the same composed of candle's in f64 (which takes the other
    /// branch), on a row length that is no multiple of the lanes.
    #[test]
    fn fused_operations_agree_with_composed_ones_in_f64() {
        let x = ramp((70, 387));
        let wide = |x: &Tensor| x.to_dtype(DType::F64).expect("f64");
        let row = ramp((1, 387)).squeeze(0).expect("row");

        let pairs = [
            (
                gelu(x.copy().expect("copy")),
                x.to_dtype(DType::F64).and_then(|x| x.gelu_erf()).map_err(Into::into),
            ),
            (add_bias(x.copy().expect("copy"), &row), add_bias(wide(&x), &wide(&row))),
            (softmax(x.copy().expect("copy")), softmax(wide(&x))),
            (
                scaled_residual(&x, x.copy().expect("copy"), &row),
                scaled_residual(&wide(&x), wide(&x), &wide(&row)),
            ),
        ];
        for (i, (fused, composed)) in pairs.into_iter().enumerate() {
            let difference = max_difference(&fused.expect("fused"), &composed.expect("composed"));
            assert!(difference < 4e-6, "operation {i}: {difference}");
        }
    }

    #[test]
    fn layer_norm_agrees_with_f64_even_far_from_zero() {
        let x = (ramp((40, 387)) + 300.0).expect("shift");
        let weight = ramp((1, 387)).squeeze(0).expect("row");
        let fused = layer_norm(&x, &weight, &weight).expect("fused");
        let x: Vec<Vec<f32>> = x.to_vec2().expect("rows");
        let fused: Vec<Vec<f32>> = fused.to_vec2().expect("rows");
        let weight: Vec<f32> = weight.to_vec1().expect("row");
        for (x, fused) in x.iter().zip(&fused) {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / 387.0;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 387.0;
            for ((x, fused), w) in x.iter().zip(fused).zip(&weight) {
                let normed = (f64::from(*x) - mean) / (variance + LAYER_NORM_EPS).sqrt();
                let expected = normed * f64::from(*w) + f64::from(*w);
                assert!((f64::from(*fused) - expected).abs() < 2e-4, "{fused} {expected}");
            }
        }
    }

    #[test]
    fn softmax_of_extreme_scores_is_finite_and_sums_to_one() {
        let x =
            Tensor::new(&[[-1e30f32, 0.0, 500.0, 499.0], [-5e3, -5e3, -5e3, -5e3]], &Device::Cpu);
        let rows: Vec<Vec<f32>> =
            softmax(x.expect("tensor")).and_then(|x| Ok(x.to_vec2()?)).expect("softmax");
        assert!((rows[0][2] - 0.731_058_6).abs() < 1e-6, "{rows:?}");
        assert_eq!(rows[1], [0.25; 4]);
        assert!(rows.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
    }
}
