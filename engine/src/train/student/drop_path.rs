//! Stochastic depth: which sequences each branch of each block computes.

use rand::Rng;
use rand::seq::index;

use crate::error::{EngineError, Result};
use crate::train::ops::{RowSubset, SequenceLengths};

/// The sequences that are computed, for one pass: drawn before it, so that a pass can be run again
/// and equal passes can be compared.
///
/// A branch (attention, feed-forward) of a block computes a subset of the crops of each size and
/// its outcome is scaled by crops / subset, as in the published code (`drop_add_residual_
/// stochastic_depth_list`): what is dropped costs nothing, and expectations stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropPlan {
    /// By block, branch and crop size: indices of sequences, ascending.
    kept: Vec<[Vec<Vec<usize>>; 2]>,
}

/// The two branches of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    Attention,
    FeedForward,
}

/// Sequences of one crop size within a packed pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct CropGroup {
    pub batch: usize,
    /// Tokens of each sequence.
    pub count: usize,
    pub grid: (usize, usize),
}

impl DropPlan {
    /// Draws a plan for `groups` of that many crops: of each, floor(crops (1 - `rate`)), at least
    /// one, are kept.
    pub fn draw(rng: &mut impl Rng, depth: usize, groups: &[usize], rate: f64) -> Self {
        let mut branch = || -> Vec<Vec<usize>> {
            groups
                .iter()
                .map(|&crops| {
                    // Room for rounding: 10 (1 - 0.3) is to be 7.
                    let kept = (crops as f64 * (1.0 - rate) + 1e-9).floor() as usize;
                    let mut kept = index::sample(rng, crops, kept.max(1).min(crops)).into_vec();
                    kept.sort_unstable();
                    kept
                })
                .collect()
        };
        Self { kept: (0..depth).map(|_| [branch(), branch()]).collect() }
    }

    /// A plan of one's own: by block, for attention and feed-forward, the sequences kept of each
    /// crop size, ascending.
    pub fn from_kept(kept: Vec<[Vec<Vec<usize>>; 2]>) -> Self {
        Self { kept }
    }

    /// The part for one crop size, for a pass over that size alone.
    #[must_use]
    pub fn of_group(&self, group: usize) -> Self {
        let part = |branch: &Vec<Vec<usize>>| branch.get(group).cloned().into_iter().collect();
        Self { kept: self.kept.iter().map(|[a, b]| [part(a), part(b)]).collect() }
    }

    /// Sequences kept of each group.
    fn kept(&self, block: usize, branch: Branch, groups: &[CropGroup]) -> Result<&[Vec<usize>]> {
        let kept = self.kept.get(block).map(|branches| &branches[branch as usize]);
        let fits = |kept: &&Vec<Vec<usize>>| {
            kept.len() == groups.len()
                && kept.iter().zip(groups).all(|(kept, group)| {
                    kept.is_sorted_by(|a, b| a < b) && kept.last().is_none_or(|&i| i < group.batch)
                })
        };
        match kept.filter(fits) {
            Some(kept) => Ok(kept),
            None => Err(EngineError::Training {
                reason: format!(
                    "the drop-path plan does not fit block {block} of a pass over {} crop sizes",
                    groups.len()
                ),
            }),
        }
    }

    /// Packed rows that a branch computes, with factors, and the sequences they form.
    pub(super) fn subset(
        &self,
        block: usize,
        branch: Branch,
        groups: &[CropGroup],
    ) -> Result<(RowSubset, SequenceLengths)> {
        let (mut rows, mut factors, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (kept, group) in self.kept(block, branch, groups)?.iter().zip(groups) {
            let factor = group.batch as f32 / kept.len().max(1) as f32;
            for &sequence in kept {
                let first = start + sequence * group.count;
                rows.extend((first..first + group.count).map(|row| row as u32));
                factors.extend(std::iter::repeat_n(factor, group.count));
                lengths.push(group.count);
            }
            start += group.batch * group.count;
        }
        Ok((RowSubset::new(rows, factors), SequenceLengths::new(lengths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::augment::generator;

    #[test]
    fn every_sequence_is_kept_equally_often() {
        let mut counts = [0usize; 10];
        for n in 0..400 {
            let plan = DropPlan::draw(&mut generator(1, "plan", [n, 0]), 2, &[10, 3, 1], 0.4);
            for branch in plan.kept.iter().flatten() {
                assert_eq!(branch.iter().map(Vec::len).collect::<Vec<_>>(), [6, 1, 1]);
                branch[0].iter().for_each(|&i| counts[i] += 1);
            }
        }
        // 1600 draws with probability 0.6: standard deviation 20.
        assert!(counts.iter().all(|c| c.abs_diff(960) < 100), "{counts:?}");
        let all = DropPlan::draw(&mut generator(1, "plan", [0, 0]), 1, &[10], 0.3);
        assert_eq!(all.kept[0][0][0].len(), 7);
    }

    #[test]
    fn a_plan_for_another_pass_is_refused() {
        let plan = DropPlan::draw(&mut generator(1, "plan", [0, 0]), 1, &[4], 0.5);
        let group = CropGroup { batch: 4, count: 5, grid: (2, 2) };
        assert!(plan.subset(0, Branch::Attention, &[group]).is_ok());
        assert!(plan.subset(1, Branch::Attention, &[group]).is_err());
        assert!(plan.subset(0, Branch::FeedForward, &[group, group]).is_err());
        let small = CropGroup { batch: 1, ..group };
        let plan = DropPlan::from_kept(vec![[vec![vec![1]], vec![vec![0]]]]);
        assert!(plan.subset(0, Branch::Attention, &[small]).is_err());
    }
}
