//! Resizing and normalising against Pillow and numpy.
//!
//! Expectations are written by `fixtures/reference/make_decode_golden.py`.

use engine::decode::RgbImage;
use engine::preprocess::{Preprocess, resize_bicubic};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Resize {
    source: (u32, u32),
    target: (u32, u32),
    sha256: String,
    pixels: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Golden {
    crops: Vec<Crop>,
    /// Per channel, the bits of the normalised f32 of every byte.
    normalised_bits: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Crop {
    source: (u32, u32),
    resize: u32,
    crop: u32,
    sha256: String,
}

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(fixtures::path(&format!("golden/{name}")));
    serde_json::from_str(&text.expect("a golden file")).expect("the expected fields")
}

/// The generated picture of the script: byte `i` is a multiplicative hash of `i`.
fn hashed((width, height): (u32, u32)) -> RgbImage {
    let bytes = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    RgbImage::from_raw(width, height, bytes.collect()).expect("three bytes a pixel")
}

fn sha256(image: &RgbImage) -> String {
    Sha256::digest(image.as_raw()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn resizing_is_bit_exact_with_pillow() {
    for case in golden::<Vec<Resize>>("resize.json") {
        let resized = resize_bicubic(&hashed(case.source), case.target.0, case.target.1);
        if let Some(pixels) = case.pixels {
            assert_eq!(resized.as_raw(), &pixels, "{:?} to {:?}", case.source, case.target);
        }
        assert_eq!(sha256(&resized), case.sha256, "{:?} to {:?}", case.source, case.target);
    }
}

#[test]
fn crops_are_bit_exact_with_the_reference_pipeline() {
    for Crop { source, resize, crop, sha256: expected } in golden::<Golden>("preprocess.json").crops
    {
        let preprocess = Preprocess::new(resize, crop).expect("valid settings");
        let image = preprocess.to_rgb8(&hashed(source)).expect("a picture");
        assert_eq!(sha256(&image), expected, "{source:?} resize {resize} crop {crop}");
    }
}

#[test]
fn normalised_values_are_those_of_numpy() {
    let expected = golden::<Golden>("preprocess.json").normalised_bits;
    let preprocess = Preprocess::new(224, 224).expect("valid settings");
    // Every byte value appears in this picture, which is passed on as it is.
    let image = hashed((224, 224));
    let chw = preprocess.to_chw(&image).expect("a picture");
    let (planes, _) = chw.as_chunks::<{ 224 * 224 }>();
    for (channel, plane) in planes.iter().enumerate() {
        for (pixel, value) in image.pixels().zip(plane) {
            let bits = expected[channel][usize::from(pixel[channel])];
            assert_eq!(value.to_bits(), bits, "channel {channel}, byte {}", pixel[channel]);
        }
    }
}
