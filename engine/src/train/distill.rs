//! Distillation by feature matching: the student's CLS and patch tokens are drawn to the frozen
//! teacher's, for the same views of the same pictures ("a good teacher is patient and
//! consistent", arXiv 2106.05237), and the moving average of the student is the result.

mod batch;
mod config;
mod projector;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use self::batch::{Batch, Source};
pub use self::config::{DistillConfig, ViewGroup};
use self::projector::Projector;
use super::checkpoint;
use super::matching::{Targets, cosine_distance};
use super::optim::{AdamW, Group, ema_update};
pub use super::pictures::Pictures;
use super::run_state::{Model, add_gradients, restore, tensors};
use super::schedule::CosineSchedule;
use super::student::{CropTokens, Student};
use crate::error::{EngineError, Result};

/// What one step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Weighted sum of the distances.
    pub loss: f64,
    /// 1 - cosine of CLS.
    pub cls: f64,
    /// 1 - cosine of the patches.
    pub patch: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Pictures used.
    pub images: usize,
    /// Pictures that could not be used, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
}

/// A student, its teacher, and everything that changes from step to step.
#[derive(Debug)]
pub struct Distiller {
    config: DistillConfig,
    teacher: Student,
    student: Student,
    /// Where the widths differ.
    projector: Option<Projector>,
    average: BTreeMap<String, Var>,
    optimizer: AdamW,
    source: Source,
    step: usize,
}

#[derive(Serialize, Deserialize)]
struct State {
    config: DistillConfig,
    step: usize,
    optimizer_steps: usize,
}

impl Distiller {
    /// Starts a run. `teacher_id` names the teacher's weights (their SHA-256); outputs are kept
    /// below `cache` if given. A student of another width meets the teacher through linear layers
    /// that are trained along.
    ///
    /// # Errors
    /// Sizes that are no whole number of patches, nothing to draw, zero steps or batch.
    pub fn new(
        config: DistillConfig,
        teacher: &Student,
        teacher_id: &str,
        student: Student,
        cache: Option<&Path>,
    ) -> Result<Self> {
        config.check()?;
        let widths = (student.config().embed_dim, teacher.config().embed_dim);
        let projector = (widths.0 != widths.1)
            .then(|| Projector::random(widths, student.precision(), student.device(), config.seed))
            .transpose()?;
        let depth = student.config().depth;
        let mut average = BTreeMap::new();
        for (name, parameter) in student.parameters() {
            let copy = parameter.as_detached_tensor().copy()?;
            average.insert(name.clone(), Var::from_tensor(&copy)?);
        }
        let trained = student.parameters().iter();
        let trained = trained.chain(projector.iter().flat_map(|p| p.parameters()));
        let optimizer = AdamW::new(trained.map(|(name, parameter)| {
            (name.clone(), parameter.clone(), Group::of(name, depth, 1.0, 0.2))
        }))?;
        let source = Source::new(&config, teacher_id, widths.1, cache)?;
        let teacher = teacher.frozen();
        Ok(Self { config, teacher, student, projector, average, optimizer, source, step: 0 })
    }

    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Settings of the run.
    pub fn config(&self) -> &DistillConfig {
        &self.config
    }

    /// The moving average of the student: the result.
    pub fn average(&self) -> &BTreeMap<String, Var> {
        &self.average
    }

    /// The student's shape.
    pub fn student_config(&self) -> &crate::vit::VitConfig {
        self.student.config()
    }

