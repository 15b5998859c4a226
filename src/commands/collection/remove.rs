//! `akin collection remove` and `delete`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indexer::{Collections, ImageId, Locator, Which};
use serde_json::json;

use super::count;
use crate::args::{DeleteArgs, RemoveArgs};
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::settings::Settings;

pub fn images(settings: &Settings, collections: &Collections, args: &RemoveArgs) -> Outcome {
    let mut which: Vec<Which> = args.ids.iter().map(|&id| Which::Id(ImageId(id))).collect();
    for path in &args.paths {
        which.push(Which::Path(Locator::from(as_indexed(path)?.as_path())));
    }
    for folder in &args.under {
        which.push(Which::Under(Locator::from(as_indexed(folder)?.as_path())));
    }
    let report = collections.open(&args.name)?.remove_all(&which, args.dry_run)?;
    if settings.json {
        let images: Vec<_> = report
            .images
            .iter()
            .map(|(id, path)| json!({"id": id, "path": path.to_string()}))
            .collect();
        let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "collection": args.name,
            "is_dry_run": args.dry_run,
            "images": images,
            "failures": failures,
        }))?;
        return Ok(Success::Done);
    }
    if args.dry_run {
        for (id, path) in &report.images {
            print(&format!("would remove image {id}  {path}"))?;
        }
        for path in &report.failures {
            print(&format!("would forget the failure  {path}"))?;
        }
        return Ok(Success::Done);
    }
    if !settings.quiet {
        note(&format!(
            "{}: removed {}, forgot {}; `akin collection compact {}` gives their space back",
            args.name,
            count(report.images.len() as u64, "image"),
            count(report.failures.len() as u64, "failure"),
            args.name
        ));
    }
    Ok(Success::Done)
}

/// A path as indexing stores it: absolute, links followed as far as there is something.
fn as_indexed(path: &Path) -> Outcome<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let path = std::path::absolute(path)?;
    // What is gone cannot be followed; what it lies in often can.
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(path),
    }
}

pub fn collection(settings: &Settings, collections: &Collections, args: &DeleteArgs) -> Outcome {
    let name = &args.name;
    let known = collections.list()?.into_iter().find(|summary| summary.name == *name);
    let images = known.and_then(|summary| summary.manifest.ok()).map(|manifest| manifest.images);
    if !args.yes && collections.exists(name)? {
        confirm(name, images)?;
    }
    collections.delete(name)?;
    if settings.json {
        print_json(&json!({"collection": name, "images": images, "is_deleted": true}))?;
    } else if !settings.quiet {
        note(&format!("deleted collection {name}; the files it was made of are where they were"));
    }
    Ok(Success::Done)
}

fn confirm(name: &str, images: Option<u64>) -> Outcome<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("deleting collection `{name}` needs a yes: add --yes")));
    }
    let images = images.map_or_else(|| "damaged".to_owned(), |images| count(images, "image"));
    let _ = write!(std::io::stderr(), "Delete collection {name} ({images})? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was deleted".to_owned())),
    }
}
