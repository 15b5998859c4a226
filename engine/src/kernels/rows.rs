//! What happens to rows between the products: normalisation, activation, residual, softmax, and
//! the way into tiles. Written once over [`Simd`] and [`Format`].
//!
//! # Safety
//! Every function needs a processor with `S` and arguments that describe memory which may be read
//! and written as their documents say. Widths are multiples of 16.
#![expect(unsafe_code, reason = "the inner loops read and write by pointers")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every line is pointer work under the module's contract"
)]

use super::simd::{BLOCK, Format, Simd};

/// Lanes of a tile.
const TILE: usize = BLOCK * BLOCK;

/// Where a row lies in a matrix of tiles whose rows of tiles are `tile_row` lanes apart.
#[inline(always)]
pub(super) fn row_at(row: usize, tile_row: usize) -> usize {
    row / BLOCK * tile_row + row % BLOCK * BLOCK
}

/// A block of a product's result: rows of `blocks` x 16 columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    pub from: *const f32,
    /// Lanes from a row to the next.
    pub stride: usize,
    pub rows: usize,
    pub blocks: usize,
    /// One value for each column.
    pub bias: *const f32,
}

/// Rows of f32 to tiles, normalised to mean 0 and variance 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalise {
    pub from: *const f32,
    pub stride: usize,
    pub rows: usize,
    pub width: usize,
    pub epsilon: f32,
    pub to: *mut f32,
    pub tile_row: usize,
}

/// Mean of a row.
#[inline(always)]
pub(super) unsafe fn mean<S: Simd>(from: *const f32, width: usize) -> f32 {
    let mut sum = [S::splat(0.0); 2];
    for i in (0..width).step_by(BLOCK) {
        sum[0] = S::add(sum[0], S::load(from.add(i)));
        sum[1] = S::add(sum[1], S::load(from.add(i + BLOCK - S::LANES)));
    }
    let total = match S::LANES {
        BLOCK => S::sum(sum[0]),
        _ => S::sum(S::add(sum[0], sum[1])),
    };
    total / width as f32
}

#[inline(always)]
pub(super) unsafe fn normalise<S: Simd, F: Format>(n: &Normalise) {
    let count = n.width as f32;
    for row in 0..n.rows {
        let from = n.from.add(row * n.stride);
        let to = n.to.add(row_at(row, n.tile_row));
        let mean = S::splat(mean::<S>(from, n.width));
        let mut squares = S::splat(0.0);
        for i in (0..n.width).step_by(S::LANES) {
            let centred = S::sub(S::load(from.add(i)), mean);
            squares = S::fma(centred, centred, squares);
        }
        let scale = S::splat(1.0 / (S::sum(squares) / count + n.epsilon).sqrt());
        for i in (0..n.width).step_by(S::LANES) {
            let centred = S::sub(S::load(from.add(i)), mean);
            F::store::<S>(place::<F>(to, i), S::mul(centred, scale));
        }
    }
}

/// Address of value `column` in a row of tiles, to the byte.
#[inline(always)]
pub(super) unsafe fn place<F: Format>(row: *mut f32, column: usize) -> *mut f32 {
    let lane = row.add(F::lane_of(column));
    lane.cast::<u8>().add(column % F::PER_LANE * (4 / F::PER_LANE)).cast()
}

/// A row of f32 values to a row of tiles.
#[inline(always)]
pub(super) unsafe fn convert<S: Simd, F: Format>(from: *const f32, width: usize, to: *mut f32) {
    for i in (0..width).step_by(S::LANES) {
        F::store::<S>(place::<F>(to, i), S::load(from.add(i)));
    }
}

/// `x Phi(x)`. For f32 absolute error below 1e-6 (Abramowitz and Stegun 7.1.26); for bf16, whose
/// steps are coarser, below 6e-5 by one polynomial.
#[inline(always)]
unsafe fn gelu<S: Simd, F: Format>(x: S::V) -> S::V {
    if F::PER_LANE == 1 { gelu_exact::<S>(x) } else { gelu_polynomial::<S>(x) }
}

#[inline(always)]
unsafe fn gelu_exact<S: Simd>(x: S::V) -> S::V {
    let zero = S::splat(0.0);
    let size = S::max(x, S::sub(zero, x));
    // 0.3275911 / sqrt(2)
    let t = S::fma(size, S::splat(0.231_641_9), S::splat(1.0));
    let t = S::div(S::splat(1.0), t);
    // Half the published coefficients: of Phi, not erf.
    let mut p = S::splat(0.530_702_7);
    for c in [-0.726_576, 0.710_706_85, -0.142_248_37, 0.127_414_8] {
        p = S::fma(p, t, S::splat(c));
    }
    // exp(-x^2 / 2)
    let power = S::mul(S::mul(x, x), S::splat(-0.5 * std::f32::consts::LOG2_E));
    let tail = S::mul(S::mul(p, t), S::exp2(power));
    // x Phi(x) is x (1 - tail) above zero and x tail below.
    S::sub(S::max(x, zero), S::mul(size, tail))
}

