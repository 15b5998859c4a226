//! Written pages, in a script of our own.

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;

pub(super) fn pages(canvas: &mut Canvas, lot: &mut Lot) {
    let width = canvas.width();
    let desk = oklch(lot.real(0.35, 0.75), lot.real(0.02, 0.08), lot.real(0.0, 360.0));
    let paper = match lot.whole(0, 4) {
        0 => oklch(lot.real(0.25, 0.35), 0.03, lot.pick(&[150.0, 260.0])),
        1 => oklch(0.9, 0.06, 85.0),
        _ => oklch(lot.real(0.94, 0.99), 0.012, lot.real(0.0, 360.0)),
    };
    let dark = paper.green() < 0.5;
    let ink = match (dark, lot.chance(0.3)) {
        (true, _) => grey(0.93),
        (false, true) => oklch(0.4, 0.13, 262.0),
        (false, false) => grey(0.22),
    };
    canvas.background(desk);
    let (margin, turn) = (lot.real(-0.02, 0.1), lot.real(-5.0, 5.0));
    let sheet = (margin, margin);
    let (w, h) = (width - 2.0 * margin, 1.0 - 2.0 * margin);
    let seed = lot.clone();
    canvas.within(
        (width / 2.0, 0.5),
        (1.0, 1.0),
        if margin > 0.03 { turn } else { 0.0 },
        |canvas| {
            canvas.within((-width / 2.0, -0.5), (1.0, 1.0), 0.0, |canvas| {
                canvas.fill(
                    &Shape::rect((margin + 0.012, margin + 0.018), w, h),
                    glass(grey(0.05), 0.35),
                );
                canvas.fill(
                    &Shape::rect(sheet, w, h),
                    Ink::Linear(sheet, lighter(paper, 0.3), (width, 1.0), paper),
                );
                write(
                    canvas,
                    &mut seed.clone(),
                    (margin + 0.07, margin + 0.06),
                    (w - 0.14, h - 0.12),
                    ink,
                );
            });
        },
    );
}

/// Fills an area with a page: title, columns, figures.
fn write(canvas: &mut Canvas, lot: &mut Lot, (left, top): Point, (w, h): Point, ink: Color) {
    let mut y = top;
    let hand = Hand::draw(lot, ink);
    if lot.chance(0.6) {
        let size = lot.real(0.05, 0.085);
        let (indent, length) = if lot.chance(0.5) { (0.15, 0.7) } else { (0.0, 0.85) };
        Hand { bold: 0.2, ..hand }.line(canvas, lot, (left + w * indent, y), w * length, size);
        y += size * 1.9;
    }
    let size = lot.real(0.018, 0.045);
    let spacing = size * lot.real(1.6, 2.2);
    if lot.chance(0.3) {
        let rule = mix(ink, oklch(0.75, 0.08, 235.0), 0.7);
        let mut rule_y = y + size * 1.15;
        while rule_y < top + h {
            canvas.stroke(
                &Shape::line(&[(left, rule_y), (left + w, rule_y)]),
                0.002,
                glass(rule, 0.6),
            );
            rule_y += spacing;
        }
    }
    let columns = if w > 0.8 { lot.whole(1, 3) } else { lot.whole(1, 2) };
    let gap = 0.05;
    let column_width = (w - gap * (columns - 1) as f32) / columns as f32;
    let accent = oklch(0.65, 0.15, lot.real(0.0, 360.0));
    for column in 0..columns {
        let x = left + column as f32 * (column_width + gap);
        let figure = lot.chance(0.35).then(|| lot.real(0.2, 0.6));
        let mut at = y;
        let mut drawn = false;
        while at < top + h - size {
            if figure.is_some_and(|share| !drawn && at > y + (h - y) * share) {
                drawn = true;
                let height = lot.real(0.12, 0.25).min(top + h - at - size);
                chart(canvas, lot, (x, at), (column_width, height), accent);
                at += height + spacing * 0.6;
                continue;
            }
            let last = lot.chance(0.16);
            let length = column_width * if last { lot.real(0.2, 0.8) } else { 1.0 };
            hand.line(canvas, lot, (x, at), length, size);
            at += spacing * if last { 1.7 } else { 1.0 };
        }
    }
}

