//! What a pass writes on its way: buffers that are kept and used again, and their sizes.

use super::super::config::VitConfig;
use super::weights::{Kernels, Packed};
use crate::kernels::{BLOCK, Int8, Lanes, TILE};

/// Rows of tiles are made in pairs, which AMX multiplies at once.
pub(super) const PAIR: usize = 2 * BLOCK;
/// Keys that a step of attention takes: with 32 queries their scores are 48 KiB.
pub(super) const KEYS: usize = 384;
/// Bytes that the inner activations of a block of rows may take: half a level-2 cache of 1 MiB.
const HIDDEN_BYTES: usize = 512 << 10;
/// Values of a patch, filled up to whole tiles of either format.
pub(super) const PATCH_VALUES: usize = 608;
/// Bounds of rows of a block.
const BLOCK_ROWS: (usize, usize) = (64, 256);

/// Lanes from a row of the residual stream to the next: a cache line more than it holds, so that
/// rows of a power of two do not all fall into the same sets of the cache.
pub(super) fn row_stride(width: usize) -> usize {
    width.next_multiple_of(BLOCK) + BLOCK
}

/// Sizes of one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) images: usize,
    pub(super) tokens: usize,
    /// Rows in all.
    pub(super) rows: usize,
    /// Parts that the rows are cut into.
    pub(super) parts: usize,
    /// Rows of a part that are taken through a block together.
    pub(super) block_rows: usize,
    /// Tiles along the width of a token, of a head, of a hidden row, of a patch.
    pub(super) depth: usize,
    pub(super) head_depth: usize,
    pub(super) hidden_depth: usize,
    pub(super) patch_depth: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
    /// Column blocks of a panel.
    pub(super) panel: usize,
    /// Tiles of bytes along the longest row that is made into them; 0 where none is.
    pub(super) byte_depth: usize,
}

impl Shape {
    pub(super) fn new(
        config: &VitConfig,
        kernels: Kernels,
        packed: &Packed,
        images: usize,
        tokens: usize,
        parts: usize,
    ) -> Self {
        let per_lane = kernels.float.per_lane;
        let tiles = |values: usize| values.div_ceil(BLOCK * per_lane);
        let hidden_bytes = 4 * config.ffn_hidden_dim / per_lane;
        let most = config.embed_dim.max(config.ffn_hidden_dim);
        let byte_depth = kernels.int8.map(|_| most.div_ceil(BLOCK * Int8::PER_LANE));
        let rows = images * tokens;
        let block_rows = (HIDDEN_BYTES / hidden_bytes).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1);
        // Blocks of one size, rather than a small one at the end.
        let longest = rows.div_ceil(parts);
        let blocks = longest.div_ceil(block_rows / PAIR * PAIR);
        Self {
            images,
            tokens,
            rows,
            parts,
            block_rows: longest.div_ceil(blocks).next_multiple_of(PAIR),
            depth: tiles(config.embed_dim),
            head_depth: tiles(config.embed_dim / config.num_heads),
            hidden_depth: tiles(config.ffn_hidden_dim),
            patch_depth: packed.patch.depth(),
            heads: config.num_heads,
            width: config.embed_dim,
            panel: kernels.float.panel.max(kernels.panel()).max(2),
            byte_depth: byte_depth.unwrap_or(0),
        }
    }

    /// Rows of part `index`.
    pub(super) fn part(&self, index: usize) -> std::ops::Range<usize> {
        self.rows * index / self.parts..self.rows * (index + 1) / self.parts
    }

    /// Part that a row belongs to.
    pub(super) fn part_of(&self, row: usize) -> usize {
        let mut part = row * self.parts / self.rows;
        while self.part(part).end <= row {
            part += 1;
        }
        part
    }

    /// Rows of every part, filled up to whole pairs of tiles.
    pub(super) fn part_rows(&self) -> usize {
        self.rows.div_ceil(self.parts).next_multiple_of(PAIR)
    }

    pub(super) fn stride(&self) -> usize {
        row_stride(self.width)
    }

    /// Rows of an image's queries, keys and values, filled up.
    pub(super) fn padded_tokens(&self) -> usize {
        self.tokens.next_multiple_of(PAIR)
    }

    /// Lanes of one head of one image among the queries, keys or values.
    pub(super) fn head_lanes(&self) -> usize {
        self.padded_tokens() * self.head_depth * BLOCK
    }
}

/// Buffers of one pass.
#[derive(Default)]
pub(super) struct Workspace {
    /// Residual stream.
    x: Lanes,
    /// Queries, keys and values.
    qkv: Lanes,
    /// Attention's result, by parts.
    mixed: Lanes,
    /// Normed rows and hidden rows of a block, by parts.
    normed: Lanes,
    hidden: Lanes,
    /// Rows of a block as bytes, by parts.
    bytes: Lanes,
    /// Scales of rows of bytes: of a block's normed rows, then of the others; by parts.
    scales: Lanes,
    /// What each thread has to itself.
    own: Lanes,
    sizes: Sizes,
}

/// Lanes of each buffer, for a part or thread where there are several.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    mixed: usize,
    normed: usize,
    hidden: usize,
    bytes: usize,
    scales: usize,
    own: usize,
    sums: usize,
    keys: usize,
    values: usize,
    scores: usize,
    mixed_rows: usize,
}

/// Where a pass reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    x: *mut f32,
    qkv: *mut f32,
    mixed: *mut f32,
    normed: *mut f32,
    hidden: *mut f32,
    bytes: *mut f32,
    scales: *mut f32,
    own: *mut f32,
    sizes: Sizes,
}

