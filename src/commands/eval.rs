//! `akin eval`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use engine::{DinoEmbedder, Embedder, Embedding};
use indexer::eval::{KnnScore, KnnSweep, Labelled, class_map, copy_recall_at_1};
use indexer::pipeline::{self, Outcome as FileOutcome, Skipped};
use indexer::probe::class_of;
use indexer::source::SourceFile;
use indexer::{Collections, IndexerError, eval, source};
use serde_json::{Value, json};

use crate::args::{CopiesArgs, EvalCommand, EvalSource, KnnArgs, RecallArgs};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, print, print_json};
use crate::progress::{CANCELLED, FileProgress, list_skipped, unreadable};
use crate::settings::Settings;

pub fn run(settings: &Settings, command: &EvalCommand) -> Outcome {
    match command {
        EvalCommand::Knn(args) => knn(settings, args),
        EvalCommand::Linear(args) => super::probe::eval(settings, args),
        EvalCommand::Retrieval(args) => retrieval(settings, args),
        EvalCommand::Copies(args) => copies(settings, args),
        EvalCommand::Recall(args) => recall(settings, args),
    }
}

fn knn(settings: &Settings, args: &KnnArgs) -> Outcome {
    let mut skipped = Vec::new();
    let gallery = labelled(embed(settings, &args.source, &args.source.sources, &mut skipped)?);
    let knn = KnnSweep { ks: args.k.clone(), temperature: args.temperature };
    let scores = if args.queries.is_empty() {
        knn.leave_one_out(&gallery)?
    } else {
        let queries = labelled(embed(settings, &args.source, &args.queries, &mut skipped)?);
        knn.against(&gallery, &queries)?
    };
    let mut result = json!({
        "protocol": if args.queries.is_empty() { "knn leave-one-out" } else { "knn" },
        "temperature": args.temperature,
        "gallery": gallery.len(),
        "queries": scores.first().map_or(0, |score| score.top1.queries),
    });
    let each = |score: &KnnScore| {
        json!({
            "k": score.k,
            "correct": score.top1.correct,
            "top1_percent": score.top1.percent(),
            "top5_percent": score.top5.percent(),
        })
    };
    // One number of neighbours needs no list.
    match scores.as_slice() {
        [score] => merge(&mut result, each(score)),
        scores => result["by_k"] = scores.iter().map(each).collect(),
    }
    report(settings, &skipped, &result)
}

fn merge(result: &mut Value, more: Value) {
    if let (Some(result), Value::Object(more)) = (result.as_object_mut(), more) {
        result.extend(more);
    }
}

fn retrieval(settings: &Settings, args: &EvalSource) -> Outcome {
    let mut skipped = Vec::new();
    let images = labelled(embed(settings, args, &args.sources, &mut skipped)?);
    let (map, queries) = class_map(&images)?;
    report(
        settings,
        &skipped,
        &json!({
            "protocol": "class retrieval",
            "images": images.len(),
            "queries": queries,
            "map_percent": map,
        }),
    )
}

fn copies(settings: &Settings, args: &CopiesArgs) -> Outcome {
    let mut skipped = Vec::new();
    let truth = eval::CopyTruth::read(&args.truth)?;
    let of = |paths: Vec<PathBuf>, skipped: &mut Vec<Skipped>| {
        embed(settings, &args.distractors, &paths, skipped)
    };
    let originals = of(truth.originals(), &mut skipped)?;
    let edits = of(truth.copies(), &mut skipped)?;
    let mut distractors = of(args.distractors.sources.clone(), &mut skipped)?;
    distractors.retain(|(path, _)| !truth.names(path));

    let position = |path: &Path| originals.iter().position(|(original, _)| original == path);
    let edits: Vec<(Embedding, usize)> = edits
        .into_iter()
        .filter_map(|(path, embedding)| Some((embedding, position(truth.original_of(&path)?)?)))
        .collect();
    let count = distractors.len();
    let gallery: Vec<Embedding> =
        originals.iter().cloned().chain(distractors).map(|(_, embedding)| embedding).collect();
    let accuracy = copy_recall_at_1(&gallery, &edits)?;
    report(
        settings,
        &skipped,
        &json!({
            "protocol": "copy retrieval",
            "originals": gallery.len() - count,
            "distractors": count,
            "queries": accuracy.queries,
            "correct": accuracy.correct,
            "recall_at_1_percent": accuracy.percent(),
        }),
    )
}

