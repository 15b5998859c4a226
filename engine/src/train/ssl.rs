//! Self-supervised training (arXiv 2304.07193): a student that sees masked and small crops learns
//! to say about a picture what its own moving average, the teacher, says about whole ones.

mod batch;
mod config;
mod network;
mod objective;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

pub use self::batch::SslBatch;
pub use self::config::{CropSizes, GLOBALS, HighRes, Scheduled, SslConfig};
use self::network::Network;
use self::objective::Centres;
pub use self::objective::{Execution, Losses};
use super::checkpoint;
use super::head::LAST_LAYER;
use super::losses::Centre;
use super::ops::MatmulPrecision;
use super::optim::{AdamW, Group, ema_update};
use super::pictures::Pictures;
use super::run_state::{Model, add_gradients, restore, tensors};
use super::student::Student;
use crate::error::{EngineError, Result};
use crate::vit::VitConfig;

/// What one step did.
#[derive(Clone, Debug, Serialize)]
pub struct SslReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Losses, averaged over the passes of the step.
    #[serde(flatten)]
    pub losses: Losses,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Share of the teacher kept.
    pub momentum: f64,
    /// Temperature of the teacher's logits.
    pub teacher_temperature: f64,
    /// Norm of the gradient before clipping, by module.
    pub gradient_norms: BTreeMap<String, f64>,
    /// Pictures used.
    pub images: usize,
    /// Pictures that could not be used, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
}

/// Student, teacher, and everything that changes from step to step.
#[derive(Debug)]
pub struct SslTrainer {
    config: SslConfig,
    execution: Execution,
    student: Network,
    /// The student's moving average, or, where frozen, another model.
    teacher: Network,
    /// The moving average of the student's backbone beside a frozen teacher.
    average: Option<Student>,
    /// Which model the frozen teacher is.
    teacher_id: Option<String>,
    /// One for each module, in the order of [`Network::modules`].
    optimizers: Vec<(String, AdamW)>,
    centres: Centres,
    step: usize,
    /// How many pictures the run is over, once known.
    pictures: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct State {
    config: SslConfig,
    backbone: VitConfig,
    step: usize,
    pictures: Option<usize>,
    #[serde(default)]
    teacher_id: Option<String>,
}

impl SslTrainer {
    /// Starts a run from `backbone`, which gets a mask token if it has none, and new heads that
    /// compute with `precision`.
    ///
    /// # Errors
    /// Settings that nothing can be trained with, or a device that refuses the memory.
    pub fn new(
        config: SslConfig,
        execution: Execution,
        mut backbone: Student,
        precision: MatmulPrecision,
    ) -> Result<Self> {
        config.check()?;
        backbone.add_mask_token(None)?;
        if config.frozen_teacher {
            let reason = "a frozen teacher is another model: start with `distillation`".to_owned();
            return Err(EngineError::Training { reason });
        }
        let student = Network::new(backbone, &config, precision, "")?;
        let teacher = student.frozen_copy()?;
        Self::start(config, execution, student, teacher, None)
    }

    /// Starts distillation as published: `student` learns what `teacher`, which stays as it is,
    /// says about global crops, and the student's moving average is the result. `teacher_id` names
    /// the teacher's weights (their SHA-256).
    ///
    /// Released backbones come without heads. Without `heads` the teacher gets random ones that
    /// stay as they are: fixed projections whose balanced assignments to random prototypes keep
    /// what is near near. `heads` is a checkpoint of [`save`](Self::save) from the run that made
    /// the teacher.
    ///
    /// # Errors
    /// As [`new`](Self::new); settings other than [`SslConfig::distillation`]'s in what makes it
    /// distillation; heads of other sizes.
    pub fn distillation(
        config: SslConfig,
        execution: Execution,
        student: Student,
        (teacher, teacher_id): (&Student, &str),
        heads: Option<&Path>,
    ) -> Result<Self> {
        config.check()?;
        if !config.frozen_teacher {
            let reason = "distillation needs a frozen teacher".to_owned();
            return Err(EngineError::Training { reason });
        }
        let precision = student.precision();
        let average = student.frozen_copy()?;
        let student = Network::new(student, &config, precision, "")?;
        let teacher = Network::new(teacher.frozen_copy()?, &config, precision, "teacher's ")?;
        if let Some(path) = heads {
            let (tensors, _) = checkpoint::load::<State>(path, student.device())?;
            teacher.take_heads(&tensors).map_err(|reason| EngineError::Training {
                reason: format!("heads of {} cannot be used: {reason}", path.display()),
            })?;
        }
        let teacher = teacher.frozen_copy()?;
        let run = Self::start(config, execution, student, teacher, Some(average))?;
        Ok(Self { teacher_id: Some(teacher_id.to_owned()), ..run })
    }

