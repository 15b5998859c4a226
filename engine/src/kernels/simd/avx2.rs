//! Vectors of eight lanes, with AVX2 and FMA.
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is an instruction the trait's callers have")]

use std::arch::x86_64::*;

use super::{BLOCK, Simd};

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2;

/// The same with AVX-VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2Vnni;

pub(in crate::kernels) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

pub(in crate::kernels) fn has_vnni() -> bool {
    is_available() && is_x86_feature_detected!("avxvnni")
}

/// What both have in common.
macro_rules! common {
    () => {
        const LANES: usize = 8;
        type V = __m256;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            _mm256_loadu_ps(from)
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, x: __m256) {
            _mm256_storeu_ps(to, x);
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            _mm256_set1_ps(x)
        }

        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }

        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            _mm256_mul_ps(a, b)
        }

        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            _mm256_div_ps(a, b)
        }

        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(a, b)
        }

        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            _mm256_min_ps(a, b)
        }

        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, c)
        }

        #[inline(always)]
        unsafe fn round(x: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }

        #[inline(always)]
        unsafe fn scale2(x: __m256, n: __m256) -> __m256 {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }

        #[inline(always)]
        unsafe fn sum(x: __m256) -> f32 {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }

        #[inline(always)]
        unsafe fn largest(x: __m256) -> f32 {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }

        #[inline(always)]
        unsafe fn dot_pairs(sum: __m256, a: __m256, b: __m256) -> __m256 {
            let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x)));
            let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            let high = |x| _mm256_and_ps(x, mask);
            _mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), sum))
        }

        #[inline(always)]
        unsafe fn store_bf16(to: *mut u16, x: __m256) {
            let bits = _mm256_castps_si256(x);
            // Half a unit of the last place kept, less one when that place is even: ties go to even.
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
            let packed = _mm256_packus_epi32(rounded, rounded);
            let packed = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            for row in (0..BLOCK).step_by(8) {
                for column in (0..BLOCK).step_by(8) {
                    let source = from.add(row * from_stride + column);
                    let target = to.add(column * to_stride + row);
                    transpose_eight(source, from_stride, target, to_stride);
                }
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> __m256 {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }

        #[inline(always)]
        unsafe fn to_float(x: __m256) -> __m256 {
            _mm256_cvtepi32_ps(_mm256_castps_si256(x))
        }

        #[inline(always)]
        unsafe fn store_u8(to: *mut u8, x: __m256) {
            let whole = _mm256_cvtps_epi32(x);
            let low = _mm256_castsi256_si128(whole);
            let words = _mm_packus_epi32(low, _mm256_extracti128_si256::<1>(whole));
            _mm_storeu_si64(to.cast(), _mm_packus_epi16(words, words));
        }
    };
}

impl Simd for Avx2 {
    common!();

    #[inline(always)]
    unsafe fn dot_quads(sum: __m256, a: __m256, b: __m256) -> __m256 {
        // Even and odd bytes as words, whose products are summed in 32 bits. The instruction that
        // takes bytes sums in 16 and cuts off what does not fit.
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        let a_even = _mm256_and_si256(a, _mm256_set1_epi16(0xff));
        let b_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
        let even = _mm256_madd_epi16(a_even, b_even);
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
        let sum = _mm256_add_epi32(_mm256_castps_si256(sum), even);
        _mm256_castsi256_ps(_mm256_add_epi32(sum, odd))
    }
}

impl Simd for Avx2Vnni {
    common!();

    #[inline(always)]
    unsafe fn dot_quads(sum: __m256, a: __m256, b: __m256) -> __m256 {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(_mm256_castps_si256(sum), a, b))
    }
}

#[inline(always)]
unsafe fn transpose_eight(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    let mut rows = [_mm256_setzero_ps(); 8];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = _mm256_loadu_ps(from.add(i * from_stride));
    }
    let mut pairs = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..2 {
        let at = 4 * i;
        rows[at] = _mm256_shuffle_ps::<0b0100_0100>(pairs[at], pairs[at + 2]);
        rows[at + 1] = _mm256_shuffle_ps::<0b1110_1110>(pairs[at], pairs[at + 2]);
        rows[at + 2] = _mm256_shuffle_ps::<0b0100_0100>(pairs[at + 1], pairs[at + 3]);
        rows[at + 3] = _mm256_shuffle_ps::<0b1110_1110>(pairs[at + 1], pairs[at + 3]);
    }
    for i in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(rows[i], rows[i + 4]);
        let high = _mm256_permute2f128_ps::<0x31>(rows[i], rows[i + 4]);
        _mm256_storeu_ps(to.add(i * to_stride), low);
        _mm256_storeu_ps(to.add((i + 4) * to_stride), high);
    }
}
