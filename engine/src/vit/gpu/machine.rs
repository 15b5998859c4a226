//! What the forward pass asks of a device. There are two answers: CUDA, and plain loops in tests, which
//! show on any machine that the pass around them is right.

use super::folded::Dense;

/// Why a device did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its memory does not suffice; less at a time may.
    OutOfMemory,
    /// This cannot be done, in words; the device is as good as before.
    Refused(String),
    /// The device has failed, in words, and is of no more use.
    Broken(String),
}

/// What is done to a product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    None,
    Gelu,
}

/// The packed queries, keys and values of a batch, (B, N, 3, H, D).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) batch: usize,
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) width: usize,
}

/// Rows of the residual stream: every `step`-th one, `count` in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    pub(crate) step: usize,
}

/// Side and number of square pictures on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pictures {
    pub(crate) batch: usize,
    /// Pixels, a multiple of 14.
    pub(crate) side: usize,
}

/// Places for pictures on the device: one is filled while the other is read.
pub(crate) const SLOTS: usize = 2;

/// A device and its memory. Work is queued in the order of the calls; only [`download`](Self::download)
/// waits for it. Buffers may be longer than what a call reads or writes.
pub(crate) trait Machine {
    /// Values in the precision that is multiplied.
    type Narrow;
    /// f32 values: the residual stream, and what leaves the device.
    type Wide;
    /// A weight that stays on the device, with its bias.
    type Matrix;

    fn matrix(&mut self, from: &Dense) -> Result<Self::Matrix, Fault>;
    fn upload(&mut self, values: &[f32]) -> Result<Self::Wide, Fault>;
    fn narrow(&mut self, values: usize) -> Result<Self::Narrow, Fault>;
    fn wide(&mut self, values: usize) -> Result<Self::Wide, Fault>;

    /// Copies pictures, RGB8 of one size, to a slot; returns before they have arrived.
    fn stage(&mut self, slot: usize, pictures: &[&[u8]]) -> Result<(), Fault>;
    /// What follows waits for the pictures of a slot.
    fn await_slot(&mut self, slot: usize) -> Result<(), Fault>;
    /// The slot may be filled again once what was queued so far is done.
    fn free_slot(&mut self, slot: usize) -> Result<(), Fault>;

    /// Normalised patches of a slot's pictures: (B * N, [`PATCH_ROW`](super::plan::PATCH_ROW)), values in the order
    /// channel, row, column, then zeros.
    fn patches(
        &mut self,
        slot: usize,
        pictures: Pictures,
        out: &mut Self::Narrow,
    ) -> Result<(), Fault>;
    /// Prefix rows, then patch rows plus positions, for each picture: (B, prefix + N, C).
    fn tokens(
        &mut self,
        patches: &Self::Wide,
        prefix: &Self::Wide,
        positions: &Self::Wide,
        shape: TokenShape,
        out: &mut Self::Wide,
    ) -> Result<(), Fault>;
    /// `act(x W^T + b)`, (rows, outputs).
    fn product(
        &mut self,
        x: &Self::Narrow,
        rows: usize,
        by: &Self::Matrix,
        act: Activation,
        out: &mut Self::Narrow,
    ) -> Result<(), Fault>;
    /// `x W^T + b` in f32, added to what `out` holds if `add` says so.
    fn product_wide(
        &mut self,
        x: &Self::Narrow,
        rows: usize,
        by: &Self::Matrix,
        add: bool,
        out: &mut Self::Wide,
    ) -> Result<(), Fault>;
    /// LayerNorm of rows, one after the other in `out`.
    fn norm(
        &mut self,
        x: &Self::Wide,
        rows: Rows,
        by: &Affine<Self::Wide>,
        out: &mut Self::Narrow,
    ) -> Result<(), Fault>;
    /// [`norm`](Self::norm) with the result in f32.
    fn norm_wide(
        &mut self,
        x: &Self::Wide,
        rows: Rows,
        by: &Affine<Self::Wide>,
        out: &mut Self::Wide,
    ) -> Result<(), Fault>;
    /// Attention of every head over all tokens of its picture: (B, N, H * D).
    fn attention(&mut self, qkv: &Self::Narrow, shape: Heads) -> Result<Self::Narrow, Fault>;
    /// `silu(a) * b` for rows that hold a, then b, `hidden` values each.
    fn swiglu(
        &mut self,
        x: &Self::Narrow,
        rows: usize,
        hidden: usize,
        out: &mut Self::Narrow,
    ) -> Result<(), Fault>;

    /// The first values of a buffer, once all work queued so far is done, appended to `out`.
    fn download(
        &mut self,
        from: &Self::Wide,
        values: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), Fault>;

    /// Bytes of a value in the precision that is multiplied.
    fn narrow_bytes(&self) -> usize;
    /// Whether attention with heads of this width keeps scores in memory, a piece at a time.
    fn in_pieces(&self, width: usize) -> bool;
    /// Bytes of memory that are free, and bytes in all.
    fn memory(&mut self) -> Result<(u64, u64), Fault>;

    /// From now on the largest magnitude that is stored in the precision of products is noted.
    fn watch(&mut self) -> Result<(), Fault>;
    /// Ends watching: the largest magnitude, infinite or not a number if one was.
    fn watched(&mut self) -> Result<f32, Fault>;

    /// Starts to record what is queued instead of doing it; `false` where the device cannot.
    fn record(&mut self) -> Result<bool, Fault>;
    /// Ends the recording and keeps it under `key`.
    fn keep(&mut self, key: Recording) -> Result<(), Fault>;
    /// Does what was recorded under `key`; `false` if nothing was.
    fn replay(&mut self, key: Recording) -> Result<bool, Fault>;
    /// Forgets all recordings: buffers they use are about to go.
    fn forget(&mut self);
}

/// What a recording was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recording {
    pub(crate) slot: usize,
    pub(crate) batch: usize,
    pub(crate) side: usize,
}

/// Shape of a batch of token rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenShape {
    pub(crate) batch: usize,
    /// Rows before the patches: CLS and registers.
    pub(crate) prefix: usize,
    pub(crate) patches: usize,
    pub(crate) dim: usize,
}

/// Gain and shift of a LayerNorm, on the device.
pub(crate) struct Affine<W> {
    pub(crate) gain: W,
    pub(crate) shift: W,
}
