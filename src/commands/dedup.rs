//! `akin dedup`.

mod calibrate;
mod show;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use engine::Embedder;
use indexer::dedup::{
    self, DedupOptions, DedupReport, NotDuplicates, Originals, PixelHashes, Stage, Thresholds,
    Verifier,
};
use indexer::{Collection, Collections, ImageId, Locator, Record, View};

use crate::args::{DedupArgs, InputArgs};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note};
use crate::progress::{CANCELLED, FileProgress, list_skipped};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &DedupArgs) -> Outcome {
    let collections = Collections::new(&settings.home);
    let mut collection = collections.open(&args.collection)?;
    if let Some(pair) = &args.not_duplicate {
        return remember(settings, &collection, pair, args.forget);
    }
    if let Some(truth) = &args.calibrate {
        return calibrate::run(settings, args, &collection, truth.as_deref());
    }
    let view = collection.view();
    let threshold = threshold(args, &view)?;
    let mut options = DedupOptions::new(threshold.value);
    options.k = args.k;
    options.grouping = args.grouping.into();
    options.keep = args.keep.into();
    options.method = args.method.into();
    options.not_duplicates = NotDuplicates::read(collection.folder())?;
    protect(&mut options, &view, &args.protect)?;
    for name in BTreeSet::from_iter(&args.reference) {
        if name == &args.collection {
            return Err(Failure::Usage(format!("`{name}` cannot be its own reference")));
        }
        let reference = collections.open(name)?.view();
        reference.check_model(&view.manifest().model)?;
        options.references.push(reference);
    }
    let report = find(settings, args, &collection, &view, &options)?;
    let removed = match args.remove_from_collection {
        true => remove(&mut collection, &report)?,
        false => 0,
    };
    let run = show::Run { args, view: &view, threshold: &threshold, report: &report, removed };
    if let Some(path) = &args.report {
        show::write(path, &report)?;
    }
    run.print(settings)?;
    list_skipped(&report.skipped);
    Ok(Success::unless_skipped(report.skipped.len()))
}

/// The threshold of a run, and where it comes from.
struct Threshold {
    value: f32,
    /// The model it was measured for, unless the user named it.
    measured_for: Option<String>,
}

fn threshold(args: &DedupArgs, view: &View) -> Outcome<Threshold> {
    if let Some(value) = args.threshold {
        return Ok(Threshold { value, measured_for: None });
    }
    let model = &view.manifest().model;
    let Some(Thresholds { candidates, alone }) = dedup::thresholds(model) else {
        return Err(Failure::Usage(format!(
            "no threshold has been measured for {} with pooling {}: name one with --threshold, or \
             see what each would do with --calibrate",
            model.name, model.pooling
        )));
    };
    let value = if args.no_verify { alone } else { candidates };
    Ok(Threshold { value, measured_for: Some(model.name.clone()) })
}

/// Runs the library with a bar for each stage.
fn find(
    settings: &Settings,
    args: &DedupArgs,
    collection: &Collection,
    view: &View,
    options: &DedupOptions,
) -> Outcome<DedupReport> {
    let model = match args.no_verify || view.is_empty() {
        true => None,
        false => Some(open_model(settings, view)?),
    };
    let verifier = model.as_ref().map(|opened| Verifier::new(&opened.embedder));
    let mut pixels = match args.pixels {
        true => Some(PixelHashes::open(collection.folder())?),
        false => None,
    };
    let originals = Originals { pixels: pixels.as_mut(), verifier: verifier.as_ref() };
    let found = with_progress(settings, |on_stage, on_done| {
        dedup::dedup(view, options, originals, on_stage, on_done, &CANCELLED)
    });
    // What was decoded until it failed or was stopped need not be decoded again.
    if let Some(pixels) = &mut pixels {
        pixels.save()?;
    }
    found
}

