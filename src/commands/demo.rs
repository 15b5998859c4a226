//! `akin demo`: what Akin does, on pictures it draws itself.

mod show;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indexer::gallery::{Embedded, Gallery, GallerySpec, Judgement, Part};
use indexer::{Collection, Hit, IngestOptions, IngestReport};

use crate::args::{DemoArgs, InputArgs};
use crate::commands::index;
use crate::outcome::{Failure, Outcome, Success};
use crate::progress::{CANCELLED, FileProgress};
use crate::settings::Settings;

/// Neighbours shown, the picture itself included.
const HITS: usize = 8;

/// Everything there is to show.
struct Demo {
    spec: GallerySpec,
    gallery: Gallery,
    pool: Collection,
    test: Collection,
    /// Of the pool, and of the test set.
    reports: [IngestReport; 2],
    query: PathBuf,
    hits: Vec<Hit>,
    judgement: Judgement,
    took: Took,
}

/// Wall-clock time of each part.
#[derive(Clone, Copy, Default)]
struct Took {
    draw: Duration,
    index: Duration,
    search: Duration,
    compare: Duration,
    total: Duration,
}

pub fn run(settings: &Settings, args: &DemoArgs) -> Outcome {
    let start = Instant::now();
    let mut took = Took::default();
    let lap = Cell::new(start);
    let next_lap = || lap.replace(Instant::now()).elapsed();

    let spec = GallerySpec { seed: args.seed, pictures: args.pictures };
    let gallery = draw(settings, args, spec)?;
    took.draw = next_lap();

    let options = IngestOptions { retry_failed: true, ..IngestOptions::default() };
    let (mut pool, opened) = index::open_or_create(settings, &args.collection, &InputArgs::NONE)?;
    let bring = |collection: &mut Collection, part: Part| -> Outcome<IngestReport> {
        refuse_strangers(collection, &gallery)?;
        let (model, sources) = (&opened.embedder, [gallery.part(part)]);
        let report = index::with_progress(settings, collection, model, &sources, options)?;
        index::end(collection, &report)?;
        Ok(report)
    };
    let pool_report = bring(&mut pool, Part::Pool)?;
    let mut test = index::open_with(settings, &format!("{}-test", args.collection), &opened)?;
    let test_report = bring(&mut test, Part::Test)?;
    let reports = [pool_report, test_report];
    took.index = next_lap();

    let (pool_pictures, test_pictures) = (embedded(&pool)?, embedded(&test)?);
    let query = gallery.planted_in(Part::Pool).next().map(|planted| planted.original.clone());
    let query = pool_pictures.iter().find(|(path, _)| Some(path) == query.as_ref());
    let (query, embedding) = query.ok_or_else(|| {
        Failure::Failed("the gallery's pictures cannot be read; remove it and try again".into())
    })?;
    let hits = pool.search(embedding, HITS)?;
    took.search = next_lap();
    let judgement = gallery.judge(&pool_pictures, &test_pictures)?;
    took.compare = next_lap();
    took.total = start.elapsed();

    let skipped = reports.iter().map(|report| report.skipped.len()).sum();
    let query = query.clone();
    let demo = Demo { spec, gallery, pool, test, reports, query, hits, judgement, took };
    match settings.json {
        true => show::json(&demo)?,
        false => show::text(settings, &demo)?,
    }
    Ok(Success::unless_skipped(skipped))
}

/// Draws the gallery, or what is missing of it.
fn draw(settings: &Settings, args: &DemoArgs, spec: GallerySpec) -> Outcome<Gallery> {
    let folder = args.out.clone().unwrap_or_else(|| settings.home.join("demo").join("gallery"));
    let progress = Mutex::new(None);
    let on_event = |to_draw: Option<usize>| {
        // A thread that panicked holding the lock has ended the run.
        let Ok(mut progress) = progress.lock() else { return };
        match (to_draw, progress.as_ref()) {
            (Some(files), _) => *progress = Some(FileProgress::new(settings, files)),
            (None, Some(bar)) => FileProgress::done(bar),
            (None, None) => {}
        }
    };
    let gallery = Gallery::draw(&folder, spec, &on_event, &CANCELLED)?;
    if let Ok(Some(progress)) = progress.lock().as_deref() {
        progress.finish();
    }
    if !gallery.complete || CANCELLED.load(Ordering::Relaxed) {
        return Err(Failure::Failed(
            "stopped; the same command goes on drawing from here".to_owned(),
        ));
    }
    Ok(gallery)
}

/// The walk would be wrong about a collection that holds anything else.
fn refuse_strangers(collection: &Collection, gallery: &Gallery) -> Outcome<()> {
    for entry in collection.images() {
        let path = entry?.1.path.to_path();
        if !path.starts_with(&gallery.folder) {
            return Err(Failure::Failed(format!(
                "collection `{}` holds pictures that are not in {}, such as {}; name another one \
                 with -c",
                collection.name(),
                gallery.folder.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// A collection's images by path.
fn embedded(collection: &Collection) -> Outcome<Embedded> {
    let mut images = Vec::new();
    for entry in collection.images() {
        let (id, record) = entry?;
        images.push((record.path.to_path(), collection.embedding(id, &record)?));
    }
    images.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(images)
}
