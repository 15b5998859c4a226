//! Products of vectors kept as bytes.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "calling a copy needs proof that the processor has its instructions"
    )
)]

/// Sum of products of two vectors of bytes (the shorter one counts), exact for up to 131,000 values.
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::dot_512(a, b) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::dot_256(a, b) };
        }
    }
    plain(a, b)
}

fn plain(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_setzero_si256, _mm256_storeu_si256,
        _mm512_add_epi32, _mm512_cvtepi8_epi16, _mm512_madd_epi16, _mm512_reduce_add_epi32,
        _mm512_setzero_si512,
    };

    // Both vectors are of the same length.

    /// Widened to 16 bits, multiplied, and added in pairs: no step can overflow.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn dot_512(a: &[i8], b: &[i8]) -> i32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<64>(), b.as_chunks::<64>());
        let mut sums = [_mm512_setzero_si512(); 2];
        for (a, b) in a.iter().zip(b) {
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 32 bytes each, at 0 or 32 of arrays of 64.
                let (a, b) = unsafe {
                    let at = |from: &[i8; 64]| {
                        _mm256_loadu_si256(from.as_ptr().add(32 * half).cast::<__m256i>())
                    };
                    (at(a), at(b))
                };
                let product = _mm512_madd_epi16(_mm512_cvtepi8_epi16(a), _mm512_cvtepi8_epi16(b));
                *sum = _mm512_add_epi32(*sum, product);
            }
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])) + super::plain(a_rest, b_rest)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn dot_256(a: &[i8], b: &[i8]) -> i32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<64>(), b.as_chunks::<64>());
        let mut sums = [_mm256_setzero_si256(); 4];
        for (a, b) in a.iter().zip(b) {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 16 bytes each, at 0 to 48 of arrays of 64.
                let (a, b) = unsafe {
                    let at = |from: &[i8; 64]| {
                        _mm_loadu_si128(from.as_ptr().add(16 * quarter).cast::<__m128i>())
                    };
                    (at(a), at(b))
                };
                let product = _mm256_madd_epi16(_mm256_cvtepi8_epi16(a), _mm256_cvtepi8_epi16(b));
                *sum = _mm256_add_epi32(*sum, product);
            }
        }
        let [first, second, third, fourth] = sums;
        let sum =
            _mm256_add_epi32(_mm256_add_epi32(first, second), _mm256_add_epi32(third, fourth));
        let mut lanes = [0i32; 8];
        // SAFETY: eight values into an array of eight.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
        lanes.into_iter().sum::<i32>() + super::plain(a_rest, b_rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_gives_the_same_sum() {
        let value = |i: usize, of: usize| ((i * 73 + of * 151) % 255) as u8 as i8;
        for len in [0, 1, 31, 32, 63, 64, 65, 127, 128, 384, 385, 1024] {
            let a: Vec<i8> = (0..len).map(|i| value(i, 1)).collect();
            let b: Vec<i8> = (0..len).map(|i| value(i, 2)).collect();
            let expected = plain(&a, &b);
            assert_eq!(dot_i8(&a, &b), expected, "{len}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has these instructions.
                assert_eq!(unsafe { x86::dot_256(&a, &b) }, expected, "{len}");
            }
            for other in [0, 5, 64, 200] {
                assert_eq!(dot_i8(&a, &b[..other.min(len)]), plain(&a, &b[..other.min(len)]));
            }
        }
        assert_eq!(dot_i8(&[-128; 4096], &[-128; 4096]), 4096 << 14);
    }
}
