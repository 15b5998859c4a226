//! Fruit on a table.

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, oklch};
use super::super::lot::Lot;
use super::backdrop::studio;

pub(super) fn fruits(canvas: &mut Canvas, lot: &mut Lot) {
    let hue = lot.real(0.0, 360.0);
    studio(canvas, lot, hue);
    let width = canvas.width();
    let table = lot.real(0.58, 0.7);
    let wood = lot.pick(&[
        oklch(0.5, 0.07, 60.0),
        oklch(0.68, 0.06, 75.0),
        oklch(0.38, 0.05, 45.0),
        grey(0.85),
        oklch(0.6, 0.08, 230.0),
    ]);
    canvas.fill(
        &Shape::rect((0.0, table), width, 1.0),
        Ink::down(table, lighter(wood, 0.12), 1.0, darker(wood, 0.3)),
    );
    if lot.chance(0.5) {
        for i in 1..5 {
            let y = table + (1.0 - table) * (i as f32 / 5.0).powf(1.3);
            canvas.stroke(
                &Shape::line(&[(0.0, y), (width, y)]),
                0.004,
                glass(darker(wood, 0.5), 0.4),
            );
        }
    }
    let middle = width * lot.real(0.42, 0.58);
    let bowl = lot.chance(0.45);
    let same = lot.chance(0.3).then(|| lot.whole(0, 7));
    let count = lot.whole(2, 6);
    if bowl {
        canvas.shadow((middle, 0.88), 0.42, 0.06);
        for i in 0..count + 1 {
            let spread = (i as f32 + 0.5) / (count + 1) as f32 - 0.5;
            let at =
                (middle + spread * 0.55, 0.6 - lot.real(0.0, 0.1) - 0.1 * (0.5 - spread.abs()));
            fruit(canvas, lot, same, at, 0.13);
        }
        let glaze = oklch(lot.real(0.4, 0.92), lot.real(0.01, 0.12), lot.real(0.0, 360.0));
        let side = [
            (middle - 0.4, 0.62),
            (middle - 0.33, 0.78),
            (middle - 0.16, 0.88),
            (middle + 0.16, 0.88),
            (middle + 0.33, 0.78),
            (middle + 0.4, 0.62),
        ];
        let ink = Ink::Linear(
            (middle - 0.4, 0.0),
            lighter(glaze, 0.3),
            (middle + 0.4, 0.0),
            darker(glaze, 0.35),
        );
        canvas.fill(&Shape::polygon(&side), ink);
        canvas.stroke(
            &Shape::line(&[(middle - 0.4, 0.625), (middle + 0.4, 0.625)]),
            0.022,
            lighter(glaze, 0.35),
        );
    } else {
        let size = (width / count as f32 * 0.5).min(0.22);
        for i in 0..count {
            let x = width * (i as f32 + 0.5) / count as f32 + lot.real(-0.02, 0.02);
            let y = table + lot.real(0.02, 0.18);
            canvas.shadow((x, y + size * 0.85), size * 1.05, size * 0.25);
            fruit(canvas, lot, same, (x, y), size);
        }
    }
}

/// A fruit of the given kind, or any, about `2 size` wide.
fn fruit(canvas: &mut Canvas, lot: &mut Lot, kind: Option<usize>, at: Point, size: f32) {
    let kind = kind.unwrap_or_else(|| lot.whole(0, 7));
    let size = size * lot.real(0.88, 1.1);
    let turn = lot.real(-18.0, 18.0);
    let tone = lot.real(-0.06, 0.06);
    canvas.within(at, (size, size), turn, |canvas| match kind {
        0 => apple(canvas, oklch(0.55 + tone, 0.2, 28.0)),
        1 => apple(canvas, oklch(0.76 + tone, 0.16, 125.0)),
        2 => round(canvas, oklch(0.74 + tone, 0.17, 60.0)),
        3 => lemon(canvas, oklch(0.88 + tone, 0.17, 100.0)),
        4 => pear(canvas, oklch(0.8 + tone, 0.14, 115.0)),
        5 => banana(canvas, oklch(0.87 + tone, 0.16, 95.0)),
        6 => grapes(canvas, oklch(0.42 + tone, 0.13, 310.0)),
        _ => melon(canvas, oklch(0.62 + tone, 0.2, 22.0)),
    });
}

fn stalk(canvas: &mut Canvas, from: Point) {
    let tip = (from.0 + 0.12, from.1 - 0.32);
    canvas.stroke(
        &Shape::curve(&[from, (from.0 + 0.03, from.1 - 0.18), tip]),
        0.07,
        oklch(0.4, 0.06, 60.0),
    );
    let leaf = [
        tip,
        (tip.0 + 0.25, tip.1 - 0.16),
        (tip.0 + 0.5, tip.1 + 0.02),
        (tip.0 + 0.22, tip.1 + 0.1),
    ];
    canvas.fill(&Shape::blob(&leaf), oklch(0.55, 0.14, 140.0));
}

