//! Labelled pictures for training and testing heads: read, divided, checked for overlap.
//!
//! A picture's class is the name of the folder it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::decode::{DecodeOptions, Decoded};
use engine::probe::{Head, LabelledTokens, training_view};
use engine::{DinoEmbedder, Embedder, ProbeTokens};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{IndexerError, Result};
use crate::eval::Accuracy;
use crate::id::ContentHash;
use crate::pipeline::{self, Outcome, Skipped, ToPixels};
use crate::source::SourceFile;

/// A picture of known class, and what heads read of it.
#[derive(Clone, Debug)]
pub struct LabelledPicture {
    /// Where it is.
    pub path: PathBuf,
    /// Hash of the file.
    pub sha256: ContentHash,
    file: SourceFile,
    /// Class name.
    pub class: String,
    /// From the evaluation preprocessing.
    pub tokens: ProbeTokens,
}

/// The class of a file: the name of its folder.
pub fn class_of(path: &Path) -> String {
    path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
}

/// How files are read into tokens.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The backbone.
    pub model: &'a DinoEmbedder,
    /// Last blocks to keep CLS tokens of.
    pub blocks: usize,
    /// Ends reading early when set; what was read then is incomplete.
    pub cancel: &'a AtomicBool,
}

/// One file is done, or was skipped.
pub type OnFile<'a> = dyn FnMut(Option<&Skipped>) + 'a;

