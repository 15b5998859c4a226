//! An affine map made better on grey pixels: Gauss-Newton on the difference of normalised values.

use super::Affine;
use super::plane::{Level, Planes};

/// Share of the first picture that must stay over the second.
const OVERLAP: f32 = 0.1;
/// Overlap from which on a map is not held against for covering little.
const AMPLE: f32 = 0.3;
/// Difference, in standard deviations, at which a pixel counts half.
const OUTLIER: f32 = 0.7;
/// A step of no more than this moves nothing by a pixel.
const SETTLED: f32 = 2e-4;

/// A map and how well it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) map: Affine,
    pub(super) correlation: f32,
    pub(super) overlap: f32,
}

impl Found {
    pub(super) fn score(&self) -> f32 {
        self.correlation * (self.overlap / AMPLE).min(1.0).sqrt()
    }
}

/// Two pictures on one level.
pub(super) struct Refiner<'a> {
    first: &'a Level,
    second: &'a Level,
    /// Slopes of the second picture in grey values per relative unit.
    slopes: Vec<(f32, f32)>,
}

/// What the second picture shows where a pixel of the first lands.
#[derive(Clone, Copy)]
struct Sample {
    x: f32,
    y: f32,
    a: f32,
    b: f32,
    weight: f32,
    slope: (f32, f32),
}

impl Sample {
    /// How its value changes with the six numbers of the map.
    fn gradient(&self) -> [f32; 6] {
        let (dx, dy) = self.slope;
        [dx * self.x, dx * self.y, dx, dy * self.x, dy * self.y, dy]
    }
}

/// Weighted means and deviations of the samples of one map.
struct Statistics {
    weight: f32,
    mean: (f32, f32),
    deviation: (f32, f32),
    gradient: [f32; 6],
    correlation: f32,
}

