//! The published linear evaluation: a grid of heads trained at once, the best chosen on pictures
//! held out for it.

use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::heads::{Evaluation, Heads, Ties};
use super::recipe::{Recipe, Scale};
use crate::error::{EngineError, Result};
use crate::features::ProbeTokens;
use crate::train::augment::generator;
use crate::train::schedule::CosineSchedule;

/// Learning rates for a batch of 256 (DINOv2, arXiv 2304.07193, appendix B.3; the released code's
/// defaults stop at 0.1 and start at 1e-5).
pub const LEARNING_RATES: [f64; 13] =
    [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.3, 0.5];

/// Learning rates are for batches of this size, and scaled in proportion for others.
const RATE_BATCH: f64 = 256.0;

/// Tokens of pictures and the class of each.
#[derive(Clone, Debug, Default)]
pub struct LabelledTokens {
    /// What heads read.
    pub tokens: Vec<ProbeTokens>,
    /// Class of each, from 0.
    pub labels: Vec<u32>,
}

/// How heads are trained; the defaults are the published ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearConfig {
    /// Feature sets; each is combined with each learning rate.
    pub recipes: Vec<Recipe>,
    /// Learning rates for a batch of 256.
    pub learning_rates: Vec<f64>,
    /// Pictures in a step.
    pub batch: usize,
    /// Steps.
    pub iterations: usize,
    /// Which of several equally good heads is chosen.
    pub ties: Ties,
    /// Seed of initial weights and order.
    pub seed: u64,
}

impl Default for LinearConfig {
    fn default() -> Self {
        let recipe = |(blocks, avg_pool)| Recipe { blocks, avg_pool, scale: Scale::Raw };
        Self {
            recipes: [(1, false), (1, true), (4, false), (4, true)].map(recipe).to_vec(),
            learning_rates: LEARNING_RATES.to_vec(),
            batch: 128,
            iterations: 12_500,
            ties: Ties::First,
            seed: 0,
        }
    }
}

/// One head of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GridPoint {
    /// What it reads.
    pub recipe: Recipe,
    /// Its learning rate for a batch of 256.
    pub learning_rate: f64,
    /// Validation pictures it classifies right.
    pub correct: usize,
    /// Sum of cross-entropies over validation pictures; not a number when it diverged.
    pub loss: f64,
}

impl GridPoint {
    fn evaluation(&self) -> Evaluation {
        Evaluation { correct: self.correct, loss: self.loss }
    }
}

/// The outcome of [`train_linear`].
#[derive(Clone, Debug)]
pub struct Trained {
    /// Every head, ordered by recipe, then by learning rate.
    pub grid: Vec<GridPoint>,
    /// Position in `grid` of the head with most validation pictures right.
    pub chosen: usize,
    /// Its weights, (classes, dim).
    pub weight: Vec<f32>,
    /// Its biases, (classes).
    pub bias: Vec<f32>,
}

/// Trains all heads of the grid on the same batches and chooses one by `validation`.
///
/// `views` holds the training pictures once or more, each time as another view; epoch e takes view
/// e modulo their number. Batches are drawn from endless shuffled epochs, so they are full however
/// few pictures there are. `on_step` hears the step (from 1) and the mean loss over heads, and may
/// end the run by returning false.
///
/// # Errors
/// [`EngineError::Training`] for sets that are empty or do not fit each other, settings that make no
/// sense, a run that was ended, or when every head diverged.
pub fn train_linear(
    config: &LinearConfig,
    classes: usize,
    views: &[LabelledTokens],
    validation: &LabelledTokens,
    on_step: &mut dyn FnMut(usize, f32) -> bool,
) -> Result<Trained> {
    let width = check(config, classes, views, validation)?;
    let scale = |set: &LabelledTokens| Scaled::new(config, set);
    let views: Vec<Scaled> = views.iter().map(scale).collect();
    let dims: Vec<usize> = config.recipes.iter().map(|recipe| recipe.dim(width)).collect();
    let rates: Vec<f64> =
        config.learning_rates.iter().map(|rate| rate * config.batch as f64 / RATE_BATCH).collect();
    let mut heads = Heads::random(classes, &rates, &dims, config.seed)?;
    let schedule = CosineSchedule::new(1.0, 0.0, config.iterations);
    let mut order = Order::new(views[0].labels.len(), config.seed);
    for step in 0..config.iterations {
        let drawn: Vec<(usize, usize)> = (0..config.batch).map(|_| order.next()).collect();
        let batch: Vec<_> = drawn.iter().map(|(e, i)| (&views[e % views.len()], *i)).collect();
        let labels: Vec<u32> = batch.iter().map(|(view, i)| view.labels[*i]).collect();
        let losses = heads.step(&features(config, &batch), &labels, schedule.at(step));
        if !on_step(step + 1, losses.iter().sum::<f32>() / losses.len() as f32) {
            return Err(invalid("stopped before the end; there is no head"));
        }
    }
    let scaled = scale(validation);
    let all: Vec<_> = (0..scaled.labels.len()).map(|i| (&scaled, i)).collect();
    let evaluations = heads.evaluate(&features(config, &all), &scaled.labels);
    choose(config, &heads, &evaluations)
}

