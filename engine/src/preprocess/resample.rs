//! Pillow's 8-bit bicubic resampling, bit for bit.
//!
//! A port of `src/libImaging/Resample.c`: antialiased cubic convolution in two passes, with the
//! weights in fixed point and one rounding to 8 bits after each pass. Only the part of the output that is asked for is computed; since every output pixel is
//! independent of its neighbours, a window of the result is exactly the crop of the whole.

use image::RgbImage;

/// Cubic parameter `a` of Pillow's `bicubic_filter`.
const CUBIC_A: f64 = -0.5;
/// Radius of the cubic kernel in source pixels, before it is widened for shrinking.
const CUBIC_SUPPORT: f64 = 2.0;
/// Fraction bits of a weight: 32 bits less 8 for the sample and 2 for sign and overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// A weight is applied as `(high << SPLIT_BITS) + low`, so that both halves fit 16 bits.
const SPLIT_BITS: u32 = 11;

const CHANNELS: usize = 3;
/// Source rows that the horizontal pass handles side by side.
const BLOCK_ROWS: usize = 8;
const LANES: usize = BLOCK_ROWS * CHANNELS;

/// Outputs `start..start + len` out of the `full` outputs of one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub full: u64,
    pub start: u64,
    pub len: u32,
}

impl Window {
    /// All `len` outputs of an axis.
    pub fn whole(len: u32) -> Self {
        Self { full: u64::from(len), start: 0, len }
    }
}

/// Resamples `image` to `horizontal.full × vertical.full` and returns the window of it.
///
/// An empty image or window gives a black image of the window's size.
pub(super) fn resample(image: &RgbImage, horizontal: Window, vertical: Window) -> RgbImage {
    let mut output = RgbImage::new(horizontal.len, vertical.len);
    if image.is_empty() || output.is_empty() {
        return output;
    }
    let columns = Kernel::new(image.width(), horizontal);
    let mut rows = Kernel::new(image.height(), vertical);
    let out_stride = horizontal.len as usize * CHANNELS;
    if vertical_first(image, horizontal, vertical) {
        let in_stride = image.width() as usize * CHANNELS;
        let mut intermediate = RgbImage::new(image.width(), vertical.len);
        resample_columns(image.as_raw(), &rows, in_stride, &mut intermediate);
        let resampled = resample_rows(&intermediate, 0..vertical.len as usize, &columns);
        output.copy_from_slice(&resampled);
    } else {
        let needed = rows.source_range();
        let intermediate = resample_rows(image, needed.clone(), &columns);
        rows.shift(needed.start);
        resample_columns(&intermediate, &rows, out_stride, &mut output);
    }
    output
}

/// Which pass comes first decides how roundings add up. Since version 13 Pillow starts with the
/// vertical one when the height shrinks by more than twice as many pixels as the width.
fn vertical_first(image: &RgbImage, horizontal: Window, vertical: Window) -> bool {
    let shrinks_by = |from: u32, to: u64| i128::from(from) - i128::from(to);
    let rows = shrinks_by(image.height(), vertical.full);
    rows > 0 && rows > 2 * shrinks_by(image.width(), horizontal.full)
}

/// The taps of every output of one axis.
struct Kernel {
    outputs: Vec<Taps>,
    /// `(high, low)` halves of the fixed-point weights of all outputs, one output after another.
    weights: Vec<(i16, i16)>,
}

/// One output: the source samples `first..first + count` and where their weights begin.
struct Taps {
    first: usize,
    count: usize,
    offset: usize,
}

