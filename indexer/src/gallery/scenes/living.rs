//! Flowers, faces, cats.

use std::f32::consts::TAU;

use super::super::canvas::{Canvas, Ink, Point, Shape};
use super::super::colour::{Color, darker, glass, grey, lighter, mix, oklch};
use super::super::lot::Lot;
use super::backdrop::studio;

pub(super) fn flowers(canvas: &mut Canvas, lot: &mut Lot) {
    let width = canvas.width();
    let meadow = lot.chance(0.5);
    let hue = if meadow { lot.real(95.0, 150.0) } else { lot.real(0.0, 360.0) };
    studio(canvas, lot, hue);
    let green = oklch(lot.real(0.42, 0.62), lot.real(0.08, 0.14), lot.real(115.0, 155.0));
    let count = if meadow { lot.whole(5, 13) } else { lot.whole(1, 4) };
    let bloom = Bloom::draw(lot);
    let mixed = lot.chance(0.4);
    for i in 0..count {
        let bloom = if mixed { Bloom::draw(lot) } else { bloom };
        let spread = (i as f32 + 0.5) / count as f32;
        let x = width * (spread + lot.real(-0.3, 0.3) / count as f32).clamp(0.1, 0.9);
        let y = if meadow { lot.real(0.15, 0.75) } else { lot.real(0.28, 0.5) };
        let size = if meadow { lot.real(0.07, 0.14) } else { lot.real(0.17, 0.3) };
        let foot = (x + lot.real(-0.1, 0.1), 1.02);
        let bend = ((x + foot.0) / 2.0 + lot.real(-0.07, 0.07), (y + 1.0) / 2.0);
        canvas.stroke(&Shape::curve(&[(x, y), bend, foot]), size * 0.1, green);
        for side in [-1.0, 1.0] {
            let at = (bend.0, bend.1 + size * lot.real(0.0, 0.8));
            leaf(canvas, at, size * lot.real(0.7, 1.2), side * lot.real(25.0, 70.0), green);
        }
        bloom.flower(canvas, (x, y), size, lot.real(0.0, 60.0));
    }
}

/// A pointed leaf that grows upwards from `at`, leaning by `turn` degrees.
fn leaf(canvas: &mut Canvas, at: Point, size: f32, turn: f32, colour: Color) {
    canvas.within(at, (size, size), turn, |canvas| {
        let outline = [(0.0, 0.0), (0.2, -0.45), (0.0, -1.0), (-0.2, -0.45)];
        let ink = Ink::Linear((-0.2, 0.0), lighter(colour, 0.25), (0.2, 0.0), darker(colour, 0.15));
        canvas.fill(&Shape::blob(&outline), ink);
        canvas.stroke(&Shape::line(&[(0.0, 0.0), (0.0, -0.9)]), 0.025, darker(colour, 0.25));
    });
}

/// How a flower looks.
#[derive(Clone, Copy)]
struct Bloom {
    petal: Color,
    heart: Color,
    petals: usize,
    breadth: f32,
    rings: usize,
    pointed: bool,
}

impl Bloom {
    fn draw(lot: &mut Lot) -> Self {
        let petals = lot.whole(5, 18);
        let hue = lot.pick(&[0.0, 20.0, 45.0, 90.0, 265.0, 300.0, 330.0, 350.0]);
        let white = lot.chance(0.2);
        Self {
            petal: if white { grey(0.96) } else { oklch(lot.real(0.58, 0.86), 0.17, hue) },
            heart: lot.pick(&[
                oklch(0.82, 0.16, 85.0),
                oklch(0.42, 0.07, 50.0),
                oklch(0.72, 0.16, 60.0),
            ]),
            petals,
            breadth: lot.real(0.75, 1.15) * 3.0 / petals as f32,
            rings: lot.whole(1, 3),
            pointed: lot.chance(0.4),
        }
    }