    fn start(
        config: SslConfig,
        execution: Execution,
        student: Network,
        teacher: Network,
        average: Option<Student>,
    ) -> Result<Self> {
        let depth = student.backbone.config().depth;
        let group = |module: &str, name: &str| match module {
            "backbone" => Group::of(name, depth, config.layer_decay, config.patch_embed_lr),
            // Heads lie above all blocks, whatever their layers are called.
            _ => Group { lr: 1.0, ..Group::of(name, depth, 1.0, 1.0) },
        };
        let mut optimizers = Vec::new();
        for (module, parameters) in student.modules() {
            let grouped = parameters.iter().map(|(k, v)| (k.clone(), v.clone(), group(module, k)));
            optimizers.push((module.to_owned(), AdamW::new(grouped)?));
        }
        let centre = || Centre::new(config.head.prototypes, student.device());
        let centres = [centre()?, centre()?];
        Ok(Self {
            config,
            execution,
            student,
            teacher,
            average,
            teacher_id: None,
            optimizers,
            centres,
            step: 0,
            pictures: None,
        })
    }

    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Settings of the run.
    pub fn config(&self) -> &SslConfig {
        &self.config
    }

    /// The backbone's shape.
    pub fn backbone_config(&self) -> &VitConfig {
        self.student.backbone.config()
    }

    /// The moving average of the student's backbone (its teacher, unless that is frozen): the
    /// result.
    pub fn average(&self) -> &BTreeMap<String, Var> {
        self.average.as_ref().unwrap_or(&self.teacher.backbone).parameters()
    }

    /// Parameters of the student (`false`) or the teacher (`true`) by module: `backbone`,
    /// `dino_head` and, unless shared, `ibot_head`.
    pub fn modules(&self, teacher: bool) -> Vec<(&'static str, &BTreeMap<String, Var>)> {
        if teacher { self.teacher.modules() } else { self.student.modules() }
    }

    /// One optimizer step on the next pictures.
    ///
    /// # Errors
    /// Fewer pictures than a batch has, or other pictures than before; no picture of a batch can be
    /// used; as [`step_on`](Self::step_on).
    pub fn step(&mut self, pictures: &dyn Pictures) -> Result<SslReport> {
        self.check_pictures(pictures.len())?;
        let depth = self.backbone_config().depth;
        let device = self.student.device().clone();
        let (mut batches, mut skipped) = (Vec::new(), Vec::new());
        for pass in 0..self.config.accumulate {
            let place = (self.step, pass);
            let (batch, problems) = SslBatch::draw(&self.config, pictures, place, depth, &device)?;
            batches.push(batch);
            skipped.extend(problems);
        }
        let report = self.step_on(&batches)?;
        self.pictures = Some(pictures.len());
        Ok(SslReport { skipped, ..report })
    }

    fn check_pictures(&self, count: usize) -> Result<()> {
        let batch = self.config.batch;
        let reason = match (count, self.pictures) {
            (0, _) => "there are no pictures to train on".to_owned(),
            (count, _) if count < batch => {
                let plural = if count == 1 { "" } else { "s" };
                format!(
                    "the sources hold {count} picture{plural}, fewer than the {batch} of a batch: \
                     add pictures, or lower --batch"
                )
            }
            (count, Some(before)) if count != before => format!(
                "the run is over {before} pictures and there are {count}: go on with the same \
                 sources, or start a new run in another folder"
            ),
            _ => return Ok(()),
        };
        Err(EngineError::Training { reason })
    }

