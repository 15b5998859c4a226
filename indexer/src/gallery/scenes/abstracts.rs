//! Patterns, spirals, shapes: pictures of nothing.

use std::f32::consts::TAU;

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;
use super::super::noise::fractal;
use super::living::around;

/// Three to five colours that go together, lightest first.
fn scheme(lot: &mut Lot) -> Vec<Color> {
    let hue = lot.real(0.0, 360.0);
    let step = lot.pick(&[20.0, 35.0, 120.0, 150.0, 180.0]);
    let chroma = lot.real(0.05, 0.18);
    let count = lot.whole(3, 5);
    (0..count)
        .map(|i| {
            let lightness = 0.93 - 0.62 * i as f32 / (count - 1) as f32;
            oklch(lightness, if i == 0 { 0.03 } else { chroma }, hue + step * i as f32)
        })
        .collect()
}

pub(super) fn patterns(canvas: &mut Canvas, lot: &mut Lot) {
    let colours = scheme(lot);
    canvas.background(colours[0]);
    let (width, turn) = (canvas.width(), lot.pick(&[0.0, 0.0, 15.0, 30.0, 45.0, 70.0]));
    let (pitch, kind) = (lot.real(0.06, 0.2), lot.whole(0, 7));
    let thick = lot.real(0.3, 0.7);
    let reach = (1.5 / pitch) as i32;
    let colour = |i: i32| colours[1 + i.rem_euclid(colours.len() as i32 - 1) as usize];
    canvas.within((width / 2.0, 0.5), (pitch, pitch), turn, |canvas| {
        for j in -reach..=reach {
            let y = j as f32;
            match kind {
                // Stripes, plaid, zigzag: whole lines.
                0 => canvas.fill(&Shape::rect((-99.0, y), 198.0, thick), colour(j)),
                1 => {
                    canvas.fill(&Shape::rect((-99.0, y), 198.0, thick), glass(colour(j), 0.6));
                    canvas.fill(&Shape::rect((y, -99.0), thick, 198.0), glass(colour(j + 1), 0.5));
                    canvas.fill(&Shape::rect((-99.0, y + thick / 2.0), 198.0, 0.06), colour(2));
                }
                2 => {
                    let zigzag: Vec<Point> = (-2 * reach..=2 * reach)
                        .map(|i| (i as f32 / 2.0, y + if i % 2 == 0 { 0.0 } else { 0.5 }))
                        .collect();
                    canvas.stroke(&Shape::line(&zigzag), thick * 0.6, colour(j));
                }
                _ => (-reach..=reach).for_each(|i| tile(canvas, kind, i, j, thick, colour(i + j))),
            }
        }
    });
}

/// One repeated cell.
fn tile(canvas: &mut Canvas, kind: usize, i: i32, j: i32, thick: f32, colour: Color) {
    let (x, y) = (i as f32, j as f32);
    let shift = if j % 2 == 0 { 0.0 } else { 0.5 };
    match kind {
        3 if (i + j) % 2 == 0 => canvas.fill(&Shape::rect((x, y), 1.0, 1.0), colour),
        4 => canvas.fill(&Shape::circle((x + shift, y), thick * 0.55), colour),
        5 => canvas.fill(&Shape::rounded((x + shift, y), 0.94, 0.9, 0.05), colour),
        6 => {
            let corners: Vec<Point> = around(6, (x + shift, y * 0.87), 0.54, TAU / 12.0).collect();
            canvas.fill(&Shape::polygon(&corners), colour);
        }
        7 => {
            let up = (i + j) % 2 == 0;
            let (base, tip) = if up { (y + 1.0, y) } else { (y, y + 1.0) };
            let triangle = [(x - 0.5, base), (x + 0.5, base), (x, tip)];
            canvas.fill(&Shape::polygon(&triangle), colour);
        }
        _ => {}
    }
}

