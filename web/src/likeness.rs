//! A similarity in words.
//!
//! What a cosine means depends on the model and on the collection: two photographs of one series of a
//! thousand beaches are no more alike than any others there. So the words in the middle follow the
//! percentile, the share of random pairs of the collection that are less similar; only copies are told
//! by the cosine itself, from the threshold that was measured for the model (`indexer::dedup`), or from
//! the default for models that nobody has measured.

use engine::ModelIdentity;
use indexer::dedup::thresholds;
use indexer::search::NEAR_DUPLICATE;

/// From this cosine on, two embeddings are the same up to their rounding to 16 bits.
const SAME: f32 = 0.9995;
/// Percentiles from which on the words in the middle are used, and cosines in their place where the
/// collection is too small for percentiles. Of the random pairs of a folder with ten subjects, a tenth show the same one.
const STEPS: [(f32, f32, &str); 3] =
    [(99.0, 0.75, "very similar"), (90.0, 0.55, "similar"), (70.0, 0.35, "loosely related")];

/// All words, most similar first.
pub const WORDS: [&str; 6] =
    ["same picture", "near copy", "very similar", "similar", "loosely related", "unrelated"];

/// The similarity of a result in words.
pub fn words(model: &ModelIdentity, similarity: f32, percentile: Option<f32>) -> &'static str {
    let copy = thresholds(model).map_or(NEAR_DUPLICATE, |thresholds| thresholds.alone);
    if similarity >= SAME {
        return WORDS[0];
    }
    if similarity >= copy {
        return WORDS[1];
    }
    let reached = |(share, cosine, _): &&(f32, f32, &str)| match percentile {
        Some(percentile) => percentile >= *share,
        None => similarity >= *cosine,
    };
    STEPS.iter().find(reached).map_or(WORDS[5], |(_, _, words)| words)
}

#[cfg(test)]
mod tests {
    use engine::Embedder;
    use engine::testing::ThumbnailEmbedder;

    use super::*;

    #[test]
    fn copies_by_the_cosine_and_the_rest_by_the_percentile() {
        let embedder = ThumbnailEmbedder::default();
        let say = |similarity, percentile| words(embedder.identity(), similarity, percentile);
        assert_eq!(say(1.0, Some(3.0)), "same picture");
        assert_eq!(say(0.96, Some(3.0)), "near copy");
        assert_eq!(say(0.6, Some(99.0)), "very similar");
        assert_eq!(say(0.6, Some(98.9)), "similar");
        assert_eq!(say(0.6, Some(89.9)), "loosely related");
        assert_eq!(say(0.9, Some(20.0)), "unrelated");
        assert_eq!(say(0.8, None), "very similar");
        assert_eq!(say(0.1, None), "unrelated");
        assert!(STEPS.iter().all(|step| WORDS.contains(&step.2)));
    }
}
