//! Colours by lightness, chroma and hue as the eye sees them.

pub(super) use tiny_skia::Color;

/// Björn Ottosson's OKLCH: `lightness` 0 to 1, `chroma` 0 (grey) to about 0.3, `hue` in degrees.
/// What sRGB cannot show is cut off.
pub(super) fn oklch(lightness: f32, chroma: f32, hue: f32) -> Color {
    let (sin, cos) = hue.to_radians().sin_cos();
    let (a, b) = (chroma * cos, chroma * sin);
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    let encode = |linear: f32| match linear.clamp(0.0, 1.0) {
        dark if dark <= 0.003_130_8 => 12.92 * dark,
        light => 1.055 * light.powf(1.0 / 2.4) - 0.055,
    };
    rgb(
        encode(4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s),
        encode(-1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s),
        encode(-0.004_196_086 * l - 0.703_418_6 * m + 1.707_614_7 * s),
    )
}

/// Components from 0 to 1, cut off outside.
fn rgb(red: f32, green: f32, blue: f32) -> Color {
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    Color::from_rgba8(byte(red), byte(green), byte(blue), 255)
}

/// A grey of this lightness, a little warm.
pub(super) fn grey(lightness: f32) -> Color {
    oklch(lightness, 0.008, 80.0)
}

/// `from` at 0, `to` at 1.
pub(super) fn mix(from: Color, to: Color, share: f32) -> Color {
    let between = |a: f32, b: f32| a + (b - a) * share;
    rgb(
        between(from.red(), to.red()),
        between(from.green(), to.green()),
        between(from.blue(), to.blue()),
    )
}

/// Nearer to white.
pub(super) fn lighter(colour: Color, share: f32) -> Color {
    mix(colour, Color::WHITE, share)
}

/// Nearer to a bluish black, as shadows are.
pub(super) fn darker(colour: Color, share: f32) -> Color {
    mix(colour, Color::from_rgba8(12, 14, 32, 255), share)
}

/// Translucent.
pub(super) fn glass(colour: Color, opacity: f32) -> Color {
    let mut colour = colour;
    colour.set_alpha(opacity);
    colour
}