    fn flower(self, canvas: &mut Canvas, at: Point, size: f32, turn: f32) {
        let Self { petal, heart, petals, breadth, rings, pointed } = self;
        for ring in 0..rings {
            let reach = size * (1.0 - 0.26 * ring as f32);
            let colour = lighter(petal, 0.14 * ring as f32);
            for i in 0..petals {
                let angle = turn + (i as f32 + 0.5 * ring as f32) * 360.0 / petals as f32;
                canvas.within(at, (reach, reach), angle, |canvas| {
                    let b = breadth.min(0.5);
                    let tip = if pointed { 0.08 } else { 0.75 };
                    let outline = [
                        (0.0, 0.0),
                        (b * 0.8, -0.45),
                        (b * tip, -0.92),
                        (0.0, -1.0),
                        (-b * tip, -0.92),
                        (-b * 0.8, -0.45),
                    ];
                    let ink = Ink::down(-1.0, colour, 0.0, darker(colour, 0.35));
                    canvas.fill(&Shape::blob(&outline), ink);
                    canvas.stroke(&Shape::blob(&outline), 0.012, glass(darker(colour, 0.5), 0.3));
                });
            }
        }
        let radius = size * 0.25;
        canvas.fill(&Shape::circle(at, radius), Ink::ball(at, radius, heart));
        for i in 0..18 {
            let (angle, away) = (i as f32 * 2.4, radius * 0.9 * (i as f32 / 18.0).sqrt());
            let dot = (at.0 + away * angle.cos(), at.1 + away * angle.sin());
            canvas.fill(&Shape::circle(dot, radius * 0.07), darker(heart, 0.45));
        }
    }
}

pub(super) fn faces(canvas: &mut Canvas, lot: &mut Lot) {
    let hue = lot.real(0.0, 360.0);
    studio(canvas, lot, hue);
    let count = if canvas.width() > 1.2 { lot.whole(1, 3) } else { 1 };
    for i in 0..count {
        let x = canvas.width() * (i as f32 + 0.5) / count as f32;
        let size = lot.real(0.6, 0.8) / (count as f32).sqrt();
        face(canvas, lot, (x, lot_y(count)), size);
    }
}

/// Groups stand a little lower than portraits.
fn lot_y(count: usize) -> f32 {
    0.5 + 0.03 * count as f32
}

