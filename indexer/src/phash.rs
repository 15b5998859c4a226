//! A perceptual hash: the signs of a thumbnail's lowest frequencies, under the symmetries of the
//! square.
//!
//! The hash is that of Python's `imagehash.phash` in kind (32 x 32 grey, cosine transform, the 8 x 8
//! lowest coefficients against their median), not bit for bit: the thumbnail is made of area means.

use std::f32::consts::PI;

/// Side of the thumbnail.
const SIDE: usize = 32;
/// Coefficients kept along each axis.
const LOW: usize = 8;

/// One hash for each of the eight symmetries; the first is the picture as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerceptualHash([u64; 8]);

impl PerceptualHash {
    /// Of grey values, row-major; `None` without pixels.
    pub fn of(width: usize, height: usize, grey: &[u8]) -> Option<Self> {
        if width == 0 || height == 0 || grey.len() != width * height {
            return None;
        }
        let thumbnail = thumbnail(width, height, grey);
        let low = lowest(&thumbnail);
        Some(Self(std::array::from_fn(|symmetry| {
            let turned: [f32; LOW * LOW] = std::array::from_fn(|i| {
                let (v, u) = (i / LOW, i % LOW);
                // Transposing swaps the axes, mirroring turns the odd frequencies of one around.
                let (v, u) = if symmetry & 4 != 0 { (u, v) } else { (v, u) };
                let odd = (symmetry & 1) * u + (symmetry >> 1 & 1) * v;
                low[v * LOW + u] * if odd % 2 == 1 { -1.0 } else { 1.0 }
            });
            bits(&turned)
        })))
    }

    /// The hash of the picture as it is.
    pub fn bits(&self) -> u64 {
        self.0[0]
    }

    /// Differing bits, 0 to 64, under the symmetry that makes them fewest.
    pub fn distance(&self, other: &Self) -> u32 {
        let differing = |hash: &u64| (hash ^ other.bits()).count_ones();
        self.0.iter().map(differing).min().unwrap_or(u64::BITS)
    }
}

fn thumbnail(width: usize, height: usize, grey: &[u8]) -> [f32; SIDE * SIDE] {
    // Every pixel of the thumbnail covers at least one of the picture.
    let span = |i: usize, length: usize| {
        let start = i * length / SIDE;
        start..((i + 1) * length / SIDE).max(start + 1)
    };
    std::array::from_fn(|i| {
        let (rows, columns) = (span(i / SIDE, height), span(i % SIDE, width));
        let count = rows.len() * columns.len();
        let sum: u32 =
            rows.flat_map(|y| columns.clone().map(move |x| u32::from(grey[y * width + x]))).sum();
        sum as f32 / count as f32
    })
}

/// The lowest coefficients of the two-dimensional cosine transform (type II).
fn lowest(thumbnail: &[f32; SIDE * SIDE]) -> [f32; LOW * LOW] {
    let wave = |frequency: usize, at: usize| {
        (PI * frequency as f32 * (2 * at + 1) as f32 / (2 * SIDE) as f32).cos()
    };
    let waves: [f32; LOW * SIDE] = std::array::from_fn(|i| wave(i / SIDE, i % SIDE));
    let along = |frequency: usize, value: &dyn Fn(usize) -> f32| -> f32 {
        let wave = &waves[frequency * SIDE..][..SIDE];
        wave.iter().enumerate().map(|(at, wave)| wave * value(at)).sum()
    };
    let rows: [f32; LOW * SIDE] = std::array::from_fn(|i| {
        let (u, y) = (i / SIDE, i % SIDE);
        along(u, &|x| thumbnail[y * SIDE + x])
    });
    std::array::from_fn(|i| {
        let (v, u) = (i / LOW, i % LOW);
        along(v, &|y| rows[u * SIDE + y])
    })
}

fn bits(coefficients: &[f32; LOW * LOW]) -> u64 {
    let mut sorted = *coefficients;
    sorted.sort_unstable_by(f32::total_cmp);
    let middle = LOW * LOW / 2;
    let median = (sorted[middle - 1] + sorted[middle]) / 2.0;
    let bit = |value: &f32| u64::from(*value > median);
    coefficients.iter().fold(0, |bits, value| bits << 1 | bit(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(seed: u32) -> Vec<u8> {
        let value = |x: f32, y: f32| {
            let s = seed as f32;
            let a = (x * (3.0 + s) + 1.3 * s).sin() + (y * (5.0 - s) + x).cos();
            (128.0 + 50.0 * a + 20.0 * (x * y * 9.0 + s).sin()) as u8
        };
        (0..64 * 64).map(|i| value((i % 64) as f32 / 64.0, (i / 64) as f32 / 64.0)).collect()
    }

    #[test]
    fn turned_and_mirrored_pictures_have_the_same_hash_and_others_do_not() {
        let grey = picture(1);
        let own = PerceptualHash::of(64, 64, &grey).expect("hash");
        type Turn = fn(usize, usize) -> (usize, usize);
        let turns: [Turn; 4] =
            [|x, y| (63 - x, y), |x, y| (x, 63 - y), |x, y| (y, x), |x, y| (63 - y, x)];
        for turn in turns {
            let turned: Vec<u8> = (0..64 * 64)
                .map(|i| {
                    let (x, y) = turn(i % 64, i / 64);
                    grey[y * 64 + x]
                })
                .collect();
            let turned = PerceptualHash::of(64, 64, &turned).expect("hash");
            assert!(own.distance(&turned) <= 2, "{}", own.distance(&turned));
            assert!(turned.distance(&own) <= 2, "{}", turned.distance(&own));
        }
        let other = PerceptualHash::of(64, 64, &picture(3)).expect("hash");
        assert!(own.distance(&other) > 10, "{}", own.distance(&other));
        assert_eq!(own.distance(&own), 0);
    }

    #[test]
    fn small_pictures_have_hashes_and_empty_ones_do_not() {
        assert!(PerceptualHash::of(1, 1, &[7]).is_some());
        assert!(PerceptualHash::of(3, 2, &[1, 2, 3, 4, 5, 6]).is_some());
        assert_eq!(PerceptualHash::of(0, 0, &[]), None);
        assert_eq!(PerceptualHash::of(2, 2, &[1]), None);
    }
}