pub(super) fn spirals(canvas: &mut Canvas, lot: &mut Lot) {
    let mut colours = scheme(lot);
    if lot.chance(0.5) {
        colours.reverse();
    }
    let width = canvas.width();
    let corner = (width * width + 1.0).sqrt();
    let at = (width * lot.real(0.35, 0.65), lot.real(0.35, 0.65));
    canvas.background(Ink::Radial(at, colours[0], corner * 0.7, mix(colours[0], colours[1], 0.45)));
    let ink = |i: usize| colours[1 + i % (colours.len() - 1)];
    match lot.whole(0, 4) {
        0 => {
            let (arms, turns) = (lot.whole(1, 5), lot.real(1.5, 5.0));
            let (thick, side) = (lot.real(0.012, 0.05), lot.sign());
            for arm in 0..arms {
                let points: Vec<Point> = (0..=260)
                    .map(|i| {
                        let t = i as f32 / 260.0;
                        let angle = side * TAU * (turns * t + arm as f32 / arms as f32);
                        (at.0 + 0.8 * t * angle.cos(), at.1 + 0.8 * t * angle.sin())
                    })
                    .collect();
                canvas.stroke(&Shape::curve(&points), thick, ink(arm));
            }
        }
        1 => {
            let (rings, wobble) = (lot.whole(7, 20), lot.real(0.0, 0.05));
            for ring in (1..=rings).rev() {
                let radius = 0.85 * ring as f32 / rings as f32;
                let off =
                    (at.0 + wobble * (ring as f32).sin(), at.1 + wobble * (ring as f32).cos());
                canvas.fill(&Shape::circle(off, radius), ink(ring));
            }
        }
        2 => {
            let (count, size) = (lot.whole(150, 420), lot.real(0.7, 1.2));
            for i in 0..count {
                let (angle, t) = (i as f32 * 2.399_963, (i as f32 / count as f32).sqrt());
                let dot = (at.0 + 0.7 * t * angle.cos(), at.1 + 0.7 * t * angle.sin());
                canvas.fill(&Shape::circle(dot, (0.004 + 0.02 * t) * size), ink(i % 3 + i / 90));
            }
        }
        3 => {
            let (k, loops) = (lot.whole(2, 7) as f32, lot.whole(1, 4));
            for turn in 0..loops {
                let scale = 0.47 - 0.1 * turn as f32;
                let points: Vec<Point> = (0..360)
                    .map(|i| {
                        let angle = TAU * i as f32 / 360.0;
                        let radius = scale * (0.25 + 0.75 * (k * angle + turn as f32).cos().abs());
                        (at.0 + radius * angle.cos(), at.1 + radius * angle.sin())
                    })
                    .collect();
                canvas.fill(&Shape::blob(&points), glass(ink(turn), 0.45));
                canvas.stroke(&Shape::blob(&points), 0.012, darker(ink(turn), 0.2));
            }
        }
        _ => {
            let (blades, twist) = (lot.whole(6, 18), lot.real(0.4, 1.6) * lot.sign());
            for blade in 0..blades {
                let edge = |offset: f32| {
                    let ink_turn = TAU * (blade as f32 + offset) / blades as f32;
                    (0..=20).map(move |i| {
                        let t = i as f32 / 20.0;
                        let angle = ink_turn + twist * t;
                        (at.0 + 1.1 * t * angle.cos(), at.1 + 1.1 * t * angle.sin())
                    })
                };
                let mut outline: Vec<Point> = edge(0.0).collect();
                outline.extend(edge(0.55).collect::<Vec<_>>().into_iter().rev());
                canvas.fill(&Shape::polygon(&outline), ink(blade));
            }
        }
    }
}