fn face(canvas: &mut Canvas, lot: &mut Lot, at: Point, size: f32) {
    let smiley = lot.chance(0.3);
    let skin = match smiley {
        true => oklch(0.86, 0.14, lot.pick(&[85.0, 95.0, 140.0, 350.0])),
        false => oklch(lot.real(0.48, 0.88), lot.real(0.05, 0.08), lot.real(48.0, 68.0)),
    };
    let hair = lot.pick(&[
        grey(0.2),
        oklch(0.35, 0.06, 50.0),
        oklch(0.8, 0.1, 85.0),
        oklch(0.55, 0.14, 45.0),
        grey(0.8),
        oklch(0.55, 0.15, 330.0),
    ]);
    let shirt = oklch(lot.real(0.4, 0.75), 0.12, lot.real(0.0, 360.0));
    let (style, mouth) = (lot.whole(0, 4), lot.whole(0, 3));
    let (glasses, gap, tilt) = (lot.chance(0.3), lot.real(0.14, 0.2), lot.real(-8.0, 8.0));
    let iris = oklch(lot.real(0.3, 0.6), 0.09, lot.pick(&[50.0, 140.0, 240.0]));
    canvas.within(at, (size, size), 0.0, |canvas| {
        if !smiley {
            canvas.fill(
                &Shape::rounded((-0.55, 0.5), 1.1, 1.0, 0.3),
                Ink::down(0.5, shirt, 1.0, darker(shirt, 0.4)),
            );
            canvas.fill(&Shape::rounded((-0.13, 0.3), 0.26, 0.3, 0.08), darker(skin, 0.14));
        }
        canvas.within((0.0, 0.0), (1.0, 1.0), tilt, |canvas| {
            if !smiley && style == 1 {
                canvas.fill(&Shape::rounded((-0.47, -0.5), 0.94, 1.15, 0.4), hair);
            }
            if !smiley {
                for x in [-0.4, 0.4] {
                    canvas.fill(&Shape::ellipse((x, 0.02), 0.07, 0.1), darker(skin, 0.08));
                }
            }
            let (rx, ry) = if smiley { (0.46, 0.46) } else { (0.39, 0.47) };
            canvas.fill(
                &Shape::ellipse((0.0, 0.0), rx, ry),
                Ink::Radial((-0.12, -0.15), lighter(skin, 0.18), 0.75, darker(skin, 0.14)),
            );
            if !smiley {
                haircut(canvas, style, hair);
                canvas.stroke(
                    &Shape::curve(&[(0.0, -0.02), (0.05, 0.1), (-0.01, 0.12)]),
                    0.022,
                    darker(skin, 0.35),
                );
            }
            for x in [-gap, gap] {
                eye(canvas, (x, -0.06), smiley, iris, hair);
                canvas.glow((x * 1.35, 0.14), 0.1, glass(oklch(0.68, 0.17, 20.0), 0.35));
                if glasses {
                    canvas.stroke(&Shape::circle((x, -0.06), 0.115), 0.022, grey(0.2));
                }
            }
            if glasses {
                canvas.stroke(
                    &Shape::line(&[(-gap + 0.11, -0.06), (gap - 0.11, -0.06)]),
                    0.02,
                    grey(0.2),
                );
            }
            let red = oklch(0.48, 0.15, 20.0);
            match mouth {
                0 => canvas.stroke(
                    &Shape::curve(&[(-0.16, 0.2), (0.0, 0.27), (0.16, 0.2)]),
                    0.03,
                    red,
                ),
                1 => {
                    canvas.fill(
                        &Shape::blob(&[(-0.17, 0.18), (0.17, 0.18), (0.11, 0.3), (-0.11, 0.3)]),
                        red,
                    );
                    canvas.fill(&Shape::rounded((-0.12, 0.18), 0.24, 0.045, 0.02), Color::WHITE);
                }
                2 => canvas.fill(&Shape::ellipse((0.0, 0.24), 0.06, 0.08), darker(red, 0.3)),
                _ => canvas.stroke(
                    &Shape::curve(&[(-0.13, 0.27), (0.0, 0.22), (0.13, 0.27)]),
                    0.028,
                    red,
                ),
            }
        });
    });
}

fn eye(canvas: &mut Canvas, (x, y): Point, plain: bool, iris: Color, brow: Color) {
    if plain {
        canvas.fill(&Shape::ellipse((x, y), 0.045, 0.075), grey(0.15));
        return;
    }
    canvas.fill(&Shape::ellipse((x, y), 0.07, 0.05), Color::WHITE);
    canvas.fill(&Shape::circle((x, y), 0.04), iris);
    canvas.fill(&Shape::circle((x, y), 0.02), grey(0.05));
    canvas.fill(&Shape::circle((x - 0.012, y - 0.014), 0.009), Color::WHITE);
    let line = [(x - 0.08, y - 0.1), (x, y - 0.125), (x + 0.08, y - 0.1)];
    canvas.stroke(&Shape::curve(&line), 0.026, darker(brow, 0.25));
}

fn haircut(canvas: &mut Canvas, style: usize, hair: Color) {
    match style {
        0 | 1 => {
            let fringe = [
                (-0.42, -0.05),
                (-0.38, -0.42),
                (0.0, -0.56),
                (0.38, -0.42),
                (0.42, -0.05),
                (0.27, -0.26),
                (-0.05, -0.3),
            ];
            canvas.fill(&Shape::blob(&fringe), hair);
        }
        2 => {
            for i in 0..9 {
                let angle = (200.0 + 17.5 * i as f32).to_radians();
                let at = (0.36 * angle.cos(), -0.08 + 0.42 * angle.sin());
                canvas.fill(&Shape::circle(at, 0.13), hair);
            }
        }
        3 => {
            let cap = [(-0.41, -0.16), (-0.36, -0.4), (0.0, -0.55), (0.36, -0.4), (0.41, -0.16)];
            canvas.fill(&Shape::polygon(&cap), hair);
            canvas.fill(&Shape::rounded((-0.44, -0.24), 0.62, 0.08, 0.04), darker(hair, 0.35));
        }
        _ => {}
    }
}

