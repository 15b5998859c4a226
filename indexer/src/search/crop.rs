//! The part of a picture to search with.

use std::str::FromStr;

use engine::RgbImage;

use crate::error::{IndexerError, Result};

/// Shortest side of a crop, in pixels: less than one patch of the model is noise.
pub const MIN_CROP: u32 = 16;

/// A rectangle of the upright picture, written `X,Y,W,H`: pixels, or shares of its sides when all
/// four are at most 1 and have a decimal point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// Left, top, width, height in pixels.
    Pixels([u32; 4]),
    /// Left, top, width, height as shares of the picture's width and height.
    Shares([f64; 4]),
}

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let Ok([x, y, w, h]) = <[&str; 4]>::try_from(parts) else {
            return Err(format!("`{text}` is no crop; write X,Y,W,H, such as 100,50,640,480"));
        };
        let parts = [x, y, w, h];
        if parts.iter().all(|part| !part.contains('.')) {
            let pixels = parts.map(str::parse::<u32>);
            if let [Ok(x), Ok(y), Ok(w), Ok(h)] = pixels {
                return Ok(Self::Pixels([x, y, w, h]));
            }
            return Err(format!("`{text}` is no crop; pixels are whole numbers: 100,50,640,480"));
        }
        let shares = parts.map(|part| match part.parse::<f64>() {
            Ok(share) if part.contains('.') && (0.0..=1.0).contains(&share) => Some(share),
            _ => None,
        });
        match shares {
            [Some(x), Some(y), Some(w), Some(h)] => Ok(Self::Shares([x, y, w, h])),
            _ => Err(format!(
                "`{text}` is no crop; shares of the picture are from 0.0 to 1.0, all four with a point: \
                 0.25,0.0,0.5,1.0; pixels have none: 100,50,640,480"
            )),
        }
    }
}

impl Crop {
    /// The part of a picture.
    ///
    /// # Errors
    /// The rectangle is empty, reaches outside, or has a side below [`MIN_CROP`].
    pub fn apply(&self, picture: &RgbImage) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let invalid = |message: String| Err(IndexerError::InvalidRequest(message));
        let [x, y, w, h] = match *self {
            Self::Pixels(pixels) => pixels.map(u64::from),
            Self::Shares([x, y, w, h]) => {
                // Sides are rounded, not widths: crops that touch in shares touch in pixels.
                let side = |start: f64, length: f64, of: u32| {
                    let (start, end) = (start * f64::from(of), (start + length) * f64::from(of));
                    (start.round() as u64, end.round() as u64 - start.round() as u64)
                };
                let ((x, w), (y, h)) = (side(x, w, width), side(y, h, height));
                [x, y, w, h]
            }
        };
        if w == 0 || h == 0 {
            return invalid(format!(
                "the crop is empty ({w} x {h} pixels); its last two numbers are width and height"
            ));
        }
        if x + w > u64::from(width) || y + h > u64::from(height) {
            return invalid(format!(
                "the crop reaches to ({}, {}), but the picture is {width} x {height} pixels (upright)",
                x + w,
                y + h
            ));
        }
        let least = u64::from(MIN_CROP);
        if w < least || h < least {
            return invalid(format!(
                "the crop has {w} x {h} pixels; it must have at least {MIN_CROP} x {MIN_CROP}"
            ));
        }
        let [x, y, w, h] = [x, y, w, h].map(|value| value as u32);
        Ok(image::imageops::crop_imm(picture, x, y, w, h).to_image())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_read_and_applied() {
        let picture = RgbImage::from_fn(100, 50, |x, y| image::Rgb([x as u8, y as u8, 0]));
        for (text, size, corner) in [
            ("10,5,20,16", (20, 16), [10, 5]),
            ("0, 0, 100, 50", (100, 50), [0, 0]),
            ("0.1,0.5,0.333,0.5", (33, 25), [10, 25]),
            ("0.0,0.0,1.0,1.0", (100, 50), [0, 0]),
        ] {
            let crop: Crop = text.parse().expect(text);
            let part = crop.apply(&picture).expect(text);
            assert_eq!(part.dimensions(), size, "{text}");
            assert_eq!(part.get_pixel(0, 0).0[..2], corner, "{text}");
        }
    }

    #[test]
    fn what_is_no_crop_is_refused() {
        let words = [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "a,b,c,d",
            "-1,0,20,20",
            "0,0,0.5,0.5",
            "1.5,0.0,9.0,9.0",
            "0.0,0.0,NaN,1.0",
            "99999999999,0,20,20",
            "0.0,0.0,1,1.0",
        ];
        for text in words {
            assert!(text.parse::<Crop>().is_err(), "{text}");
        }
        let picture = RgbImage::new(100, 50);
        for (text, reason) in [
            ("0,0,0,20", "empty"),
            ("0,0,101,20", "reaches to (101, 20), but the picture is 100 x 50"),
            ("90,40,16,16", "reaches to (106, 56)"),
            ("0.5,0.0,0.6,1.0", "reaches to"),
            ("0.5,0.5,0.0,0.5", "empty"),
            ("0,0,15,20", "at least 16 x 16"),
            ("4294967295,0,4294967295,20", "reaches to"),
        ] {
            let error = text.parse::<Crop>().expect(text).apply(&picture).expect_err(text);
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
