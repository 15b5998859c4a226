//! City skylines, cars, houses.

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;
use super::backdrop::{Mood, ground, hill};
use super::land::{broadleaf, conifer};
use super::living::around;

pub(super) fn cities(canvas: &mut Canvas, lot: &mut Lot) {
    let night = lot.chance(0.35);
    let mood = match night {
        true => Mood {
            zenith: oklch(0.18, 0.06, 270.0),
            horizon: oklch(0.42, 0.1, lot.pick(&[280.0, 320.0, 240.0])),
            sun: None,
            light: 0.35,
        },
        false => Mood::draw(lot),
    };
    let base = lot.real(0.78, 0.97);
    mood.sky(canvas, lot, base);
    let width = canvas.width();
    let hue = lot.real(0.0, 360.0);
    let layers = lot.whole(2, 3);
    let lights = if night { 0.75 } else { lot.pick(&[0.0, 0.15, 0.5]) };
    for layer in 0..layers {
        let near = (layer + 1) as f32 / layers as f32;
        let stone = oklch(lot.real(0.45, 0.72), lot.real(0.01, 0.07), hue + lot.real(-30.0, 30.0));
        let colour = mix(mood.horizon, mood.lit(stone), 0.25 + 0.75 * near);
        let mut x = lot.real(-0.1, 0.0);
        while x < width {
            let w = lot.real(0.07, 0.16) * (0.7 + 0.5 * near);
            let height = (lot.real(0.15, 0.55) + 0.12 * (1.0 - near))
                * if lot.chance(0.15) { 1.35 } else { 1.0 };
            let tint = lighter(colour, lot.real(0.0, 0.2));
            let front = layer + 1 == layers;
            tower(
                canvas,
                lot,
                (x, base - height.min(base * 0.9)),
                w,
                base,
                tint,
                if front { lights } else { lights * 0.4 },
            );
            x += w * lot.real(0.85, 1.25);
        }
    }
    if lot.chance(0.5) {
        let water = mood.lit(oklch(0.45, 0.05, 235.0));
        canvas.fill(
            &Shape::rect((0.0, base), width, 1.0),
            Ink::down(base, mix(water, mood.horizon, 0.4), 1.0, darker(water, 0.4)),
        );
        for _ in 0..lot.whole(15, 50) {
            let (x, y) = (lot.real(0.0, width), lot.real(base, 1.0));
            let gleam = glass(mix(mood.horizon, oklch(0.9, 0.1, 85.0), lights), 0.4);
            canvas.stroke(&Shape::line(&[(x, y), (x + lot.real(0.02, 0.08), y)]), 0.004, gleam);
        }
    } else {
        canvas.fill(&Shape::rect((0.0, base), width, 1.0), mood.lit(grey(0.4)));
    }
}

fn tower(
    canvas: &mut Canvas,
    lot: &mut Lot,
    (x, top): Point,
    w: f32,
    base: f32,
    colour: Color,
    lights: f32,
) {
    match lot.whole(0, 5) {
        0 => canvas.fill(
            &Shape::polygon(&[(x, top), (x + w / 2.0, top - w * 0.6), (x + w, top)]),
            darker(colour, 0.2),
        ),
        1 => canvas
            .fill(&Shape::ellipse((x + w / 2.0, top), w / 2.0, w * 0.35), darker(colour, 0.15)),
        2 => canvas.stroke(
            &Shape::line(&[(x + w / 2.0, top), (x + w / 2.0, top - w * 0.8)]),
            0.006,
            darker(colour, 0.3),
        ),
        3 => canvas.fill(
            &Shape::rect((x + w * 0.2, top - w * 0.25), w * 0.6, w * 0.3),
            darker(colour, 0.1),
        ),
        _ => {}
    }
    let ink = Ink::Linear((x, 0.0), lighter(colour, 0.1), (x + w, 0.0), darker(colour, 0.25));
    canvas.fill(&Shape::rect((x, top), w, base - top), ink);
    let columns = lot.whole(2, 5);
    let (step, rows) = (w / columns as f32, ((base - top) / 0.035) as usize);
    for row in 0..rows {
        for column in 0..columns {
            let at = (x + step * (column as f32 + 0.25), top + 0.012 + 0.035 * row as f32);
            let lamp = oklch(0.9, 0.11, lot.real(75.0, 100.0));
            let pane = if lot.chance(lights) { lamp } else { darker(colour, 0.35) };
            canvas.fill(&Shape::rect(at, step * 0.5, 0.018), pane);
        }
    }
}

