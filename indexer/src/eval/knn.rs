//! Weighted k-NN classification.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Accuracy, Labelled, no_queries, ranking};
use crate::error::{IndexerError, Result};

/// Weighted k-NN as DINO evaluates it: each of the `k` nearest votes for its class with weight
/// exp(similarity / temperature).
#[derive(Clone, Copy, Debug)]
pub struct Knn {
    /// Neighbours that vote.
    pub k: usize,
    /// Softness of the votes; 0.07 as published.
    pub temperature: f64,
}

impl Knn {
    /// Classifies each image by all others. Images without another of their class are not
    /// queries (they cannot be classified right) but do vote.
    ///
    /// # Errors
    /// `k` is 0, the temperature is not positive, or no class has two images.
    pub fn leave_one_out(self, images: &[Labelled]) -> Result<Accuracy> {
        self.sweep().leave_one_out(images).map(|scores| scores[0].top1)
    }

    /// Classifies queries by a gallery.
    ///
    /// # Errors
    /// `k` is 0, the temperature is not positive, or either set is empty.
    pub fn against(self, gallery: &[Labelled], queries: &[Labelled]) -> Result<Accuracy> {
        self.sweep().against(gallery, queries).map(|scores| scores[0].top1)
    }

    fn sweep(self) -> KnnSweep {
        KnnSweep { ks: vec![self.k], temperature: self.temperature }
    }
}

/// [`Knn`] at several numbers of neighbours, which share one ranking; 10, 20, 100 and 200 as
/// published.
#[derive(Clone, Debug)]
pub struct KnnSweep {
    /// Neighbours that vote.
    pub ks: Vec<usize>,
    /// Softness of the votes; 0.07 as published.
    pub temperature: f64,
}

/// How well k-NN did at one number of neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnnScore {
    /// Neighbours that voted.
    pub k: usize,
    /// Queries whose class has most votes.
    pub top1: Accuracy,
    /// Queries whose class is among the five with most votes. A class without a vote is not among
    /// them.
    pub top5: Accuracy,
}

impl KnnSweep {
    /// As [`Knn::leave_one_out`], a score for each of `ks`, in order.
    ///
    /// # Errors
    /// As there, or `ks` is empty.
    pub fn leave_one_out(&self, images: &[Labelled]) -> Result<Vec<KnnScore>> {
        self.check(images)?;
        let mut class_sizes = BTreeMap::new();
        for image in images {
            *class_sizes.entry(image.label.as_str()).or_insert(0usize) += 1;
        }
        let queries: Vec<usize> =
            (0..images.len()).filter(|&i| class_sizes[images[i].label.as_str()] > 1).collect();
        self.scores(images, &queries, |&i| (&images[i], Some(i)))
    }

    /// As [`Knn::against`], a score for each of `ks`, in order.
    ///
    /// # Errors
    /// As there, or `ks` is empty.
    pub fn against(&self, gallery: &[Labelled], queries: &[Labelled]) -> Result<Vec<KnnScore>> {
        self.check(gallery)?;
        self.scores(gallery, queries, |query| (query, None))
    }

