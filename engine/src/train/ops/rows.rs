//! Part of the rows of a packed tensor: taken out, and added to again. What stochastic depth needs
//! to skip what it drops.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, sum_rows, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise;

/// Distinct rows of a tensor, each with the factor of what is added to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSubset {
    rows: Arc<[u32]>,
    factors: Arc<[f32]>,
}

impl RowSubset {
    /// From as many distinct rows as factors.
    pub fn new(rows: impl Into<Arc<[u32]>>, factors: impl Into<Arc<[f32]>>) -> Self {
        Self { rows: rows.into(), factors: factors.into() }
    }

    fn indices(&self, like: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.rows, self.rows.len(), like.device())?)
    }

    fn factors(&self, like: &Tensor) -> Result<Tensor> {
        let factors = Tensor::from_slice(&self.factors, (self.factors.len(), 1), like.device())?;
        Ok(factors.to_dtype(like.dtype())?)
    }

    /// Factor of every one of `count` rows, 0 outside the subset: (`count`, 1), f32.
    ///
    /// # Errors
    /// The device refuses the memory, or a row is beyond `count`.
    pub fn to_mask(&self, count: usize, like: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::zeros((count, 1), DType::F32, like.device())?;
        Ok(zeros.index_add(&self.indices(like)?, &self.factors(&zeros)?, 0)?)
    }

    fn check(&self, rows: usize) -> candle_core::Result<()> {
        match self.rows.iter().max() {
            Some(&row) if row as usize >= rows => {
                candle_core::bail!("row {row} is asked for, and there are {rows}")
            }
            _ if self.rows.len() != self.factors.len() => {
                candle_core::bail!("{} rows, {} factors", self.rows.len(), self.factors.len())
            }
            _ => Ok(()),
        }
    }
}

/// The rows of `x` (T, C) in the subset, (S, C). Differentiable.
///
/// # Errors
/// A row that is not there.
pub fn gather_rows(x: &Tensor, subset: &RowSubset) -> Result<Tensor> {
    if is_fused(x) {
        return Ok(x.contiguous()?.apply_op1(Gather(subset.clone()))?);
    }
    Ok(x.index_select(&subset.indices(x)?, 0)?)
}

/// `x` with factor `gamma branch` added to the rows of the subset: `x` (T, C), `branch` (S, C),
/// `gamma` (C), to (T, C). Differentiable.
///
/// # Errors
/// Shapes that do not fit, or a row that is not there.
pub fn add_to_rows(
    x: &Tensor,
    branch: &Tensor,
    gamma: &Tensor,
    subset: &RowSubset,
) -> Result<Tensor> {
    if is_fused(x) {
        let (branch, gamma) = (branch.contiguous()?, gamma.contiguous()?);
        return Ok(x.contiguous()?.apply_op3(&branch, &gamma, AddToRows(subset.clone()))?);
    }
    let scaled = branch.broadcast_mul(gamma)?.broadcast_mul(&subset.factors(branch)?)?;
    Ok(x.index_add(&subset.indices(x)?, &scaled, 0)?)
}

struct Gather(RowSubset);

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        self.0.check(rows)?;
        let out = gather(slice(x, layout)?, width, &self.0.rows);
        Ok((CpuStorage::F32(out), (self.0.rows.len(), width).into()))
    }

    fn bwd(&self, x: &Tensor, _out: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (rows, width) = x.dims2()?;
        let mut out = vec![0f32; rows * width];
        with_values(grad, |grad| {
            for (&row, grad) in self.0.rows.iter().zip(grad.chunks_exact(width)) {
                out[row as usize * width..][..width].copy_from_slice(grad);
            }
            Ok(())
        })?;
        Ok(Some(tensor(out, (rows, width))?))
    }
}

fn gather(values: &[f32], width: usize, rows: &[u32]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row as usize * width..][..width]).copied().collect()
}

struct AddToRows(RowSubset);

