//! Mountains, night skies, forests.

use std::f32::consts::{PI, TAU};

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;
use super::super::noise::fractal;
use super::backdrop::{Mood, ground, hill};

pub(super) fn mountains(canvas: &mut Canvas, lot: &mut Lot) {
    let mood = Mood::draw(lot);
    let horizon = lot.real(0.55, 0.8);
    mood.sky(canvas, lot, horizon);
    let width = canvas.width();
    let hue = lot.pick(&[30.0, 130.0, 200.0, 250.0, 280.0, 300.0]);
    let rock = oklch(lot.real(0.3, 0.48), lot.real(0.02, 0.07), hue);
    let layers = lot.whole(2, 4);
    let snow = lot.chance(0.6);
    let (steep, rate) = (lot.real(0.7, 1.25), lot.real(1.1, 2.6));
    for layer in 0..layers {
        let depth = 1.0 - layer as f32 / layers as f32;
        let base = horizon - 0.12 * depth;
        let rise = steep * (0.12 + 0.3 * depth);
        let colour = mix(mood.lit(rock), mood.horizon, depth * 0.6);
        let peaks = peaks(canvas.width(), base, rise, rate * (1.5 - depth * 0.5), lot.seed());
        let ink = Ink::down(base - rise, colour, horizon, mix(colour, mood.horizon, 0.45));
        canvas.fill(&Shape::polygon(&below(&peaks)), ink);
        if snow && depth > 0.5 {
            let white = mix(mood.lit(Color::WHITE), mood.horizon, 0.25 * depth);
            let line = base - rise * lot.real(0.45, 0.62);
            snow_caps(canvas, lot, &peaks, line, white);
        }
    }
    match lot.whole(0, 2) {
        0 => lake(canvas, lot, mood, horizon),
        1 => {
            let grass = mood.lit(oklch(lot.real(0.45, 0.68), 0.11, lot.real(95.0, 145.0)));
            ground(canvas, lot, horizon, darker(grass, 0.25), grass);
            for _ in 0..lot.whole(0, 14) {
                let y = lot.real(horizon + 0.02, 0.97);
                let size = 0.07 + 0.3 * (y - horizon);
                conifer(canvas, (lot.real(0.0, width), y), size, darker(grass, 0.5));
            }
        }
        _ => {
            let sand = mood.lit(oklch(lot.real(0.6, 0.78), 0.07, lot.real(50.0, 80.0)));
            ground(canvas, lot, horizon, darker(sand, 0.3), sand);
            let seed = lot.seed();
            hill(canvas, lot.real(0.82, 0.95), 0.05, 1.5, seed, darker(sand, 0.45));
        }
    }
}

/// A skyline of sharp summits up to `rise` above `base`, features `1 / rate` wide.
fn peaks(width: f32, base: f32, rise: f32, rate: f32, seed: u64) -> Vec<Point> {
    (0..=240)
        .map(|i| {
            let x = width * i as f32 / 240.0;
            // Folding smooth noise at its middle makes crests.
            let crest = 1.0 - (2.0 * fractal(x * rate, 0.5, 2, seed) - 1.0).abs() * 2.2;
            let rough = 0.12 * (fractal(x * rate * 7.0, 1.5, 3, seed) - 0.5);
            (x, base - rise * (crest + rough).clamp(0.0, 1.1))
        })
        .collect()
}

fn below(skyline: &[Point]) -> Vec<Point> {
    let right = skyline.last().map_or(0.0, |point| point.0);
    skyline.iter().copied().chain([(right, 1.01), (0.0, 1.01)]).collect()
}

