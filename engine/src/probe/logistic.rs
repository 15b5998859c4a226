//! Multinomial logistic regression with an L2 penalty, and the choice of its strength on held-out
//! pictures (`log_regression.py` of the reference).
//!
//! The objective is scikit-learn's and cuML's: C times the sum of cross-entropies plus half the
//! squared weights; biases are free.

use rayon::prelude::*;
use serde::Serialize;

use super::heads::{Evaluation, Ties, argmax};
use super::lbfgs::minimise;
use crate::error::{EngineError, Result};
use crate::kernels::{Operand, matmul_f64};

/// Pictures in one task; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 128;
/// Classes in one task of the gradient.
const CLASS_CHUNK: usize = 16;
/// `DEFAULT_MAX_ITER` of the reference.
const MAX_ITERATIONS: usize = 1000;
/// Largest gradient entry of the mean objective at which the minimum is reached.
const TOLERANCE: f64 = 1e-9;

/// The 45 inverse strengths of the reference: 10^-6 to 10^5, evenly spaced in the exponent.
pub fn c_grid() -> Vec<f64> {
    (0..45).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 44.0)).collect()
}

/// A fitted model.
#[derive(Clone, Debug)]
pub struct LogisticRegression {
    /// Inverse strength of the penalty.
    pub c: f64,
    /// (classes, dim).
    pub weight: Vec<f64>,
    /// (classes).
    pub bias: Vec<f64>,
    /// Steps of L-BFGS.
    pub iterations: usize,
    /// Largest gradient entry of the mean objective at the end; about 1e-9 when it converged.
    pub gradient: f64,
}

impl LogisticRegression {
    /// How it does on the pictures of a (n, dim) matrix.
    pub fn evaluate(&self, features: &[f32], labels: &[u32]) -> Evaluation {
        let dim = self.weight.len() / self.bias.len();
        let one = |(features, label): (&[f32], &u32)| {
            let score = |weight: &[f64]| -> f64 {
                weight.iter().zip(features).map(|(w, &x)| w * f64::from(x)).sum()
            };
            let mut scores: Vec<f64> = self.weight.chunks(dim).map(score).collect();
            let biased: Vec<f32> =
                scores.iter().zip(&self.bias).map(|(score, bias)| (score + bias) as f32).collect();
            let correct = usize::from(argmax(&biased) == Some(*label));
            Evaluation { correct, loss: to_residual(&mut scores, &self.bias, *label as usize) }
        };
        // Summed in order, whatever the number of threads.
        let each: Vec<Evaluation> = features.par_chunks(dim).zip(labels).map(one).collect();
        each.into_iter().fold(Evaluation::default(), |sum, one| Evaluation {
            correct: sum.correct + one.correct,
            loss: sum.loss + one.loss,
        })
    }
}

/// Fits features, a (n, dim) matrix, to labels. `start` may be the model of another C, which
/// changes the way but not the end.
///
/// # Errors
/// [`EngineError::Training`] for fewer than 2 classes, an empty or odd matrix, or a C that is not
/// above 0.
pub fn fit_logistic(
    c: f64,
    classes: usize,
    features: &[f32],
    labels: &[u32],
    start: Option<&LogisticRegression>,
) -> Result<LogisticRegression> {
    let objective = Objective::new(c, classes, features, labels)?;
    let count = classes * objective.dim;
    let x = match start {
        Some(start) if start.weight.len() == count => {
            start.weight.iter().chain(&start.bias).copied().collect()
        }
        _ => vec![0.0; count + classes],
    };
    let mut evaluate = |x: &[f64], gradient: &mut [f64]| objective.evaluate(x, gradient);
    let minimum = minimise(x, TOLERANCE, MAX_ITERATIONS, &mut evaluate);
    let mut weight = minimum.x;
    let bias = weight.split_off(count);
    let (iterations, gradient) = (minimum.iterations, minimum.gradient);
    Ok(LogisticRegression { c, weight, bias, iterations, gradient })
}

/// How well one C did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StrengthScore {
    /// Inverse strength.
    pub c: f64,
    /// Validation pictures classified right.
    pub correct: usize,
    /// Sum of cross-entropies over validation pictures.
    pub loss: f64,
    /// Steps of L-BFGS.
    pub iterations: usize,
}

