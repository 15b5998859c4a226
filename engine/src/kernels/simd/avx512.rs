//! Vectors of sixteen lanes, with AVX-512; bf16 pairs by the processor's own dot product or, where
//! it has none, by shifts.
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is an instruction the trait's callers have")]

use std::arch::x86_64::*;

use super::{BLOCK, Simd};

/// AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512;

/// The same with BF16.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512Bf16;

/// The same with VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512Vnni;

pub(in crate::kernels) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("avx2")
}

pub(in crate::kernels) fn has_bf16() -> bool {
    is_available() && is_x86_feature_detected!("avx512bf16")
}

pub(in crate::kernels) fn has_vnni() -> bool {
    is_available() && is_x86_feature_detected!("avx512vnni")
}

macro_rules! common {
    () => {
        const LANES: usize = 16;
        type V = __m512;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            _mm512_loadu_ps(from)
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m512) {
            _mm512_storeu_ps(to, x);
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }

        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }

        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }

        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            _mm512_div_ps(a, b)
        }

        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }

        #[inline(always)]
        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(a, b)
        }

        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }

        #[inline(always)]
        unsafe fn round(x: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }

        #[inline(always)]
        unsafe fn scale2(x: __m512, n: __m512) -> __m512 {
            _mm512_scalef_ps(x, n)
        }

        #[inline(always)]
        unsafe fn sum(x: __m512) -> f32 {
            _mm512_reduce_add_ps(x)
        }

        #[inline(always)]
        unsafe fn largest(x: __m512) -> f32 {
            _mm512_reduce_max_ps(x)
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            transpose(from, from_stride, to, to_stride);
        }

        #[inline(always)]
        unsafe fn interleave(low: *const u16, high: *const u16, to: *mut f32) {
            let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(low.cast()));
            let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(high.cast()));
            let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
            _mm512_storeu_si512(to.cast(), pairs);
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> __m512 {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }

        #[inline(always)]
        unsafe fn to_float(x: __m512) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_castps_si512(x))
        }

        #[inline(always)]
        unsafe fn store_u8(to: *mut u8, x: __m512) {
            let whole = _mm512_cvtps_epi32(x);
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(whole));
        }
    };
}

/// bf16 for processors without instructions for it.
macro_rules! bf16_by_shifts {
    () => {
        #[inline(always)]
        unsafe fn dot_pairs(sum: __m512, a: __m512, b: __m512) -> __m512 {
            let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(x)));
            let mask = _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32));
            let high = |x| _mm512_and_ps(x, mask);
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), sum))
        }

        #[inline(always)]
        unsafe fn store_bf16(to: *mut u16, x: __m512) {
            let bits = _mm512_castps_si512(x);
            // Half a unit of the last place kept, less one when that place is even: ties go to even.
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(rounded));
        }
    };
}

/// Bytes for processors without instructions for them: even and odd ones as words, whose products
/// are summed in 32 bits.
macro_rules! bytes_by_words {
    () => {
        #[inline(always)]
        unsafe fn dot_quads(sum: __m512, a: __m512, b: __m512) -> __m512 {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let a_even = _mm512_and_si512(a, _mm512_set1_epi16(0xff));
            let b_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
            let even = _mm512_madd_epi16(a_even, b_even);
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
            let sum = _mm512_add_epi32(_mm512_castps_si512(sum), even);
            _mm512_castsi512_ps(_mm512_add_epi32(sum, odd))
        }
    };
}

impl Simd for Avx512 {
    common!();
    bf16_by_shifts!();
    bytes_by_words!();
}

impl Simd for Avx512Vnni {
    common!();
    bf16_by_shifts!();

    #[inline(always)]
    unsafe fn dot_quads(sum: __m512, a: __m512, b: __m512) -> __m512 {
        let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
        _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sum), a, b))
    }
}

impl Simd for Avx512Bf16 {
    common!();
    bytes_by_words!();

    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512, a: __m512, b: __m512) -> __m512 {
        let pairs = |x| std::mem::transmute::<__m512, __m512bh>(x);
        _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, x: __m512) {
        let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
        _mm256_storeu_si256(to.cast(), rounded);
    }
}

/// A 16 x 16 matrix of 32-bit lanes, transposed. Needs AVX-512F.
#[inline(always)]
pub(in crate::kernels) unsafe fn transposed(mut m: [__m512i; BLOCK]) -> [__m512i; BLOCK] {
    // Pairs of rows, then fours, within 128-bit lanes; then the lanes themselves.
    let mut t = [_mm512_setzero_si512(); BLOCK];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]);
    }
    for i in 0..4 {
        m[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        m[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // m[4 i + c] now holds, in lane l, column 4 l + c of rows 4 i .. 4 i + 4.
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(m[c], m[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(m[c], m[4 + c]);
        let even_low = _mm512_shuffle_i32x4::<0x88>(m[8 + c], m[12 + c]);
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(m[8 + c], m[12 + c]);
        t[c] = _mm512_shuffle_i32x4::<0x88>(even, even_low);
        t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_low);
        t[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_low);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_low);
    }
    t
}

#[inline(always)]
unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    let mut m = [_mm512_setzero_si512(); BLOCK];
    for (i, row) in m.iter_mut().enumerate() {
        *row = _mm512_loadu_si512(from.add(i * from_stride).cast());
    }
    for (i, column) in transposed(m).into_iter().enumerate() {
        _mm512_storeu_si512(to.add(i * to_stride).cast(), column);
    }
}
