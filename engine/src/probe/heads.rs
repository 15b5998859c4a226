//! Many linear heads advanced together: SGD with momentum on the mean cross-entropy of each.

use std::f64::consts::TAU;

use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::kernels::{Operand, matmul_f32};
use crate::train::augment::generator;

/// Momentum of the published protocol.
const MOMENTUM: f32 = 0.9;
/// Standard deviation of initial weights (`LinearClassifier` of the reference); biases are 0.
const INIT_STD: f64 = 0.01;
/// Rows of stacked weights in one matrix product. Panels do not depend on the number of threads,
/// and so neither do results.
const PANEL_ROWS: usize = 128;
/// Pictures classified in one matrix product.
const EVAL_ROWS: usize = 256;

/// Heads over several feature sets, with the same learning rates for each set; ordered by set, then
/// by learning rate.
///
/// Heads that read the same features are stacked into matrices of about 128 rows, so that one
/// product serves several of them.
#[derive(Clone, Debug)]
pub struct Heads {
    classes: usize,
    panels: Vec<Panel>,
}

/// How a head does on pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Pictures classified right.
    pub correct: usize,
    /// Sum of cross-entropies.
    pub loss: f64,
}

impl Evaluation {
    /// Counts a picture; its scores are used up.
    fn add(&mut self, scores: &mut [f32], label: u32) {
        self.correct += usize::from(argmax(scores) == Some(label));
        self.loss += f64::from(to_gradient(scores, label as usize, 1));
    }

    /// Whether this head, later in the grid, is the better choice.
    pub(super) fn beats(&self, earlier: &Self, ties: Ties) -> bool {
        let tie = self.correct == earlier.correct && ties == Ties::LowestLoss;
        self.correct > earlier.correct || (tie && self.loss < earlier.loss)
    }
}

/// Which of several heads with as many validation pictures right is chosen. Few held-out pictures
/// often leave many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// The first in the grid, as in the reference: fewest features, smallest learning rate or C.
    #[default]
    First,
    /// The one with the lowest cross-entropy, whose probabilities mean most.
    LowestLoss,
}

/// Consecutive heads over one feature set, advanced by one task.
#[derive(Clone, Debug)]
struct Panel {
    set: usize,
    dim: usize,
    /// Learning rate of each head.
    rates: Vec<f64>,
    /// (heads * classes, dim).
    weight: Vec<f32>,
    bias: Vec<f32>,
    weight_velocity: Vec<f32>,
    bias_velocity: Vec<f32>,
    /// Kept between steps, so that memory is asked for once.
    gradient: Vec<f32>,
}

impl Heads {
    /// Heads from given weights, biases 0. `weights` holds, for each feature set of `dim` values, a
    /// (heads * classes, dim) matrix, one head for each of `rates`.
    ///
    /// # Errors
    /// [`EngineError::Training`] when there is nothing to train or a matrix has another shape.
    pub fn from_weights(classes: usize, rates: &[f64], weights: &[Vec<f32>]) -> Result<Self> {
        let invalid = |reason: String| Err(EngineError::Training { reason });
        if classes < 2 || rates.is_empty() || weights.is_empty() {
            return invalid(format!(
                "heads need 2 classes or more, a learning rate and a feature set; there are \
                 {classes} classes, {} learning rates and {} feature sets",
                rates.len(),
                weights.len()
            ));
        }
        let rows = classes * rates.len();
        let heads_per_panel = (PANEL_ROWS / classes).max(1);
        let mut panels = Vec::new();
        for (set, weights) in weights.iter().enumerate() {
            let dim = weights.len() / rows;
            if dim == 0 || !weights.len().is_multiple_of(rows) {
                return invalid(format!(
                    "feature set {set} comes with {} weights, which is no multiple of {rows}",
                    weights.len()
                ));
            }
            for (rates, weight) in
                rates.chunks(heads_per_panel).zip(weights.chunks(heads_per_panel * classes * dim))
            {
                panels.push(Panel {
                    set,
                    dim,
                    rates: rates.to_vec(),
                    weight: weight.to_vec(),
                    bias: vec![0.0; rates.len() * classes],
                    weight_velocity: vec![0.0; weight.len()],
                    bias_velocity: vec![0.0; rates.len() * classes],
                    gradient: vec![0.0; weight.len()],
                });
            }
        }
        Ok(Self { classes, panels })
    }

    /// Heads with weights drawn from a normal distribution of deviation 0.01, over feature sets of
    /// the given widths.
    ///
    /// # Errors
    /// As [`from_weights`](Self::from_weights).
    pub fn random(classes: usize, rates: &[f64], dims: &[usize], seed: u64) -> Result<Self> {
        let draw = |(set, dim): (usize, &usize)| {
            let mut rng = generator(seed, "probe weights", [set as u64, 0]);
            let mut normal = || {
                // Box and Muller; 1 - u is never 0.
                let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
                (INIT_STD * radius * (TAU * rng.random::<f64>()).cos()) as f32
            };
            (0..classes * rates.len() * dim).map(|_| normal()).collect()
        };
        let weights: Vec<Vec<f32>> = dims.iter().enumerate().map(draw).collect();
        Self::from_weights(classes, rates, &weights)
    }

