//! Blocked bf16 products over packed tiles, shared by the AMX and AVX-512 kernels.
//!
//! A tile holds 16 rows of 64 bytes. Both factors are packed beforehand, so that the inner loop
//! reads whole consecutive tiles: A as 16 rows x 32 values of the inner axis, B as 16 pairs of the
//! inner axis x 16 columns, the two values of a pair side by side (Intel's VNNI order). The inner
//! axis is cut into blocks whose packed panels stay in the level-2 cache.
#![expect(unsafe_code, reason = "machine instructions that have no safe form")]

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::amx::{self, TileConfig};
use super::avx512;
use super::matmul::{Operand, PANEL_ROWS};
use super::simd::avx512::transposed;

/// Rows or columns of a tile, and 32-bit lanes of a vector.
pub(super) const SIDE: usize = 16;
/// Values of the inner axis in a tile.
const DEPTH: usize = 32;
/// Rows and columns of the result computed at a time.
const BLOCK: usize = 2 * SIDE;
/// Inner length of a packed panel: 128 rows of 1,024 bf16 values are 256 KiB.
const INNER_BLOCK: usize = 1024;

/// One packed tile of either factor.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [u16; SIDE * DEPTH]);

const EMPTY: Tile = Tile([0; SIDE * DEPTH]);

/// A 32 x 32 block of the result, for blocks that stick out of it.
#[repr(C, align(64))]
struct Scratch([f32; BLOCK * BLOCK]);

/// The instructions that multiply packed tiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Amx,
    Avx512,
}

impl Kernel {
    pub(super) fn is_available(self) -> bool {
        match self {
            Self::Amx => amx::is_available(),
            Self::Avx512 => avx512::is_available(),
        }
    }

    /// One 32 x 32 block of the result, set or added to: `a` and `b` hold two strips of `len / 2`
    /// tiles each.
    ///
    /// # Safety
    /// The kernel is available, for AMX a [`TileConfig`] is loaded on this thread, and `out`
    /// points to 32 rows of 32 values, `stride` values apart.
    unsafe fn multiply(
        self,
        a: &[Tile],
        b: &[Tile],
        accumulate: bool,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: the caller's promises are the callee's.
        unsafe {
            match self {
                Self::Amx => amx::multiply(a, b, accumulate, out, stride),
                Self::Avx512 => avx512::multiply(a, b, accumulate, out, stride),
            }
        }
    }
}

/// `out = a b`, or `false` where the kernel is not available. Shapes are checked by the caller.
pub(super) fn matmul(kernel: Kernel, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) -> bool {
    if !kernel.is_available() {
        return false;
    }
    let width = b.columns;
    let column_blocks = width.div_ceil(BLOCK);
    for start in (0..a.columns.max(1)).step_by(INNER_BLOCK) {
        let inner = start..a.columns.min(start + INNER_BLOCK);
        let depth = inner.len().div_ceil(DEPTH);
        let mut packed_b = vec![EMPTY; column_blocks * 2 * depth];
        packed_b.par_chunks_mut(depth).enumerate().for_each(|(strip, tiles)| {
            // SAFETY: every kernel needs the vector instructions and has found them.
            unsafe { pack(b.t(), strip * SIDE, inner.clone(), Order::Pairs, tiles) }
        });
        out.par_chunks_mut(PANEL_ROWS * width).enumerate().for_each(|(panel, rows)| {
            let first_row = panel * PANEL_ROWS;
            let row_blocks = (rows.len() / width).div_ceil(BLOCK);
            let mut packed_a = vec![EMPTY; row_blocks * 2 * depth];
            for (strip, tiles) in packed_a.chunks_exact_mut(depth).enumerate() {
                // SAFETY: as above.
                unsafe { pack(a, first_row + strip * SIDE, inner.clone(), Order::Rows, tiles) }
            }
            // SAFETY: the kernel is available.
            let _tiles = (kernel == Kernel::Amx).then(|| unsafe { TileConfig::load() });
            for (column, b_tiles) in packed_b.chunks_exact(2 * depth).enumerate() {
                for (row, a_tiles) in packed_a.chunks_exact(2 * depth).enumerate() {
                    let at = (row * BLOCK, column * BLOCK);
                    multiply_block(kernel, a_tiles, b_tiles, start > 0, rows, width, at);
                }
            }
        });
    }
    true
}

