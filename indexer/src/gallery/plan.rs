//! Which pictures a gallery holds.

use super::edits::Edit;
use super::lot::Lot;
use super::scenes::FAMILIES;
use super::{GallerySpec, Part};

/// One file of a gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Below the gallery's folder, with `/`.
    pub(super) path: String,
    pub(super) part: Part,
    pub(super) family: usize,
    /// Which picture of the family.
    pub(super) number: usize,
    /// For a copy: what was done to the picture, and where the original is.
    pub(super) copied: Option<(Edit, String)>,
}

/// Copies planted among so many pool pictures, held-out pictures, and leaks among those.
fn counts(pictures: usize) -> (usize, usize, usize) {
    let test = pictures / 14;
    (pictures * 5 / 48, test, test * 2 / 5)
}

/// Every piece: the pool's pictures by family, its copies, the held-out pictures, the leaks. A
/// picture has at most one copy anywhere.
pub(super) fn plan(spec: GallerySpec) -> Vec<Piece> {
    let families = FAMILIES.len();
    let in_family = |f: usize| spec.pictures * (f + 1) / families - spec.pictures * f / families;
    let path = |part: Part, family: usize, name: &str, extension: &str| {
        format!("{}/{}/{name}.{extension}", part.folder(), FAMILIES[family].name)
    };
    let scene = |part, family: usize, number| Piece {
        path: path(part, family, &format!("{number:02}"), FAMILIES[family].extension),
        part,
        family,
        number,
        copied: None,
    };
    let mut pieces: Vec<Piece> = (0..families)
        .flat_map(|family| (0..in_family(family)).map(move |number| (family, number)))
        .map(|(family, number)| scene(Part::Pool, family, number))
        .collect();

    let mut originals = pieces.clone();
    Lot::of(&[spec.seed, u64::MAX]).shuffle(&mut originals);
    let mut originals = originals.into_iter();
    let mut copies = |part: Part, count: usize| -> Vec<Piece> {
        let copy = |(original, edit): (Piece, Edit)| Piece {
            path: path(
                part,
                original.family,
                &format!("{:02}-{}", original.number, edit.name()),
                "jpg",
            ),
            part,
            copied: Some((edit, original.path)),
            ..original
        };
        let edits = Edit::ALL.into_iter().cycle();
        originals.by_ref().take(count).zip(edits).map(copy).collect()
    };
    let (near_copies, test, leaks) = counts(spec.pictures);
    let near_copies = copies(Part::Pool, near_copies);
    let leaked = copies(Part::Test, leaks);
    pieces.extend(near_copies);
    // Steps of 5 visit all 16 families before any comes again.
    pieces.extend((0..test - leaks).map(|i| {
        let family = i * 5 % families;
        scene(Part::Test, family, in_family(family) + i / families)
    }));
    pieces.extend(leaked);
    pieces
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_gallery_has_what_it_promises_whatever_its_size() {
        for (pictures, copies, test, leaks) in
            [(48, 5, 3, 1), (288, 30, 20, 8), (1000, 104, 71, 28)]
        {
            let pieces = plan(GallerySpec { seed: 3, pictures });
            let count = |part, copied: bool| {
                pieces.iter().filter(|p| p.part == part && p.copied.is_some() == copied).count()
            };
            assert_eq!(count(Part::Pool, false), pictures);
            assert_eq!(count(Part::Pool, true), copies);
            assert_eq!(count(Part::Test, true), leaks);
            assert_eq!(count(Part::Test, false), test - leaks);
            let paths: BTreeSet<_> = pieces.iter().map(|p| &p.path).collect();
            assert_eq!(paths.len(), pieces.len());
            // Held-out scenes are not the pool's, and no picture is copied twice.
            let scenes: BTreeSet<_> = pieces
                .iter()
                .filter(|p| p.copied.is_none())
                .map(|p| (p.family, p.number))
                .collect();
            assert_eq!(scenes.len(), pictures + test - leaks);
            let originals: BTreeSet<_> =
                pieces.iter().filter_map(|p| p.copied.as_ref()).map(|(_, path)| path).collect();
            assert_eq!(originals.len(), copies + leaks);
            assert!(originals.iter().all(|path| paths.contains(*path)));
        }
    }

    #[test]
    fn another_seed_plants_elsewhere() {
        let [a, b] = [1, 2].map(|seed| plan(GallerySpec { seed, pictures: 64 }));
        assert_ne!(a, b);
    }
}
