//! 32 x 32 blocks of a bf16 product with AVX-512's dot product of bf16 pairs (Zen 4, Cooper Lake
//! and later).
#![expect(unsafe_code, reason = "machine instructions that have no safe form")]

use std::arch::x86_64::*;

use super::tiles::{SIDE, Tile};

/// Rows held in registers at a time: with two vectors of columns they are 16 sums, enough to hide
/// the latency of two dot products a cycle.
const ROWS: usize = 8;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// One 32 x 32 block: `a` and `b` hold two strips of `len / 2` tiles each.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16, and `out` points to 32 rows of 32 values, `stride`
/// values apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn multiply(
    a: &[Tile],
    b: &[Tile],
    accumulate: bool,
    out: *mut f32,
    stride: usize,
) {
    let depth = a.len() / 2;
    assert!(depth > 0 && a.len() == 2 * depth && b.len() == 2 * depth);
    let (left, right) = b.split_at(depth);
    for (strip, a) in a.chunks_exact(depth).enumerate() {
        for first in (0..SIDE).step_by(ROWS) {
            // SAFETY: rows `strip * 16 + first` and the seven after it are among the caller's 32.
            let out = unsafe { out.add((strip * SIDE + first) * stride) };
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: 32 values of a row of the caller's block.
                    unsafe {
                        sums[0] = _mm512_loadu_ps(out.add(row * stride));
                        sums[1] = _mm512_loadu_ps(out.add(row * stride + SIDE));
                    }
                }
            }
            for ((a, left), right) in a.iter().zip(left).zip(right) {
                for pair in 0..SIDE {
                    // SAFETY: a tile is 16 aligned vectors, of which row `first + row` starts with
                    // 16 pairs of 32 bits; bf16 vectors and integers are plain data.
                    unsafe {
                        let left = left.0.as_ptr().cast::<__m512bh>().add(pair).read();
                        let right = right.0.as_ptr().cast::<__m512bh>().add(pair).read();
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let at = a.0.as_ptr().cast::<i32>().add((first + row) * SIDE + pair);
                            let factor = std::mem::transmute::<__m512i, __m512bh>(
                                _mm512_set1_epi32(at.read()),
                            );
                            sums[0] = _mm512_dpbf16_ps(sums[0], factor, left);
                            sums[1] = _mm512_dpbf16_ps(sums[1], factor, right);
                        }
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                // SAFETY: as for the loads.
                unsafe {
                    _mm512_storeu_ps(out.add(row * stride), sums[0]);
                    _mm512_storeu_ps(out.add(row * stride + SIDE), sums[1]);
                }
            }
        }
    }
}