impl CustomOp3 for AddToRows {
    fn name(&self) -> &'static str {
        "add-to-rows"
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
        let RowSubset { rows: subset, factors } = &self.0;
        self.0.check(rows)?;
        let (branch, gamma) = (slice(branch, branch_layout)?, slice(gamma, gamma_layout)?);
        if branch_layout.shape().dims2()? != (subset.len(), width) || gamma.len() != width {
            candle_core::bail!(
                "residual: x is {rows} x {width}, {} rows of it chosen, branch {:?}, gain {}",
                subset.len(),
                branch_layout.shape(),
                gamma.len()
            );
        }
        let mut out = slice(x, x_layout)?.to_vec();
        for ((&row, factor), branch) in
            subset.iter().zip(&factors[..]).zip(branch.chunks_exact(width.max(1)))
        {
            let out = &mut out[row as usize * width..][..width];
            for ((out, branch), gamma) in out.iter_mut().zip(branch).zip(gamma) {
                *out += factor * (branch * gamma);
            }
        }
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
        let RowSubset { rows, factors } = &self.0;
        let mut d_branch = with_values(grad, |grad| Ok(gather(grad, width, rows)))?;
        d_branch.par_chunks_mut(width).zip(&factors[..]).for_each(|(row, factor)| {
            row.iter_mut().for_each(|x| *x *= factor);
        });
        let d_gamma = with_values(branch, |branch| {
            Ok(sum_rows(&d_branch, width, |sums, start, grad| {
                elementwise::add_products(sums, grad, &branch[start..start + width]);
            }))
        })?;
        with_values(gamma, |gamma| {
            d_branch.par_chunks_mut(width).for_each(|row| {
                elementwise::scale(row, gamma);
            });
            Ok(())
        })?;
        let d_branch = tensor(d_branch, branch.shape())?;
        Ok((Some(grad.clone()), Some(d_branch), Some(tensor(d_gamma, width)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_composed_ones() -> Result<()> {
        let cpu = Device::Cpu;
        let subset = RowSubset::new(vec![1u32, 2, 7, 30, 149], vec![1.5f32, 1.5, 2.0, 2.0, 2.0]);
        let (x, gamma) =
            (Var::randn(0f32, 1.0, (150, 24), &cpu)?, Var::randn(0f32, 1.0, 24, &cpu)?);
        let upstream = Tensor::randn(0f32, 1.0, (150, 24), &cpu)?;
        let with_gradients = |out: Tensor| -> Result<Vec<Tensor>> {
            let gradients = (&out * &upstream)?.sum_all()?.backward()?;
            let all = [&x, &gamma].into_iter().filter_map(|v| gradients.get(v)).cloned();
            Ok(std::iter::once(out).chain(all).collect())
        };
        let branch = gather_rows(&x, &subset)?.sin()?;
        let ours = with_gradients(add_to_rows(&x, &branch, &gamma, &subset)?)?;
        let branch = x.index_select(&subset.indices(&x)?, 0)?.sin()?;
        let scaled = branch.broadcast_mul(&gamma)?.broadcast_mul(&subset.factors(&x)?)?;
        let plain = with_gradients(x.index_add(&subset.indices(&x)?, &scaled, 0)?)?;
        assert_eq!((ours.len(), plain.len()), (3, 3));
        for (ours, plain) in ours.iter().zip(&plain) {
            let largest =
                |t: &Tensor| -> Result<f32> { Ok(t.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
            let error = largest(&(ours - plain)?)? / largest(plain)?;
            assert!(error < 1e-6, "relative error {error}");
        }
        let mask = subset.to_mask(150, &x)?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!((mask[0], mask[2], mask[149], mask.iter().sum::<f32>()), (0.0, 1.5, 2.0, 9.0));
        let beyond = RowSubset::new(vec![150u32], vec![1f32]);
        assert!(gather_rows(&x, &beyond).is_err());
        Ok(())
    }
}
