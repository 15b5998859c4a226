//! A thin layer over tiny-skia: outlines and inks in units of the picture's height, so that a scene
//! draws the same at any size and aspect. The origin is the upper left corner.

use image::RgbImage;
use tiny_skia::{
    FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder, Pixmap,
    PremultipliedColorU8, RadialGradient, Rect, Shader, SpreadMode, Stroke, Transform,
};

use super::colour::{Color, glass};

/// x, y.
pub(super) type Point = (f32, f32);

/// An outline; empty when its numbers make none.
#[derive(Clone, Debug)]
pub(super) struct Shape(Option<Path>);

impl Shape {
    pub(super) fn circle((x, y): Point, radius: f32) -> Self {
        Self(PathBuilder::from_circle(x, y, radius))
    }

    pub(super) fn ellipse((x, y): Point, rx: f32, ry: f32) -> Self {
        Self(Rect::from_ltrb(x - rx, y - ry, x + rx, y + ry).and_then(PathBuilder::from_oval))
    }

    /// By its upper left corner.
    pub(super) fn rect((x, y): Point, width: f32, height: f32) -> Self {
        Self(Rect::from_xywh(x, y, width, height).map(PathBuilder::from_rect))
    }

    /// A rectangle with round corners.
    pub(super) fn rounded((x, y): Point, width: f32, height: f32, radius: f32) -> Self {
        let r = radius.min(width / 2.0).min(height / 2.0);
        let (right, bottom) = (x + width, y + height);
        let mut path = PathBuilder::new();
        path.move_to(x + r, y);
        path.line_to(right - r, y);
        path.quad_to(right, y, right, y + r);
        path.line_to(right, bottom - r);
        path.quad_to(right, bottom, right - r, bottom);
        path.line_to(x + r, bottom);
        path.quad_to(x, bottom, x, bottom - r);
        path.line_to(x, y + r);
        path.quad_to(x, y, x + r, y);
        path.close();
        Self(path.finish())
    }

    /// Straight lines from point to point, and back.
    pub(super) fn polygon(points: &[Point]) -> Self {
        Self::straight(points, true)
    }

    /// Straight lines from point to point.
    pub(super) fn line(points: &[Point]) -> Self {
        Self::straight(points, false)
    }

    fn straight(points: &[Point], closed: bool) -> Self {
        let mut path = PathBuilder::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        if closed {
            path.close();
        }
        Self(path.finish())
    }

    /// A closed curve through all points.
    pub(super) fn blob(points: &[Point]) -> Self {
        Self::through(points, true)
    }

    /// An open curve through all points.
    pub(super) fn curve(points: &[Point]) -> Self {
        Self::through(points, false)
    }

    /// Catmull-Rom: at each point the curve runs parallel to the line between its neighbours.
    fn through(points: &[Point], closed: bool) -> Self {
        let n = points.len() as isize;
        let at = |i: isize| match closed {
            true => points[i.rem_euclid(n) as usize],
            false => points[i.clamp(0, n - 1) as usize],
        };
        if n < 2 {
            return Self(None);
        }
        let mut path = PathBuilder::new();
        path.move_to(points[0].0, points[0].1);
        for i in 0..if closed { n } else { n - 1 } {
            let (before, from, to, after) = (at(i - 1), at(i), at(i + 1), at(i + 2));
            path.cubic_to(
                from.0 + (to.0 - before.0) / 6.0,
                from.1 + (to.1 - before.1) / 6.0,
                to.0 - (after.0 - from.0) / 6.0,
                to.1 - (after.1 - from.1) / 6.0,
                to.0,
                to.1,
            );
        }
        if closed {
            path.close();
        }
        Self(path.finish())
    }

    /// Turned clockwise about a point.
    pub(super) fn turned(self, degrees: f32, (x, y): Point) -> Self {
        Self(self.0.and_then(|path| path.transform(Transform::from_rotate_at(degrees, x, y))))
    }
}

/// What a shape is filled with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    /// One colour.
    Flat(Color),
    /// From one point to another.
    Linear(Point, Color, Point, Color),
    /// From a centre to a distance.
    Radial(Point, Color, f32, Color),
}

impl Ink {
    /// From the top down, between two heights.
    pub(super) fn down(top: f32, upper: Color, bottom: f32, lower: Color) -> Self {
        Self::Linear((0.0, top), upper, (0.0, bottom), lower)
    }

    /// A ball lit from the upper left.
    pub(super) fn ball((x, y): Point, radius: f32, colour: Color) -> Self {
        let light = super::colour::lighter(colour, 0.45);
        let dark = super::colour::darker(colour, 0.25);
        Self::Radial((x - radius * 0.35, y - radius * 0.4), light, radius * 1.5, dark)
    }

    fn shader(self, transform: Transform) -> Option<Shader<'static>> {
        let stops = |a, b| vec![GradientStop::new(0.0, a), GradientStop::new(1.0, b)];
        let point = |(x, y): Point| tiny_skia::Point::from_xy(x, y);
        let pad = SpreadMode::Pad;
        match self {
            Self::Flat(colour) => Some(Shader::SolidColor(colour)),
            Self::Linear(from, a, to, b) => {
                LinearGradient::new(point(from), point(to), stops(a, b), pad, transform)
            }
            Self::Radial(centre, a, radius, b) => {
                let centre = point(centre);
                RadialGradient::new(centre, 0.0, centre, radius, stops(a, b), pad, transform)
            }
        }
    }
}

