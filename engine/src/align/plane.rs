//! Grey pictures at several sizes, and where they hold nothing but fill.

use image::RgbImage;

use crate::preprocess::resize_bicubic;

/// Longer sides of the levels, coarse to fine. A smaller picture keeps its size.
pub(super) const SIDES: [u32; 4] = [32, 64, 128, 256];
/// Half a window in which grey values differ by no more than [`FLAT`] to count as fill.
const WINDOW: usize = 2;
const FLAT: u8 = 4;
/// Share of a picture that one grey level must fill to be fill: skies are flat too, but graded.
const COMMON: f32 = 0.02;
/// Half the gap in fill that counts as fill too, such as letters on a caption.
const GAP: usize = 10;
/// How much farther than the fill its effect reaches, where it was smoothed.
const MARGIN: usize = 3;

/// Values 0..=255, row-major.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<u8>,
}

impl Plane {
    /// Bilinear value at a relative position, the border repeated.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (x, x1, fx) = place(x, self.width);
        let (y, y1, fy) = place(y, self.height);
        let value = |x: usize, y: usize| f32::from(self.values[y * self.width + x]);
        let top = value(x, y) * (1.0 - fx) + value(x1, y) * fx;
        let bottom = value(x, y1) * (1.0 - fx) + value(x1, y1) * fx;
        top * (1.0 - fy) + bottom * fy
    }

    /// Separable greatest (or, of inverted values, least) value in a window.
    fn spread(&self, radius: usize, pick: fn(u8, u8) -> u8) -> Self {
        let Self { width, height, .. } = *self;
        let mut rows = self.values.clone();
        for (row, out) in self.values.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
            for (x, out) in out.iter_mut().enumerate() {
                let window = &row[x.saturating_sub(radius)..(x + radius + 1).min(width)];
                *out = window.iter().copied().fold(row[x], pick);
            }
        }
        let mut values = rows.clone();
        for y in 0..height {
            let window = y.saturating_sub(radius)..(y + radius + 1).min(height);
            for other in window {
                for x in 0..width {
                    let out = &mut values[y * width + x];
                    *out = pick(*out, rows[other * width + x]);
                }
            }
        }
        Self { width, height, values }
    }
}

/// The two nearest positions and the weight of the second.
fn place(at: f32, length: usize) -> (usize, usize, f32) {
    let at = (at * length as f32 - 0.5).clamp(0.0, (length - 1) as f32);
    let low = at as usize;
    (low, (low + 1).min(length - 1), at - low as f32)
}

#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) grey: Plane,
    /// 255 where there is picture, 0 where there is fill.
    pub(super) picture: Plane,
    /// Grey values of fill.
    fill: Box<[bool; 256]>,
}

impl Level {
    /// Whether a pixel is in an area of fill.
    pub(super) fn is_fill(&self, place: usize) -> bool {
        self.picture.values[place] < 128
    }

    /// Whether a pixel has the grey of fill, wherever it is.
    pub(super) fn is_fill_grey(&self, place: usize) -> bool {
        self.fill[usize::from(self.grey.values[place])]
    }
}

/// A picture at all levels.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    size: (u32, u32),
    levels: Vec<Level>,
}

impl Planes {
    pub(super) fn new(image: &RgbImage) -> Self {
        let size = (image.width().max(1), image.height().max(1));
        let mut thumbnail = scaled(image, size, SIDES[SIDES.len() - 1]);
        let (mask, fill) = picture_mask(&grey(&thumbnail));
        let mut mask_image = RgbImage::from_fn(mask.width as u32, mask.height as u32, |x, y| {
            image::Rgb([mask.values[y as usize * mask.width + x as usize]; 3])
        });
        let mut levels = Vec::with_capacity(SIDES.len());
        for side in SIDES.into_iter().rev() {
            thumbnail = scaled(&thumbnail, size, side);
            mask_image = scaled(&mask_image, size, side);
            levels.push(Level {
                grey: grey(&thumbnail),
                picture: grey(&mask_image),
                fill: fill.clone(),
            });
        }
        levels.reverse();
        Self { size, levels }
    }

    /// Width and height of the picture itself.
    pub(super) fn size(&self) -> (u32, u32) {
        self.size
    }

    pub(super) fn level(&self, level: usize) -> &Level {
        &self.levels[level]
    }

    pub(super) fn finest(&self) -> &Level {
        &self.levels[self.levels.len() - 1]
    }
}

/// At most `side` long, in the proportions of `size`; never enlarged.
fn scaled(image: &RgbImage, size: (u32, u32), side: u32) -> RgbImage {
    let long = size.0.max(size.1).max(1);
    let length = |part: u32| {
        let scaled = (u64::from(part) * u64::from(side) + u64::from(long) / 2) / u64::from(long);
        u32::try_from(scaled).unwrap_or(side).clamp(1, side)
    };
    match long <= side || (image.width() <= side && image.height() <= side) {
        true if image.width() > 0 && image.height() > 0 => image.clone(),
        _ => resize_bicubic(image, length(size.0), length(size.1)),
    }
}

/// ITU-R 601 luma, as Pillow's `convert("L")`.
fn grey(image: &RgbImage) -> Plane {
    let luma = |pixel: &image::Rgb<u8>| {
        let [r, g, b] = pixel.0.map(u32::from);
        ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
    };
    let (width, height) = (image.width() as usize, image.height() as usize);
    Plane { width, height, values: image.pixels().map(luma).collect() }
}

/// Where there is picture, and which grey values fill has.
fn picture_mask(grey: &Plane) -> (Plane, Box<[bool; 256]>) {
    let greatest = grey.spread(WINDOW, u8::max);
    let least = grey.spread(WINDOW, u8::min);
    let flat: Vec<bool> =
        greatest.values.iter().zip(&least.values).map(|(high, low)| high - low <= FLAT).collect();
    let mut counts = [0u32; 256];
    for (value, _) in grey.values.iter().zip(&flat).filter(|(_, flat)| **flat) {
        counts[usize::from(*value)] += 1;
    }
    let needed = COMMON * grey.values.len() as f32;
    let common: Box<[bool; 256]> = Box::new(std::array::from_fn(|value| {
        let near = &counts[value.saturating_sub(2)..(value + 3).min(256)];
        near.iter().sum::<u32>() as f32 >= needed
    }));
    let is_fill = |(value, flat): (&u8, &bool)| *flat && common[usize::from(*value)];
    let values = grey.values.iter().zip(&flat).map(|pixel| u8::from(is_fill(pixel)) * 255);
    let fill = Plane { values: values.collect(), ..*grey };
    // Closed over gaps, and a little more.
    let closed = fill.spread(GAP, u8::max).spread(GAP - MARGIN, u8::min);
    (Plane { values: closed.values.iter().map(|fill| 255 - fill).collect(), ..closed }, common)
}