#[inline(always)]
unsafe fn gelu_polynomial<S: Simd>(x: S::V) -> S::V {
    // Minimax of (Phi(x) - 1/2) / x in x^2 on -4.2..4.2.
    const P: [f32; 8] = [
        -5.633_306_7e-9,
        2.343_671_5e-7,
        -5.760_767e-6,
        9.457_439e-5,
        -0.001_114_148,
        0.009_830_131,
        -0.066_360_38,
        0.398_907_45,
    ];
    let t = S::max(S::min(x, S::splat(4.2)), S::splat(-4.2));
    let square = S::mul(t, t);
    let mut p = S::splat(5.998_051e-11);
    for c in P {
        p = S::fma(p, square, S::splat(c));
    }
    S::mul(x, S::fma(t, p, S::splat(0.5)))
}

/// Where a result goes as tiles: the row of tiles of its first row, and its first column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub to: *mut f32,
    pub tile_row: usize,
    pub column: usize,
}

/// `gelu(sums + bias)`.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd, F: Format>(s: &Sums, t: &Tiles) {
    for row in 0..s.rows {
        let (from, to) = (s.from.add(row * s.stride), t.to.add(row_at(row, t.tile_row)));
        for i in (0..s.blocks * BLOCK).step_by(S::LANES) {
            let x = S::add(S::load(from.add(i)), S::load(s.bias.add(i)));
            F::store::<S>(place::<F>(to, t.column + i), gelu::<S, F>(x));
        }
    }
}

/// `silu(u) * v` of `sums + bias`, where column blocks alternate between u and v; the result has
/// half the columns.
#[inline(always)]
pub(super) unsafe fn gate<S: Simd, F: Format>(s: &Sums, t: &Tiles) {
    for row in 0..s.rows {
        let (from, to) = (s.from.add(row * s.stride), t.to.add(row_at(row, t.tile_row)));
        for pair in 0..s.blocks / 2 {
            for i in (0..BLOCK).step_by(S::LANES) {
                let at = 2 * pair * BLOCK + i;
                let u = S::add(S::load(from.add(at)), S::load(s.bias.add(at)));
                let at = at + BLOCK;
                let v = S::add(S::load(from.add(at)), S::load(s.bias.add(at)));
                let power = S::mul(u, S::splat(-std::f32::consts::LOG2_E));
                let power = S::min(power, S::splat(126.0));
                let silu = S::div(u, S::add(S::splat(1.0), S::exp2(power)));
                F::store::<S>(place::<F>(to, t.column + pair * BLOCK + i), S::mul(silu, v));
            }
        }
    }
}

/// `x += sums + bias`, rows of x `stride` apart.
#[inline(always)]
pub(super) unsafe fn residual<S: Simd, F: Format>(s: &Sums, x: *mut f32, stride: usize) {
    for row in 0..s.rows {
        let (from, x) = (s.from.add(row * s.stride), x.add(row * stride));
        for i in (0..s.blocks * BLOCK).step_by(S::LANES) {
            let sum = S::add(S::load(from.add(i)), S::load(s.bias.add(i)));
            S::store(x.add(i), S::add(S::load(x.add(i)), sum));
        }
    }
}

/// `x = sums + table`, where `bias` is the first row of a table whose rows, like those of x, are
/// `stride` apart.
#[inline(always)]
pub(super) unsafe fn replace<S: Simd, F: Format>(s: &Sums, x: *mut f32, stride: usize) {
    for row in 0..s.rows {
        let (from, x) = (s.from.add(row * s.stride), x.add(row * stride));
        let table = s.bias.add(row * stride);
        for i in (0..s.blocks * BLOCK).step_by(S::LANES) {
            S::store(x.add(i), S::add(S::load(from.add(i)), S::load(table.add(i))));
        }
    }
}

/// `sums + bias` of one column block, as values of the format; row `t` goes to lane
/// `t / 16 * large + t % 16 * small`, counted from `first`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scatter {
    pub to: *mut f32,
    pub first: usize,
    pub large: usize,
    pub small: usize,
}

#[inline(always)]
pub(super) unsafe fn scatter<S: Simd, F: Format>(s: &Sums, t: &Scatter) {
    for row in 0..s.rows {
        let at = t.first + row;
        let (from, to) =
            (s.from.add(row * s.stride), t.to.add(at / BLOCK * t.large + at % BLOCK * t.small));
        for i in (0..BLOCK).step_by(S::LANES) {
            let x = S::add(S::load(from.add(i)), S::load(s.bias.add(i)));
            F::store::<S>(to.add(i / F::PER_LANE), x);
        }
    }
}