    /// One optimizer step on the next pictures.
    ///
    /// # Errors
    /// No picture of the batch can be used; the loss or the gradient is not finite (nothing has
    /// been changed then); a failed tensor operation.
    pub fn step(&mut self, pictures: &dyn Pictures) -> Result<StepReport> {
        if pictures.is_empty() {
            let reason = "there are no pictures to train on".to_owned();
            return Err(EngineError::Training { reason });
        }
        let c = self.config.clone();
        let schedule = CosineSchedule {
            warmup: c.warmup.min(c.steps),
            ..CosineSchedule::new(c.lr, c.last_lr, c.steps)
        };
        let lr = schedule.at(self.step).max(c.last_lr);
        let (mut total, mut cls, mut patch, mut images) = (0.0, 0.0, 0.0, 0);
        let mut skipped = Vec::new();
        let mut sum: Option<candle_core::backprop::GradStore> = None;
        for pass in 0..c.accumulate {
            let first = (self.step * c.accumulate + pass) * c.batch;
            let batch = self.source.draw(&c, &mut self.teacher, pictures, first, &mut skipped)?;
            images += batch.images;
            let (cls_distance, patch_distance) = self.distances(&batch)?;
            let loss = (&cls_distance + (&patch_distance * c.patch_weight)?)?;
            let share = 1.0 / c.accumulate as f64;
            let scalar = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
            total += scalar(&loss)? * share;
            cls += scalar(&cls_distance)? * share;
            patch += scalar(&patch_distance)? * share;
            let gradients = (loss * share)?.backward()?;
            let trained = self.student.parameters().values();
            let trained =
                trained.chain(self.projector.iter().flat_map(|p| p.parameters().values()));
            add_gradients(&mut sum, gradients, trained)?;
        }
        let norm = match sum {
            Some(gradients) if total.is_finite() => {
                self.optimizer.step(&gradients, lr, c.weight_decay, Some(c.clip))?
            }
            _ => f64::NAN,
        };
        if !norm.is_finite() {
            let reason = format!(
                "step {} has loss {total} (CLS {cls}, patches {patch}) and gradient norm {norm}: \
                 training has diverged; go on from the last checkpoint with a lower --lr",
                self.step + 1
            );
            return Err(EngineError::Training { reason });
        }
        self.step += 1;
        let start = (1.0 + self.step as f64) / (10.0 + self.step as f64);
        ema_update(&self.average, self.student.parameters(), c.ema.min(start))?;
        let step = self.step;
        Ok(StepReport { step, loss: total, cls, patch, lr, gradient_norm: norm, images, skipped })
    }

    /// Mean distances of CLS and of patches over all views, which weigh the same.
    fn distances(&mut self, batch: &Batch) -> Result<(Tensor, Tensor)> {
        let views: usize = batch.pixels.iter().map(|pixels| pixels.dims()[0]).sum();
        let mut sums: Option<(Tensor, Tensor)> = None;
        let tokens = self.student.forward(&batch.pixels)?;
        for (tokens, targets) in tokens.iter().zip(&batch.targets) {
            let share = tokens.cls.dim(0)? as f64 / views as f64;
            let (cls, patch) = self.group_distances(tokens, targets)?;
            let (cls, patch) = ((cls * share)?, (patch * share)?);
            sums = Some(match sums {
                None => (cls, patch),
                Some((cls_sum, patch_sum)) => ((cls_sum + cls)?, (patch_sum + patch)?),
            });
        }
        sums.ok_or_else(|| EngineError::Training { reason: "a batch has no views".to_owned() })
    }

    fn group_distances(&self, tokens: &CropTokens, targets: &Targets) -> Result<(Tensor, Tensor)> {
        let patches = tokens.patches.contiguous()?;
        let (cls, patches) = match &self.projector {
            None => (tokens.cls.clone(), patches),
            Some(projector) => {
                (projector.forward("cls", &tokens.cls)?, projector.forward("patch", &patches)?)
            }
        };
        Ok((cosine_distance(&cls, &targets.cls)?, cosine_distance(&patches, &targets.patches)?))
    }

    /// Everything that a checkpoint holds by name.
    fn models(&self) -> Vec<Model<'_>> {
        let mut models = vec![("student", self.student.parameters()), ("average", &self.average)];
        models.extend(self.projector.as_ref().map(|p| ("trained", p.parameters())));
        models
    }

    /// Writes everything needed to go on.
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let state = State {
            config: self.config.clone(),
            step: self.step,
            optimizer_steps: self.optimizer.steps(),
        };
        checkpoint::save(path, &tensors(&self.models(), &[("", &self.optimizer)]), &state)
    }

    /// Takes up a run where [`save`](Self::save) left it.
    ///
    /// # Errors
    /// The checkpoint is damaged, or of a run with other settings or another student; nothing has
    /// been changed then.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let refuse = |reason: String| {
            let reason = format!("checkpoint {} cannot be used: {reason}", path.display());
            EngineError::Training { reason }
        };
        let (tensors, state) = checkpoint::load::<State>(path, self.student.device())?;
        if state.config != self.config {
            return Err(refuse(format!(
                "it is of a run with other settings ({:?}; now {:?}); use those, or another folder",
                state.config, self.config
            )));
        }
        let mut optimizer = std::mem::replace(&mut self.optimizer, AdamW::new([])?);
        let restored =
            restore(&tensors, &self.models(), &mut [("", &mut optimizer)], state.optimizer_steps);
        self.optimizer = optimizer;
        restored.map_err(refuse)?;
        self.step = state.step;
        Ok(())
    }
}
