//! What several kinds of pictures stand in front of.

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, lighter, mix, oklch};
use super::super::lot::Lot;
use super::super::noise::fractal;

/// Time of day and weather.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mood {
    pub(super) zenith: Color,
    pub(super) horizon: Color,
    /// Colour of the sun, if it is out.
    pub(super) sun: Option<Color>,
    /// From 0 (night) to 1 (noon).
    pub(super) light: f32,
}

impl Mood {
    pub(super) fn draw(lot: &mut Lot) -> Self {
        let turn = lot.real(-12.0, 12.0);
        let (zenith, horizon, sun, light) = match lot.whole(0, 5) {
            // Blue day, with and without sun.
            0 => ((0.62, 0.13, 245.0), (0.9, 0.05, 225.0), Some((0.97, 0.06, 95.0)), 1.0),
            1 => ((0.7, 0.1, 235.0), (0.94, 0.03, 215.0), None, 0.95),
            // Dawn and dusk.
            2 => ((0.7, 0.09, 280.0), (0.89, 0.09, 45.0), Some((0.93, 0.12, 70.0)), 0.75),
            3 => ((0.42, 0.12, 285.0), (0.76, 0.16, 45.0), Some((0.85, 0.17, 55.0)), 0.55),
            // Overcast; greenish before a storm.
            4 => ((0.68, 0.02, 240.0), (0.86, 0.01, 230.0), None, 0.7),
            _ => ((0.55, 0.06, 195.0), (0.88, 0.08, 110.0), Some((0.95, 0.1, 100.0)), 0.7),
        };
        let colour = |(l, c, h): (f32, f32, f32)| oklch(l, c, h + turn);
        Self { zenith: colour(zenith), horizon: colour(horizon), sun: sun.map(colour), light }
    }

    /// A colour as it looks in this light.
    pub(super) fn lit(self, colour: Color) -> Color {
        mix(darker(colour, 0.75 * (1.0 - self.light)), self.horizon, 0.08)
    }

    /// Sky down to `horizon`, with sun and clouds as they come.
    pub(super) fn sky(self, canvas: &mut Canvas, lot: &mut Lot, horizon: f32) {
        canvas.background(Ink::down(0.0, self.zenith, horizon, self.horizon));
        let width = canvas.width();
        if let Some(sun) = self.sun {
            let at = (lot.real(0.12, 0.88) * width, lot.real(0.14, 0.85) * horizon);
            let radius = lot.real(0.035, 0.09);
            canvas.glow(at, radius * 5.0, glass(sun, 0.55));
            canvas.fill(&Shape::circle(at, radius), lighter(sun, 0.35));
        }
        match lot.whole(0, 3) {
            0 => veiled(canvas, lot, self.horizon, horizon),
            1 => {}
            _ => {
                for _ in 0..lot.whole(1, 5) {
                    let at = (lot.real(0.0, width), lot.real(0.06, 0.62) * horizon);
                    let colour = glass(lighter(self.horizon, 0.6), lot.real(0.55, 0.95));
                    cloud(canvas, lot, at, colour);
                }
            }
        }
    }
}

/// A heap of puffs with a flat base.
fn cloud(canvas: &mut Canvas, lot: &mut Lot, (x, y): Point, colour: Color) {
    let size = lot.real(0.03, 0.075);
    for i in 0..lot.whole(4, 8) {
        let place = i as f32 - 3.0;
        let puff = size * lot.real(0.7, 1.3) * (1.3 - 0.22 * place.abs());
        let at = (x + place * size * 0.85, y - puff * lot.real(0.1, 0.4));
        canvas.fill(&Shape::ellipse(at, puff * 1.25, puff * 0.8), colour);
    }
}

/// Thin torn clouds, all over.
fn veiled(canvas: &mut Canvas, lot: &mut Lot, colour: Color, horizon: f32) {
    let seed = lot.seed();
    let (long, density) = (lot.real(2.0, 4.0), lot.real(0.5, 0.8));
    let colour = lighter(colour, 0.5);
    canvas.veil(|x, y| {
        let cover = (fractal(x * long, y * long * 3.0, 4, seed) - 0.45) * 3.0;
        let fade = (1.0 - y / horizon).clamp(0.0, 1.0);
        glass(colour, (cover * density).clamp(0.0, 0.9) * fade.sqrt())
    });
}

/// Ground below a wavy horizon.
pub(super) fn ground(canvas: &mut Canvas, lot: &mut Lot, height: f32, near: Color, far: Color) {
    let bumps = lot.real(0.0, 0.03);
    let seed = lot.seed();
    hill(canvas, height, bumps, 2.0, seed, Ink::down(height, far, 1.0, near));
}

/// Everything below a random line about `height`, `rise` up and down with features `1 / rate` wide.
pub(super) fn hill(
    canvas: &mut Canvas,
    height: f32,
    rise: f32,
    rate: f32,
    seed: u64,
    ink: impl Into<Ink>,
) {
    let width = canvas.width();
    let steps = 160;
    let mut outline: Vec<Point> = (0..=steps)
        .map(|i| {
            let x = width * i as f32 / steps as f32;
            (x, height + rise * (1.0 - 2.0 * fractal(x * rate, 0.5, 4, seed)))
        })
        .collect();
    outline.extend([(width + 0.01, 1.01), (-0.01, 1.01)]);
    canvas.fill(&Shape::polygon(&outline), ink);
}

/// A plain surface behind a thing: a wall, a gradient, stripes or out-of-focus lights.
pub(super) fn studio(canvas: &mut Canvas, lot: &mut Lot, hue: f32) {
    let width = canvas.width();
    let (lightness, chroma) = (lot.real(0.55, 0.93), lot.real(0.02, 0.11));
    let colour = oklch(lightness, chroma, hue);
    let other = oklch(lightness - lot.real(0.05, 0.2), chroma, hue + lot.real(-50.0, 50.0));
    match lot.whole(0, 3) {
        0 => canvas.background(Ink::down(0.0, colour, 1.0, other)),
        1 => canvas.background(Ink::Radial((width / 2.0, 0.4), colour, 0.9, other)),
        2 => {
            canvas.background(colour);
            let count = lot.whole(5, 12);
            let step = width / count as f32;
            for i in 0..count {
                let at = (i as f32 * step, 0.0);
                canvas.fill(&Shape::rect(at, step / 2.0, 1.0), mix(colour, other, 0.5));
            }
        }
        _ => {
            canvas.background(Ink::down(0.0, other, 1.0, darker(other, 0.2)));
            for _ in 0..lot.whole(8, 22) {
                let at = (lot.real(0.0, width), lot.real(0.0, 1.0));
                let light = glass(lighter(colour, lot.real(0.1, 0.6)), lot.real(0.12, 0.4));
                canvas.fill(&Shape::circle(at, lot.real(0.03, 0.13)), light);
            }
        }
    }
}
