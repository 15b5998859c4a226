//! Samples as decoders deliver them, brought to opaque, upright RGB8.

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, RgbImage};

use super::Frame;

/// Interleaved 8-bit samples with 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha) channels.
///
/// Alpha is straight: colour is not multiplied by it.
pub(super) struct Samples {
    data: Vec<u8>,
    channels: usize,
}

/// Interleaved 8-bit RGB, with straight alpha as a fourth channel if `alpha` is set.
pub(super) struct Colour {
    pub data: Vec<u8>,
    pub alpha: bool,
}

impl Samples {
    pub fn new(data: Vec<u8>, channels: usize) -> Self {
        Self { data, channels }
    }

    /// Takes a buffer of the `image` crate, in native byte order; `None` for an unknown type.
    pub fn from_decoder(data: Vec<u8>, color: ColorType) -> Option<Self> {
        let channels = usize::from(color.channel_count());
        let data = match color {
            ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => data,
            ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
                high_bytes(data)
            }
            ColorType::Rgb32F | ColorType::Rgba32F => display_bytes(data, channels),
            _ => return None,
        };
        Some(Self::new(data, channels))
    }

    /// Expands gray to RGB; the values do not change.
    pub fn into_colour(self) -> Colour {
        let alpha = self.channels.is_multiple_of(2);
        let data = match self.channels {
            1 => self.data.iter().flat_map(|&v| [v; 3]).collect(),
            2 => self.data.as_chunks().0.iter().flat_map(|&[v, a]| [v, v, v, a]).collect(),
            _ => self.data,
        };
        Colour { data, alpha }
    }
}

impl Colour {
    /// Composites over white and drops alpha; the result has 3 bytes per pixel.
    pub fn over_white(mut self) -> Vec<u8> {
        if !self.alpha {
            return self.data;
        }
        // In place: pixel i moves from 4i to 3i, never past what is still to be read.
        let pixels = self.data.len() / 4;
        for i in 0..pixels {
            let [r, g, b, a] = std::array::from_fn(|channel| self.data[4 * i + channel]);
            for (channel, value) in [r, g, b].into_iter().enumerate() {
                self.data[3 * i + channel] = over_white(value, a);
            }
        }
        self.data.truncate(3 * pixels);
        self.data
    }
}

/// `(value · alpha + 255 · (255 - alpha)) / 255` in the fixed point, and with the rounding, of
/// `ImagingAlphaComposite` in Pillow's `AlphaComposite.c` over an opaque white backdrop.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = (value * alpha + 255 * (255 - alpha) + 128) << 7;
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

/// 16 bits to 8 by dropping the low byte, as Pillow's unpacker does for 16-bit RGB.
fn high_bytes(mut data: Vec<u8>) -> Vec<u8> {
    let samples = data.len() / 2;
    for i in 0..samples {
        data[i] = u16::from_ne_bytes([data[2 * i], data[2 * i + 1]]).to_be_bytes()[0];
    }
    data.truncate(samples);
    data
}

/// Linear light to bytes: clamped to 0..=1, the sRGB curve (IEC 61966-2-1), rounded. Alpha, the
/// fourth channel, stays linear.
fn display_bytes(mut data: Vec<u8>, channels: usize) -> Vec<u8> {
    let samples = data.len() / 4;
    for i in 0..samples {
        let bytes = std::array::from_fn(|byte| data[4 * i + byte]);
        // NaN stays NaN here and becomes 0 in the cast below.
        let linear = f32::from_ne_bytes(bytes).clamp(0.0, 1.0);
        let value = if i % channels == 3 || linear <= 0.003_130_8 {
            if i % channels == 3 { linear } else { linear * 12.92 }
        } else {
            1.055 * linear.powf(1.0 / 2.4) - 0.055
        };
        data[i] = (value * 255.0).round() as u8;
    }
    data.truncate(samples);
    data
}

/// Applies an EXIF orientation.
pub(super) fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    image.into_rgb8()
}

