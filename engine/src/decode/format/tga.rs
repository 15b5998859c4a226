//! Recognising TGA, which has no magic number at its start.

const HEADER_LENGTH: usize = 18;
const FOOTER: &[u8] = b"TRUEVISION-XFILE.\0";

/// Whether the header is free of contradictions (Truevision TGA 2.0 specification, field by
/// field) and the file is long enough for it. Text and most other formats fail at once, because
/// the second byte must be 0 or 1 and the third a small image type.
pub(super) fn plausible(bytes: &[u8]) -> bool {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
        return false;
    };
    let [id_length, map_type, image_type, ..] = *header;
    let [map_entries, width, height] =
        [5, 12, 14].map(|at| usize::from(u16::from_le_bytes([header[at], header[at + 1]])));
    let (map_bits, bits, descriptor) = (header[7], header[16], header[17]);

    let depth_fits = match image_type {
        1 | 9 => bits == 8 && map_type == 1,
        2 | 10 => matches!(bits, 15 | 16 | 24 | 32),
        3 | 11 => matches!(bits, 8 | 16),
        _ => false,
    };
    let map_fits = match map_type {
        0 => header[3..8].iter().all(|byte| *byte == 0),
        1 => matches!(map_bits, 15 | 16 | 24 | 32) && map_entries > 0,
        _ => false,
    };
    if !depth_fits || !map_fits || width == 0 || height == 0 || descriptor & 0xc0 != 0 {
        return false;
    }
    let map_length = map_entries * usize::from(map_bits.div_ceil(8));
    let pixel_length = usize::from(bits.div_ceil(8));
    // A run-length packet covers at most 128 pixels.
    let data_length = if image_type < 9 {
        width * height * pixel_length
    } else {
        (width * height).div_ceil(128) * (1 + pixel_length)
    };
    bytes.ends_with(FOOTER) || body.len() >= usize::from(id_length) + map_length + data_length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(image_type: u8, bits: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LENGTH];
        (bytes[2], bytes[12], bytes[14], bytes[16]) = (image_type, 4, 2, bits);
        bytes
    }

    #[test]
    fn a_full_picture_is_plausible_and_a_short_one_only_with_a_footer() {
        let mut bytes = header(2, 24);
        assert!(!plausible(&bytes));
        assert!(plausible(&[bytes.as_slice(), FOOTER].concat()));
        bytes.resize(HEADER_LENGTH + 4 * 2 * 3, 0);
        assert!(plausible(&bytes));
        bytes[16] = 8;
        assert!(!plausible(&bytes));
    }

    #[test]
    fn text_zeros_and_short_files_are_not() {
        assert!(!plausible(b"The quick brown fox jumps over the lazy dog"));
        assert!(!plausible(&[0; 1000]));
        assert!(!plausible(&header(10, 32)[..17]));
    }
}
