//! Loops over rows of f32, compiled several times: for AVX-512, for AVX2 and for any machine, and
//! chosen at run time.
//!
//! All copies give the same bits: sums run in 16 fixed lanes, and the compiler never fuses a
//! product and a sum that the source keeps apart.
#![expect(
    unsafe_code,
    reason = "calling a copy needs proof that the processor has its instructions"
)]

use crate::vit::config::LAYER_NORM_EPS;

/// Defines functions of plain loops that run in the widest copy this machine has.
macro_rules! vectorised {
    ($($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block)*) => {$(
        $(#[$meta])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $out)? $body

            #[cfg(test)]
            if tests::PLAIN.get() {
                return plain($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }
                if has_avx512() {
                    // SAFETY: the processor has these instructions.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

vectorised! {
    /// `row + bias`.
    pub(crate) fn add(row: &mut [f32], bias: &[f32]) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }

    /// `x Phi(x)` with the exact normal distribution function.
    pub(crate) fn gelu(values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x *= phi(*x));
    }

    /// Turns a gradient of GELU's output into one of its input `x`.
    pub(crate) fn gelu_backward(grad: &mut [f32], x: &[f32]) {
        // 1 / sqrt(2 pi)
        const DENSITY_AT_ZERO: f32 = 0.398_942_3;
        for (grad, &x) in grad.iter_mut().zip(x) {
            *grad *= phi(x) + x * DENSITY_AT_ZERO * exp(-0.5 * x * x);
        }
    }

    /// Softmax of a row.
    pub(crate) fn softmax(row: &mut [f32]) {
        let max = lanes(row, f32::NEG_INFINITY, |x| x, max);
        row.iter_mut().for_each(|x| *x = exp(*x - max));
        let scale = 1.0 / lanes(row, 0.0, |x| x, sum);
        row.iter_mut().for_each(|x| *x *= scale);
    }

    /// Turns a gradient of softmax's output `weights` into one of its input.
    pub(crate) fn softmax_backward(grad: &mut [f32], weights: &[f32]) {
        let mean = lanes_of_two(grad, weights, |d, w| d * w);
        grad.iter_mut().zip(weights).for_each(|(d, w)| *d = (*d - mean) * w);
    }

    /// Normalisation of a row to mean 0 and variance 1, then gain and shift.
    pub(crate) fn layer_norm(row: &mut [f32], weight: &[f32], bias: &[f32]) {
        let (mean, scale) = statistics(row);
        for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
            *x = (*x - mean) * scale * w + b;
        }
    }

    /// Writes the gradient of a row `x` of layer norm, and adds to those of gain and shift.
    pub(crate) fn layer_norm_backward(
        d_x: &mut [f32],
        x: &[f32],
        grad: &[f32],
        weight: &[f32],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        let count = x.len() as f32;
        let (mean, scale) = statistics(x);
        let along_one = lanes_of_two(grad, weight, |g, w| g * w) / count;
        // d_x first holds the normed row.
        d_x.iter_mut().zip(x).for_each(|(d, x)| *d = (x - mean) * scale);
        for ((d_weight, d_bias), (normed, g)) in
            d_weight.iter_mut().zip(d_bias).zip(d_x.iter().zip(grad))
        {
            *d_weight += g * normed;
            *d_bias += g;
        }
        let mut sums = [0f32; 16];
        for ((d, g), w) in d_x.chunks(16).zip(grad.chunks(16)).zip(weight.chunks(16)) {
            for (((sum, d), g), w) in sums.iter_mut().zip(d).zip(g).zip(w) {
                *sum += g * w * d;
            }
        }
        let along_x = sums.into_iter().sum::<f32>() / count;
        for ((d, g), w) in d_x.iter_mut().zip(grad).zip(weight) {
            *d = scale * (g * w - (along_one + *d * along_x));
        }
    }

    /// `x + gamma * branch`, in place of `branch`.
    pub(crate) fn scaled_residual(branch: &mut [f32], x: &[f32], gamma: &[f32]) {
        for ((branch, x), gamma) in branch.iter_mut().zip(x).zip(gamma) {
            *branch = x + gamma * *branch;
        }
    }

    /// `x * gamma`.
    pub(crate) fn scale(row: &mut [f32], gamma: &[f32]) {
        row.iter_mut().zip(gamma).for_each(|(x, gamma)| *x *= gamma);
    }

    /// `sums + a * b`, value by value.
    pub(crate) fn add_products(sums: &mut [f32], a: &[f32], b: &[f32]) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }

    /// `keep * average + (1 - keep) * scale * x`.
    pub(crate) fn blend(average: &mut [f32], x: &[f32], keep: f32, scale: f32) {
        let rest = 1.0 - keep;
        average.iter_mut().zip(x).for_each(|(a, x)| *a = keep * *a + rest * (x * scale));
    }

    /// `keep * average + (1 - keep) * (scale * x)^2`.
    pub(crate) fn blend_squares(average: &mut [f32], x: &[f32], keep: f32, scale: f32) {
        let rest = 1.0 - keep;
        average.iter_mut().zip(x).for_each(|(a, x)| {
            *a = keep * *a + rest * (x * scale) * (x * scale);
        });
    }

    /// AdamW's change, `decay * p - rate * m / (sqrt(v) / root + eps)`, with `settings` decay,
    /// rate, root and eps.
    pub(crate) fn adam(
        values: &mut [f32],
        first: &[f32],
        second: &[f32],
        settings: [f32; 4],
    ) {
        let [decay, rate, root, eps] = settings;
        for ((p, m), v) in values.iter_mut().zip(first).zip(second) {
            *p = *p * decay - rate * m / (v.sqrt() / root + eps);
        }
    }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn statistics(row: &[f32]) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = lanes(row, 0.0, |x| x, sum) / count;
    let variance = lanes(row, 0.0, |x| (x - mean) * (x - mean), sum) / count;
    (mean, 1.0 / (variance + LAYER_NORM_EPS as f32).sqrt())
}

#[inline(always)]
fn sum(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    a.max(b)
}

/// Joins the mapped values of a row, in 16 independent lanes, which compilers turn into vector
/// instructions.
#[inline(always)]
fn lanes(row: &[f32], start: f32, map: impl Fn(f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &x)| *lane = join(*lane, map(x)));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane = join(*lane, map(x)));
    lanes.into_iter().fold(start, join)
}

