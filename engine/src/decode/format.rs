//! Which format the first bytes announce.

use std::fmt;

use super::DecodeError;
use super::error::CONVERT_FIRST;

mod tga;

/// A picture format that this crate knows how to decode, in some build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, including the first picture of an MPO file.
    Jpeg,
    /// PNG, and the default image of an APNG.
    Png,
    /// WebP, lossy or lossless.
    WebP,
    /// GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF and BigTIFF.
    Tiff,
    /// Windows icon; the largest entry is decoded.
    Ico,
    /// Truevision TGA.
    Tga,
    /// Quite OK Image.
    Qoi,
    /// PBM, PGM, PPM and PAM.
    Pnm,
    /// Radiance HDR.
    Hdr,
    /// HEIC, with feature `heic`.
    Heic,
    /// AVIF, with feature `avif`.
    Avif,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Ico => "ICO",
            Self::Tga => "TGA",
            Self::Qoi => "QOI",
            Self::Pnm => "PNM",
            Self::Hdr => "Radiance HDR",
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
        })
    }
}

/// Openings of the formats that are decoded. ISO media files and TGA need a closer look.
const DECODED: [(&[u8], Format); 14] = [
    (b"\xff\xd8\xff", Format::Jpeg),
    (b"\x89PNG\r\n\x1a\n", Format::Png),
    (b"GIF87a", Format::Gif),
    (b"GIF89a", Format::Gif),
    (b"BM", Format::Bmp),
    (b"II*\0", Format::Tiff),
    (b"MM\0*", Format::Tiff),
    (b"II+\0", Format::Tiff),
    (b"MM\0+", Format::Tiff),
    (b"\0\0\x01\0", Format::Ico),
    (b"qoif", Format::Qoi),
    (b"P7\n", Format::Pnm),
    (b"#?RADIANCE", Format::Hdr),
    (b"#?RGBE", Format::Hdr),
];

/// Openings of picture formats that no build decodes.
const NOT_DECODED: [(&[u8], &str); 21] = [
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop PSD"),
    (b"DDS ", "DirectDraw DDS"),
    (b"icns", "Apple ICNS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"\x01\xda", "SGI"),
    (b"\x0a\x05\x01", "PCX"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"farbfeld", "farbfeld"),
    (b"BLP1", "Blizzard BLP"),
    (b"BLP2", "Blizzard BLP"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\x02\0", "Windows cursor"),
    (b"FUJIFILMCCD-RAW", "Fujifilm RAW"),
    (b"gimp xcf", "GIMP XCF"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
];

/// Openings of things that are no pictures but are often found among them.
const NOT_PICTURES: [(&[u8], &str); 13] = [
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"RIFF", "a RIFF sound or video file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
];

impl Format {
    /// Recognises a file by its content.
    ///
    /// # Errors
    /// `Empty`; `UnsupportedFormat` for pictures that no build decodes; `UnknownFormat` else.
    pub fn sniff(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if let Some(format) = decoded(bytes) {
            return Ok(format);
        }
        if let Some(name) = not_decoded(bytes) {
            return Err(DecodeError::UnsupportedFormat {
                format: name.to_owned(),
                remedy: CONVERT_FIRST,
            });
        }
        Err(DecodeError::UnknownFormat { looks_like: looks_like(bytes) })
    }
}

fn decoded(bytes: &[u8]) -> Option<Format> {
    if let Some((_, format)) = DECODED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(*format);
    }
    match bytes {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        [b'P', b'1'..=b'6', next, ..] if next.is_ascii_whitespace() || *next == b'#' => {
            Some(Format::Pnm)
        }
        _ => iso_media(bytes).or_else(|| tga::plausible(bytes).then_some(Format::Tga)),
    }
}

/// HEIC or AVIF by the brands of the `ftyp` box (ISO/IEC 23008-12 annex B, AV1 image format 1.1).
fn iso_media(bytes: &[u8]) -> Option<Format> {
    let brands = brands(bytes)?;
    let has = |names: &[&[u8; 4]]| brands.clone().any(|brand| names.contains(&brand));
    if has(&[b"avif", b"avis"]) {
        Some(Format::Avif)
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        Some(Format::Heic)
    } else {
        None
    }
}

/// The major brand and the compatible ones; what stands between, the version, names no brand.
fn brands(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8; 4]> + Clone> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let content = rest.strip_prefix(b"ftyp")?;
    let length = (u32::from_be_bytes(*size) as usize).saturating_sub(8).min(content.len());
    Some(content[..length].as_chunks().0.iter())
}

fn not_decoded(bytes: &[u8]) -> Option<&'static str> {
    let known = NOT_DECODED.iter().find(|(magic, _)| bytes.starts_with(magic));
    let autodesk = matches!(bytes, [_, _, _, _, 0x11 | 0x12, 0xaf, ..]);
    known.map(|(_, name)| *name).or_else(|| autodesk.then_some("Autodesk FLI"))
}

fn looks_like(bytes: &[u8]) -> String {
    if let Some((_, name)) = NOT_PICTURES.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*name).to_owned();
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return "an MP4 or QuickTime video".to_owned();
    }
    let head = &bytes[..bytes.len().min(512)];
    if head.iter().all(|byte| *byte == 0) {
        return "a file of zeros".to_owned();
    }
    if let Some(text) = text(head) {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let kind = if text.contains("<svg") {
            "an SVG drawing"
        } else if text.starts_with('<') {
            "an HTML or XML file"
        } else {
            "a text file"
        };
        return kind.to_owned();
    }
    let start: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("binary data starting with {}", start.join(" "))
}

/// The longest UTF-8 prefix, if all but a character cut at the end is printable text.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}');
    (!text.is_empty() && text.chars().all(printable)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Format); 8] = [
            (b"\xff\xd8\xff\xe0", Format::Jpeg),
            (b"RIFF\0\0\0\0WEBPVP8 ", Format::WebP),
            (b"P5 3 4 255\n", Format::Pnm),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Format::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Format::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", Format::Avif),
            (b"\0\0\0\x1cftypavif", Format::Avif),
            (b"MM\0*\0\0", Format::Tiff),
        ];
        for (bytes, format) in cases {
            assert_eq!(Format::sniff(bytes), Ok(format));
        }
    }

    #[test]
    fn refusals_say_what_the_file_is() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "file is empty"),
            (b"hello, world", "not a picture: looks like a text file"),
            (b"\xef\xbb\xbf <!DOCTYPE html>", "not a picture: looks like an HTML or XML file"),
            (b"<?xml?><svg/>", "not a picture: looks like an SVG drawing"),
            (b"PK\x03\x04", "not a picture: looks like a ZIP archive"),
            (b"\0\0\0\x18ftypisom", "not a picture: looks like an MP4 or QuickTime video"),
            (
                b"\x01\x02\x03\x04\x05",
                "not a picture: looks like binary data starting with 01 02 03 04",
            ),
            (b"\0", "not a picture: looks like a file of zeros"),
            (b"8BPS\0\x01", "Photoshop PSD is not supported; convert the picture to JPEG or PNG"),
        ];
        for (bytes, message) in cases {
            assert_eq!(Format::sniff(bytes).map_err(|e| e.to_string()), Err(message.to_owned()));
        }
    }
}
