//! JPEGs scaled down while they are decoded, against all their pixels.

use std::error::Error;
use std::path::{Path, PathBuf};

use engine::decode::{DecodeMode, DecodeOptions, Frame, RgbImage, decode};
use engine::vit::Weights;
use engine::{Device, DinoEmbedder, Embedder, ModelOptions, Preprocess};
use image::codecs::jpeg::JpegEncoder;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn shrunk(least: u32) -> DecodeOptions {
    DecodeOptions { shrink_to: Some(least), ..DecodeOptions::default() }
}

fn jpeg(picture: &RgbImage, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture)?;
    Ok(bytes)
}

/// The file with an EXIF segment that says how it is to be turned.
fn oriented(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (tiff.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &tiff, &jpeg[2..]].concat()
}

/// A picture without symmetry, and smooth, so that a shift by a pixel shows in its numbers.
fn slope(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        image::Rgb([255.0 * x, 255.0 * y, 255.0 * (1.0 - x) * y].map(|value| value as u8))
    })
}

#[test]
fn every_orientation_shows_the_same_part_of_the_picture() -> Result {
    let preprocess = Preprocess::new(32, 28)?;
    // Sides that leave 1 to 7 of 8 pixels over.
    for (width, height) in [(385, 262), (262, 391), (519, 519), (260, 1033)] {
        let file = jpeg(&slope(width, height), 95)?;
        for orientation in 1..=8 {
            let file = oriented(&file, orientation);
            let exact = decode(&file, &DecodeOptions::default())?;
            let whole = (exact.width, exact.height);
            assert_eq!(exact.image.dimensions(), whole);
            assert_eq!(exact.frame, Frame::whole(whole.0, whole.1));
            let expected = preprocess.decoded_to_chw(&exact)?;
            assert_eq!(expected, preprocess.to_chw(&exact.image)?);
            for (least, divisor) in [(32, 8), (65, 4), (130, 2)] {
                let fast = decode(&file, &shrunk(least))?;
                assert_eq!((fast.width, fast.height), whole, "sides are those of the picture");
                let sides = (whole.0.div_ceil(divisor), whole.1.div_ceil(divisor));
                assert_eq!(fast.image.dimensions(), sides, "{width}x{height} by {divisor}");
                let got = preprocess.decoded_to_chw(&fast)?;
                // One grey level is 0.017 here; a shift by an eighth of a pixel more than that.
                let worst = expected.iter().zip(&got).map(|(a, b)| (a - b).abs());
                let worst = worst.fold(0f32, f32::max);
                assert!(worst < 0.06, "{width}x{height} {orientation} by {divisor}: {worst}");
            }
        }
    }
    Ok(())
}

#[test]
fn all_kinds_of_files_end_as_they_do_with_all_pixels() -> Result {
    let mut shrunk_ones = 0;
    for entry in std::fs::read_dir(fixtures::path("images"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path)?;
        let is_jpeg = bytes.starts_with(b"\xff\xd8");
        // Whole, cut short, and with damage in the middle.
        let mut damaged = bytes.clone();
        if let Some(byte) = damaged.get_mut(bytes.len() * 2 / 3) {
            *byte ^= 0x55;
        }
        let half = bytes.len() / 2;
        for bytes in [&*bytes, &bytes[..half], &bytes[..bytes.len().saturating_sub(9)], &damaged] {
            let exact = decode(bytes, &DecodeOptions::default());
            let fast = decode(bytes, &shrunk(6));
            match (exact, fast) {
                (Ok(exact), Ok(fast)) => {
                    assert_eq!(fast.warning, exact.warning, "{name}");
                    assert_eq!((fast.width, fast.height), (exact.width, exact.height), "{name}");
                    if !is_jpeg {
                        assert_eq!(fast.image, exact.image, "{name}");
                        assert_eq!(fast.frame, exact.frame, "{name}");
                    }
                    shrunk_ones += usize::from(fast.image.width() < exact.image.width());
                }
                (exact, fast) => assert_eq!(
                    fast.map(|_| ()).map_err(|error| error.to_string()),
                    exact.map(|_| ()).map_err(|error| error.to_string()),
                    "{name}"
                ),
            }
        }
    }
    assert!(shrunk_ones > 40, "{shrunk_ones}");
    Ok(())
}

#[test]
fn colours_of_grey_cmyk_and_progressive_files_are_right() -> Result {
    for name in ["gray", "cmyk", "ycck", "progressive", "restart", "rgb", "444", "baseline"] {
        let bytes = std::fs::read(fixtures::path(&format!("images/jpeg_{name}.jpg")))?;
        let exact = decode(&bytes, &DecodeOptions::default())?.image;
        let fast = decode(&bytes, &shrunk(12))?.image;
        assert_eq!(fast.dimensions(), (exact.width() / 2, exact.height() / 2), "{name}");
        // Means of 2 x 2 pixels: what half the size stands for, on drawings with hard edges. Inks taken
        // for light would be off by a hundred.
        let mut sum = 0;
        for (x, y, pixel) in fast.enumerate_pixels() {
            for channel in 0..3 {
                let of = |dx, dy| u32::from(exact.get_pixel(2 * x + dx, 2 * y + dy)[channel]);
                let mean = (of(0, 0) + of(1, 0) + of(0, 1) + of(1, 1)) / 4;
                sum += mean.abs_diff(u32::from(pixel[channel]));
            }
        }
        let mean = f64::from(sum) / fast.len() as f64;
        assert!(mean < 9.0, "{name}: {mean}");
    }
    Ok(())
}

