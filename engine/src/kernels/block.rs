//! The product of tiles and a panel, in registers.
//!
//! The left factor is a matrix of tiles of 16 rows x 16 lanes, a row of tiles after the other; the
//! right one a panel whose row k holds lane k of 16, 32 or 48 columns side by side. The result is
//! f32, as column blocks of 16; sums of bytes are whole numbers until they are written.
#![expect(unsafe_code, reason = "the innermost loops read and write by pointers")]

use super::simd::{BLOCK, Format, Simd};

/// One product: `out (+)= a b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// First of the tiles.
    pub a: *const f32,
    /// Lanes from a row of tiles to the next.
    pub a_tile_row: usize,
    /// Rows of the result: 1 to 32.
    pub rows: usize,
    pub b: *const f32,
    /// Lanes from a row of the panel to the next.
    pub b_stride: usize,
    /// Tiles along the inner axis; at least 1.
    pub depth: usize,
    /// Column blocks of the result: 1 to 3 (to 2 for AMX).
    pub blocks: usize,
    pub out: *mut f32,
    /// Lanes from a row of the result to the next, within 16 rows.
    pub out_row: usize,
    /// Lanes from the first of 16 rows of the result to the next such.
    pub out_tile_row: usize,
    /// Lanes from a column block of the result to the next.
    pub out_block: usize,
    /// Whether the product is added to what `out` holds; not of bytes.
    pub accumulate: bool,
    /// For products of bytes.
    pub scales: Scales,
}

/// What makes the whole sums of a product of bytes the product of the numbers they stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales {
    /// What the sums of each column start from: 32-bit whole numbers.
    pub start: *const f32,
    /// What the sums of each row, and of each column, are multiplied with.
    pub rows: *const f32,
    pub columns: *const f32,
}

impl Scales {
    /// Of a product of floats.
    pub(crate) const NONE: Self =
        Self { start: std::ptr::null(), rows: std::ptr::null(), columns: std::ptr::null() };
}

/// Multiplies, `ROWS` (1, 2, 4 or 8) rows and `VECTORS` (at most 3) vectors of columns at a time.
///
/// # Safety
/// The processor has `S`, and `p` describes memory that may be read, and written in `out`, where
/// whole groups of 16 rows may be written.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd, F: Format, const ROWS: usize, const VECTORS: usize>(
    p: &Product,
) {
    let vectors = p.blocks * (BLOCK / S::LANES);
    let mut first = 0;
    while first < vectors {
        let count = (vectors - first).min(VECTORS);
        // SAFETY: the vectors are among the product's columns.
        unsafe {
            match count {
                1 => rows::<S, F, ROWS, 1>(p, 0, first),
                2 => rows::<S, F, ROWS, 2>(p, 0, first),
                _ => rows::<S, F, ROWS, 3>(p, 0, first),
            }
        }
        first += count;
    }
}

/// The rows from `row` (which starts a group of a power of two) of `VECTORS` vectors of columns.
///
/// # Safety
/// As [`multiply`]; the vectors from `first` are among the product's columns.
#[inline(always)]
pub(super) unsafe fn rows<S: Simd, F: Format, const ROWS: usize, const VECTORS: usize>(
    p: &Product,
    mut row: usize,
    first: usize,
) {
    while row < p.rows {
        // Groups of a power of two never straddle two tiles.
        let left = p.rows - row;
        // SAFETY: the rows are among the product's.
        unsafe {
            if ROWS >= 8 && left >= 8 {
                register_block::<S, F, 8, VECTORS>(p, row, first);
                row += 8;
            } else if ROWS >= 4 && left >= 4 {
                register_block::<S, F, 4, VECTORS>(p, row, first);
                row += 4;
            } else if left >= 2 {
                register_block::<S, F, 2, VECTORS>(p, row, first);
                row += 2;
            } else {
                register_block::<S, F, 1, VECTORS>(p, row, first);
                row += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn register_block<S: Simd, F: Format, const ROWS: usize, const VECTORS: usize>(
    p: &Product,
    row: usize,
    first: usize,
) {
    let (tile, inside) = (row / BLOCK, row % BLOCK);
    // SAFETY: all offsets stay inside what the product describes.
    unsafe {
        let out = p.out.add(tile * p.out_tile_row + inside * p.out_row);
        let column = |v: usize| {
            let lane = (first + v) * S::LANES;
            lane / BLOCK * p.out_block + lane % BLOCK
        };
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        if F::WHOLE {
            for v in 0..VECTORS {
                let start = S::load(p.scales.start.add((first + v) * S::LANES));
                sums.iter_mut().for_each(|sums| sums[v] = start);
            }
        } else if p.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(out.add(r * p.out_row + column(v)));
                }
            }
        }
        let mut a = p.a.add(tile * p.a_tile_row + inside * BLOCK);
        let mut b = p.b.add(first * S::LANES);
        for _ in 0..p.depth {
            for lane in 0..BLOCK {
                let mut columns = [S::splat(0.0); VECTORS];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = S::load(b.add(v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = S::splat(*a.add(r * BLOCK + lane));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = F::dot::<S>(*sum, factor, column);
                    }
                }
                b = b.add(p.b_stride);
            }
            a = a.add(BLOCK * BLOCK);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, mut sum) in sums.into_iter().enumerate() {
                if F::WHOLE {
                    let scale = S::splat(*p.scales.rows.add(row + r));
                    let columns = S::load(p.scales.columns.add((first + v) * S::LANES));
                    sum = S::mul(S::mul(S::to_float(sum), scale), columns);
                }
                S::store(out.add(r * p.out_row + column(v)), sum);
            }
        }
    }
}