/// White on whatever rises above a ragged line.
fn snow_caps(canvas: &mut Canvas, lot: &mut Lot, skyline: &[Point], line: f32, white: Color) {
    let seed = lot.seed();
    let edge = |x: f32| line + 0.09 * (fractal(x * 16.0, 0.5, 2, seed) - 0.5);
    // Where the skyline is below the edge, both sides coincide and enclose nothing.
    let upper = skyline.iter().map(|&(x, y)| (x, y.min(edge(x))));
    let lower = skyline.iter().rev().map(|&(x, _)| (x, edge(x)));
    let cap: Vec<Point> = upper.chain(lower).collect();
    canvas.fill(&Shape::polygon(&cap), white);
}

fn lake(canvas: &mut Canvas, lot: &mut Lot, mood: Mood, horizon: f32) {
    let water = mix(mood.zenith, oklch(0.5, 0.07, 220.0), 0.4);
    let ink = Ink::down(horizon, mix(water, mood.horizon, 0.5), 1.0, darker(water, 0.3));
    canvas.fill(&Shape::rect((0.0, horizon), canvas.width(), 1.0 - horizon), ink);
    for _ in 0..lot.whole(10, 40) {
        let y = lot.real(horizon, 1.0);
        let x = lot.real(-0.1, canvas.width());
        let length = lot.real(0.03, 0.2);
        let gleam = glass(lighter(water, 0.6), lot.real(0.1, 0.45));
        canvas.stroke(&Shape::line(&[(x, y), (x + length, y)]), 0.004, gleam);
    }
}

/// A spruce; `foot` is where it stands.
pub(super) fn conifer(canvas: &mut Canvas, foot: Point, size: f32, colour: Color) {
    canvas.within(foot, (size, size), 0.0, |canvas| {
        canvas.fill(&Shape::rect((-0.03, -0.15), 0.06, 0.16), oklch(0.32, 0.04, 55.0));
        for (bottom, half) in [(-0.08, 0.24), (-0.32, 0.19), (-0.54, 0.13)] {
            let triangle = [(0.0, bottom - 0.42), (half, bottom), (-half, bottom)];
            let ink = Ink::Linear((-half, 0.0), lighter(colour, 0.12), (half, 0.0), colour);
            canvas.fill(&Shape::polygon(&triangle), ink);
        }
    });
}

pub(super) fn nights(canvas: &mut Canvas, lot: &mut Lot) {
    let width = canvas.width();
    let hue = lot.pick(&[195.0, 250.0, 265.0, 290.0, 320.0]);
    let deep = oklch(lot.real(0.1, 0.2), 0.06, hue);
    canvas.background(Ink::down(0.0, deep, 1.0, oklch(0.38, 0.09, hue + lot.real(-40.0, 40.0))));
    match lot.whole(0, 3) {
        0 => aurora(canvas, lot),
        1 => milky_way(canvas, lot, hue),
        _ => {}
    }
    let tint = oklch(0.97, 0.03, lot.real(0.0, 360.0));
    for _ in 0..lot.whole(60, 320) {
        let at = (lot.real(0.0, width), lot.real(0.0, 0.9));
        let size = 0.0012 + 0.004 * lot.real(0.0, 1.0).powi(4);
        canvas.fill(&Shape::circle(at, size), glass(tint, lot.real(0.3, 1.0)));
    }
    if lot.chance(0.7) {
        let at = (lot.real(0.15, 0.85) * width, lot.real(0.14, 0.45));
        let radius = lot.real(0.05, 0.14);
        moon(canvas, lot, at, radius);
    }
    let land = darker(oklch(0.2, 0.03, hue), 0.4);
    for layer in 0..lot.whole(1, 3) {
        let (height, seed) = (lot.real(0.72, 0.8) + 0.08 * layer as f32, lot.seed());
        hill(canvas, height, 0.08, 2.2, seed, mix(land, deep, 0.5 - 0.2 * layer as f32));
    }
    if lot.chance(0.5) {
        for _ in 0..lot.whole(3, 16) {
            let foot = (lot.real(0.0, width), lot.real(0.88, 1.0));
            conifer(canvas, foot, lot.real(0.12, 0.3), darker(land, 0.6));
        }
    }
}

