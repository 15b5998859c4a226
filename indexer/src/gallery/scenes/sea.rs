//! Boats, fish.

use std::f32::consts::TAU;

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;
use super::super::noise::fractal;
use super::backdrop::{Mood, hill};

pub(super) fn boats(canvas: &mut Canvas, lot: &mut Lot) {
    let mood = Mood::draw(lot);
    let width = canvas.width();
    let horizon = lot.real(0.4, 0.68);
    mood.sky(canvas, lot, horizon);
    if lot.chance(0.4) {
        let (seed, colour) = (lot.seed(), mix(oklch(0.5, 0.05, 230.0), mood.horizon, 0.5));
        hill(canvas, horizon - 0.01, lot.real(0.02, 0.09), 1.6, seed, colour);
    }
    let hue = lot.real(180.0, 250.0);
    let sea = mood.lit(oklch(lot.real(0.42, 0.6), lot.real(0.06, 0.11), hue));
    let ink = Ink::down(horizon, mix(sea, mood.horizon, 0.45), 1.0, darker(sea, 0.35));
    canvas.fill(&Shape::rect((0.0, horizon), width, 1.0), ink);
    waves(canvas, lot, horizon, lighter(sea, 0.5));
    let mut boats: Vec<f32> = (0..lot.whole(1, 5)).map(|_| lot.real(horizon + 0.02, 0.9)).collect();
    boats.sort_by(f32::total_cmp);
    for y in boats {
        let size = 0.12 + 0.55 * (y - horizon) + lot.real(0.0, 0.12);
        let at = (lot.real(0.12, 0.88) * width, y);
        boat(canvas, lot, at, size, mood);
    }
    for _ in 0..lot.whole(0, 5) {
        let (x, y) = (lot.real(0.0, width), lot.real(0.05, horizon * 0.8));
        let s = lot.real(0.01, 0.03);
        let gull = [
            (x - s, y - s * 0.4),
            (x - s * 0.4, y - s * 0.5),
            (x, y),
            (x + s * 0.4, y - s * 0.5),
            (x + s, y - s * 0.4),
        ];
        canvas.stroke(&Shape::curve(&gull), 0.004, grey(0.25));
    }
}

fn waves(canvas: &mut Canvas, lot: &mut Lot, horizon: f32, crest: Color) {
    let (rows, phase) = (lot.whole(6, 16), lot.real(0.0, 9.0));
    let steep = lot.real(0.2, 0.8);
    for row in 0..rows {
        let near = (row as f32 + 1.0) / rows as f32;
        let y = horizon + (1.0 - horizon) * near.powf(1.4);
        let (length, height) = (0.05 + 0.22 * near, 0.022 * near * steep);
        let points: Vec<Point> = (0..=60)
            .map(|i| {
                let x = canvas.width() * i as f32 / 60.0;
                (x, y + height * ((x / length + phase * near * 7.0) * TAU).sin())
            })
            .collect();
        canvas.stroke(
            &Shape::curve(&points),
            0.002 + 0.005 * near,
            glass(crest, 0.15 + 0.3 * near),
        );
    }
}