/// Fits every C of a rising grid, each from the one before, and counts validation pictures that
/// come out right. The best is the one with most. `on_fit` hears each, and
/// may end the run by returning false.
///
/// # Errors
/// As [`fit_logistic`]; the grid is empty; the run was ended.
pub fn choose_c(
    (grid, ties): (&[f64], Ties),
    classes: usize,
    train: (&[f32], &[u32]),
    validation: (&[f32], &[u32]),
    on_fit: &mut dyn FnMut(&StrengthScore) -> bool,
) -> Result<(LogisticRegression, Vec<StrengthScore>)> {
    let mut scores: Vec<StrengthScore> = Vec::new();
    let mut best: Option<(Evaluation, LogisticRegression)> = None;
    let mut last: Option<LogisticRegression> = None;
    for &c in grid {
        let fitted = fit_logistic(c, classes, train.0, train.1, last.as_ref())?;
        let evaluation = fitted.evaluate(validation.0, validation.1);
        let Evaluation { correct, loss } = evaluation;
        scores.push(StrengthScore { c, correct, loss, iterations: fitted.iterations });
        if best.as_ref().is_none_or(|(best, _)| evaluation.beats(best, ties)) {
            best = Some((evaluation, fitted.clone()));
        }
        last = Some(fitted);
        if !scores.last().is_none_or(&mut *on_fit) {
            return Err(invalid("stopped before the end; there is no head"));
        }
    }
    let (_, fitted) = best.ok_or_else(|| invalid("there is no C to try"))?;
    Ok((fitted, scores))
}

fn invalid(reason: &str) -> EngineError {
    EngineError::Training { reason: reason.to_owned() }
}

/// The mean over pictures of the objective divided by C, in f64.
struct Objective<'a> {
    classes: usize,
    dim: usize,
    features: Vec<f64>,
    labels: &'a [u32],
    /// Factor of half the squared weights.
    penalty: f64,
}

impl<'a> Objective<'a> {
    fn new(c: f64, classes: usize, features: &[f32], labels: &'a [u32]) -> Result<Self> {
        if classes < 2 || labels.is_empty() || labels.iter().any(|&l| l as usize >= classes) {
            return Err(invalid(
                "logistic regression needs 2 classes or more, and pictures of them",
            ));
        }
        let dim = features.len() / labels.len();
        if dim == 0 || dim * labels.len() != features.len() {
            return Err(invalid("logistic regression needs the same features of every picture"));
        }
        if !c.is_finite() || c <= 0.0 {
            return Err(invalid(&format!("C is {c}; it must be a number above 0")));
        }
        // Two classes have one row of weights in the reference. Here they have two, w / 2 and
        // -w / 2, and the penalty is doubled to be the same: 2 (w^2 / 4 + w^2 / 4) = w^2.
        let rows = if classes == 2 { 2.0 } else { 1.0 };
        Ok(Self {
            classes,
            dim,
            features: features.iter().map(|&v| f64::from(v)).collect(),
            labels,
            penalty: rows / (c * labels.len() as f64),
        })
    }

    fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let Self { classes, dim, .. } = *self;
        let pictures = self.labels.len();
        let (weight, bias) = x.split_at(classes * dim);
        let mut residuals = vec![0.0; pictures * classes];
        let losses: Vec<f64> = residuals
            .par_chunks_mut(CHUNK * classes)
            .zip(self.features.par_chunks(CHUNK * dim))
            .zip(self.labels.par_chunks(CHUNK))
            .map(|((scores, features), labels)| {
                let features = Operand::new(features, labels.len(), dim);
                matmul_f64(features, Operand::new(weight, classes, dim).t(), scores);
                let each = scores.chunks_exact_mut(classes).zip(labels);
                each.map(|(scores, label)| to_residual(scores, bias, *label as usize)).sum()
            })
            .collect();
        let share = 1.0 / pictures as f64;
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(classes * dim);
        bias_gradient.fill(0.0);
        for residuals in residuals.chunks_exact(classes) {
            bias_gradient.iter_mut().zip(residuals).for_each(|(sum, r)| *sum += share * r);
        }
        // Residuals of some classes at a time, as rows.
        weight_gradient.par_chunks_mut(CLASS_CHUNK * dim).enumerate().for_each(|(i, out)| {
            let first = i * CLASS_CHUNK;
            let rows = out.len() / dim;
            let part: Vec<f64> = (first..first + rows)
                .flat_map(|class| residuals.iter().skip(class).step_by(classes))
                .copied()
                .collect();
            let part = Operand::new(&part, rows, pictures);
            matmul_f64(part, Operand::new(&self.features, pictures, dim), out);
            for (gradient, w) in out.iter_mut().zip(&weight[first * dim..]) {
                *gradient = share * *gradient + self.penalty * w;
            }
        });
        let squared: f64 = weight.iter().map(|w| w * w).sum();
        share * losses.iter().sum::<f64>() + 0.5 * self.penalty * squared
    }
}

