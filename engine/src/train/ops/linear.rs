//! `x W^T + b`, with bf16 products where asked for.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, sum_rows, tensor, with_values};
use crate::error::Result;
use crate::kernels::{Operand, elementwise, matmul_bf16};

/// Arithmetic of the matrix products of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// f32 throughout.
    #[default]
    F32,
    /// Factors rounded to bf16, sums and everything else in f32: the usual mixed precision.
    Bf16,
}

/// Linear layer: `x` (T, in), `weight` (out, in), `bias` (out) to (T, out). Differentiable.
///
/// `precision` concerns f32 tensors; with others their dtype decides.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    precision: MatmulPrecision,
) -> Result<Tensor> {
    let on_cpu = x.device().is_cpu();
    if precision == MatmulPrecision::Bf16 && x.dtype() == DType::F32 && !on_cpu {
        // As PyTorch's autocast: tensor cores sum in f32, the rest stays f32.
        let (x, weight) = (x.to_dtype(DType::BF16)?, weight.to_dtype(DType::BF16)?);
        return Ok(x.matmul(&weight.t()?)?.to_dtype(DType::F32)?.broadcast_add(bias)?);
    }
    if !is_fused(x) || precision == MatmulPrecision::F32 {
        return Ok(x.matmul(&weight.t()?)?.broadcast_add(bias)?);
    }
    Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Bf16Linear)?)
}

struct Bf16Linear;

impl CustomOp3 for Bf16Linear {
    fn name(&self) -> &'static str {
        "bf16-linear"
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
        let (rows, input) = x_layout.shape().dims2()?;
        let (output, weight_input) = weight_layout.shape().dims2()?;
        let bias_len = bias_layout.shape().dims1()?;
        if (weight_input, bias_len) != (input, output) {
            candle_core::bail!(
                "linear: x is {rows} x {input}, weight {output} x {weight_input}, bias {bias_len}"
            );
        }
        let mut out = vec![0f32; rows * output];
        let x = Operand::new(slice(x, x_layout)?, rows, input);
        let weight = Operand::new(slice(weight, weight_layout)?, output, input);
        matmul_bf16(x, weight.t(), &mut out);
        let bias = slice(bias, bias_layout)?;
        out.par_chunks_mut(output.max(1)).for_each(|row| elementwise::add(row, bias));
        Ok((CpuStorage::F32(out), (rows, output).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((rows, input), output) = (x.dims2()?, weight.dim(0)?);
        let (mut grad_x, mut grad_weight) = (vec![0f32; rows * input], vec![0f32; output * input]);
        let grad_bias = with_values(grad, |grad| {
            let grad_bias = sum_rows(grad, output, |sums, _, row| elementwise::add(sums, row));
            let grad = Operand::new(grad, rows, output);
            with_values(weight, |weight| {
                matmul_bf16(grad, Operand::new(weight, output, input), &mut grad_x);
                Ok(())
            })?;
            with_values(x, |x| {
                matmul_bf16(grad.t(), Operand::new(x, rows, input), &mut grad_weight);
                Ok(())
            })?;
            Ok(grad_bias)
        })?;
        Ok((
            Some(tensor(grad_x, (rows, input))?),
            Some(tensor(grad_weight, (output, input))?),
            Some(tensor(grad_bias, output)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn bf16_values_and_gradients_are_near_those_of_f32() -> Result<()> {
        let cpu = Device::Cpu;
        let variables = [
            Var::randn(0f32, 1.0, (37, 65), &cpu)?,
            Var::randn(0f32, 0.2, (43, 65), &cpu)?,
            Var::randn(0f32, 1.0, 43, &cpu)?,
        ];
        let upstream = Tensor::randn(0f32, 1.0, (37, 43), &cpu)?;
        let [x, weight, bias] = &variables;
        let run = |precision| -> Result<Vec<Tensor>> {
            let out = linear(x, weight, bias, precision)?;
            let gradients = (&out * &upstream)?.sum_all()?.backward()?;
            let mut all = vec![out];
            all.extend(variables.iter().filter_map(|v| gradients.get(v)).cloned());
            Ok(all)
        };
        let (exact, rounded) = (run(MatmulPrecision::F32)?, run(MatmulPrecision::Bf16)?);
        assert_eq!((exact.len(), rounded.len()), (4, 4));
        for (exact, rounded) in exact.iter().zip(&rounded) {
            assert_eq!(exact.dims(), rounded.dims());
            let norm = |t: &Tensor| -> Result<f32> { Ok(t.sqr()?.sum_all()?.to_scalar()?) };
            let error = (norm(&(exact - rounded)?)? / norm(exact)?).sqrt();
            assert!(error < 4e-3, "relative error {error}"); // bf16 keeps 8 bits
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_an_error() -> Result<()> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu);
        let (x, weight, bias) = (zeros(&[2, 3])?, zeros(&[5, 4])?, zeros(&[5])?);
        assert!(linear(&x, &weight, &bias, MatmulPrecision::Bf16).is_err());
        Ok(())
    }
}
