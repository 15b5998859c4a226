use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::edits::Edit;
use super::*;
use crate::eval::CopyTruth;

const SMALL: GallerySpec = GallerySpec { seed: 7, pictures: 48 };

fn draw(folder: &Path, spec: GallerySpec) -> Result<Gallery> {
    Gallery::draw(folder, spec, &|_| {}, &AtomicBool::new(false))
}

fn hash(picture: &RgbImage) -> String {
    format!("{:x}", Sha256::digest(picture.as_raw()))
}

/// Mean absolute difference of two pictures seen from afar, from 0 to 255.
fn distance(a: &RgbImage, b: &RgbImage) -> f64 {
    let [a, b] = [a, b].map(|picture| image::imageops::thumbnail(picture, 24, 24));
    let sum: u64 = a.iter().zip(b.iter()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / a.len() as f64
}

#[test]
fn the_same_seed_draws_the_same_pixels_on_any_number_of_threads() {
    let some = || {
        let hashes = (0..scenes::FAMILIES.len()).into_par_iter();
        hashes.map(|family| hash(&scenes::render(5, family, 3))).collect::<Vec<_>>()
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(some)
    };
    let one = on(1);
    assert_eq!(one, on(3));
    let all: BTreeSet<_> = one.iter().collect();
    assert_eq!(all.len(), one.len(), "families differ");
    assert_ne!(hash(&scenes::render(6, 0, 3)), one[0], "seeds differ");
    assert_ne!(hash(&scenes::render(5, 0, 4)), one[0], "numbers differ");
}

#[test]
fn every_family_draws_varied_pictures_within_the_promised_sizes() {
    for (family, kind) in scenes::FAMILIES.iter().enumerate() {
        let pictures: Vec<RgbImage> = (0..4).map(|n| scenes::render(0, family, n)).collect();
        for picture in &pictures {
            let (width, height) = picture.dimensions();
            assert!((256..=512).contains(&width) && (256..=512).contains(&height), "{}", kind.name);
            let colours: BTreeSet<_> = picture.pixels().map(|p| p.0.map(|v| v / 32)).collect();
            assert!(colours.len() >= 3, "{} has {} colours", kind.name, colours.len());
        }
        for i in 1..pictures.len() {
            assert!(distance(&pictures[0], &pictures[i]) > 3.0, "{} {i}", kind.name);
        }
    }
}

#[test]
fn an_edit_keeps_the_picture_recognisable_and_changes_it() {
    let picture = scenes::render(0, 4, 1);
    let grey_of = |picture: &RgbImage| Edit::Grey.apply(picture, &mut Lot::of(&[0]));
    for edit in Edit::ALL {
        let copy = edit.apply(&picture, &mut Lot::of(&[1]));
        let (copy, original) = match edit {
            Edit::Mirrored => (image::imageops::flip_horizontal(&copy), picture.clone()),
            _ => (grey_of(&copy), grey_of(&picture)),
        };
        let near = distance(&copy, &original);
        let other = distance(&original, &grey_of(&scenes::render(0, 9, 2)));
        assert!(near < other * 0.75, "{}: {near} of {other}", edit.name());
    }
    let size = |edit: Edit| edit.apply(&picture, &mut Lot::of(&[1])).dimensions();
    let (width, height) = picture.dimensions();
    assert_eq!(size(Edit::Shrunk), (width / 2, height / 2));
    assert_eq!(size(Edit::Cropped), (width * 9 / 10, height * 9 / 10));
}

#[test]
fn a_gallery_is_drawn_once_and_completed_when_something_is_missing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let out = folder.path().join("gallery");
    let cancelled = AtomicBool::new(true);
    let nothing = Gallery::draw(&out, SMALL, &|_| {}, &cancelled).expect("draw");
    assert_eq!((nothing.drawn, nothing.complete), (0, false));
    assert!(!nothing.truth().exists());

    let first = draw(&out, SMALL).expect("draw");
    assert_eq!((first.pool, first.test), (53, 3));
    assert_eq!((first.drawn, first.complete), (56, true));
    let again = draw(&out, SMALL).expect("draw");
    assert_eq!((again.drawn, again.complete), (0, true));

    let gone = &first.planted[0].copy;
    let before = std::fs::read(gone).expect("read");
    std::fs::remove_file(gone).expect("remove");
    assert_eq!(draw(&out, SMALL).expect("draw").drawn, 1);
    assert_eq!(std::fs::read(gone).expect("read"), before);

    // The list is read by the copy protocol, and agrees with what is returned.
    let truth = CopyTruth::read(&first.truth()).expect("truth");
    assert_eq!(truth.copies().len(), first.planted.len());
    for planted in &first.planted {
        assert_eq!(truth.original_of(&planted.copy), Some(planted.original.as_path()));
    }
    assert_eq!(first.planted_in(Part::Test).count(), 1);
}

#[test]
fn nothing_foreign_is_overwritten() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let refused = |path: &Path, spec, words: &str| {
        let error = draw(path, spec).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{error}");
    };
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").expect("write");
    refused(&file, SMALL, "this is a file");
    refused(folder.path(), SMALL, "nothing is overwritten");
    refused(&folder.path().join("few"), GallerySpec { seed: 0, pictures: 47 }, "48 to 100000");

    let out = folder.path().join("gallery");
    Gallery::draw(&out, SMALL, &|_| {}, &AtomicBool::new(true)).expect("claim");
    refused(&out, GallerySpec { seed: 8, ..SMALL }, "seed 7 and 48 pictures, wanted are version 1");
    std::fs::write(out.join(STAMP), "{}").expect("write");
    refused(&out, SMALL, "is not one of a gallery");
    assert_eq!(std::fs::read(&file).expect("read"), b"mine");
}
