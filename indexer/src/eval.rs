//! Frozen-feature protocols: k-NN classification, class retrieval, copy retrieval.

mod knn;
mod pairs;
mod recall;
mod truth;

use engine::Embedding;
use rayon::prelude::*;

pub use self::knn::{Knn, KnnScore, KnnSweep};
pub use self::pairs::PairReport;
pub use self::recall::{RecallReport, recall};
pub use self::truth::CopyTruth;
use crate::error::{IndexerError, Result};

/// An embedding with its class.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Class name.
    pub label: String,
    /// The embedding.
    pub embedding: Embedding,
}

/// A share of queries answered right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Right answers.
    pub correct: usize,
    /// Queries.
    pub queries: usize,
}

impl Accuracy {
    /// In percent; 0 without queries.
    pub fn percent(self) -> f64 {
        100.0 * self.correct as f64 / self.queries.max(1) as f64
    }
}

/// Mean average precision, in percent, of retrieving the rest of each image's class from all other
/// images; and the number of queries. Images alone in their class are distractors only.
///
/// # Errors
/// No class has two images.
pub fn class_map(images: &[Labelled]) -> Result<(f64, usize)> {
    let precisions: Vec<f64> = (0..images.len())
        .into_par_iter()
        .filter_map(|own| {
            let mut relevant = 0;
            let mut sum = 0.0;
            let ranking = ranking(images, &images[own].embedding, Some(own));
            for (rank, (i, _)) in ranking.into_iter().enumerate() {
                if images[i].label == images[own].label {
                    relevant += 1;
                    sum += f64::from(relevant) / (rank + 1) as f64;
                }
            }
            (relevant > 0).then(|| sum / f64::from(relevant))
        })
        .collect();
    if precisions.is_empty() {
        return Err(no_queries());
    }
    Ok((100.0 * precisions.iter().sum::<f64>() / precisions.len() as f64, precisions.len()))
}

/// How often the nearest of `gallery` is the original of an edited copy. `copies` pairs each copy
/// with its original's position in the gallery.
///
/// # Errors
/// There are no copies.
pub fn copy_recall_at_1(gallery: &[Embedding], copies: &[(Embedding, usize)]) -> Result<Accuracy> {
    if copies.is_empty() {
        return Err(IndexerError::InvalidRequest("the truth file names no copies".to_owned()));
    }
    let correct = copies
        .par_iter()
        .filter(|(copy, original)| {
            let similarity = |i: usize| copy.similarity(&gallery[i]);
            (0..gallery.len())
                .reduce(|best, i| if similarity(i) > similarity(best) { i } else { best })
                == Some(*original)
        })
        .count();
    Ok(Accuracy { correct, queries: copies.len() })
}

fn no_queries() -> IndexerError {
    let message = "there are no queries: a class needs at least 2 images, and its folder's name is \
                   its label";
    IndexerError::InvalidRequest(message.to_owned())
}

/// Gallery positions but `own`, most similar first, ties by position.
fn ranking(gallery: &[Labelled], query: &Embedding, own: Option<usize>) -> Vec<(usize, f32)> {
    let mut ranking: Vec<(usize, f32)> = gallery
        .iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != own)
        .map(|(i, image)| (i, query.similarity(&image.embedding)))
        .collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranking
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(label: &str, angle: f32) -> Labelled {
        let vector = vec![angle.to_radians().cos(), angle.to_radians().sin()];
        let embedding = Embedding::normalised(vector).expect("unit");
        Labelled { label: label.to_owned(), embedding }
    }

    #[test]
    fn average_precision_by_hand() {
        // From 0: x(10) hit at 1, y(20) miss, x(30) hit at 3: (1 + 2/3) / 2.
        // From 10: x(0) and y(20) tie, x(0) first by position; then x(30): (1 + 2/3) / 2.
        // From 30: y(20) miss, x(10) hit at 2, x(0) hit at 3: (1/2 + 2/3) / 2. y is alone.
        let images = [image("x", 0.0), image("x", 10.0), image("y", 20.0), image("x", 30.0)];
        let (map, queries) = class_map(&images).expect("queries");
        let expected = 100.0 * (5.0 / 6.0 + 5.0 / 6.0 + 7.0 / 12.0) / 3.0;
        assert_eq!(queries, 3);
        assert!((map - expected).abs() < 1e-3, "{map} {expected}");
    }

    #[test]
    fn copies_are_found_or_not() {
        let gallery: Vec<_> = [0.0, 40.0, 80.0].map(|a| image("", a).embedding).to_vec();
        let copies = [(image("", 5.0).embedding, 0), (image("", 70.0).embedding, 1)];
        let accuracy = copy_recall_at_1(&gallery, &copies).expect("copies");
        assert_eq!(accuracy, Accuracy { correct: 1, queries: 2 });
    }

    #[test]
    fn nonsense_is_refused() {
        let one = [image("a", 0.0)];
        assert!(class_map(&one).is_err());
    }
}