pub(super) fn cats(canvas: &mut Canvas, lot: &mut Lot) {
    let hue = lot.real(0.0, 360.0);
    studio(canvas, lot, hue);
    let width = canvas.width();
    let whole = lot.chance(0.5);
    let fur = lot.pick(&[
        oklch(0.7, 0.12, 60.0),
        grey(0.3),
        grey(0.6),
        grey(0.93),
        oklch(0.5, 0.05, 55.0),
        oklch(0.83, 0.06, 75.0),
    ]);
    let cat = Cat {
        fur,
        pale: mix(fur, grey(0.97), 0.7),
        stripes: lot.chance(0.55),
        eyes: oklch(0.78, 0.15, lot.pick(&[95.0, 130.0, 220.0, 70.0])),
        slit: lot.real(0.012, 0.045),
        collar: lot.chance(0.4).then(|| oklch(0.55, 0.18, lot.real(0.0, 360.0))),
    };
    if whole {
        let rug = oklch(lot.real(0.45, 0.75), 0.09, lot.real(0.0, 360.0));
        let floor = lot.real(0.72, 0.82);
        canvas.fill(
            &Shape::rect((0.0, floor), width, 1.0),
            Ink::down(floor, rug, 1.0, darker(rug, 0.3)),
        );
        let size = lot.real(0.36, 0.48);
        let (x, side) = (lot.real(0.35, 0.65) * width, lot.sign());
        canvas.shadow((x, 0.9), size * 0.75, size * 0.15);
        canvas.within((x, 0.9), (size * side, size), 0.0, |canvas| cat.sitting(canvas));
    } else {
        let (x, turn) = (lot.real(0.4, 0.6) * width, lot.real(-14.0, 14.0));
        let size = lot.real(0.62, 0.85) * width.min(1.0);
        canvas.within((x, 0.55), (size, size), turn, |canvas| cat.head(canvas));
    }
}

struct Cat {
    fur: Color,
    pale: Color,
    stripes: bool,
    eyes: Color,
    slit: f32,
    collar: Option<Color>,
}

impl Cat {
    /// About 1 wide, around the origin.
    fn head(&self, canvas: &mut Canvas) {
        let Self { fur, pale, stripes, eyes, slit, .. } = *self;
        let dark = darker(fur, 0.42);
        for side in [-1.0, 1.0] {
            let ear = [(side * 0.44, -0.08), (side * 0.43, -0.58), (side * 0.1, -0.34)];
            canvas.fill(&Shape::polygon(&ear), darker(fur, 0.12));
            let inner = [(side * 0.39, -0.22), (side * 0.39, -0.48), (side * 0.2, -0.34)];
            canvas.fill(&Shape::polygon(&inner), oklch(0.75, 0.08, 15.0));
        }
        canvas.fill(
            &Shape::ellipse((0.0, 0.0), 0.48, 0.41),
            Ink::Radial((-0.1, -0.12), lighter(fur, 0.2), 0.7, darker(fur, 0.15)),
        );
        if stripes {
            for x in [-0.1, 0.0, 0.1] {
                canvas.stroke(&Shape::line(&[(x, -0.38), (x * 0.75, -0.2)]), 0.035, dark);
            }
            for (side, y) in [(-1.0, 0.02), (-1.0, 0.12), (1.0, 0.02), (1.0, 0.12)] {
                canvas.stroke(
                    &Shape::line(&[(side * 0.46, y), (side * 0.33, y + 0.01)]),
                    0.03,
                    dark,
                );
            }
        }
        canvas.fill(&Shape::ellipse((-0.085, 0.17), 0.13, 0.1), pale);
        canvas.fill(&Shape::ellipse((0.085, 0.17), 0.13, 0.1), pale);
        for x in [-0.19, 0.19] {
            canvas.fill(&Shape::ellipse((x, -0.05), 0.1, 0.085), grey(0.12));
            canvas.fill(&Shape::ellipse((x, -0.05), 0.088, 0.074), eyes);
            canvas.fill(&Shape::ellipse((x, -0.05), slit, 0.068), grey(0.05));
            canvas.fill(&Shape::circle((x - 0.03, -0.08), 0.017), Color::WHITE);
        }
        canvas.fill(
            &Shape::polygon(&[(-0.05, 0.09), (0.05, 0.09), (0.0, 0.145)]),
            oklch(0.6, 0.12, 15.0),
        );
        for side in [-1.0, 1.0] {
            let smile = [(0.0, 0.145), (side * 0.04, 0.21), (side * 0.11, 0.2)];
            canvas.stroke(&Shape::curve(&smile), 0.015, grey(0.25));
            for i in 0..3 {
                let y = 0.12 + 0.05 * i as f32;
                let whisker = [(side * 0.14, y), (side * 0.6, y - 0.1 + 0.1 * i as f32)];
                canvas.stroke(&Shape::line(&whisker), 0.008, glass(grey(0.97), 0.9));
            }
        }
    }

