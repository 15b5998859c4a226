//! Patch tokens of two pictures: mutual nearest ones, and maps that many of them agree with.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Affine;
use super::refine::solve;
use crate::kernels::{Operand, matmul_f32};
use crate::preprocess::Preprocess;

/// Pairs of matches drawn.
const DRAWS: usize = 400;
const SEED: u64 = 7;
/// Fewest matches that say anything.
const FEWEST: usize = 4;
/// Matches that agree from which on a map may also shear and stretch.
const ENOUGH: usize = 6;
/// Least distance of two matches drawn, relative to the longer side.
const APART: f32 = 0.08;
/// Most a map may shrink or enlarge.
const LARGEST_SCALE: f32 = 4.0;
/// How strongly a map of few matches stays a similarity.
const STIFFNESS: f64 = 0.004;

/// A place in each picture, relative, and how far off a map may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    from: (f32, f32),
    to: (f32, f32),
    tolerance: f32,
}

/// Unit-length tokens of a square of patches and where they lie in the picture.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    dim: usize,
    tokens: Vec<f32>,
    places: Vec<(f32, f32)>,
    /// Side of a patch, relative to the picture's longer side.
    side: f32,
}

impl Patches {
    pub(super) fn new(
        tokens: &[f32],
        dim: usize,
        preprocess: &Preprocess,
        (width, height): (u32, u32),
    ) -> Option<Self> {
        let count = tokens.len().checked_div(dim)?;
        let side = count.isqrt();
        if side == 0 || side * side != count || count * dim != tokens.len() {
            return None;
        }
        let mut unit = tokens.to_vec();
        for token in unit.chunks_exact_mut(dim) {
            let length = token.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
            token.iter_mut().for_each(|value| *value /= length);
        }
        // The centre crop, seen from the whole picture.
        let scale = preprocess.resize as f32 / width.min(height) as f32;
        let (wide, high) = (width as f32 * scale, height as f32 * scale);
        let crop = preprocess.crop as f32;
        let at = |i: usize, full: f32| {
            ((full - crop) / 2.0 + (i as f32 + 0.5) * crop / side as f32) / full
        };
        let places = (0..count).map(|i| (at(i % side, wide), at(i / side, high))).collect();
        Some(Self { dim, tokens: unit, places, side: crop / side as f32 / wide.max(high) })
    }

    /// Patches that are each other's most similar one.
    pub(super) fn matches(&self, other: &Self) -> Vec<Match> {
        if self.dim != other.dim {
            return Vec::new();
        }
        let (rows, columns) = (self.places.len(), other.places.len());
        let mut scores = vec![0.0; rows * columns];
        let transposed = Operand::new(&other.tokens, columns, self.dim).t();
        matmul_f32(Operand::new(&self.tokens, rows, self.dim), transposed, &mut scores);
        let mut best_row = vec![(f32::NEG_INFINITY, 0); columns];
        let mut best_column = vec![(f32::NEG_INFINITY, 0); rows];
        for (i, line) in scores.chunks_exact(columns).enumerate() {
            for (j, &score) in line.iter().enumerate() {
                if score > best_column[i].0 {
                    best_column[i] = (score, j);
                }
                if score > best_row[j].0 {
                    best_row[j] = (score, i);
                }
            }
        }
        let mutual = best_column.iter().enumerate().filter(|(i, best)| best_row[best.1].1 == *i);
        let matched = mutual.map(|(i, &(_, j))| Match {
            from: self.places[i],
            to: other.places[j],
            tolerance: other.side,
        });
        matched.collect()
    }
}

/// Maps that many matches agree with, best first: one that mirrors and one that does not.
pub(super) fn propose(matches: &[Match], sizes: ((u32, u32), (u32, u32))) -> Vec<Affine> {
    if matches.len() < FEWEST {
        return Vec::new();
    }
    let extent = |(width, height): (u32, u32)| {
        let long = width.max(height) as f32;
        (width as f32 / long, height as f32 / long)
    };
    let (from, to) = (extent(sizes.0), extent(sizes.1));
    // In proportion, so that turns are turns.
    let points: Vec<Points> = matches
        .iter()
        .map(|m| Points {
            from: (m.from.0 * from.0, m.from.1 * from.1),
            to: (m.to.0 * to.0, m.to.1 * to.1),
            tolerance: m.tolerance,
        })
        .collect();
    let mut found: Vec<(f32, Affine)> =
        [false, true].into_iter().filter_map(|mirrored| agreed(&points, mirrored)).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let relative = |(_, map): (f32, Affine)| {
        let [[a, b, c], [d, e, f]] = map.0;
        let row = |x: f32, y: f32, t: f32, to: f32| [x * from.0 / to, y * from.1 / to, t / to];
        Affine([row(a, b, c, to.0), row(d, e, f, to.1)])
    };
    found.into_iter().map(relative).collect()
}

