//! Every format that the `image` crate decodes, but JPEG.

use std::error::Error;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::budget::{Budget, TimedReader};
use super::error::CONVERT_FIRST;
use super::pixels::Samples;
use super::{DecodeError, Format, Source};

/// Decodes the first picture of a file of the given format.
///
/// The limits of the `image` crate do not cover the buffer for the pixels on this path, so that
/// one is checked here, with what the decoder is known to hold beside it.
pub(super) fn read(bytes: &[u8], format: Format, budget: &Budget) -> Result<Source, DecodeError> {
    let name = image_format(format)?;
    let failed = |error: ImageError| failure(error, format, budget);

    let mut reader = ImageReader::with_format(TimedReader::new(bytes, budget), name);
    reader.limits(budget.image_limits());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::damaged(format, "a side is 0 pixels long"));
    }
    budget.check_pixels(width, height)?;

    // Unreadable metadata is no reason to refuse the pixels.
    let icc = decoder.icc_profile().unwrap_or_default();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let pixels = u64::from(width) * u64::from(height);
    let output = decoder.total_bytes();
    let working = working_bytes(format, pixels, output);
    budget.check_memory(output.saturating_add(working.max(3 * pixels)))?;

    let length = usize::try_from(output).map_err(|_| budget.decoder_limit())?;
    let mut data = vec![0; length];
    decoder.read_image(&mut data).map_err(failed)?;
    let samples = Samples::from_decoder(data, color)
        .ok_or_else(|| unsupported(format, "this kind of samples"))?;
    let divisor = 1;
    Ok(Source { width, height, divisor, samples, icc, orientation, warning: None })
}

fn image_format(format: Format) -> Result<ImageFormat, DecodeError> {
    let without = |remedy| DecodeError::UnsupportedFormat { format: format.to_string(), remedy };
    Ok(match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::WebP => ImageFormat::WebP,
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
        Format::Ico => ImageFormat::Ico,
        Format::Tga => ImageFormat::Tga,
        Format::Qoi => ImageFormat::Qoi,
        Format::Pnm => ImageFormat::Pnm,
        Format::Hdr => ImageFormat::Hdr,
        Format::Heic => return Err(without("build with `--features heic`")),
        Format::Avif if cfg!(feature = "avif") => ImageFormat::Avif,
        Format::Avif => return Err(without("build with `--features avif`")),
    })
}

/// Upper estimate of what a decoder holds beside its output of `output` bytes, read off the
/// sources of `image` 0.25, `image-webp` 0.2, `gif` 0.14 and `tiff` 0.11.
fn working_bytes(format: Format, pixels: u64, output: u64) -> u64 {
    match format {
        // The frame before it is placed on the canvas.
        Format::Gif => 4 * pixels,
        // Y, U, V planes or the lossless frame, and alpha.
        Format::WebP => 8 * pixels,
        // The strips are put together in a buffer of their own, 4 samples a pixel for CMYK.
        Format::Tiff => output.saturating_mul(4) / 3,
        Format::Hdr | Format::Ico | Format::Tga | Format::Qoi => output,
        // Planes of up to 12 bits.
        Format::Avif => 8 * pixels,
        _ => 0,
    }
}

fn failure(error: ImageError, format: Format, budget: &Budget) -> DecodeError {
    // Some decoders wrap or drop the reader's `TimedOut`, so the clock is asked instead.
    if budget.expired() {
        return budget.too_slow();
    }
    match error {
        ImageError::Limits(_) => budget.decoder_limit(),
        ImageError::Unsupported(error) => unsupported(format, error),
        // The source is the sentence without the preamble of the `image` crate.
        error => match error.source() {
            Some(source) => DecodeError::damaged(format, source),
            None => DecodeError::damaged(format, error),
        },
    }
}

fn unsupported(format: Format, what: impl std::fmt::Display) -> DecodeError {
    DecodeError::UnsupportedFormat { format: format!("{format} ({what})"), remedy: CONVERT_FIRST }
}