impl From<Color> for Ink {
    fn from(colour: Color) -> Self {
        Self::Flat(colour)
    }
}

/// A picture being drawn.
pub(super) struct Canvas {
    pixmap: Pixmap,
    transform: Transform,
    scale: f32,
}

impl Canvas {
    /// White, in pixels; `None` when a side is 0.
    pub(super) fn new(width: u32, height: u32) -> Option<Self> {
        let mut pixmap = Pixmap::new(width, height)?;
        pixmap.fill(Color::WHITE);
        let scale = height as f32;
        Some(Self { pixmap, transform: Transform::from_scale(scale, scale), scale })
    }

    /// On top of a picture; `None` when a side is 0.
    pub(super) fn over(picture: &RgbImage) -> Option<Self> {
        let mut canvas = Self::new(picture.width(), picture.height())?;
        for (below, pixel) in canvas.pixmap.pixels_mut().iter_mut().zip(picture.pixels()) {
            let [red, green, blue] = pixel.0;
            *below = tiny_skia::ColorU8::from_rgba(red, green, blue, 255).premultiply();
        }
        Some(canvas)
    }

    /// Width in units of the height.
    pub(super) fn width(&self) -> f32 {
        self.pixmap.width() as f32 / self.pixmap.height() as f32
    }

    /// Fills a shape.
    pub(super) fn fill(&mut self, shape: &Shape, ink: impl Into<Ink>) {
        let path = shape.0.clone().and_then(|path| path.transform(self.transform));
        if let (Some(path), Some(paint)) = (path, self.paint(ink.into())) {
            let rule = FillRule::Winding;
            self.pixmap.fill_path(&path, &paint, rule, Transform::identity(), None);
        }
    }

    /// Follows an outline with a round pen.
    pub(super) fn stroke(&mut self, shape: &Shape, width: f32, ink: impl Into<Ink>) {
        let path = shape.0.clone().and_then(|path| path.transform(self.transform));
        if let (Some(path), Some(paint)) = (path, self.paint(ink.into())) {
            let stroke = Stroke {
                width: width * self.scale,
                line_cap: LineCap::Round,
                line_join: LineJoin::Round,
                ..Stroke::default()
            };
            self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
        }
    }

    fn paint(&self, ink: Ink) -> Option<Paint<'static>> {
        let shader = ink.shader(self.transform)?;
        Some(Paint { shader, anti_alias: true, ..Paint::default() })
    }

    /// The whole picture.
    pub(super) fn background(&mut self, ink: impl Into<Ink>) {
        self.fill(&Shape::rect((0.0, 0.0), self.width(), 1.0), ink);
    }

    /// Light or dark that fades out from a centre.
    pub(super) fn glow(&mut self, centre: Point, radius: f32, colour: Color) {
        let ink = Ink::Radial(centre, colour, radius, glass(colour, 0.0));
        self.fill(&Shape::circle(centre, radius), ink);
    }

    /// A soft shadow on the ground.
    pub(super) fn shadow(&mut self, (x, y): Point, rx: f32, ry: f32) {
        self.within((x, y), (rx, ry), 0.0, |canvas| {
            canvas.glow((0.0, 0.0), 1.0, Color::from_rgba8(10, 10, 25, 110));
        });
    }

    /// Draws in units of one's own: moved, stretched and turned clockwise.
    pub(super) fn within(
        &mut self,
        (x, y): Point,
        (sx, sy): Point,
        degrees: f32,
        draw: impl FnOnce(&mut Self),
    ) {
        let (transform, scale) = (self.transform, self.scale);
        self.transform = transform
            .pre_translate(x, y)
            .pre_concat(Transform::from_rotate(degrees))
            .pre_scale(sx, sy);
        self.scale = scale * (sx * sy).abs().sqrt();
        draw(self);
        (self.transform, self.scale) = (transform, scale);
    }

    /// Lays a colour over every pixel; `colour` gets its place in units, and gives opacity too.
    pub(super) fn veil(&mut self, colour: impl Fn(f32, f32) -> Color) {
        let (width, height) = (self.pixmap.width(), self.pixmap.height() as f32);
        for (i, pixel) in self.pixmap.pixels_mut().iter_mut().enumerate() {
            let (x, y) = (i as u32 % width, i as u32 / width);
            let over = colour((x as f32 + 0.5) / height, (y as f32 + 0.5) / height);
            let blend = |below: u8, above: f32| {
                let below = f32::from(below);
                (below + (above * 255.0 - below) * over.alpha()).round() as u8
            };
            let (red, green, blue) = (
                blend(pixel.red(), over.red()),
                blend(pixel.green(), over.green()),
                blend(pixel.blue(), over.blue()),
            );
            if let Some(blended) = PremultipliedColorU8::from_rgba(red, green, blue, 255) {
                *pixel = blended;
            }
        }
    }

    /// The finished picture.
    pub(super) fn into_picture(self) -> RgbImage {
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        RgbImage::from_fn(width, height, |x, y| match self.pixmap.pixel(x, y) {
            Some(pixel) => image::Rgb([pixel.red(), pixel.green(), pixel.blue()]),
            None => image::Rgb([255; 3]),
        })
    }
}