/// Adds to (or sets) the block of `rows` whose corner is `at`.
fn multiply_block(
    kernel: Kernel,
    a: &[Tile],
    b: &[Tile],
    accumulate: bool,
    rows: &mut [f32],
    width: usize,
    (top, left): (usize, usize),
) {
    let height = (rows.len() / width - top).min(BLOCK);
    let columns = (width - left).min(BLOCK);
    if (height, columns) == (BLOCK, BLOCK) {
        // SAFETY: the kernel is available and set up; 32 rows of 32 values lie inside `rows`, `width` apart.
        unsafe {
            kernel.multiply(a, b, accumulate, rows[top * width + left..].as_mut_ptr(), width)
        };
        return;
    }
    let mut scratch = Scratch([0.0; BLOCK * BLOCK]);
    // SAFETY: as above; the scratch block is 32 x 32.
    unsafe { kernel.multiply(a, b, false, scratch.0.as_mut_ptr(), BLOCK) };
    for (source, target) in scratch.0.chunks_exact(BLOCK).zip(rows[top * width..].chunks_mut(width))
    {
        let target = &mut target[left..left + columns];
        if accumulate {
            target.iter_mut().zip(source).for_each(|(sum, x)| *sum += x);
        } else {
            target.copy_from_slice(&source[..columns]);
        }
        // Rows below the last are cut off by `zip`: `rows` ends there.
    }
}

/// Arrangement of the values inside a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// 16 rows of 32 inner values: the left factor.
    Rows,
    /// 16 inner pairs of 16 columns: the right factor.
    Pairs,
}

/// Packs rows `first..first + 16` of `source` (M or N down, the inner axis across), restricted to
/// `inner`, as consecutive tiles. Rows and inner values beyond the matrix are zero.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack(
    source: Operand<'_>,
    first: usize,
    inner: std::ops::Range<usize>,
    order: Order,
    tiles: &mut [Tile],
) {
    let rows = source.rows.saturating_sub(first).min(SIDE);
    for (i, tile) in tiles.iter_mut().enumerate() {
        let start = inner.start + i * DEPTH;
        let depth = (inner.end - start).min(DEPTH);
        // Stored order decides what can be read in one go; the other arrangement is its transpose
        // in units of pairs.
        let mut lines = [_mm512_setzero_si512(); SIDE];
        if source.transposed {
            // Stored rows run along M or N: two of them, interleaved, are a line of pairs.
            let interleave = interleave_halves();
            for (pair, line) in lines.iter_mut().enumerate().take(depth.div_ceil(2)) {
                let low = load(source, start + 2 * pair, first, rows);
                let high = match 2 * pair + 1 < depth {
                    true => load(source, start + 2 * pair + 1, first, rows),
                    false => _mm512_setzero_ps(),
                };
                *line = _mm512_permutexvar_epi16(interleave, round(low, high));
            }
        } else {
            for (row, line) in lines.iter_mut().enumerate().take(rows) {
                let low = load(source, first + row, start, depth.min(SIDE));
                let high = match depth > SIDE {
                    true => load(source, first + row, start + SIDE, depth - SIDE),
                    false => _mm512_setzero_ps(),
                };
                *line = round(low, high);
            }
        }
        if source.transposed == (order == Order::Rows) {
            transpose(&mut lines);
        }
        let target = tile.0.as_mut_ptr().cast::<__m512i>();
        for (row, line) in lines.into_iter().enumerate() {
            // SAFETY: a tile is 16 aligned vectors of 64 bytes.
            unsafe { _mm512_store_si512(target.add(row), line) };
        }
    }
}

/// `count` (at most 16) values of a stored row, the other lanes zero.
#[target_feature(enable = "avx512f")]
fn load(source: Operand<'_>, row: usize, column: usize, count: usize) -> __m512 {
    if count == 0 {
        return _mm512_setzero_ps();
    }
    let start = row * source.stride + column;
    let values = &source.values[start..start + count];
    if count == SIDE {
        // SAFETY: the slice has 16 values.
        return unsafe { _mm512_loadu_ps(values.as_ptr()) };
    }
    // SAFETY: lanes outside the mask are not read.
    unsafe { _mm512_maskz_loadu_ps((1 << count) - 1, values.as_ptr()) }
}

/// Thirty-two values as bf16, to nearest, `low` first.
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Indices that turn halves (a0..a15, b0..b15) into pairs (a0, b0, a1, b1, ...).
#[target_feature(enable = "avx512f")]
fn interleave_halves() -> __m512i {
    let indices: [u16; 32] = std::array::from_fn(|i| (i / 2 + (i % 2) * 16) as u16);
    // SAFETY: the array is 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(indices.as_ptr().cast()) }
}

/// Transposes a 16 x 16 matrix of 32-bit lanes.
#[target_feature(enable = "avx512f")]
fn transpose(m: &mut [__m512i; SIDE]) {
    // SAFETY: whoever may call this has AVX-512F.
    *m = unsafe { transposed(*m) };
}
