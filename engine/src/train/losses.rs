//! What DINOv2 trains on: teacher probabilities from logits, and KoLeo (reference:
//! `dino_clstoken_loss.py`, `ibot_patch_loss.py`, `koleo_loss.py`). The cross-entropy between the
//! two sides is [`cross_entropy`](super::ops::cross_entropy).

use candle_core::{D, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ops::{is_fused, sum_rows, tensor, with_values};
use crate::error::Result;
use crate::kernels::elementwise;

/// Iterations of Sinkhorn-Knopp, as published.
pub const SINKHORN_ITERATIONS: usize = 3;
/// Share of the old centre that stays at each step, as published.
pub const CENTRE_MOMENTUM: f64 = 0.9;

/// How teacher logits become probabilities that do not collapse onto few prototypes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Centring {
    /// Batches are balanced over prototypes (arXiv 2006.09882).
    #[default]
    SinkhornKnopp,
    /// Softmax of what logits exceed their moving average by (arXiv 2104.14294).
    Softmax,
}

/// Probabilities (n, K) of teacher logits (n, K), balanced by Sinkhorn-Knopp: rows sum to 1 and
/// prototypes get about n / K each. In f32.
///
/// # Errors
/// A failed tensor operation.
pub fn sinkhorn_knopp(logits: &Tensor, temperature: f64, iterations: usize) -> Result<Tensor> {
    let (count, prototypes) = logits.dims2()?;
    let logits = logits.detach().to_dtype(candle_core::DType::F32)?;
    if count == 0 {
        return Ok(logits);
    }
    if is_fused(&logits) {
        return fused_sinkhorn(&logits, temperature as f32, iterations);
    }
    // A common factor cancels: without it exponentials cannot overflow.
    let max = logits.max_keepdim(D::Minus1)?.max_keepdim(0)?;
    let mut q = (logits.broadcast_sub(&max)? / temperature)?.exp()?;
    q = q.broadcast_div(&q.sum_keepdim(0)?.sum_keepdim(1)?)?;
    for _ in 0..iterations {
        q = (q.broadcast_div(&q.sum_keepdim(0)?)? / prototypes as f64)?;
        q = (q.broadcast_div(&q.sum_keepdim(1)?)? / count as f64)?;
    }
    Ok((q * count as f64)?)
}

/// The same on all cores. Factors that the next normalisation cancels are left out.
fn fused_sinkhorn(logits: &Tensor, temperature: f32, iterations: usize) -> Result<Tensor> {
    let (count, prototypes) = logits.dims2()?;
    let mut q = with_values(logits, |values| Ok(values.to_vec()))?;
    let max = q.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    q.par_iter_mut().for_each(|x| *x = ((*x - max) / temperature).exp());
    if iterations == 0 {
        let total: f64 = q.iter().map(|x| f64::from(*x)).sum();
        q.iter_mut().for_each(|x| *x = (f64::from(*x) * count as f64 / total) as f32);
    }
    for _ in 0..iterations {
        let sums = sum_rows(&q, prototypes, |sums, _, row| elementwise::add(sums, row));
        q.par_chunks_mut(prototypes).for_each(|row| {
            row.iter_mut().zip(&sums).for_each(|(x, sum)| *x /= sum);
            let parts = row.chunks(256).map(|part| f64::from(part.iter().sum::<f32>()));
            let total = parts.sum::<f64>() as f32;
            row.iter_mut().for_each(|x| *x /= total);
        });
    }
    Ok(tensor(q, (count, prototypes))?)
}

/// The moving average of teacher logits.
#[derive(Clone, Debug)]
pub struct Centre {
    value: Tensor,
}

impl Centre {
    /// Zero.
    ///
    /// # Errors
    /// The device refuses the memory.
    pub fn new(prototypes: usize, device: &candle_core::Device) -> Result<Self> {
        Ok(Self { value: Tensor::zeros((1, prototypes), candle_core::DType::F32, device)? })
    }

    /// The centre (1, K).
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Takes up a saved centre, if it has the shape of this one.
    pub fn restore(&mut self, value: &Tensor) -> bool {
        let fits = value.shape() == self.value.shape();
        if fits {
            self.value = value.clone();
        }
        fits
    }

    /// softmax((`logits` - centre) / `temperature`), (n, K).
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn probabilities(&self, logits: &Tensor, temperature: f64) -> Result<Tensor> {
        let scaled = (logits.detach().broadcast_sub(&self.value)? / temperature)?;
        let exp = scaled.broadcast_sub(&scaled.max_keepdim(D::Minus1)?)?.exp()?;
        Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
    }

    /// Draws the centre towards the mean of `logits` (n, K); without rows it stays.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn update(&mut self, logits: &Tensor) -> Result<()> {
        if logits.dim(0)? > 0 {
            let mean = logits.detach().mean_keepdim(0)?;
            self.value = ((&self.value * CENTRE_MOMENTUM)? + (mean * (1.0 - CENTRE_MOMENTUM))?)?;
        }
        Ok(())
    }
}

/// `x` (.., C) with rows of unit length.
///
/// # Errors
/// A failed tensor operation.
pub(super) fn normalise(x: &Tensor, eps: f64) -> Result<Tensor> {
    // PyTorch takes the larger of norm and eps; this differs only for vectors as short as eps, and
    // has a gradient for zero.
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + eps * eps)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?)
}

/// KoLeo (arXiv 1806.03198): mean of -log of the distance of each row of `x` (n, C), normalised, to
/// its nearest neighbour among the others. Zero for fewer than two rows, which have no neighbour.
///
/// # Errors
/// A failed tensor operation.
pub fn koleo(x: &Tensor) -> Result<Tensor> {
    // As published.
    const EPS: f64 = 1e-8;
    let (count, _) = x.dims2()?;
    if count < 2 {
        return Ok(Tensor::zeros((), x.dtype(), x.device())?);
    }
    let x = normalise(x, EPS)?;
    let detached = x.detach();
    let own = (Tensor::eye(count, x.dtype(), x.device())? * 4.0)?; // below any cosine
    let nearest = (detached.matmul(&detached.t()?)? - own)?.argmax(1)?;
    let difference = ((&x - x.index_select(&nearest, 0)?)? + EPS)?;
    let distance = difference.sqr()?.sum(1)?.sqrt()?;
    Ok((distance + EPS)?.log()?.mean_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn sinkhorn_balances_rows_and_prototypes() -> Result<()> {
        let logits = Tensor::randn(0f32, 0.3, (64, 16), &Device::Cpu)?;
        let q = sinkhorn_knopp(&logits, 0.05, 50)?;
        let rows = q.sum(1)?.to_vec1::<f32>()?;
        let columns = q.sum(0)?.to_vec1::<f32>()?;
        assert!(rows.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{rows:?}");
        assert!(columns.iter().all(|sum| (sum - 4.0).abs() < 0.05), "{columns:?}");
        // exp(100 / 0.05) is beyond f32; what all logits share does not matter.
        let difference = (sinkhorn_knopp(&(logits + 100.0)?, 0.05, 50)? - q)?.abs()?;
        assert!(difference.flatten_all()?.max(0)?.to_scalar::<f32>()? < 1e-3);
        Ok(())
    }

    #[test]
    fn one_row_has_no_neighbour() -> Result<()> {
        let x = Tensor::randn(0f32, 1.0, (1, 8), &Device::Cpu)?;
        assert_eq!(koleo(&x)?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }
}
