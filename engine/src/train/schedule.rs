//! Values that change over training.

use std::f64::consts::PI;

/// Linear warm-up, then half a cosine from `base` to `last`: learning rate, weight decay and
/// teacher momentum (the published `CosineScheduler`).
#[derive(Clone, Debug, PartialEq)]
pub struct CosineSchedule {
    /// Value after warm-up.
    pub base: f64,
    /// Value approached at the end.
    pub last: f64,
    /// Iterations in all.
    pub total: usize,
    /// Iterations of warm-up, from `warmup_start` to `base`, both included.
    pub warmup: usize,
    /// Value at the first iteration of warm-up.
    pub warmup_start: f64,
    /// Iterations at the very beginning, before warm-up, during which the value is 0 (the last
    /// layer's learning rate in the first epoch).
    pub frozen: usize,
}

impl CosineSchedule {
    /// Without warm-up or frozen iterations.
    pub fn new(base: f64, last: f64, total: usize) -> Self {
        Self { base, last, total, warmup: 0, warmup_start: 0.0, frozen: 0 }
    }

    /// Value at iteration `i`, counted from 0; `last` from `total` on.
    pub fn at(&self, i: usize) -> f64 {
        if i >= self.total {
            return self.last;
        }
        let Some(i) = i.checked_sub(self.frozen) else { return 0.0 };
        if i < self.warmup {
            // numpy.linspace(warmup_start, base, warmup)
            let steps = (self.warmup - 1).max(1) as f64;
            return self.warmup_start + (self.base - self.warmup_start) * i as f64 / steps;
        }
        let length = self.total.saturating_sub(self.frozen + self.warmup) as f64;
        let progress = (i - self.warmup) as f64 / length;
        self.last + 0.5 * (self.base - self.last) * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_freezes_warms_up_and_falls_along_a_cosine() {
        let schedule = CosineSchedule {
            base: 2.0,
            last: 1.0,
            total: 14,
            warmup: 3,
            warmup_start: 0.0,
            frozen: 1,
        };
        let values: Vec<f64> = (0..15).map(|i| schedule.at(i)).collect();
        assert_eq!(values[..5], [0.0, 0.0, 1.0, 2.0, 2.0]);
        assert!((values[9] - 1.5).abs() < 1e-12, "half way: {}", values[9]);
        assert!(values[4..14].windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!(values[14], 1.0);
    }

    #[test]
    fn it_can_rise() {
        // Teacher momentum: 0.994 to 1.
        let schedule = CosineSchedule::new(0.994, 1.0, 100);
        assert_eq!(schedule.at(0), 0.994);
        assert!((schedule.at(50) - 0.997).abs() < 1e-12);
        assert_eq!(schedule.at(100), 1.0);
    }
}