impl Kernel {
    fn new(source: u32, window: Window) -> Self {
        let scale = f64::from(source) / window.full as f64;
        let filter_scale = scale.max(1.0);
        let support = CUBIC_SUPPORT * filter_scale;
        let inverse = 1.0 / filter_scale;

        let mut kernel = Self { outputs: Vec::with_capacity(window.len as usize), weights: vec![] };
        let mut exact = Vec::new();
        for position in window.start..window.start + u64::from(window.len) {
            let centre = (position as f64 + 0.5) * scale;
            // `as` truncates towards zero and saturates, like the C casts on this range.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(source as usize);
            exact.clear();
            exact.extend((first..end).map(|x| cubic((x as f64 - centre + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();

            let offset = kernel.weights.len();
            kernel.weights.extend(
                exact
                    .iter()
                    .map(|weight| fixed_point(if sum == 0.0 { *weight } else { weight / sum })),
            );
            kernel.outputs.push(Taps { first, count: end - first, offset });
        }
        kernel
    }

    /// The source samples that some output reads.
    fn source_range(&self) -> std::ops::Range<usize> {
        let start = self.outputs.iter().map(|taps| taps.first).min().unwrap_or(0);
        let end = self.outputs.iter().map(|taps| taps.first + taps.count).max().unwrap_or(0);
        start..end
    }

    /// Makes sample positions relative to `origin`.
    fn shift(&mut self, origin: usize) {
        for taps in &mut self.outputs {
            taps.first -= origin;
        }
    }

    fn weights(&self, taps: &Taps) -> &[(i16, i16)] {
        &self.weights[taps.offset..taps.offset + taps.count]
    }
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC_A
    } else {
        0.0
    }
}

/// Rounds half away from zero to `PRECISION_BITS`, then splits.
fn fixed_point(weight: f64) -> (i16, i16) {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    let fixed = (half + weight * f64::from(1 << PRECISION_BITS)) as i32;
    let high = fixed >> SPLIT_BITS;
    ((high as i16), (fixed - (high << SPLIT_BITS)) as i16)
}

/// Sums of sample × weight for `N` neighbouring samples, with the two weight halves apart.
///
/// 16-bit factors let every x86-64 and ARM compiler multiply in vectors; SSE2 has no 32-bit one.
struct Accumulator<const N: usize> {
    high: [i32; N],
    low: [i32; N],
}

impl<const N: usize> Accumulator<N> {
    fn new() -> Self {
        Self { high: [0; N], low: [0; N] }
    }

    #[inline(always)]
    fn add(&mut self, samples: &[u8; N], (high, low): (i16, i16)) {
        let sums = self.high.iter_mut().zip(&mut self.low);
        for ((high_sum, low_sum), sample) in sums.zip(samples) {
            let sample = i32::from(*sample);
            *high_sum += sample * i32::from(high);
            *low_sum += sample * i32::from(low);
        }
    }

    #[inline(always)]
    fn round(&self, lane: usize) -> u8 {
        let sum = (self.high[lane] << SPLIT_BITS) + self.low[lane];
        ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
    }
}

/// Horizontal pass over the source rows `rows`; returns rows of `outputs × 3` bytes.
///
/// Blocks of rows are transposed first: neighbouring lanes then share a weight, which turns the
/// strided sum over a row into whole-vector arithmetic.
fn resample_rows(image: &RgbImage, rows: std::ops::Range<usize>, kernel: &Kernel) -> Vec<u8> {
    let source = kernel.source_range();
    let in_stride = image.width() as usize * CHANNELS;
    let out_stride = kernel.outputs.len() * CHANNELS;
    let mut output = vec![0; rows.len() * out_stride];
    let mut block = vec![[0; LANES]; source.len()];

    let input = &image.as_raw()[rows.start * in_stride..rows.end * in_stride];
    let input_blocks = input.chunks(in_stride * BLOCK_ROWS);
    for (input, output) in input_blocks.zip(output.chunks_mut(out_stride * BLOCK_ROWS)) {
        for (row, line) in input.chunks_exact(in_stride).enumerate() {
            let line = &line[source.start * CHANNELS..source.end * CHANNELS];
            for (lanes, pixel) in block.iter_mut().zip(line.chunks_exact(CHANNELS)) {
                lanes[row * CHANNELS..(row + 1) * CHANNELS].copy_from_slice(pixel);
            }
        }
        for (x, taps) in kernel.outputs.iter().enumerate() {
            let mut sums = Accumulator::<LANES>::new();
            let first = taps.first - source.start;
            for (lanes, weight) in block[first..].iter().zip(kernel.weights(taps)) {
                sums.add(lanes, *weight);
            }
            for (row, line) in output.chunks_exact_mut(out_stride).enumerate() {
                for channel in 0..CHANNELS {
                    line[x * CHANNELS + channel] = sums.round(row * CHANNELS + channel);
                }
            }
        }
    }
    output
}

/// Vertical pass over rows of `stride` bytes into `output`, whose rows have the same length.
fn resample_columns(rows: &[u8], kernel: &Kernel, stride: usize, output: &mut RgbImage) {
    for (line, taps) in output.chunks_exact_mut(stride).zip(&kernel.outputs) {
        let weights = kernel.weights(taps);
        let rows = &rows[taps.first * stride..];
        let mut pieces = line.chunks_exact_mut(LANES);
        let mut x = 0;
        for piece in &mut pieces {
            let mut sums = Accumulator::<LANES>::new();
            for (row, weight) in rows.chunks_exact(stride).zip(weights) {
                if let Some(samples) = row[x..].first_chunk() {
                    sums.add(samples, *weight);
                }
            }
            for (lane, byte) in piece.iter_mut().enumerate() {
                *byte = sums.round(lane);
            }
            x += LANES;
        }
        for (offset, byte) in pieces.into_remainder().iter_mut().enumerate() {
            let mut sum = Accumulator::<1>::new();
            for (row, weight) in rows.chunks_exact(stride).zip(weights) {
                sum.add(&[row[x + offset]], *weight);
            }
            *byte = sum.round(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_weights_add_up_and_fit_sixteen_bits() {
        for weight in [-0.13, -1e-9, 0.0, 0.25, 0.5, 1.0, 1.3] {
            let (high, low) = fixed_point(weight);
            let joined = (i32::from(high) << SPLIT_BITS) + i32::from(low);
            let expected = (weight * f64::from(1 << PRECISION_BITS)).round() as i32;
            assert_eq!(joined, expected, "{weight}");
        }
    }

    #[test]
    fn unchanged_size_is_the_identity() {
        let image = RgbImage::from_fn(19, 11, |x, y| image::Rgb([x as u8 * 13, y as u8 * 23, 255]));
        assert_eq!(resample(&image, Window::whole(19), Window::whole(11)), image);
    }

    #[test]
    fn a_window_is_the_crop_of_the_whole() {
        let image = RgbImage::from_fn(70, 50, |x, y| {
            image::Rgb([(x * y) as u8, (x * 7 + y * 31) as u8, (x ^ y) as u8])
        });
        let whole = resample(&image, Window::whole(41), Window::whole(90));
        let horizontal = Window { full: 41, start: 9, len: 20 };
        let vertical = Window { full: 90, start: 30, len: 33 };
        let window = resample(&image, horizontal, vertical);
        assert_eq!(window, image::imageops::crop_imm(&whole, 9, 30, 20, 33).to_image());
    }

    #[test]
    fn empty_sides_do_not_panic() {
        let image = RgbImage::new(0, 4);
        assert_eq!(resample(&image, Window::whole(2), Window::whole(2)), RgbImage::new(2, 2));
        let image = RgbImage::new(3, 4);
        assert!(resample(&image, Window::whole(0), Window::whole(2)).is_empty());
    }
}
