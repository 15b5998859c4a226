//! Decoding against Pillow's pixels, and refusals of hostile files.
//!
//! Files and expectations are written by `fixtures/reference/make_decode_golden.py`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use engine::decode::{
    DecodeError, DecodeLimits, DecodeOptions, DecodeWarning, Decoded, Format, IccPolicy, Measure,
    RgbImage, decode,
};
use safetensors::SafeTensors;

fn image_bytes(name: &str) -> Vec<u8> {
    fs::read(fixtures::path(&format!("images/{name}"))).expect("a fixture")
}

fn decode_as(name: &str, icc: IccPolicy) -> Result<Decoded, DecodeError> {
    decode(&image_bytes(name), &DecodeOptions { icc, ..DecodeOptions::default() })
}

fn decode_within(name: &str, limits: DecodeLimits) -> Result<Decoded, DecodeError> {
    decode(&image_bytes(name), &DecodeOptions { limits, ..DecodeOptions::default() })
}

/// Pillow's pixels by file name.
fn golden() -> BTreeMap<String, RgbImage> {
    let bytes = fs::read(fixtures::path("golden/decode.safetensors")).expect("golden pixels");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
    let mut pixels: BTreeMap<String, RgbImage> = tensors
        .iter()
        .map(|(name, tensor)| {
            let (height, width) = (tensor.shape()[0] as u32, tensor.shape()[1] as u32);
            let image = RgbImage::from_raw(width, height, tensor.data().to_vec());
            (name.to_owned(), image.expect("three bytes a pixel"))
        })
        .collect();
    for (name, same) in metadata.metadata().iter().flatten() {
        pixels.insert(name.clone(), pixels[same].clone());
    }
    pixels
}

/// Largest and mean absolute difference over all samples.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = || a.iter().zip(b.iter()).map(|(x, y)| x.abs_diff(*y));
    let sum: f64 = differences().map(f64::from).sum();
    (differences().max().unwrap_or(0), sum / a.len() as f64)
}

/// Bounds on the difference to Pillow: exact for JPEG and lossless formats; for the others what
/// was measured on these files, whose hard edges are the worst case for chroma upsampling (HEIC:
/// libheif interpolates chroma, heifer repeats it).
fn bound(name: &str) -> (u8, f64) {
    match name.rsplit_once('.').expect("an extension").1 {
        "webp" if name.contains("lossy") => (4, 0.5),
        "heic" => (150, 5.0),
        "tif" if name.contains("jpeg") => (4, 0.5),
        _ => (0, 0.0),
    }
}

