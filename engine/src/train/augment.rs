//! Random views of a picture: the augmentation of DINOv2 (reference: `augmentations.py`).
//!
//! A view is drawn once and can be rendered at several sizes, so that a teacher and a student of
//! different input sizes see the same thing. Drawing depends on the given generator alone.

use std::f64::consts::PI;

use image::{RgbImage, imageops};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::preprocess::{normalise, resize_bicubic};

/// A generator that depends on nothing but the seed and what it is for, so that any view of any
/// picture can be drawn at any time, on any thread.
pub fn generator(seed: u64, purpose: &str, counters: [u64; 2]) -> ChaCha8Rng {
    let text = format!("{seed} {purpose} {} {}", counters[0], counters[1]);
    ChaCha8Rng::from_seed(Sha256::digest(text).into())
}

/// How views are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Least and greatest share of the picture's area.
    pub scale: (f64, f64),
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Probability of colour jitter: brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1.
    pub jitter: f64,
    /// Probability of losing all colour.
    pub grayscale: f64,
    /// Probability of a Gaussian blur, sigma 0.1 to 2 pixels of 224.
    pub blur: f64,
    /// Probability of inverting bright values (from 128).
    pub solarise: f64,
}

impl Augmentation {
    /// The first global view.
    pub const GLOBAL_1: Self = Self {
        scale: (0.32, 1.0),
        flip: 0.5,
        jitter: 0.8,
        grayscale: 0.2,
        blur: 1.0,
        solarise: 0.0,
    };
    /// The second global view.
    pub const GLOBAL_2: Self = Self { blur: 0.1, solarise: 0.2, ..Self::GLOBAL_1 };
    /// Local views.
    pub const LOCAL: Self = Self { scale: (0.05, 0.32), blur: 0.5, ..Self::GLOBAL_1 };
    /// Mild: for matching a teacher that has to make sense of the same view.
    pub const MATCHING: Self = Self {
        scale: (0.35, 1.0),
        flip: 0.5,
        jitter: 0.5,
        grayscale: 0.1,
        blur: 0.1,
        solarise: 0.0,
    };

    /// Draws a view of a picture of `width` x `height` pixels.
    pub fn draw(&self, width: u32, height: u32, rng: &mut impl Rng) -> View {
        let region = self.region(width.max(1), height.max(1), rng);
        let flip = rng.random_bool(self.flip);
        let mut order = [Jitter::Brightness, Jitter::Contrast, Jitter::Saturation, Jitter::Hue];
        order.shuffle(rng);
        let around = |range: f64, rng: &mut _| Rng::random_range(rng, 1.0 - range..=1.0 + range);
        let jitter = rng.random_bool(self.jitter).then(|| {
            order.map(|kind| {
                let amount = match kind {
                    Jitter::Brightness | Jitter::Contrast => around(0.4, rng),
                    Jitter::Saturation => around(0.2, rng),
                    Jitter::Hue => around(0.1, rng) - 1.0,
                };
                (kind, amount as f32)
            })
        });
        let grayscale = rng.random_bool(self.grayscale);
        let blur = rng.random_bool(self.blur).then(|| rng.random_range(0.1..=2.0));
        let solarise = rng.random_bool(self.solarise);
        View { region, flip, jitter, grayscale, blur, solarise }
    }

