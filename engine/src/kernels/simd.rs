//! Vectors of f32 on three kinds of processor: one trait, written once per instruction set, so that
//! everything above it is written once.
#![expect(unsafe_code, reason = "instructions and pointers have no safe form")]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod portable;

pub(super) use portable::Portable;

/// Lanes of 32 bits that make one row of a tile, and columns that make one column block.
pub(crate) const BLOCK: usize = 16;

/// One instruction set's vector of f32.
///
/// A lane may also hold a pair of bf16 values or four bytes, the one with the lower index in the
/// lower bits.
///
/// # Safety
/// Every method needs a processor that has the instruction set; pointers are valid for
/// [`LANES`](Self::LANES) lanes (or what the method says) and need no alignment.
pub(super) trait Simd: Copy + 'static {
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    type V: Copy;

    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(x: Self::V) -> Self::V;
    /// `x * 2^n` for whole `n` of -126..=127.
    unsafe fn scale2(x: Self::V, n: Self::V) -> Self::V;
    unsafe fn sum(x: Self::V) -> f32;
    unsafe fn largest(x: Self::V) -> f32;
    /// `sum + a.low * b.low + a.high * b.high` of bf16 pairs.
    unsafe fn dot_pairs(sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Rounds to bf16, to nearest, ties to even, and stores `LANES` halfwords.
    unsafe fn store_bf16(to: *mut u16, x: Self::V);
    /// `LANES` bf16 values.
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    /// Lanes of 32-bit whole numbers: `sum` and, exactly, the four products of an unsigned byte of
    /// `a` and a signed byte of `b`.
    unsafe fn dot_quads(sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes of 32-bit whole numbers as floats, to nearest.
    unsafe fn to_float(x: Self::V) -> Self::V;
    /// Rounds values of 0..=255 to nearest, ties to even, and stores `LANES` bytes; others (of
    /// pictures that are not finite) give any bytes.
    unsafe fn store_u8(to: *mut u8, x: Self::V);

    /// `2^x` for `x` up to 127, relative error below 2e-7; smaller than -126 gives 2^-126.
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        // Cephes exp2f: minimax on -0.5..0.5.
        const P: [f32; 5] =
            [1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1];
        // SAFETY: the caller's promise.
        unsafe {
            let x = Self::max(x, Self::splat(-126.0));
            let n = Self::round(x);
            let r = Self::sub(x, n);
            let mut p = Self::splat(1.535_336_2e-4);
            for c in P {
                p = Self::fma(p, r, Self::splat(c));
            }
            Self::scale2(Self::fma(p, r, Self::splat(1.0)), n)
        }
    }

    /// Transposes 16 x 16 lanes; rows are `from_stride` and `to_stride` lanes apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's 16 rows of 16 lanes on both sides.
        unsafe {
            for row in 0..BLOCK {
                for column in 0..BLOCK {
                    *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
                }
            }
        }
    }

    /// Sixteen pairs (`low[i]`, `high[i]`) of bf16 values.
    #[inline(always)]
    unsafe fn interleave(low: *const u16, high: *const u16, to: *mut f32) {
        // SAFETY: the caller's 16 halfwords and 16 lanes.
        unsafe {
            for i in 0..BLOCK {
                let pair = u32::from(*low.add(i)) | u32::from(*high.add(i)) << 16;
                *to.add(i) = f32::from_bits(pair);
            }
        }
    }
}

/// What a lane of a factor holds.
pub(super) trait Format: Copy + 'static {
    /// Values of the inner axis in a lane.
    const PER_LANE: usize;
    /// Whether sums are whole numbers, which are scaled when a product is finished.
    const WHOLE: bool = false;

    /// Adds the products of a lane.
    ///
    /// # Safety
    /// The processor has `S`.
    unsafe fn dot<S: Simd>(sum: S::V, a: S::V, b: S::V) -> S::V;

    /// Stores a vector of values as consecutive values of this format.
    ///
    /// # Safety
    /// The processor has `S`, and `to` is valid for `S::LANES / PER_LANE` lanes.
    unsafe fn store<S: Simd>(to: *mut f32, x: S::V);

    /// Lane offset of value `column` in a row of a matrix of tiles (see
    /// [`Kernel`](super::isa::Kernel)).
    #[inline(always)]
    fn lane_of(column: usize) -> usize {
        let lane = column / Self::PER_LANE;
        lane / BLOCK * BLOCK * BLOCK + lane % BLOCK
    }
}

/// One f32 value a lane.
#[derive(Clone, Copy)]
pub(super) struct F32;

/// Two bf16 values a lane.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

/// Four bytes a lane: without sign in the left factor, with it in the right one.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl Format for F32 {
    const PER_LANE: usize = 1;

    #[inline(always)]
    unsafe fn dot<S: Simd>(sum: S::V, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::fma(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, x: S::V) {
        // SAFETY: the caller's promise.
        unsafe { S::store(to, x) }
    }
}

impl Format for Bf16 {
    const PER_LANE: usize = 2;

    #[inline(always)]
    unsafe fn dot<S: Simd>(sum: S::V, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::dot_pairs(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, x: S::V) {
        // SAFETY: the caller's promise.
        unsafe { S::store_bf16(to.cast(), x) }
    }
}

impl Format for Bytes {
    const PER_LANE: usize = 4;
    const WHOLE: bool = true;

    #[inline(always)]
    unsafe fn dot<S: Simd>(sum: S::V, a: S::V, b: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::dot_quads(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, x: S::V) {
        // SAFETY: the caller's promise.
        unsafe { S::store_u8(to.cast(), x) }
    }
}
