//! What people do to pictures: the edits that make near-copies.

use image::RgbImage;
use image::imageops::{self, FilterType};

use super::canvas::{Canvas, Shape};
use super::colour::{Color, glass};
use super::lot::Lot;

/// A change after which a picture still is the same picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Compressed hard: JPEG of quality 40.
    Reencoded,
    /// Half as wide and high.
    Shrunk,
    /// 90 % of each side kept.
    Cropped,
    /// A fifth brighter.
    Brightened,
    /// A line of writing across the lower edge.
    Captioned,
    /// Left and right exchanged.
    Mirrored,
    /// Without colour.
    Grey,
}

impl Edit {
    /// Every edit.
    pub(super) const ALL: [Self; 7] = [
        Self::Reencoded,
        Self::Shrunk,
        Self::Cropped,
        Self::Brightened,
        Self::Captioned,
        Self::Mirrored,
        Self::Grey,
    ];

    /// In file names and in `truth.csv`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reencoded => "reencoded",
            Self::Shrunk => "shrunk",
            Self::Cropped => "cropped",
            Self::Brightened => "brightened",
            Self::Captioned => "captioned",
            Self::Mirrored => "mirrored",
            Self::Grey => "grey",
        }
    }

    /// JPEG quality of the copy.
    pub(super) fn quality(self) -> u8 {
        if self == Self::Reencoded { 40 } else { super::QUALITY }
    }

    /// The edited picture.
    pub(super) fn apply(self, picture: &RgbImage, lot: &mut Lot) -> RgbImage {
        let (width, height) = picture.dimensions();
        match self {
            Self::Reencoded => picture.clone(),
            Self::Shrunk => {
                imageops::resize(picture, width / 2, height / 2, FilterType::CatmullRom)
            }
            Self::Cropped => {
                let (w, h) = (width * 9 / 10, height * 9 / 10);
                let x = lot.whole(0, (width - w) as usize) as u32;
                let y = lot.whole(0, (height - h) as usize) as u32;
                imageops::crop_imm(picture, x, y, w, h).to_image()
            }
            Self::Brightened => {
                let mut bright = picture.clone();
                for value in bright.iter_mut() {
                    *value = (f32::from(*value) * 1.2).min(255.0) as u8;
                }
                bright
            }
            Self::Captioned => caption(picture, lot),
            Self::Mirrored => imageops::flip_horizontal(picture),
            Self::Grey => {
                let mut grey = picture.clone();
                for pixel in grey.pixels_mut() {
                    let [red, green, blue] = pixel.0.map(u32::from);
                    // Rec. 601 luma, as in JPEG.
                    pixel.0 = [((299 * red + 587 * green + 114 * blue) / 1000) as u8; 3];
                }
                grey
            }
        }
    }
}

/// A dark band with a word-like row of marks.
fn caption(picture: &RgbImage, lot: &mut Lot) -> RgbImage {
    let Some(mut canvas) = Canvas::over(picture) else { return picture.clone() };
    let width = canvas.width();
    let top = 0.86;
    canvas.fill(&Shape::rect((0.0, top), width, 1.0 - top), glass(Color::BLACK, 0.6));
    let mut x = 0.06;
    while x < width - 0.1 {
        let word = lot.real(0.03, 0.12);
        let mark = Shape::rounded((x, top + 0.045), word, 0.04, 0.012);
        canvas.fill(&mark, Color::WHITE);
        x += word + 0.02;
    }
    canvas.into_picture()
}