/// A step of softmax over a block of keys: scores to weights that are not yet divided by their sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    /// Scores as tiles of f32, times log2(e).
    pub scores: *mut f32,
    pub scores_tile_row: usize,
    pub rows: usize,
    /// Keys of the block; those up to a multiple of 16 are masked.
    pub keys: usize,
    /// Weights as tiles; may be the scores.
    pub to: *mut f32,
    pub to_tile_row: usize,
    /// For each row the largest score so far, the sum of weights, and what to multiply earlier
    /// results with.
    pub largest: *mut f32,
    pub sum: *mut f32,
    pub correction: *mut f32,
}

#[inline(always)]
pub(super) unsafe fn softmax<S: Simd, F: Format>(s: &Softmax) {
    let padded = s.keys.next_multiple_of(BLOCK);
    for row in 0..s.rows {
        let scores = s.scores.add(row_at(row, s.scores_tile_row));
        let to = s.to.add(row_at(row, s.to_tile_row));
        for key in s.keys..padded {
            *scores.add(key / BLOCK * TILE + key % BLOCK) = -1e30;
        }
        let before = *s.largest.add(row);
        let mut largest = S::splat(before);
        for i in (0..padded).step_by(S::LANES) {
            largest = S::max(largest, S::load(scores.add(i / BLOCK * TILE + i % BLOCK)));
        }
        let now = S::largest(largest);
        let offset = S::splat(now);
        let mut sum = S::splat(0.0);
        for i in (0..padded).step_by(S::LANES) {
            let score = S::load(scores.add(i / BLOCK * TILE + i % BLOCK));
            let weight = S::exp2(S::sub(score, offset));
            sum = S::add(sum, weight);
            F::store::<S>(place::<F>(to, i), weight);
        }
        // A last tile of bf16 may be half filled.
        if F::PER_LANE == 2 && !padded.is_multiple_of(2 * BLOCK) {
            for i in (padded..padded + BLOCK).step_by(S::LANES) {
                F::store::<S>(place::<F>(to, i), S::splat(0.0));
            }
        }
        let correction = (before - now).max(-126.0).exp2();
        *s.sum.add(row) = *s.sum.add(row) * correction + S::sum(sum);
        *s.largest.add(row) = now;
        *s.correction.add(row) = correction;
    }
}

/// `x *= factors`, one factor a row.
#[inline(always)]
pub(super) unsafe fn rescale<S: Simd, F: Format>(
    x: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
    factors: *const f32,
) {
    for row in 0..rows {
        let (x, factor) = (x.add(row * stride), S::splat(*factors.add(row)));
        for i in (0..width).step_by(S::LANES) {
            S::store(x.add(i), S::mul(S::load(x.add(i)), factor));
        }
    }
}

/// `sums / divisors` (one a row, in place of `bias`) to tiles, whose first row is row `first`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, F: Format>(s: &Sums, t: &Tiles, first: usize) {
    for row in 0..s.rows {
        let from = s.from.add(row * s.stride);
        let to = t.to.add(row_at(first + row, t.tile_row));
        let factor = S::splat(1.0 / *s.bias.add(row));
        for i in (0..s.blocks * BLOCK).step_by(S::LANES) {
            F::store::<S>(place::<F>(to, t.column + i), S::mul(S::load(from.add(i)), factor));
        }
    }
}

/// Rows of values (keys down) as the panels of a right factor: `panel` column blocks to a panel,
/// lanes beyond the last key zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackValues {
    pub from: *const f32,
    /// Lanes from a key to the next.
    pub stride: usize,
    pub keys: usize,
    /// Rows of a panel: lanes of keys, a multiple of 16.
    pub lanes: usize,
    /// Column blocks in all.
    pub blocks: usize,
    pub panel: usize,
    pub to: *mut f32,
}

#[inline(always)]
pub(super) unsafe fn pack_values<S: Simd, F: Format>(p: &PackValues) {
    for block in 0..p.blocks {
        let (panel, inside) = (block / p.panel, block % p.panel);
        let width = (p.blocks - panel * p.panel).min(p.panel) * BLOCK;
        let to = p.to.add(panel * p.panel * BLOCK * p.lanes + inside * BLOCK);
        for lane in 0..p.lanes {
            let to = to.add(lane * width);
            let key = lane * F::PER_LANE;
            let from = p.from.add(key * p.stride + block * BLOCK / F::PER_LANE);
            if key + F::PER_LANE <= p.keys {
                if F::PER_LANE == 1 {
                    for i in (0..BLOCK).step_by(S::LANES) {
                        S::store(to.add(i), S::load(from.add(i)));
                    }
                } else {
                    S::interleave(from.cast(), from.add(p.stride).cast(), to);
                }
            } else if key < p.keys {
                let zeros = [0u16; BLOCK];
                S::interleave(from.cast(), zeros.as_ptr(), to);
            } else {
                for i in (0..BLOCK).step_by(S::LANES) {
                    S::store(to.add(i), S::splat(0.0));
                }
            }
        }
    }
}
