//! Packed weights in a file: the arrays that are written, and a mapped file read in the same order.
//!
//! A file holds no lengths. They follow from the shape of the model and the kernels, and both are
//! part of what a file is found by.

use std::sync::Arc;

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

use super::super::int8::Int8;
use super::super::isa::Kernel;
use super::super::simd::BLOCK;
use super::{Columns, Line, Matrix, Panels};

/// Every array starts at a multiple of so many bytes, in a file as in memory.
pub(crate) const ALIGN: usize = size_of::<Line>();

/// What a matrix will be, before it is packed or read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Column blocks of 16 in a panel.
    pub(crate) panel: usize,
    /// Values of a row.
    pub(crate) inner: usize,
    /// A multiple of 16.
    pub(crate) columns: usize,
    /// Whether weights are bytes.
    pub(crate) bytes: bool,
}

/// A mapped file, from some byte on.
pub(crate) struct Stored {
    map: Arc<Mmap>,
    next: usize,
}

impl Stored {
    /// From byte `start`, a multiple of [`ALIGN`].
    pub(crate) fn new(map: Arc<Mmap>, start: usize) -> Self {
        Self { map, next: start }
    }

    /// The next `count` values; `None` when the file ends before.
    pub(crate) fn values<T: AnyBitPattern>(&mut self, count: usize) -> Option<Vec<T>> {
        let start = self.skip(count.checked_mul(size_of::<T>())?)?;
        let bytes = &self.map[start..start + count * size_of::<T>()];
        Some(bytemuck::try_cast_slice(bytes).ok()?.to_vec())
    }

    /// Whether all of the file has been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.next == self.map.len()
    }

    /// Steps over so many bytes, and what fills them up; says where they start.
    fn skip(&mut self, bytes: usize) -> Option<usize> {
        let start = self.next;
        let end = start.checked_add(bytes)?.checked_next_multiple_of(ALIGN)?;
        (end <= self.map.len()).then(|| {
            self.next = end;
            start
        })
    }
}

impl Matrix {
    /// The arrays that [`stored`](Self::stored) reads, in its order.
    pub(crate) fn arrays<'a>(&'a self, to: &mut Vec<&'a [u8]>) {
        to.push(self.panels.as_bytes());
        to.push(bytemuck::cast_slice(&self.bias));
        if let Some(Columns { start, scales, factors }) = &self.bytes {
            to.extend([bytemuck::cast_slice(start), bytemuck::cast_slice(scales)]);
            to.push(bytemuck::cast_slice(factors));
        }
    }

    /// The matrix that comes next in a file; `None` when it ends before.
    pub(crate) fn stored(kernel: &Kernel, plan: Plan, from: &mut Stored) -> Option<Self> {
        let Plan { panel, inner, columns, bytes } = plan;
        let per_lane = if bytes { Int8::PER_LANE } else { kernel.per_lane };
        let depth = inner.div_ceil(BLOCK * per_lane);
        let blocks = columns / BLOCK;
        let lines = blocks.checked_mul(depth * BLOCK)?;
        let start = from.skip(lines.checked_mul(size_of::<Line>())?)?;
        let panels = Panels::Mapped { map: Arc::clone(&from.map), start, lines };
        let bias = from.values(columns)?;
        let bytes = match bytes {
            true => Some(Columns {
                start: from.values(columns)?,
                scales: from.values(columns)?,
                factors: from.values(inner)?,
            }),
            false => None,
        };
        Some(Self { panels, bias, depth, blocks, panel, bytes })
    }
}
