//! From a picture to the model's input: shorter side resized, centre cropped, normalised.
//!
//! The same numbers as Hugging Face's PIL-backed image processor for DINOv2
//! (`BitImageProcessorPil`): sizes and crop offsets round as there, the resampler is Pillow's
//! bicubic bit for bit, and the normalisation is done in the same order and precision. Decoding
//! and colour are settled before; this module only sees RGB8.

mod resample;

use std::num::NonZeroU32;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::decode::{Decoded, Frame};

use resample::Window;

/// Mean of the ImageNet training pictures per channel, in R, G, B order, on the 0 to 1 scale
/// (`image_mean` in DINOv2's `preprocessor_config.json`).
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// Standard deviation belonging to [`IMAGENET_MEAN`] (`image_std`).
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Side of a DINOv2 patch in pixels: the crop must be a whole number of patches.
pub const PATCH_SIZE: u32 = 14;

/// Largest crop side, 128 patches: 16 384 tokens, far above what the models were trained for.
pub const MAX_CROP: u32 = 128 * PATCH_SIZE;

/// Largest length of the resized shorter side.
pub const MAX_RESIZE: u32 = 4096;

/// Why a picture cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The crop is not a whole number of patches, or out of range.
    #[error(
        "crop side is {crop}; it must be a multiple of {PATCH_SIZE} from {PATCH_SIZE} to {MAX_CROP}"
    )]
    Crop {
        /// The side asked for, in pixels.
        crop: u32,
    },
    /// The resized picture would not cover the crop, or is out of range.
    #[error(
        "shorter side is resized to {resize}; it must lie between the crop side {crop} and {MAX_RESIZE}"
    )]
    Resize {
        /// The resized shorter side asked for, in pixels.
        resize: u32,
        /// The crop side asked for, in pixels.
        crop: u32,
    },
    /// The picture has no pixels.
    #[error("picture is {width}×{height}; both sides must be at least 1 pixel")]
    EmptyImage {
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
    },
}

/// How pictures are brought to the model's input size.
///
/// Part of a model's identity: embeddings made with different settings must not be mixed.
/// Values read through serde are checked when they are used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Length in pixels to which the shorter side is resized, keeping the aspect ratio.
    pub resize: u32,
    /// Side in pixels of the square cut from the centre; a multiple of [`PATCH_SIZE`].
    pub crop: u32,
}

impl Default for Preprocess {
    /// Shorter side 256, crop 224: the published evaluation setting of DINOv2.
    fn default() -> Self {
        Self { resize: 256, crop: 224 }
    }
}

impl Preprocess {
    /// Checks and joins the two lengths, both in pixels.
    ///
    /// # Errors
    /// `Crop` and `Resize` when a length is out of range or the crop would not be covered.
    pub fn new(resize: u32, crop: u32) -> Result<Self, PreprocessError> {
        let preprocess = Self { resize, crop };
        preprocess.check()?;
        Ok(preprocess)
    }

    /// A square input of `size` pixels with the margin of the published setting: the shorter
    /// side becomes `size · 256 / 224`, rounded to the nearest pixel.
    ///
    /// # Errors
    /// `Crop` when `size` is not a multiple of [`PATCH_SIZE`] up to [`MAX_CROP`].
    pub fn for_size(size: u32) -> Result<Self, PreprocessError> {
        let resize = (u64::from(size) * 256 + 112) / 224;
        Self::new(u32::try_from(resize).unwrap_or(u32::MAX), size)
    }

    /// Resizes and crops. Output: `crop × crop` RGB8.
    ///
    /// Only the pixels of the crop are computed, so a very elongated picture costs no more than
    /// its own size.
    ///
    /// # Errors
    /// `EmptyImage` for a picture without pixels; `Crop` and `Resize` for settings out of range.
    pub fn to_rgb8(&self, image: &RgbImage) -> Result<RgbImage, PreprocessError> {
        let (width, height) = image.dimensions();
        self.resize_and_crop(image, (width, height), Frame::whole(width, height))
    }

    /// As [`to_rgb8`](Self::to_rgb8), of a picture `width × height` that lies in `image` where
    /// `frame` says; the same part of it is cut out.
    fn resize_and_crop(
        &self,
        image: &RgbImage,
        (width, height): (u32, u32),
        frame: Frame,
    ) -> Result<RgbImage, PreprocessError> {
        self.check()?;
        let empty = || PreprocessError::EmptyImage { width, height };
        let (full_width, full_height) = match (NonZeroU32::new(width), NonZeroU32::new(height)) {
            (Some(wide), Some(high)) if wide <= high => {
                (u64::from(self.resize), self.long_side(high, wide))
            }
            (Some(wide), Some(high)) => (self.long_side(wide, high), u64::from(self.resize)),
            _ => return Err(empty()),
        };
        let horizontal = self.centre(full_width, (frame.left, frame.width));
        let vertical = self.centre(full_height, (frame.top, frame.height));
        Ok(resample::resample(image, horizontal, vertical))
    }

    /// Resizes, crops and normalises. Output: `3 × crop × crop` f32 in channel, row, column
    /// order, channels R, G, B, each `(v / 255 - mean) / std`.
    ///
    /// # Errors
    /// As [`Self::to_rgb8`].
    pub fn to_chw(&self, image: &RgbImage) -> Result<Vec<f32>, PreprocessError> {
        Ok(normalise(&self.to_rgb8(image)?))
    }

