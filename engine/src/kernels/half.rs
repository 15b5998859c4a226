//! Products with vectors kept in half precision.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "calling a copy needs proof that the processor has its instructions"
    )
)]

use half::f16;

/// Sum of products of an f32 vector with one of half precision, given as its bits; the shorter one counts. The same bits
/// as [`dot`](super::dot) of the widened vector, on every machine.
pub fn dot_f16(a: &[f32], b: &[u16]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has these instructions.
        return unsafe { x86::dot(a, b) };
    }
    plain(a, b)
}

fn plain(a: &[f32], b: &[u16]) -> f32 {
    let mut lanes = [0f32; 32];
    let (a, a_rest) = a.as_chunks::<32>();
    let (b, b_rest) = b.as_chunks::<32>();
    for (a, b) in a.iter().zip(b) {
        accumulate(&mut lanes, a, b);
    }
    accumulate(&mut lanes, a_rest, b_rest);
    lanes.into_iter().sum()
}

fn accumulate(lanes: &mut [f32], a: &[f32], b: &[u16]) {
    for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
        *lane += a * f16::from_bits(*b).to_f32();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_mul_ps,
        _mm256_setzero_ps, _mm256_storeu_ps,
    };

    /// Products and sums apart, in 32 lanes, as `plain` has them.
    #[target_feature(enable = "avx,f16c")]
    pub(super) fn dot(a: &[f32], b: &[u16]) -> f32 {
        let (a, a_rest) = a.as_chunks::<32>();
        let (b, b_rest) = b.as_chunks::<32>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (a, b) in a.iter().zip(b) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: eight values each, at most 32 in all, of arrays of 32.
                let (a, b) = unsafe {
                    let b = _mm_loadu_si128(b.as_ptr().add(8 * i).cast::<__m128i>());
                    (_mm256_loadu_ps(a.as_ptr().add(8 * i)), b)
                };
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(a, _mm256_cvtph_ps(b)));
            }
        }
        let mut lanes = [0f32; 32];
        for (lanes, sum) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            // SAFETY: eight values into an array of eight.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
        }
        super::accumulate(&mut lanes, a_rest, b_rest);
        lanes.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_bits_of_the_product_with_the_widened_vector() {
        for len in [0, 1, 7, 31, 32, 33, 64, 192, 384, 391, 1536] {
            let a: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 83.0).collect();
            let b: Vec<f16> =
                (0..len).map(|i| f16::from_f32(((i * 53 % 97) as f32 - 48.0) / 61.0)).collect();
            let bits: Vec<u16> = b.iter().map(|value| value.to_bits()).collect();
            let wide: Vec<f32> = b.iter().map(|value| value.to_f32()).collect();
            let expected = crate::kernels::dot(&a, &wide).to_bits();
            assert_eq!(dot_f16(&a, &bits).to_bits(), expected, "{len}");
            assert_eq!(plain(&a, &bits).to_bits(), expected, "{len}");
        }
        // The shorter one counts, and odd bit patterns are numbers like any other.
        assert_eq!(dot_f16(&[1.0, 2.0], &[0x3C00]), 1.0);
        assert_eq!(dot_f16(&[1.0], &[1]), f16::from_bits(1).to_f32());
    }
}
