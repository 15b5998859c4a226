//! What a model makes of a gallery, measured against what was planted in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::Embedding;
use rayon::prelude::*;

use super::{Gallery, Part, Planted};
use crate::error::Result;
use crate::eval::{Accuracy, Knn, Labelled, PairReport};

/// The published protocol's softness; its 20 neighbours would be more than a family here has.
const KNN: Knn = Knn { k: 10, temperature: 0.07 };

/// Pictures by absolute path, with their embeddings.
pub type Embedded = Vec<(PathBuf, Embedding)>;

/// Two pictures called copies of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    /// The first by path; of a leak, the picture of the pool.
    pub original: PathBuf,
    /// The other one.
    pub copy: PathBuf,
    /// Their cosine similarity.
    pub similarity: f32,
    /// What was done to the copy, if it was planted; else the pair is a false alarm.
    pub edit: Option<&'static str>,
}

/// How the model fares.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// All pairs within the pool, at the threshold that suits its planted copies best.
    pub near_copies: PairReport,
    /// The pairs it calls, most similar first.
    pub copy_pairs: Vec<Called>,
    /// Each test picture with the pool picture nearest to it, at the same threshold, which was
    /// chosen without them.
    pub leaks: PairReport,
    /// The test pictures it calls leaks, most similar first.
    pub leak_pairs: Vec<Called>,
    /// k-NN by family, each pool picture classified by all others; copies left out.
    pub knn: Accuracy,
    /// Neighbours that vote.
    pub k: usize,
}

impl Gallery {
    /// Judges a model by its embeddings of the pool and of the test set.
    ///
    /// # Errors
    /// The embeddings are of no planted pair, or of no two pictures of one family.
    pub fn judge(&self, pool: &Embedded, test: &Embedded) -> Result<Judgement> {
        let planted: BTreeMap<&Path, &Planted> =
            self.planted.iter().map(|planted| (planted.copy.as_path(), planted)).collect();
        let edit = |original: &Path, copy: &Path| {
            let planted = planted.get(copy)?;
            (planted.original == original).then_some(planted.edit)
        };

        let pairs: Vec<(usize, usize, f32)> = (0..pool.len())
            .into_par_iter()
            .flat_map_iter(|i| {
                (i + 1..pool.len()).map(move |j| (i, j, pool[i].1.similarity(&pool[j].1)))
            })
            .collect();
        // An original may come before or after its copy.
        let called = |(i, j, similarity): (usize, usize, f32)| {
            let (a, b) = (&pool[i].0, &pool[j].0);
            let (original, copy) = if edit(b, a).is_some() { (b, a) } else { (a, b) };
            let edit = edit(original, copy);
            Called { original: original.clone(), copy: copy.clone(), similarity, edit }
        };
        let truth = |&(i, j, similarity): &(usize, usize, f32)| {
            let (a, b) = (&pool[i].0, &pool[j].0);
            (similarity, edit(a, b).is_some() || edit(b, a).is_some())
        };
        let near_copies = PairReport::best(pairs.iter().map(truth).collect())?;
        let threshold = near_copies.threshold;
        let copy_pairs = pairs.into_iter().filter(|pair| pair.2 >= threshold).map(called);

        let nearest = |(copy, embedding): &(PathBuf, Embedding)| {
            let similarities = pool.iter().map(|(path, other)| (path, embedding.similarity(other)));
            let best = similarities.reduce(|best, next| if next.1 > best.1 { next } else { best });
            let (original, similarity) = best?;
            let edit = edit(original, copy);
            let called =
                Called { original: original.clone(), copy: copy.clone(), similarity, edit };
            (similarity >= threshold).then_some(called)
        };
        let leak_pairs = most_similar_first(test.iter().filter_map(nearest));
        let leaks = PairReport {
            threshold,
            copies: self.planted_in(Part::Test).count(),
            called: leak_pairs.len(),
            found: leak_pairs.iter().filter(|called| called.edit.is_some()).count(),
        };

        let originals: Vec<Labelled> = pool
            .iter()
            .filter(|(path, _)| !planted.contains_key(path.as_path()))
            .map(|(path, embedding)| Labelled {
                label: family(path).to_owned(),
                embedding: embedding.clone(),
            })
            .collect();
        Ok(Judgement {
            near_copies,
            copy_pairs: most_similar_first(copy_pairs),
            leaks,
            leak_pairs,
            knn: KNN.leave_one_out(&originals)?,
            k: KNN.k,
        })
    }
}

/// The family of a file: the name of its folder.
fn family(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

fn most_similar_first(called: impl Iterator<Item = Called>) -> Vec<Called> {
    let mut called: Vec<Called> = called.collect();
    called.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then_with(|| a.copy.cmp(&b.copy)));
    called
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(path: &str, degrees: f32) -> (PathBuf, Embedding) {
        let vector = vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        (PathBuf::from(path), Embedding::normalised(vector).expect("unit"))
    }

    #[test]
    fn planted_copies_and_leaks_are_told_from_false_alarms() {
        let plant = |original: &str, copy: &str, part| Planted {
            original: original.into(),
            copy: copy.into(),
            part,
            edit: "grey",
        };
        let gallery = Gallery {
            folder: PathBuf::from("/g"),
            families: 2,
            pool: 6,
            test: 3,
            planted: vec![
                plant("/g/pool/a/0.png", "/g/pool/a/0-grey.jpg", Part::Pool),
                plant("/g/pool/a/1.png", "/g/test/a/1-grey.jpg", Part::Test),
            ],
            drawn: 0,
            complete: true,
        };
        let pool = vec![
            picture("/g/pool/a/0-grey.jpg", 1.0),
            picture("/g/pool/a/0.png", 0.0),
            picture("/g/pool/a/1.png", 20.0),
            picture("/g/pool/b/0.png", 90.0),
            picture("/g/pool/b/1.png", 110.0),
        ];
        let test = vec![
            picture("/g/test/a/1-grey.jpg", 21.0),
            picture("/g/test/a/2.png", 50.0),
            picture("/g/test/b/2.png", 90.5),
        ];
        let judgement = gallery.judge(&pool, &test).expect("judge");
        let Judgement { near_copies, copy_pairs, leaks, leak_pairs, knn, .. } = judgement;
        assert_eq!((near_copies.copies, near_copies.called, near_copies.found), (1, 1, 1));
        assert_eq!(copy_pairs[0].original, Path::new("/g/pool/a/0.png"));
        assert_eq!(copy_pairs[0].edit, Some("grey"));
        // The held-out b picture is so near to a pool picture that it is a false alarm.
        assert_eq!((leaks.copies, leaks.called, leaks.found), (1, 2, 1));
        assert_eq!(leak_pairs[0].edit, None);
        assert_eq!(knn, Accuracy { correct: 4, queries: 4 });
    }
}