#[test]
fn pictures_that_are_small_enough_keep_all_their_pixels() -> Result {
    let file = jpeg(&slope(130, 99), 90)?;
    let exact = decode(&file, &DecodeOptions::default())?;
    let fast = decode(&file, &shrunk(50))?;
    assert_eq!((fast.image, fast.frame), (exact.image, exact.frame));
    Ok(())
}

/// At least 200 photographs that are scaled down to no less than `least` pixels: as they are where they
/// are large enough, else enlarged to 2 million pixels and more.
fn photographs(shared: &Path, least: u32, step: usize) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for set in ["images/imagenet_sample", "images/exif_orientation", "images/caltech_background"] {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(shared.join(set))?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        paths.sort();
        for (number, path) in paths.into_iter().enumerate().step_by(step) {
            let bytes = std::fs::read(&path)?;
            let Ok(decoded) = decode(&bytes, &DecodeOptions::default()) else { continue };
            let (width, height) = decoded.image.dimensions();
            let (shorter, pixels) = (f64::from(width.min(height)), f64::from(width * height));
            if bytes.starts_with(b"\xff\xd8") && width.min(height) >= 2 * least {
                found.push((path, bytes));
            } else if set == "images/imagenet_sample" {
                let wanted = [2.1e6, 3.0e6, 3.4e6][number % 3];
                let scale = (wanted / pixels).sqrt().max(f64::from(2 * least) / shorter);
                let side = |side: u32| (f64::from(side) * scale).ceil() as u32;
                let (width, height) = (side(width), side(height));
                let large = engine::preprocess::resize_bicubic(&decoded.image, width, height);
                found.push((path, jpeg(&large, 90)?));
            }
        }
    }
    assert!(found.len() * step >= 200, "{} photographs", found.len());
    Ok(found)
}

/// Compares every `step`th of the photographs; says how close they are.
fn embeddings_stay_close(shared: &Path, weights: &Weights, step: usize) -> Result<String> {
    let preprocess = weights.preprocess()?.unwrap_or_default();
    let options =
        |decode| ModelOptions { preprocess: preprocess.clone(), decode, ..ModelOptions::default() };
    let open = |decode| DinoEmbedder::from_weights(weights, &options(decode), &Device::Cpu);
    let (exact, fast) = (open(DecodeMode::Exact)?, open(DecodeMode::Fast)?);
    assert_ne!(exact.identity().fingerprint(), fast.identity().fingerprint());
    let mut cosines = Vec::new();
    let least = fast.input_options().shrink_to.ok_or("fast decoding scales down")?;
    for (path, bytes) in photographs(shared, least, step)? {
        let embed = |model: &DinoEmbedder| -> Result<_> {
            let decoded = decode(&bytes, &model.input_options())?;
            let sides = decoded.image.dimensions();
            Ok((model.embed(&[model.prepare_decoded(&decoded)?])?.remove(0), sides))
        };
        let ((a, sides), (b, fewer)) = (embed(&exact)?, embed(&fast)?);
        assert!(fewer.0 < sides.0, "{}: {sides:?} was not scaled down", path.display());
        let pairs = a.as_slice().iter().zip(b.as_slice());
        let cosine: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        cosines.push((cosine, path));
    }
    cosines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, median) = (&cosines[0], cosines[cosines.len() / 2].0);
    assert!(least.0 >= 0.999, "{least:?}");
    Ok(format!("{} photographs: median {median:.6}, least {least:?}", cosines.len()))
}

#[cfg(feature = "shipped-model")]
#[test]
fn embeddings_of_the_built_in_model_stay_close() -> Result {
    let Some(shared) = fixtures::shared() else {
        println!("skipped: no shared folder with photographs");
        return Ok(());
    };
    let weights = engine::shipped::weights()?.ok_or("the built-in model")?;
    println!("{}", embeddings_stay_close(&shared, &weights, 1)?);
    Ok(())
}

#[test]
fn embeddings_of_a_vit_s_stay_close() -> Result {
    let Some(shared) = fixtures::shared() else {
        println!("skipped: no shared folder with real weights");
        return Ok(());
    };
    let weights = Weights::open(&shared.join("weights/dav2-small-encoder.fp16.safetensors"))?;
    // Four times the work of the built-in model: a quarter of the photographs.
    println!("{}", embeddings_stay_close(&shared, &weights, 4)?);
    Ok(())
}
