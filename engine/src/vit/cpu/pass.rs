//! One pass through the backbone, as one of the threads that share it sees it.
//!
//! Between two attentions everything is local to a row, so a thread takes a block of its rows
//! through projection, feed-forward network and the next block's queries, keys and values while
//! they are in its level-2 cache. Threads meet before and after attention. Where there are more
//! threads than rows are worth, several share a part of the rows and split the columns; those also
//! meet after each product.
#![expect(unsafe_code, reason = "the kernels take pointers, and threads share buffers")]

use std::ops::Range;

use super::super::config::{FfnKind, PATCH_SIZE, VitConfig};
use super::Tokens;
use super::attention::Attention;
use super::calibrate::Seen;
use super::product::Factor;
use super::stages::{Clock, Stage, Stages};
use super::weights::{Kernels, Packed, hidden_left};
use super::workspace::{Own, PATCH_VALUES, Pointers, Shape};
use crate::kernels::elementwise;
use crate::kernels::{BLOCK, Barrier, Left, Scatter, Sums, Team, Tiles};

/// Fewest rows of a part.
const PART_ROWS: usize = 16;

/// A thread's place: its part of the rows, and its share of the columns.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    pub(super) index: usize,
    pub(super) threads: usize,
    pub(super) part: usize,
    column: usize,
    columns: usize,
    /// All threads of the pass, and those of this part.
    whole: Barrier<'a>,
    pub(super) rows: Barrier<'a>,
}

impl<'a> Grid<'a> {
    /// Into how many parts `threads` threads cut so many rows: a divisor of `threads`.
    pub(super) fn parts(threads: usize, rows: usize) -> usize {
        let fits = |parts: &usize| threads.is_multiple_of(*parts) && rows / parts >= PART_ROWS;
        (1..=threads).rev().find(fits).unwrap_or(1)
    }

    /// The place of thread `index` of `threads` of a team, which share `parts` parts.
    pub(super) fn new(team: &'a Team, index: usize, threads: usize, parts: usize) -> Self {
        let columns = threads / parts;
        let part = index / columns;
        let (whole, rows) = (team.barrier(0, threads), team.barrier(1 + part, columns));
        Self { index, threads, part, column: index % columns, columns, whole, rows }
    }

    /// The same threads as one part.
    fn joined(self) -> Self {
        Self { part: 0, column: self.index, columns: self.threads, rows: self.whole, ..self }
    }

    /// This thread's share of `count` things that its part shares.
    pub(super) fn share(&self, count: usize) -> Range<usize> {
        count * self.column / self.columns..count * (self.column + 1) / self.columns
    }

    /// This thread's share of `count` things that all threads share.
    pub(super) fn share_of_all(&self, count: usize) -> Range<usize> {
        count * self.index / self.threads..count * (self.index + 1) / self.threads
    }
}

/// What is computed, from what, to where.
pub(super) struct Pass<'a> {
    pub(super) model: &'a VitConfig,
    pub(super) kernels: Kernels,
    pub(super) packed: &'a Packed,
    pub(super) images: &'a [&'a [f32]],
    /// Height and width of the images in pixels.
    pub(super) size: (usize, usize),
    pub(super) tokens: usize,
    /// What is added to the patch embedding, one row a token.
    pub(super) table: &'a [f32],
    pub(super) layers: &'a [usize],
    pub(super) wanted: Tokens,
    /// First value of the first image's result for the first layer.
    pub(super) out: *mut f32,
    /// Values from a layer's result to the next's.
    pub(super) layer_stride: usize,
    pub(super) stages: &'a Stages,
    /// Who looks at the rows before norms, if anybody.
    pub(super) seen: Option<&'a Seen>,
}

/// Rows that are taken through a block together: of the residual stream, and where attention left
/// its result for them.
#[derive(Clone, Copy)]
struct Rows {
    x: *mut f32,
    mixed: *const f32,
    count: usize,
}

