//! Where training pictures come from, and in which order.

use image::RgbImage;
use rand::seq::SliceRandom;

use super::augment::generator;
use crate::error::Result;

/// Where training pictures come from. Indices are stable over a run.
pub trait Pictures: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names a picture, in messages and in the cache of teacher outputs.
    fn name(&self, index: usize) -> String;

    /// Decodes a picture.
    ///
    /// # Errors
    /// Why it cannot be used; the batch goes on without it.
    fn load(&self, index: usize) -> Result<RgbImage, String>;
}

/// (epoch, index) of `count` pictures from the `first` of the run on: every epoch a new order of
/// all `len`, a function of the seed and the epoch.
pub(super) fn order(seed: u64, len: usize, first: usize, count: usize) -> Vec<(u64, usize)> {
    let mut current: Option<(u64, Vec<usize>)> = None;
    (first..first + count)
        .map(|n| {
            let epoch = (n / len) as u64;
            if current.as_ref().is_none_or(|(known, _)| *known != epoch) {
                let mut indices: Vec<usize> = (0..len).collect();
                indices.shuffle(&mut generator(seed, "order", [epoch, 0]));
                current = Some((epoch, indices));
            }
            (epoch, current.as_ref().map_or(0, |(_, indices)| indices[n % len]))
        })
        .collect()
}
