//! Smooth noise by position.

use crate::random::SplitMix64;

/// A value from 0 to 1 at a point of the integer lattice.
fn lattice(x: i64, y: i64, seed: u64) -> f32 {
    let key = (x as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93)
        ^ (y as u64).wrapping_mul(0xA076_1D64_78BD_642F)
        ^ seed;
    (SplitMix64(key).next() >> 40) as f32 / (1u32 << 24) as f32
}

/// Value noise from 0 to 1 with features about 1 wide.
pub(super) fn noise(x: f32, y: f32, seed: u64) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - left), smooth(y - top));
    let (i, j) = (left as i64, top as i64);
    let row = |j| {
        let (a, b) = (lattice(i, j, seed), lattice(i + 1, j, seed));
        a + (b - a) * u
    };
    let (upper, lower) = (row(j), row(j + 1));
    upper + (lower - upper) * v
}

/// Noise with detail: `octaves` layers, each twice as fine and half as strong; from 0 to 1.
pub(super) fn fractal(x: f32, y: f32, octaves: u32, seed: u64) -> f32 {
    let (mut sum, mut weight, mut scale) = (0.0, 0.0, 1.0f32);
    for octave in 0..octaves {
        sum += noise(x * scale, y * scale, seed.wrapping_add(u64::from(octave))) / scale;
        weight += 1.0 / scale;
        scale *= 2.0;
    }
    sum / weight
}
