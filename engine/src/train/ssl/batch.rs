//! Pictures to crops, masks and dropped branches: everything random about a pass, as a function of
//! the seed and the place in the run.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::config::{CropSizes, GLOBALS, SslConfig};
use crate::error::{EngineError, Result};
use crate::train::augment::generator;
use crate::train::pictures::{Pictures, order};
use crate::train::student::DropPlan;
use crate::vit::config::PATCH_SIZE;

/// What one pass trains on.
#[derive(Clone, Debug)]
pub struct SslBatch {
    /// (2 B, 3, S, S), normalised: the first global crop of every picture, then the second.
    pub globals: Tensor,
    /// (L B, 3, s, s), the first local crop of every picture, then the second; none without local
    /// crops.
    pub locals: Option<Tensor>,
    /// Patches of each global crop that iBOT is on, row-major: those hidden from the student, or,
    /// with a frozen teacher, all, and none is hidden.
    pub masks: Vec<Vec<bool>>,
    /// What stochastic depth keeps of global and local crops; everything if absent.
    pub drop_path: Option<DropPlan>,
}

/// A picture that could not be used, and why.
pub(super) type Skipped = (String, String);

impl SslBatch {
    /// The batch of pass `pass` of the step after `done` steps, on `device`, for a backbone of
    /// `depth` blocks; and the pictures it had to leave out.
    pub(super) fn draw(
        config: &SslConfig,
        pictures: &dyn Pictures,
        (done, pass): (usize, usize),
        depth: usize,
        device: &Device,
    ) -> Result<(Self, Vec<Skipped>)> {
        let sizes = config.sizes_at(done);
        let first = (done * config.accumulate + pass) * config.batch;
        let drawn: Vec<Result<Views, Skipped>> =
            order(config.seed, pictures.len(), first, config.batch)
                .into_par_iter()
                .map(|(epoch, index)| {
                    Views::draw(config, sizes, pictures, epoch, index)
                        .map_err(|reason| (pictures.name(index), reason))
                })
                .collect();
        let (mut usable, mut skipped) = (Vec::new(), Vec::new());
        for views in drawn {
            match views {
                Ok(views) => usable.push(views),
                Err(problem) => skipped.push(problem),
            }
        }
        if let (true, Some((name, reason))) = (usable.is_empty(), skipped.last()) {
            let reason = format!("no picture of a batch is usable; {name}: {reason}");
            return Err(EngineError::Training { reason });
        }
        let count = usable.len();
        let stack = |views: &dyn Fn(&Views) -> &[Vec<f32>], each: usize, side: u32| {
            let side = side as usize;
            let mut values: Vec<f32> = Vec::with_capacity(each * count * 3 * side * side);
            for view in 0..each {
                usable.iter().for_each(|picture| values.extend(&views(picture)[view]));
            }
            Tensor::from_vec(values, (each * count, 3, side, side), device)
        };
        let globals = stack(&|picture| &picture.globals, GLOBALS, sizes.global)?;
        let locals = match config.locals {
            0 => None,
            each => Some(stack(&|picture| &picture.locals, each, sizes.local)?),
        };
        let place = [done as u64, pass as u64];
        let side = sizes.global as usize / PATCH_SIZE;
        let mut rng = generator(config.seed, "masks", place);
        let masks = match config.frozen_teacher {
            // Every patch has a loss, and none is hidden.
            true => vec![vec![true; side * side]; GLOBALS * count],
            false => config.masking.draw(GLOBALS * count, (side, side), &mut rng),
        };
        let groups: Vec<usize> = [GLOBALS * count]
            .into_iter()
            .chain((config.locals > 0).then_some(config.locals * count))
            .collect();
        let mut rng = generator(config.seed, "drop path", place);
        let drop_path = (config.drop_path > 0.0)
            .then(|| DropPlan::draw(&mut rng, depth, &groups, config.drop_path));
        Ok((Self { globals, locals, masks, drop_path }, skipped))
    }
}

/// Crops of one picture, CHW.
struct Views {
    globals: Vec<Vec<f32>>,
    locals: Vec<Vec<f32>>,
}

impl Views {
    fn draw(
        config: &SslConfig,
        sizes: CropSizes,
        pictures: &dyn Pictures,
        epoch: u64,
        index: usize,
    ) -> Result<Self, String> {
        let picture = pictures.load(index)?;
        let purpose = format!("view of {}", pictures.name(index));
        let [first, second, local] = &config.augmentations;
        let view = |n: usize| {
            let augmentation = [first, second].get(n).copied().unwrap_or(local);
            let mut rng = generator(config.seed, &purpose, [epoch, n as u64]);
            let size = if n < GLOBALS { sizes.global } else { sizes.local };
            augmentation.draw(picture.width(), picture.height(), &mut rng).to_chw(&picture, size)
        };
        let locals = GLOBALS..GLOBALS + config.locals;
        Ok(Self {
            globals: (0..GLOBALS).into_par_iter().map(view).collect(),
            locals: locals.into_par_iter().map(view).collect(),
        })
    }
}
