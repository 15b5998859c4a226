//! Products of f32 with AVX2, by a loop whose registers are placed by hand: four rows of three
//! vectors, their three columns and a factor are all sixteen that there are, and compilers spill.
#![expect(unsafe_code, reason = "machine instructions that have no safe form")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::block::{Product, rows};
use super::simd::avx2::Avx2;
use super::simd::{BLOCK, F32};

/// Rows and vectors of columns held in registers.
const ROWS: usize = 4;
const VECTORS: usize = 3;
const LANES: usize = 8;

/// [`Product`] of f32.
///
/// # Safety
/// The processor has AVX2 and FMA, and the product describes memory that may be read, and written
/// in `out`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn product(p: &Product) {
    let vectors = p.blocks * (BLOCK / LANES);
    let whole = vectors / VECTORS * VECTORS;
    let full = p.rows / ROWS * ROWS;
    // SAFETY: rows and vectors are among the product's.
    unsafe {
        for first in (0..whole).step_by(VECTORS) {
            for row in (0..full).step_by(ROWS) {
                four_by_three(p, row, first);
            }
            if full < p.rows {
                rows::<Avx2, F32, 2, VECTORS>(p, full, first);
            }
        }
        match vectors - whole {
            1 => rows::<Avx2, F32, ROWS, 1>(p, 0, whole),
            2 => rows::<Avx2, F32, ROWS, 2>(p, 0, whole),
            _ => {}
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four_by_three(p: &Product, row: usize, first: usize) {
    let (tile, inside) = (row / BLOCK, row % BLOCK);
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: four rows of one tile and three vectors are among the product's; the loop reads 16
    // lanes of `depth` tiles and as many rows of the panel.
    unsafe {
        let at = |r: usize, v: usize| {
            let lane = (first + v) * LANES;
            p.out.add(
                tile * p.out_tile_row
                    + (inside + r) * p.out_row
                    + lane / BLOCK * p.out_block
                    + lane % BLOCK,
            )
        };
        if p.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(at(r, v));
                }
            }
        }
        let [[s0, s1, s2], [s3, s4, s5], [s6, s7, s8], [s9, s10, s11]] = &mut sums;
        asm!(
            "2:",
            "mov {lane:e}, 16",
            "3:",
            "vmovups {b0}, [{b}]",
            "vmovups {b1}, [{b} + 32]",
            "vmovups {b2}, [{b} + 64]",
            "vbroadcastss {f}, [{a}]",
            "vfmadd231ps {s0}, {f}, {b0}",
            "vfmadd231ps {s1}, {f}, {b1}",
            "vfmadd231ps {s2}, {f}, {b2}",
            "vbroadcastss {f}, [{a} + 64]",
            "vfmadd231ps {s3}, {f}, {b0}",
            "vfmadd231ps {s4}, {f}, {b1}",
            "vfmadd231ps {s5}, {f}, {b2}",
            "vbroadcastss {f}, [{a} + 128]",
            "vfmadd231ps {s6}, {f}, {b0}",
            "vfmadd231ps {s7}, {f}, {b1}",
            "vfmadd231ps {s8}, {f}, {b2}",
            "vbroadcastss {f}, [{a} + 192]",
            "vfmadd231ps {s9}, {f}, {b0}",
            "vfmadd231ps {s10}, {f}, {b1}",
            "vfmadd231ps {s11}, {f}, {b2}",
            "add {a}, 4",
            "add {b}, {stride}",
            "dec {lane:e}",
            "jnz 3b",
            "add {a}, 960",
            "dec {depth}",
            "jnz 2b",
            a = inout(reg) p.a.add(tile * p.a_tile_row + inside * BLOCK) => _,
            b = inout(reg) p.b.add(first * LANES) => _,
            stride = in(reg) p.b_stride * size_of::<f32>(),
            depth = inout(reg) p.depth => _,
            lane = out(reg) _,
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            b2 = out(ymm_reg) _,
            f = out(ymm_reg) _,
            s0 = inout(ymm_reg) *s0,
            s1 = inout(ymm_reg) *s1,
            s2 = inout(ymm_reg) *s2,
            s3 = inout(ymm_reg) *s3,
            s4 = inout(ymm_reg) *s4,
            s5 = inout(ymm_reg) *s5,
            s6 = inout(ymm_reg) *s6,
            s7 = inout(ymm_reg) *s7,
            s8 = inout(ymm_reg) *s8,
            s9 = inout(ymm_reg) *s9,
            s10 = inout(ymm_reg) *s10,
            s11 = inout(ymm_reg) *s11,
            options(nostack, readonly),
        );
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(at(r, v), sum);
            }
        }
    }
}
