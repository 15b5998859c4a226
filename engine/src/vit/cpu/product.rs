//! The products of a pass, and rows made ready for them: as floats or as bytes, whichever their
//! matrix takes.
#![expect(unsafe_code, reason = "the kernels take pointers, and threads share buffers")]

use super::super::config::LAYER_NORM_EPS;
use super::pass::{Grid, Pass};
use super::workspace::{Own, PAIR, Pointers, Shape};
use crate::kernels::{BLOCK, Left, Matrix, Normalise, Product, Quantise, Scales, Sums};

/// The left factor of a product: rows of tiles and, where they hold bytes, a scale for each row.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    tiles: *const f32,
    scales: *const f32,
}

impl Factor {
    pub(super) fn of_floats(tiles: *const f32) -> Self {
        Self { tiles, scales: std::ptr::null() }
    }
}

impl Pass<'_> {
    /// Normed rows as what `matrix` takes; the part's threads share the work, and meet after it.
    pub(super) fn normalise(
        &self,
        shape: &Shape,
        buffers: &Pointers,
        grid: &Grid<'_>,
        (x, rows): (*const f32, usize),
        matrix: &Matrix,
    ) -> Factor {
        // Whole rows of tiles, so that a thread's first row starts one.
        let tiles = grid.share(rows.div_ceil(BLOCK));
        let first = tiles.start * BLOCK;
        let tile_row = matrix.depth() * BLOCK * BLOCK;
        let (to, scales) = (buffers.normed(grid.part), buffers.scales(grid.part, 0));
        let work = Normalise {
            from: x.wrapping_add(first * shape.stride()),
            stride: shape.stride(),
            rows: rows.min(tiles.end * BLOCK).saturating_sub(first),
            width: shape.width,
            epsilon: LAYER_NORM_EPS as f32,
            to: to.wrapping_add(tiles.start * tile_row),
            tile_row,
        };
        // SAFETY: rows that no thread writes now, to rows of tiles and scales that are this
        // thread's.
        unsafe {
            match self.kernels.int8.filter(|_| matrix.takes_bytes()) {
                Some(int8) => {
                    let factors = matrix.factors().as_ptr();
                    (int8.normalise)(&work, factors, scales.wrapping_add(first));
                }
                None => (self.kernels.float.normalise)(&work),
            }
        }
        grid.rows.wait();
        Factor { tiles: to, scales }
    }

    /// Rows of tiles of floats, so many tiles long, as what `matrix` takes: the same, or as bytes;
    /// the part's threads then share the work, and meet after it.
    pub(super) fn quantise(
        &self,
        buffers: &Pointers,
        grid: &Grid<'_>,
        (from, depth, rows): (*const f32, usize, usize),
        left: Left<'static>,
        matrix: &Matrix,
    ) -> Factor {
        let Some(int8) = self.kernels.int8.filter(|_| matrix.takes_bytes()) else {
            return Factor::of_floats(from);
        };
        let tiles = grid.share(rows.div_ceil(BLOCK));
        let first = tiles.start * BLOCK;
        let from_tile_row = depth * BLOCK * BLOCK;
        let to_tile_row = matrix.depth() * BLOCK * BLOCK;
        let (to, scales) = (buffers.bytes(grid.part), buffers.scales(grid.part, 1));
        let work = Quantise {
            from: from.wrapping_add(tiles.start * from_tile_row),
            from_tile_row,
            rows: rows.min(tiles.end * BLOCK).saturating_sub(first),
            width: depth * BLOCK * self.kernels.float.per_lane,
            left,
            to: to.wrapping_add(tiles.start * to_tile_row),
            to_tile_row,
            scales: scales.wrapping_add(first),
        };
        // SAFETY: as in `normalise`.
        unsafe { (int8.quantise)(&work) };
        grid.rows.wait();
        Factor { tiles: to, scales }
    }

    /// This thread's columns of `rows` rows of tiles times a matrix, handed on as blocks of sums
    /// with their first row and column.
    pub(super) fn product(
        &self,
        own: &Own,
        grid: &Grid<'_>,
        a: Factor,
        rows: usize,
        matrix: &Matrix,
        then: &mut dyn FnMut(Sums, usize, usize),
    ) {
        let depth = matrix.depth();
        let a_tile_row = depth * BLOCK * BLOCK;
        let multiply = match self.kernels.int8.filter(|_| matrix.takes_bytes()) {
            Some(int8) => int8.multiply,
            None => self.kernels.float.multiply,
        };
        // Long inner axes are cut into equal steps, so that a panel stays in the cache.
        let steps = match matrix.takes_bytes() {
            // Whole sums are scaled once, and the longest panel of bytes is short.
            true => 1,
            false => depth.div_ceil(self.kernels.float.depth),
        };
        for panel in grid.share(matrix.panels()).map(|index| matrix.panel(index)) {
            let width = panel.blocks * BLOCK;
            for step in 0..steps {
                let tiles = depth * step / steps..depth * (step + 1) / steps;
                for row in (0..rows).step_by(PAIR) {
                    let sums = match steps {
                        1 => own.sums,
                        _ => own.sums.wrapping_add(row * width),
                    };
                    let offset = row / BLOCK * a_tile_row + tiles.start * BLOCK * BLOCK;
                    let count = (rows - row).min(PAIR);
                    let product = Product {
                        a: a.tiles.wrapping_add(offset),
                        a_tile_row,
                        rows: count,
                        b: panel.lanes.wrapping_add(tiles.start * BLOCK * width),
                        b_stride: width,
                        depth: tiles.len(),
                        blocks: panel.blocks,
                        out: sums,
                        out_row: width,
                        out_tile_row: BLOCK * width,
                        out_block: BLOCK,
                        accumulate: step > 0,
                        scales: Scales { rows: a.scales.wrapping_add(row), ..panel.scales },
                    };
                    // SAFETY: tiles and a panel that no thread writes now, to this thread's sums.
                    unsafe { multiply(&product) };
                    if step + 1 == steps {
                        let sums = Sums {
                            from: sums,
                            stride: width,
                            rows: count,
                            blocks: panel.blocks,
                            bias: panel.bias,
                        };
                        then(sums, row, panel.first_column);
                    }
                }
            }
        }
    }

    /// Cuts rows, of which the first is `row` of the batch, where an image ends.
    pub(super) fn by_image(
        &self,
        row: usize,
        sums: Sums,
        then: &mut dyn FnMut(Sums, usize, usize),
    ) {
        let mut done = 0;
        while done < sums.rows {
            let (image, token) = ((row + done) / self.tokens, (row + done) % self.tokens);
            let rows = (self.tokens - token).min(sums.rows - done);
            let from = sums.from.wrapping_add(done * sums.stride);
            then(Sums { from, rows, ..sums }, image, token);
            done += rows;
        }
    }
}
