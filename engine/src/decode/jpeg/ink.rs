//! Inks of a JPEG to RGB.
//!
//! Four-component JPEGs hold inverted inks, as Adobe writes them: 255 is no ink. Pillow assumes
//! the same for every such file (`CMYK;I` in `JpegImagePlugin.py`).

/// Converts in place; 4 bytes per pixel become 3.
///
/// `255 - k - c · (255 - k) / 255` for upright inks, with the rounded division `MULDIV255` of
/// Pillow's `cmyk2rgb`.
pub(super) fn cmyk_to_rgb(data: Vec<u8>) -> Vec<u8> {
    convert(data, |[c, m, y, k]| [c, m, y].map(|ink| print(255 - ink, k)))
}

fn convert(mut data: Vec<u8>, pixel: impl Fn([u8; 4]) -> [u8; 3]) -> Vec<u8> {
    let pixels = data.len() / 4;
    for i in 0..pixels {
        let rgb = pixel(std::array::from_fn(|channel| data[4 * i + channel]));
        data[3 * i..3 * i + 3].copy_from_slice(&rgb);
    }
    data.truncate(3 * pixels);
    data
}

/// What remains of `paper` light under an ink.
fn print(ink: u8, paper: u8) -> u8 {
    let product = u32::from(ink) * u32::from(paper) + 128;
    paper.saturating_sub((((product >> 8) + product) >> 8) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ink_is_white_and_full_ink_is_dark() {
        assert_eq!(cmyk_to_rgb(vec![255; 4]), [255; 3]);
        assert_eq!(cmyk_to_rgb(vec![255, 255, 255, 0]), [0; 3]);
        assert_eq!(cmyk_to_rgb(vec![0, 255, 255, 255]), [0, 255, 255]);
    }
}