/// Matches that a map agrees with, and all.
pub(super) fn consistent(matches: &[Match], map: &Affine) -> (usize, usize) {
    let agrees = |m: &&Match| {
        let (x, y) = map.apply(m.from.0, m.from.1);
        (x - m.to.0).hypot(y - m.to.1) <= 1.5 * m.tolerance
    };
    (matches.iter().filter(agrees).count(), matches.len())
}

#[derive(Clone, Copy)]
struct Points {
    from: (f32, f32),
    to: (f32, f32),
    tolerance: f32,
}

impl Points {
    fn error(&self, map: &Affine) -> f32 {
        let (x, y) = map.apply(self.from.0, self.from.1);
        (x - self.to.0).hypot(y - self.to.1)
    }
}

/// The similarity (mirrored or not) that matches agree with best, bent to an affine map when there
/// are enough; with its score.
fn agreed(points: &[Points], mirrored: bool) -> Option<(f32, Affine)> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut best: Option<(f32, Affine)> = None;
    for _ in 0..DRAWS {
        let i = random.random_range(0..points.len());
        let j = random.random_range(0..points.len());
        let Some(map) = similarity(points[i], points[j], mirrored) else { continue };
        let scale = map.determinant().abs().sqrt().max(1.0);
        let score: f32 = points
            .iter()
            .map(|p| (1.0 - (p.error(&map) / (p.tolerance * scale)).powi(2)).max(0.0))
            .sum();
        if best.is_none_or(|best| score > best.0) {
            best = Some((score, map));
        }
    }
    best.map(|(score, map)| (score, bent(points, &map).unwrap_or(map)))
}

/// The similarity that takes two points to their matches.
fn similarity(p: Points, q: Points, mirrored: bool) -> Option<Affine> {
    let flip = if mirrored { -1.0 } else { 1.0 };
    let (x, y) = (q.from.0 - p.from.0, (q.from.1 - p.from.1) * flip);
    let (u, v) = (q.to.0 - p.to.0, q.to.1 - p.to.1);
    let squared = x * x + y * y;
    if squared < APART * APART {
        return None;
    }
    // The complex quotient (u + iv) / (x + iy).
    let (re, im) = ((u * x + v * y) / squared, (v * x - u * y) / squared);
    let scale = re.hypot(im);
    if !(1.0 / LARGEST_SCALE..=LARGEST_SCALE).contains(&scale) {
        return None;
    }
    let [a, b, d, e] = [re, -im * flip, im, re * flip];
    let c = p.to.0 - a * p.from.0 - b * p.from.1;
    let f = p.to.1 - d * p.from.0 - e * p.from.1;
    Some(Affine([[a, b, c], [d, e, f]]))
}

/// Least squares over the matches that agree, drawn towards the similarity.
fn bent(points: &[Points], map: &Affine) -> Option<Affine> {
    let scale = map.determinant().abs().sqrt().max(1.0);
    let near: Vec<&Points> = points.iter().filter(|p| p.error(map) < p.tolerance * scale).collect();
    if near.len() < ENOUGH {
        return None;
    }
    let mut matrix = [[0f64; 3]; 3];
    let mut right = [[0f64; 3]; 2];
    for p in &near {
        let place = [f64::from(p.from.0), f64::from(p.from.1), 1.0];
        let (x, y) = map.apply(p.from.0, p.from.1);
        let error = [f64::from(p.to.0 - x), f64::from(p.to.1 - y)];
        for i in 0..3 {
            for j in 0..3 {
                matrix[i][j] += place[i] * place[j];
            }
            right[0][i] += place[i] * error[0];
            right[1][i] += place[i] * error[1];
        }
    }
    for (i, strength) in [1.0, 1.0, 1e-5].into_iter().enumerate() {
        matrix[i][i] += STIFFNESS * near.len() as f64 * strength;
    }
    let mut bent = *map;
    for (row, right) in bent.0.iter_mut().zip(right) {
        for (entry, change) in row.iter_mut().zip(solve(matrix, right)?) {
            *entry += change as f32;
        }
    }
    Some(bent)
}
