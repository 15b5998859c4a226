//! The forward pass on GPUs. What needs CUDA is in `cuda`; the rest is plain Rust over a
//! [`Machine`](machine::Machine), and tested on one made of loops (docs/gpu.md).

mod machine;
mod plan;
mod folded;
mod batches;
mod owners;
mod pass;
mod computer;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use self::computer::{Computer, Done, Job};
use self::machine::{Fault, Machine};
use self::owners::{Owners, Undone};
use self::pass::Ask;
use super::config::VitConfig;
use crate::error::{EngineError, Result};

pub(crate) use self::computer::Choices;
#[cfg(feature = "cuda")]
pub(crate) use self::cuda::start;
pub(crate) use self::folded::Folded;

/// Pictures in a job when several devices share a batch, before it is known what suits them.
const SHARE: usize = 64;

/// A backbone on one or more devices.
pub(crate) struct GpuVit {
    config: VitConfig,
    choices: Choices,
    owners: Owners<Job, Done>,
    batch: OnceLock<usize>,
}

impl std::fmt::Debug for GpuVit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuVit")
            .field("config", &self.config)
            .field("choices", &self.choices)
            .field("devices", &self.owners.names())
            .finish_non_exhaustive()
    }
}

impl GpuVit {
    /// Whether a GPU computes this shape: heads fill a token, and rows start at multiples of 16 bytes.
    pub(crate) fn supports(config: &VitConfig) -> bool {
        let heads = config.num_heads;
        heads > 0
            && config.embed_dim.is_multiple_of(8 * heads)
            && config.ffn_hidden_dim.is_multiple_of(8)
            && config.embed_dim <= 8192
    }

    /// Brings a backbone to devices, each on a thread of its own.
    ///
    /// # Errors
    /// [`EngineError::Device`] names the one that cannot be used, and why.
    pub(crate) fn load<M: Machine>(
        names: Vec<String>,
        machine: impl Fn(usize) -> Result<M, Fault> + Send + Sync + 'static,
        from: Folded,
        choices: Choices,
    ) -> Result<Self> {
        let config = from.config.clone();
        let make = move |number| Computer::new(machine(number)?, &from, choices);
        let owners = Owners::start(names, make).map_err(undone)?;
        Ok(Self { config, choices, owners, batch: OnceLock::new() })
    }

    /// Shape of the backbone.
    pub(crate) fn config(&self) -> &VitConfig {
        &self.config
    }

    /// What its devices are called.
    pub(crate) fn names(&self) -> &[String] {
        self.owners.names()
    }

    /// Normed tokens after each of `layers` (0-based, rising) of square pictures, RGB8: for each layer
    /// (pictures, tokens, C), where tokens is 1 with `cls_only`.
    ///
    /// # Errors
    /// A picture has another size, does not fit into memory, or a device failed.
    pub(crate) fn tokens(
        &self,
        pictures: &[Arc<[u8]>],
        layers: &[usize],
        cls_only: bool,
    ) -> Result<Vec<Vec<f32>>> {
        let side = self.choices.side;
        if let Some(odd) = pictures.iter().find(|picture| picture.len() != side * side * 3) {
            return Err(EngineError::InputShape {
                got: vec![odd.len()],
                expected: "RGB8 of the model's square input",
            });
        }
        let devices = self.owners.count();
        let share = match devices {
            // All in one, so that copies go on beside products.
            1 => pictures.len(),
            _ => {
                let suits = self.batch.get().copied().unwrap_or(SHARE);
                pictures.len().div_ceil(devices).min(suits)
            }
        };
        let ask = Ask { side, layers: layers.to_vec(), cls_only };
        let jobs = pictures
            .chunks(share.max(1))
            .map(|some| Job::Embed { pictures: some.to_vec(), ask: ask.clone() });
        let mut all = vec![Vec::new(); layers.len()];
        for done in self.owners.run(jobs.collect()).map_err(undone)? {
            if let Done::Values(values) = done {
                all.iter_mut().zip(values).for_each(|(layer, part)| layer.extend(part));
            }
        }
        Ok(all)
    }

    /// Pictures that all devices together best take at a time; measured at the first call, which takes
    /// a moment.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens).
    pub(crate) fn batch(&self) -> Result<usize> {
        let each = match self.batch.get() {
            Some(&known) => known,
            None => {
                let job = || Job::Tune { side: self.choices.side };
                let done = self.owners.run((0..self.owners.count()).map(|_| job()).collect());
                let batches = done.map_err(undone)?.into_iter().filter_map(|done| match done {
                    Done::Batch(batch) => Some(batch),
                    _ => None,
                });
                let least = batches.min().unwrap_or(1);
                *self.batch.get_or_init(|| least)
            }
        };
        Ok(each * self.owners.count())
    }

    /// Operations a second of one device in products of square matrices with `rows` rows, in the
    /// precision of the model.
    ///
    /// # Errors
    /// The device failed, or has no room for three of them.
    pub(crate) fn peak(&self, rows: usize) -> Result<f64> {
        match self.owners.run(vec![Job::Peak { rows }]).map_err(undone)?.pop() {
            Some(Done::Peak(peak)) => Ok(peak),
            _ => Err(EngineError::Device {
                name: self.names().join(","),
                reason: "its speed was not measured".to_owned(),
            }),
        }
    }
}

fn undone(undone: Undone) -> EngineError {
    let reason = match undone.fault {
        Fault::OutOfMemory => "its memory does not suffice; end other programs on it, or use a \
                               smaller model, a smaller --size, or --device cpu"
            .to_owned(),
        Fault::Refused(reason) | Fault::Broken(reason) => reason,
    };
    EngineError::Device { name: undone.device, reason }
}
