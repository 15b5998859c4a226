//! `akin embed`.

use std::sync::atomic::Ordering;
use std::time::Instant;

use engine::{DenseEmbedding, Embedder, Pixels};
use indexer::Locator;
use indexer::pipeline::{self, Outcome as FileOutcome};
use indexer::source;
use indexer::table::{Row, TableShape, TableWriter};
use serde_json::json;

use crate::args::EmbedArgs;
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print_json};
use crate::progress::{CANCELLED, FileProgress, list_skipped, unreadable};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &EmbedArgs) -> Outcome {
    let listing = source::list(&args.sources)?;
    let model = embedder::open(settings, &args.input)?.embedder;
    let patch_tokens = args.patch_tokens.then(|| model.patch_tokens_shape());
    let shape = TableShape { model: model.identity().clone(), patch_tokens };
    let mut table = TableWriter::create(&args.out, shape)?;

    let start = Instant::now();
    let mut progress = FileProgress::new(settings, listing.files.len());
    let mut rows = 0;
    let mut skipped_files = unreadable(listing.unreadable);
    let compute = |batch: &[Pixels]| match args.patch_tokens {
        true => model.embed_dense(batch),
        false => Ok(model.embed(batch)?.into_iter().map(DenseEmbedding::from).collect()),
    };
    pipeline::run(
        &listing.files,
        &model,
        &CANCELLED,
        &|_, _| false,
        &compute,
        &mut |file, outcome| {
            match outcome {
                FileOutcome::Done(picture, DenseEmbedding { embedding, patch_tokens }) => {
                    table.write(Row {
                        path: Locator::from(file.path.as_path()),
                        sha256: picture.sha256,
                        width: picture.width,
                        height: picture.height,
                        embedding: embedding.as_slice().to_vec(),
                        patch_tokens,
                    })?;
                    rows += 1;
                    progress.done();
                }
                FileOutcome::Unchanged => progress.done(),
                FileOutcome::Skipped(skipped) => {
                    progress.skipped(&skipped);
                    if !skipped.not_a_picture {
                        skipped_files.push(skipped);
                    }
                }
            }
            Ok(())
        },
    )?;
    progress.finish();
    if CANCELLED.load(Ordering::Relaxed) {
        return Err(Failure::Failed("stopped; nothing was written".to_owned()));
    }
    table.finish()?;
    list_skipped(&skipped_files);
    let seconds = start.elapsed().as_secs_f64();
    let out = args.out.display().to_string();
    if settings.json {
        let model = &model.identity().name;
        let skipped = skipped_files.len();
        print_json(&json!({
            "out": out, "model": model, "rows": rows, "skipped": skipped, "seconds": seconds,
        }))?;
    } else if !settings.quiet {
        note(&format!("{rows} embeddings in {out}, {seconds:.1} s"));
    }
    Ok(Success::unless_skipped(skipped_files.len()))
}