    /// One optimizer step on given batches, whose gradients are averaged.
    ///
    /// # Errors
    /// A loss or a gradient is not finite (nothing has been changed then, and the message says what
    /// is known); batches that do not fit the model; a failed tensor operation.
    pub fn step_on(&mut self, batches: &[SslBatch]) -> Result<SslReport> {
        let now = self.config.at(self.step);
        let (mut losses, mut sum, mut images) = (Losses::default(), None, 0);
        let share = 1.0 / batches.len().max(1) as f64;
        let mut centres = self.centres.clone();
        for batch in batches {
            let (part, gradients) = objective::gradients(
                &self.config,
                self.execution,
                (&mut self.student, &mut self.teacher),
                &mut centres,
                batch,
                now.teacher_temperature,
            )?;
            losses.add(&part, share);
            images += batch.globals.dim(0)? / GLOBALS;
            add_gradients(&mut sum, gradients, self.student.parameters())?;
        }
        let Some(mut gradients) = sum else {
            let reason = "a step needs at least one batch".to_owned();
            return Err(EngineError::Training { reason });
        };
        if batches.len() > 1 {
            for parameter in self.student.parameters() {
                if let Some(gradient) = gradients.remove(parameter) {
                    gradients.insert(parameter, (gradient * share)?);
                }
            }
        }
        let mut norms = BTreeMap::new();
        for (module, optimizer) in &self.optimizers {
            norms.insert(module.clone(), optimizer.gradient_norm(&gradients)?);
        }
        if !losses.loss.is_finite() || norms.values().any(|norm| !norm.is_finite()) {
            return Err(self.diverged(&losses, &norms, &gradients)?);
        }
        for (module, optimizer) in &mut self.optimizers {
            let norm = norms.get(module.as_str()).copied().unwrap_or(0.0);
            let lr = |name: &str| match name.starts_with(LAST_LAYER) {
                true => now.last_layer_lr,
                false => now.lr,
            };
            optimizer.apply(&gradients, norm, Some(self.config.clip), now.weight_decay, lr)?;
        }
        if let Some(average) = &self.average {
            ema_update(average.parameters(), self.student.backbone.parameters(), now.momentum)?;
        } else {
            let sides = self.teacher.modules().into_iter().zip(self.student.modules());
            for ((_, teacher), (_, student)) in sides {
                ema_update(teacher, student, now.momentum)?;
            }
        }
        self.centres = centres;
        self.step += 1;
        Ok(SslReport {
            step: self.step,
            losses,
            lr: now.lr,
            weight_decay: now.weight_decay,
            momentum: now.momentum,
            teacher_temperature: now.teacher_temperature,
            gradient_norms: norms,
            images,
            skipped: Vec::new(),
        })
    }

    /// What is known of a step that cannot be taken.
    fn diverged(
        &self,
        losses: &Losses,
        norms: &BTreeMap<String, f64>,
        gradients: &candle_core::backprop::GradStore,
    ) -> Result<EngineError> {
        let Losses { loss, dino_global, dino_local, ibot, koleo } = losses;
        let norms: Vec<String> = norms.iter().map(|(k, norm)| format!("{k} {norm:.3e}")).collect();
        let mut first = String::new();
        for (module, optimizer) in &self.optimizers {
            if let Some(name) = optimizer.first_broken(gradients)? {
                first = format!("; first gradient that is not finite: {module}.{name}");
                break;
            }
        }
        let reason = format!(
            "step {} has loss {loss} (DINO {dino_global} on global and {dino_local} on local \
             crops, iBOT {ibot}, KoLeo {koleo}) and gradient norms {}{first}: training has \
             diverged, and nothing was changed; go on from the last checkpoint with a lower --lr \
             or a longer warm-up",
            self.step + 1,
            norms.join(", ")
        );
        Ok(EngineError::Training { reason })
    }

    /// Writes everything needed to go on: both networks, moments, centres, the place in the run.
    /// Order, views, masks and dropped branches follow from the seed and that place.
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let (names, moments) = (self.model_names(), self.moment_names());
        let optimizers: Vec<(&str, &AdamW)> =
            moments.iter().zip(&self.optimizers).map(|(name, (_, o))| (name.as_str(), o)).collect();
        let mut tensors = tensors(&self.models(&names), &optimizers);
        for (name, centre) in ["centre.cls", "centre.patch"].into_iter().zip(&self.centres) {
            tensors.insert(name.to_owned(), centre.value().clone());
        }
        let state = State {
            config: self.config.clone(),
            backbone: self.backbone_config().clone(),
            step: self.step,
            pictures: self.pictures,
            teacher_id: self.teacher_id.clone(),
        };
        checkpoint::save(path, &tensors, &state)
    }

