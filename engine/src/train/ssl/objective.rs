//! The training objective on one batch (reference: `ssl_meta_arch.py`).

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use serde::Serialize;

use super::batch::SslBatch;
use super::config::{GLOBALS, SslConfig};
use super::network::Network;
use crate::error::{EngineError, Result};
use crate::train::losses::{Centre, Centring, SINKHORN_ITERATIONS, koleo, sinkhorn_knopp};
use crate::train::ops::cross_entropy;
use crate::train::student::{Crops, How};

/// Losses of a step, as they enter the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Losses {
    /// The sum that is minimised.
    pub loss: f64,
    /// DINO between each global crop and the teacher's other one.
    pub dino_global: f64,
    /// DINO between local crops and both of the teacher's.
    pub dino_local: f64,
    /// iBOT over hidden patches.
    pub ibot: f64,
    /// KoLeo, weighted.
    pub koleo: f64,
}

impl Losses {
    /// Adds `share` of another pass.
    pub(super) fn add(&mut self, other: &Self, share: f64) {
        self.loss += other.loss * share;
        self.dino_global += other.dino_global * share;
        self.dino_local += other.dino_local * share;
        self.ibot += other.ibot * share;
        self.koleo += other.koleo * share;
    }
}

/// How a step is computed; what it computes stays the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// Forget the insides of blocks and compute them again for the gradient.
    pub checkpointing: bool,
    /// Separate passes, dropped branches computed and masked, attention weights kept: the usual
    /// way, for comparison.
    pub plain: bool,
}

/// Moving averages of teacher logits: of CLS and of patch tokens.
pub(super) type Centres = [Centre; 2];

/// Hidden patches as the student and the losses need them.
struct Hidden {
    /// (2 B, N), u8.
    mask: Tensor,
    /// Rows in (2 B N, C).
    rows: Tensor,
    /// 1 / (hidden patches of the crop), for each.
    weights: Tensor,
    count: usize,
}

impl Hidden {
    fn new(masks: &[Vec<bool>], device: &Device) -> Result<Self> {
        let patches = masks.first().map_or(0, Vec::len);
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        for (crop, mask) in masks.iter().enumerate() {
            let hidden: Vec<usize> = (0..patches).filter(|&i| mask.get(i) == Some(&true)).collect();
            weights.extend(hidden.iter().map(|_| 1.0 / hidden.len() as f32));
            rows.extend(hidden.iter().map(|i| (crop * patches + i) as u32));
        }
        let mask: Vec<u8> = masks.iter().flatten().map(|hidden| u8::from(*hidden)).collect();
        if mask.len() != masks.len() * patches {
            let reason = "the masks of a batch have different sizes".to_owned();
            return Err(EngineError::Training { reason });
        }
        let count = rows.len();
        Ok(Self {
            mask: Tensor::from_vec(mask, (masks.len(), patches), device)?,
            rows: Tensor::from_vec(rows, count, device)?,
            weights: Tensor::from_vec(weights, count, device)?,
            count,
        })
    }

    /// The hidden ones of `patches` (2 B, N, C).
    fn select(&self, patches: &Tensor) -> Result<Tensor> {
        Ok(patches.flatten(0, 1)?.contiguous()?.index_select(&self.rows, 0)?)
    }
}