/// A picture within the text: bars or a curve.
fn chart(canvas: &mut Canvas, lot: &mut Lot, (x, y): Point, (w, h): Point, colour: Color) {
    if h < 0.03 {
        return;
    }
    canvas.fill(&Shape::rect((x, y), w, h), glass(colour, 0.18));
    let count = lot.whole(4, 9);
    let step = w / count as f32;
    if lot.chance(0.5) {
        for i in 0..count {
            let bar = h * lot.real(0.15, 0.9);
            canvas.fill(
                &Shape::rect((x + step * (i as f32 + 0.2), y + h - bar), step * 0.6, bar),
                colour,
            );
        }
    } else {
        let points: Vec<Point> =
            (0..=count).map(|i| (x + step * i as f32, y + h * lot.real(0.15, 0.85))).collect();
        canvas.stroke(&Shape::curve(&points), 0.008, colour);
    }
}

/// How somebody writes.
#[derive(Clone, Copy)]
struct Hand {
    ink: Color,
    /// Width of the pen in units of the letters' height.
    bold: f32,
    slant: f32,
    joined: bool,
}

impl Hand {
    fn draw(lot: &mut Lot, ink: Color) -> Self {
        Self {
            ink,
            bold: lot.real(0.09, 0.16),
            slant: lot.real(-0.05, 0.35),
            joined: lot.chance(0.3),
        }
    }

    /// Words side by side; `at` is the upper left corner, `size` the height of small letters.
    fn line(self, canvas: &mut Canvas, lot: &mut Lot, (left, top): Point, length: f32, size: f32) {
        let mut x = left;
        loop {
            let letters = lot.whole(2, 9);
            let end = x + letters as f32 * size * 0.62;
            if end > left + length {
                return;
            }
            for letter in 0..letters {
                self.letter(canvas, lot, (x + letter as f32 * size * 0.62, top), size);
            }
            if self.joined {
                let base = top + size;
                canvas.stroke(
                    &Shape::line(&[(x, base), (end - size * 0.15, base)]),
                    size * self.bold * 0.7,
                    self.ink,
                );
            }
            x = end + size * 0.45;
        }
    }

    /// One of a dozen strokes that look like letters.
    fn letter(self, canvas: &mut Canvas, lot: &mut Lot, at: Point, size: f32) {
        let points: &[Point] = match lot.whole(0, 11) {
            0 => &[
                (0.4, 0.1),
                (0.1, 0.1),
                (0.05, 0.6),
                (0.2, 1.0),
                (0.42, 0.85),
                (0.42, 0.1),
                (0.45, 1.0),
            ],
            1 => &[(0.08, -0.5), (0.08, 1.0), (0.4, 0.9), (0.4, 0.4), (0.1, 0.35)],
            2 => &[(0.42, 0.25), (0.2, 0.05), (0.05, 0.5), (0.2, 1.0), (0.43, 0.85)],
            3 => &[(0.08, 0.0), (0.1, 1.0), (0.1, 0.4), (0.3, 0.1), (0.42, 0.4), (0.42, 1.0)],
            4 => &[(0.25, 0.05), (0.25, 1.0)],
            5 => &[(0.25, -0.4), (0.22, 0.8), (0.4, 1.0)],
            6 => &[(0.05, 0.55), (0.42, 0.5), (0.25, 0.05), (0.05, 0.55), (0.2, 1.0), (0.43, 0.85)],
            7 => &[(0.4, 0.1), (0.1, 0.2), (0.4, 0.7), (0.25, 1.0), (0.05, 0.9)],
            8 => &[(0.05, 0.05), (0.22, 1.0), (0.42, 0.05)],
            9 => &[(0.08, 0.05), (0.1, 0.9), (0.38, 0.95), (0.42, 0.05), (0.35, 1.5)],
            10 => &[(0.1, 1.0), (0.12, 0.1), (0.4, 0.2)],
            _ => &[(0.25, 0.05), (0.05, 0.5), (0.25, 1.0), (0.44, 0.5), (0.25, 0.05)],
        };
        let place =
            |&(x, y): &Point| (at.0 + size * (x + self.slant * (1.0 - y) * 0.5), at.1 + size * y);
        let points: Vec<Point> = points.iter().map(place).collect();
        canvas.stroke(&Shape::curve(&points), size * self.bold, self.ink);
    }
}
