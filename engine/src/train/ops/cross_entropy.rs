//! Cross-entropy between teacher probabilities and student logits, row by row.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{is_fused, slice, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise::exp;

/// Values summed in f32 before f64 takes over: 65,536 probabilities are too many for f32.
const VALUES_PER_SUM: usize = 256;

/// -sum_k p_k log softmax(`logits` / `temperature`)_k for each row of `logits` (n, K), with p the
/// row of `targets` (m, K) named by `rows` (n indices): (n). Differentiable in `logits`; targets
/// are constants, and need not sum to 1 (the sum of two teachers' rows gives the sum of losses).
///
/// # Errors
/// Shapes that do not fit, or a row that is not there.
pub fn cross_entropy(
    logits: &Tensor,
    temperature: f64,
    targets: &Tensor,
    rows: &[u32],
) -> Result<Tensor> {
    let ((count, width), (there, target_width)) = (logits.dims2()?, targets.dims2()?);
    let beyond = rows.iter().any(|&row| row as usize >= there);
    if rows.len() != count || width != target_width || beyond || width == 0 {
        return Err(candle_core::Error::Msg(format!(
            "cross-entropy: logits are {count} x {width}, targets {there} x {target_width}, and \
             {} rows are named",
            rows.len()
        ))
        .into());
    }
    let targets = targets.detach();
    if is_fused(logits) {
        let op = CrossEntropy { temperature: temperature as f32, rows: rows.into() };
        return Ok(logits.contiguous()?.apply_op2(&targets.contiguous()?, op)?);
    }
    composed(logits, temperature, &targets, rows)
}

fn composed(logits: &Tensor, temperature: f64, targets: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let scaled = (logits / temperature)?;
    let centred = scaled.broadcast_sub(&scaled.max_keepdim(D::Minus1)?.detach())?;
    let log = centred.broadcast_sub(&centred.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let rows = Tensor::from_slice(rows, rows.len(), logits.device())?;
    Ok((log * targets.index_select(&rows, 0)?)?.sum(D::Minus1)?.neg()?)
}

struct CrossEntropy {
    temperature: f32,
    rows: Arc<[u32]>,
}

impl CrossEntropy {
    fn target<'a>(&self, targets: &'a [f32], row: usize, width: usize) -> &'a [f32] {
        &targets[self.rows[row] as usize * width..][..width]
    }

    /// Largest logit, and the sum of the exponentials of what the others lack to it.
    fn normaliser(&self, logits: &[f32]) -> (f32, f64) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (max, sum(logits, |logit| exp((logit - max) / self.temperature)))
    }
}

fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let part = |values: &[f32]| f64::from(values.iter().map(|&v| term(v)).sum::<f32>());
    values.chunks(VALUES_PER_SUM).map(part).sum()
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        targets: &CpuStorage,
        targets_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, width) = logits_layout.shape().dims2()?;
        let (logits, targets) = (slice(logits, logits_layout)?, slice(targets, targets_layout)?);
        let loss = |(row, logits): (usize, &[f32])| {
            let target = self.target(targets, row, width);
            let (max, total) = self.normaliser(logits);
            let dots = logits.chunks(VALUES_PER_SUM).zip(target.chunks(VALUES_PER_SUM));
            let dot: f64 = dots
                .map(|(logits, target)| {
                    let terms = logits.iter().zip(target).map(|(logit, p)| (logit - max) * p);
                    f64::from(terms.sum::<f32>())
                })
                .sum();
            (sum(target, |p| p) * total.ln() - dot / f64::from(self.temperature)) as f32
        };
        let out: Vec<f32> = logits.par_chunks(width).enumerate().map(loss).collect();
        let count = out.len();
        Ok((CpuStorage::F32(out), count.into()))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let width = logits.dim(1)?;
        let mut out = with_values(logits, |logits| Ok(logits.to_vec()))?;
        with_values(targets, |targets| {
            with_values(grad, |grad| {
                out.par_chunks_mut(width).zip(grad).enumerate().for_each(|(row, (out, grad))| {
                    let target = self.target(targets, row, width);
                    let (max, total) = self.normaliser(out);
                    let share = (sum(target, |p| p) / total) as f32;
                    let scale = grad / self.temperature;
                    for (x, p) in out.iter_mut().zip(target) {
                        *x = scale * (share * exp((*x - max) / self.temperature) - p);
                    }
                });
                Ok(())
            })
        })?;
        Ok((Some(tensor(out, logits.shape())?), None))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn values_and_gradients_equal_the_composed_ones() -> Result<()> {
        let cpu = Device::Cpu;
        let logits = Var::randn(0f32, 0.3, (5, 700), &cpu)?;
        let targets = Tensor::randn(0f32, 0.01, (3, 700), &cpu)?.sqr()?;
        let (rows, weights) = ([2, 0, 1, 1, 2], Tensor::randn(0f32, 1.0, 5, &cpu)?);
        let gradient = |out: &Tensor| -> Result<Option<Tensor>> {
            Ok((out * &weights)?.sum_all()?.backward()?.get(&logits).cloned())
        };
        let ours = cross_entropy(&logits, 0.1, &targets, &rows)?;
        let plain = composed(&logits, 0.1, &targets, &rows)?;
        let (Some(d_ours), Some(d_plain)) = (gradient(&ours)?, gradient(&plain)?) else {
            panic!("no gradient")
        };
        for (ours, plain) in [(ours, plain), (d_ours, d_plain)] {
            let largest =
                |t: &Tensor| -> Result<f32> { Ok(t.abs()?.flatten_all()?.max(0)?.to_scalar()?) };
            let error = largest(&(&ours - &plain)?)? / largest(&plain)?;
            assert!(error < 1e-5, "relative error {error}");
        }
        assert!(cross_entropy(&logits, 0.1, &targets, &[0, 1, 2, 3, 0]).is_err());
        assert!(cross_entropy(&logits, 0.1, &targets, &[0]).is_err());
        Ok(())
    }
}
