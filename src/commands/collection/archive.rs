//! `akin collection snapshot`, `restore` and `info --archive`.

use std::path::Path;

use indexer::{Collections, RestoreOptions, read_snapshot_info};
use serde_json::json;

use super::{count, info, megabytes};
use crate::args::{RestoreArgs, SnapshotArgs};
use crate::outcome::{Outcome, Success, note, print, print_json};
use crate::progress::with_steps;
use crate::settings::Settings;

pub fn snapshot(settings: &Settings, collections: &Collections, args: &SnapshotArgs) -> Outcome {
    let SnapshotArgs { name, out, force } = args;
    let report =
        with_steps(settings, |progress| collections.snapshot(name, out, *force, progress))?;
    if settings.json {
        print_json(&json!({
            "collection": name,
            "file": out.to_string_lossy(),
            "images": report.images,
            "failures": report.failures,
            "bytes": report.bytes,
        }))?;
    } else if !settings.quiet {
        note(&format!(
            "{name}: {} and {} in {}, {}",
            count(report.images, "image"),
            count(report.failures, "failure"),
            out.display(),
            megabytes(report.bytes)
        ));
    }
    Ok(Success::Done)
}

pub fn restore(settings: &Settings, collections: &Collections, args: &RestoreArgs) -> Outcome {
    let options = RestoreOptions { name: args.name.clone(), replace: args.replace };
    let report =
        with_steps(settings, |progress| collections.restore(&args.file, &options, progress))?;
    if settings.json {
        print_json(&json!({
            "collection": report.name,
            "images": report.images,
            "failures": report.failures,
            "has_replaced": report.has_replaced,
        }))?;
    } else if !settings.quiet {
        note(&format!(
            "{}{}: {} and {}",
            report.name,
            if report.has_replaced { " replaced" } else { "" },
            count(report.images, "image"),
            count(report.failures, "failure")
        ));
    }
    Ok(Success::Done)
}

pub fn info(settings: &Settings, file: &Path) -> Outcome {
    let snapshot = read_snapshot_info(file)?;
    let manifest = &snapshot.manifest;
    let members: Vec<_> = snapshot
        .members
        .iter()
        .map(|member| json!({"name": member.name, "bytes": member.bytes, "sha256": member.sha256}))
        .collect();
    if settings.json {
        let mut json = info::manifest_json(&snapshot.collection, manifest);
        json["images"] = snapshot.images.into();
        json["snapshot"] = json!({
            "format_version": snapshot.format_version,
            "akin": snapshot.akin,
            "created": snapshot.created,
            "failures": snapshot.failures,
            "members": members,
        });
        print_json(&json)?;
        return Ok(Success::Done);
    }
    print(&format!("name         {}", snapshot.collection))?;
    print(&format!("images       {}", snapshot.images))?;
    print(&format!("failures     {}", snapshot.failures))?;
    info::model(manifest)?;
    print(&format!("stored       {}", manifest.precision))?;
    print(&format!(
        "snapshot     format {}, by akin {}, {} s after 1970",
        snapshot.format_version, snapshot.akin, snapshot.created
    ))?;
    for member in &snapshot.members {
        print(&format!("member       {} {}", member.name, megabytes(member.bytes)))?;
    }
    Ok(Success::Done)
}