fn choose(config: &LinearConfig, heads: &Heads, evaluations: &[Evaluation]) -> Result<Trained> {
    let points = config.recipes.iter().flat_map(|recipe| {
        config.learning_rates.iter().map(|learning_rate| (*recipe, *learning_rate))
    });
    let grid: Vec<GridPoint> = points
        .zip(evaluations)
        .map(|((recipe, learning_rate), &Evaluation { correct, loss })| GridPoint {
            recipe,
            learning_rate,
            correct,
            loss,
        })
        .collect();
    let mut best: Option<(usize, Vec<f32>, Vec<f32>)> = None;
    for (i, point) in grid.iter().enumerate() {
        let Some((weight, bias)) = heads.head(i) else { continue };
        let finite = point.loss.is_finite() && weight.iter().chain(&bias).all(|v| v.is_finite());
        let better = |(best, ..): &(usize, _, _)| {
            point.evaluation().beats(&grid[*best].evaluation(), config.ties)
        };
        if finite && best.as_ref().is_none_or(better) {
            best = Some((i, weight, bias));
        }
    }
    let (chosen, weight, bias) =
        best.ok_or_else(|| invalid("every head diverged; choose lower learning rates"))?;
    Ok(Trained { grid, chosen, weight, bias })
}

/// Width of a token, when all is sound.
fn check(
    config: &LinearConfig,
    classes: usize,
    views: &[LabelledTokens],
    validation: &LabelledTokens,
) -> Result<usize> {
    let sets = || views.iter().chain([validation]);
    let sound = |set: &LabelledTokens| {
        !set.tokens.is_empty()
            && set.tokens.len() == set.labels.len()
            && set.labels.iter().all(|&label| (label as usize) < classes)
    };
    if views.is_empty() || !sets().all(sound) {
        return Err(invalid(
            "heads need training and validation pictures, each with one of the classes",
        ));
    }
    if views.iter().any(|view| view.labels != views[0].labels) {
        return Err(invalid("all views must be of the same pictures"));
    }
    if config.batch == 0 || config.iterations == 0 {
        return Err(invalid("batch and iterations must be at least 1"));
    }
    if let Some(rate) = config.learning_rates.iter().find(|rate| !rate.is_finite() || **rate <= 0.0)
    {
        return Err(invalid(&format!("learning rate {rate} is not a number above 0")));
    }
    let width = validation.tokens[0].mean_patch.len().max(1);
    let blocks = sets().flat_map(|set| &set.tokens).map(|tokens| tokens.cls.len() / width).min();
    config.recipes.iter().try_for_each(|recipe| recipe.check(blocks.unwrap_or(0)))?;
    if config.recipes.iter().any(|recipe| recipe.scale != config.recipes[0].scale) {
        return Err(invalid("all heads of a grid read tokens of the same scale"));
    }
    Ok(width)
}

fn invalid(reason: &str) -> EngineError {
    EngineError::Training { reason: reason.to_owned() }
}

/// Tokens of the grid's scale.
struct Scaled {
    tokens: Vec<ProbeTokens>,
    labels: Vec<u32>,
}

impl Scaled {
    fn new(config: &LinearConfig, set: &LabelledTokens) -> Self {
        let scale = config.recipes.first().map_or(Scale::Raw, |recipe| recipe.scale);
        let tokens = set.tokens.par_iter().map(|tokens| scale.apply(tokens.clone())).collect();
        Self { tokens, labels: set.labels.clone() }
    }
}

