//! LayerScale and residual sum in one pass.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, sum_rows, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise;

/// Values handed to one task.
const VALUES_PER_TASK: usize = 1 << 14;

/// `x + gamma * branch`: `x` and `branch` (T, C), `gamma` (C). Differentiable.
///
/// # Errors
/// Shapes that do not fit.
pub fn scaled_residual(x: &Tensor, branch: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    if is_fused(x) {
        let (branch, gamma) = (branch.contiguous()?, gamma.contiguous()?);
        return Ok(x.contiguous()?.apply_op3(&branch, &gamma, ScaledResidual)?);
    }
    Ok((x + branch.broadcast_mul(gamma)?)?)
}

struct ScaledResidual;

impl CustomOp3 for ScaledResidual {
    fn name(&self) -> &'static str {
        "scaled-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        branch: &CpuStorage,
        branch_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = x_layout.shape().dims2()?;
        let (branch, gamma) = (slice(branch, branch_layout)?, slice(gamma, gamma_layout)?);
        if width == 0 || branch_layout.shape() != x_layout.shape() || gamma.len() != width {
            candle_core::bail!(
                "residual: x is {rows} x {width}, branch {:?}, gain {}",
                branch_layout.shape(),
                gamma.len()
            );
        }
        let mut out = slice(x, x_layout)?.to_vec();
        let task = VALUES_PER_TASK.div_ceil(width) * width;
        out.par_chunks_mut(task).zip(branch.par_chunks(task)).for_each(|(out, branch)| {
            for (out, branch) in out.chunks_exact_mut(width).zip(branch.chunks_exact(width)) {
                elementwise::add_products(out, branch, gamma);
            }
        });
        Ok((CpuStorage::F32(out), (rows, width).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        branch: &Tensor,
        gamma: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = x.dim(1)?;
        let mut d_branch = with_values(grad, |grad| Ok(grad.to_vec()))?;
        let d_gamma = with_values(branch, |branch| {
            Ok(sum_rows(&d_branch, width, |sums, start, grad| {
                elementwise::add_products(sums, grad, &branch[start..start + width]);
            }))
        })?;
        with_values(gamma, |gamma| {
            let task = VALUES_PER_TASK.div_ceil(width) * width;
            d_branch.par_chunks_mut(task).for_each(|rows| {
                for row in rows.chunks_exact_mut(width) {
                    elementwise::scale(row, gamma);
                }
            });
            Ok(())
        })?;
        Ok((Some(grad.clone()), Some(tensor(d_branch, x.shape())?), Some(tensor(d_gamma, width)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_composed_ones() -> Result<()> {
        let cpu = Device::Cpu;
        let variables = [
            Var::randn(0f32, 1.0, (700, 48), &cpu)?,
            Var::randn(0f32, 1.0, (700, 48), &cpu)?,
            Var::randn(0f32, 1.0, 48, &cpu)?,
        ];
        let [x, branch, gamma] = &variables;
        let upstream = Tensor::randn(0f32, 1.0, (700, 48), &cpu)?;
        let with_gradients = |out: Tensor| -> Result<Vec<Tensor>> {
            let gradients = (&out * &upstream)?.sum_all()?.backward()?;
            let all = variables.iter().filter_map(|v| gradients.get(v)).cloned();
            Ok(std::iter::once(out).chain(all).collect())
        };
        let ours = with_gradients(scaled_residual(x, branch, gamma)?)?;
        let plain = with_gradients((x.as_tensor() + branch.broadcast_mul(gamma)?)?)?;
        assert_eq!((ours.len(), plain.len()), (4, 4));
        for (ours, plain) in ours.iter().zip(&plain) {
            let largest =
                |t: &Tensor| -> Result<f32> { Ok(t.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
            let error = largest(&(ours - plain)?)? / largest(plain)?;
            assert!(error < 1e-5, "relative error {error}");
        }
        assert!(scaled_residual(x, gamma, gamma).is_err());
        Ok(())
    }
}