/// Scores without bias to probabilities minus the truth; returns the cross-entropy.
fn to_residual(scores: &mut [f64], bias: &[f64], label: usize) -> f64 {
    scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = scores[label];
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores[label] -= 1.0;
    sum.ln() + max - own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (Vec<f32>, Vec<u32>) {
        let features = (0..40 * 5).map(|i| ((i * i * 31 + i * 7) % 97) as f32 * 0.02).collect();
        (features, (0..40).map(|i| (i * i + i / 3) % 3).collect())
    }

    #[test]
    fn the_gradient_is_that_of_the_value() -> Result<()> {
        let (features, labels) = data();
        let objective = Objective::new(0.5, 3, &features, &labels)?;
        let x: Vec<f64> = (0..18).map(|i| f64::from(i * 7 % 5) * 0.1 - 0.2).collect();
        let mut gradient = vec![0.0; 18];
        objective.evaluate(&x, &mut gradient);
        for i in 0..18 {
            let at = |step: f64| {
                let mut x = x.clone();
                x[i] += step;
                objective.evaluate(&x, &mut [0.0; 18])
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - gradient[i]).abs() < 1e-8, "{i}: {slope} {}", gradient[i]);
        }
        Ok(())
    }

    #[test]
    fn where_the_search_starts_does_not_matter() -> Result<()> {
        let (features, labels) = data();
        let other = fit_logistic(100.0, 3, &features, &labels, None)?;
        let cold = fit_logistic(0.3, 3, &features, &labels, None)?;
        let warm = fit_logistic(0.3, 3, &features, &labels, Some(&other))?;
        let gradients = (cold.gradient, warm.gradient);
        assert!(gradients.0 <= TOLERANCE && gradients.1 <= TOLERANCE, "{gradients:?}");
        let pairs = cold.weight.iter().zip(&warm.weight);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
        Ok(())
    }

    #[test]
    fn the_grid_is_the_published_one_and_ties_go_to_the_lowest_loss() -> Result<()> {
        let grid = c_grid();
        assert_eq!((grid.len(), grid[0]), (45, 1e-6));
        assert!((grid[44] - 1e5).abs() < 1e-6 && (grid[24] - 1.0).abs() < 1e-12);
        let (features, labels) = data();
        let sets = (features.as_slice(), labels.as_slice());
        let (best, scores) =
            choose_c((&[1e-3, 1.0, 1e3, 1e3], Ties::LowestLoss), 3, sets, sets, &mut |_| true)?;
        let chosen = scores.iter().find(|score| score.c == best.c).expect("of the grid");
        for other in &scores {
            let better = other.correct > chosen.correct
                || other.correct == chosen.correct && other.loss < chosen.loss - 1e-6;
            assert!(!better, "{other:?} {chosen:?}");
        }
        assert!(choose_c((&[], Ties::First), 3, sets, sets, &mut |_| true).is_err());
        assert!(choose_c((&grid, Ties::First), 3, sets, sets, &mut |_| false).is_err());
        Ok(())
    }

    #[test]
    fn nonsense_is_refused() {
        let (features, labels) = data();
        assert!(fit_logistic(0.0, 3, &features, &labels, None).is_err());
        assert!(fit_logistic(1.0, 1, &features, &labels, None).is_err());
        assert!(fit_logistic(1.0, 2, &features, &labels, None).is_err());
        assert!(fit_logistic(1.0, 3, &features[1..], &labels, None).is_err());
        assert!(fit_logistic(1.0, 3, &[], &[], None).is_err());
    }
}