    /// torchvision's `RandomResizedCrop.get_params`, aspect ratio 3/4 to 4/3.
    fn region(&self, width: u32, height: u32, rng: &mut impl Rng) -> Region {
        let (full_width, full_height) = (f64::from(width), f64::from(height));
        let ratios = (3.0f64 / 4.0, 4.0f64 / 3.0);
        for _ in 0..10 {
            let area = full_width * full_height * rng.random_range(self.scale.0..=self.scale.1);
            let ratio = rng.random_range(ratios.0.ln()..=ratios.1.ln()).exp();
            let wide = (area * ratio).sqrt().round() as u32;
            let high = (area / ratio).sqrt().round() as u32;
            if (1..=width).contains(&wide) && (1..=height).contains(&high) {
                let x = rng.random_range(0..=width - wide);
                let y = rng.random_range(0..=height - high);
                return Region { x, y, width: wide, height: high };
            }
        }
        let ratio = full_width / full_height;
        let (wide, high) = if ratio < ratios.0 {
            (width, ((full_width / ratios.0).round() as u32).clamp(1, height))
        } else if ratio > ratios.1 {
            (((full_height * ratios.1).round() as u32).clamp(1, width), height)
        } else {
            (width, height)
        };
        Region { x: (width - wide) / 2, y: (height - high) / 2, width: wide, height: high }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Jitter {
    Brightness,
    Contrast,
    Saturation,
    Hue,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Region {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// One drawn view.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    region: Region,
    flip: bool,
    jitter: Option<[(Jitter, f32); 4]>,
    grayscale: bool,
    blur: Option<f64>,
    solarise: bool,
}

impl View {
    /// The view at `size` x `size` pixels.
    pub fn render(&self, picture: &RgbImage, size: u32) -> RgbImage {
        let Region { x, y, width, height } = self.region;
        let region = imageops::crop_imm(picture, x, y, width, height).to_image();
        let mut view = resize_bicubic(&region, size, size);
        if self.flip {
            imageops::flip_horizontal_in_place(&mut view);
        }
        for (kind, amount) in self.jitter.iter().flatten() {
            kind.apply(*amount, &mut view);
        }
        if self.grayscale {
            Jitter::Saturation.apply(0.0, &mut view);
        }
        if let Some(sigma) = self.blur {
            view = blur(&view, sigma * f64::from(size) / 224.0);
        }
        if self.solarise {
            view.iter_mut().filter(|v| **v >= 128).for_each(|v| *v = 255 - *v);
        }
        view
    }

    /// [`render`](Self::render), normalised for the model: (3, size, size), CHW.
    pub fn to_chw(&self, picture: &RgbImage, size: u32) -> Vec<f32> {
        normalise(&self.render(picture, size))
    }
}

/// ITU-R 601-2 luma.
fn luma(pixel: [f32; 3]) -> f32 {
    0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
}

impl Jitter {
    fn apply(self, amount: f32, picture: &mut RgbImage) {
        let float = |pixel: &image::Rgb<u8>| pixel.0.map(f32::from);
        let mean = match self {
            Self::Contrast => {
                let total: f64 = picture.pixels().map(|p| f64::from(luma(float(p)))).sum();
                (total / (picture.pixels().len().max(1)) as f64) as f32
            }
            _ => 0.0,
        };
        for pixel in picture.pixels_mut() {
            let value = float(pixel);
            let base = match self {
                Self::Brightness => 0.0,
                Self::Contrast => mean,
                Self::Saturation => luma(value),
                Self::Hue => {
                    pixel.0 = turn_hue(value, amount).map(|v| v.round().clamp(0.0, 255.0) as u8);
                    continue;
                }
            };
            pixel.0 = value.map(|v| (base + amount * (v - base)).round().clamp(0.0, 255.0) as u8);
        }
    }
}

/// Turns the hue by a share of the circle; value and saturation (HSV) stay.
fn turn_hue(pixel: [f32; 3], share: f32) -> [f32; 3] {
    let [r, g, b] = pixel;
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = max - min;
    if chroma == 0.0 {
        return pixel;
    }
    let sector = if max == r {
        (g - b) / chroma
    } else if max == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = (sector + 6.0 * share).rem_euclid(6.0);
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue) % 6.0;
        max - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// Gaussian blur with edges repeated, cut off at three sigma.
fn blur(picture: &RgbImage, sigma: f64) -> RgbImage {
    let radius = (3.0 * sigma).ceil() as i64;
    let density = |i: i64| (-(i * i) as f64 / (2.0 * sigma * sigma)).exp() / (2.0 * PI).sqrt();
    let total: f64 = (-radius..=radius).map(density).sum();
    let weights: Vec<f32> = (-radius..=radius).map(|i| (density(i) / total) as f32).collect();
    let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
    let pass = |source: &dyn Fn(i64, i64) -> [f32; 3], dx: i64, dy: i64| -> Vec<[f32; 3]> {
        let mut out = Vec::with_capacity((width * height) as usize);
        for y in 0..height {
            for x in 0..width {
                let mut sum = [0f32; 3];
                for (offset, weight) in (-radius..=radius).zip(&weights) {
                    let (x, y) = (x + dx * offset, y + dy * offset);
                    let value = source(x.clamp(0, width - 1), y.clamp(0, height - 1));
                    sum.iter_mut().zip(value).for_each(|(s, v)| *s += weight * v);
                }
                out.push(sum);
            }
        }
        out
    };
    let rows = pass(&|x, y| picture.get_pixel(x as u32, y as u32).0.map(f32::from), 1, 0);
    let both = pass(&|x, y| rows[(y * width + x) as usize], 0, 1);
    let mut out = picture.clone();
    for (pixel, value) in out.pixels_mut().zip(both) {
        pixel.0 = value.map(|v| v.round().clamp(0.0, 255.0) as u8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(90, 60, |x, y| image::Rgb([(x * 2) as u8, (y * 4) as u8, 77]))
    }

    #[test]
    fn a_view_is_a_function_of_the_generator() {
        let draw = |n| Augmentation::GLOBAL_1.draw(90, 60, &mut generator(7, "view", [n, 0]));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(3).to_chw(&picture(), 28).len(), 3 * 28 * 28);
    }

    #[test]
    fn regions_lie_inside_and_keep_to_the_scale() {
        for (width, height) in [(90, 60), (1, 1), (3, 400), (500, 2)] {
            for n in 0..200 {
                let mut rng = generator(1, "region", [n, 0]);
                let Region { x, y, width: w, height: h } =
                    Augmentation::LOCAL.region(width, height, &mut rng);
                assert!(w >= 1 && h >= 1 && x + w <= width && y + h <= height);
                if (width, height) == (90, 60) {
                    let share = f64::from(w * h) / 5400.0;
                    assert!((0.04..0.34).contains(&share), "{share}");
                }
            }
        }
    }

    #[test]
    fn colour_operations_do_what_they_say() {
        let one = |kind: Jitter, amount, rgb| {
            let mut picture = RgbImage::from_pixel(2, 2, image::Rgb(rgb));
            kind.apply(amount, &mut picture);
            picture.get_pixel(0, 0).0
        };
        assert_eq!(one(Jitter::Brightness, 0.5, [100, 50, 200]), [50, 25, 100]);
        assert_eq!(one(Jitter::Saturation, 0.0, [255, 0, 0]), [76, 76, 76]);
        assert_eq!(one(Jitter::Contrast, 1.4, [10, 10, 10]), [10, 10, 10]);
        assert_eq!(one(Jitter::Hue, 1.0 / 3.0, [200, 20, 20]), [20, 200, 20]);
        assert_eq!(one(Jitter::Hue, 0.0, [12, 200, 99]), [12, 200, 99]);
    }

    #[test]
    fn blur_keeps_flat_areas_and_spreads_a_dot() {
        let flat = RgbImage::from_pixel(9, 9, image::Rgb([40, 90, 200]));
        assert_eq!(blur(&flat, 1.3), flat);
        let mut dot = RgbImage::new(9, 9);
        dot.put_pixel(4, 4, image::Rgb([255; 3]));
        let spread = blur(&dot, 1.0);
        // 255 / (2 pi sigma^2)
        assert_eq!(spread.get_pixel(4, 4).0, [41; 3]);
        assert_eq!(spread.get_pixel(3, 4), spread.get_pixel(4, 5));
    }
}