pub(super) fn shapes(canvas: &mut Canvas, lot: &mut Lot) {
    let colours = scheme(lot);
    let width = canvas.width();
    canvas.background(lighter(colours[0], 0.3));
    let colour = |lot: &mut Lot| colours[lot.whole(1, colours.len() - 1)];
    match lot.whole(0, 2) {
        // A grid of quarter circles, discs and halves.
        0 => {
            let rows = lot.whole(3, 5);
            let cell = 1.0 / rows as f32;
            for i in 0..(width / cell) as usize + 1 {
                for j in 0..rows {
                    let at = (i as f32 * cell, j as f32 * cell);
                    canvas.fill(&Shape::rect(at, cell + 0.002, cell + 0.002), colour(lot));
                    let over = if lot.chance(0.3) { colours[0] } else { colour(lot) };
                    let corner = (lot.pick(&[0.0, 1.0]), lot.pick(&[0.0, 1.0]));
                    bauhaus(canvas, lot.whole(0, 3), at, cell, corner, over);
                }
            }
        }
        // Large loose forms over each other.
        1 => {
            for _ in 0..lot.whole(5, 12) {
                let at = (lot.real(0.1, 0.9) * width, lot.real(0.1, 0.9));
                let (size, turn) = (lot.real(0.08, 0.3), lot.real(0.0, 180.0));
                let ink = glass(colour(lot), lot.real(0.65, 1.0));
                match lot.whole(0, 4) {
                    0 => canvas.fill(&Shape::circle(at, size), ink),
                    1 => canvas.stroke(&Shape::circle(at, size), size * 0.25, ink),
                    2 => {
                        let corners: Vec<Point> = around(3, at, size, turn).collect();
                        canvas.fill(&Shape::polygon(&corners), ink);
                    }
                    3 => {
                        let corner = (at.0 - size, at.1 - size * 0.4);
                        canvas.fill(
                            &Shape::rect(corner, size * 2.0, size * 0.8).turned(turn, at),
                            ink,
                        );
                    }
                    _ => {
                        let ends = [(at.0 - size * 1.5, at.1), (at.0 + size * 1.5, at.1)];
                        canvas.stroke(
                            &Shape::line(&ends).turned(turn, at),
                            0.018,
                            darker(ink, 0.3),
                        );
                    }
                }
            }
        }
        // Soft clouds of colour with a few hard edges.
        _ => {
            let (seed, scale) = (lot.seed(), lot.real(1.0, 3.5));
            let last = colours.len() - 1;
            canvas.veil(|x, y| {
                let t = (fractal(x * scale, y * scale, 4, seed) * 1.8 - 0.4).clamp(0.0, 0.999);
                let place = t * last as f32;
                mix(colours[place as usize], colours[place as usize + 1], place.fract())
            });
            for _ in 0..lot.whole(1, 5) {
                let at = (lot.real(0.0, width), lot.real(0.0, 1.0));
                canvas.stroke(&Shape::circle(at, lot.real(0.1, 0.4)), 0.012, grey(0.97));
            }
        }
    }
}

/// One cell of a grid: a disc, a quarter circle, a triangle or bars.
fn bauhaus(canvas: &mut Canvas, kind: usize, (x, y): Point, cell: f32, corner: Point, ink: Color) {
    let centre = (x + cell / 2.0, y + cell / 2.0);
    match kind {
        0 => canvas.fill(&Shape::circle(centre, cell * 0.36), ink),
        1 => {
            // A fan from one corner to the two next to it.
            let (cx, cy) = (x + corner.0 * cell, y + corner.1 * cell);
            let (dx, dy) = (1.0 - 2.0 * corner.0, 1.0 - 2.0 * corner.1);
            let mut fan = vec![(cx, cy)];
            fan.extend((0..=16).map(|i| {
                let angle = TAU / 4.0 * i as f32 / 16.0;
                (cx + dx * cell * angle.cos(), cy + dy * cell * angle.sin())
            }));
            canvas.fill(&Shape::polygon(&fan), ink);
        }
        2 => {
            let opposite = (x + (1.0 - corner.0) * cell, y + corner.1 * cell);
            let third = (x + corner.0 * cell, y + (1.0 - corner.1) * cell);
            canvas.fill(
                &Shape::polygon(&[(x + corner.0 * cell, y + corner.1 * cell), opposite, third]),
                ink,
            );
        }
        _ => {
            for i in 0..3 {
                let bar = (x, y + cell * (0.1 + 0.3 * i as f32));
                canvas.fill(&Shape::rect(bar, cell, cell * 0.15), ink);
            }
        }
    }
}
