//! What a picture draws by lot: sizes, colours, counts.

use crate::random::SplitMix64;

/// A source of choices, the same for the same seeds on every machine.
#[derive(Clone, Debug)]
pub(super) struct Lot(SplitMix64);

impl Lot {
    /// Seeds that differ in any number give unrelated choices.
    pub(super) fn of(seeds: &[u64]) -> Self {
        let mix = |state: u64, &seed: &u64| SplitMix64(state ^ seed).next();
        Self(SplitMix64(seeds.iter().fold(0x616b_696e, mix)))
    }

    /// From `low` up to `high`.
    pub(super) fn real(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits are what an f32 holds exactly.
        low + (high - low) * ((self.0.next() >> 40) as f32 / (1u32 << 24) as f32)
    }

    /// From `low` to `high`, both included.
    pub(super) fn whole(&mut self, low: usize, high: usize) -> usize {
        low + self.0.below(high - low + 1)
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.real(0.0, 1.0) < probability
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())]
    }

    /// -1 or 1.
    pub(super) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { -1.0 } else { 1.0 }
    }

    /// Brings a list into a random order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.0.below(i + 1));
        }
    }

    /// A seed for what is computed by position, such as noise.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next()
    }
}
