//! Layer norm with its gradient in one pass over the rows.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise;
use crate::vit::config::LAYER_NORM_EPS;

/// Rows whose gradients are summed by one task. Fixed, so that sums do not depend on the number of
/// threads.
const ROWS_PER_TASK: usize = 64;

/// Normalisation of each row of `x` (T, C) with gain `weight` (C) and shift `bias` (C), statistics
/// in f32, epsilon 1e-6. Differentiable.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if is_fused(x) {
        return Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Norm)?);
    }
    composed(x, weight, bias)
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + LAYER_NORM_EPS)?.sqrt()?)?;
    Ok(normed.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias)?)
}

struct Norm;

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = x_layout.shape().dims2()?;
        let weight = slice(weight, weight_layout)?;
        let bias = slice(bias, bias_layout)?;
        if width == 0 || (weight.len(), bias.len()) != (width, width) {
            candle_core::bail!(
                "layer norm: rows of {width}, gain of {}, shift of {}",
                weight.len(),
                bias.len()
            );
        }
        let mut out = slice(x, x_layout)?.to_vec();
        out.par_chunks_mut(width * ROWS_PER_TASK).for_each(|rows| {
            for row in rows.chunks_exact_mut(width) {
                elementwise::layer_norm(row, weight, bias);
            }
        });
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, width) = x.dims2()?;
        let mut d_x = vec![0f32; rows * width];
        let partial: Vec<[Vec<f32>; 2]> = with_values(x, |x| {
            with_values(weight, |weight| {
                with_values(grad, |grad| {
                    let task = width * ROWS_PER_TASK;
                    Ok(d_x
                        .par_chunks_mut(task)
                        .zip(x.par_chunks(task).zip(grad.par_chunks(task)))
                        .map(|(d_x, (x, grad))| rows_backward(d_x, x, grad, weight))
                        .collect())
                })
            })
        })?;
        let mut sums = [vec![0f32; width], vec![0f32; width]];
        for part in &partial {
            for (sum, part) in sums.iter_mut().zip(part) {
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
        }
        let [d_weight, d_bias] = sums;
        Ok((
            Some(tensor(d_x, (rows, width))?),
            Some(tensor(d_weight, width)?),
            Some(tensor(d_bias, width)?),
        ))
    }
}

/// Writes the gradient of some rows and returns their share of those of gain and shift.
fn rows_backward(d_x: &mut [f32], x: &[f32], grad: &[f32], weight: &[f32]) -> [Vec<f32>; 2] {
    let width = weight.len();
    let (mut d_weight, mut d_bias) = (vec![0f32; width], vec![0f32; width]);
    let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
    for (d_x, (x, grad)) in d_x.chunks_exact_mut(width).zip(rows) {
        elementwise::layer_norm_backward(d_x, x, grad, weight, &mut d_weight, &mut d_bias);
    }
    [d_weight, d_bias]
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_composed_ones() -> Result<()> {
        let cpu = Device::Cpu;
        // More than two tasks, the last one short.
        let variables = [
            Var::randn(1f32, 2.0, (2 * ROWS_PER_TASK + 3, 48), &cpu)?,
            Var::randn(1f32, 0.5, 48, &cpu)?,
            Var::randn(0f32, 1.0, 48, &cpu)?,
        ];
        let [x, weight, bias] = &variables;
        let upstream = Tensor::randn(0f32, 1.0, x.shape(), &cpu)?;
        let with_gradients = |out: Tensor| -> Result<Vec<Tensor>> {
            let gradients = (&out * &upstream)?.sum_all()?.backward()?;
            let all = variables.iter().filter_map(|v| gradients.get(v)).cloned();
            Ok(std::iter::once(out).chain(all).collect())
        };
        let ours = with_gradients(layer_norm(x, weight, bias)?)?;
        let plain = with_gradients(composed(x, weight, bias)?)?;
        assert_eq!((ours.len(), plain.len()), (4, 4));
        for (ours, plain) in ours.iter().zip(&plain) {
            let largest = |t: &Tensor| -> Result<f32> { Ok(t.abs()?.max_all()?.to_scalar()?) };
            let error = largest(&(ours - plain)?)? / largest(plain)?;
            assert!(error < 1e-5, "relative error {error}");
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_an_error() -> Result<()> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let message = layer_norm(&zeros(&[2, 3])?, &zeros(&[4])?, &zeros(&[3])?).err();
        assert!(message.is_some_and(|m| m.to_string().contains("gain of 4")));
        Ok(())
    }
}
