//! Exact GELU with its gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise;

/// Values handed to one task.
const VALUES_PER_TASK: usize = 1 << 14;

/// `x Phi(x)` with the exact normal distribution function, any shape. Differentiable.
///
/// # Errors
/// A failed tensor operation.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) {
        return Ok(x.contiguous()?.apply_op1(Gelu)?);
    }
    Ok(x.gelu_erf()?)
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut out = slice(x, layout)?.to_vec();
        out.par_chunks_mut(VALUES_PER_TASK).for_each(elementwise::gelu);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut out = with_values(grad, |grad| Ok(grad.to_vec()))?;
        with_values(x, |x| {
            out.par_chunks_mut(VALUES_PER_TASK)
                .zip(x.par_chunks(VALUES_PER_TASK))
                .for_each(|(grad, x)| elementwise::gelu_backward(grad, x));
            Ok(())
        })?;
        Ok(Some(tensor(out, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_candles() -> Result<()> {
        let values: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 3e-3).collect();
        let x = Var::from_vec(values, 8001, &Device::Cpu)?;
        let (ours, plain) = (gelu(&x)?, x.gelu_erf()?);
        let gradient = |out: &Tensor| -> Result<Option<Tensor>> {
            Ok(out.sum_all()?.backward()?.get(&x).cloned())
        };
        let (Some(d_ours), Some(d_plain)) = (gradient(&ours)?, gradient(&plain)?) else {
            panic!("no gradient")
        };
        for (ours, plain) in [(ours, plain), (d_ours, d_plain)] {
            let error: f32 = (ours - plain)?.abs()?.max_all()?.to_scalar()?;
            assert!(error < 2e-6, "largest error {error}");
        }
        Ok(())
    }
}