    fn check(&self, gallery: &[Labelled]) -> Result<()> {
        let invalid = |message: &str| Err(IndexerError::InvalidRequest(message.to_owned()));
        if self.ks.is_empty() || self.ks.contains(&0) {
            return invalid("k is 0: at least 1 neighbour must vote");
        }
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return invalid("the temperature must be above 0");
        }
        if gallery.is_empty() { invalid("there are no images to evaluate") } else { Ok(()) }
    }

    fn scores<'a, Q: Sync>(
        &self,
        gallery: &[Labelled],
        queries: &'a [Q],
        query: impl Fn(&'a Q) -> (&'a Labelled, Option<usize>) + Sync,
    ) -> Result<Vec<KnnScore>> {
        if queries.is_empty() {
            return Err(no_queries());
        }
        // For each query and k, the place of its class; none when it got no vote.
        let places: Vec<Vec<Option<usize>>> = queries
            .par_iter()
            .map(&query)
            .map(|(image, own)| {
                let ranking = ranking(gallery, &image.embedding, own);
                let place = |k: &usize| {
                    let classes = self.classes(gallery, &ranking[..ranking.len().min(*k)]);
                    classes.iter().position(|label| *label == image.label)
                };
                self.ks.iter().map(place).collect()
            })
            .collect();
        let within = |position: usize, first: usize| {
            let hit = |places: &&Vec<Option<usize>>| places[position].is_some_and(|p| p < first);
            Accuracy { correct: places.iter().filter(hit).count(), queries: queries.len() }
        };
        let score = |(i, &k)| KnnScore { k, top1: within(i, 1), top5: within(i, 5) };
        Ok(self.ks.iter().enumerate().map(score).collect())
    }

    /// Classes that got votes, most first; the first by name on ties.
    fn classes<'a>(&self, gallery: &'a [Labelled], nearest: &[(usize, f32)]) -> Vec<&'a str> {
        let mut votes: BTreeMap<&str, f64> = BTreeMap::new();
        for &(i, similarity) in nearest {
            let weight = (f64::from(similarity) / self.temperature).exp();
            *votes.entry(&gallery[i].label).or_default() += weight;
        }
        let mut votes: Vec<(&str, f64)> = votes.into_iter().collect();
        votes.sort_by(|a, b| b.1.total_cmp(&a.1));
        votes.into_iter().map(|(label, _)| label).collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::Embedding;

    use super::*;

    fn image(label: &str, angle: f32) -> Labelled {
        let vector = vec![angle.to_radians().cos(), angle.to_radians().sin()];
        let embedding = Embedding::normalised(vector).expect("unit");
        Labelled { label: label.to_owned(), embedding }
    }

    #[test]
    fn leave_one_out_counts_by_hand() {
        // b at 12 degrees sits among a's and is outvoted; c is alone and no query.
        let images = [
            image("a", 0.0),
            image("a", 10.0),
            image("a", 15.0),
            image("b", 12.0),
            image("b", 90.0),
            image("b", 95.0),
            image("c", 180.0),
        ];
        let knn = Knn { k: 3, temperature: 0.07 };
        let accuracy = knn.leave_one_out(&images).expect("queries");
        assert_eq!(accuracy, Accuracy { correct: 5, queries: 6 });
    }

    #[test]
    fn nearer_neighbours_outvote_more_distant_ones() {
        let gallery = [image("near", 1.0), image("far", 80.0), image("far", 81.0)];
        let queries = [image("near", 0.0)];
        let sharp = Knn { k: 3, temperature: 0.07 }.against(&gallery, &queries).expect("queries");
        let flat = Knn { k: 3, temperature: 100.0 }.against(&gallery, &queries).expect("queries");
        assert_eq!((sharp.correct, flat.correct), (1, 0));
    }

    #[test]
    fn several_k_share_a_ranking_and_top_5_needs_a_vote() {
        let gallery: Vec<_> = (0..7u8)
            .map(|i| image(&char::from(b'a' + i).to_string(), 10.0 * f32::from(i)))
            .collect();
        let queries = [image("a", 0.0), image("e", 0.0), image("g", 0.0)];
        let sweep = KnnSweep { ks: vec![1, 4, 100], temperature: 0.07 };
        let scores = sweep.against(&gallery, &queries).expect("queries");
        let counts: Vec<_> = scores.iter().map(|s| (s.k, s.top1.correct, s.top5.correct)).collect();
        assert_eq!(counts, [(1, 1, 1), (4, 1, 1), (100, 1, 2)]);
    }

    #[test]
    fn nonsense_is_refused() {
        let one = [image("a", 0.0)];
        assert!(Knn { k: 0, temperature: 0.07 }.leave_one_out(&one).is_err());
        assert!(Knn { k: 1, temperature: 0.0 }.leave_one_out(&one).is_err());
        assert!(Knn { k: 1, temperature: 0.07 }.leave_one_out(&one).is_err());
        assert!(KnnSweep { ks: vec![], temperature: 0.07 }.leave_one_out(&one).is_err());
    }
}
