//! Heads applied to collections: every image gets the class a head gives it, as payload.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use engine::DinoEmbedder;
use engine::probe::{Head, Prediction};

use crate::collection::{Collection, describe};
use crate::error::{IndexerError, Result};
use crate::id::ImageId;
use crate::pipeline::{self, Outcome, Skipped};
use crate::record::{Payload, Record};
use crate::source::SourceFile;

/// Payload entry with the class name.
pub const LABEL: &str = "label";
/// Payload entry with the probability of the class, 0 to 1.
pub const CONFIDENCE: &str = "label_confidence";
/// Payload entry that says which head gave the label.
pub const HEAD: &str = "label_head";

/// An image and what a head makes of it.
#[derive(Clone, Debug)]
pub struct Labelling {
    id: ImageId,
    record: Record,
    prediction: Option<Prediction>,
}

/// Checks that a head reads features of the collection's model and settings.
///
/// # Errors
/// [`IndexerError::HeadMismatch`] names both.
pub fn check(collection: &Collection, head: &Head, head_name: &str) -> Result<()> {
    let manifest = collection.manifest();
    if head.info().fingerprint == manifest.fingerprint {
        return Ok(());
    }
    Err(IndexerError::HeadMismatch {
        head: head_name.to_owned(),
        expected: describe(&head.info().model),
        name: collection.name().to_owned(),
        got: describe(&manifest.model),
    })
}

/// Classifies every image by its stored vector.
///
/// # Errors
/// The head reads more than that, or the collection is damaged.
pub fn by_vectors(collection: &Collection, head: &Head) -> Result<Vec<Labelling>> {
    let recipe = head.info().recipe;
    let classify = |entry: Result<(ImageId, Record)>| {
        let (id, record) = entry?;
        let embedding = collection.embedding(id, &record)?;
        let features = recipe.features_of_stored(&embedding).ok_or_else(|| {
            let message = format!("the head reads {recipe}, which no collection stores");
            IndexerError::InvalidRequest(message)
        })?;
        check_dim(head, features.len())?;
        Ok(Labelling { id, record, prediction: head.predict(&features) })
    };
    collection.images().map(classify).collect()
}

/// Classifies every image from its file. A file that is gone, unreadable, or not the one that was
/// indexed is skipped.
///
/// Stops early, without error, once `cancel` is set.
///
/// # Errors
/// The model is not the collection's or does not fit the head; the catalog cannot be read.
pub fn by_files(
    collection: &Collection,
    head: &Head,
    model: &DinoEmbedder,
    on_file: &mut dyn FnMut(Option<&Skipped>),
    cancel: &AtomicBool,
) -> Result<(Vec<Labelling>, Vec<Skipped>)> {
    let recipe = head.info().recipe;
    recipe.check(model.config().depth)?;
    check_dim(head, recipe.dim(model.config().embed_dim))?;
    let images: Vec<(ImageId, Record)> = collection.images().collect::<Result<_>>()?;
    let files: Vec<SourceFile> = images
        .iter()
        .map(|(_, record)| SourceFile { path: record.path.to_path(), stamp: record.stamp })
        .collect();
    let mut labellings = Vec::new();
    let mut skipped = Vec::new();
    // Outcomes come in the order of the files.
    let mut images = images.into_iter();
    let compute = |batch: &[engine::Pixels]| {
        let tokens = model.probe_tokens(batch, recipe.blocks)?;
        tokens.iter().map(|tokens| Ok(head.predict(&recipe.features(tokens)?))).collect()
    };
    pipeline::run(&files, model, cancel, &|_, _| false, &compute, &mut |file, outcome| {
        let Some((id, record)) = images.next() else { return Ok(()) };
        let mut skip = |reason: String| {
            let one = Skipped { path: file.path.clone(), reason, not_a_picture: false };
            on_file(Some(&one));
            skipped.push(one);
        };
        match outcome {
            Outcome::Done(picture, _) if picture.sha256 != record.sha256 => {
                skip("it has changed since it was indexed; run `akin index` again".to_owned());
            }
            Outcome::Done(_, prediction) => {
                labellings.push(Labelling { id, record, prediction });
                on_file(None);
            }
            Outcome::Unchanged => on_file(None),
            Outcome::Skipped(one) => skip(one.reason),
        }
        Ok(())
    })?;
    Ok((labellings, skipped))
}

fn check_dim(head: &Head, got: usize) -> Result<()> {
    let expected = head.dim();
    if got == expected { Ok(()) } else { Err(IndexerError::Dimension { got, expected }) }
}

/// What labelling did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelReport {
    /// Images that were given a class.
    pub labelled: usize,
    /// Images that were not: the most probable class is not probable enough.
    pub below: usize,
    /// Labelled images of each class.
    pub classes: BTreeMap<String, usize>,
}

/// Notes the labels of all images in one atomic commit; with `dry_run`, only counts them. An image
/// whose best class is less probable than `min_confidence` loses the label it may have had.
///
/// # Errors
/// The collection cannot be written; it then is as it was.
pub fn apply(
    collection: &mut Collection,
    head: &Head,
    head_name: &str,
    labellings: Vec<Labelling>,
    (min_confidence, dry_run): (f64, bool),
) -> Result<LabelReport> {
    let mut report = LabelReport::default();
    for Labelling { id, record, prediction } in labellings {
        let mut payload = record.payload.clone();
        [LABEL, CONFIDENCE, HEAD].iter().for_each(|name| drop(payload.remove(*name)));
        match prediction.filter(|prediction| prediction.confidence >= min_confidence) {
            Some(Prediction { class, confidence }) => {
                let class = &head.info().classes[class];
                payload.extend(entries(class, confidence, head_name));
                *report.classes.entry(class.clone()).or_default() += 1;
                report.labelled += 1;
            }
            None => report.below += 1,
        }
        if !dry_run && payload != record.payload {
            collection.set_payload(id, record, payload)?;
        }
    }
    if !dry_run {
        collection.commit()?;
    }
    Ok(report)
}

fn entries(class: &str, confidence: f64, head_name: &str) -> Payload {
    Payload::from([
        (LABEL.to_owned(), class.into()),
        (CONFIDENCE.to_owned(), confidence.into()),
        (HEAD.to_owned(), head_name.into()),
    ])
}