fn boat(canvas: &mut Canvas, lot: &mut Lot, at: Point, size: f32, mood: Mood) {
    let hull = mood.lit(oklch(lot.real(0.3, 0.75), lot.real(0.03, 0.16), lot.real(0.0, 360.0)));
    let sail = mood.lit(lot.pick(&[
        grey(0.97),
        oklch(0.9, 0.06, 85.0),
        oklch(0.65, 0.19, 28.0),
        oklch(0.72, 0.12, 230.0),
        oklch(0.85, 0.15, 95.0),
    ]));
    let (sails, stripe, lean) = (lot.whole(0, 3), lot.chance(0.4), lot.real(-5.0, 5.0));
    let flip = lot.sign();
    canvas.within(at, (flip * size, size), lean, |canvas| {
        canvas.within((0.0, 0.07), (1.0, 0.35), 0.0, |canvas| {
            canvas.fill(&Shape::ellipse((0.0, 0.1), 0.42, 0.2), glass(darker(hull, 0.5), 0.3));
        });
        if sails == 0 {
            canvas.fill(&Shape::rounded((-0.2, -0.17), 0.3, 0.17, 0.02), lighter(sail, 0.3));
            for i in 0..3 {
                let window = (-0.16 + 0.09 * i as f32, -0.13);
                canvas.fill(&Shape::rect(window, 0.05, 0.05), oklch(0.45, 0.06, 230.0));
            }
            canvas.fill(&Shape::rect((-0.12, -0.34), 0.1, 0.17), darker(sail, 0.15));
            canvas.fill(&Shape::rect((-0.12, -0.34), 0.1, 0.05), hull);
        } else {
            canvas.stroke(
                &Shape::line(&[(0.0, 0.02), (0.0, -0.82)]),
                0.018,
                oklch(0.4, 0.05, 60.0),
            );
            let main = [(0.02, -0.8), (0.02, -0.06), (0.3, -0.1), (0.2, -0.42)];
            let ink = Ink::Linear((0.0, 0.0), sail, (0.3, 0.0), darker(sail, 0.18));
            canvas.fill(&Shape::polygon(&main), ink);
            if stripe {
                let band = [(0.02, -0.5), (0.18, -0.47), (0.22, -0.36), (0.02, -0.38)];
                canvas.fill(&Shape::polygon(&band), hull);
            }
            if sails > 1 {
                let jib = [(-0.02, -0.74), (-0.34, -0.05), (-0.02, -0.1)];
                canvas.fill(&Shape::polygon(&jib), lighter(sail, 0.25));
            }
        }
        let shape = [(-0.42, -0.02), (0.42, -0.02), (0.33, 0.11), (-0.28, 0.11)];
        canvas.fill(
            &Shape::polygon(&shape),
            Ink::down(-0.02, lighter(hull, 0.2), 0.11, darker(hull, 0.3)),
        );
        canvas.stroke(&Shape::line(&[(-0.41, 0.0), (0.41, 0.0)]), 0.02, lighter(hull, 0.6));
    });
}

pub(super) fn fish(canvas: &mut Canvas, lot: &mut Lot) {
    let width = canvas.width();
    let hue = lot.real(165.0, 265.0);
    let water = oklch(lot.real(0.5, 0.8), 0.1, hue);
    canvas.background(Ink::down(0.0, lighter(water, 0.3), 1.0, darker(water, 0.6)));
    let (seed, strength) = (lot.seed(), lot.real(0.1, 0.4));
    canvas.veil(|x, y| {
        let ray = fractal((x + y * 0.4) * 5.0, 0.3, 3, seed);
        glass(Color::WHITE, ((ray - 0.5) * 2.0 * (1.0 - y) * strength).clamp(0.0, 0.5))
    });
    if lot.chance(0.6) {
        let (seed, sand) = (lot.seed(), mix(oklch(0.8, 0.07, 80.0), water, 0.35));
        hill(
            canvas,
            lot.real(0.82, 0.92),
            0.04,
            2.0,
            seed,
            Ink::down(0.8, sand, 1.0, darker(sand, 0.3)),
        );
    }
    for _ in 0..lot.whole(0, 7) {
        weed(canvas, lot, water);
    }
    let shoal = lot.chance(0.4);
    let count = if shoal { lot.whole(6, 14) } else { lot.whole(1, 4) };
    let (kind, flip) = (Kind::draw(lot), lot.sign());
    for _ in 0..count {
        let kind = if shoal { kind } else { Kind::draw(lot) };
        let size = if shoal { lot.real(0.1, 0.17) } else { lot.real(0.24, 0.46) };
        let flip = if shoal { flip } else { lot.sign() };
        let at = (lot.real(0.15, 0.85) * width, lot.real(0.16, 0.84));
        let turn = lot.real(-14.0, 14.0);
        canvas.within(at, (flip * size, size), turn, |canvas| kind.fish(canvas));
    }
    for _ in 0..lot.whole(3, 26) {
        let (at, r) = ((lot.real(0.0, width), lot.real(0.0, 1.0)), lot.real(0.004, 0.018));
        canvas.stroke(&Shape::circle(at, r), 0.003, glass(Color::WHITE, 0.6));
    }
}