    /// Takes up a run where [`save`](Self::save) left it.
    ///
    /// # Errors
    /// The checkpoint is damaged, or of a run with other settings or another backbone; nothing has
    /// been changed then.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let refuse = |reason: String| {
            let reason = format!("checkpoint {} cannot be used: {reason}", path.display());
            EngineError::Training { reason }
        };
        let (tensors, state) = checkpoint::load::<State>(path, self.student.device())?;
        if let Some(difference) = difference(&state, &self.config, self.backbone_config()) {
            return Err(refuse(format!(
                "it is of a run with other settings ({difference}); use those, or another folder"
            )));
        }
        if state.teacher_id != self.teacher_id {
            let name = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
            return Err(refuse(format!(
                "it is of a run with another frozen teacher ({}, now {}); use that, or another \
                 folder",
                name(&state.teacher_id),
                name(&self.teacher_id)
            )));
        }
        let mut centres = self.centres.clone();
        for (name, centre) in ["centre.cls", "centre.patch"].into_iter().zip(&mut centres) {
            if !tensors.get(name).is_some_and(|value: &Tensor| centre.restore(value)) {
                return Err(refuse(format!("`{name}` differs")));
            }
        }
        let (names, moments) = (self.model_names(), self.moment_names());
        let mut optimizers = std::mem::take(&mut self.optimizers);
        let mut by_name: Vec<(&str, &mut AdamW)> = moments
            .iter()
            .zip(&mut optimizers)
            .map(|(name, (_, optimizer))| (name.as_str(), optimizer))
            .collect();
        let restored = restore(&tensors, &self.models(&names), &mut by_name, state.step);
        self.optimizers = optimizers;
        restored.map_err(refuse)?;
        (self.centres, self.step, self.pictures) = (centres, state.step, state.pictures);
        Ok(())
    }

    fn model_names(&self) -> Vec<String> {
        let side = |side: &str, network: &Network| -> Vec<String> {
            network.modules().iter().map(|(module, _)| format!("{side}.{module}")).collect()
        };
        let second = match &self.average {
            // A frozen teacher is found where it came from.
            Some(_) => vec!["average.backbone".to_owned()],
            None => side("teacher", &self.teacher),
        };
        [side("student", &self.student), second].concat()
    }

    fn moment_names(&self) -> Vec<String> {
        self.optimizers.iter().map(|(module, _)| format!("{module}.")).collect()
    }

    fn models<'a>(&'a self, names: &'a [String]) -> Vec<Model<'a>> {
        let second = match &self.average {
            Some(average) => vec![("average", average.parameters())],
            None => self.teacher.modules(),
        };
        let modules = self.student.modules().into_iter().chain(second);
        names.iter().zip(modules).map(|(name, (_, model))| (name.as_str(), model)).collect()
    }
}

/// The first setting that a checkpoint and this run disagree about, with both values.
fn difference(state: &State, config: &SslConfig, backbone: &VitConfig) -> Option<String> {
    let fields = |config: &SslConfig, backbone: &VitConfig| {
        let values = [serde_json::to_value(config), serde_json::to_value(backbone)];
        let objects = values.into_iter().flatten().filter_map(|v| v.as_object().cloned());
        objects.flatten().collect::<BTreeMap<_, _>>()
    };
    // Through JSON like the other, which rounds numbers.
    let read = serde_json::to_string(config).ok().and_then(|text| serde_json::from_str(&text).ok());
    let config = read.unwrap_or_else(|| config.clone());
    let (theirs, ours) = (fields(&state.config, &state.backbone), fields(&config, backbone));
    let different = theirs.iter().find(|(name, value)| ours.get(*name) != Some(value));
    different.map(|(name, value)| {
        let now = ours.get(name).map(ToString::to_string).unwrap_or_default();
        format!("{name} was {value} and now is {now}")
    })
}