vectorised! {
    /// Sum of products, in 32 lanes.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; 32];
        let (a, a_rest) = a.as_chunks::<32>();
        let (b, b_rest) = b.as_chunks::<32>();
        for (a, b) in a.iter().zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a * b;
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += a * b;
        }
        lanes.into_iter().sum()
    }
}

/// Sum of the mapped pairs of two rows, in 16 lanes.
#[inline(always)]
fn lanes_of_two(a: &[f32], b: &[f32], map: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += map(*a, *b);
        }
    }
    lanes.into_iter().sum()
}

/// Normal distribution function.
#[inline(always)]
fn phi(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// The exponential function for arguments up to 0 (smaller than -87 gives about 1e-38), relative
/// error below 3e-7: 2^k times a polynomial, without branches.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.max(-87.0);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let k = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the difference keeps its low bits.
    let r = (x - k * 0.693_359_4) - k * -2.121_944_4e-4;
    // Cephes expf: minimax on [-ln 2 / 2, ln 2 / 2].
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let mantissa = p * r * r + r + 1.0;
    // Wrapping, though it never does: a check for overflow would keep the loop from being vectorised.
    mantissa * f32::from_bits(((k as i32).wrapping_add(127) << 23) as u32)
}

/// The error function, absolute error below 3e-7: Abramowitz and Stegun 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let mut p = 1.061_405_4f32;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + c;
    }
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Makes this thread run the copies for any machine.
        pub(super) static PLAIN: Cell<bool> = const { Cell::new(false) };
    }

    fn ramp(len: usize, step: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * step) % 401) as f32 / 50.0 - 4.0).collect()
    }

    fn all(len: usize) -> Vec<Vec<f32>> {
        let (a, b, c) = (ramp(len, 37), ramp(len, 91), ramp(len, 7));
        let positive: Vec<f32> = b.iter().map(|x| x.abs()).collect();
        let on = |work: &dyn Fn(&mut [f32])| {
            let mut row = a.clone();
            work(&mut row);
            row
        };
        let mut norm = [vec![0.0; len], b.clone(), c.clone()];
        let [d_x, d_weight, d_bias] = &mut norm;
        layer_norm_backward(d_x, &a, &b, &c, d_weight, d_bias);
        let mut rows = vec![
            on(&|x| add(x, &b)),
            on(&gelu),
            on(&|x| gelu_backward(x, &b)),
            on(&softmax),
            on(&|x| softmax_backward(x, &b)),
            on(&|x| layer_norm(x, &b, &c)),
            on(&|x| scaled_residual(x, &b, &c)),
            on(&|x| scale(x, &b)),
            on(&|x| add_products(x, &b, &c)),
            on(&|x| blend(x, &b, 0.9, 0.3)),
            on(&|x| blend_squares(x, &b, 0.9, 0.3)),
            on(&|x| adam(x, &b, &positive, [0.99, 1e-3, 0.5, 1e-8])),
        ];
        rows.extend(norm);
        rows
    }

    #[test]
    fn every_copy_gives_the_same_bits() {
        for len in [1, 15, 16, 17, 64, 387] {
            let widest = all(len);
            PLAIN.set(true);
            let plain = all(len);
            PLAIN.set(false);
            assert!(widest.iter().flatten().all(|x| x.is_finite()));
            let bits = |rows: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
                rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
            };
            assert_eq!(bits(widest), bits(plain), "rows of {len}");
        }
    }
}
