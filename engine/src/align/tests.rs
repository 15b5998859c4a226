use image::{Rgb, RgbImage, imageops};

use super::*;
use crate::preprocess::resize_bicubic;

/// A picture of waves and hard-edged rectangles that only this seed gives.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32
    };
    let waves: Vec<[f32; 4]> = (0..6)
        .map(|_| [next() * 40.0 - 20.0, next() * 40.0 - 20.0, next() * 6.3, next()])
        .collect();
    let boxes: Vec<[f32; 5]> = (0..30)
        .map(|_| [next(), next(), 0.04 + next() * 0.12, 0.04 + next() * 0.12, next()])
        .collect();
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let wave = |[a, b, c, d]: &[f32; 4]| (a * u + b * v + c).sin() * d;
        let mut value = 0.5 + 0.15 * waves.iter().map(wave).sum::<f32>();
        for [left, top, wide, high, grey] in &boxes {
            if (*left..left + wide).contains(&u) && (*top..top + high).contains(&v) {
                value = 0.3 * value + 0.7 * grey;
            }
        }
        let grey = (value * 255.0).clamp(0.0, 255.0);
        Rgb([grey as u8, (grey * 0.9) as u8, (255.0 - grey * 0.8) as u8])
    })
}

fn aligned(a: &RgbImage, b: &RgbImage) -> Option<Alignment> {
    align(&Comparable::new(a), &Comparable::new(b))
}

fn is_copy(a: &RgbImage, b: &RgbImage) -> bool {
    aligned(a, b).is_some_and(|found| found.agreement.is_copy())
}

#[test]
fn edited_copies_are_laid_over_their_original() {
    let original = picture(1, 400, 300);
    let caption = {
        let mut image = original.clone();
        for y in 230..270 {
            (0..400).for_each(|x| image.put_pixel(x, y, Rgb([8, 8, 8])));
        }
        image
    };
    let border = {
        let mut image = RgbImage::from_pixel(560, 420, Rgb([200, 30, 60]));
        imageops::replace(&mut image, &original, 80, 60);
        image
    };
    let mut brighter = original.clone();
    brighter.pixels_mut().for_each(|p| p.0 = p.0.map(|v| (f32::from(v) * 0.7 + 60.0) as u8));
    let edits = [
        ("scaled", resize_bicubic(&original, 150, 113)),
        ("stretched", resize_bicubic(&original, 400, 240)),
        ("mirrored", imageops::flip_horizontal(&original)),
        ("turned", imageops::rotate90(&original)),
        ("turned and mirrored", imageops::rotate270(&imageops::flip_vertical(&original))),
        ("cropped", imageops::crop_imm(&original, 90, 40, 250, 190).to_image()),
        ("bordered", border),
        ("captioned", caption),
        ("brighter", brighter),
    ];
    for (name, edit) in edits {
        let found = aligned(&original, &edit);
        assert!(found.is_some_and(|found| found.agreement.is_copy()), "{name}: {found:?}");
        assert!(is_copy(&edit, &original), "{name}, the other way round");
    }
}

#[test]
fn the_map_of_a_crop_is_found() {
    let original = picture(2, 400, 300);
    let crop = imageops::crop_imm(&original, 100, 60, 200, 150).to_image();
    let found = aligned(&original, &crop).expect("a map");
    // The middle of the crop is at (0.5, 0.45) of the original, which is twice as large.
    let (x, y) = found.map.apply(0.5, 0.45);
    assert!((x - 0.5).abs() < 0.02 && (y - 0.5).abs() < 0.02, "{found:?}");
    assert!((found.map.determinant() - 4.0).abs() < 0.2, "{found:?}");
}

#[test]
fn others_and_moved_things_are_no_copies() {
    let original = picture(3, 400, 300);
    for seed in 4..12 {
        assert!(!is_copy(&original, &picture(seed, 400, 300)), "{seed}");
    }
    // The same scene, something in it moved: as in two frames of a video.
    let thing = RgbImage::from_fn(70, 90, |x, y| {
        let cell = (x / 7 * 31 + y / 7 * 17).wrapping_mul(2_654_435_761) >> 24;
        Rgb([cell as u8; 3])
    });
    let frame = |x: i64| {
        let mut frame = original.clone();
        imageops::replace(&mut frame, &thing, x, 100);
        frame
    };
    let found = aligned(&frame(100), &frame(140));
    assert!(!is_copy(&frame(100), &frame(140)), "{found:?}");
    assert!(is_copy(&frame(100), &frame(100)));
}

#[test]
fn pictures_without_anything_to_compare_are_not_judged() {
    let plain = RgbImage::from_pixel(50, 50, Rgb([7, 7, 7]));
    for other in [plain.clone(), picture(1, 90, 70), RgbImage::new(1, 1), RgbImage::new(0, 0)] {
        let found = aligned(&plain, &other);
        assert!(found.is_none_or(|found| !found.agreement.is_copy()), "{found:?}");
        let found = aligned(&other, &plain);
        assert!(found.is_none_or(|found| !found.agreement.is_copy()), "{found:?}");
    }
}

#[test]
fn patches_propose_the_map_they_agree_on() {
    let preprocess = Preprocess { resize: 140, crop: 140 };
    let size = (140, 140);
    // Every patch is like its mirror image and nothing else, but for a few that are like any.
    let token = |code: usize| {
        let mut token = vec![0.0; 128];
        token[code] = 1.0;
        token
    };
    let first: Vec<f32> = (0..100).flat_map(token).collect();
    let mirrored = |i: usize| i / 10 * 10 + (9 - i % 10);
    let second: Vec<f32> = (0..100)
        .flat_map(|i| token(if i % 7 == 0 { (i * 37) % 100 } else { mirrored(i) }))
        .collect();
    let of = |tokens: &[f32]| Patches::new(tokens, 128, &preprocess, size).expect("patches");
    let matches = of(&first).matches(&of(&second));
    let maps = patches::propose(&matches, (size, size));
    let best = maps.first().expect("a map");
    assert!(best.determinant() < 0.0);
    let (x, y) = best.apply(0.2, 0.7);
    assert!((x - 0.8).abs() < 0.02 && (y - 0.7).abs() < 0.02, "{best:?}");
    let (agree, all) = patches::consistent(&matches, best);
    assert!(agree >= 70 && agree <= all, "{agree} of {all}");
    assert!(Patches::new(&first[1..], 128, &preprocess, size).is_none());
}
