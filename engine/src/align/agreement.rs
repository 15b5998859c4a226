//! How two pictures agree under a map, block by block.

use super::Affine;
use super::plane::{Level, Planes};

/// Sides of blocks in pixels; the smaller one on small pictures.
const BLOCKS: (usize, usize) = (16, 8);
/// Longer side below which blocks are small.
const SMALL: usize = 128;
/// Variance of grey values from which on a block has something to compare: far above the noise of
/// strong JPEG compression.
const TEXTURE: f32 = 100.0;
/// Variance added to both sides, so that noise alone does not decide.
const NOISE: f32 = 4.0;
/// Share of a block's pixels that must be picture in both.
const SEEN: f32 = 0.5;
/// Share of a block's pixels that are fill, or in the grey of one, from which on the rest may be
/// writing on it.
const WRITING: f32 = 0.35;
/// Width of the frame's edge that is left out, relative.
const EDGE: f32 = 2.0 / 256.0;
/// A block disagrees when its correlation is this far below 1, or [`SPREAD`] times as far as the
/// median block: recompression and scaling lower all blocks alike, something that moved a few.
const DISAGREES: f32 = 0.2;
const SPREAD: f32 = 6.0;
/// How much more textured than needed a block must be to disagree with one that has nothing.
const ONE_SIDED: f32 = 4.0;

/// Calibrated on photographs, their edited copies, look-alikes and video frames (docs/dedup.md).
const FEWEST_BLOCKS: usize = 8;
const LEAST_MEDIAN: f32 = 0.8;
const MOST_CONFLICTS: f32 = 0.02;

/// Agreement of the blocks that both pictures fill with something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Blocks compared.
    pub blocks: usize,
    /// Median correlation of their pixels; 0 without blocks.
    pub median: f32,
    /// Blocks that stand out by disagreeing.
    pub conflicts: usize,
    /// Share of the compared picture's frame that the other covers.
    pub overlap: f32,
}

impl Agreement {
    /// Whether this is how a picture and its edited copy agree.
    pub fn is_copy(&self) -> bool {
        self.blocks >= FEWEST_BLOCKS
            && self.median >= LEAST_MEDIAN
            && self.conflicts as f32 <= MOST_CONFLICTS * self.blocks as f32
    }

    /// Whether there was enough to compare.
    pub fn is_telling(&self) -> bool {
        self.blocks >= FEWEST_BLOCKS
    }

    /// Higher for better maps.
    pub(super) fn score(&self) -> f32 {
        match self.is_telling() {
            true => self.median - 3.0 * self.conflicts as f32 / self.blocks as f32,
            false => -1.0 + self.median / 8.0,
        }
    }
}

/// Sums over one block.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: f32,
    a: f32,
    b: f32,
    aa: f32,
    bb: f32,
    ab: f32,
    /// Pixels that the map covers, those of fill too; and those of fill in each picture.
    covered: f32,
    fill: (f32, f32),
}

/// Variances and correlation of one block.
struct Block {
    variance: (f32, f32),
    correlation: f32,
    writing: bool,
}

/// Compares on the pixels of whichever picture shows less detail; a `map` that cannot be inverted
/// gives no blocks.
pub(super) fn judge(first: &Planes, second: &Planes, map: &Affine) -> Agreement {
    let (level_a, level_b) = (first.finest(), second.finest());
    let area = |level: &Level| (level.grey.width * level.grey.height) as f32;
    // Pixels of the second for each pixel of the first.
    let ratio = map.determinant().abs() * area(level_b) / area(level_a);
    match map.inverse() {
        Some(_) if ratio >= 1.0 => compare(level_a, level_b, map, ratio.sqrt()),
        Some(inverse) => compare(level_b, level_a, &inverse, ratio.sqrt().recip()),
        None => Agreement::default(),
    }
}