fn recall(settings: &Settings, args: &RecallArgs) -> Outcome {
    let view = Collections::new(&settings.home).open(&args.collection)?.view();
    let found = eval::recall(&view, args.queries, args.k, args.seed)?;
    report(
        settings,
        &[],
        &json!({
            "protocol": "recall of the index",
            "collection": args.collection,
            "images": found.images,
            "queries": found.queries,
            "k": found.k,
            "recall": found.recall,
            "interval_95": {"low": found.low, "high": found.high},
            "imperfect_queries": found.imperfect,
            "worst": {"id": found.worst, "recall": found.worst_recall},
            "approximate": found.approximate,
        }),
    )
}

/// Prints a result as JSON, or a line for each figure (lists of what was tried are for programs), and
/// lists skipped files.
pub fn report(settings: &Settings, skipped: &[Skipped], result: &Value) -> Outcome {
    list_skipped(skipped);
    if settings.json {
        print_json(result)?;
    } else if let Some(fields) = result.as_object() {
        for (name, value) in fields {
            match value {
                Value::Array(_) if name == "tried" => {}
                Value::Array(rows) => rows.iter().try_for_each(|row| print(&columns(row)))?,
                Value::Object(_) => print(&format!("{name:20} {}", columns(value)))?,
                Value::String(text) => print(&format!("{name:20} {text}"))?,
                _ => print(&format!("{name:20} {value}"))?,
            }
        }
    }
    Ok(Success::unless_skipped(skipped.len()))
}

/// The figures of an object on one line.
fn columns(row: &Value) -> String {
    let fields = row.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("  ")
}

fn labelled(images: Vec<(PathBuf, Embedding)>) -> Vec<Labelled> {
    images
        .into_iter()
        .map(|(path, embedding)| Labelled { label: class_of(&path), embedding })
        .collect()
}

/// Embeddings of files and folders, by path: from the collection when one is named.
fn embed(
    settings: &Settings,
    from: &EvalSource,
    sources: &[PathBuf],
    skipped: &mut Vec<Skipped>,
) -> Outcome<Vec<(PathBuf, Embedding)>> {
    match &from.collection {
        Some(name) => from_collection(settings, name, sources),
        None => compute(settings, from, sources, skipped),
    }
}

fn from_collection(
    settings: &Settings,
    name: &str,
    sources: &[PathBuf],
) -> Outcome<Vec<(PathBuf, Embedding)>> {
    let roots: Vec<PathBuf> = sources
        .iter()
        .map(|source| {
            source
                .canonicalize()
                .map_err(|error| Failure::Failed(format!("{}: {error}", source.display())))
        })
        .collect::<Outcome<_>>()?;
    let collection = Collections::new(&settings.home).open(name)?;
    let mut images = Vec::new();
    for entry in collection.images() {
        let (id, record) = entry?;
        let path = record.path.to_path();
        if roots.is_empty() || roots.iter().any(|root| path.starts_with(root)) {
            images.push((path, collection.embedding(id, &record)?));
        }
    }
    images.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(images)
}

fn compute(
    settings: &Settings,
    from: &EvalSource,
    sources: &[PathBuf],
    skipped: &mut Vec<Skipped>,
) -> Outcome<Vec<(PathBuf, Embedding)>> {
    let listing = source::list(sources)?;
    let model = embedder::open(settings, &from.input)?.embedder;
    skipped.extend(unreadable(listing.unreadable));
    let mut progress = FileProgress::new(settings, listing.files.len());
    let images = embed_files(&listing.files, &model, &mut progress, skipped)?;
    progress.finish();
    images.ok_or_else(|| Failure::Failed("stopped before the end; there is no result".to_owned()))
}

/// Embeddings with classes, without a word about what has to be left out; none when interrupted.
pub(super) fn embed_quietly(
    files: &[SourceFile],
    model: &DinoEmbedder,
) -> Outcome<Option<Vec<Labelled>>> {
    let images = embed_files(files, model, &mut FileProgress::hidden(), &mut Vec::new())?;
    Ok(images.map(labelled))
}

/// Embeddings by path; none when interrupted.
fn embed_files(
    files: &[SourceFile],
    model: &DinoEmbedder,
    progress: &mut FileProgress,
    skipped: &mut Vec<Skipped>,
) -> Outcome<Option<Vec<(PathBuf, Embedding)>>> {
    let mut images = Vec::new();
    pipeline::run(
        files,
        model,
        &CANCELLED,
        &|_, _| false,
        &|batch| model.embed(batch),
        &mut |file, outcome| {
            match outcome {
                FileOutcome::Done(_, embedding) => {
                    images.push((file.path.clone(), embedding));
                    progress.done();
                }
                FileOutcome::Unchanged => progress.done(),
                FileOutcome::Skipped(file) => {
                    progress.skipped(&file);
                    if !file.not_a_picture {
                        skipped.push(file);
                    }
                }
            }
            Ok::<(), IndexerError>(())
        },
    )?;
    Ok((!CANCELLED.load(Ordering::Relaxed)).then_some(images))
}
