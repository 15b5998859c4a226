//! Weights as the kernels read them, made once when a model is loaded.
#![expect(unsafe_code, reason = "the kernels take pointers")]

mod stored;

use std::mem::MaybeUninit;
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;

pub(crate) use self::stored::{ALIGN, Plan, Stored};

use super::block::Scales;
use super::int8::{self, Int8};
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

/// Where panels are.
enum Panels {
    /// Packed by this process.
    Made(Lanes),
    /// In a mapped file, from byte `start` on, which a line starts at.
    Mapped { map: Arc<Mmap>, start: usize, lines: usize },
}

impl Panels {
    fn as_ptr(&self) -> *const f32 {
        match self {
            Self::Made(lanes) => lanes.as_ptr(),
            Self::Mapped { map, start, .. } => map.as_ptr().wrapping_add(*start).cast(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Made(lanes) => {
                // SAFETY: lines hold nothing but numbers, without gaps.
                unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.bytes()) }
            }
            Self::Mapped { map, start, lines } => &map[*start..start + lines * size_of::<Line>()],
        }
    }
}

/// The right factor of a product, as panels of the kernel's width, and what is added to it.
pub(crate) struct Matrix {
    panels: Panels,
    /// One value a column.
    bias: Vec<f32>,
    /// Tiles along the inner axis.
    depth: usize,
    /// Column blocks of 16 in all, and to a panel.
    blocks: usize,
    panel: usize,
    /// Where the lanes hold bytes.
    bytes: Option<Columns>,
}

/// What turns sums of products of bytes into numbers, for each column.
struct Columns {
    start: Vec<i32>,
    scales: Vec<f32>,
    /// What normed rows are multiplied with before they are stored, one for each of their values.
    factors: Vec<f32>,
}

/// How rows that are to be multiplied are stored as bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Left<'a> {
    /// Normed, and each value times a [factor](Matrix::factors); with 128 added. Holds the largest
    /// size of each value that was seen, or nothing.
    Normed(&'a [f32]),
    /// With 128 added.
    Signed,
    /// As what they are above the least value of GELU.
    Gelu,
}

/// One panel of a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) lanes: *const f32,
    /// Column blocks in it.
    pub(crate) blocks: usize,
    pub(crate) first_column: usize,
    pub(crate) bias: *const f32,
    /// Without those of the rows.
    pub(crate) scales: Scales,
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
        let blocks = columns / BLOCK;
        let lanes = panels(kernel, panel, blocks, depth, &|column, to| {
            let values = &row(column)[..inner];
            let mut longer = Vec::new();
            if inner < padded {
                longer = values.to_vec();
                longer.resize(padded, 0.0);
            }
            let values = if inner < padded { &longer } else { values };
            // SAFETY: `padded` values, which fill a row of the tiles.
            unsafe { (kernel.convert)(values.as_ptr(), padded, to) };
        });
        Self { panels: Panels::Made(lanes), bias, depth, blocks, panel, bytes: None }
    }

    /// [`pack`](Self::pack) as bytes, each column with a scale that its largest weight reaches 127
    /// with.
    pub(crate) fn pack_bytes<'a>(
        kernel: &Kernel,
        panel: usize,
        inner: usize,
        mut bias: Vec<f32>,
        left: Left<'_>,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Self {
        const TILE_VALUES: usize = BLOCK * Int8::PER_LANE;
        debug_assert_eq!(bias.len() % BLOCK, 0);
        let (depth, blocks) = (inner.div_ceil(TILE_VALUES), bias.len() / BLOCK);
        let padded = depth * TILE_VALUES;
        let mut bytes = vec![0i8; bias.len() * padded];
        let factors = match left {
            Left::Normed(seen) => {
                channel_factors(inner, bias.len(), &|column| &row(column)[..inner], seen)
            }
            Left::Signed | Left::Gelu => vec![1.0; inner],
        };
        let quantise = |(column, bytes): (usize, &mut [i8])| {
            quantised(&divided(&row(column)[..inner], &factors), bytes)
        };
        let columns = bytes.par_chunks_mut(padded).enumerate().map(quantise);
        let (scales, sums): (Vec<f32>, Vec<i32>) = columns.unzip();
        let start = match left {
            Left::Normed(_) | Left::Signed => sums.iter().map(|sum| -128 * sum).collect(),
            Left::Gelu => {
                for ((bias, sum), scale) in bias.iter_mut().zip(&sums).zip(&scales) {
                    *bias +=
                        (f64::from(int8::GELU_LEAST) * f64::from(*sum) * f64::from(*scale)) as f32;
                }
                vec![0; sums.len()]
            }
        };
        let lanes = panels(kernel, panel, blocks, depth, &|column, to| {
            let column = &bytes[column * padded..][..padded];
            for (tile, bytes) in column.chunks_exact(TILE_VALUES).enumerate() {
                let to = to.wrapping_add(tile * TILE).cast::<i8>();
                // SAFETY: a row of a tile holds 64 bytes.
                unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), TILE_VALUES) };
            }
        });
        let bytes = Some(Columns { start, scales, factors });
        Self { panels: Panels::Made(lanes), bias, depth, blocks, panel, bytes }
    }

    /// Whether the left factor is to be of bytes.
    pub(crate) fn takes_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    /// What normed rows are multiplied with before they are stored as bytes, one for each of their
    /// values; its weights have been divided by it.
    pub(crate) fn factors(&self) -> &[f32] {
        self.bytes.as_ref().map_or(&[], |columns| &columns.factors)
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
            lanes: self.panels.as_ptr().wrapping_add(first * BLOCK * self.depth * BLOCK),
            blocks: (self.blocks - first).min(self.panel),
            first_column: first * BLOCK,
            bias: self.bias[first * BLOCK..].as_ptr(),
            scales: self.bytes.as_ref().map_or(Scales::NONE, |columns| Scales {
                start: columns.start[first * BLOCK..].as_ptr().cast(),
                columns: columns.scales[first * BLOCK..].as_ptr(),
                ..Scales::NONE
            }),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let columns = self.bytes.as_ref().map_or(0, |columns| {
            2 * size_of_val(&columns.scales[..]) + size_of_val(&columns.factors[..])
        });
        self.panels.as_bytes().len() + size_of_val(self.bias.as_slice()) + columns
    }
}

