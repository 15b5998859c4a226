//! Views of pictures for both sides, and the teacher's outputs, computed or remembered.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use half::f16;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::config::{DistillConfig, ViewGroup};
use crate::error::{EngineError, Result};
use crate::train::augment::generator;
use crate::train::matching::Targets;
use crate::train::pictures::{Pictures, order};
use crate::train::student::Student;

/// What one pass trains on, for each group of views.
pub(super) struct Batch {
    /// (views, 3, S, S), normalised.
    pub pixels: Vec<Tensor>,
    pub targets: Vec<Targets>,
    /// Pictures in it.
    pub images: usize,
}

/// A picture that could not be used, and why.
pub(super) type Skipped = (String, String);

/// One view of one picture.
struct Sample {
    group: usize,
    pixels: Vec<f32>,
    target: Target,
    key: String,
}

enum Target {
    Cached(Vec<f16>),
    /// The teacher's pixels.
    Missing(Vec<f32>),
}

/// Draws batches.
#[derive(Debug)]
pub(super) struct Source {
    /// Folder of each group's remembered outputs.
    caches: Option<Vec<PathBuf>>,
    teacher_width: usize,
}

impl Source {
    /// Outputs of the teacher `teacher_id` are kept below `cache` if given.
    pub fn new(
        config: &DistillConfig,
        teacher_id: &str,
        teacher_width: usize,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let folder = |group: &ViewGroup, root: &Path| {
            let ViewGroup { student_size, teacher_size, augmentation, .. } = group;
            let seed = config.seed;
            let what =
                format!("{teacher_id} {seed} {student_size} {teacher_size} {augmentation:?}");
            root.join(format!("{:.16x}", Sha256::digest(what)))
        };
        let caches = cache
            .map(|root| config.groups.iter().map(|group| folder(group, root)).collect::<Vec<_>>());
        for folder in caches.iter().flatten() {
            std::fs::create_dir_all(folder).map_err(|error| EngineError::Training {
                reason: format!("cannot create the cache {}: {error}", folder.display()),
            })?;
        }
        Ok(Self { caches, teacher_width })
    }

    /// The pictures from the `first` of the run on, in its order.
    pub fn draw(
        &self,
        config: &DistillConfig,
        teacher: &mut Student,
        pictures: &dyn Pictures,
        first: usize,
        skipped: &mut Vec<Skipped>,
    ) -> Result<Batch> {
        let drawn: Vec<Result<Vec<Sample>, Skipped>> =
            order(config.seed, pictures.len(), first, config.batch)
                .into_par_iter()
                .map(|(epoch, index)| {
                    self.samples(config, pictures, epoch, index)
                        .map_err(|reason| (pictures.name(index), reason))
                })
                .collect();
        let mut groups: Vec<Vec<Sample>> = config.groups.iter().map(|_| Vec::new()).collect();
        let mut images = 0;
        for picture in drawn {
            match picture {
                Ok(samples) => {
                    images += 1;
                    samples.into_iter().for_each(|sample| groups[sample.group].push(sample));
                }
                Err(problem) => skipped.push(problem),
            }
        }
        if images == 0 {
            let reason = match skipped.last() {
                Some((name, reason)) => {
                    format!("no picture of a batch is usable; {name}: {reason}")
                }
                None => "a batch is empty".to_owned(),
            };
            return Err(EngineError::Training { reason });
        }
        let mut batch = Batch { pixels: Vec::new(), targets: Vec::new(), images };
        let mut fresh = teach(config, teacher, &groups)?.into_iter();
        for (group, samples) in config.groups.iter().zip(groups) {
            if samples.is_empty() {
                continue;
            }
            let side = group.student_size as usize;
            let pixels: Vec<f32> = samples.iter().flat_map(|s| &s.pixels).copied().collect();
            let shape = (samples.len(), 3, side, side);
            batch.pixels.push(Tensor::from_vec(pixels, shape, teacher.device())?);
            let mut rows = Vec::new();
            for Sample { group, target, key, .. } in samples {
                rows.extend(match target {
                    Target::Cached(row) => Some(row),
                    Target::Missing(_) => {
                        fresh.next().inspect(|row| self.remember(group, &key, row))
                    }
                });
            }
            batch.targets.push(Targets::stack(&rows, self.teacher_width, teacher.device())?);
        }
        Ok(batch)
    }

    /// Every view of one picture.
    fn samples(
        &self,
        config: &DistillConfig,
        pictures: &dyn Pictures,
        epoch: u64,
        index: usize,
    ) -> Result<Vec<Sample>, String> {
        let view = if config.views == 0 { epoch } else { epoch % config.views };
        let picture = pictures.load(index)?;
        let name = pictures.name(index);
        let mut samples = Vec::new();
        for (number, group) in config.groups.iter().enumerate() {
            for n in 0..group.count {
                let purpose = format!("view of {name}");
                let place = [view, (number * 1_000 + n) as u64];
                let mut rng = generator(config.seed, &purpose, place);
                let drawn = group.augmentation.draw(picture.width(), picture.height(), &mut rng);
                let key = format!("{:x}-{view}-{n}", Sha256::digest(&name));
                let target = match self.recall(number, group, &key) {
                    Some(row) => Target::Cached(row),
                    None => Target::Missing(drawn.to_chw(&picture, group.teacher_size)),
                };
                let pixels = drawn.to_chw(&picture, group.student_size);
                samples.push(Sample { group: number, pixels, target, key });
            }
        }
        Ok(samples)
    }

    fn recall(&self, number: usize, group: &ViewGroup, key: &str) -> Option<Vec<f16>> {
        let folder = self.caches.as_ref()?.get(number)?;
        let bytes = std::fs::read(folder.join(key)).ok()?;
        let expected = 2 * (1 + group.grid().pow(2)) * self.teacher_width;
        let values = || bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
        (bytes.len() == expected).then(values)
    }

    /// A cache that cannot be written costs time, not the run.
    fn remember(&self, number: usize, key: &str, row: &[f16]) {
        if let Some(folder) = self.caches.as_ref().and_then(|caches| caches.get(number)) {
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

/// The teacher's outputs for the samples that lack them, in order.
fn teach(
    config: &DistillConfig,
    teacher: &mut Student,
    groups: &[Vec<Sample>],
) -> Result<Vec<Vec<f16>>> {
    let (mut crops, mut grids) = (Vec::new(), Vec::new());
    for (group, samples) in config.groups.iter().zip(groups) {
        let missing: Vec<&[f32]> = samples
            .iter()
            .filter_map(|sample| match &sample.target {
                Target::Missing(pixels) => Some(pixels.as_slice()),
                Target::Cached(_) => None,
            })
            .collect();
        if !missing.is_empty() {
            let side = group.teacher_size as usize;
            let shape = (missing.len(), 3, side, side);
            crops.push(Tensor::from_vec(missing.concat(), shape, teacher.device())?);
            grids.push((group.grid(), group.grid()));
        }
    }
    let mut rows = Vec::new();
    for (tokens, grid) in teacher.forward(&crops)?.iter().zip(grids) {
        rows.extend(Targets::from_teacher(tokens, grid)?);
    }
    Ok(rows)
}