fn shine(canvas: &mut Canvas) {
    canvas.fill(
        &Shape::ellipse((-0.36, -0.38), 0.14, 0.2).turned(35.0, (-0.36, -0.38)),
        glass(Color::WHITE, 0.5),
    );
}

fn apple(canvas: &mut Canvas, colour: Color) {
    let outline = [
        (0.0, -0.72),
        (0.5, -0.88),
        (0.93, -0.4),
        (0.78, 0.5),
        (0.28, 0.9),
        (0.0, 0.82),
        (-0.28, 0.9),
        (-0.78, 0.5),
        (-0.93, -0.4),
        (-0.5, -0.88),
    ];
    canvas.fill(&Shape::blob(&outline), Ink::ball((0.0, 0.0), 0.95, colour));
    shine(canvas);
    stalk(canvas, (0.0, -0.68));
}

fn round(canvas: &mut Canvas, colour: Color) {
    canvas.fill(&Shape::circle((0.0, 0.0), 0.9), Ink::ball((0.0, 0.0), 0.9, colour));
    for i in 0..40 {
        let (angle, away) = (i as f32 * 2.4, 0.85 * (i as f32 / 40.0).sqrt());
        let pore = (away * angle.cos(), away * angle.sin());
        canvas.fill(&Shape::circle(pore, 0.018), glass(darker(colour, 0.4), 0.4));
    }
    shine(canvas);
    canvas.fill(&Shape::circle((0.12, -0.72), 0.08), oklch(0.5, 0.12, 135.0));
}

fn lemon(canvas: &mut Canvas, colour: Color) {
    let outline = [
        (-1.05, 0.0),
        (-0.8, -0.32),
        (-0.2, -0.64),
        (0.45, -0.52),
        (0.85, -0.2),
        (1.08, 0.02),
        (0.85, 0.26),
        (0.4, 0.55),
        (-0.25, 0.64),
        (-0.82, 0.3),
    ];
    canvas.fill(&Shape::blob(&outline), Ink::ball((0.0, 0.0), 0.9, colour));
    shine(canvas);
}

fn pear(canvas: &mut Canvas, colour: Color) {
    let outline = [
        (0.0, -1.1),
        (0.3, -0.9),
        (0.42, -0.35),
        (0.8, 0.3),
        (0.55, 0.82),
        (0.0, 0.92),
        (-0.55, 0.82),
        (-0.8, 0.3),
        (-0.42, -0.35),
        (-0.3, -0.9),
    ];
    canvas.fill(&Shape::blob(&outline), Ink::ball((0.0, 0.2), 0.95, colour));
    shine(canvas);
    stalk(canvas, (0.0, -1.05));
}

fn banana(canvas: &mut Canvas, colour: Color) {
    let outline = [
        (-1.0, -0.55),
        (-0.7, 0.18),
        (0.0, 0.62),
        (0.8, 0.36),
        (1.08, -0.2),
        (0.98, -0.26),
        (0.62, 0.02),
        (0.0, 0.14),
        (-0.55, -0.15),
        (-0.86, -0.62),
    ];
    canvas.fill(
        &Shape::blob(&outline),
        Ink::down(-0.5, lighter(colour, 0.25), 0.65, darker(colour, 0.18)),
    );
    canvas.stroke(
        &Shape::curve(&[(-0.88, -0.5), (-0.6, 0.02), (0.0, 0.36), (0.7, 0.18), (1.0, -0.2)]),
        0.03,
        darker(colour, 0.25),
    );
    canvas.fill(&Shape::circle((-0.93, -0.6), 0.1), oklch(0.4, 0.06, 70.0));
    canvas.fill(&Shape::circle((1.03, -0.22), 0.07), oklch(0.3, 0.04, 60.0));
}

fn grapes(canvas: &mut Canvas, colour: Color) {
    stalk(canvas, (0.0, -0.75));
    for (row, count) in [4usize, 5, 4, 3, 2, 1].into_iter().enumerate() {
        for i in 0..count {
            let at = ((i as f32 - (count as f32 - 1.0) / 2.0) * 0.4, -0.6 + 0.32 * row as f32);
            canvas.fill(&Shape::circle(at, 0.235), Ink::ball(at, 0.235, colour));
        }
    }
}

fn melon(canvas: &mut Canvas, colour: Color) {
    let slice = |radius: f32| -> Vec<Point> {
        (0..=24)
            .map(|i| {
                let angle = std::f32::consts::PI * i as f32 / 24.0;
                (radius * angle.cos(), -0.2 + radius * angle.sin())
            })
            .collect()
    };
    for (radius, ink) in
        [(1.05, oklch(0.5, 0.13, 145.0)), (0.95, oklch(0.9, 0.08, 125.0)), (0.86, colour)]
    {
        canvas.fill(&Shape::polygon(&slice(radius)), ink);
    }
    for i in 0..9 {
        let angle = 0.3 + 0.31 * i as f32;
        let away = if i % 2 == 0 { 0.62 } else { 0.36 };
        let at = (away * angle.cos(), -0.2 + away * angle.sin());
        canvas.fill(&Shape::ellipse(at, 0.035, 0.06), grey(0.15));
    }
}