    /// About 2 high, standing on the origin.
    fn sitting(&self, canvas: &mut Canvas) {
        let Self { fur, pale, stripes, collar, .. } = *self;
        let dark = darker(fur, 0.42);
        let tail = [(0.35, -0.08), (0.75, -0.1), (0.85, -0.45), (0.7, -0.7)];
        canvas.stroke(&Shape::curve(&tail), 0.14, darker(fur, 0.15));
        let body = [
            (0.0, -1.15),
            (0.3, -0.8),
            (0.48, -0.3),
            (0.38, 0.0),
            (-0.38, 0.0),
            (-0.48, -0.3),
            (-0.3, -0.8),
        ];
        canvas.fill(
            &Shape::blob(&body),
            Ink::Linear((-0.45, 0.0), lighter(fur, 0.15), (0.45, 0.0), darker(fur, 0.2)),
        );
        if stripes {
            for (side, y) in [
                (-1.0, -0.75),
                (-1.0, -0.5),
                (-1.0, -0.25),
                (1.0, -0.75),
                (1.0, -0.5),
                (1.0, -0.25),
            ] {
                let reach = 0.42 + (y + 0.5) * -0.35;
                canvas.stroke(
                    &Shape::curve(&[
                        (side * reach, y),
                        (side * 0.25, y + 0.06),
                        (side * 0.16, y + 0.03),
                    ]),
                    0.05,
                    dark,
                );
            }
        }
        canvas.fill(&Shape::ellipse((0.0, -0.72), 0.17, 0.28), pale);
        for x in [-0.16, 0.16] {
            canvas.fill(&Shape::rounded((x - 0.11, -0.62), 0.22, 0.62, 0.1), lighter(fur, 0.1));
            canvas.fill(&Shape::ellipse((x, -0.03), 0.15, 0.08), pale);
        }
        if let Some(collar) = collar {
            canvas.stroke(
                &Shape::curve(&[(-0.24, -1.02), (0.0, -0.95), (0.24, -1.02)]),
                0.09,
                collar,
            );
            canvas.fill(&Shape::circle((0.0, -0.9), 0.06), oklch(0.85, 0.15, 90.0));
        }
        canvas.within((0.0, -1.38), (0.95, 0.95), 0.0, |canvas| self.head(canvas));
    }
}

/// Points around a circle, for wheels of things.
pub(super) fn around(
    count: usize,
    at: Point,
    radius: f32,
    turn: f32,
) -> impl Iterator<Item = Point> {
    (0..count).map(move |i| {
        let angle = turn + TAU * i as f32 / count as f32;
        (at.0 + radius * angle.cos(), at.1 + radius * angle.sin())
    })
}
