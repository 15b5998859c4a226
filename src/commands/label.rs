//! `akin label`.

use std::sync::atomic::Ordering;

use engine::probe::Head;
use indexer::label::{self, LabelReport};
use indexer::{Collection, Collections};
use serde_json::json;

use crate::args::{InputArgs, LabelArgs};
use crate::commands::eval::report;
use crate::embedder;
use crate::outcome::{Failure, Outcome};
use crate::progress::{CANCELLED, FileProgress};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &LabelArgs) -> Outcome {
    let (head, sha256) = Head::load(&args.head)?;
    let stem = args.head.file_stem().unwrap_or_default().to_string_lossy();
    // The name helps people, the hash tells heads apart.
    let name = format!("{stem}@{}", sha256.get(..12).unwrap_or_default());
    let mut collection = Collections::new(&settings.home).open(&args.collection)?;
    label::check(&collection, &head, &name)?;

    let stored = head.reads_stored_vectors();
    let (labellings, skipped) = match stored {
        true => (label::by_vectors(&collection, &head)?, Vec::new()),
        false => by_files(settings, &collection, &head)?,
    };
    let options = (args.min_confidence, args.dry_run);
    let LabelReport { labelled, below, classes } =
        label::apply(&mut collection, &head, &name, labellings, options)?;
    report(
        settings,
        &skipped,
        &json!({
            "collection": args.collection,
            "head": name,
            "features": head.info().recipe.to_string(),
            "labels_from": if stored { "stored vectors" } else { "files" },
            "dry_run": args.dry_run,
            "min_confidence": args.min_confidence,
            "labelled": labelled,
            "below": below,
            "skipped": skipped.len(),
            "classes": classes,
        }),
    )
}

fn by_files(
    settings: &Settings,
    collection: &Collection,
    head: &Head,
) -> Outcome<(Vec<label::Labelling>, Vec<indexer::pipeline::Skipped>)> {
    let manifest = collection.manifest();
    let model = embedder::for_collection(settings, &InputArgs::NONE, manifest)?.embedder;
    collection.check_model(engine::Embedder::identity(&model))?;
    let mut progress = FileProgress::new(settings, collection.len());
    let mut on_file = |skipped: Option<&indexer::pipeline::Skipped>| progress.next(skipped);
    let done = label::by_files(collection, head, &model, &mut on_file, &CANCELLED)?;
    progress.finish();
    match CANCELLED.load(Ordering::Relaxed) {
        true => Err(Failure::Failed("stopped before the end; no label was changed".to_owned())),
        false => Ok(done),
    }
}
