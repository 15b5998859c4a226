//! Vectors of plain arrays: any machine, and what the others are tested against.

use half::bf16;

use super::Simd;

const LANES: usize = 8;

/// Plain loops, which compilers may turn into whatever vectors the machine has.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Portable;

fn map(a: [f32; LANES], op: impl Fn(f32) -> f32) -> [f32; LANES] {
    a.map(op)
}

fn zip(a: [f32; LANES], b: [f32; LANES], op: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| op(a[i], b[i]))
}

impl Simd for Portable {
    const LANES: usize = LANES;
    type V = [f32; LANES];

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self::V>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 rounds without a branch.
        map(x, |x| (x + 12_582_912.0) - 12_582_912.0)
    }

    #[inline(always)]
    unsafe fn scale2(x: Self::V, n: Self::V) -> Self::V {
        zip(x, n, |x, n| x * f32::from_bits(((n as i32).wrapping_add(127) << 23) as u32))
    }

    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        x.into_iter().sum()
    }

    #[inline(always)]
    unsafe fn largest(x: Self::V) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        std::array::from_fn(|i| sum[i] + low(a[i]) * low(b[i]) + high(a[i]) * high(b[i]))
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, x: Self::V) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the caller's `LANES` halfwords.
            unsafe { *to.add(i) = bf16::from_f32(x).to_bits() };
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::V {
        // SAFETY: the caller's `LANES` halfwords.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half) << 16))
    }

    #[inline(always)]
    unsafe fn dot_quads(sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| {
            let bytes = a[i].to_bits().to_le_bytes().into_iter().zip(b[i].to_bits().to_le_bytes());
            let dot = bytes.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>();
            let sum = sum[i].to_bits().cast_signed().wrapping_add(dot);
            f32::from_bits(sum.cast_unsigned())
        })
    }

    #[inline(always)]
    unsafe fn to_float(x: Self::V) -> Self::V {
        map(x, |x| x.to_bits().cast_signed() as f32)
    }

    #[inline(always)]
    unsafe fn store_u8(to: *mut u8, x: Self::V) {
        // SAFETY: the caller's `LANES` bytes; rounding is any machine's arithmetic.
        unsafe {
            let bytes = Self::round(x).map(|x| x as i32 as u8);
            to.cast::<[u8; LANES]>().write_unaligned(bytes);
        }
    }
}
