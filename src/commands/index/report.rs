//! What `akin index` says in the end.

use std::path::{Path, PathBuf};

use indexer::{Collection, IngestReport};
use serde_json::json;

use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::settings::Settings;

/// How a command that brought a collection up to date ends.
pub fn end(collection: &Collection, report: &IngestReport) -> Outcome {
    if report.cancelled {
        let name = collection.name();
        return Err(Failure::Failed(format!(
            "stopped; `{name}` is usable as far as it got, and the same command goes on from here"
        )));
    }
    Ok(Success::unless_skipped(report.skipped.len()))
}

pub(super) fn show(
    settings: &Settings,
    collection: &Collection,
    report: &IngestReport,
    seconds: f64,
) -> Outcome<()> {
    if settings.json {
        return print_json(&as_json(collection, report, seconds));
    }
    for path in &report.would_read {
        print(&format!("would read {}", path.display()))?;
    }
    for (from, to) in &report.would_move {
        print(&format!("would find {} at {}", from.display(), to.display()))?;
    }
    for path in &report.would_remove {
        print(&format!("would remove {}", path.display()))?;
    }
    if settings.quiet {
        return Ok(());
    }
    note(&line(collection, report, seconds));
    Ok(())
}

/// One line for people.
pub(super) fn line(collection: &Collection, report: &IngestReport, seconds: f64) -> String {
    let IngestReport { added, updated, moved, removed, unchanged, .. } = report;
    let rate = (added + updated) as f64 / seconds.max(1e-9);
    format!(
        "{}: {} images ({added} added, {updated} updated, {moved} moved, {removed} removed, \
         {unchanged} unchanged, {} skipped, {} other files) in {seconds:.1} s, {rate:.1} images/s",
        collection.name(),
        collection.len(),
        report.skipped.len(),
        report.not_pictures,
    )
}

fn as_json(collection: &Collection, report: &IngestReport, seconds: f64) -> serde_json::Value {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let texts = |paths: &[PathBuf]| paths.iter().map(|path| text(path)).collect::<Vec<_>>();
    let skipped: Vec<_> = report
        .skipped
        .iter()
        .map(|skipped| json!({"path": text(&skipped.path), "reason": skipped.reason}))
        .collect();
    let held_back: Vec<_> = report
        .held_back
        .iter()
        .map(|held| {
            let (root, missing) = (text(&held.root), held.missing);
            json!({"root": root, "gone": held.gone, "known": held.known, "missing": missing})
        })
        .collect();
    let would_move: Vec<_> = report
        .would_move
        .iter()
        .map(|(from, to)| json!({"from": text(from), "to": text(to)}))
        .collect();
    json!({
        "collection": collection.name(),
        "model": collection.manifest().model.name,
        "images": collection.len(),
        "added": report.added,
        "copied": report.copied,
        "updated": report.updated,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "payload_updated": report.payload_updated,
        "not_pictures": report.not_pictures,
        "skipped": skipped,
        "held_back": held_back,
        "unmatched_payload": {"rows": report.unmatched.rows, "first": report.unmatched.first},
        "would_read": texts(&report.would_read),
        "would_add": texts(&report.would_add),
        "would_update": texts(&report.would_update),
        "would_move": would_move,
        "would_remove": texts(&report.would_remove),
        "cancelled": report.cancelled,
        "seconds": seconds,
    })
}
