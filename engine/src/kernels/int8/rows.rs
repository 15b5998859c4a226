//! Rows to bytes, each with its own scale. Written once over [`Simd`].
//!
//! A row that holds a value that is not finite gets a scale that is none, so that it spoils what is
//! computed from it rather than going unnoticed.
//!
//! # Safety
//! Every function needs a processor with `S` and arguments that describe memory which may be read
//! and written as their documents say. Widths are multiples of 16.
#![expect(unsafe_code, reason = "the inner loops read and write by pointers")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every line is pointer work under the module's contract"
)]

use super::super::packed::Left;
use super::super::rows::{Normalise, mean, place, row_at};
use super::super::simd::{Bf16, Bytes, Format, Simd};
use super::{GELU_LEAST, LARGEST};

/// What is added to signed values.
const OFFSET: f32 = 128.0;

/// Tiles of bf16 to tiles of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantise {
    pub from: *const f32,
    pub from_tile_row: usize,
    pub rows: usize,
    pub width: usize,
    pub left: Left<'static>,
    pub to: *mut f32,
    pub to_tile_row: usize,
    /// One a row.
    pub scales: *mut f32,
}

/// Normalises rows to mean 0 and variance 1, and stores them as bytes after multiplying each value
/// with its factor; `scales` gets one value a row.
#[inline(always)]
pub(super) unsafe fn normalise<S: Simd>(n: &Normalise, factors: *const f32, scales: *mut f32) {
    for row in 0..n.rows {
        let from = n.from.add(row * n.stride);
        let to = n.to.add(row_at(row, n.tile_row));
        let mean = S::splat(mean::<S>(from, n.width));
        let zero = S::splat(0.0);
        let (mut squares, mut largest) = (zero, zero);
        for i in (0..n.width).step_by(S::LANES) {
            let centred = S::sub(S::load(from.add(i)), mean);
            squares = S::fma(centred, centred, squares);
            let value = S::mul(centred, S::load(factors.add(i)));
            largest = S::max(largest, S::max(value, S::sub(zero, value)));
        }
        let variance = S::sum(squares) / n.width as f32;
        let largest = S::largest(largest);
        // What is not finite is in the variance.
        *scales.add(row) = largest / LARGEST / (variance + n.epsilon).sqrt();
        let factor = S::splat(if largest > 0.0 { LARGEST / largest } else { 0.0 });
        for i in (0..n.width).step_by(S::LANES) {
            let centred = S::sub(S::load(from.add(i)), mean);
            let value = S::mul(centred, S::load(factors.add(i)));
            let byte = S::add(S::mul(value, factor), S::splat(OFFSET));
            Bytes::store::<S>(place::<Bytes>(to, i), byte);
        }
    }
}

/// [`Quantise`].
#[inline(always)]
pub(super) unsafe fn quantise<S: Simd>(q: &Quantise) {
    for row in 0..q.rows {
        let gelu = q.left == Left::Gelu;
        let from = q.from.add(row_at(row, q.from_tile_row));
        let to = q.to.add(row_at(row, q.to_tile_row));
        let at = |i: usize| S::load_bf16(place::<Bf16>(from.cast_mut(), i).cast());
        let zero = S::splat(0.0);
        // Zero times what is not finite is no number.
        let (mut largest, mut spoilt) = (zero, zero);
        for i in (0..q.width).step_by(S::LANES) {
            let x = at(i);
            let size = if gelu { x } else { S::max(x, S::sub(zero, x)) };
            largest = S::max(largest, size);
            spoilt = S::fma(x, zero, spoilt);
        }
        let largest = S::largest(largest);
        let (range, steps, offset) = match gelu {
            true => (largest - GELU_LEAST, 255.0, -GELU_LEAST),
            false => (largest, LARGEST, 0.0),
        };
        *q.scales.add(row) = range / steps + S::sum(spoilt);
        let factor = if range > 0.0 { steps / range } else { 0.0 };
        let start = S::splat(if gelu { offset * factor } else { OFFSET });
        let factor = S::splat(factor);
        for i in (0..q.width).step_by(S::LANES) {
            let byte = S::add(S::mul(at(i), factor), start);
            Bytes::store::<S>(place::<Bytes>(to, i), byte);
        }
    }
}