    /// Number of heads.
    pub fn len(&self) -> usize {
        self.panels.iter().map(|panel| panel.rates.len()).sum()
    }

    /// Whether there is no head; never the case.
    pub fn is_empty(&self) -> bool {
        self.panels.is_empty()
    }

    /// One step of every head at its learning rate times `factor`. `features` holds a (B, dim)
    /// matrix for each feature set, `labels` B classes. Returns each head's loss before the step.
    ///
    /// PyTorch's SGD: v = 0.9 v + g, w = w - rate v.
    ///
    /// # Panics
    /// The shapes do not fit, or a label is no class.
    pub fn step(&mut self, features: &[Vec<f32>], labels: &[u32], factor: f64) -> Vec<f32> {
        let classes = self.classes;
        let losses: Vec<Vec<f32>> = self
            .panels
            .par_iter_mut()
            .map(|panel| panel.step(&features[panel.set], labels, classes, factor))
            .collect();
        losses.into_iter().flatten().collect()
    }

    /// How each head does on pictures; one with a score that is not finite is wrong.
    ///
    /// # Panics
    /// The shapes do not fit, or a label is no class.
    pub fn evaluate(&self, features: &[Vec<f32>], labels: &[u32]) -> Vec<Evaluation> {
        let classes = self.classes;
        let each: Vec<Vec<Evaluation>> = self
            .panels
            .par_iter()
            .map(|panel| {
                let mut heads = vec![Evaluation::default(); panel.rates.len()];
                let features = features[panel.set].chunks(EVAL_ROWS * panel.dim);
                for (features, labels) in features.zip(labels.chunks(EVAL_ROWS)) {
                    let mut scores = panel.scores(features);
                    for (i, scores) in scores.chunks_exact_mut(classes).enumerate() {
                        let (picture, head) = (i / heads.len(), i % heads.len());
                        heads[head].add(scores, labels[picture]);
                    }
                }
                heads
            })
            .collect();
        each.into_iter().flatten().collect()
    }

    /// Weights (classes, dim) and biases (classes) of a head; `None` beyond the last.
    pub fn head(&self, mut index: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        for panel in &self.panels {
            if index < panel.rates.len() {
                let rows = index * self.classes..(index + 1) * self.classes;
                let weight = &panel.weight[rows.start * panel.dim..rows.end * panel.dim];
                return Some((weight.to_vec(), panel.bias[rows].to_vec()));
            }
            index -= panel.rates.len();
        }
        None
    }
}

impl Panel {
    /// (B, heads * classes) scores.
    fn scores(&self, features: &[f32]) -> Vec<f32> {
        let rows = self.bias.len();
        let batch = features.len() / self.dim;
        let mut scores = vec![0.0; batch * rows];
        let weight = Operand::new(&self.weight, rows, self.dim).t();
        matmul_f32(Operand::new(features, batch, self.dim), weight, &mut scores);
        for scores in scores.chunks_exact_mut(rows) {
            scores.iter_mut().zip(&self.bias).for_each(|(score, bias)| *score += bias);
        }
        scores
    }

    fn step(&mut self, features: &[f32], labels: &[u32], classes: usize, factor: f64) -> Vec<f32> {
        let (batch, rows) = (labels.len(), self.bias.len());
        let mut scores = self.scores(features);
        let mut losses = vec![0f64; self.rates.len()];
        for (i, scores) in scores.chunks_exact_mut(classes).enumerate() {
            let (picture, head) = (i / losses.len(), i % losses.len());
            losses[head] += f64::from(to_gradient(scores, labels[picture] as usize, batch));
        }
        let residuals = Operand::new(&scores, batch, rows).t();
        matmul_f32(residuals, Operand::new(features, batch, self.dim), &mut self.gradient);
        let mut bias_gradient = vec![0f32; rows];
        for residuals in scores.chunks_exact(rows) {
            bias_gradient.iter_mut().zip(residuals).for_each(|(sum, r)| *sum += r);
        }
        for (head, rate) in self.rates.iter().enumerate() {
            let rate = (rate * factor) as f32;
            let rows = head * classes..(head + 1) * classes;
            let values = rows.start * self.dim..rows.end * self.dim;
            descend(
                &mut self.weight[values.clone()],
                &mut self.weight_velocity[values.clone()],
                &self.gradient[values],
                rate,
            );
            descend(
                &mut self.bias[rows.clone()],
                &mut self.bias_velocity[rows.clone()],
                &bias_gradient[rows],
                rate,
            );
        }
        losses.into_iter().map(|loss| (loss / batch as f64) as f32).collect()
    }
}

