//! The kinds of pictures in the gallery: what one draws, and how it is finished.

mod backdrop;
mod land;
mod sea;
mod living;
mod town;
mod still;
mod abstracts;
mod paper;

use image::RgbImage;

use super::canvas::Canvas;
use super::lot::Lot;
use super::noise::fractal;

/// A kind of picture; also the name of its folder.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Extension of its files: flat colours and lettering are kept without loss.
    pub(super) extension: &'static str,
    draw: fn(&mut Canvas, &mut Lot),
}

/// All families, in the order of their names.
#[rustfmt::skip]
pub(super) static FAMILIES: [Family; 16] = [
    Family { name: "boats", extension: "jpg", draw: sea::boats },
    Family { name: "cars", extension: "jpg", draw: town::cars },
    Family { name: "cats", extension: "jpg", draw: living::cats },
    Family { name: "cities", extension: "jpg", draw: town::cities },
    Family { name: "faces", extension: "jpg", draw: living::faces },
    Family { name: "fish", extension: "jpg", draw: sea::fish },
    Family { name: "flowers", extension: "jpg", draw: living::flowers },
    Family { name: "forests", extension: "jpg", draw: land::forests },
    Family { name: "fruits", extension: "jpg", draw: still::fruits },
    Family { name: "houses", extension: "jpg", draw: town::houses },
    Family { name: "mountains", extension: "jpg", draw: land::mountains },
    Family { name: "nights", extension: "jpg", draw: land::nights },
    Family { name: "pages", extension: "png", draw: paper::pages },
    Family { name: "patterns", extension: "png", draw: abstracts::patterns },
    Family { name: "shapes", extension: "jpg", draw: abstracts::shapes },
    Family { name: "spirals", extension: "jpg", draw: abstracts::spirals },
];

/// Pixel sides and aspect ratios: the longer side, the shorter one, upright or not.
const LONGER: [u32; 4] = [352, 384, 448, 512];
const ASPECTS: [f32; 5] = [1.0, 1.25, 4.0 / 3.0, 1.5, 16.0 / 9.0];
const SHORTEST: u32 = 256;

/// Picture `number` of a family: 256 to 512 pixels a side. Equal arguments give equal pixels,
/// whatever the number of threads.
pub(super) fn render(seed: u64, family: usize, number: usize) -> RgbImage {
    let mut lot = Lot::of(&[seed, family as u64, number as u64]);
    let longer = lot.pick(&LONGER);
    let shorter = ((longer as f32 / lot.pick(&ASPECTS)) as u32).max(SHORTEST);
    let (width, height) = if lot.chance(0.7) { (longer, shorter) } else { (shorter, longer) };
    let Some(mut canvas) = Canvas::new(width, height) else {
        return RgbImage::new(width, height);
    };
    (FAMILIES[family].draw)(&mut canvas, &mut lot);
    finish(canvas, &mut lot, FAMILIES[family].extension == "png")
}

/// Light from one side, a darker rim, uneven colour and grain, as in photographs.
fn finish(canvas: Canvas, lot: &mut Lot, clean: bool) -> RgbImage {
    let mut picture = canvas.into_picture();
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let angle = lot.real(0.0, std::f32::consts::TAU);
    let (slope, rim) = (lot.real(0.0, 0.16), lot.real(0.0, 0.2));
    let warmth = lot.real(-0.05, 0.05);
    let (grain, blotch, seed) = (lot.real(0.0, 9.0), lot.real(0.0, 0.08), lot.seed());
    if clean {
        return picture;
    }
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (u, v) = (x as f32 / width - 0.5, y as f32 / height - 0.5);
        let light = 1.0 + slope * (u * angle.cos() + v * angle.sin()) * 2.0
            - rim * (u * u + v * v) * 2.0
            + blotch * (fractal(u * 5.0, v * 5.0, 2, seed) - 0.5);
        // The sum of three dice is close enough to a normal distribution.
        let dice = super::noise::noise(x as f32 * 1.37, y as f32 * 1.61, seed ^ 2) - 0.5;
        for (channel, tint) in pixel.0.iter_mut().zip([1.0 + warmth, 1.0, 1.0 - warmth]) {
            let value = f32::from(*channel) * light * tint + grain * dice;
            *channel = value.round().clamp(0.0, 255.0) as u8;
        }
    }
    picture
}