/// Files Pillow opens and this release does not; each refusal says what to do.
const REFUSED: [(&str, &str); 2] = [
    ("icon.ico", "damaged ICO: The PNG is not in RGBA format!"),
    ("tiff_palette.tif", "convert the picture to JPEG or PNG"),
];

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    for (name, reason) in REFUSED {
        let error = decode_as(name, IccPolicy::Ignore).expect_err("refused").to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn pixels_are_those_of_pillow() {
    let mut failures = Vec::new();
    for (name, expected) in golden() {
        let refused = REFUSED.iter().any(|(refused, _)| *refused == name);
        if name.starts_with("icc/") || name == "avif.avif" || refused || !supported(&name) {
            continue;
        }
        match decode_as(&name, IccPolicy::Ignore) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(decoded) if decoded.image.dimensions() != expected.dimensions() => {
                failures.push(format!("{name}: {:?}", decoded.image.dimensions()));
            }
            Ok(decoded) => {
                let (max, mean) = difference(&decoded.image, &expected);
                let (max_bound, mean_bound) = bound(&name);
                if max > max_bound || mean > mean_bound || decoded.warning.is_some() {
                    failures.push(format!("{name}: max {max}, mean {mean:.3}"));
                }
            }
        }
    }
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn supported(name: &str) -> bool {
    cfg!(feature = "heic") || !name.ends_with(".heic")
}

#[test]
fn orientations_come_out_alike() {
    let upright = decode_as("exif_1.jpg", IccPolicy::Ignore).expect("a picture").image;
    assert_eq!(upright.dimensions(), (40, 24));
    let golden = golden();
    for orientation in 2..=8 {
        let name = format!("exif_{orientation}.jpg");
        let image = decode_as(&name, IccPolicy::Ignore).expect("a picture").image;
        assert_eq!(image.dimensions(), golden[&name].dimensions(), "{name}");
    }
}

#[test]
fn profiles_are_converted_as_littlecms_does() {
    for (name, mean_bound) in [("icc_p3.png", 0.5), ("icc_p3.jpg", 0.75)] {
        let decoded = decode_as(name, IccPolicy::ConvertToSrgb).expect("a picture");
        let expected = &golden()[&format!("icc/{name}")];
        let (max, mean) = difference(&decoded.image, expected);
        assert!(max <= 6 && mean <= mean_bound, "{name}: max {max}, mean {mean:.3}");
        let (_, unconverted) = difference(&decoded.image, &golden()[name]);
        assert!(unconverted > 2.0, "{name}: the profile has no effect");
    }
}

#[test]
fn broken_profiles_are_ignored() {
    for name in ["icc_broken.png", "bomb_icc.png"] {
        let [converted, stored] = [IccPolicy::ConvertToSrgb, IccPolicy::Ignore]
            .map(|icc| decode_as(name, icc).expect("a picture").image);
        assert_eq!(converted, stored, "{name}");
    }
}

#[test]
fn a_truncated_jpeg_decodes_with_a_warning() {
    let decoded = decode_as("jpeg_truncated.jpg", IccPolicy::Ignore).expect("a picture");
    assert_eq!(decoded.warning, Some(DecodeWarning::Truncated));
    assert_eq!(decoded.image.dimensions(), (40, 24));
}

#[test]
fn formats_are_reported() {
    for (name, format) in [
        ("jpeg_baseline.jpg", Format::Jpeg),
        ("apng.png", Format::Png),
        ("webp_lossy.webp", Format::WebP),
        ("tga_rle.tga", Format::Tga),
        ("pnm_1bit.pbm", Format::Pnm),
    ] {
        assert_eq!(decode_as(name, IccPolicy::Ignore).expect("a picture").format, format);
    }
}

#[test]
fn bombs_are_refused_by_their_headers() {
    for name in ["bomb_1bit.png", "bomb_header.png", "bomb_header.jpg", "bomb_header.gif"] {
        match decode_as(name, IccPolicy::ConvertToSrgb) {
            // Some decoders refuse the memory before they tell the size.
            Err(DecodeError::TooLarge {
                what: Measure::Pixels { .. } | Measure::Memory, ..
            }) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn every_limit_is_kept() {
    let limits = DecodeLimits::default();
    let refused = |limits: DecodeLimits| decode_within("png_rgba.png", limits).map(|_| ());
    assert_eq!(refused(limits.clone()), Ok(()));
    let measure = |result| match result {
        Err(DecodeError::TooLarge { what, .. }) => Some(what),
        _ => None,
    };
    let bytes = DecodeLimits { max_bytes: 100, ..limits.clone() };
    assert_eq!(measure(refused(bytes)), Some(Measure::Bytes));
    let pixels = DecodeLimits { max_pixels: 959, ..limits.clone() };
    let what = Measure::Pixels { width: 40, height: 24 };
    assert_eq!(measure(refused(pixels)), Some(what));
    let memory = DecodeLimits { max_alloc: 40 * 24 * 4, ..limits.clone() };
    assert_eq!(measure(refused(memory)), Some(Measure::Memory));
    let time = DecodeLimits { max_duration: Duration::ZERO, ..limits };
    assert!(matches!(refused(time), Err(DecodeError::TooSlow { .. })));
}

#[test]
fn what_is_no_picture_is_named() {
    for (name, message) in [
        ("empty.jpg", "file is empty"),
        ("text.jpg", "not a picture: looks like a text file"),
        ("png_truncated.png", "damaged PNG: unexpected end of file"),
    ] {
        let error = decode_as(name, IccPolicy::Ignore).expect_err("no picture");
        assert_eq!(error.to_string(), message);
    }
}

#[cfg(not(feature = "avif"))]
#[test]
fn avif_names_the_missing_feature() {
    let error = decode_as("avif.avif", IccPolicy::Ignore).expect_err("no decoder");
    assert_eq!(error.to_string(), "AVIF is not supported; build with `--features avif`");
}

#[cfg(not(feature = "heic"))]
#[test]
fn heic_names_the_missing_feature() {
    let error = decode_as("heic.heic", IccPolicy::Ignore).expect_err("no decoder");
    assert_eq!(error.to_string(), "HEIC is not supported; build with `--features heic`");
}

/// Every byte of a small file damaged in turn, and every prefix: an error or a picture, no panic.
#[test]
fn damaged_files_never_panic() {
    let names = fs::read_dir(fixtures::path("images")).expect("the folder");
    for entry in names {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a fixture");
        if bytes.len() > 2000 {
            continue;
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            for bytes in [damaged.as_slice(), &bytes[..at]] {
                let result = decode(bytes, &DecodeOptions::default());
                assert!(!matches!(result, Err(DecodeError::Panicked { .. })), "{result:?}");
            }
        }
    }
}
