//! Pillow's 8-bit bicubic resampling, bit for bit.
//!
//! A port of `src/libImaging/Resample.c`: antialiased cubic convolution in two passes, with the
//! weights in fixed point and one rounding to 8 bits after each pass. Only the part of the output that
//! is asked for is computed; since every output pixel is independent of its neighbours, a window of the
//! result is exactly the crop of the whole.

use image::RgbImage;

use crate::kernels::blend::{FRACTION_BITS, Span, blend};

/// Cubic parameter `a` of Pillow's `bicubic_filter`.
const CUBIC_A: f64 = -0.5;
/// Radius of the cubic kernel in source pixels, before it is widened for shrinking.
const CUBIC_SUPPORT: f64 = 2.0;

const CHANNELS: usize = 3;
/// Source rows that the horizontal pass handles side by side.
const BLOCK_ROWS: usize = 16;
const BLOCK_BYTES: usize = BLOCK_ROWS * CHANNELS;
/// Source columns whose blocks are filled before the next row's: they stay in the first cache.
const TILE: usize = 256;

/// Outputs `start..start + len` out of the `full` outputs of one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub full: u64,
    pub start: u64,
    pub len: u32,
    /// Start and length of the axis in source pixels, of which the first or last may be cut.
    pub source: (f64, f64),
}

impl Window {
    /// All `len` outputs of an axis of `source` pixels.
    pub fn whole(source: u32, len: u32) -> Self {
        Self { full: u64::from(len), start: 0, len, source: (0.0, f64::from(source)) }
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
        blend(image.as_raw(), in_stride, rows.taps(), &mut intermediate);
        let resampled = resample_rows(&intermediate, 0..vertical.len as usize, &columns);
        output.copy_from_slice(&resampled);
    } else {
        let needed = rows.source_range();
        let intermediate = resample_rows(image, needed.clone(), &columns);
        rows.shift(needed.start);
        blend(&intermediate, out_stride, rows.taps(), &mut output);
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
    outputs: Vec<Span>,
    /// Fixed-point weights of all outputs, one output after another.
    weights: Vec<i32>,
}

impl Kernel {
    /// Taps over `source` pixels.
    fn new(source: u32, window: Window) -> Self {
        let (origin, length) = window.source;
        let scale = length / window.full as f64;
        let filter_scale = scale.max(1.0);
        let support = CUBIC_SUPPORT * filter_scale;
        let inverse = 1.0 / filter_scale;

        let mut kernel = Self { outputs: Vec::with_capacity(window.len as usize), weights: vec![] };
        let mut exact = Vec::new();
        for position in window.start..window.start + u64::from(window.len) {
            let centre = origin + (position as f64 + 0.5) * scale;
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
            kernel.outputs.push(Span { first, count: end - first, offset });
        }
        kernel
    }

    /// The source samples that some output reads.
    fn source_range(&self) -> std::ops::Range<usize> {
        let start = self.outputs.iter().map(|span| span.first).min().unwrap_or(0);
        let end = self.outputs.iter().map(|span| span.first + span.count).max().unwrap_or(0);
        start..end
    }

    /// Makes sample positions relative to `origin`.
    fn shift(&mut self, origin: usize) {
        for span in &mut self.outputs {
            span.first -= origin;
        }
    }

