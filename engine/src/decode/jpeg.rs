//! JPEG through `zune-jpeg`, with the colour arithmetic of four-component files done here.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::budget::Budget;
use super::error::CONVERT_FIRST;
use super::pixels::Samples;
use super::{DecodeError, DecodeWarning, Format, Source};

mod ink;
mod markers;
mod reader;

use markers::Markers;
use reader::TimedCursor;

pub(super) fn read(bytes: &[u8], budget: &Budget) -> Result<Source, DecodeError> {
    let markers = Markers::scan(bytes);
    let failed = |error: DecodeErrors| failure(error, budget);
    // The size is checked against the budget below, before anything of that size is allocated.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(TimedCursor::new(bytes, budget), options);
    decoder.decode_headers().map_err(failed)?;
    let (Some(info), Some(stored)) = (decoder.info(), decoder.input_colorspace()) else {
        return Err(DecodeError::damaged(Format::Jpeg, "the header is incomplete"));
    };
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    budget.check_pixels(width, height)?;

    let (output, channels) = match stored {
        ColorSpace::YCbCr | ColorSpace::RGB => (ColorSpace::RGB, 3),
        ColorSpace::Luma => (ColorSpace::Luma, 1),
        // Asked for as stored: the decoder's own conversion of YCCK inverts the colours.
        ColorSpace::CMYK | ColorSpace::YCCK => (stored, 4),
        _ => return Err(unsupported(format!("{} components", info.components))),
    };
    let pixels = u64::from(width) * u64::from(height);
    let copy = 3 * pixels;
    budget.check_memory(channels * pixels + markers.coefficient_bytes(pixels).max(copy))?;

    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    // An ICC profile in a four-component file describes inks, which are converted without one.
    let icc = if channels == 4 { None } else { decoder.icc_profile() };

    decoder.set_options(options.jpeg_set_out_colorspace(output));
    let length = usize::try_from(channels * pixels).map_err(|_| budget.decoder_limit())?;
    let mut data = vec![0; length];
    decoder.decode_into(&mut data).map_err(failed)?;
    budget.check_time()?;

    let samples = match output {
        ColorSpace::CMYK => Samples::new(ink::cmyk_to_rgb(data), 3),
        ColorSpace::YCCK => Samples::new(ink::ycck_to_rgb(data), 3),
        ColorSpace::Luma => Samples::new(data, 1),
        _ => Samples::new(data, 3),
    };
    let warning = (!markers.has_end).then_some(DecodeWarning::Truncated);
    Ok(Source { width, height, samples, icc, orientation, warning })
}

fn failure(error: DecodeErrors, budget: &Budget) -> DecodeError {
    if budget.expired() {
        return budget.too_slow();
    }
    match error {
        DecodeErrors::Unsupported(scheme) => unsupported(format!("{scheme:?}")),
        error => DecodeError::damaged(Format::Jpeg, error),
    }
}

fn unsupported(what: String) -> DecodeError {
    let format = format!("{} ({what})", Format::Jpeg);
    DecodeError::UnsupportedFormat { format, remedy: CONVERT_FIRST }
}