fn moon(canvas: &mut Canvas, lot: &mut Lot, at: Point, radius: f32) {
    let colour = oklch(0.93, lot.real(0.01, 0.08), lot.real(60.0, 110.0));
    canvas.glow(at, radius * 3.5, glass(colour, 0.35));
    if lot.chance(0.4) {
        // Half a circle, and back along a flatter arc.
        let (bulge, turn) = (lot.real(0.2, 0.75), lot.pick(&[20.0, -25.0, 160.0, 200.0]));
        let half = |i: usize| PI * (i as f32 / 24.0 - 0.5);
        let rim = (0..=24).map(|i| (at.0 + radius * half(i).cos(), at.1 + radius * half(i).sin()));
        let inner = (0..=24)
            .rev()
            .map(|i| (at.0 + radius * bulge * half(i).cos(), at.1 + radius * half(i).sin()));
        let crescent: Vec<Point> = rim.chain(inner).collect();
        canvas.fill(&Shape::polygon(&crescent).turned(turn, at), colour);
        return;
    }
    canvas.fill(&Shape::circle(at, radius), colour);
    for _ in 0..lot.whole(3, 8) {
        let (angle, away) = (lot.real(0.0, TAU), radius * lot.real(0.0, 0.7));
        let crater = (at.0 + away * angle.cos(), at.1 + away * angle.sin());
        canvas.fill(&Shape::circle(crater, radius * lot.real(0.06, 0.2)), darker(colour, 0.12));
    }
}

fn aurora(canvas: &mut Canvas, lot: &mut Lot) {
    let (seed, hue) = (lot.seed(), lot.pick(&[150.0, 165.0, 320.0]));
    let (base, bright) = (lot.real(0.35, 0.6), lot.real(0.5, 0.8));
    let (low, high) = (oklch(0.85, 0.2, hue), oklch(0.6, 0.18, hue + 110.0));
    canvas.veil(|x, y| {
        let edge = base + 0.22 * (fractal(x * 1.7, 3.5, 3, seed) - 0.5);
        let above = (edge - y) / 0.4;
        let rays = 0.4 + 0.6 * fractal(x * 22.0, y * 1.5, 2, seed ^ 1);
        let strength = if above < 0.0 { (1.0 + above * 14.0).max(0.0) } else { 1.0 - above };
        glass(mix(low, high, above.clamp(0.0, 1.0)), (strength * rays * bright).clamp(0.0, 0.85))
    });
}

fn milky_way(canvas: &mut Canvas, lot: &mut Lot, hue: f32) {
    let (seed, slope) = (lot.seed(), lot.real(-0.7, 0.7));
    let middle = canvas.width() / 2.0;
    let dust = oklch(0.85, 0.05, hue + 90.0);
    canvas.veil(|x, y| {
        let across = (y - 0.42 - slope * (x - middle)).abs() * 4.5;
        let cover = fractal(x * 5.0, y * 5.0, 5, seed);
        glass(dust, ((1.0 - across) * cover * 0.9).clamp(0.0, 0.75))
    });
}

