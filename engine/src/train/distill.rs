//! Distillation by feature matching: the student's CLS and patch tokens are drawn to the frozen
//! teacher's, for the same views of the same pictures ("a good teacher is patient and
//! consistent", arXiv 2106.05237), and the moving average of the student is the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Tensor, Var};
use half::f16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::augment::{Augmentation, generator};
use super::checkpoint;
use super::matching::{Targets, cosine_distance};
use super::optim::{AdamW, Group, ema_update};
pub use super::pictures::Pictures;
use super::pictures::order;
use super::run_state::{add_gradients, restore, tensors};
use super::schedule::CosineSchedule;
use super::student::Student;
use crate::error::{EngineError, Result};
use crate::vit::config::PATCH_SIZE;

/// A run of distillation. Two runs with equal settings, pictures and thread-independent hardware
/// are equal, whether interrupted or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillConfig {
    /// Decides order, views, everything.
    pub seed: u64,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Pictures in one forward pass.
    pub batch: usize,
    /// Passes whose gradients are summed in one step.
    pub accumulate: usize,
    /// Side of the student's input in pixels.
    pub student_size: u32,
    /// Side of the teacher's input in pixels.
    pub teacher_size: u32,
    /// Views of each picture, taken in turns; 0 draws a new one every time. The fewer, the more
    /// often cached outputs of the teacher serve again.
    pub views: u64,
    /// How views are drawn.
    pub augmentation: Augmentation,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end.
    pub last_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Share of the average kept at each step (after a start of (1 + step) / (10 + step)).
    pub ema: f64,
    /// Weight of the patch distance beside the CLS distance.
    pub patch_weight: f64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 10_000,
            batch: 16,
            accumulate: 1,
            student_size: 126,
            teacher_size: 224,
            views: 0,
            augmentation: Augmentation::MATCHING,
            lr: 1e-4,
            last_lr: 1e-6,
            warmup: 100,
            weight_decay: 0.04,
            clip: 3.0,
            ema: 0.999,
            patch_weight: 1.0,
        }
    }
}

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
    average: BTreeMap<String, Var>,
    optimizer: AdamW,
    step: usize,
    cache: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct State {
    config: DistillConfig,
    step: usize,
    optimizer_steps: usize,
}

struct Sample {
    pixels: Vec<f32>,
    target: Target,
    key: String,
}

enum Target {
    Cached(Vec<f16>),
    /// The teacher's pixels.
    Missing(Vec<f32>),
}

impl Distiller {
    /// Starts a run. `teacher_id` names the teacher's weights (their SHA-256); outputs are kept
    /// below `cache` if given.
    ///
    /// # Errors
    /// Sizes that are no whole number of patches, widths that differ, zero steps or batch.
    pub fn new(
        config: DistillConfig,
        teacher: &Student,
        teacher_id: &str,
        student: Student,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let refuse = |reason: String| Err(EngineError::Training { reason });
        let patch = PATCH_SIZE as u32;
        for (side, of) in [(config.student_size, "student"), (config.teacher_size, "teacher")] {
            if side == 0 || !side.is_multiple_of(patch) {
                return refuse(format!(
                    "the {of}'s input is {side} px; take a multiple of {patch}"
                ));
            }
        }
        let (width, teacher_width) = (student.config().embed_dim, teacher.config().embed_dim);
        if width != teacher_width {
            return refuse(format!(
                "the student is {width} wide and the teacher {teacher_width}: features of \
                 different widths cannot be matched; start the student from the teacher's blocks"
            ));
        }
        if config.steps * config.batch * config.accumulate == 0 {
            return refuse("steps, batch and accumulate must be at least 1".to_owned());
        }
        let depth = student.config().depth;
        let mut average = BTreeMap::new();
        let mut groups = Vec::new();
        for (name, parameter) in student.parameters() {
            let copy = parameter.as_detached_tensor().copy()?;
            average.insert(name.clone(), Var::from_tensor(&copy)?);
            groups.push((name.clone(), parameter.clone(), Group::of(name, depth, 1.0, 0.2)));
        }
        let cache = cache.map(|folder| {
            let DistillConfig { seed, student_size, teacher_size, augmentation, .. } = &config;
            let what =
                format!("{teacher_id} {seed} {student_size} {teacher_size} {augmentation:?}");
            folder.join(format!("{:.16x}", Sha256::digest(what)))
        });
        if let Some(folder) = &cache {
            std::fs::create_dir_all(folder).map_err(|error| EngineError::Training {
                reason: format!("cannot create the cache {}: {error}", folder.display()),
            })?;
        }
        let (teacher, optimizer) = (teacher.frozen(), AdamW::new(groups)?);
        Ok(Self { config, teacher, student, average, optimizer, step: 0, cache })
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
            let (pixels, targets) = self.batch(pictures, first, &mut skipped)?;
            images += pixels.dim(0)?;
            let tokens = self.student.forward(&[pixels])?;
            let Some(tokens) = tokens.first() else { continue };
            let cls_distance = cosine_distance(&tokens.cls, &targets.cls)?;
            let patch_distance = cosine_distance(&tokens.patches.contiguous()?, &targets.patches)?;
            let loss = (&cls_distance + (&patch_distance * c.patch_weight)?)?;
            let share = 1.0 / c.accumulate as f64;
            let scalar = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
            total += scalar(&loss)? * share;
            cls += scalar(&cls_distance)? * share;
            patch += scalar(&patch_distance)? * share;
            let gradients = (loss * share)?.backward()?;
            add_gradients(&mut sum, gradients, self.student.parameters().values())?;
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
        let models = [("student", self.student.parameters()), ("average", &self.average)];
        checkpoint::save(path, &tensors(&models, &[("", &self.optimizer)]), &state)
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
        let models = [("student", self.student.parameters()), ("average", &self.average)];
        let optimizers = &mut [("", &mut self.optimizer)];
        restore(&tensors, &models, optimizers, state.optimizer_steps).map_err(refuse)?;
        self.step = state.step;
        Ok(())
    }

