//! Which patches of which crops are hidden from the student: random blocks (reference:
//! `masking.py` and `collate.py`, after BEiT, arXiv 2106.08254).

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// How patches are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Share of the crops that are masked at all.
    pub share: f64,
    /// Least and greatest share of patches hidden; the masked crops of a batch spread evenly
    /// between them.
    pub ratio: (f64, f64),
    /// Fewest patches aimed at in a block, while that many may still be hidden.
    pub min_patches: usize,
    /// Least height of a block by its width; the greatest is its inverse.
    pub min_aspect: f64,
}

impl Default for Masking {
    /// As published.
    fn default() -> Self {
        Self { share: 0.5, ratio: (0.1, 0.5), min_patches: 4, min_aspect: 0.3 }
    }
}

impl Masking {
    /// Draws a mask for each of `crops` crops of `grid` patches (rows, columns), row-major.
    pub fn draw(&self, crops: usize, grid: (usize, usize), rng: &mut impl Rng) -> Vec<Vec<bool>> {
        let patches = grid.0 * grid.1;
        let masked = (crops as f64 * self.share + 1e-9).floor() as usize;
        let step = (self.ratio.1 - self.ratio.0) / masked.max(1) as f64;
        let mut masks: Vec<Vec<bool>> = (0..crops)
            .map(|i| {
                if i >= masked {
                    return vec![false; patches];
                }
                let ratio = self.ratio.0 + step * (i as f64 + rng.random::<f64>());
                self.mask((patches as f64 * ratio) as usize, grid, rng)
            })
            .collect();
        masks.shuffle(rng);
        masks
    }

    /// One mask of at most `count` patches; fewer where no further block fits.
    fn mask(&self, count: usize, grid: (usize, usize), rng: &mut impl Rng) -> Vec<bool> {
        let mut mask = vec![false; grid.0 * grid.1];
        // The largest block of the reference: half of all patches.
        let largest = grid.0 * grid.1 / 2;
        let mut hidden = 0;
        while hidden < count {
            let fresh = self.add_block((count - hidden).min(largest), &mut mask, grid, rng);
            if fresh == 0 {
                break;
            }
            hidden += fresh;
        }
        mask
    }

    /// Hides a block with at most `most` patches that are not hidden yet; how many it hid, 0 if ten
    /// draws found none.
    fn add_block(
        &self,
        most: usize,
        mask: &mut [bool],
        (rows, columns): (usize, usize),
        rng: &mut impl Rng,
    ) -> usize {
        for _ in 0..10 {
            // Where fewer may be hidden than a block should have, anything between the two.
            let (low, high) = (self.min_patches as f64, most as f64);
            let area = low + (high - low) * rng.random::<f64>();
            let log = self.min_aspect.ln();
            let aspect = (log - 2.0 * log * rng.random::<f64>()).exp();
            let height = (area * aspect).sqrt().round() as usize;
            let width = (area / aspect).sqrt().round() as usize;
            if width >= columns || height >= rows {
                continue;
            }
            let top = rng.random_range(0..=rows - height);
            let left = rng.random_range(0..=columns - width);
            let block = || {
                (top..top + height)
                    .flat_map(move |y| (left..left + width).map(move |x| y * columns + x))
            };
            let fresh = block().filter(|&i| !mask[i]).count();
            if fresh > 0 && fresh <= most {
                block().for_each(|i| mask[i] = true);
                return fresh;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::augment::generator;

    #[test]
    fn half_of_the_crops_are_masked_with_ratios_spread_over_the_range() {
        let (masking, mut shares) = (Masking::default(), Vec::new());
        for n in 0..50 {
            let masks = masking.draw(16, (16, 16), &mut generator(3, "mask", [n, 0]));
            let hidden = |mask: &Vec<bool>| mask.iter().filter(|hidden| **hidden).count();
            let mut counts: Vec<usize> = masks.iter().map(hidden).collect();
            counts.sort_unstable();
            assert_eq!(counts.iter().filter(|count| **count == 0).count(), 8);
            // The i-th smallest lies below the i-th upper bound; blocks that do not fit leave
            // masks somewhat short of the lower one.
            for (i, count) in counts[8..].iter().enumerate() {
                let upper = 0.1 + 0.05 * (i + 1) as f64;
                assert!(*count as f64 <= upper * 256.0, "{count} of 256, step {i}");
                shares.push(*count as f64 / 256.0);
            }
        }
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((0.27..0.305).contains(&mean), "{mean}");
        assert!(shares.iter().all(|share| *share > 0.05), "{shares:?}");
    }

    #[test]
    fn where_and_whether_a_crop_is_masked_is_even() {
        let masking = Masking::default();
        let (mut crops, mut places) = ([0usize; 6], [0usize; 49]);
        for n in 0..2000 {
            let masks = masking.draw(6, (7, 7), &mut generator(4, "mask", [n, 0]));
            for (i, mask) in masks.iter().enumerate() {
                crops[i] += usize::from(mask.contains(&true));
                mask.iter().enumerate().for_each(|(p, hidden)| places[p] += usize::from(*hidden));
            }
        }
        assert!(crops.iter().all(|count| count.abs_diff(1000) < 100), "{crops:?}");
        // Blocks lie inside, so edges are hidden less often than the centre, and alike.
        let corners = [0, 6, 42, 48].map(|i| places[i] as f64);
        let mean = corners.iter().sum::<f64>() / 4.0;
        assert!(corners.iter().all(|c| (c / mean - 1.0).abs() < 0.15), "{corners:?}");
        assert!(places[24] as f64 > mean);
    }

    #[test]
    fn masks_are_blocks_and_follow_the_generator() {
        let draw = |n| Masking::default().draw(4, (9, 9), &mut generator(5, "mask", [n, 0]));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // A first block has at least 3 patches (4 before rounding) where that many may be hidden.
        for n in 0..200 {
            let mut mask = vec![false; 256];
            let mut rng = generator(5, "block", [n, 0]);
            let fresh = Masking::default().add_block(40, &mut mask, (16, 16), &mut rng);
            assert!((3..=40).contains(&fresh), "{fresh}");
            let rows: Vec<usize> =
                (0..16).filter(|y| mask[y * 16..(y + 1) * 16].contains(&true)).collect();
            let columns: Vec<usize> =
                (0..16).filter(|x| (0..16).any(|y| mask[y * 16 + x])).collect();
            assert_eq!(rows.len() * columns.len(), fresh, "not a block");
            let aspect = rows.len() as f64 / columns.len() as f64;
            assert!((0.2..5.1).contains(&aspect), "{aspect}");
        }
        // Grids too small for a block stay whole.
        let tiny = Masking::default().draw(4, (1, 1), &mut generator(5, "mask", [0, 0]));
        assert!(tiny.iter().all(|mask| !mask[0]));
    }
}