pub(super) fn cars(canvas: &mut Canvas, lot: &mut Lot) {
    let mood = Mood::draw(lot);
    let road = lot.real(0.62, 0.74);
    mood.sky(canvas, lot, road);
    let width = canvas.width();
    match lot.whole(0, 2) {
        0 => {
            let (seed, green) = (lot.seed(), mood.lit(oklch(0.6, 0.11, lot.real(100.0, 150.0))));
            hill(
                canvas,
                road - 0.12,
                0.1,
                1.5,
                seed,
                Ink::down(road - 0.2, lighter(green, 0.2), road, green),
            );
        }
        1 => {
            let wall = mood.lit(oklch(lot.real(0.55, 0.8), 0.07, lot.real(20.0, 90.0)));
            let top = road - lot.real(0.3, 0.45);
            canvas.fill(&Shape::rect((0.0, top), width, road - top), wall);
            for i in 0..(width / 0.22) as usize + 1 {
                let at = (0.05 + 0.22 * i as f32, top + 0.06);
                canvas.fill(&Shape::rect(at, 0.11, 0.14), darker(wall, 0.5));
            }
        }
        _ => {
            let green = mood.lit(oklch(0.55, 0.12, lot.real(110.0, 150.0)));
            ground(canvas, lot, road - 0.08, darker(green, 0.2), green);
            for _ in 0..lot.whole(2, 6) {
                let (foot, size) = ((lot.real(0.0, width), road - 0.03), lot.real(0.25, 0.5));
                broadleaf(canvas, lot, foot, size, green);
            }
        }
    }
    let tar = mood.lit(grey(lot.real(0.35, 0.5)));
    canvas.fill(
        &Shape::rect((0.0, road), width, 1.0),
        Ink::down(road, lighter(tar, 0.1), 1.0, darker(tar, 0.3)),
    );
    let (dash, phase) = (lot.real(0.1, 0.25), lot.real(0.0, 0.2));
    for i in 0..(width / dash) as usize + 1 {
        let at = (phase + dash * i as f32 - 0.1, 0.93);
        canvas.fill(&Shape::rect(at, dash * 0.55, 0.014), lighter(tar, 0.75));
    }
    let count = if width > 1.25 { lot.whole(1, 2) } else { 1 };
    for i in 0..count {
        let room = width / count as f32;
        let size = (room * 0.78).min(lot.real(0.65, 0.95));
        let at = (room * (i as f32 + 0.5), road + lot.real(0.1, 0.17));
        canvas.shadow((at.0, at.1 + 0.01), size * 0.58, size * 0.06);
        let side = lot.sign();
        let paint =
            mood.lit(oklch(lot.real(0.35, 0.82), lot.real(0.02, 0.2), lot.real(0.0, 360.0)));
        let body = lot.whole(0, 3);
        canvas.within(at, (side * size, size), 0.0, |canvas| car(canvas, body, paint));
    }
}

