//! JPEG with libjpeg-turbo's arithmetic, so that pixels are those of Pillow bit for bit.
//!
//! That matters: a frozen model answers to the rounding of its input. With a decoder that differs
//! by a quarter of a grey level on average, embeddings of small photographs moved by up to 6e-4 in
//! cosine. The library's vector kernels (feature `jpeg-simd`) give the same pixels.

use image::metadata::Orientation;
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::budget::Budget;
use super::error::CONVERT_FIRST;
use super::pixels::Samples;
use super::{DecodeError, DecodeWarning, Format, Source};

mod ink;
mod markers;

use markers::Markers;

/// Pixels times scans that are decoded at most: about the default time limit on a slow core.
/// Ordinary progressive files have about ten scans.
const MAX_SCAN_PIXELS: u64 = 1 << 30;

pub(super) fn read(
    bytes: &[u8],
    shrink_to: Option<u32>,
    budget: &Budget<'_>,
) -> Result<Source, DecodeError> {
    let markers = Markers::scan(bytes);
    let failed = |error: JpegError| failure(error, budget);
    // The size is checked against the budget below, before anything of that size is allocated.
    let limits = DecodeLimits { max_width: 65_535, max_height: 65_535, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(failed)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    if width == 0 || height == 0 {
        return Err(DecodeError::damaged(Format::Jpeg, "a side is 0 pixels long"));
    }
    budget.check_pixels(width, height)?;

    let (output, channels) = match (header.components.len(), decoder.jpeg_color_space()) {
        (1, _) => (PixelFormat::Grayscale, 1),
        (4, _) | (_, ColorSpace::Cmyk | ColorSpace::Ycck) => (PixelFormat::Cmyk, 4),
        (3, _) => (PixelFormat::Rgb, 3),
        (count, _) => return Err(unsupported(format!("{count} components"))),
    };
    let pixels = u64::from(width) * u64::from(height);
    // The planes before upsampling, the coefficients of several scans, and our copy.
    let working = (3 * pixels).max(markers.coefficient_bytes(pixels));
    budget.check_memory(channels * pixels + channels.max(3) * pixels + working)?;

    let orientation = decoder
        .exif_data()
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    // An ICC profile in a four-component file describes inks, which are converted without one.
    let icc = if channels == 4 { None } else { decoder.icc_profile().unwrap_or_default() };

    let max_scans = (MAX_SCAN_PIXELS / pixels).clamp(16, 1000);
    decoder.set_limits(DecodeLimits { max_scans: max_scans as usize, ..limits });
    decoder.set_output_format(output);
    let divisor = shrink_to.map_or(1, |least| divisor(width.min(height), least));
    decoder.set_scale(ScalingFactor::try_new(1, divisor).map_err(failed)?);
    // As Pillow shows what is there of a damaged file; the warning below tells.
    decoder.set_lenient(true);
    let image = decoder.decode_image().map_err(failed)?;
    budget.check_time()?;

    let damaged = !image.warnings.is_empty();
    let samples = match output {
        PixelFormat::Cmyk => Samples::new(ink::cmyk_to_rgb(image.data), 3),
        PixelFormat::Grayscale => Samples::new(image.data, 1),
        _ => Samples::new(image.data, 3),
    };
    let warning = match (markers.has_end, damaged) {
        (false, _) => Some(DecodeWarning::Truncated),
        (true, true) => Some(DecodeWarning::Damaged),
        (true, false) => None,
    };
    Ok(Source { width, height, divisor, samples, icc, orientation, warning })
}

/// The largest divisor of the sides that leaves `least` pixels of the shorter one.
fn divisor(shorter: u32, least: u32) -> u32 {
    [8, 4, 2].into_iter().find(|divisor| shorter / divisor >= least).unwrap_or(1)
}

fn failure(error: JpegError, budget: &Budget<'_>) -> DecodeError {
    if budget.expired() {
        return budget.too_slow();
    }
    match error {
        JpegError::Unsupported(what) => unsupported(what),
        error => DecodeError::damaged(Format::Jpeg, error),
    }
}

fn unsupported(what: String) -> DecodeError {
    let format = format!("{} ({what})", Format::Jpeg);
    DecodeError::UnsupportedFormat { format, remedy: CONVERT_FIRST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_leaves_as_many_pixels_as_are_needed() {
        for (side, expected) in [(1, 1), (199, 1), (200, 2), (399, 2), (400, 4), (65_535, 8)] {
            assert_eq!(divisor(side, 100), expected, "{side}");
        }
        assert_eq!((divisor(7, 0), divisor(65_535, u32::MAX)), (8, 1));
    }
}
