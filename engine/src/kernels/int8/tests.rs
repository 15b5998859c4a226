//! Every instruction set against plain arithmetic on whole numbers, to the bit.
#![expect(unsafe_code, reason = "the kernels take pointers")]

use half::bf16;

use super::super::block::{Product, Scales};
use super::super::isa::{Isa, Kernel, Precision};
use super::super::packed::{Lanes, Left, Matrix, TILE, quantised};
use super::super::rows::Normalise;
use super::super::simd::BLOCK;
use super::{GELU_LEAST, Int8, Quantise};

fn noise(count: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Every table of this machine; what it lacks is said.
fn tables() -> Vec<(Isa, &'static Kernel, &'static Int8)> {
    let mut found = Vec::new();
    for isa in Isa::ALL {
        let tables = Int8::all(isa);
        match (isa, tables.len()) {
            (_, 0) => eprintln!("skipped: this machine has no {}", isa.name()),
            (Isa::Avx2 | Isa::Avx512, 1) => eprintln!("skipped: {} without VNNI only", isa.name()),
            _ => {}
        }
        let float = Kernel::of(isa, Precision::Int8);
        found.extend(tables.into_iter().filter_map(|int8| Some((isa, float?, int8))));
    }
    found
}

/// Rows of bytes as a table makes them.
struct Rows {
    tiles: Lanes,
    depth: usize,
    scales: Vec<f32>,
}

impl Rows {
    fn of(float: &Kernel, int8: &Int8, x: &[f32], inner: usize, left: Left<'static>) -> Self {
        let (count, depth) = (x.len() / inner, inner.div_ceil(4 * BLOCK));
        let from_depth = inner.div_ceil(2 * BLOCK);
        let tile_rows = count.next_multiple_of(2 * BLOCK) / BLOCK;
        let mut from = Lanes::new(tile_rows * from_depth * TILE);
        for (row, x) in x.chunks_exact(inner).enumerate() {
            let mut values = x.to_vec();
            values.resize(from_depth * 2 * BLOCK, 0.0);
            let to = row / BLOCK * from_depth * TILE + row % BLOCK * BLOCK;
            // SAFETY: a row of tiles.
            unsafe {
                (float.convert)(values.as_ptr(), values.len(), from.as_mut_ptr().add(to));
            }
        }
        let mut tiles = Lanes::new(tile_rows * depth * TILE);
        let mut scales = vec![0f32; tile_rows * BLOCK];
        let work = Quantise {
            from: from.as_ptr(),
            from_tile_row: from_depth * TILE,
            rows: count,
            width: from_depth * 2 * BLOCK,
            left,
            to: tiles.as_mut_ptr(),
            to_tile_row: depth * TILE,
            scales: scales.as_mut_ptr(),
        };
        // SAFETY: rows of tiles on both sides.
        unsafe { (int8.quantise)(&work) };
        Self { tiles, depth, scales }
    }

    fn byte(&self, row: usize, column: usize) -> u8 {
        let lane = row / BLOCK * self.depth * TILE
            + column / 64 * TILE
            + row % BLOCK * BLOCK
            + column % 64 / 4;
        // SAFETY: a lane of the tiles, of four bytes.
        unsafe { self.tiles.as_ptr().add(lane).cast::<u8>().add(column % 4).read() }
    }

    /// Times a matrix, 32 rows at a time, without its bias.
    fn times(&self, float: &Kernel, int8: &Int8, matrix: &Matrix, rows: usize) -> Vec<f32> {
        let _session = float.session();
        let columns = (0..matrix.panels()).map(|i| matrix.panel(i).blocks * BLOCK).sum::<usize>();
        let mut out = vec![f32::NAN; rows * columns];
        let mut sums = Lanes::new(32 * 3 * BLOCK);
        for panel in (0..matrix.panels()).map(|index| matrix.panel(index)) {
            let width = panel.blocks * BLOCK;
            for first in (0..rows).step_by(32) {
                let count = (rows - first).min(32);
                let product = Product {
                    a: self.tiles.as_ptr().wrapping_add(first / BLOCK * self.depth * TILE),
                    a_tile_row: self.depth * TILE,
                    rows: count,
                    b: panel.lanes,
                    b_stride: width,
                    depth: self.depth,
                    blocks: panel.blocks,
                    out: sums.as_mut_ptr(),
                    out_row: width,
                    out_tile_row: BLOCK * width,
                    out_block: BLOCK,
                    accumulate: false,
                    scales: Scales { rows: self.scales[first..].as_ptr(), ..panel.scales },
                };
                // SAFETY: tiles, a panel and sums of the sizes given.
                let sums = unsafe {
                    (int8.multiply)(&product);
                    std::slice::from_raw_parts(sums.as_ptr(), count * width)
                };
                for (row, sums) in sums.chunks_exact(width).enumerate() {
                    out[(first + row) * columns + panel.first_column..][..width]
                        .copy_from_slice(sums);
                }
            }
        }
        out
    }
}

/// What the product must be, from the bytes.
fn expected(
    rows: &Rows,
    count: usize,
    weights: &[f32],
    inner: usize,
    left: Left<'static>,
) -> Vec<f32> {
    let columns = weights.len() / inner;
    let mut bytes = vec![0i8; weights.len()];
    let scales: Vec<f32> = weights
        .chunks_exact(inner)
        .zip(bytes.chunks_exact_mut(inner))
        .map(|(weights, bytes)| quantised(weights, bytes).0)
        .collect();
    let offset = if left == Left::Signed { 128 } else { 0 };
    let mut out = Vec::with_capacity(count * columns);
    for row in 0..count {
        let x: Vec<i64> = (0..inner).map(|i| i64::from(rows.byte(row, i)) - offset).collect();
        for (bytes, scale) in bytes.chunks_exact(inner).zip(&scales) {
            let sum: i64 = x.iter().zip(bytes).map(|(x, w)| x * i64::from(*w)).sum();
            out.push(i32::try_from(sum).expect("32 bits") as f32 * rows.scales[row] * scale);
        }
    }
    out
}

fn check(
    rows: usize,
    inner: usize,
    columns: usize,
    left: Left<'static>,
    x: &[f32],
    weights: &[f32],
) {
    let mut first: Option<Rows> = None;
    for (isa, float, int8) in tables() {
        let case = format!("{isa:?} {int8:?}: {rows} x {inner} x {columns} {left:?}");
        let made = Rows::of(float, int8, x, inner, left);
        let row = |column: usize| &weights[column * inner..(column + 1) * inner];
        let bias = vec![0.0; columns];
        let matrix = Matrix::pack_bytes(float, int8.panel, inner, bias, left, row);
        let got = made.times(float, int8, &matrix, rows);
        let want = expected(&made, rows, weights, inner, left);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got.to_bits(), want.to_bits(), "{case}, at {i}: {got} not {want}");
        }
        if let Some(first) = &first {
            for row in 0..rows {
                assert_eq!(made.scales[row].to_bits(), first.scales[row].to_bits(), "{case} {row}");
                let differs = (0..inner).find(|&i| made.byte(row, i) != first.byte(row, i));
                assert_eq!(differs, None, "{case}: row {row}");
            }
        } else {
            first = Some(made);
        }
    }
}