/// A car 1 long that drives to the left, its wheels on the origin's height.
fn car(canvas: &mut Canvas, body: usize, paint: Color) {
    let cabin: &[Point] = match body {
        // Saloon, van, beetle, pick-up.
        0 => &[(-0.28, -0.24), (-0.16, -0.4), (0.16, -0.4), (0.32, -0.24)],
        1 => &[(-0.44, -0.24), (-0.34, -0.5), (0.47, -0.5), (0.48, -0.24)],
        2 => &[(-0.33, -0.22), (-0.2, -0.4), (0.0, -0.45), (0.2, -0.4), (0.4, -0.2)],
        _ => &[(-0.26, -0.24), (-0.18, -0.43), (0.08, -0.43), (0.1, -0.24)],
    };
    let shape = if body == 2 { Shape::blob(cabin) } else { Shape::polygon(cabin) };
    let ink = Ink::down(-0.45, lighter(paint, 0.35), -0.05, darker(paint, 0.25));
    canvas.fill(&shape, ink);
    canvas.fill(&Shape::rounded((-0.5, -0.27), 1.0, 0.2, 0.07), ink);
    let pane = Ink::down(-0.42, oklch(0.85, 0.04, 230.0), -0.24, oklch(0.5, 0.05, 235.0));
    let panes: &[[Point; 4]] = match body {
        0 => &[
            [(-0.22, -0.25), (-0.14, -0.37), (-0.01, -0.37), (-0.01, -0.25)],
            [(0.02, -0.25), (0.02, -0.37), (0.14, -0.37), (0.26, -0.25)],
        ],
        1 => &[
            [(-0.39, -0.27), (-0.31, -0.46), (-0.16, -0.46), (-0.16, -0.27)],
            [(-0.12, -0.3), (-0.12, -0.46), (0.12, -0.46), (0.12, -0.3)],
            [(0.16, -0.3), (0.16, -0.46), (0.42, -0.46), (0.42, -0.3)],
        ],
        2 => &[
            [(-0.22, -0.25), (-0.14, -0.36), (-0.01, -0.4), (-0.01, -0.25)],
            [(0.03, -0.25), (0.03, -0.4), (0.15, -0.36), (0.25, -0.25)],
        ],
        _ => &[
            [(-0.21, -0.25), (-0.15, -0.4), (-0.05, -0.4), (-0.05, -0.25)],
            [(-0.02, -0.25), (-0.02, -0.4), (0.05, -0.4), (0.06, -0.25)],
        ],
    };
    for corners in panes {
        canvas.fill(&Shape::polygon(corners), pane);
    }
    canvas.stroke(&Shape::line(&[(-0.49, -0.14), (0.49, -0.14)]), 0.012, darker(paint, 0.35));
    canvas.stroke(&Shape::line(&[(0.005, -0.24), (0.005, -0.1)]), 0.006, darker(paint, 0.4));
    canvas.fill(&Shape::rounded((0.05, -0.205), 0.06, 0.018, 0.008), lighter(paint, 0.6));
    canvas.fill(&Shape::ellipse((-0.475, -0.185), 0.025, 0.03), oklch(0.95, 0.08, 95.0));
    canvas.fill(&Shape::rounded((0.465, -0.22), 0.035, 0.06, 0.01), oklch(0.55, 0.2, 28.0));
    canvas.fill(&Shape::rounded((-0.53, -0.1), 1.06, 0.05, 0.02), grey(0.35));
    for x in [-0.3, 0.3] {
        canvas.fill(&Shape::circle((x, -0.085), 0.115), darker(paint, 0.6));
        canvas.fill(&Shape::circle((x, -0.085), 0.1), grey(0.18));
        canvas.fill(&Shape::circle((x, -0.085), 0.055), grey(0.75));
        for spoke in around(5, (x, -0.085), 0.05, x) {
            canvas.stroke(&Shape::line(&[(x, -0.085), spoke]), 0.01, grey(0.4));
        }
    }
}

pub(super) fn houses(canvas: &mut Canvas, lot: &mut Lot) {
    let mood = Mood::draw(lot);
    let horizon = lot.real(0.62, 0.76);
    mood.sky(canvas, lot, horizon);
    let width = canvas.width();
    let green = mood.lit(oklch(lot.real(0.5, 0.7), 0.11, lot.real(90.0, 145.0)));
    if lot.chance(0.5) {
        let seed = lot.seed();
        hill(canvas, horizon - 0.06, 0.07, 1.6, seed, mix(green, mood.horizon, 0.45));
    }
    ground(canvas, lot, horizon, darker(green, 0.25), green);
    let leaf = mood.lit(oklch(lot.real(0.42, 0.6), 0.12, lot.pick(&[60.0, 125.0, 140.0])));
    for _ in 0..lot.whole(0, 4) {
        let (foot, size) = ((lot.real(0.0, width), horizon + 0.06), lot.real(0.35, 0.6));
        if lot.chance(0.5) {
            broadleaf(canvas, lot, foot, size, leaf);
        } else {
            conifer(canvas, foot, size, leaf);
        }
    }
    let count = if width > 1.25 { lot.whole(1, 3) } else { 1 };
    for i in 0..count {
        let room = width / count as f32;
        let x = room * (i as f32 + 0.5) + lot.real(-0.08, 0.08) * room;
        let w = (room * lot.real(0.5, 0.72)).min(0.75);
        let foot = (x, horizon + lot.real(0.09, 0.15));
        house(canvas, lot, foot, w, mood);
    }
    if lot.chance(0.4) {
        for i in 0..(width / 0.06) as usize + 1 {
            let at = (0.06 * i as f32, 0.86);
            canvas.fill(&Shape::rounded(at, 0.034, 0.16, 0.015), mood.lit(grey(0.95)));
        }
        canvas.fill(&Shape::rect((0.0, 0.9), width, 0.022), mood.lit(grey(0.9)));
    }
}