impl<'a> Refiner<'a> {
    pub(super) fn new(first: &'a Planes, second: &'a Planes, level: usize) -> Self {
        let (first, second) = (first.level(level), second.level(level));
        let (width, height) = (second.grey.width, second.grey.height);
        let value = |x: usize, y: usize| f32::from(second.grey.values[y * width + x]);
        let slope = |low: f32, high: f32, steps: usize, length: usize| {
            (high - low) / steps.max(1) as f32 * length as f32
        };
        let mut slopes = Vec::with_capacity(width * height);
        for y in 0..height {
            let (above, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
            for x in 0..width {
                let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
                slopes.push((
                    slope(value(left, y), value(right, y), right - left, width),
                    slope(value(x, above), value(x, below), below - above, height),
                ));
            }
        }
        Self { first, second, slopes }
    }

    /// The best of the maps met in so many steps from `map`.
    pub(super) fn refine(&self, map: Affine, iterations: usize) -> Found {
        let mut best = Found { map, correlation: -1.0, overlap: 0.0 };
        let mut map = map;
        let pixels = self.first.grey.values.len() as f32;
        for iteration in 0..=iterations {
            let samples = self.samples(&map);
            let overlap = samples.len() as f32 / pixels;
            if overlap < OVERLAP {
                break;
            }
            let statistics = Statistics::of(&samples);
            if statistics.correlation > best.correlation {
                best = Found { map, correlation: statistics.correlation, overlap };
            }
            if iteration == iterations {
                break;
            }
            let Some(step) = step(&samples, &statistics) else { break };
            for (entry, change) in map.0.as_flattened_mut().iter_mut().zip(step) {
                *entry += change;
            }
            if step.iter().all(|change| change.abs() < SETTLED) {
                break;
            }
        }
        best
    }

    fn samples(&self, map: &Affine) -> Vec<Sample> {
        let (grey, width) = (&self.first.grey, self.first.grey.width);
        let mut samples = Vec::with_capacity(grey.values.len());
        for (i, &a) in grey.values.iter().enumerate() {
            let x = ((i % width) as f32 + 0.5) / width as f32;
            let y = ((i / width) as f32 + 0.5) / grey.height as f32;
            let (u, v) = map.apply(x, y);
            if u > 0.0 && u < 1.0 && v > 0.0 && v < 1.0 {
                let other = &self.second.grey;
                let nearest = (v * other.height as f32) as usize * other.width
                    + (u * other.width as f32) as usize;
                let own = f32::from(self.first.picture.values[i]);
                let weight = own * f32::from(self.second.picture.values[nearest]) / 65025.0;
                samples.push(Sample {
                    x,
                    y,
                    a: f32::from(a),
                    b: other.at(u, v),
                    weight: weight + 1e-3,
                    slope: self.slopes[nearest],
                });
            }
        }
        // Two pictures of fill alone are compared by that.
        if samples.iter().map(|sample| sample.weight).sum::<f32>() < 0.05 * grey.values.len() as f32
        {
            samples.iter_mut().for_each(|sample| sample.weight = 1.0);
        }
        samples
    }
}

impl Statistics {
    fn of(samples: &[Sample]) -> Self {
        let (mut weight, mut mean, mut gradient) = (0.0, (0.0, 0.0), [0.0; 6]);
        for sample in samples {
            weight += sample.weight;
            mean.0 += sample.weight * sample.a;
            mean.1 += sample.weight * sample.b;
            for (sum, value) in gradient.iter_mut().zip(sample.gradient()) {
                *sum += sample.weight * value;
            }
        }
        let mean = (mean.0 / weight, mean.1 / weight);
        let gradient = gradient.map(|sum| sum / weight);
        let mut squares = (0.0, 0.0, 0.0);
        for sample in samples {
            let (a, b) = (sample.a - mean.0, sample.b - mean.1);
            squares.0 += sample.weight * a * a;
            squares.1 += sample.weight * b * b;
            squares.2 += sample.weight * a * b;
        }
        let deviation = |squares: f32| (squares / weight).sqrt() + 1e-3;
        let deviation = (deviation(squares.0), deviation(squares.1));
        let correlation = squares.2 / weight / (deviation.0 * deviation.1);
        Self { weight, mean, deviation, gradient, correlation }
    }
}

/// The next step: weighted least squares, pixels that differ much counting little.
fn step(samples: &[Sample], statistics: &Statistics) -> Option<[f32; 6]> {
    let Statistics { mean, deviation, gradient: mean_gradient, .. } = statistics;
    let mut matrix = [[0f64; 6]; 6];
    let mut right = [0f64; 6];
    for sample in samples {
        let residual = (sample.a - mean.0) / deviation.0 - (sample.b - mean.1) / deviation.1;
        let outlying = residual / OUTLIER;
        let weight = f64::from(sample.weight / (1.0 + outlying * outlying));
        let mut gradient = sample.gradient();
        for (value, mean) in gradient.iter_mut().zip(mean_gradient) {
            *value = (*value - mean) / deviation.1;
        }
        for i in 0..6 {
            let scaled = weight * f64::from(gradient[i]);
            right[i] += scaled * f64::from(residual);
            for j in i..6 {
                matrix[i][j] += scaled * f64::from(gradient[j]);
            }
        }
    }
    for i in 0..6 {
        let (above, below) = matrix.split_at_mut(i);
        for (j, row) in above.iter().enumerate() {
            below[0][j] = row[i];
        }
        below[0][i] += 1e-5 * samples.len() as f64 + 1e-9 * f64::from(statistics.weight);
    }
    solve(matrix, right).map(|step| step.map(|value| value as f32))
}

/// Gaussian elimination with pivoting; `None` when there is no unique finite solution.
pub(super) fn solve<const N: usize>(
    mut matrix: [[f64; N]; N],
    mut right: [f64; N],
) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot = (column..N)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..N {
            let factor = matrix[row][column] / matrix[column][column];
            let (above, below) = matrix.split_at_mut(row);
            for (value, pivot) in below[0].iter_mut().zip(above[column]).skip(column) {
                *value -= factor * pivot;
            }
            right[row] -= factor * right[column];
        }
    }
    for column in (0..N).rev() {
        for k in column + 1..N {
            right[column] -= matrix[column][k] * right[k];
        }
        right[column] /= matrix[column][column];
    }
    right.iter().all(|value| value.is_finite()).then_some(right)
}
