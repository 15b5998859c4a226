//! What is done to a ranked list: near-duplicates folded, variety preferred.

use std::collections::HashMap;

use engine::kernels::dot;

use crate::error::Result;
use crate::id::ImageId;
use crate::{Near, View};

/// Vectors read once.
pub(super) struct Vectors<'a> {
    view: &'a View,
    read: HashMap<u32, Vec<f32>>,
}

impl<'a> Vectors<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        Self { view, read: HashMap::new() }
    }

    fn read(&mut self, near: &[Near]) -> Result<()> {
        for Near { row, id, .. } in near {
            if !self.read.contains_key(row) {
                self.read.insert(*row, self.view.vector(*row, *id)?);
            }
        }
        Ok(())
    }

    fn of(&self, near: &Near) -> &[f32] {
        self.read.get(&near.row).map(Vec::as_slice).unwrap_or_default()
    }
}

/// An image that is shown, and those it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) near: Near,
    /// Near-duplicates further down, best first.
    pub(super) duplicates: Vec<ImageId>,
}

impl From<Near> for Kept {
    fn from(near: Near) -> Self {
        Self { near, duplicates: Vec::new() }
    }
}

/// Folds every image into the best shown one that it is as similar to as `threshold` or more; others
/// are shown, until `is_enough`. Also what comes later is folded into what is shown.
pub(super) fn fold(
    ranked: &[Near],
    threshold: f32,
    vectors: &mut Vectors<'_>,
    mut is_enough: impl FnMut(&[Kept]) -> bool,
) -> Result<Vec<Kept>> {
    vectors.read(ranked)?;
    Ok(fold_by(ranked, |a, b| dot(vectors.of(a), vectors.of(b)) >= threshold, &mut is_enough))
}

fn fold_by(
    ranked: &[Near],
    same: impl Fn(&Near, &Near) -> bool,
    is_enough: &mut impl FnMut(&[Kept]) -> bool,
) -> Vec<Kept> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut enough = false;
    for near in ranked {
        match kept.iter_mut().find(|shown| same(&shown.near, near)) {
            Some(shown) => shown.duplicates.push(near.id),
            None if !enough => {
                kept.push(Kept::from(*near));
                enough = is_enough(&kept);
            }
            None => {}
        }
    }
    kept
}

/// Chooses `k` of a pool in order, after those `given` before: each time the image for which
/// (1 - diversity) · its similarity − diversity · its greatest similarity with one chosen is greatest;
/// of equal ones the first of the pool.
pub(super) fn diverse(
    pool: Vec<Kept>,
    given: &[Near],
    k: usize,
    diversity: f32,
    vectors: &mut Vectors<'_>,
) -> Result<Vec<Kept>> {
    let images: Vec<Near> = pool.iter().map(|kept| kept.near).collect();
    vectors.read(&images)?;
    vectors.read(given)?;
    Ok(diverse_by(pool, given, k, diversity, |a, b| dot(vectors.of(a), vectors.of(b))))
}

fn diverse_by(
    mut pool: Vec<Kept>,
    given: &[Near],
    k: usize,
    diversity: f32,
    similarity: impl Fn(&Near, &Near) -> f32,
) -> Vec<Kept> {
    let to_given = |image: &Kept| {
        let each = given.iter().map(|given| similarity(&image.near, given));
        each.reduce(f32::max)
    };
    // The greatest similarity with one chosen; none before the first.
    let mut closest: Vec<Option<f32>> = pool.iter().map(to_given).collect();
    let mut chosen: Vec<Kept> = Vec::new();
    while chosen.len() < k {
        let score = |i: usize| {
            let redundancy = closest[i].unwrap_or(0.0);
            (1.0 - diversity) * pool[i].near.similarity - diversity * redundancy
        };
        let better = |best: usize, i: usize| if score(i) > score(best) { i } else { best };
        let Some(best) = (0..pool.len()).reduce(better) else { break };
        let image = pool.remove(best);
        closest.remove(best);
        for (closest, other) in closest.iter_mut().zip(&pool) {
            let with = similarity(&image.near, &other.near);
            *closest = Some(closest.map_or(with, |closest| closest.max(with)));
        }
        chosen.push(image);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors at these angles, ranked by similarity with angle 0.
    fn ranked(angles: &[f32]) -> Vec<Near> {
        let image = |(i, angle): (usize, &f32)| {
            let similarity = angle.to_radians().cos();
            Near { row: i as u32, id: ImageId(i as u64), similarity }
        };
        angles.iter().enumerate().map(image).collect()
    }

    fn between(angles: &'static [f32]) -> impl Fn(&Near, &Near) -> f32 {
        |a, b| (angles[a.row as usize] - angles[b.row as usize]).to_radians().cos()
    }

    fn ids(kept: &[Kept]) -> Vec<u64> {
        kept.iter().map(|kept| kept.near.id.0).collect()
    }

    #[test]
    fn near_duplicates_are_folded_into_the_best() {
        const ANGLES: &[f32] = &[0.0, 1.0, 10.0, 11.0, -12.0, 9.0, 12.9];
        let similarity = between(ANGLES);
        let same = |a: &Near, b: &Near| similarity(a, b) >= 2.5f32.to_radians().cos();
        let kept = fold_by(&ranked(ANGLES), same, &mut |_| false);
        assert_eq!(ids(&kept), [0, 2, 4, 6]);
        assert_eq!(kept[0].duplicates, [ImageId(1)]);
        assert_eq!(kept[1].duplicates, [ImageId(3), ImageId(5)]);
        // 12.9 is near 11, which is hidden, and not near what stands for it.
        assert!(kept[3].duplicates.is_empty());
        let two = fold_by(&ranked(ANGLES), same, &mut |kept| kept.len() == 2);
        assert_eq!(two, kept[..2]);
    }

    #[test]
    fn variety_by_hand() {
        const ANGLES: &[f32] = &[10.0, 12.0, -20.0, 30.0];
        let choose = |diversity, given: &[Near], pool: &[Near], k| {
            let pool = pool.iter().map(|near| Kept::from(*near)).collect();
            ids(&diverse_by(pool, given, k, diversity, between(ANGLES)))
        };
        let pool = ranked(ANGLES);
        assert_eq!(choose(0.0, &[], &pool, 9), [0, 1, 2, 3]);
        // Twice the scores after 10: 12 .978-.999, -20 .940-.866, 30 .866-.940. Then -20 changes nothing.
        assert_eq!(choose(0.5, &[], &pool, 9), [0, 2, 1, 3]);
        // Only variety: after 10 the farthest is -20, then 30 (20 from 10), then 12.
        assert_eq!(choose(1.0, &[], &pool, 9), [0, 2, 3, 1]);
        // Going on after a page gives what one page would have given.
        for diversity in [0.0, 0.3, 0.5, 1.0] {
            let whole = choose(diversity, &[], &pool, 4);
            for cut in 0..4 {
                let (given, rest): (Vec<Near>, Vec<Near>) =
                    pool.iter().partition(|near| whole[..cut].contains(&near.id.0));
                assert_eq!(choose(diversity, &given, &rest, 4), whole[cut..]);
            }
        }
    }
}