/// The model of a view, for its patch tokens.
fn open_model(settings: &Settings, view: &View) -> Outcome<embedder::Opened> {
    let opened = embedder::for_collection(settings, &InputArgs::NONE, view.manifest())?;
    view.check_model(opened.embedder.identity())?;
    Ok(opened)
}

/// Runs with a bar that starts anew at each stage.
fn with_progress<T>(
    settings: &Settings,
    run: impl FnOnce(&(dyn Fn(Stage) + Sync), &(dyn Fn(usize) + Sync)) -> indexer::Result<T>,
) -> Outcome<T> {
    let bar = Mutex::new(FileProgress::hidden());
    let lock = || bar.lock().unwrap_or_else(PoisonError::into_inner);
    let on_stage = |stage: Stage| {
        let (Stage::Neighbours(steps) | Stage::Pixels(steps) | Stage::Pairs(steps)) = stage;
        let mut bar = lock();
        bar.finish();
        *bar = FileProgress::new(settings, steps);
    };
    let on_done = |steps: usize| lock().advance(steps);
    let found = run(&on_stage, &on_done);
    lock().finish();
    Ok(found?)
}

/// Protects the images that `--protect` names.
fn protect(options: &mut DedupOptions, view: &View, paths: &[PathBuf]) -> Outcome<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let canonical = |path: &PathBuf| {
        path.canonicalize().map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
    };
    let roots = paths.iter().map(canonical).collect::<Outcome<Vec<_>>>()?;
    for entry in view.images() {
        let (_, record) = entry?;
        let path = record.path.to_path();
        if roots.iter().any(|root| path.starts_with(root))
            && let Ok(row) = u32::try_from(record.row)
        {
            options.protected.insert(row);
        }
    }
    Ok(())
}

/// Takes duplicates out of the collection, in one commit.
fn remove(collection: &mut Collection, report: &DedupReport) -> Outcome<usize> {
    let mut removed = 0;
    for dropped in report.dropped() {
        removed += usize::from(collection.remove(dropped.member.image.id)?);
    }
    collection.finish()?;
    Ok(removed)
}

/// `--not-duplicate A B`.
fn remember(
    settings: &Settings,
    collection: &Collection,
    pair: &[String],
    forget: bool,
) -> Outcome {
    let [a, b] = pair else {
        return Err(Failure::Usage("--not-duplicate takes two images".to_owned()));
    };
    let ((id_a, a), (id_b, b)) = (image(collection, a)?, image(collection, b)?);
    if a.sha256 == b.sha256 {
        return Err(Failure::Failed(format!(
            "images {id_a} and {id_b} have the same file content; they are duplicates"
        )));
    }
    let mut pairs = NotDuplicates::read(collection.folder())?;
    let changed = match forget {
        true => pairs.remove(&a.sha256, &b.sha256),
        false => pairs.insert(&a.sha256, &b.sha256),
    };
    if changed {
        pairs.write(collection.folder())?;
    }
    if !settings.quiet {
        let state = if changed { "" } else { ", as before" };
        let what = if forget { "judged again" } else { "no duplicates" };
        note(&format!("images {id_a} and {id_b}: {what}{state}; {} pairs remembered", pairs.len()));
    }
    Ok(Success::Done)
}

/// The image of an id or a path.
fn image(collection: &Collection, name: &str) -> Outcome<(ImageId, Record)> {
    let unknown = || {
        Failure::Failed(format!(
            "collection `{}` has no image `{name}`; name one by its id or its path",
            collection.name()
        ))
    };
    if let Ok(id) = name.parse() {
        let id = ImageId(id);
        return collection.record(id)?.map(|record| (id, record)).ok_or_else(unknown);
    }
    let path = Path::new(name);
    // A file that is gone can still be named as it was indexed.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    match collection.known(&Locator::from(path.as_path()))? {
        Some(indexer::Known::Image(id, record)) => Ok((id, record)),
        _ => Err(unknown()),
    }
}
