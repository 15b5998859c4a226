//! Whether two pictures show the same picture: the affine map that lays one over the other, and how
//! well they agree under it.
//!
//! Similar embeddings mean similar subjects; a copy is more than that. Maps are proposed by patch
//! tokens (mutual nearest patches that agree on one map, mirrored or not), by the eight symmetries
//! of the frame, and by trying where one frame may lie within the other; each is refined on grey pixels; the best is judged block by block. Blocks
//! of which one picture has nothing but fill (borders, caption bands) have no say. Copies agree in
//! practically every block, however they were recoded, scaled, cropped, turned or tinted; two
//! frames of a video, or two photographs of one thing, do not.

mod plane;
mod refine;
mod patches;
mod placements;
mod agreement;

use image::RgbImage;

pub use agreement::Agreement;
use patches::Patches;
use plane::{Planes, SIDES};
use refine::Refiner;

use crate::preprocess::Preprocess;

/// Proposals refined beyond the coarsest level.
const SURVIVORS: usize = 3;
/// Correlation on the second level below which two pictures have nothing to do with each other.
const HOPELESS: f32 = 0.55;

/// An affine map of relative positions (x, y in 0..=1, from the top left) in one picture to those in
/// another: `[[a, b, c], [d, e, f]]` takes (x, y) to (ax + by + c, dx + ey + f).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f32; 3]; 2]);

impl Affine {
    /// Where a position goes.
    pub fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        let [[a, b, c], [d, e, f]] = self.0;
        (a * x + b * y + c, d * x + e * y + f)
    }

    /// The map back; `None` for one that flattens.
    pub fn inverse(&self) -> Option<Self> {
        let [[a, b, c], [d, e, f]] = self.0;
        let determinant = self.determinant();
        if !determinant.is_finite() || determinant.abs() < 1e-6 {
            return None;
        }
        let [a, b, d, e] = [e, -b, -d, a].map(|value| value / determinant);
        Some(Self([[a, b, -a * c - b * f], [d, e, -d * c - e * f]]))
    }

    /// Negative when it mirrors.
    pub fn determinant(&self) -> f32 {
        let [[a, b, _], [d, e, _]] = self.0;
        a * e - b * d
    }

    /// The eight ways to lay a frame onto itself: quarter turns, and the same mirrored.
    pub fn symmetries() -> [Self; 8] {
        std::array::from_fn(|i| {
            let mirror = if i < 4 { 1.0 } else { -1.0 };
            let (cos, sin) = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][i % 4];
            let (a, b, d, e) = (cos * mirror, -sin, sin * mirror, cos);
            Self([[a, b, 0.5 - 0.5 * (a + b)], [d, e, 0.5 - 0.5 * (d + e)]])
        })
    }
}

/// A picture prepared to be compared with others: about 0.3 MB.
#[derive(Clone, Debug)]
pub struct Comparable {
    planes: Planes,
    patches: Option<Patches>,
}

impl Comparable {
    /// Prepares the pixels.
    pub fn new(image: &RgbImage) -> Self {
        Self { planes: Planes::new(image), patches: None }
    }

    /// Adds the patch tokens of the picture prepared by `preprocess`: (N, C) row-major, N the patches
    /// of a square. Ignored when they are none.
    #[must_use]
    pub fn with_patch_tokens(self, tokens: &[f32], dim: usize, preprocess: &Preprocess) -> Self {
        let patches = Patches::new(tokens, dim, preprocess, self.planes.size());
        Self { patches, ..self }
    }

    /// A thumbnail of grey values 0..=255, row-major: width, height, values.
    pub fn grey(&self) -> (usize, usize, &[u8]) {
        let plane = &self.planes.finest().grey;
        (plane.width, plane.height, &plane.values)
    }
}

/// The best map found between two pictures, and what speaks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// From the first picture to the second.
    pub map: Affine,
    /// Correlation of grey pixels where both have some, fill left out.
    pub correlation: f32,
    /// How they agree block by block.
    pub agreement: Agreement,
    /// Mutual nearest patches whose places the map agrees with, and all of them.
    pub patches: (usize, usize),
}

/// Finds how the second picture is laid over the first; `None` when no map makes them alike.
pub fn align(first: &Comparable, second: &Comparable) -> Option<Alignment> {
    let matches = match (&first.patches, &second.patches) {
        (Some(a), Some(b)) => a.matches(b),
        _ => Vec::new(),
    };
    let sizes = (first.planes.size(), second.planes.size());
    let mut proposals = patches::propose(&matches, sizes);
    proposals.extend(placements::propose(&first.planes, &second.planes));
    proposals.extend(Affine::symmetries());

    let refiner = |level: usize| Refiner::new(&first.planes, &second.planes, level);
    let coarse = refiner(0);
    let mut ranked: Vec<_> = proposals.iter().map(|map| coarse.refine(*map, 5)).collect();
    best_first(&mut ranked, SURVIVORS);
    let mut ranked: Vec<_> = ranked.iter().map(|found| coarse.refine(found.map, 8)).collect();
    for (level, iterations) in (1..SIDES.len() - 1).zip([10, 8]) {
        let refiner = refiner(level);
        ranked = ranked.iter().map(|found| refiner.refine(found.map, iterations)).collect();
        ranked.retain(|found| found.correlation >= HOPELESS);
        best_first(&mut ranked, SURVIVORS - 1);
    }
    let judged = ranked.into_iter().map(|found| Alignment {
        map: found.map,
        correlation: found.correlation,
        agreement: agreement::judge(&first.planes, &second.planes, &found.map),
        patches: patches::consistent(&matches, &found.map),
    });
    judged.max_by(|a, b| a.agreement.score().total_cmp(&b.agreement.score()))
}

fn best_first(found: &mut Vec<refine::Found>, keep: usize) {
    found.sort_by(|a, b| b.score().total_cmp(&a.score()));
    found.truncate(keep);
}

#[cfg(test)]
mod tests;