/// The matrix of each feature set, (pictures, dim).
fn features(config: &LinearConfig, pictures: &[(&Scaled, usize)]) -> Vec<Vec<f32>> {
    let matrix = |recipe: &Recipe| {
        let mut matrix = Vec::new();
        pictures.iter().for_each(|(set, i)| recipe.gather(&set.tokens[*i], &mut matrix));
        matrix
    };
    config.recipes.par_iter().map(matrix).collect()
}

/// Endless epochs of shuffled pictures.
struct Order {
    order: Vec<usize>,
    position: usize,
    epoch: usize,
    seed: u64,
}

impl Order {
    fn new(pictures: usize, seed: u64) -> Self {
        let mut order = Self { order: (0..pictures).collect(), position: 0, epoch: 0, seed };
        order.shuffle();
        order
    }

    fn shuffle(&mut self) {
        let mut rng = generator(self.seed, "probe order", [self.epoch as u64, 0]);
        self.order.shuffle(&mut rng);
    }

    /// Epoch and picture.
    fn next(&mut self) -> (usize, usize) {
        if self.position == self.order.len() {
            (self.position, self.epoch) = (0, self.epoch + 1);
            self.shuffle();
        }
        self.position += 1;
        (self.epoch, self.order[self.position - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks of width 3; the class shows in the mean patch token alone.
    fn set(pictures: usize) -> LabelledTokens {
        let tokens = |i: usize| ProbeTokens {
            cls: (0..6).map(|j| ((i * 31 + j * 17) % 13) as f32 * 0.1).collect(),
            mean_patch: vec![if i.is_multiple_of(2) { 1.0 } else { -1.0 }, 0.5, 0.1],
        };
        LabelledTokens {
            tokens: (0..pictures).map(tokens).collect(),
            labels: (0..pictures).map(|i| (i % 2) as u32).collect(),
        }
    }

    fn config() -> LinearConfig {
        let recipe = |(blocks, avg_pool)| Recipe { blocks, avg_pool, scale: Scale::Raw };
        LinearConfig {
            recipes: [(1, false), (2, true)].map(recipe).to_vec(),
            iterations: 60,
            batch: 16,
            ..LinearConfig::default()
        }
    }

    #[test]
    fn the_grid_is_the_published_one() {
        let config = LinearConfig::default();
        assert_eq!(config.recipes.len() * config.learning_rates.len(), 52);
        assert_eq!((config.batch, config.iterations), (128, 12_500));
    }

    #[test]
    fn the_head_that_can_tell_the_classes_is_chosen_and_runs_repeat() -> Result<()> {
        let run = || train_linear(&config(), 2, &[set(40)], &set(20), &mut |_, _| true);
        let trained = run()?;
        let chosen = trained.grid[trained.chosen];
        assert_eq!((chosen.correct, chosen.recipe.blocks, chosen.recipe.avg_pool), (20, 2, true));
        assert_eq!((trained.grid.len(), trained.weight.len()), (26, 2 * 9));
        assert_eq!(run()?.weight, trained.weight);
        Ok(())
    }

    #[test]
    fn every_epoch_holds_every_picture_once() {
        let mut order = Order::new(5, 3);
        let drawn: Vec<_> = (0..15).map(|_| order.next()).collect();
        for epoch in 0..3 {
            let mut pictures: Vec<_> =
                drawn.iter().filter(|(e, _)| *e == epoch).map(|(_, i)| *i).collect();
            pictures.sort_unstable();
            assert_eq!(pictures, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn nonsense_is_refused_and_a_run_can_be_ended() {
        let run = |config: &LinearConfig, views: &[LabelledTokens]| {
            let outcome = train_linear(config, 2, views, &set(4), &mut |step, _| step < 3);
            outcome.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(run(&config(), &[]).contains("need training"));
        assert!(run(&config(), &[LabelledTokens::default()]).contains("need training"));
        assert!(run(&config(), &[set(4), set(6)]).contains("same pictures"));
        assert!(run(&LinearConfig::default(), &[set(4)]).contains("last 4 blocks"));
        assert!(run(&LinearConfig { batch: 0, ..config() }, &[set(4)]).contains("at least 1"));
        let rates = LinearConfig { learning_rates: vec![f64::NAN], ..config() };
        assert!(run(&rates, &[set(4)]).contains("learning rate NaN"));
        assert!(run(&config(), &[set(4)]).contains("stopped"));
    }
}
