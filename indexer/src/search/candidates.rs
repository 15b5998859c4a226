//! The images that answer a query, best first: as many as asked for.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roaring::RoaringBitmap;

use super::query::Query;
use crate::error::Result;
use crate::id::ImageId;
use crate::{Near, View};

/// Where results come from, and which are wanted.
pub(super) struct Candidates<'a> {
    pub(super) view: &'a View,
    pub(super) query: &'a Query,
    /// Rows to choose from; alive ones if none are given.
    pub(super) among: Option<&'a RoaringBitmap>,
    pub(super) min_similarity: Option<f32>,
    pub(super) left_out: BTreeSet<ImageId>,
    /// Compare every image.
    pub(super) exact: bool,
    /// Time spent on comparing the chosen exactly.
    pub(super) rescoring: Cell<Duration>,
}

/// The best images, and whether there are no others.
pub(super) struct Found {
    /// Best first, ties by id.
    pub(super) near: Vec<Near>,
    pub(super) all: bool,
}

impl Candidates<'_> {
    /// The first `n` wanted images of the whole order, fewer if there are no more.
    pub(super) fn first(&self, n: usize) -> Result<Found> {
        let pool = self.among.map_or(self.view.len() as u64, RoaringBitmap::len) as usize;
        if pool == 0 || n == 0 {
            return Ok(Found { near: Vec::new(), all: pool == 0 });
        }
        // One more than wanted, to see where a group of ties ends.
        let mut asked = n.saturating_add(self.left_out.len()).saturating_add(1).min(pool);
        loop {
            let Found { mut near, mut all } = self.ranked(asked, pool)?;
            let enough = self.min_similarity.unwrap_or(f32::NEG_INFINITY);
            let passing = near.partition_point(|near| near.similarity >= enough);
            all |= passing < near.len();
            near.truncate(passing);
            near.retain(|near| !self.left_out.contains(&near.id));
            self.apply_vetoes(&mut near)?;
            if all || near.len() >= n {
                all &= near.len() <= n;
                near.truncate(n);
                return Ok(Found { near, all });
            }
            asked = asked.saturating_mul(2).min(pool);
        }
    }

    /// About `asked` images of which it is certain that no other comes before one of them.
    fn ranked(&self, asked: usize, pool: usize) -> Result<Found> {
        let mut spent = Duration::ZERO;
        let mut nearest = |target: &Vec<f32>| match self.exact {
            true => self.view.nearest_exact_timed(target, asked, self.among, &mut spent),
            false => self.view.nearest_timed(target, asked, self.among, &mut spent),
        };
        let lists: Vec<Vec<Near>> =
            self.query.targets.iter().map(&mut nearest).collect::<Result<_>>()?;
        self.rescoring.set(self.rescoring.get() + spent);
        let all = asked >= pool;
        // What no list holds is at most as similar as the last of some list. Of images as similar as
        // that, others may come first by id.
        let last = |list: &Vec<Near>| list.last().map_or(f32::NEG_INFINITY, |near| near.similarity);
        let certain_above = lists.iter().map(last).fold(f32::NEG_INFINITY, f32::max);
        let mut near = self.merged(lists)?;
        near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id)));
        if !all {
            near.truncate(near.partition_point(|near| near.similarity > certain_above));
        }
        Ok(Found { near, all })
    }

    /// One list of several, each image with its similarity to the nearest target.
    fn merged(&self, mut lists: Vec<Vec<Near>>) -> Result<Vec<Near>> {
        if lists.len() == 1 {
            return Ok(lists.remove(0));
        }
        let images: BTreeMap<u32, ImageId> =
            lists.iter().flatten().map(|near| (near.row, near.id)).collect();
        let near = |(row, id)| {
            let similarity = self.query.similarity(&self.view.vector(row, id)?);
            Ok(Near { row, id, similarity })
        };
        images.into_iter().map(near).collect()
    }

    fn apply_vetoes(&self, near: &mut Vec<Near>) -> Result<()> {
        if self.query.vetoes.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for image in near.drain(..) {
            let stored = self.view.vector(image.row, image.id)?;
            if !self.query.vetoed(image.similarity, &stored) {
                kept.push(image);
            }
        }
        *near = kept;
        Ok(())
    }
}
