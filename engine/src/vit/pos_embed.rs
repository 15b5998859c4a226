//! Position embeddings, resampled to the grid of the input.
//!
//! Two bicubic filters are involved, and they are not the same: PyTorch's plain bicubic uses
//! a = -0.75 with four taps whatever the scale; its antialiased one uses a = -0.5 and widens the
//! kernel when shrinking. Both use half-pixel centres. The plain one clamps taps to the edge, the
//! antialiased one drops taps outside and renormalises.

use super::config::{PosEmbedRule, VitConfig};

/// Weights of the source samples that make one output sample along one axis.
struct Taps {
    /// Source index of each tap, clamped to the axis.
    sources: Vec<usize>,
    weights: Vec<f64>,
}

/// Resamples the patch part of a position embedding.
///
/// `table` holds `config.pos_embed_grid`² rows of `config.embed_dim` values, row-major; the result
/// has `height * width` rows. At the native square grid the table is returned unchanged, as the
/// reference does.
pub(crate) fn resample(
    table: &[f32],
    config: &VitConfig,
    rule: PosEmbedRule,
    (height, width): (usize, usize),
) -> Vec<f32> {
    let (grid, dim) = (config.pos_embed_grid, config.embed_dim);
    if (height, width) == (grid, grid) {
        return table.to_vec();
    }
    let axis_taps = |size: usize| -> Vec<Taps> {
        if config.num_register_tokens > 0 {
            return antialiased_taps(grid, size);
        }
        // The reference passes a scale factor of (n + 0.1) / grid, and PyTorch maps coordinates
        // with the factor it was given rather than with the ratio of the sizes.
        let offset = match rule {
            PosEmbedRule::Published => 0.1,
            PosEmbedRule::Transformers => 0.0,
        };
        plain_taps(grid, size, grid as f64 / (size as f64 + offset))
    };
    let (rows, columns) = (axis_taps(height), axis_taps(width));

    let mut out = vec![0f32; height * width * dim];
    let mut sum = vec![0f64; dim];
    for (y, row) in rows.iter().enumerate() {
        for (x, column) in columns.iter().enumerate() {
            sum.fill(0.0);
            for (&source_y, &weight_y) in row.sources.iter().zip(&row.weights) {
                for (&source_x, &weight_x) in column.sources.iter().zip(&column.weights) {
                    let start = (source_y * grid + source_x) * dim;
                    let weight = weight_y * weight_x;
                    for (total, &value) in sum.iter_mut().zip(&table[start..start + dim]) {
                        *total += weight * f64::from(value);
                    }
                }
            }
            let start = (y * width + x) * dim;
            for (target, &total) in out[start..start + dim].iter_mut().zip(&sum) {
                *target = total as f32;
            }
        }
    }
    out
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

fn plain_taps(input: usize, output: usize, scale: f64) -> Vec<Taps> {
    let last = input as i64 - 1;
    (0..output)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale - 0.5;
            let first = centre.floor() as i64 - 1;
            let taps = first..first + 4;
            Taps {
                weights: taps.clone().map(|j| cubic(centre - j as f64, -0.75)).collect(),
                sources: taps.map(|j| j.clamp(0, last) as usize).collect(),
            }
        })
        .collect()
}

fn antialiased_taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..output)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> =
                (first..end).map(|j| cubic((j as f64 - centre + 0.5) / stretch, -0.5)).collect();
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            Taps { sources: (first..end).collect(), weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vit::config::VARIANTS;

    #[test]
    fn every_rule_keeps_a_constant_table_constant() {
        for variant in [VARIANTS[0], VARIANTS[4]] {
            let config = VitConfig { embed_dim: 2, pos_embed_grid: 5, ..variant.config() };
            let table = vec![0.25f32; 5 * 5 * 2];
            for rule in [PosEmbedRule::Published, PosEmbedRule::Transformers] {
                for size in [(1, 1), (3, 4), (5, 6), (11, 2)] {
                    let out = resample(&table, &config, rule, size);
                    assert_eq!(out.len(), size.0 * size.1 * 2);
                    assert!(out.iter().all(|v| (v - 0.25).abs() < 1e-6), "{rule} {size:?}");
                }
            }
        }
    }

    #[test]
    fn rules_differ_without_registers_and_agree_with_them() {
        let table: Vec<f32> = (0..25).map(|i| ((i * 7) % 11) as f32).collect();
        let shrink = |registers, rule| {
            let config = VitConfig {
                embed_dim: 1,
                pos_embed_grid: 5,
                num_register_tokens: registers,
                ..VARIANTS[0].config()
            };
            resample(&table, &config, rule, (3, 3))
        };
        assert_ne!(shrink(0, PosEmbedRule::Published), shrink(0, PosEmbedRule::Transformers));
        assert_eq!(shrink(4, PosEmbedRule::Published), shrink(4, PosEmbedRule::Transformers));
    }
}