impl Reader<'_> {
    /// Reads pictures, in the order of `files`, and those that cannot be read with the reason.
    ///
    /// # Errors
    /// None of its own: a file that cannot be read is among the skipped ones.
    pub fn read(
        &self,
        files: &[SourceFile],
        on_file: &mut OnFile<'_>,
    ) -> Result<(Vec<LabelledPicture>, Vec<Skipped>)> {
        let input = |decoded: &Decoded, _: &ContentHash| self.model.prepare_decoded(decoded);
        let options = self.model.input_options();
        let way = (&options, &input as &ToPixels<'_>);
        let mut pictures = Vec::new();
        let skipped = self.run(files, way, on_file, &mut |file, sha256, tokens| {
            let class = class_of(&file.path);
            let (path, file) = (file.path.clone(), file.clone());
            pictures.push(LabelledPicture { path, sha256, file, class, tokens });
        })?;
        Ok((pictures, skipped))
    }

    /// Reads pictures again as random views number `view`, drawn from `seed` and each file's
    /// content. All of them, or an error.
    ///
    /// # Errors
    /// A picture that was read before cannot be read any more.
    pub fn read_view(
        &self,
        pictures: &[LabelledPicture],
        (seed, view): (u64, u64),
        on_file: &mut OnFile<'_>,
    ) -> Result<Vec<ProbeTokens>> {
        let size = self.model.identity().preprocess.crop;
        let draw = |decoded: &Decoded, sha256: &ContentHash| {
            Ok(training_view(&decoded.image, size, seed, number_of(sha256), view))
        };
        // Views are cut from anywhere, some from a small part: of all pixels.
        let options = self.model.decode_options();
        let way = (&options, &draw as &ToPixels<'_>);
        let files: Vec<SourceFile> = pictures.iter().map(|picture| picture.file.clone()).collect();
        let mut all = Vec::new();
        let skipped = self.run(&files, way, on_file, &mut |_, _, tokens| all.push(tokens))?;
        match skipped.into_iter().next() {
            Some(Skipped { path, reason, .. }) => Err(IndexerError::Source { path, reason }),
            None => Ok(all),
        }
    }

    fn run(
        &self,
        files: &[SourceFile],
        way: (&DecodeOptions, &ToPixels<'_>),
        on_file: &mut OnFile<'_>,
        keep: &mut dyn FnMut(&SourceFile, ContentHash, ProbeTokens),
    ) -> Result<Vec<Skipped>> {
        let mut skipped = Vec::new();
        pipeline::run_prepared(
            files,
            way,
            pipeline::batch_for(self.model, files.len()),
            self.cancel,
            &|_, _| false,
            &|batch| self.model.probe_tokens(batch, self.blocks),
            &mut |file, outcome| {
                match outcome {
                    Outcome::Done(picture, tokens) => {
                        keep(file, picture.sha256, tokens);
                        on_file(None);
                    }
                    Outcome::Unchanged => on_file(None),
                    Outcome::Skipped(one) => {
                        on_file(Some(&one));
                        if !one.not_a_picture {
                            skipped.push(one);
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(skipped)
    }
}

/// A number that stands for a file's content.
fn number_of(sha256: &ContentHash) -> u64 {
    u64::from_str_radix(sha256.as_str().get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

/// Class names in order, of pictures that a head can be trained on.
///
/// # Errors
/// There are no pictures, or they are all of one class.
pub fn classes(pictures: &[LabelledPicture]) -> Result<Vec<String>> {
    let classes: BTreeSet<&str> = pictures.iter().map(|picture| picture.class.as_str()).collect();
    let invalid = |message: String| Err(IndexerError::InvalidRequest(message));
    match classes.first() {
        None => invalid("there is no picture to train on in the sources given".to_owned()),
        Some(only) if classes.len() == 1 => invalid(format!(
            "all {} training pictures are of one class, `{only}`; a head needs at least 2: put the \
             pictures of each class into a folder of its own",
            pictures.len()
        )),
        Some(_) => Ok(classes.into_iter().map(str::to_owned).collect()),
    }
}

/// Divides pictures into training and validation: of every class, `share` of its pictures, rounded,
/// but at least one and not all, chosen by `seed` and their content. Copies of a picture count as
/// one. A class with a single picture is trained on only.
///
/// # Errors
/// `share` is not between 0 and 1, or no class has two pictures.
pub fn split(
    pictures: Vec<LabelledPicture>,
    share: f64,
    seed: u64,
) -> Result<(Vec<LabelledPicture>, Vec<LabelledPicture>)> {
    if !(share > 0.0 && share < 1.0) {
        return Err(IndexerError::InvalidRequest(format!(
            "the share of pictures held out is {share}; it must lie between 0 and 1"
        )));
    }
    // By content, so that copies of a picture stay on one side.
    let mut by_class: BTreeMap<&str, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
    for (i, picture) in pictures.iter().enumerate() {
        let key = format!("{:x}", Sha256::digest(format!("{seed} {}", picture.sha256)));
        by_class.entry(&picture.class).or_default().entry(key).or_default().push(i);
    }
    let mut held_out = vec![false; pictures.len()];
    for contents in by_class.into_values() {
        let count = (share * contents.len() as f64).round() as usize;
        let count = count.clamp(1, contents.len()).min(contents.len() - 1);
        contents.into_values().take(count).flatten().for_each(|i| held_out[i] = true);
    }
    if !held_out.contains(&true) {
        return Err(IndexerError::InvalidRequest(
            "every class has a single picture, so that none can be held out to choose a head by; \
             add pictures, or name others with `--val`"
                .to_owned(),
        ));
    }
    let (validation, train): (Vec<_>, Vec<_>) =
        pictures.into_iter().zip(held_out).partition(|(_, held_out)| *held_out);
    let strip = |part: Vec<(LabelledPicture, bool)>| part.into_iter().map(|(p, _)| p).collect();
    Ok((strip(train), strip(validation)))
}

/// Refuses pictures whose very file is among those a head was made with: they would test memory.
///
/// # Errors
/// There is one.
pub fn check_apart(
    what: &str,
    pictures: &[LabelledPicture],
    used: &[LabelledPicture],
) -> Result<()> {
    let known: BTreeMap<&ContentHash, &Path> =
        used.iter().map(|picture| (&picture.sha256, picture.path.as_path())).collect();
    let shared: Vec<_> = pictures
        .iter()
        .filter_map(|picture| Some((picture, known.get(&picture.sha256)?)))
        .collect();
    let Some((first, same)) = shared.first() else { return Ok(()) };
    Err(IndexerError::InvalidRequest(format!(
        "{} of {} {what} pictures are among those the head is made with, such as {} (the same file \
         as {}); the result would mean nothing: keep them apart",
        shared.len(),
        pictures.len(),
        first.path.display(),
        same.display()
    )))
}

/// Tokens with class numbers.
///
/// # Errors
/// There are no pictures, or one is of another class.
pub fn labelled(
    what: &str,
    pictures: &[LabelledPicture],
    classes: &[String],
) -> Result<LabelledTokens> {
    if pictures.is_empty() {
        let message = format!("there is no {what} picture in the sources given");
        return Err(IndexerError::InvalidRequest(message));
    }
    let label = |picture: &LabelledPicture| {
        let position = classes.binary_search(&picture.class).ok();
        position.and_then(|position| u32::try_from(position).ok()).ok_or_else(|| {
            IndexerError::InvalidRequest(format!(
                "{what} picture {} is of class `{}`, of which there is no training picture; add \
                 some, or leave the class out",
                picture.path.display(),
                picture.class
            ))
        })
    };
    let labels = pictures.iter().map(label).collect::<Result<_>>()?;
    let tokens = pictures.par_iter().map(|picture| picture.tokens.clone()).collect();
    Ok(LabelledTokens { tokens, labels })
}

/// Pictures whose class a head ranks first, and among its first five.
///
/// # Errors
/// The tokens are of fewer blocks than the head reads.
pub fn accuracy(head: &Head, set: &LabelledTokens) -> Result<(Accuracy, Accuracy)> {
    let rank = |(tokens, label): (&ProbeTokens, &u32)| {
        let scores = head.scores(&head.info().recipe.features(tokens)?);
        let (label, own) = (*label as usize, scores[*label as usize]);
        // Ties go to the first class.
        let before = |(i, score): (usize, &f32)| *score > own || (*score == own && i < label);
        let finite = scores.iter().all(|score| score.is_finite());
        let rank = scores.iter().enumerate().filter(|&scored| before(scored)).count();
        Ok(if finite { rank } else { scores.len().max(5) })
    };
    let ranks = set.tokens.par_iter().zip(&set.labels).map(rank).collect::<Result<Vec<_>>>()?;
    let within = |first| Accuracy {
        correct: ranks.iter().filter(|rank| **rank < first).count(),
        queries: ranks.len(),
    };
    Ok((within(1), within(5)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileStamp;

    fn pictures(counts: &[(&str, usize)]) -> Vec<LabelledPicture> {
        let picture = |class: &str, i: usize| {
            let path = PathBuf::from(format!("/{class}/{i}.jpg"));
            let stamp = FileStamp { size: 1, mtime_ns: 0 };
            LabelledPicture {
                sha256: ContentHash::of(path.to_string_lossy().as_bytes()),
                file: SourceFile { path: path.clone(), stamp },
                class: class_of(&path),
                path,
                tokens: ProbeTokens { cls: vec![1.0], mean_patch: vec![1.0] },
            }
        };
        counts.iter().flat_map(|&(class, n)| (0..n).map(move |i| picture(class, i))).collect()
    }

    #[test]
    fn every_class_gives_its_share_and_keeps_one() -> Result<()> {
        let all = pictures(&[("a", 30), ("b", 4), ("c", 2), ("d", 1)]);
        let (train, validation) = split(all.clone(), 0.1, 7)?;
        let count = |part: &[LabelledPicture], class: &str| {
            part.iter().filter(|picture| picture.class == class).count()
        };
        let counts = ["a", "b", "c", "d"].map(|c| (count(&train, c), count(&validation, c)));
        assert_eq!(counts, [(27, 3), (3, 1), (1, 1), (1, 0)]);

        let paths = |seed| -> Result<Vec<PathBuf>> {
            Ok(split(all.clone(), 0.1, seed)?.1.into_iter().map(|picture| picture.path).collect())
        };
        assert_eq!(paths(7)?, paths(7)?);
        assert_ne!(paths(7)?, paths(8)?);
        // A copy goes where its original goes.
        let mut twice = all.clone();
        twice.extend(all.clone());
        let (train, validation) = split(twice, 0.1, 7)?;
        assert_eq!((train.len(), validation.len()), (2 * 32, 2 * 5));
        check_apart("validation", &validation, &train)?;
        // Few training pictures are left by a large share, but some.
        let (train, _) = split(all, 0.99, 7)?;
        assert_eq!(["a", "b", "c", "d"].map(|c| count(&train, c)), [1, 1, 1, 1]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused_with_a_reason() {
        let message =
            |outcome: Result<()>| outcome.err().map(|error| error.to_string()).unwrap_or_default();
        let one_class = pictures(&[("a", 3)]);
        assert!(message(classes(&[]).map(drop)).contains("no picture to train on"));
        assert!(message(classes(&one_class).map(drop)).contains("one class, `a`"));
        let singles = pictures(&[("a", 1), ("b", 1)]);
        assert!(message(split(singles, 0.1, 0).map(drop)).contains("single picture"));
        assert!(message(split(one_class.clone(), 1.0, 0).map(drop)).contains("between 0 and 1"));
        let shared = message(check_apart("test", &one_class[1..], &one_class));
        assert!(shared.contains("2 of 2 test pictures"), "{shared}");
        assert_eq!(message(check_apart("test", &one_class[..1], &one_class[1..])), "");
        let classes = ["b".to_owned(), "c".to_owned()];
        let unknown = message(labelled("test", &one_class, &classes).map(drop));
        assert!(unknown.contains("of class `a`"), "{unknown}");
    }
}
