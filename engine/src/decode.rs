//! From the bytes of a picture file to upright sRGB pixels, for files nobody vouches for.
//!
//! The format is taken from the content, never from a name. Sizes are checked before memory is
//! allocated, decoders run under `catch_unwind`, and every refusal says whose fault it is. The
//! pixels are those of Pillow's `Image.convert("RGB")`, except where that loses or distorts what
//! a person sees:
//!
//! - transparency is composited over white instead of dropped;
//! - EXIF orientation is applied;
//! - RGB and gray ICC profiles are converted to sRGB ([`IccPolicy::Ignore`] switches this off);
//!   CMYK profiles are not read, ink is converted with the plain formula as in Pillow;
//! - 16-bit gray keeps its high byte, as 16-bit RGB does here and in Pillow; Pillow clips it;
//! - floating-point pictures are clamped to 0..=1 and given the sRGB curve;
//! - a JPEG cut short gives the part that is there and a [`DecodeWarning`].
//!
//! Animations give their first frame. PNG `gAMA`/`cHRM` are ignored, as in Pillow.

mod budget;
mod codec;
mod colour;
mod error;
mod format;
#[cfg(feature = "heic")]
mod heif;
mod jpeg;
mod pixels;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use image::metadata::Orientation;
use serde::{Deserialize, Serialize};

pub use error::{DecodeError, Measure};
pub use format::Format;
pub use image::RgbImage;

use budget::Budget;
use pixels::Samples;

const MIB: u64 = 1 << 20;

/// What one picture may cost.
///
/// The first three are checked before the memory is allocated. The clock is read whenever a
/// decoder asks for more input and between the stages; a decoder that computes without reading
/// is bounded by `max_pixels` alone, so a picture can overrun `max_duration` by one such stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Length of the file in bytes. Default: 256 MiB.
    pub max_bytes: u64,
    /// Width × height. Default: 100 million.
    pub max_pixels: u64,
    /// Estimated bytes held at once while decoding, the file itself excluded. Default: 768 MiB.
    pub max_alloc: u64,
    /// Wall-clock time for one picture. Default: 5 s.
    pub max_duration: Duration,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_bytes: 256 * MIB,
            max_pixels: 100_000_000,
            max_alloc: 768 * MIB,
            max_duration: Duration::from_secs(5),
        }
    }
}

/// What to do with an embedded ICC profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IccPolicy {
    /// Convert to sRGB what an RGB or gray profile describes; broken profiles are ignored.
    #[default]
    ConvertToSrgb,
    /// Take the numbers as they are stored, as `Image.convert("RGB")` of Pillow does.
    Ignore,
}

impl std::fmt::Display for IccPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ConvertToSrgb => "srgb",
            Self::Ignore => "ignore",
        })
    }
}

/// How pictures are decoded that become a model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeMode {
    /// All their pixels.
    #[default]
    Exact,
    /// Large JPEGs at a half, a quarter or an eighth of their size, which skips most of the work
    /// after the entropy decoder. Vectors differ a little.
    Fast,
}

impl std::fmt::Display for DecodeMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        })
    }
}

/// How to decode; the default suits files from anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// What one picture may cost.
    pub limits: DecodeLimits,
    /// What to do with an embedded ICC profile.
    pub icc: IccPolicy,
    /// Pixels that the shorter side needs. A JPEG may then be decoded at a half, a quarter or an
    /// eighth of its size, so long as that many are left; limits count the whole picture. All its
    /// pixels when `None`.
    pub shrink_to: Option<u32>,
}

/// The place of a whole picture in an image decoded from it, in pixels of that image.
///
/// Scaling down leaves a last row and column that are not whole, at the beginning after some
/// orientations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// First column, 0 or a fraction.
    pub left: f64,
    /// First row, 0 or a fraction.
    pub top: f64,
    /// Columns.
    pub width: f64,
    /// Rows.
    pub height: f64,
}

impl Frame {
    /// Of a picture with all its pixels.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) }
    }
}

/// A decoded picture.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Upright, opaque 8-bit pixels, rows from top to bottom, R, G, B interleaved.
    pub image: RgbImage,
    /// Width of the whole picture in pixels, upright.
    pub width: u32,
    /// Height of the whole picture in pixels, upright.
    pub height: u32,
    /// Where the whole picture lies in `image`: all of it, unless it was scaled down
    /// ([`DecodeOptions::shrink_to`]).
    pub frame: Frame,
    /// What the file was.
    pub format: Format,
    /// Set when the file is damaged but still gave a picture.
    pub warning: Option<DecodeWarning>,
}

/// Why a decoded picture should be looked at with care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeWarning {
    /// A JPEG without its end marker: what lies below the cut is filled in by the decoder.
    #[error("JPEG ends before its end marker; the lower part of the picture may be missing")]
    Truncated,
    /// A JPEG with errors in its data; some blocks are grey or wrong.
    #[error("JPEG data is damaged; parts of the picture may be wrong")]
    Damaged,
}

/// Decodes the first or only picture of a file.
///
/// # Errors
/// See [`DecodeError`]: each variant says whether the file, this build or a limit is the cause.
/// A panic inside a decoder becomes [`DecodeError::Panicked`]; the panic hook of the process
/// still runs.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Decoded, DecodeError> {
    let budget = Budget::start(&options.limits);
    budget.check_bytes(bytes.len())?;
    let format = Format::sniff(bytes)?;
    // The closure only borrows shared data and its results are dropped on a panic.
    catch_unwind(AssertUnwindSafe(|| {
        let source = read(bytes, format, options.shrink_to, &budget)?;
        finish(source, format, options.icc, &budget)
    }))
    .unwrap_or_else(|payload| Err(DecodeError::panicked(format, payload.as_ref())))
}

/// A picture as stored: not yet upright, opaque or sRGB.
struct Source {
    /// Of the whole picture.
    width: u32,
    height: u32,
    /// By what its sides are divided in the samples, rounded up: 1, 2, 4 or 8.
    divisor: u32,
    samples: Samples,
    icc: Option<Vec<u8>>,
    orientation: Orientation,
    warning: Option<DecodeWarning>,
}

fn read(
    bytes: &[u8],
    format: Format,
    shrink_to: Option<u32>,
    budget: &Budget,
) -> Result<Source, DecodeError> {
    match format {
        Format::Jpeg => jpeg::read(bytes, shrink_to, budget),
        #[cfg(feature = "heic")]
        Format::Heic => heif::read(bytes, budget),
        #[cfg(feature = "avif")]
        Format::Avif => heif::read_avif(bytes, budget),
        _ => codec::read(bytes, format, budget),
    }
}

fn finish(
    source: Source,
    format: Format,
    icc: IccPolicy,
    budget: &Budget,
) -> Result<Decoded, DecodeError> {
    budget.check_time()?;
    let Source { width, height, divisor, samples, icc: profile, orientation, warning } = source;
    let mut colour = samples.into_colour();
    if let (IccPolicy::ConvertToSrgb, Some(profile)) = (icc, profile) {
        colour::convert_to_srgb(&mut colour, &profile);
        budget.check_time()?;
    }
    let [columns, rows] = [width, height].map(|side| side.div_ceil(divisor));
    let image = RgbImage::from_raw(columns, rows, colour.over_white())
        .ok_or_else(|| DecodeError::damaged(format, "holds fewer pixels than it declares"))?;
    let (width, height) = pixels::upright_sides((width, height), orientation);
    let frame = pixels::upright_frame((width, height), divisor, orientation);
    let image = pixels::upright(image, orientation);
    Ok(Decoded { image, width, height, frame, format, warning })
}