/// A front with a roof; `foot` is the middle of its base.
fn house(canvas: &mut Canvas, lot: &mut Lot, (x, foot): Point, w: f32, mood: Mood) {
    let h = w * lot.real(0.5, 0.85);
    let top = foot - h.min(foot - 0.3);
    let left = x - w / 2.0;
    let wall = mood.lit(oklch(lot.real(0.66, 0.95), lot.real(0.01, 0.1), lot.real(0.0, 360.0)));
    let roof = mood.lit(oklch(
        lot.real(0.35, 0.58),
        lot.real(0.03, 0.13),
        lot.pick(&[30.0, 45.0, 250.0, 20.0, 160.0]),
    ));
    canvas.shadow((x, foot), w * 0.7, w * 0.07);
    if lot.chance(0.6) {
        let chimney = (x + w * lot.pick(&[-0.3, 0.22]), top - w * 0.42);
        canvas.fill(&Shape::rect(chimney, w * 0.1, w * 0.4), darker(roof, 0.15));
        for i in 0..lot.whole(0, 4) {
            let up = i as f32;
            let at = (chimney.0 + w * (0.05 + 0.05 * up), chimney.1 - w * (0.06 + 0.09 * up));
            canvas.fill(&Shape::circle(at, w * (0.04 + 0.015 * up)), glass(grey(0.92), 0.6));
        }
    }
    canvas.fill(
        &Shape::rect((left, top), w, foot - top),
        Ink::Linear((left, 0.0), lighter(wall, 0.1), (left + w, 0.0), darker(wall, 0.15)),
    );
    let (eave, pitch) = (w * 0.07, w * lot.real(0.28, 0.5));
    let gable = match lot.whole(0, 2) {
        0 => vec![(left - eave, top), (x, top - pitch), (left + w + eave, top)],
        1 => vec![
            (left - eave, top),
            (left + w * 0.12, top - pitch * 0.8),
            (left + w * 0.88, top - pitch * 0.8),
            (left + w + eave, top),
        ],
        _ => vec![
            (left - eave, top),
            (left - eave, top - pitch * 0.3),
            (left + w + eave, top - pitch),
            (left + w + eave, top),
        ],
    };
    canvas.fill(
        &Shape::polygon(&gable),
        Ink::down(top - pitch, lighter(roof, 0.1), top, darker(roof, 0.15)),
    );
    let door = mood.lit(oklch(lot.real(0.35, 0.6), 0.12, lot.real(0.0, 360.0)));
    let (dw, dh) = (w * 0.17, (foot - top) * 0.55);
    let dx = x + w * lot.pick(&[-0.09, -0.38, 0.2]);
    canvas.fill(&Shape::rounded((dx, foot - dh), dw, dh, dw * 0.12), door);
    canvas.fill(
        &Shape::circle((dx + dw * 0.82, foot - dh * 0.45), dw * 0.07),
        oklch(0.85, 0.12, 90.0),
    );
    let lamp = if mood.light < 0.7 { oklch(0.9, 0.12, 85.0) } else { oklch(0.7, 0.05, 230.0) };
    let columns = lot.whole(2, 4);
    for row in 0..lot.whole(1, 2) {
        for column in 0..columns {
            let size = w * 0.14;
            let at = (
                left + w * (column as f32 + 0.5) / columns as f32 - size / 2.0,
                top + w * (0.1 + 0.27 * row as f32),
            );
            let in_door = row > 0 || at.1 + size > foot - dh - 0.01;
            if at.1 + size > foot - 0.02 || (in_door && at.0 + size > dx && at.0 < dx + dw) {
                continue;
            }
            canvas.fill(
                &Shape::rect((at.0 - size * 0.1, at.1 - size * 0.1), size * 1.2, size * 1.2),
                lighter(wall, 0.6),
            );
            canvas.fill(&Shape::rect(at, size, size), lamp);
            let (cx, cy) = (at.0 + size / 2.0, at.1 + size / 2.0);
            canvas.stroke(
                &Shape::line(&[(cx, at.1), (cx, at.1 + size)]),
                size * 0.08,
                lighter(wall, 0.6),
            );
            canvas.stroke(
                &Shape::line(&[(at.0, cy), (at.0 + size, cy)]),
                size * 0.08,
                lighter(wall, 0.6),
            );
        }
    }
}