#[test]
fn products_have_the_same_bits_on_every_instruction_set() {
    let most = 1374;
    let (x, weights) = (noise(most * 400, 1), noise(400 * 112, 2));
    for left in [Left::Signed, Left::Gelu] {
        // GELU's values are not below its least.
        let x: Vec<f32> = match left {
            Left::Normed(_) | Left::Signed => x.clone(),
            Left::Gelu => x.iter().map(|x| if *x < -0.9 { 8.0 } else { x.max(-0.16) }).collect(),
        };
        for (rows, inner, columns) in [
            (1, 64, 16),
            (2, 96, 48),
            (3, 32, 64),
            (5, 400, 112),
            (15, 384, 16),
            (16, 64, 32),
            (17, 88, 96),
            (31, 384, 48),
            (33, 200, 80),
            (257, 384, 96),
            (1374, 72, 64),
        ] {
            check(rows, inner, columns, left, &x[..rows * inner], &weights[..inner * columns]);
        }
    }
}

#[test]
fn nothing_is_cut_off_where_every_factor_is_as_large_as_can_be() {
    for (left, value) in [(Left::Signed, 3.0), (Left::Signed, -3.0), (Left::Gelu, 3.0)] {
        for weight in [0.5, -0.5] {
            check(33, 4096, 48, left, &vec![value; 33 * 4096], &vec![weight; 48 * 4096]);
        }
    }
}

#[test]
fn bytes_are_within_half_a_step_and_the_bias_makes_up_for_gelus_least_value() {
    let (count, inner) = (19, 96);
    for left in [Left::Signed, Left::Gelu] {
        let mut x = noise(count * inner, 3);
        if left == Left::Gelu {
            x.iter_mut().for_each(|x| *x = x.max(-0.1699));
        }
        x[..inner].fill(0.0);
        for (isa, float, int8) in tables() {
            let rows = Rows::of(float, int8, &x, inner, left);
            let weights = noise(16 * inner, 4);
            let row = |column: usize| &weights[column * inner..(column + 1) * inner];
            let matrix = Matrix::pack_bytes(float, int8.panel, inner, vec![1.0; 16], left, row);
            let product = rows.times(float, int8, &matrix, count);
            let panel = matrix.panel(0);
            for r in 0..count {
                let scale = rows.scales[r];
                let (offset, least) = match left {
                    Left::Normed(_) | Left::Signed => (-128.0, 0.0),
                    Left::Gelu => (0.0, GELU_LEAST),
                };
                let mut values = Vec::new();
                for i in 0..inner {
                    let want = bf16::from_f32(x[r * inner + i]).to_f32();
                    let got = (f32::from(rows.byte(r, i)) + offset) * scale + least;
                    let apart = (got - want).abs();
                    assert!(apart <= 0.501 * scale + 1e-6, "{isa:?} {left:?} {r} {i}: {apart}");
                    values.push(got);
                }
                for column in 0..16 {
                    let mut bytes = vec![0i8; inner];
                    let (step, _) = quantised(row(column), &mut bytes);
                    let dot = values.iter().zip(&bytes).map(|(x, w)| x * f32::from(*w) * step);
                    let want = 1.0 + dot.sum::<f32>();
                    // SAFETY: one bias a column.
                    let got = product[r * 16 + column] + unsafe { *panel.bias.add(column) };
                    assert!((got - want).abs() <= 2e-4, "{isa:?} {left:?}: {got} not {want}");
                }
            }
        }
    }
}