    fn taps(&self) -> (&[Span], &[i32]) {
        (&self.outputs, &self.weights)
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

/// Rounds half away from zero to `FRACTION_BITS`.
fn fixed_point(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (half + weight * f64::from(1 << FRACTION_BITS)) as i32
}

/// Horizontal pass over the source rows `rows`; returns rows of `outputs × 3` bytes.
///
/// Blocks of rows are transposed first: neighbouring bytes then share a weight, which turns the
/// strided sum over a row into whole-vector arithmetic.
fn resample_rows(image: &RgbImage, rows: std::ops::Range<usize>, columns: &Kernel) -> Vec<u8> {
    let source = columns.source_range();
    let spans: Vec<Span> = columns
        .outputs
        .iter()
        .map(|span| Span { first: span.first - source.start, ..*span })
        .collect();
    let in_stride = image.width() as usize * CHANNELS;
    let out_stride = spans.len() * CHANNELS;
    let mut output = vec![0; rows.len() * out_stride];
    let mut block = vec![[0; BLOCK_BYTES]; source.len()];
    let mut blended = vec![[0; BLOCK_BYTES]; spans.len()];

    let input = &image.as_raw()[rows.start * in_stride..rows.end * in_stride];
    let input_blocks = input.chunks(in_stride * BLOCK_ROWS);
    for (input, output) in input_blocks.zip(output.chunks_mut(out_stride * BLOCK_ROWS)) {
        for (tile, pixels) in block.chunks_mut(TILE).enumerate() {
            let start = (source.start + tile * TILE) * CHANNELS;
            for (row, line) in input.chunks_exact(in_stride).enumerate() {
                copy_row(&line[start..start + pixels.len() * CHANNELS], row, pixels);
            }
        }
        let taps = (&*spans, &*columns.weights);
        blend(block.as_flattened(), BLOCK_BYTES, taps, blended.as_flattened_mut());
        for (row, line) in output.chunks_exact_mut(out_stride).enumerate() {
            for (to, bytes) in line.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(&blended) {
                to.copy_from_slice(&bytes[row * CHANNELS..(row + 1) * CHANNELS]);
            }
        }
    }
    output
}

/// Puts a row's pixels into its place in each block. Four bytes at a time: the fourth lies in the
/// place of the next row, which comes later.
fn copy_row(line: &[u8], row: usize, blocks: &mut [[u8; BLOCK_BYTES]]) {
    let at = row * CHANNELS;
    let mut done = 0;
    if at + 4 <= BLOCK_BYTES {
        for (block, pixel) in blocks.iter_mut().zip(line.windows(4).step_by(CHANNELS)) {
            block[at..at + 4].copy_from_slice(pixel);
            done += 1;
        }
    }
    for (block, pixel) in blocks.iter_mut().zip(line.as_chunks::<CHANNELS>().0).skip(done) {
        block[at..at + CHANNELS].copy_from_slice(pixel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_size_is_the_identity() {
        let image = RgbImage::from_fn(19, 11, |x, y| image::Rgb([x as u8 * 13, y as u8 * 23, 255]));
        assert_eq!(resample(&image, Window::whole(19, 19), Window::whole(11, 11)), image);
    }

    #[test]
    fn a_window_is_the_crop_of_the_whole() {
        let image = RgbImage::from_fn(70, 50, |x, y| {
            image::Rgb([(x * y) as u8, (x * 7 + y * 31) as u8, (x ^ y) as u8])
        });
        let whole = resample(&image, Window::whole(70, 41), Window::whole(50, 90));
        let horizontal = Window { start: 9, len: 20, ..Window::whole(70, 41) };
        let vertical = Window { start: 30, len: 33, ..Window::whole(50, 90) };
        let window = resample(&image, horizontal, vertical);
        assert_eq!(window, image::imageops::crop_imm(&whole, 9, 30, 20, 33).to_image());
    }

    #[test]
    fn what_is_cut_off_a_pixel_shifts_the_samples() {
        // A ramp of 8 a pixel: the middle of 20.5 pixels lies a quarter of one before that of 21.
        let image = RgbImage::from_fn(21, 8, |x, _| image::Rgb([20 + 8 * x as u8; 3]));
        let middle = |source: (f64, f64)| {
            let horizontal = Window { source, ..Window::whole(21, 7) };
            resample(&image, horizontal, Window::whole(8, 1)).get_pixel(3, 0)[0]
        };
        assert_eq!(middle((0.0, 21.0)), 100);
        assert_eq!((middle((0.0, 20.5)), middle((0.5, 20.5))), (98, 102));
    }

    #[test]
    fn empty_sides_do_not_panic() {
        let image = RgbImage::new(0, 4);
        assert_eq!(resample(&image, Window::whole(0, 2), Window::whole(4, 2)), RgbImage::new(2, 2));
        let image = RgbImage::new(3, 4);
        assert!(resample(&image, Window::whole(3, 0), Window::whole(4, 2)).is_empty());
    }
}
