//! Settings of self-supervised training, and the values that change over it.

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::train::augment::Augmentation;
use crate::train::head::HeadConfig;
use crate::train::losses::Centring;
use crate::train::masking::Masking;
use crate::train::schedule::CosineSchedule;
use crate::vit::config::PATCH_SIZE;

/// Global crops of each picture.
pub const GLOBALS: usize = 2;

/// A run of self-supervised training. Two runs with equal settings, pictures and hardware are
/// equal, whether interrupted or not.
///
/// The defaults are the published settings (arXiv 2304.07193, table 16 and the released
/// configurations) but for batch, steps and prototypes, which are those of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SslConfig {
    /// Decides initial heads, order, views, masks, dropped branches: everything.
    pub seed: u64,
    /// Optimizer steps in all.
    pub steps: usize,
    /// Pictures in one pass.
    pub batch: usize,
    /// Passes whose gradients are averaged in one step. Sinkhorn-Knopp and KoLeo see one pass.
    pub accumulate: usize,
    /// Sizes of crops.
    pub sizes: CropSizes,
    /// Local crops of each picture.
    pub locals: usize,
    /// Steps at the end at other sizes: the high-resolution phase.
    pub high_res: Option<HighRes>,
    /// How the first and second global and the local crops are drawn.
    pub augmentations: [Augmentation; 3],
    /// How patches are hidden.
    pub masking: Masking,
    /// Widths of the heads.
    pub head: HeadConfig,
    /// One head for CLS and patches, instead of one each.
    pub shared_head: bool,
    /// How teacher logits become probabilities.
    pub centring: Centring,
    /// Temperature of the student's logits.
    pub student_temperature: f64,
    /// Temperature of the teacher's: at first, and after its warm-up.
    pub teacher_temperature: (f64, f64),
    /// Steps over which the teacher's temperature rises.
    pub temperature_warmup: usize,
    /// Weights of DINO, iBOT and KoLeo.
    pub weights: (f64, f64, f64),
    /// Share of sequences that each branch leaves out.
    pub drop_path: f64,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end.
    pub last_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Steps at the start during which the prototypes are held still.
    pub freeze_last_layer: usize,
    /// Weight decay at first and at the end.
    pub weight_decay: (f64, f64),
    /// Factor on the learning rate from each block to the one below it.
    pub layer_decay: f64,
    /// Factor on the learning rate of the patch embedding.
    pub patch_embed_lr: f64,
    /// Largest norm of the gradient of each of backbone and heads.
    pub clip: f64,
    /// Share of the teacher kept at each step, at first and at the end.
    pub momentum: (f64, f64),
    /// Distillation as published: another model is the teacher and stays as it is, iBOT is on all
    /// patches of both global crops, and the moving average of the student is the result.
    #[serde(default)]
    pub frozen_teacher: bool,
}

/// Sides of crops in pixels, multiples of 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CropSizes {
    /// Of the two global crops.
    pub global: u32,
    /// Of local crops.
    pub local: u32,
}

/// The high-resolution phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighRes {
    /// The last steps of the run.
    pub steps: usize,
    /// Sizes then.
    pub sizes: CropSizes,
}

/// Values of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheduled {
    /// Learning rate.
    pub lr: f64,
    /// That of prototypes.
    pub last_layer_lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Share of the teacher kept.
    pub momentum: f64,
    /// Temperature of the teacher's logits.
    pub teacher_temperature: f64,
}

impl SslConfig {
    /// The published settings for a run of `steps` steps of `batch` pictures. Published runs take
    /// 100 epochs (of 1250 steps): 10 of warm-up, 30 of rising teacher temperature, 1 with the last
    /// layer frozen; here the same shares of `steps`. lr = 2e-4 sqrt(batch / 1024).
    pub fn published(steps: usize, batch: usize) -> Self {
        Self {
            seed: 0,
            steps,
            batch,
            accumulate: 1,
            sizes: CropSizes { global: 224, local: 98 },
            locals: 8,
            high_res: None,
            augmentations: [Augmentation::GLOBAL_1, Augmentation::GLOBAL_2, Augmentation::LOCAL],
            masking: Masking::default(),
            head: HeadConfig::default(),
            shared_head: false,
            centring: Centring::SinkhornKnopp,
            student_temperature: 0.1,
            teacher_temperature: (0.04, 0.07),
            temperature_warmup: 3 * steps / 10,
            weights: (1.0, 1.0, 0.1),
            drop_path: 0.3,
            lr: Self::published_lr(batch),
            last_lr: 1e-6,
            warmup: steps / 10,
            freeze_last_layer: steps / 100,
            weight_decay: (0.04, 0.2),
            layer_decay: 0.9,
            patch_embed_lr: 0.2,
            clip: 3.0,
            momentum: (0.994, 1.0),
            frozen_teacher: false,
        }
    }