/// How the steps of bytes are shared between normed rows and weights, so that a channel which is
/// large for all pictures no longer decides the scale of every row (SmoothQuant, arXiv 2211.10438):
/// a channel of rows is multiplied with w^(3/8) / x^(5/8), w its largest weight and x its largest size
/// that was `seen`. Factors have four binary digits, so that they are the same where what was seen
/// differs in the last one.
fn channel_factors<'a>(
    inner: usize,
    columns: usize,
    row: &dyn Fn(usize) -> &'a [f32],
    seen: &[f32],
) -> Vec<f32> {
    let mut largest = vec![0f32; inner];
    for column in 0..columns {
        for (largest, weight) in largest.iter_mut().zip(row(column)) {
            *largest = largest.max(weight.abs());
        }
    }
    let most = largest.iter().fold(0f32, |most, largest| most.max(*largest));
    // Channels that are not used at all still need a number to divide by.
    let least = if most > 0.0 { most * 1e-6 } else { 1.0 };
    let eighth = |x: f32| x.sqrt().sqrt().sqrt();
    let factor = |(channel, largest): (usize, f32)| {
        let seen = seen.get(channel).copied().filter(|seen| seen.is_finite()).unwrap_or(1.0);
        let weight = eighth(largest.max(least)).powi(3);
        coarse(weight / eighth(seen.max(LEAST_SEEN)).powi(5))
    };
    largest.into_iter().enumerate().map(factor).collect()
}

/// A normed value that no picture makes larger than this may yet be.
const LEAST_SEEN: f32 = 0.25;

/// To the nearest number with four binary digits.
fn coarse(x: f32) -> f32 {
    const DROPPED: u32 = 20;
    f32::from_bits((x.to_bits() + (1 << (DROPPED - 1))) >> DROPPED << DROPPED)
}

/// Weights for rows that are multiplied with these factors.
pub(super) fn divided(weights: &[f32], factors: &[f32]) -> Vec<f32> {
    weights.iter().zip(factors).map(|(weight, factor)| weight / factor).collect()
}

/// Weights to bytes, and what one step of them is worth and their sum.
pub(super) fn quantised(weights: &[f32], bytes: &mut [i8]) -> (f32, i32) {
    // Adding and taking away 1.5 * 2^23 rounds without a branch.
    const ROUND: f32 = 12_582_912.0;
    let largest = weights.iter().fold(0f32, |max, w| max.max(w.abs()));
    let factor = if largest > 0.0 { int8::LARGEST / largest } else { 0.0 };
    let mut sum = 0;
    for (byte, weight) in bytes.iter_mut().zip(weights) {
        let whole = ((weight * factor + ROUND) - ROUND) as i32;
        sum += whole;
        *byte = whole as i8;
    }
    (largest / int8::LARGEST, sum)
}

/// Panels of `blocks` column blocks: `fill` writes a column's values to a row of `depth` tiles,
/// which are zero at first where it leaves them.
fn panels(
    kernel: &Kernel,
    panel: usize,
    blocks: usize,
    depth: usize,
    fill: &(dyn Fn(usize, *mut f32) + Sync),
) -> Lanes {
    let height = depth * BLOCK;
    let mut lines: Box<[MaybeUninit<Line>]> = Box::new_uninit_slice(blocks * height);
    lines.par_chunks_mut(panel * height).enumerate().for_each(|(index, lines)| {
        let count = (blocks - index * panel).min(panel);
        let mut tiles = Lanes::new(depth * TILE);
        let tiles = tiles.as_mut_ptr();
        let to = lines.as_mut_ptr().cast::<f32>();
        for block in 0..count {
            for r in 0..BLOCK {
                fill((index * panel + block) * BLOCK + r, tiles.wrapping_add(r * BLOCK));
            }
            for tile in 0..depth {
                // SAFETY: a tile is 16 rows of 16 lanes; the panel has `height` rows of `count`
                // blocks.
                unsafe {
                    let to = to.add(tile * BLOCK * count * BLOCK + block * BLOCK);
                    (kernel.transpose)(tiles.add(tile * TILE), BLOCK, to, count * BLOCK);
                }
            }
        }
    });
    // SAFETY: the transpositions wrote every column block of every row of every panel.
    Lanes(unsafe { lines.assume_init() }.into_vec())
}
