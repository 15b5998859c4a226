//! Settings of feature matching.

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::train::augment::Augmentation;
use crate::vit::config::PATCH_SIZE;

/// Views of one kind that are drawn of every picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewGroup {
    /// How many at a time.
    pub count: usize,
    /// Side of the student's input in pixels.
    pub student_size: u32,
    /// Side of the teacher's input in pixels.
    pub teacher_size: u32,
    /// How they are drawn.
    pub augmentation: Augmentation,
}

impl ViewGroup {
    /// Whole pictures, mildly changed.
    pub fn global(student_size: u32, teacher_size: u32) -> Self {
        Self { count: 1, student_size, teacher_size, augmentation: Augmentation::MATCHING }
    }

    /// `count` small parts of a picture, changed as mildly.
    pub fn local(count: usize, student_size: u32, teacher_size: u32) -> Self {
        let scale = Augmentation::LOCAL.scale;
        let augmentation = Augmentation { scale, ..Augmentation::MATCHING };
        Self { count, student_size, teacher_size, augmentation }
    }

    /// Patches along a side of the student's input.
    pub(super) fn grid(&self) -> usize {
        self.student_size as usize / PATCH_SIZE
    }
}

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
    /// What is drawn of each picture; all of it is computed as one packed sequence.
    pub groups: Vec<ViewGroup>,
    /// Drawings of each picture, taken in turns; 0 draws anew every time. The fewer, the more
    /// often cached outputs of the teacher serve again.
    pub views: u64,
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
            groups: vec![ViewGroup::global(126, 224)],
            views: 0,
            lr: 2e-5,
            last_lr: 1e-6,
            warmup: 100,
            weight_decay: 0.04,
            clip: 3.0,
            ema: 0.999,
            patch_weight: 1.0,
        }
    }
}

impl DistillConfig {
    /// Refuses what cannot be trained.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(EngineError::Training { reason });
        let patch = PATCH_SIZE as u32;
        for group in &self.groups {
            for (side, of) in [(group.student_size, "student"), (group.teacher_size, "teacher")] {
                if side == 0 || !side.is_multiple_of(patch) {
                    return refuse(format!(
                        "the {of}'s input is {side} px; take a multiple of {patch}"
                    ));
                }
            }
        }
        if self.groups.iter().all(|group| group.count == 0) {
            return refuse("no view is drawn of any picture; draw at least one".to_owned());
        }
        if self.steps * self.batch * self.accumulate == 0 {
            return refuse("steps, batch and accumulate must be at least 1".to_owned());
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return refuse(format!("the learning rate is {}; it must be above 0", self.lr));
        }
        Ok(())
    }
}