    /// The published settings for distillation: a frozen teacher, no masks, no stochastic depth
    /// (arXiv 2304.07193, section 5).
    pub fn distillation(steps: usize, batch: usize) -> Self {
        let published = Self::published(steps, batch);
        Self {
            masking: Masking { share: 0.0, ..published.masking },
            drop_path: 0.0,
            frozen_teacher: true,
            ..published
        }
    }

    /// 2e-4 sqrt(batch / 1024), for `batch` pictures in one step.
    pub fn published_lr(batch: usize) -> f64 {
        2e-4 * (batch as f64 / 1024.0).sqrt()
    }

    /// Values of the step after `done` steps.
    pub fn at(&self, done: usize) -> Scheduled {
        let cosine = |(base, last)| CosineSchedule::new(base, last, self.steps);
        let lr = CosineSchedule { warmup: self.warmup, ..cosine((self.lr, self.last_lr)) }.at(done);
        let (first, last) = self.teacher_temperature;
        let temperature = CosineSchedule {
            warmup: self.temperature_warmup,
            warmup_start: first,
            ..CosineSchedule::new(last, last, self.temperature_warmup)
        };
        Scheduled {
            lr,
            last_layer_lr: if done < self.freeze_last_layer { 0.0 } else { lr },
            weight_decay: cosine(self.weight_decay).at(done),
            momentum: cosine(self.momentum).at(done),
            teacher_temperature: temperature.at(done),
        }
    }

    /// Sizes of the step after `done` steps.
    pub fn sizes_at(&self, done: usize) -> CropSizes {
        match self.high_res {
            Some(phase) if done + phase.steps >= self.steps => phase.sizes,
            _ => self.sizes,
        }
    }

    /// Refuses what cannot be trained.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(EngineError::Training { reason });
        let high_res = self.high_res.map(|phase| phase.sizes);
        for sizes in [Some(self.sizes), high_res].into_iter().flatten() {
            for (what, side) in [("global", sizes.global), ("local", sizes.local)] {
                if side == 0 || !side.is_multiple_of(PATCH_SIZE as u32) {
                    return refuse(format!(
                        "{what} crops are {side} px; take a multiple of {PATCH_SIZE}"
                    ));
                }
            }
        }
        if self.frozen_teacher && (self.masking.share > 0.0 || self.drop_path > 0.0) {
            return refuse(format!(
                "distillation hides no patches and drops no branches; the share of masked crops is \
                 {} and the drop-path rate {}: set both to 0",
                self.masking.share, self.drop_path
            ));
        }
        if self.steps * self.batch * self.accumulate == 0 {
            return refuse("steps, batch and accumulate must be at least 1".to_owned());
        }
        let positive = [
            ("the student's temperature", self.student_temperature),
            ("the teacher's first temperature", self.teacher_temperature.0),
            ("the teacher's temperature", self.teacher_temperature.1),
            ("the learning rate", self.lr),
            ("the largest gradient norm", self.clip),
        ];
        for (what, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(format!("{what} is {value}; it must be above 0"));
            }
        }
        let shares = [
            ("the drop-path rate", self.drop_path, 0.99),
            ("the share of masked crops", self.masking.share, 1.0),
            ("the least mask ratio", self.masking.ratio.0, self.masking.ratio.1),
            ("the greatest mask ratio", self.masking.ratio.1, 1.0),
            ("the teacher's momentum", self.momentum.0, 1.0),
            ("the teacher's last momentum", self.momentum.1, 1.0),
        ];
        for (what, value, most) in shares {
            if !(0.0..=most).contains(&value) {
                return refuse(format!("{what} is {value}; it must lie between 0 and {most}"));
            }
        }
        Ok(())
    }
}