/// Losses and gradients of a batch; centres are moved on.
pub(super) fn gradients(
    config: &SslConfig,
    execution: Execution,
    (student, teacher): (&mut Network, &mut Network),
    centres: &mut Centres,
    batch: &SslBatch,
    teacher_temperature: f64,
) -> Result<(Losses, GradStore)> {
    let device = student.device().clone();
    let crops = batch.globals.dim(0)?;
    let count = crops / GLOBALS;
    let locals =
        batch.locals.as_ref().map_or(Ok(0), |l| Ok::<_, EngineError>(l.dim(0)? / count))?;
    if count == 0 || crops != count * GLOBALS || batch.masks.len() != crops {
        let reason = format!("a batch has {crops} global crops and {} masks", batch.masks.len());
        return Err(EngineError::Training { reason });
    }
    let hidden = Hidden::new(&batch.masks, &device)?;

    // Teacher: whole global crops, the two swapped so that each meets the student's other one.
    let plain = How { plain: execution.plain, ..How::default() };
    let whole = [Crops::from(batch.globals.clone())];
    let pass = teacher.backbone.pass(&whole, plain)?;
    let [tokens] = &pass.tokens[..] else { return Err(no_tokens()) };
    let swapped =
        Tensor::cat(&[tokens.cls.narrow(0, count, count)?, tokens.cls.narrow(0, 0, count)?], 0)?;
    let mut probabilities = |logits: &Tensor, centre: usize| -> Result<Tensor> {
        match config.centring {
            Centring::SinkhornKnopp => {
                sinkhorn_knopp(logits, teacher_temperature, SINKHORN_ITERATIONS)
            }
            Centring::Softmax => {
                let centre = &mut centres[centre];
                let probabilities = centre.probabilities(logits, teacher_temperature)?;
                centre.update(logits)?;
                Ok(probabilities)
            }
        }
    };
    let cls_targets = probabilities(&teacher.cls_logits(&swapped)?, 0)?;
    let patch_targets = match hidden.count {
        0 => None,
        _ => {
            let logits = teacher.patch_logits(&hidden.select(&tokens.patches)?)?;
            Some(probabilities(&logits, 1)?)
        }
    };

    // Student: masked global crops and local crops, packed unless plain.
    let masked = (!config.frozen_teacher).then(|| hidden.mask.clone());
    let globals = Crops { pixels: batch.globals.clone(), masked };
    let groups: Vec<Crops> =
        std::iter::once(globals).chain(batch.locals.clone().map(Crops::from)).collect();
    let how = How {
        drop_path: batch.drop_path.as_ref(),
        checkpointing: execution.checkpointing,
        plain: execution.plain,
    };
    let mut passes = Vec::new();
    if execution.plain {
        for (i, group) in groups.iter().enumerate() {
            let part = batch.drop_path.as_ref().map(|plan| plan.of_group(i));
            let how = How { drop_path: part.as_ref(), ..how };
            passes.push(student.backbone.pass(std::slice::from_ref(group), how)?);
        }
    } else {
        passes.push(student.backbone.pass(&groups, how)?);
    }
    let tokens: Vec<_> = passes.iter().flat_map(|pass| &pass.tokens).collect();
    let Some(globals) = tokens.first() else { return Err(no_tokens()) };

    // DINO: the loss is linear in targets, so a local crop meets the sum of both teacher rows.
    let cls: Vec<&Tensor> = tokens.iter().map(|tokens| &tokens.cls).collect();
    let logits = student.cls_logits(&Tensor::cat(&cls, 0)?)?;
    let both = (cls_targets.narrow(0, 0, count)? + cls_targets.narrow(0, count, count)?)?;
    let targets = Tensor::cat(&[&cls_targets, &both], 0)?;
    let rows: Vec<u32> = (0..crops)
        .chain((0..locals).flat_map(|_| crops..crops + count))
        .map(|row| row as u32)
        .collect();
    let rows = cross_entropy(&logits, config.student_temperature, &targets, &rows)?;
    let terms = (GLOBALS * (GLOBALS - 1) + GLOBALS * locals) as f64;
    let (dino_weight, ibot_weight, koleo_weight) = config.weights;
    let dino = |first: usize, rows_of: usize| -> Result<Tensor> {
        let sum = rows.narrow(0, first, rows_of)?.sum_all()?;
        Ok((sum * (dino_weight / (terms * count as f64)))?)
    };
    let dino_global = dino(0, crops)?;
    let mut parts = vec![dino_global];
    parts.push(match locals {
        0 => Tensor::zeros((), candle_core::DType::F32, &device)?,
        _ => dino(crops, locals * count)?,
    });

    // iBOT: crops weigh the same, however many patches they hide.
    parts.push(match &patch_targets {
        None => Tensor::zeros((), candle_core::DType::F32, &device)?,
        Some(targets) => {
            let logits = student.patch_logits(&hidden.select(&globals.patches)?)?;
            let rows: Vec<u32> = (0..hidden.count as u32).collect();
            let losses = cross_entropy(&logits, config.student_temperature, targets, &rows)?;
            ((losses * &hidden.weights)?.sum_all()? * (ibot_weight / crops as f64))?
        }
    });

    // KoLeo within each global crop: the two of one picture are not to be driven apart.
    let first = koleo(&globals.cls.narrow(0, 0, count)?)?;
    let second = koleo(&globals.cls.narrow(0, count, count)?)?;
    parts.push(((first + second)? * koleo_weight)?);

    let total = Tensor::stack(&parts, 0)?.sum_all()?;
    let gradients = student.backbone.backward(&passes, &total)?;
    let values = Tensor::stack(&parts, 0)?.to_vec1::<f32>()?;
    let value = |i: usize| f64::from(values.get(i).copied().unwrap_or(f32::NAN));
    let losses = Losses {
        loss: f64::from(total.to_scalar::<f32>()?),
        dino_global: value(0),
        dino_local: value(1),
        ibot: value(2),
        koleo: value(3),
    };
    Ok((losses, gradients))
}

fn no_tokens() -> EngineError {
    EngineError::Training { reason: "a pass gave no tokens".to_owned() }
}