    /// As [`to_chw`](Self::to_chw), of a picture that may have been scaled down while it was decoded.
    ///
    /// # Errors
    /// As [`Self::to_rgb8`].
    pub fn decoded_to_chw(&self, decoded: &Decoded) -> Result<Vec<f32>, PreprocessError> {
        Ok(normalise(&self.decoded_to_rgb8(decoded)?))
    }

    /// As [`to_rgb8`](Self::to_rgb8), of a picture that may have been scaled down while it was decoded.
    ///
    /// # Errors
    /// As there.
    pub fn decoded_to_rgb8(&self, decoded: &Decoded) -> Result<RgbImage, PreprocessError> {
        let whole = (decoded.width, decoded.height);
        self.resize_and_crop(&decoded.image, whole, decoded.frame)
    }

    fn check(&self) -> Result<(), PreprocessError> {
        let Self { resize, crop } = *self;
        if !crop.is_multiple_of(PATCH_SIZE) || !(PATCH_SIZE..=MAX_CROP).contains(&crop) {
            return Err(PreprocessError::Crop { crop });
        }
        if !(crop..=MAX_RESIZE).contains(&resize) {
            return Err(PreprocessError::Resize { resize, crop });
        }
        Ok(())
    }

    /// `int(resize * long / short)` of `get_resize_output_image_size` in transformers; integer
    /// division gives the same since the quotient is too coarse for f64 to round it up.
    fn long_side(&self, long: NonZeroU32, short: NonZeroU32) -> u64 {
        u64::from(self.resize) * u64::from(long.get()) / u64::from(short.get())
    }

    /// The middle `crop` of `full` positions, an odd margin leaving the extra one at the end.
    fn centre(&self, full: u64, source: (f64, f64)) -> Window {
        Window { full, start: (full - u64::from(self.crop)) / 2, len: self.crop, source }
    }
}

/// Normalises: `3 × height × width` f32 in channel, row, column order, channels R, G, B, each
/// `(v / 255 - mean) / std`.
pub fn normalise(image: &RgbImage) -> Vec<f32> {
    let mut output = Vec::with_capacity(image.len());
    for channel in 0..3 {
        let table = normalisation_table(channel);
        output.extend(image.pixels().map(|pixel| table[usize::from(pixel[channel])]));
    }
    output
}

/// Resizes to `width × height` with the result of Pillow's `Image.resize(size, BICUBIC)`.
///
/// An empty picture gives a black one; a `width` or `height` of zero gives an empty one.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = image.dimensions();
    let horizontal = Window::whole(from_width, width);
    resample::resample(image, horizontal, Window::whole(from_height, height))
}

/// The normalised value of each byte: rescaled in f64 and rounded to f32, then shifted and
/// scaled in f32, as `rescale` and `normalize` of transformers do with numpy.
pub(crate) fn normalisation_table(channel: usize) -> [f32; 256] {
    std::array::from_fn(|value| {
        let rescaled = (value as f64 * (1.0 / 255.0)) as f32;
        (rescaled - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused() {
        assert_eq!(Preprocess::new(256, 224), Ok(Preprocess::default()));
        for crop in [0, 13, 225, MAX_CROP + PATCH_SIZE] {
            assert_eq!(Preprocess::new(4096, crop), Err(PreprocessError::Crop { crop }));
        }
        for (resize, crop) in [(223, 224), (MAX_RESIZE + 1, 224)] {
            let error = PreprocessError::Resize { resize, crop };
            assert_eq!(Preprocess::new(resize, crop), Err(error));
        }
        let unchecked = Preprocess { resize: 10, crop: 224 };
        assert!(unchecked.to_rgb8(&RgbImage::new(5, 5)).is_err());
    }

    #[test]
    fn for_size_keeps_the_published_margin() {
        for (size, resize) in [(224, 256), (518, 592), (14, 16), (MAX_CROP, 2048)] {
            assert_eq!(Preprocess::for_size(size), Ok(Preprocess { resize, crop: size }));
        }
        assert!(Preprocess::for_size(u32::MAX).is_err());
    }

    #[test]
    fn elongated_pictures_cost_only_the_crop() {
        let preprocess = Preprocess::default();
        for (width, height) in [(1, 60_000), (60_000, 1), (1, 1), (3, 2)] {
            let image = RgbImage::from_pixel(width, height, image::Rgb([10, 20, 30]));
            let output = preprocess.to_rgb8(&image).expect("valid picture");
            assert_eq!(output.dimensions(), (224, 224));
            assert!(output.pixels().all(|pixel| pixel.0 == [10, 20, 30]));
        }
    }

    #[test]
    fn empty_pictures_are_an_error() {
        let error = Preprocess::default().to_chw(&RgbImage::new(0, 7));
        assert_eq!(error, Err(PreprocessError::EmptyImage { width: 0, height: 7 }));
    }

    #[test]
    fn chw_is_planar_and_normalised() {
        let image = RgbImage::from_pixel(300, 300, image::Rgb([0, 128, 255]));
        let chw = Preprocess::default().to_chw(&image).expect("valid picture");
        assert_eq!(chw.len(), 3 * 224 * 224);
        for (channel, value) in [0.0_f32, 128.0 / 255.0, 1.0].into_iter().enumerate() {
            let expected = (value - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel];
            let plane = &chw[channel * 224 * 224..][..224 * 224];
            assert!(plane.iter().all(|v| (v - expected).abs() < 1e-6));
        }
    }
}