#[test]
fn rows_are_normalised_and_one_that_is_not_finite_has_no_scale() {
    let (count, width) = (21, 96);
    let mut x = noise(count * width, 5);
    x.iter_mut().enumerate().for_each(|(i, x)| *x = *x * (1 + i % 7) as f32 + 3.0);
    x[2 * width..3 * width].fill(4.0);
    let factors: Vec<f32> = noise(width, 6).iter().map(|x| x.abs() + 0.01).collect();
    for (bad, value) in [(5, f32::NAN), (7, f32::INFINITY)] {
        x[bad * width + 17] = value;
    }
    for (isa, float, int8) in tables() {
        let depth = width.div_ceil(64);
        let mut made =
            Rows { tiles: Lanes::new(2 * depth * TILE), depth, scales: vec![0.0; 2 * BLOCK] };
        let work = Normalise {
            from: x.as_ptr(),
            stride: width,
            rows: count,
            width,
            epsilon: 1e-6,
            to: made.tiles.as_mut_ptr(),
            tile_row: depth * TILE,
        };
        // SAFETY: rows on one side, tiles and scales on the other.
        unsafe { (int8.normalise)(&work, factors.as_ptr(), made.scales.as_mut_ptr()) };
        let quantised = Rows::of(float, int8, &x, width, Left::Signed);
        for (row, x) in x.chunks_exact(width).enumerate() {
            let scale = made.scales[row];
            if x.iter().any(|x| !x.is_finite()) {
                assert!(!scale.is_finite() && !quantised.scales[row].is_finite(), "{isa:?} {row}");
                continue;
            }
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
            let factor = 1.0 / (variance / width as f64 + 1e-6).sqrt();
            for (i, x) in x.iter().enumerate() {
                let want = (f64::from(*x) - mean) * factor * f64::from(factors[i]);
                let got = f64::from(f32::from(made.byte(row, i)) - 128.0) * f64::from(scale);
                let limit = 0.501 * f64::from(scale) + 1e-5;
                assert!((got - want).abs() <= limit, "{isa:?} {row} {i}: {got} not {want}");
            }
        }
    }
}

#[test]
fn factors_of_normed_rows_are_taken_from_the_weights_again() {
    let inner = 96;
    let mut weights = noise(48 * inner, 7);
    // A channel with small weights, and one that is not used.
    weights.iter_mut().skip(3).step_by(inner).for_each(|w| *w *= 1e-3);
    weights.iter_mut().skip(4).step_by(inner).for_each(|w| *w = 0.0);
    let mut seen = vec![1f32; inner];
    // A channel with outliers, and one of which nothing is known.
    (seen[5], seen[6]) = (8.0, f32::NAN);
    for (isa, float, int8) in tables() {
        let row = |column: usize| &weights[column * inner..(column + 1) * inner];
        let bias = vec![0.0; 48];
        let left = Left::Normed(&seen);
        let matrix = Matrix::pack_bytes(float, int8.panel, inner, bias, left, row);
        let factors = matrix.factors();
        assert!(factors[3] < 0.1 * factors[0] && factors[4] > 0.0, "{isa:?}");
        assert!(factors[5] < 0.4 * factors[0] && factors[6].is_finite(), "{isa:?}");
        let digits = factors.iter().map(|f| f.to_bits() << 12);
        assert!(digits.into_iter().all(|rest| rest == 0), "{isa:?}");
        let mut x = noise(5 * inner, 8);
        x.iter_mut().skip(5).step_by(inner).for_each(|x| *x *= 8.0);
        let scaled: Vec<f32> = x.iter().zip(factors.iter().cycle()).map(|(x, f)| x * f).collect();
        let rows = Rows::of(float, int8, &scaled, inner, Left::Signed);
        let got = rows.times(float, int8, &matrix, 5);
        for (r, x) in x.chunks_exact(inner).enumerate() {
            for column in 0..48 {
                let want: f32 = x.iter().zip(row(column)).map(|(x, w)| x * w).sum();
                let got = got[r * 48 + column];
                assert!((got - want).abs() <= 0.25, "{isa:?} {r} {column}: {got} not {want}");
            }
        }
    }
}
