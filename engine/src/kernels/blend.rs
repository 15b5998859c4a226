//! Weighted sums of bytes in fixed point: what resampling is made of. Compiled for AVX-512, for
//! AVX2 and for any machine, chosen at run time; whole numbers, so all copies give the same bytes.
#![expect(
    unsafe_code,
    reason = "calling a copy needs proof that the processor has its instructions"
)]

/// Fraction bits of a weight: 32 bits less 8 for the sample and 2 for sign and overshoot.
pub(crate) const FRACTION_BITS: u32 = 32 - 8 - 2;
/// Where a machine multiplies 16 bits only, a weight is `(high << SPLIT_BITS) + low`.
const SPLIT_BITS: u32 = 11;

/// One output: the samples `first..first + count`, with weights from `offset` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) offset: usize,
}

/// Sums rows of `stride` bytes into rows of the same length, one for each span: byte `x` of an
/// output is the weighted sum of bytes `x` of its samples, rounded and clamped.
///
/// Weights have [`FRACTION_BITS`] and add up to one in each span, none beyond 2.
pub(crate) fn blend(
    samples: &[u8],
    stride: usize,
    (spans, weights): (&[Span], &[i32]),
    output: &mut [u8],
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512(samples: &[u8], stride: usize, taps: (&[Span], &[i32]), output: &mut [u8]) {
            run::<48, false>(samples, stride, taps, output);
        }
        #[target_feature(enable = "avx2")]
        fn avx2(samples: &[u8], stride: usize, taps: (&[Span], &[i32]), output: &mut [u8]) {
            run::<48, false>(samples, stride, taps, output);
        }
        if super::elementwise::has_avx512() {
            // SAFETY: the processor has these instructions.
            return unsafe { avx512(samples, stride, (spans, weights), output) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(samples, stride, (spans, weights), output) };
        }
    }
    plain(samples, stride, (spans, weights), output);
}

/// The copy for any machine. SSE2 has no product of 32 bits; halves of 16 bits have vectors
/// everywhere.
fn plain(samples: &[u8], stride: usize, taps: (&[Span], &[i32]), output: &mut [u8]) {
    run::<24, true>(samples, stride, taps, output);
}

#[inline(always)]
fn run<const LANES: usize, const SPLIT: bool>(
    samples: &[u8],
    stride: usize,
    (spans, weights): (&[Span], &[i32]),
    output: &mut [u8],
) {
    if stride == 0 {
        return;
    }
    for (line, span) in output.chunks_exact_mut(stride).zip(spans) {
        let weights = &weights[span.offset..span.offset + span.count];
        let rows = &samples[span.first * stride..(span.first + span.count) * stride];
        let mut x = 0;
        while x + LANES <= stride {
            if let Some(bytes) = line[x..].first_chunk_mut::<LANES>() {
                *bytes = sum::<LANES, SPLIT>(rows, stride, x, weights);
            }
            // The last piece overlaps the one before, which gives the same bytes again.
            x = if x + LANES == stride { stride } else { (x + LANES).min(stride - LANES) };
        }
        for (x, byte) in line.iter_mut().enumerate().skip(x) {
            [*byte] = sum::<1, SPLIT>(rows, stride, x, weights);
        }
    }
}

#[inline(always)]
fn sum<const LANES: usize, const SPLIT: bool>(
    rows: &[u8],
    stride: usize,
    x: usize,
    weights: &[i32],
) -> [u8; LANES] {
    let mut high = [0i32; LANES];
    let mut low = [0i32; LANES];
    for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
        let Some(bytes) = row[x..].first_chunk::<LANES>() else { break };
        if SPLIT {
            let upper = (weight >> SPLIT_BITS) as i16;
            let lower = (weight - (i32::from(upper) << SPLIT_BITS)) as i16;
            for ((high, low), &byte) in high.iter_mut().zip(&mut low).zip(bytes) {
                *high += i32::from(byte) * i32::from(upper);
                *low += i32::from(byte) * i32::from(lower);
            }
        } else {
            for (low, &byte) in low.iter_mut().zip(bytes) {
                *low += i32::from(byte) * weight;
            }
        }
    }
    std::array::from_fn(|lane| {
        let sum = (high[lane] << SPLIT_BITS) + low[lane];
        ((sum + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS).clamp(0, 255) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights of some spans over 40 rows, every second one negative.
    fn taps() -> (Vec<Span>, Vec<i32>) {
        let one = 1 << FRACTION_BITS;
        let mut spans = Vec::new();
        let mut weights = Vec::new();
        for (first, count) in [(0, 1), (3, 4), (39, 1), (0, 40), (17, 9)] {
            let offset = weights.len();
            spans.push(Span { first, count, offset });
            let share = one / count as i32;
            let lobe = |i| if i % 2 == 0 { share / 4 * 5 + 3 } else { -share / 4 };
            weights.extend((0..count).map(lobe));
            let rest = one - weights[offset..].iter().sum::<i32>();
            weights[offset] += rest;
        }
        (spans, weights)
    }

    #[test]
    fn every_copy_gives_the_sum_in_whole_numbers() {
        let (spans, weights) = taps();
        for stride in [1, 2, 23, 24, 25, 47, 48, 49, 95, 96, 131, 378] {
            let samples: Vec<u8> = (0..40 * stride as u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            let expected: Vec<u8> = spans
                .iter()
                .flat_map(|span| (0..stride).map(move |x| (span, x)))
                .map(|(span, x)| {
                    let sum: i64 = (0..span.count)
                        .map(|k| {
                            let sample = samples[(span.first + k) * stride + x];
                            i64::from(sample) * i64::from(weights[span.offset + k])
                        })
                        .sum();
                    let rounded = (sum + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
                    rounded.clamp(0, 255) as u8
                })
                .collect();
            for copy in [blend, plain] {
                let mut output = vec![7; expected.len()];
                copy(&samples, stride, (&spans, &weights), &mut output);
                assert_eq!(output, expected, "{stride} bytes a row");
            }
        }
        blend(&[], 0, (&spans, &weights), &mut []);
    }
}