pub(super) fn forests(canvas: &mut Canvas, lot: &mut Lot) {
    let width = canvas.width();
    let winter = lot.chance(0.25);
    let hue = lot.pick(&[40.0, 60.0, 85.0, 115.0, 130.0, 145.0, 160.0]);
    let leaf = if winter { grey(0.9) } else { oklch(lot.real(0.5, 0.72), 0.13, hue) };
    let fog = oklch(lot.real(0.78, 0.94), 0.05, lot.pick(&[95.0, 160.0, 220.0]));
    canvas.background(Ink::down(0.0, fog, 1.0, mix(fog, leaf, 0.4)));
    let floor =
        if winter { grey(0.93) } else { darker(mix(leaf, oklch(0.45, 0.06, 70.0), 0.5), 0.2) };
    let style = lot.whole(0, 2);
    let layers = lot.whole(2, 4);
    for layer in 0..layers {
        let near = (layer + 1) as f32 / layers as f32;
        let floor_top = 0.62 + 0.2 * near;
        for _ in 0..lot.whole(4, 9) {
            let foot = (lot.real(-0.05, width + 0.05), floor_top + lot.real(0.0, 0.05));
            let size = (0.3 + 0.75 * near) * lot.real(0.75, 1.2);
            let tint = mix(fog, darker(leaf, 0.1 + 0.2 * lot.real(0.0, 1.0)), 0.25 + 0.75 * near);
            match style {
                0 => conifer(canvas, foot, size, darker(tint, 0.3 * near)),
                1 => broadleaf(canvas, lot, foot, size, tint),
                _ => trunk(canvas, lot, foot, near, mix(fog, grey(0.35), near), winter),
            }
        }
        let (seed, colour) = (lot.seed(), mix(fog, floor, 0.3 + 0.7 * near));
        hill(
            canvas,
            floor_top + 0.03,
            0.02,
            4.0,
            seed,
            Ink::down(0.6, colour, 1.0, darker(colour, 0.3)),
        );
    }
    if lot.chance(0.4) {
        let sun = lot.real(0.0, width);
        for _ in 0..lot.whole(3, 6) {
            let (x, w) = (lot.real(-0.3, width), lot.real(0.04, 0.15));
            let beam = [(sun, -0.1), (sun + 0.03, -0.1), (x + w, 1.0), (x, 1.0)];
            canvas.fill(&Shape::polygon(&beam), glass(lighter(fog, 0.7), 0.13));
        }
    }
}

/// A round-headed tree.
pub(super) fn broadleaf(canvas: &mut Canvas, lot: &mut Lot, foot: Point, size: f32, colour: Color) {
    canvas.within(foot, (size, size), 0.0, |canvas| {
        let trunk = [(-0.045, 0.0), (-0.025, -0.5), (0.025, -0.5), (0.045, 0.0)];
        canvas.fill(&Shape::polygon(&trunk), darker(oklch(0.42, 0.05, 55.0), 0.1));
        for i in 0..lot.whole(6, 11) {
            let angle = i as f32 * 2.4;
            let away = 0.19 * (i as f32 / 10.0).sqrt();
            let at = (away * angle.cos() * 1.1, -0.62 + away * angle.sin());
            let radius = lot.real(0.11, 0.17);
            canvas.fill(&Shape::circle(at, radius), Ink::ball(at, radius, colour));
        }
    });
}

/// A bare stem that leaves the picture at the top, sometimes a birch's.
fn trunk(canvas: &mut Canvas, lot: &mut Lot, foot: Point, near: f32, colour: Color, pale: bool) {
    let half = 0.012 + 0.028 * near * lot.real(0.7, 1.4);
    let lean = lot.real(-0.05, 0.05);
    let (x, y) = foot;
    let outline = [
        (x - half * 1.3, y),
        (x + half * 1.3, y),
        (x + lean + half, -0.05),
        (x + lean - half, -0.05),
    ];
    let bark = if pale { grey(0.85) } else { colour };
    let ink =
        Ink::Linear((x - half, 0.0), lighter(bark, 0.25), (x + half, 0.0), darker(bark, 0.45));
    canvas.fill(&Shape::polygon(&outline), ink);
    for _ in 0..lot.whole(2, 7) {
        let (height, side) = (lot.real(0.02, y * 0.9), lot.sign());
        let from = (x + lean * (1.0 - height / y), height);
        let to = (from.0 + side * half * lot.real(2.0, 6.0), height - half * lot.real(1.0, 5.0));
        canvas.stroke(&Shape::line(&[from, to]), half * 0.35, darker(bark, 0.4));
        if pale {
            let mark = [(from.0 - half * 0.8, height), (from.0 - half * 0.1, height + 0.004)];
            canvas.stroke(&Shape::line(&mark), 0.006, grey(0.2));
        }
    }
}
