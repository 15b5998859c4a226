//! Weights as the kernels read them, made once when a model is loaded.
#![expect(unsafe_code, reason = "the kernels take pointers")]

use rayon::prelude::*;

use super::isa::Kernel;
use super::simd::BLOCK;

/// Lanes of a tile.
pub(crate) const TILE: usize = BLOCK * BLOCK;

/// Lanes of 32 bits that start at a cache line, zero at first.
#[derive(Default)]
pub(crate) struct Lanes(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

impl Lanes {
    /// At least `count` of them.
    pub(crate) fn new(count: usize) -> Self {
        Self(vec![Line([0.0; BLOCK]); count.div_ceil(BLOCK)])
    }

    /// Makes room for `count` lanes; what they hold is then unspecified, but has been written.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.0.len() * BLOCK < count {
            *self = Self::new(count);
        }
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// The right factor of a product, as panels of the kernel's width, and what is added to it.
pub(crate) struct Matrix {
    lanes: Lanes,
    /// One value a column.
    bias: Vec<f32>,
    /// Tiles along the inner axis.
    depth: usize,
    /// Column blocks of 16 in all, and to a panel.
    blocks: usize,
    panel: usize,
}

/// One panel of a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) lanes: *const f32,
    /// Column blocks in it.
    pub(crate) blocks: usize,
    pub(crate) first_column: usize,
    pub(crate) bias: *const f32,
}

impl Matrix {
    /// Packs `columns` (a multiple of 16) rows of `inner` values each, which `row` hands out: the
    /// published (out, in) order. A panel is `panel` column blocks wide.
    pub(crate) fn pack<'a>(
        kernel: &Kernel,
        panel: usize,
        inner: usize,
        bias: Vec<f32>,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Self {
        let columns = bias.len();
        debug_assert_eq!(columns % BLOCK, 0);
        let depth = inner.div_ceil(BLOCK * kernel.per_lane);
        let padded = depth * BLOCK * kernel.per_lane;
        let (blocks, height) = (columns / BLOCK, depth * BLOCK);
        let mut lanes = Lanes::new(columns * height);
        let panel_lines = panel * height;
        lanes.0.par_chunks_mut(panel_lines).enumerate().for_each(|(index, lines)| {
            let count = (blocks - index * panel).min(panel);
            let mut values = vec![0f32; padded];
            let mut tiles = Lanes::new(depth * TILE);
            let tiles = tiles.as_mut_ptr();
            let to = lines.as_mut_ptr().cast::<f32>();
            for block in 0..count {
                for r in 0..BLOCK {
                    let source = row((index * panel + block) * BLOCK + r);
                    values[..inner].copy_from_slice(&source[..inner]);
                    // SAFETY: `values` holds `padded` values, which fill a row of the tiles.
                    unsafe { (kernel.convert)(values.as_ptr(), padded, tiles.add(r * BLOCK)) };
                }
                for tile in 0..depth {
                    // SAFETY: a tile is 16 rows of 16 lanes; the panel has `height` rows of
                    // `count` blocks.
                    unsafe {
                        let to = to.add(tile * BLOCK * count * BLOCK + block * BLOCK);
                        (kernel.transpose)(tiles.add(tile * TILE), BLOCK, to, count * BLOCK);
                    }
                }
            }
        });
        Self { lanes, bias, depth, blocks, panel }
    }

    /// Tiles along the inner axis.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn panels(&self) -> usize {
        self.blocks.div_ceil(self.panel)
    }

    /// Panel `index` of [`panels`](Self::panels).
    pub(crate) fn panel(&self, index: usize) -> Panel {
        let first = index * self.panel;
        assert!(first < self.blocks, "panel {index} of {}", self.panels());
        Panel {
            lanes: self.lanes.as_ptr().wrapping_add(first * BLOCK * self.depth * BLOCK),
            blocks: (self.blocks - first).min(self.panel),
            first_column: first * BLOCK,
            bias: self.bias[first * BLOCK..].as_ptr(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.bytes() + size_of_val(self.bias.as_slice())
    }
}