#[expect(unsafe_code, reason = "threads share the buffers of a pass")]
// SAFETY: which thread writes what, and when, is the pass's business (`pass`).
unsafe impl Sync for Pointers {}

impl Workspace {
    /// Makes room for a pass by `threads` threads.
    pub(super) fn reserve(&mut self, shape: &Shape, threads: usize) {
        let head = shape.head_depth * BLOCK;
        let padded = shape.padded_tokens();
        let sizes = Sizes {
            mixed: shape.part_rows() * shape.depth * BLOCK,
            normed: shape.block_rows * shape.depth.max(shape.patch_depth) * BLOCK,
            hidden: shape.block_rows * shape.hidden_depth * BLOCK,
            bytes: shape.block_rows * shape.byte_depth * BLOCK,
            scales: if shape.byte_depth > 0 { shape.block_rows } else { 0 },
            sums: shape.block_rows * shape.panel * BLOCK,
            keys: padded * head,
            values: padded * head,
            scores: 2 * KEYS / BLOCK * TILE,
            mixed_rows: PAIR * 2 * head,
            own: 0,
        };
        let rest = sizes.mixed_rows + 3 * PAIR + PATCH_VALUES;
        let own = sizes.sums + sizes.keys + sizes.values + 2 * sizes.scores + rest;
        self.sizes = Sizes { own: own.next_multiple_of(BLOCK), ..sizes };
        self.x.reserve((shape.rows + shape.images) * shape.stride());
        self.qkv.reserve(3 * shape.images * shape.heads * shape.head_lanes());
        self.mixed.reserve(shape.parts * self.sizes.mixed);
        self.normed.reserve(shape.parts * self.sizes.normed);
        self.hidden.reserve(shape.parts * self.sizes.hidden);
        self.bytes.reserve(shape.parts * self.sizes.bytes);
        self.scales.reserve(2 * shape.parts * self.sizes.scales);
        self.own.reserve(threads * self.sizes.own);
    }

    pub(super) fn pointers(&mut self) -> Pointers {
        Pointers {
            x: self.x.as_mut_ptr(),
            qkv: self.qkv.as_mut_ptr(),
            mixed: self.mixed.as_mut_ptr(),
            normed: self.normed.as_mut_ptr(),
            hidden: self.hidden.as_mut_ptr(),
            bytes: self.bytes.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            own: self.own.as_mut_ptr(),
            sizes: self.sizes,
        }
    }
}

/// What one thread has to itself.
#[derive(Clone, Copy)]
pub(super) struct Own {
    /// Sums of a product before what follows it.
    pub(super) sums: *mut f32,
    /// Keys and values of a head, packed.
    pub(super) keys: *mut f32,
    pub(super) values: *mut f32,
    /// Scores of a step of attention, and the weights made from them.
    pub(super) scores: *mut f32,
    pub(super) weights: *mut f32,
    /// Sums of weighted values, (32, head width).
    pub(super) mixed: *mut f32,
    /// One value a query each.
    pub(super) largest: *mut f32,
    pub(super) total: *mut f32,
    pub(super) correction: *mut f32,
    /// Pixels of a patch.
    pub(super) patch: *mut f32,
}

impl Pointers {
    /// Row `row` of the residual stream; behind the last one there is room for one row an image.
    pub(super) fn x(&self, shape: &Shape, row: usize) -> *mut f32 {
        self.x.wrapping_add(row * shape.stride())
    }

    /// Queries (0), keys (1) or values (2) of a head of an image. Queries are tiles, the others
    /// rows.
    pub(super) fn head(&self, shape: &Shape, which: usize, image: usize, head: usize) -> *mut f32 {
        let index = (which * shape.images + image) * shape.heads + head;
        self.qkv.wrapping_add(index * shape.head_lanes())
    }

    pub(super) fn mixed(&self, part: usize) -> *mut f32 {
        self.mixed.wrapping_add(part * self.sizes.mixed)
    }

    pub(super) fn normed(&self, part: usize) -> *mut f32 {
        self.normed.wrapping_add(part * self.sizes.normed)
    }

    pub(super) fn hidden(&self, part: usize) -> *mut f32 {
        self.hidden.wrapping_add(part * self.sizes.hidden)
    }

    /// Rows of a block as bytes.
    pub(super) fn bytes(&self, part: usize) -> *mut f32 {
        self.bytes.wrapping_add(part * self.sizes.bytes)
    }

    /// Scales of the normed rows of a block (0) or of its [`bytes`](Self::bytes) (1).
    pub(super) fn scales(&self, part: usize, which: usize) -> *mut f32 {
        self.scales.wrapping_add((2 * part + which) * self.sizes.scales)
    }

    pub(super) fn own(&self, thread: usize) -> Own {
        let mut next = self.own.wrapping_add(thread * self.sizes.own);
        let mut take = |lanes: usize| {
            let taken = next;
            next = next.wrapping_add(lanes);
            taken
        };
        let Sizes { sums, keys, values, scores, mixed_rows, .. } = self.sizes;
        Own {
            sums: take(sums),
            keys: take(keys),
            values: take(values),
            scores: take(scores),
            weights: take(scores),
            mixed: take(mixed_rows),
            largest: take(PAIR),
            total: take(PAIR),
            correction: take(PAIR),
            patch: take(PATCH_VALUES),
        }
    }
}
