//! `akin collection`.

mod archive;
mod check;
mod info;
mod reindex;
mod remove;

use indexer::Collections;
use serde_json::json;

use crate::args::{CollectionCommand, CompactArgs};
use crate::outcome::{Outcome, Success, note, print_json};
use crate::progress::with_steps;
use crate::settings::Settings;

pub fn run(settings: &Settings, command: &CollectionCommand) -> Outcome {
    let collections = Collections::new(&settings.home);
    match command {
        CollectionCommand::List => info::list(settings, &collections),
        CollectionCommand::Info(args) => match &args.archive {
            Some(file) => archive::info(settings, file),
            None => info::info(settings, &collections, args),
        },
        CollectionCommand::Check(args) => check::run(settings, &collections, args),
        CollectionCommand::Compact(args) => compact(settings, &collections, args),
        CollectionCommand::Reindex(args) => reindex::run(settings, &collections, args),
        CollectionCommand::Remove(args) => remove::images(settings, &collections, args),
        CollectionCommand::Delete(args) => remove::collection(settings, &collections, args),
        CollectionCommand::Snapshot(args) => archive::snapshot(settings, &collections, args),
        CollectionCommand::Restore(args) => archive::restore(settings, &collections, args),
    }
}

fn compact(settings: &Settings, collections: &Collections, args: &CompactArgs) -> Outcome {
    let name = &args.name;
    let report = with_steps(settings, |progress| collections.compact(name, args.force, progress))?;
    if settings.json {
        print_json(&json!({
            "collection": name,
            "is_rewritten": report.is_rewritten,
            "images": report.images,
            "dead_rows": report.dead_rows,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
        }))?;
    } else if !settings.quiet {
        note(&match report.is_rewritten {
            true => format!(
                "{name}: {} dropped {} embeddings of no image, {} before, {} now",
                count(report.images, "image"),
                report.dead_rows,
                megabytes(report.bytes_before),
                megabytes(report.bytes_after)
            ),
            false => format!(
                "{name}: every embedding belongs to an image, nothing to do (--force rewrites \
                 anyway)"
            ),
        });
    }
    Ok(Success::Done)
}

/// A number and what it counts.
fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