fn compare(grid: &Level, other: &Level, map: &Affine, scale: f32) -> Agreement {
    let (width, height) = (grid.grey.width, grid.grey.height);
    let side = if width.max(height) >= SMALL { BLOCKS.0 } else { BLOCKS.1 };
    let (columns, rows) = (width / side, height / side);
    let steps = (scale.round() as usize).clamp(1, 6);
    let mut blocks = vec![Sums::default(); columns * rows];
    let mut covered = 0usize;
    let inside = |x: f32| x > EDGE && x < 1.0 - EDGE;
    for y in 0..height {
        for x in 0..width {
            let (at_x, at_y) = ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
            let (u, v) = map.apply(at_x, at_y);
            if !(inside(u) && inside(v)) {
                continue;
            }
            covered += 1;
            let (column, row) = (x / side, y / side);
            if column >= columns || row >= rows || !inside(at_x) || !inside(at_y) {
                continue;
            }
            let (place, other_place) = (y * width + x, nearest(other, u, v));
            let sums = &mut blocks[row * columns + column];
            let masked = (grid.is_fill(place), other.is_fill(other_place));
            sums.covered += 1.0;
            sums.fill.0 += f32::from(u8::from(masked.0 || grid.is_fill_grey(place)));
            sums.fill.1 += f32::from(u8::from(masked.1 || other.is_fill_grey(other_place)));
            if masked.0 || masked.1 {
                continue;
            }
            let a = f32::from(grid.grey.values[place]);
            let b = mean(other, map, (x, y), (width, height), steps);
            sums.count += 1.0;
            sums.a += a;
            sums.b += b;
            sums.aa += a * a;
            sums.bb += b * b;
            sums.ab += a * b;
        }
    }
    let needed = SEEN * (side * side) as f32;
    let blocks: Vec<Block> =
        blocks.iter().filter(|sums| sums.count >= needed).map(Sums::block).collect();
    let overlap = covered as f32 / (width * height) as f32;
    Agreement { overlap, ..agreement(&blocks) }
}

fn nearest(level: &Level, u: f32, v: f32) -> usize {
    let place = |at: f32, length: usize| ((at * length as f32) as usize).min(length - 1);
    place(v, level.grey.height) * level.grey.width + place(u, level.grey.width)
}

/// Mean grey of the area that a pixel of the grid covers in the other picture.
fn mean(
    other: &Level,
    map: &Affine,
    (x, y): (usize, usize),
    (width, height): (usize, usize),
    steps: usize,
) -> f32 {
    let part = |i: usize| (i as f32 + 0.5) / steps as f32;
    let mut sum = 0.0;
    for i in 0..steps {
        for j in 0..steps {
            let at_x = (x as f32 + part(j)) / width as f32;
            let at_y = (y as f32 + part(i)) / height as f32;
            let (u, v) = map.apply(at_x, at_y);
            sum += other.grey.at(u, v);
        }
    }
    sum / (steps * steps) as f32
}

impl Sums {
    fn block(&self) -> Block {
        let n = self.count;
        let (mean_a, mean_b) = (self.a / n, self.b / n);
        let variance = (self.aa / n - mean_a * mean_a, self.bb / n - mean_b * mean_b);
        let variance = (variance.0.max(0.0), variance.1.max(0.0));
        let covariance = self.ab / n - mean_a * mean_b;
        let correlation = covariance / ((variance.0 + NOISE) * (variance.1 + NOISE)).sqrt();
        let writing = self.fill.0.max(self.fill.1) >= WRITING * self.covered;
        Block { variance, correlation, writing }
    }
}

fn agreement(blocks: &[Block]) -> Agreement {
    let mut gains: Vec<f32> =
        blocks.iter().map(|b| ((b.variance.1 + 1.0) / (b.variance.0 + 1.0)).sqrt()).collect();
    let Some(gain) = median(&mut gains) else { return Agreement::default() };
    // What is texture in the picture of less contrast would be more of it in the other.
    let least = (TEXTURE * gain.powi(-2).min(1.0), TEXTURE * gain.powi(2).min(1.0));
    let compared: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.variance.0 >= least.0 && block.variance.1 >= least.1)
        .collect();
    let mut correlations: Vec<f32> = compared.iter().map(|block| block.correlation).collect();
    let Some(median) = median(&mut correlations) else { return Agreement::default() };
    let bar = 1.0 - DISAGREES.max(SPREAD * (1.0 - median));
    let differ = compared.iter().filter(|block| !block.writing && block.correlation < bar).count();
    let alone = |block: &&Block| {
        let (a, b) = (block.variance.0 / least.0, block.variance.1 / least.1);
        let one_sided = a.max(b) >= ONE_SIDED && a.min(b) < 1.0 / ONE_SIDED;
        one_sided && !block.writing
    };
    let conflicts = differ + blocks.iter().filter(alone).count();
    Agreement { blocks: compared.len(), median, conflicts, overlap: 0.0 }
}

/// The middle value, of an even number the higher; `None` without values.
fn median(values: &mut [f32]) -> Option<f32> {
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}