/// How a fish looks, facing left.
#[derive(Clone, Copy)]
struct Kind {
    body: Color,
    mark: Color,
    stripes: usize,
    height: f32,
    tail: f32,
}

impl Kind {
    fn draw(lot: &mut Lot) -> Self {
        let hue = lot.pick(&[15.0, 40.0, 60.0, 95.0, 150.0, 200.0, 300.0, 340.0]);
        Self {
            body: oklch(lot.real(0.55, 0.82), lot.real(0.1, 0.19), hue),
            mark: lot.pick(&[
                Color::WHITE,
                grey(0.2),
                oklch(0.4, 0.12, 265.0),
                oklch(0.9, 0.14, 100.0),
            ]),
            stripes: lot.whole(0, 4),
            height: lot.real(0.2, 0.42),
            tail: lot.real(0.14, 0.28),
        }
    }

    fn fish(self, canvas: &mut Canvas) {
        let Self { body, mark, stripes, height, tail } = self;
        let fin = darker(body, 0.18);
        canvas.fill(&Shape::polygon(&[(0.38, 0.0), (0.68, -tail), (0.6, 0.0), (0.68, tail)]), fin);
        canvas.fill(
            &Shape::blob(&[(-0.15, -height * 0.8), (0.12, -height * 1.45), (0.3, -height * 0.5)]),
            fin,
        );
        canvas.fill(
            &Shape::polygon(&[(0.0, height * 0.7), (0.2, height * 1.3), (0.22, height * 0.6)]),
            fin,
        );
        let outline = [
            (-0.5, 0.02),
            (-0.3, -height * 0.75),
            (0.0, -height),
            (0.3, -height * 0.5),
            (0.46, 0.0),
            (0.3, height * 0.5),
            (0.0, height),
            (-0.3, height * 0.75),
        ];
        canvas.fill(
            &Shape::blob(&outline),
            Ink::down(-height, lighter(body, 0.15), height, lighter(body, 0.5)),
        );
        for i in 0..stripes {
            let x = -0.18 + 0.16 * i as f32;
            let reach = height * (0.85 - 0.14 * i as f32);
            canvas.stroke(&Shape::curve(&[(x, -reach), (x + 0.035, 0.0), (x, reach)]), 0.055, mark);
        }
        canvas.fill(&Shape::blob(&[(0.0, 0.03), (0.16, height * 0.45), (0.05, height * 0.3)]), fin);
        canvas.fill(&Shape::circle((-0.33, -height * 0.22), 0.055), Color::WHITE);
        canvas.fill(&Shape::circle((-0.34, -height * 0.22), 0.03), grey(0.1));
        canvas.stroke(
            &Shape::curve(&[(-0.49, 0.05), (-0.44, 0.08), (-0.4, 0.07)]),
            0.014,
            darker(body, 0.5),
        );
    }
}

fn weed(canvas: &mut Canvas, lot: &mut Lot, water: Color) {
    let x = lot.real(0.0, canvas.width());
    let (height, sway) = (lot.real(0.15, 0.5), lot.real(0.01, 0.05));
    let colour =
        mix(oklch(lot.real(0.4, 0.65), 0.13, lot.pick(&[130.0, 145.0, 20.0, 330.0])), water, 0.25);
    for blade in 0..lot.whole(1, 4) {
        let x = x + 0.03 * blade as f32;
        let points: Vec<Point> = (0..=8)
            .map(|i| {
                let up = i as f32 / 8.0;
                (x + sway * (up * 7.0 + blade as f32).sin(), 1.0 - up * height)
            })
            .collect();
        canvas.stroke(&Shape::curve(&points), 0.014, colour);
    }
}
