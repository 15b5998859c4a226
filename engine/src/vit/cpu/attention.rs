//! Attention of the heads a thread is given: 32 queries at a time against blocks of keys, with the
//! running softmax of FlashAttention (arXiv 2205.14135, algorithm 1), so that no more than 32 x 384
//! scores exist at once however long the sequence is.
#![expect(unsafe_code, reason = "the kernels take pointers, and threads share buffers")]

use std::ops::Range;

use super::pass::Grid;
use super::workspace::{KEYS, Own, PAIR, Pointers, Shape};
use crate::kernels::{BLOCK, Kernel, PackValues, Product, Scales, Softmax, Sums, TILE, Tiles};

pub(super) struct Attention<'a> {
    pub(super) kernel: &'static Kernel,
    pub(super) shape: &'a Shape,
    pub(super) buffers: &'a Pointers,
    pub(super) own: &'a Own,
}

impl Attention<'_> {
    /// This thread's share of the first `queries` tokens of every image: all of them, or 1. The
    /// results of a single one are packed, one row an image.
    pub(super) fn run(&self, grid: &Grid<'_>, queries: usize) {
        let steps = queries.div_ceil(PAIR);
        let shape = self.shape;
        let mut packed = None;
        for task in grid.share_of_all(shape.images * shape.heads * steps) {
            let (head, step) = (task / steps, task % steps);
            let (image, head) = (head / shape.heads, head % shape.heads);
            if packed != Some((image, head)) {
                self.pack(image, head);
                packed = Some((image, head));
            }
            let first = step * PAIR;
            self.attend(image, head, first..queries.min(first + PAIR));
            let (first_row, count) = match queries {
                1 if shape.tokens > 1 => (image, 1),
                _ => (image * shape.tokens + first, (queries - first).min(PAIR)),
            };
            self.finish(head, first_row, count, queries == 1 && shape.tokens > 1);
        }
    }

    /// Keys, transposed, and values of a head as panels.
    fn pack(&self, image: usize, head: usize) {
        let shape = self.shape;
        let row = shape.head_depth * BLOCK;
        let keys = self.buffers.head(shape, 1, image, head);
        let blocks = shape.tokens.div_ceil(BLOCK);
        for block in 0..blocks {
            let (panel, inside) = (block / self.kernel.panel, block % self.kernel.panel);
            let width = self.panel_width(panel, blocks);
            let to = panel * self.kernel.panel * BLOCK * row + inside * BLOCK;
            for tile in 0..shape.head_depth {
                let from = keys.wrapping_add(block * BLOCK * row + tile * BLOCK);
                let to = self.own.keys.wrapping_add(to + tile * BLOCK * width);
                // SAFETY: 16 keys of the head (some beyond the last, in its room), to this
                // thread's panel.
                unsafe { (self.kernel.transpose)(from, row, to, width) };
            }
        }
        let work = PackValues {
            from: self.buffers.head(shape, 2, image, head),
            stride: row,
            keys: shape.tokens,
            lanes: self.value_lanes(),
            blocks: self.head_blocks(),
            panel: self.kernel.panel,
            to: self.own.values,
        };
        // SAFETY: the values of a head, to this thread's panels.
        unsafe { (self.kernel.pack_values)(&work) };
    }

    /// Lanes of a panel of keys, of which there are `blocks` blocks in all.
    fn panel_width(&self, panel: usize, blocks: usize) -> usize {
        (blocks - panel * self.kernel.panel).min(self.kernel.panel) * BLOCK
    }

    fn head_blocks(&self) -> usize {
        self.shape.width / self.shape.heads / BLOCK
    }

    /// Rows of a panel of values.
    fn value_lanes(&self) -> usize {
        self.shape.tokens.div_ceil(BLOCK * self.kernel.per_lane) * BLOCK
    }

    /// Sums of weighted values for some queries, not yet divided by the sums of weights.
    fn attend(&self, image: usize, head: usize, queries: Range<usize>) {
        let own = self.own;
        // SAFETY: this thread's own, one value a query.
        unsafe {
            std::slice::from_raw_parts_mut(own.largest, PAIR).fill(-1e30);
            std::slice::from_raw_parts_mut(own.total, PAIR).fill(0.0);
        }
        let tokens = self.shape.tokens;
        // Whole panels of keys, and whole tiles of values.
        let step = KEYS / (self.kernel.panel * BLOCK) * self.kernel.panel * BLOCK;
        for first in (0..tokens).step_by(step) {
            let keys = first..tokens.min(first + step);
            self.scores(image, head, &queries, &keys);
            self.weigh(queries.len(), &keys);
            self.mix(queries.len(), &keys);
        }
    }

    fn scores(&self, image: usize, head: usize, queries: &Range<usize>, keys: &Range<usize>) {
        let shape = self.shape;
        let row = shape.head_depth * BLOCK;
        let all_blocks = shape.tokens.div_ceil(BLOCK);
        let tiles = keys.len().div_ceil(BLOCK);
        let a = self.buffers.head(shape, 0, image, head).wrapping_add(queries.start * row);
        let mut block = 0;
        while block < tiles {
            let panel = (keys.start / BLOCK + block) / self.kernel.panel;
            let width = self.panel_width(panel, all_blocks);
            let product = Product {
                a,
                a_tile_row: BLOCK * row,
                rows: queries.len(),
                b: self.own.keys.wrapping_add(panel * self.kernel.panel * BLOCK * row),
                b_stride: width,
                depth: shape.head_depth,
                blocks: width / BLOCK,
                out: self.own.scores.wrapping_add(block * TILE),
                out_row: BLOCK,
                out_tile_row: tiles * TILE,
                out_block: TILE,
                accumulate: false,
                scales: Scales::NONE,
            };
            // SAFETY: queries that no thread writes now, and this thread's own buffers.
            unsafe { (self.kernel.multiply)(&product) };
            block += width / BLOCK;
        }
    }

    fn weigh(&self, queries: usize, keys: &Range<usize>) {
        let own = self.own;
        let work = Softmax {
            scores: own.scores,
            scores_tile_row: keys.len().div_ceil(BLOCK) * TILE,
            rows: queries,
            keys: keys.len(),
            to: own.weights,
            to_tile_row: self.key_depth(keys) * TILE,
            largest: own.largest,
            sum: own.total,
            correction: own.correction,
        };
        // SAFETY: this thread's own buffers.
        unsafe { (self.kernel.softmax)(&work) };
    }

    /// Tiles of weights along the keys.
    fn key_depth(&self, keys: &Range<usize>) -> usize {
        keys.len().div_ceil(BLOCK * self.kernel.per_lane)
    }

    fn mix(&self, queries: usize, keys: &Range<usize>) {
        let own = self.own;
        let width = self.head_blocks() * BLOCK;
        if keys.start > 0 {
            // SAFETY: this thread's own buffers.
            unsafe { (self.kernel.rescale)(own.mixed, width, queries, width, own.correction) };
        }
        let depth = self.key_depth(keys);
        for first in (0..self.head_blocks()).step_by(self.kernel.panel) {
            let blocks = (self.head_blocks() - first).min(self.kernel.panel);
            let start = first * BLOCK * self.value_lanes();
            let lane = keys.start / self.kernel.per_lane;
            let product = Product {
                a: own.weights,
                a_tile_row: depth * TILE,
                rows: queries,
                b: own.values.wrapping_add(start + lane * blocks * BLOCK),
                b_stride: blocks * BLOCK,
                depth,
                blocks,
                out: own.mixed.wrapping_add(first * BLOCK),
                out_row: width,
                out_tile_row: BLOCK * width,
                out_block: BLOCK,
                accumulate: keys.start > 0,
                scales: Scales::NONE,
            };
            // SAFETY: this thread's own buffers.
            unsafe { (self.kernel.multiply)(&product) };
        }
    }

    /// Divides by the sums of weights, to the tiles that the projection reads: rows of the batch
    /// by parts, or (`together`) one after the other.
    fn finish(&self, head: usize, first_row: usize, count: usize, together: bool) {
        let (shape, own) = (self.shape, self.own);
        let width = self.head_blocks() * BLOCK;
        let mut done = 0;
        while done < count {
            let row = first_row + done;
            let (part, local, left) = match together {
                true => (0, row, count),
                false => {
                    let part = shape.part_of(row);
                    let rows = shape.part(part);
                    (part, row - rows.start, rows.end - row)
                }
            };
            let rows = left.min(count - done);
            let sums = Sums {
                from: own.mixed.wrapping_add(done * width),
                stride: width,
                rows,
                blocks: self.head_blocks(),
                bias: own.total.wrapping_add(done),
            };
            let tiles = Tiles {
                to: self.buffers.mixed(part),
                tile_row: shape.depth * TILE,
                column: head * width,
            };
            // SAFETY: rows and a head's columns that only this thread writes.
            unsafe { (self.kernel.finish)(&sums, &tiles, local) };
            done += rows;
        }
    }
}