/// Width and height after [`upright`].
pub(super) fn upright_sides((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    match orientation {
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => (width, height),
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
    }
}

/// Where a picture of these upright sides lies in its pixels, the sides divided by `divisor`.
pub(super) fn upright_frame(
    (width, height): (u32, u32),
    divisor: u32,
    orientation: Orientation,
) -> Frame {
    // Whether an upright axis begins where the stored one ends.
    let (from_right, from_bottom) = match orientation {
        Orientation::NoTransforms | Orientation::Rotate90FlipH => (false, false),
        Orientation::FlipHorizontal | Orientation::Rotate90 => (true, false),
        Orientation::FlipVertical | Orientation::Rotate270 => (false, true),
        Orientation::Rotate180 | Orientation::Rotate270FlipH => (true, true),
    };
    let axis = |side: u32, from_end: bool| {
        let length = f64::from(side) / f64::from(divisor);
        (if from_end { length.ceil() - length } else { 0.0 }, length)
    };
    let ((left, width), (top, height)) = (axis(width, from_right), axis(height, from_bottom));
    Frame { left, top, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opaque(data: &[u8], channels: usize) -> Vec<u8> {
        Samples::new(data.to_vec(), channels).into_colour().over_white()
    }

    #[test]
    fn every_channel_count_becomes_rgb() {
        assert_eq!(opaque(&[7, 9], 1), [7, 7, 7, 9, 9, 9]);
        assert_eq!(opaque(&[7, 255, 9, 0], 2), [7, 7, 7, 255, 255, 255]);
        assert_eq!(opaque(&[1, 2, 3], 3), [1, 2, 3]);
        assert_eq!(opaque(&[1, 2, 3, 255, 4, 5, 6, 0], 4), [1, 2, 3, 255, 255, 255]);
    }

    #[test]
    fn compositing_is_within_half_a_step_of_exact() {
        for value in 0..=255_u8 {
            for alpha in 0..=255_u8 {
                let (v, a) = (f64::from(value), f64::from(alpha));
                let exact = (v * a + 255.0 * (255.0 - a)) / 255.0;
                let got = f64::from(over_white(value, alpha));
                assert!((got - exact).abs() <= 0.502, "{value} {alpha}: {got} {exact}");
            }
        }
    }

    #[test]
    fn the_part_pixel_of_a_scaled_picture_goes_where_its_edge_goes() {
        // 2 x 3 pixels, of which the last column and the last row stand for the part pixels.
        let stored = RgbImage::from_fn(2, 3, |x, y| image::Rgb([x as u8, y as u8, 0]));
        for orientation in 1..=8 {
            let orientation = Orientation::from_exif(orientation).expect("1 to 8");
            let image = upright(stored.clone(), orientation);
            // At a quarter: 5 x 9 pixels.
            let (width, height) = upright_sides((5, 9), orientation);
            let frame = upright_frame((width, height), 4, orientation);
            assert_eq!(
                (frame.width, frame.height),
                (f64::from(width) / 4.0, f64::from(height) / 4.0)
            );
            assert_eq!(frame.width.ceil() as u32, image.width());
            assert_eq!(frame.height.ceil() as u32, image.height());
            let is_part = |pixel: &image::Rgb<u8>| pixel[0] == 1 || pixel[1] == 2;
            // The corner that holds no part pixel is where no part is cut off.
            let whole = image.enumerate_pixels().find(|(_, _, pixel)| pixel.0 == [0, 0, 0]);
            let (x, y, _) = whole.expect("a pixel");
            assert_eq!(frame.left > 0.0, x > 0, "{orientation:?}");
            assert_eq!(frame.top > 0.0, y > 0, "{orientation:?}");
            assert_eq!(image.pixels().filter(|pixel| is_part(pixel)).count(), 4);
        }
    }

    #[test]
    fn deep_samples_become_bytes() {
        let wide: Vec<u8> =
            [0x00ff_u16, 0x1234, 0xffff].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(high_bytes(wide), [0x00, 0x12, 0xff]);
        let float = [-1.0_f32, 0.5, 2.0, 0.5, f32::NAN, 0.001, 1.0, 1.0];
        let bytes = float.iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(display_bytes(bytes, 4), [0, 188, 255, 128, 0, 3, 255, 255]);
    }
}