fn descend(values: &mut [f32], velocity: &mut [f32], gradient: &[f32], rate: f32) {
    for ((value, velocity), gradient) in values.iter_mut().zip(velocity).zip(gradient) {
        *velocity = MOMENTUM * *velocity + gradient;
        *value -= rate * *velocity;
    }
}

/// Scores of one picture to the gradient of the batch's mean cross-entropy; returns the picture's
/// own cross-entropy.
fn to_gradient(scores: &mut [f32], label: usize, batch: usize) -> f32 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let own = scores[label];
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    let share = 1.0 / batch as f32;
    scores.iter_mut().for_each(|score| *score = *score / sum * share);
    scores[label] -= share;
    sum.ln() + max - own
}

/// The class of the highest score, the first on ties; `None` when a score is not finite.
pub(super) fn argmax(scores: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if !score.is_finite() {
            return None;
        }
        if *score > scores[best] {
            best = class;
        }
    }
    u32::try_from(best).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_weights_have_the_published_deviation_and_depend_on_the_seed() -> Result<()> {
        let rates = [0.1; 13];
        let heads = |seed| Heads::random(40, &rates, &[96, 192], seed);
        let first = heads(1)?;
        assert_eq!(first.len(), 26);
        let (weight, bias) = first.head(20).expect("head 20");
        assert_eq!((weight.len(), bias), (40 * 192, vec![0.0; 40]));
        let square: f64 = weight.iter().map(|w| f64::from(*w).powi(2)).sum();
        let deviation = (square / weight.len() as f64).sqrt();
        assert!((deviation - 0.01).abs() < 3e-4, "{deviation}");
        assert_eq!(heads(1)?.head(20), first.head(20));
        assert_ne!(heads(2)?.head(20), first.head(20));
        assert_eq!(first.head(26), None);
        Ok(())
    }

    #[test]
    fn stacking_changes_no_head() -> Result<()> {
        let classes = 50; // two heads in a panel
        let rates = [0.01, 0.1, 0.5, 1.0, 2.0];
        let weights: Vec<f32> = (0..5 * 50 * 7).map(|i| (i * 37 % 101) as f32 * 1e-3).collect();
        let features: Vec<f32> = (0..9 * 7).map(|i| (i * 29 % 17) as f32 * 0.1).collect();
        let labels: Vec<u32> = (0..9).map(|i| i * 5).collect();
        let mut all = Heads::from_weights(classes, &rates, std::slice::from_ref(&weights))?;
        for i in 0..3 {
            all.step(std::slice::from_ref(&features), &labels, 1.0 / (i + 1) as f64);
        }
        for (head, rate) in rates.iter().enumerate() {
            let own = weights[head * 350..(head + 1) * 350].to_vec();
            let mut one = Heads::from_weights(classes, &[*rate], &[own])?;
            for i in 0..3 {
                one.step(std::slice::from_ref(&features), &labels, 1.0 / (i + 1) as f64);
            }
            let (stacked, alone) = (all.head(head).expect("head"), one.head(0).expect("head"));
            for (a, b) in stacked.0.iter().zip(&alone.0).chain(stacked.1.iter().zip(&alone.1)) {
                assert!((a - b).abs() < 1e-6, "head {head}: {a} {b}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_head_that_diverged_is_never_right_nor_better() -> Result<()> {
        let mut heads = Heads::from_weights(2, &[1.0], &[vec![0.0, 0.0]])?;
        heads.panels[0].weight[0] = f32::NAN;
        let evaluation = heads.evaluate(&[vec![1.0, 1.0]], &[0, 1])[0];
        assert!(evaluation.correct == 0 && evaluation.loss.is_nan());
        assert!(!evaluation.beats(&Evaluation { correct: 0, loss: 5.0 }, Ties::LowestLoss));
        Ok(())
    }

    #[test]
    fn more_right_answers_win_and_ties_are_settled_as_asked() {
        let of = |correct, loss| Evaluation { correct, loss };
        for ties in [Ties::First, Ties::LowestLoss] {
            assert!(of(3, 9.0).beats(&of(2, 1.0), ties));
            assert!(!of(2, 1.0).beats(&of(3, 9.0), ties));
        }
        assert!(!of(2, 1.0).beats(&of(2, 9.0), Ties::First));
        assert!(of(2, 1.0).beats(&of(2, 9.0), Ties::LowestLoss));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(Heads::from_weights(1, &[0.1], &[vec![0.0; 4]]).is_err());
        assert!(Heads::from_weights(2, &[], &[vec![0.0; 4]]).is_err());
        assert!(Heads::from_weights(2, &[0.1], &[vec![0.0; 5]]).is_err());
    }
}