impl Pass<'_> {
    /// This thread's share of the pass.
    pub(super) fn run(&self, shape: &Shape, buffers: &Pointers, grid: &Grid<'_>) {
        let own = buffers.own(grid.index);
        let mut clock = self.stages.clock();
        let last = self.layers.iter().max().copied().unwrap_or(0);
        let part = shape.part(grid.part);
        let starts = || part.clone().step_by(shape.block_rows);
        for start in starts() {
            let rows = start..part.end.min(start + shape.block_rows);
            self.embed(shape, buffers, grid, &own, rows.clone());
            clock.lap(Stage::Patches);
            self.attention_input(shape, buffers, grid, &own, 0, rows);
            clock.lap(Stage::Qkv);
            grid.rows.wait();
        }
        for index in 0..=last {
            let cls_only = self.wanted == Tokens::Cls && index == last;
            grid.whole.wait();
            clock.lap(Stage::Wait);
            let queries = if cls_only { 1 } else { self.tokens };
            Attention { kernel: self.kernels.float, shape, buffers, own: &own }.run(grid, queries);
            clock.lap(Stage::Attention);
            grid.whole.wait();
            clock.lap(Stage::Wait);
            if cls_only {
                self.finish_cls(shape, buffers, grid.joined(), (&own, &mut clock), index);
                break;
            }
            for start in starts() {
                let rows = start..part.end.min(start + shape.block_rows);
                let local = start - part.start;
                let taken = Rows {
                    x: buffers.x(shape, start),
                    mixed: buffers.mixed(grid.part).wrapping_add(local * shape.depth * BLOCK),
                    count: rows.len(),
                };
                self.through_block(shape, buffers, grid, (&own, &mut clock), index, taken);
                for (at, _) in self.layers.iter().enumerate().filter(|&(_, &l)| l == index) {
                    for row in grid.share(rows.len()) {
                        let to = at * self.layer_stride + (start + row) * shape.width;
                        self.final_norm(shape, buffers.x(shape, start + row), to);
                    }
                }
                clock.lap(Stage::Norm);
                if index < last {
                    self.attention_input(shape, buffers, grid, &own, index + 1, rows);
                    clock.lap(Stage::Qkv);
                }
            }
        }
    }

    /// Patches to tokens: pixels as tiles, their product, and the table of positions.
    fn embed(
        &self,
        shape: &Shape,
        buffers: &Pointers,
        grid: &Grid<'_>,
        own: &Own,
        rows: Range<usize>,
    ) {
        let tile_row = shape.patch_depth * BLOCK * BLOCK;
        let to = buffers.normed(grid.part);
        // SAFETY: the buffer holds a patch's values, and is this thread's own.
        let patch = unsafe { std::slice::from_raw_parts_mut(own.patch, PATCH_VALUES) };
        patch.fill(0.0);
        let values = shape.patch_depth * BLOCK * self.kernels.float.per_lane;
        for row in grid.share(rows.len()) {
            self.pixels_of(rows.start + row, patch);
            let to = to.wrapping_add(row / BLOCK * tile_row + row % BLOCK * BLOCK);
            // SAFETY: a row of tiles of the block, which no other thread writes.
            unsafe { (self.kernels.float.convert)(patch.as_ptr(), values, to) };
        }
        grid.rows.wait();
        let to = Factor::of_floats(to);
        self.product(own, grid, to, rows.len(), &self.packed.patch, &mut |sums, row, column| {
            self.by_image(rows.start + row, sums, &mut |sums, image, token| {
                let table = self.table.as_ptr().wrapping_add(token * shape.stride() + column);
                let x = buffers.x(shape, image * self.tokens + token).wrapping_add(column);
                // SAFETY: rows and columns of the residual stream that are this thread's.
                unsafe {
                    (self.kernels.float.replace)(&Sums { bias: table, ..sums }, x, shape.stride())
                };
            });
        });
        grid.rows.wait();
    }

    /// The 3 x 14 x 14 values of a token's patch; zeros for CLS and registers.
    fn pixels_of(&self, row: usize, to: &mut [f32]) {
        let (image, token) = (row / self.tokens, row % self.tokens);
        let (height, width) = self.size;
        let to = &mut to[..3 * PATCH_SIZE * PATCH_SIZE];
        let Some(patch) = token.checked_sub(self.model.num_prefix_tokens()) else {
            to.fill(0.0);
            return;
        };
        let columns = width / PATCH_SIZE;
        let (top, left) = (patch / columns * PATCH_SIZE, patch % columns * PATCH_SIZE);
        for (line, to) in to.as_chunks_mut::<PATCH_SIZE>().0.iter_mut().enumerate() {
            let (channel, y) = (line / PATCH_SIZE, line % PATCH_SIZE);
            let start = (channel * height + top + y) * width + left;
            to.copy_from_slice(&self.images[image][start..start + PATCH_SIZE]);
        }
    }

    /// The first norm of a block, and its queries, keys and values.
    fn attention_input(
        &self,
        shape: &Shape,
        buffers: &Pointers,
        grid: &Grid<'_>,
        own: &Own,
        index: usize,
        rows: Range<usize>,
    ) {
        let block = &self.packed.blocks[index];
        let x = buffers.x(shape, rows.start);
        self.look(shape, grid, (x, rows.len()), index, 0);
        let normed = self.normalise(shape, buffers, grid, (x, rows.len()), &block.qkv);
        let per_lane = self.kernels.float.per_lane;
        let head_width = shape.width / shape.heads;
        let head_row = shape.head_depth * BLOCK;
        self.product(own, grid, normed, rows.len(), &block.qkv, &mut |sums, row, column| {
            for b in 0..sums.blocks {
                let column = column + b * BLOCK;
                let (which, inside) = (column / shape.width, column % shape.width);
                let (head, inside) = (inside / head_width, inside % head_width);
                // Queries go to tiles; keys and values are packed later, from rows.
                let lane = inside / per_lane;
                let (lane, large, small) = match which {
                    0 => (lane / BLOCK * BLOCK * BLOCK + lane % BLOCK, BLOCK * head_row, BLOCK),
                    _ => (lane, BLOCK * head_row, head_row),
                };
                let sums = Sums {
                    from: sums.from.wrapping_add(b * BLOCK),
                    bias: sums.bias.wrapping_add(b * BLOCK),
                    blocks: 1,
                    ..sums
                };
                self.by_image(rows.start + row, sums, &mut |sums, image, token| {
                    let to = buffers.head(shape, which, image, head).wrapping_add(lane);
                    // SAFETY: rows and columns of one head that are this thread's.
                    unsafe {
                        (self.kernels.float.scatter)(
                            &sums,
                            &Scatter { to, first: token, large, small },
                        )
                    };
                });
            }
        });
    }

    /// Shows this thread's rows to whoever looks, before norm `norm` of block `index`.
    fn look(
        &self,
        shape: &Shape,
        grid: &Grid<'_>,
        (x, rows): (*const f32, usize),
        index: usize,
        norm: usize,
    ) {
        let Some(seen) = self.seen else { return };
        for row in grid.share(rows) {
            let row = x.wrapping_add(row * shape.stride());
            // SAFETY: a row of the residual stream, which no thread writes now.
            let row = unsafe { std::slice::from_raw_parts(row, shape.width) };
            seen.add(index, norm, row);
        }
    }

    /// Rows through the rest of a block, from attention's result on.
    fn through_block(
        &self,
        shape: &Shape,
        buffers: &Pointers,
        grid: &Grid<'_>,
        (own, clock): (&Own, &mut Clock<'_>),
        index: usize,
        rows: Rows,
    ) {
        let block = &self.packed.blocks[index];
        let stride = shape.stride();
        let add = |sums: Sums, row: usize, column: usize| {
            let x = rows.x.wrapping_add(row * stride + column);
            // SAFETY: rows and columns of the residual stream that are this thread's.
            unsafe { (self.kernels.float.residual)(&sums, x, stride) };
        };
        let mixed = (rows.mixed, shape.depth, rows.count);
        let mixed = self.quantise(buffers, grid, mixed, Left::Signed, &block.proj);
        self.product(own, grid, mixed, rows.count, &block.proj, &mut { add });
        grid.rows.wait();
        clock.lap(Stage::Projection);
        self.look(shape, grid, (rows.x, rows.count), index, 1);
        let normed = self.normalise(shape, buffers, grid, (rows.x, rows.count), &block.up);
        let hidden = buffers.hidden(grid.part);
        let tile_row = shape.hidden_depth * BLOCK * BLOCK;
        self.product(own, grid, normed, rows.count, &block.up, &mut |sums, row, column| {
            let to = hidden.wrapping_add(row / BLOCK * tile_row);
            // SAFETY: rows and columns of the hidden activations that are this thread's.
            unsafe {
                match self.model.ffn {
                    FfnKind::Mlp => {
                        (self.kernels.float.activate)(&sums, &Tiles { to, tile_row, column })
                    }
                    FfnKind::SwiGlu => {
                        (self.kernels.float.gate)(
                            &sums,
                            &Tiles { to, tile_row, column: column / 2 },
                        );
                    }
                }
            }
        });
        grid.rows.wait();
        clock.lap(Stage::Up);
        let left = hidden_left(self.model.ffn);
        let hidden = (hidden.cast_const(), shape.hidden_depth, rows.count);
        let hidden = self.quantise(buffers, grid, hidden, left, &block.down);
        self.product(own, grid, hidden, rows.count, &block.down, &mut { add });
        grid.rows.wait();
        clock.lap(Stage::Down);
    }

    /// The last block for CLS alone: one row an image, gathered behind the residual stream.
    fn finish_cls(
        &self,
        shape: &Shape,
        buffers: &Pointers,
        grid: Grid<'_>,
        (own, clock): (&Own, &mut Clock<'_>),
        index: usize,
    ) {
        let gathered = |image: usize| buffers.x(shape, shape.rows + image);
        for image in grid.share(shape.images) {
            let from = buffers.x(shape, image * self.tokens);
            // SAFETY: a row of the residual stream, and one behind it that only this thread writes.
            unsafe { from.copy_to_nonoverlapping(gathered(image), shape.width) };
        }
        grid.rows.wait();
        for start in (0..shape.images).step_by(shape.block_rows) {
            let count = (shape.images - start).min(shape.block_rows);
            let mixed = buffers.mixed(0).wrapping_add(start * shape.depth * BLOCK);
            let rows = Rows { x: gathered(start), mixed, count };
            self.through_block(shape, buffers, &grid, (own, &mut *clock), index, rows);
            for row in grid.share(count) {
                self.final_norm(shape, gathered(start + row), (start + row) * shape.width);
            }
            clock.lap(Stage::Norm);
        }
    }

    /// The final norm of a row, to `out` from value `to` on.
    fn final_norm(&self, shape: &Shape, x: *const f32, to: usize) {
        let [weight, bias] = &self.packed.norm;
        // SAFETY: a row of the residual stream that no thread writes now, and values of the result
        // that only this thread writes.
        let (x, row) = unsafe {
            let to = self.out.wrapping_add(to);
            let row = std::slice::from_raw_parts_mut(to, shape.width);
            (std::slice::from_raw_parts(x, shape.width), row)
        };
        row.copy_from_slice(x);
        elementwise::layer_norm(row, weight, bias);
    }
}
