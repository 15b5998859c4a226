//! How well one similarity tells near-copies from all other pairs.

use super::Accuracy;
use crate::error::{IndexerError, Result};

/// What calling every pair at or above a similarity a near-copy gets right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairReport {
    /// The similarity.
    pub threshold: f32,
    /// Pairs that are near-copies.
    pub copies: usize,
    /// Pairs called near-copies.
    pub called: usize,
    /// Pairs that are, and are called, near-copies.
    pub found: usize,
}

impl PairReport {
    /// Counts (similarity, is a near-copy) pairs.
    pub fn at(threshold: f32, pairs: &[(f32, bool)]) -> Self {
        let called = pairs.iter().filter(|pair| pair.0 >= threshold);
        Self {
            threshold,
            copies: pairs.iter().filter(|pair| pair.1).count(),
            called: called.clone().count(),
            found: called.filter(|pair| pair.1).count(),
        }
    }

    /// The threshold of the highest F1 score: the midpoint between the least similar pair it calls
    /// and the next one. Of several, the highest.
    ///
    /// # Errors
    /// There are no near-copies to choose by, or a similarity is not a number.
    pub fn best(mut pairs: Vec<(f32, bool)>) -> Result<Self> {
        let invalid = |message: &str| Err(IndexerError::InvalidRequest(message.to_owned()));
        if pairs.iter().any(|pair| pair.0.is_nan()) {
            return invalid("a similarity is not a number");
        }
        let copies = pairs.iter().filter(|pair| pair.1).count();
        if copies == 0 {
            return invalid("there is no near-copy to choose a threshold by");
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut best, mut best_f1, mut found) = (None, 0.0, 0);
        for (i, pair) in pairs.iter().enumerate() {
            found += usize::from(pair.1);
            let next = pairs.get(i + 1).map(|next| next.0);
            let f1 = 2.0 * found as f64 / (i + 1 + copies) as f64;
            // A threshold cannot fall between equal similarities.
            if next != Some(pair.0) && f1 > best_f1 {
                best_f1 = f1;
                let threshold = next.map_or(pair.0, |next| next + (pair.0 - next) / 2.0);
                best = Some(Self { threshold, copies, called: i + 1, found });
            }
        }
        best.map_or_else(|| invalid("there is no near-copy to choose a threshold by"), Ok)
    }

    /// How many of the pairs called are near-copies.
    pub fn precision(&self) -> Accuracy {
        Accuracy { correct: self.found, queries: self.called }
    }

    /// How many of the near-copies are called.
    pub fn recall(&self) -> Accuracy {
        Accuracy { correct: self.found, queries: self.copies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_threshold_by_hand() -> Result<()> {
        // F1 after each: 2/4, 4/5, 4/6, 6/7, 6/8.
        let pairs = [(0.95, true), (0.9, true), (0.85, false), (0.8, true), (0.4, false)];
        let best = PairReport::best(pairs.to_vec())?;
        assert!((best.threshold - 0.6).abs() < 1e-6);
        assert_eq!((best.copies, best.called, best.found), (3, 4, 3));
        assert_eq!(best, PairReport { threshold: best.threshold, ..PairReport::at(0.6, &pairs) });
        assert_eq!((best.precision().percent(), best.recall().percent()), (75.0, 100.0));
        Ok(())
    }

    #[test]
    fn equal_similarities_are_called_together() -> Result<()> {
        let best = PairReport::best(vec![(0.5, false), (0.5, true), (0.5, false)])?;
        assert_eq!((best.threshold, best.called, best.found), (0.5, 3, 1));
        Ok(())
    }

    #[test]
    fn nothing_to_choose_by_is_an_error() {
        assert!(PairReport::best(vec![(0.5, false)]).is_err());
        assert!(PairReport::best(vec![(f32::NAN, true)]).is_err());
    }
}
