//! Feature matching: what a student's tokens should be, and how far off they are.

use candle_core::{D, DType, Device, Tensor};
use half::f16;

use super::student::CropTokens;
use crate::error::Result;

/// A teacher's view of a batch: CLS (B, C) and patches on the student's grid (B, N, C).
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub cls: Tensor,
    pub patches: Tensor,
}

impl Targets {
    /// Rows of one picture each, (1 + N) C values in half precision, CLS first.
    pub fn from_teacher(tokens: &CropTokens, grid: (usize, usize)) -> Result<Vec<Vec<f16>>> {
        let resampler = area(tokens.grid, grid, tokens.patches.device())?;
        let batch = tokens.cls.dim(0)?;
        let mut rows = Vec::with_capacity(batch);
        for i in 0..batch {
            let patches = resampler.matmul(&tokens.patches.get(i)?.contiguous()?)?;
            let all = Tensor::cat(&[&tokens.cls.narrow(0, i, 1)?, &patches], 0)?;
            rows.push(all.to_dtype(DType::F16)?.flatten_all()?.to_vec1::<f16>()?);
        }
        Ok(rows)
    }

    /// Joins rows.
    pub fn stack(rows: &[Vec<f16>], dim: usize, device: &Device) -> Result<Self> {
        let tokens = rows.first().map_or(0, |row| row.len() / dim);
        let values = rows.iter().flatten().map(|v| v.to_f32()).collect::<Vec<_>>();
        let all = Tensor::from_vec(values, (rows.len(), tokens, dim), device)?;
        let cls = all.narrow(1, 0, 1)?.squeeze(1)?;
        Ok(Self { cls, patches: all.narrow(1, 1, tokens - 1)?.contiguous()? })
    }
}

/// Mean of 1 - cosine over all leading axes; `a` and `b` (.., C).
pub(super) fn cosine_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let norm = |x: &Tensor| (x.sqr()?.sum(D::Minus1)? + 1e-12)?.sqrt();
    let cosine = ((a * b)?.sum(D::Minus1)? / (norm(a)? * norm(b)?)?)?;
    Ok((1.0 - cosine.mean_all()?)?)
}

/// Matrix (to rows x columns, from rows x columns) that averages patches by the area they share.
fn area(from: (usize, usize), to: (usize, usize), device: &Device) -> Result<Tensor> {
    let axis = |from: usize, to: usize| -> Vec<Vec<f64>> {
        let scale = from as f64 / to as f64;
        (0..to)
            .map(|i| {
                let (low, high) = (i as f64 * scale, (i + 1) as f64 * scale);
                let overlap = |j: usize| (high.min((j + 1) as f64) - low.max(j as f64)).max(0.0);
                (0..from).map(|j| overlap(j) / scale).collect()
            })
            .collect()
    };
    let (rows, columns) = (axis(from.0, to.0), axis(from.1, to.1));
    let mut values = Vec::new();
    for row in &rows {
        for column in &columns {
            for wy in row {
                values.extend(column.iter().map(|wx| (wy * wx) as f32));
            }
        }
    }
    Ok(Tensor::from_vec(values, (to.0 * to.1, from.0 * from.1), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_averages() -> Result<()> {
        let cpu = Device::Cpu;
        let halves = area((4, 4), (2, 2), &cpu)?.to_vec2::<f32>()?;
        assert_eq!(halves[0].iter().filter(|w| **w == 0.25).count(), 4);
        let sums = area((16, 16), (9, 9), &cpu)?.sum(1)?.to_vec1::<f32>()?;
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6));
        let same = area((3, 3), (3, 3), &cpu)?.to_vec2::<f32>()?;
        assert_eq!(same[4][4], 1.0);
        Ok(())
    }

    #[test]
    fn distance_is_zero_for_equal_directions_and_two_for_opposite() -> Result<()> {
        let a = Tensor::randn(0f32, 1.0, (4, 8), &Device::Cpu)?;
        let value = |b: &Tensor| -> Result<f32> { Ok(cosine_distance(&a, b)?.to_scalar()?) };
        assert!(value(&(&a * 3.0)?)?.abs() < 1e-6);
        assert!((value(&(&a * -0.5)?)? - 2.0).abs() < 1e-6);
        Ok(())
    }
}
