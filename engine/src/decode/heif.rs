//! HEIC through `heifer`, and the container part of AVIF.

use heifer::heifer_isobmff::HeifFile;
use heifer::{Error, Options};
use image::metadata::Orientation;

use super::budget::Budget;
use super::error::CONVERT_FIRST;
use super::pixels::Samples;
use super::{DecodeError, Format, Source};

/// Bytes per pixel that `heifer` 0.3 holds at its peak: 12.7 were measured on a 12 Mpx photo.
const BYTES_PER_PIXEL: u64 = 16;

/// Decodes the primary image. Rotation, mirroring and cropping are done by `heifer`, and EXIF
/// orientation has no say in this format (ISO/IEC 23008-12, 6.5.10).
///
/// Runs on the calling thread: whoever decodes many files uses the cores already.
pub(super) fn read(bytes: &[u8], budget: &Budget) -> Result<Source, DecodeError> {
    let file = check(bytes, Format::Heic, budget)?;
    // A file without a declared size is stopped by the decoder itself.
    let options = Options { max_threads: 1, max_pixels: budget.max_pixels(BYTES_PER_PIXEL) };
    let picture = heifer::decode_rgba8(bytes, &options).map_err(|error| failure(error, budget))?;
    let icc = file.icc_profile(file.primary_id).ok().flatten().map(<[u8]>::to_vec);
    let (width, height) = (picture.width, picture.height);
    let samples = if picture.has_alpha {
        Samples::new(picture.data, 4)
    } else {
        Samples::new(picture.into_rgb8(), 3)
    };
    let orientation = Orientation::NoTransforms;
    let divisor = 1;
    Ok(Source { width, height, divisor, samples, icc, orientation, warning: None })
}

/// Parses the container and checks the size that the primary image declares.
fn check<'a>(
    bytes: &'a [u8],
    format: Format,
    budget: &Budget,
) -> Result<HeifFile<'a>, DecodeError> {
    let damaged = |error| DecodeError::damaged(format, error);
    let file = HeifFile::parse(bytes).map_err(damaged)?;
    if let Some((width, height)) = file.image_size(file.primary_id).map_err(damaged)? {
        budget.check_pixels(width, height)?;
        budget.check_memory(BYTES_PER_PIXEL * u64::from(width) * u64::from(height))?;
    }
    Ok(file)
}

fn failure(error: Error, budget: &Budget) -> DecodeError {
    if budget.expired() {
        return budget.too_slow();
    }
    match error {
        Error::Unsupported(what) => DecodeError::UnsupportedFormat {
            format: format!("{} ({what})", Format::Heic),
            remedy: CONVERT_FIRST,
        },
        error => DecodeError::damaged(Format::Heic, error),
    }
}

/// Decodes an AVIF file with the checks and the rotation that the `image` crate leaves out.
///
/// That crate decodes while it reads the header, so the declared size is all that can be checked
/// before: a stream that holds a larger frame than its container declares gets through.
#[cfg(feature = "avif")]
pub(super) fn read_avif(bytes: &[u8], budget: &Budget) -> Result<Source, DecodeError> {
    let file = check(bytes, Format::Avif, budget)?;
    let orientation = orientation(&file).map_err(|e| DecodeError::damaged(Format::Avif, e))?;
    let source = super::codec::read(bytes, Format::Avif, budget)?;
    Ok(Source { orientation, ..source })
}

/// The `irot` and `imir` properties of the primary image, rotation first.
#[cfg(feature = "avif")]
fn orientation(file: &HeifFile<'_>) -> Result<Orientation, heifer::heifer_isobmff::Error> {
    use heifer::heifer_isobmff::boxes::Property;

    let (mut quarters, mut mirrored) = (0, false);
    for property in file.item_properties(file.primary_id)? {
        match property {
            Property::Rotation(anticlockwise) => quarters = 4 - anticlockwise,
            Property::Mirror(top_bottom) => {
                mirrored = true;
                // Top to bottom is left to right upside down.
                quarters += if *top_bottom { 2 } else { 0 };
            }
            _ => {}
        }
    }
    Ok(match (quarters % 4, mirrored) {
        (0, false) => Orientation::NoTransforms,
        (1, false) => Orientation::Rotate90,
        (2, false) => Orientation::Rotate180,
        (_, false) => Orientation::Rotate270,
        (0, true) => Orientation::FlipHorizontal,
        (1, true) => Orientation::Rotate90FlipH,
        (2, true) => Orientation::FlipVertical,
        (_, true) => Orientation::Rotate270FlipH,
    })
}