    /// Student's pixels and teacher's outputs for the pictures from `first` on, in the run's order.
    fn batch(
        &mut self,
        pictures: &dyn Pictures,
        first: usize,
        skipped: &mut Vec<(String, String)>,
    ) -> Result<(Tensor, Targets)> {
        let samples: Vec<_> = order(self.config.seed, pictures.len(), first, self.config.batch)
            .into_par_iter()
            .map(|(epoch, index)| {
                self.sample(pictures, epoch, index).map_err(|reason| (pictures.name(index), reason))
            })
            .collect();
        let mut usable = Vec::new();
        for sample in samples {
            match sample {
                Ok(sample) => usable.push(sample),
                Err(problem) => skipped.push(problem),
            }
        }
        if usable.is_empty() {
            let reason = match skipped.last() {
                Some((name, reason)) => {
                    format!("no picture of a batch is usable; {name}: {reason}")
                }
                None => "a batch is empty".to_owned(),
            };
            return Err(EngineError::Training { reason });
        }
        let device = self.student.device().clone();
        let side = self.config.student_size as usize;
        let grid = (side / PATCH_SIZE, side / PATCH_SIZE);
        let pixels: Vec<f32> = usable.iter().flat_map(|s| &s.pixels).copied().collect();
        let pixels = Tensor::from_vec(pixels, (usable.len(), 3, side, side), &device)?;
        let teacher_side = self.config.teacher_size as usize;
        let missing: Vec<&[f32]> = usable
            .iter()
            .filter_map(|sample| match &sample.target {
                Target::Missing(pixels) => Some(pixels.as_slice()),
                Target::Cached(_) => None,
            })
            .collect();
        let mut fresh = Vec::new();
        if !missing.is_empty() {
            let shape = (missing.len(), 3, teacher_side, teacher_side);
            let tokens =
                self.teacher.forward(&[Tensor::from_vec(missing.concat(), shape, &device)?])?;
            if let Some(tokens) = tokens.first() {
                fresh = Targets::from_teacher(tokens, grid)?;
            }
        }
        let mut fresh = fresh.into_iter();
        let mut rows = Vec::new();
        for Sample { target, key, .. } in usable {
            let row = match target {
                Target::Cached(row) => Some(row),
                Target::Missing(_) => fresh.next().inspect(|row| self.remember(&key, row)),
            };
            rows.extend(row);
        }
        Ok((pixels, Targets::stack(&rows, self.student.config().embed_dim, &device)?))
    }

    fn sample(&self, pictures: &dyn Pictures, epoch: u64, index: usize) -> Result<Sample, String> {
        let c = &self.config;
        let view = if c.views == 0 { epoch } else { epoch % c.views };
        let picture = pictures.load(index)?;
        let name = pictures.name(index);
        let mut rng = generator(c.seed, &format!("view of {name}"), [view, 0]);
        let drawn = c.augmentation.draw(picture.width(), picture.height(), &mut rng);
        let key = format!("{:x}-{view}", Sha256::digest(&name));
        let target = match self.recall(&key) {
            Some(row) => Target::Cached(row),
            None => Target::Missing(drawn.to_chw(&picture, c.teacher_size)),
        };
        Ok(Sample { pixels: drawn.to_chw(&picture, c.student_size), target, key })
    }

    fn recall(&self, key: &str) -> Option<Vec<f16>> {
        let bytes = std::fs::read(self.cache.as_ref()?.join(key)).ok()?;
        let patches = (self.config.student_size as usize / PATCH_SIZE).pow(2);
        let expected = 2 * (1 + patches) * self.student.config().embed_dim;
        let values = || bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
        (bytes.len() == expected).then(values)
    }

    /// A cache that cannot be written costs time, not the run.
    fn remember(&self, key: &str, row: &[f16]) {
        if let Some(folder) = &self.cache {
            let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            let path = folder.join(key);
            let partial = folder.join(format!("{key}.partial"));
            let written = std::fs::write(&partial, bytes);
            if written.and_then(|()| std::fs::rename(&partial, path)).is_err() {
                let _ = std::fs::remove_file(partial);
            }
        }
    }
}
