//! Labelled tokens to one finished head, by either method.

use serde::Serialize;

use super::head::{Head, HeadInfo, Method, Score};
use super::heads::Ties;
use super::linear::{GridPoint, LabelledTokens, LinearConfig, train_linear};
use super::logistic::{StrengthScore, c_grid, choose_c, fit_logistic};
use super::recipe::{Recipe, Scale};
use crate::embedder::ModelIdentity;
use crate::error::{EngineError, Result};

/// How a head is to be made.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A grid of linear heads trained by SGD.
    Linear {
        /// The grid and its training.
        config: LinearConfig,
        /// Random views of each training picture; 0 for the evaluation crop.
        views: u64,
    },
    /// Logistic regression on CLS of the last block, its strength chosen from 45.
    Logistic {
        /// Length of the tokens; raw as published.
        scale: Scale,
        /// Which of several equally good strengths is chosen.
        ties: Ties,
    },
}

impl Plan {
    /// Steps that [`fit_head`] reports.
    pub fn steps(&self) -> usize {
        match self {
            Self::Linear { config, .. } => config.iterations,
            Self::Logistic { .. } => c_grid().len(),
        }
    }

    /// Last blocks whose CLS tokens are read.
    pub fn blocks(&self) -> usize {
        match self {
            Self::Linear { config, .. } => {
                config.recipes.iter().map(|recipe| recipe.blocks).max().unwrap_or(1)
            }
            Self::Logistic { .. } => 1,
        }
    }
}

/// What was tried on the way to a head, with validation pictures that came out right.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Tried {
    /// Heads.
    Linear(Vec<GridPoint>),
    /// Strengths.
    Logistic(Vec<StrengthScore>),
}

impl Tried {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Linear(grid) => grid.len(),
            Self::Logistic(grid) => grid.len(),
        }
    }

    /// Whether nothing was tried; never the case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes a head. `views` and `validation` are as for [`train_linear`]; logistic regression reads the
/// first view and, as in the reference, is fitted once more to training and validation pictures
/// together when its strength is chosen. `on_step` hears the step (from 1) and, of linear heads, the
/// mean loss, and may end the run by returning false.
///
/// # Errors
/// As [`train_linear`] and [`choose_c`].
pub fn fit_head(
    plan: &Plan,
    (model, classes): (&ModelIdentity, &[String]),
    views: &[LabelledTokens],
    validation: &LabelledTokens,
    on_step: &mut dyn FnMut(usize, Option<f32>) -> bool,
) -> Result<(Head, Tried)> {
    let score = |correct| Score { correct, pictures: validation.labels.len() };
    match plan {
        Plan::Linear { config, views: count } => {
            let mut hear = |step, loss| on_step(step, Some(loss));
            let trained = train_linear(config, classes.len(), views, validation, &mut hear)?;
            let chosen = trained.grid[trained.chosen];
            let method = Method::Linear {
                learning_rate: chosen.learning_rate,
                batch: config.batch,
                iterations: config.iterations,
                seed: config.seed,
                views: *count,
            };
            let info = HeadInfo::new(
                (model, classes.to_vec()),
                chosen.recipe,
                method,
                views.first().map_or(0, |view| view.labels.len()),
                score(chosen.correct),
            );
            let head = Head::new(info, trained.weight, trained.bias)?;
            Ok((head, Tried::Linear(trained.grid)))
        }
        Plan::Logistic { scale, ties } => {
            let train = views.first().ok_or_else(|| EngineError::Training {
                reason: "logistic regression needs training pictures".to_owned(),
            })?;
            let recipe = Recipe::cls(*scale);
            let (mut features, held_out) = (matrix(recipe, train)?, matrix(recipe, validation)?);
            let mut done = 0;
            let (best, tried) = choose_c(
                (&c_grid(), *ties),
                classes.len(),
                (&features, &train.labels),
                (&held_out, &validation.labels),
                &mut |_| {
                    done += 1;
                    on_step(done, None)
                },
            )?;
            let correct = best.evaluate(&held_out, &validation.labels).correct;
            features.extend(held_out);
            let labels = [train.labels.as_slice(), &validation.labels].concat();
            let last = fit_logistic(best.c, classes.len(), &features, &labels, Some(&best))?;
            let info = HeadInfo::new(
                (model, classes.to_vec()),
                recipe,
                Method::Logistic { c: best.c },
                labels.len(),
                score(correct),
            );
            let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
            let head = Head::new(info, single(last.weight), single(last.bias))?;
            Ok((head, Tried::Logistic(tried)))
        }
    }
}

/// (pictures, dim) features.
fn matrix(recipe: Recipe, set: &LabelledTokens) -> Result<Vec<f32>> {
    let rows: Vec<Vec<f32>> =
        set.tokens.iter().map(|tokens| recipe.features(tokens)).collect::<Result<_>>()?;
    Ok(rows.concat())
}
