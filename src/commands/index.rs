//! `akin index`.

mod report;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use engine::{Embedder, shipped};
use indexer::fetch::FetchOptions;
use indexer::metadata::{Metadata, MetadataOptions};
use indexer::source::{
    self, EmbeddingOptions, EmbeddingSource, ListFile, SourceOptions, UrlOptions, read_list,
};
use indexer::{
    Collection, Collections, CreateOptions, IngestEvent, IngestOptions, IngestReport, ingest,
    ingest_embeddings, ingest_sources,
};

pub use self::report::end;
use crate::args::{IndexArgs, InputArgs};
use crate::embedder::{self, Opened};
use crate::outcome::{Failure, Outcome, note};
use crate::progress::{CANCELLED, FileProgress, list_skipped};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &IndexArgs) -> Outcome {
    if let Some(table) = &args.embeddings {
        return run_embeddings(settings, args, table);
    }
    let mut named = args.sources.clone();
    if let Some(path) = &args.from_list {
        named.extend(read_list(&ListFile { path: path.clone(), null: args.null })?);
    }
    let options = source_options(args);
    let mut sources = source::open(&named, &options)?;
    let metadata = metadata(args, &named)?;
    let collections = Collections::new(&settings.home);
    // A wrong path should not cost the time of opening a model first.
    if !collections.exists(&args.collection)?
        && args.from_list.is_none()
        && let Some(missing) = named.iter().find(|path| is_missing(path))
    {
        return Err(Failure::Failed(format!("{}: no such file or folder", missing.display())));
    }
    // What happens while everything is indexed for the first time is seen too.
    let watch = match args.watch {
        true => Some(watch::start(&named)?),
        false => None,
    };
    let (mut collection, opened) = open_or_create(settings, &args.collection, &args.input)?;
    let start = Instant::now();
    let report = observed(settings, &mut |on_event| {
        let model = &opened.embedder;
        let options = ingest_options(args);
        let collection = &mut collection;
        ingest_sources(collection, model, &mut sources, &metadata, options, on_event, &CANCELLED)
    })?;
    report::show(settings, &collection, &report, start.elapsed().as_secs_f64())?;
    match watch {
        Some(watch) if !report.cancelled => {
            let model = &opened.embedder;
            watch::run(settings, watch, &mut collection, model, &metadata, &options)
        }
        _ => end(&collection, &report),
    }
}

fn run_embeddings(settings: &Settings, args: &IndexArgs, table: &std::path::Path) -> Outcome {
    let options = EmbeddingOptions {
        column: args.embedding_column.clone(),
        model_name: args.embedding_model.clone(),
    };
    let mut table = EmbeddingSource::open(table, &options)?;
    let metadata = metadata(args, &[])?;
    let collections = Collections::new(&settings.home);
    let name = &args.collection;
    let mut collection = match collections.exists(name)? {
        true => {
            table.adopt(&collections.manifest(name)?.model, &options);
            collections.open(name)?
        }
        false => collections.create(name, table.identity(), CreateOptions::default())?,
    };
    let start = Instant::now();
    let report = observed(settings, &mut |on_event| {
        let options = ingest_options(args);
        ingest_embeddings(&mut collection, &mut table, &metadata, options, on_event, &CANCELLED)
    })?;
    report::show(settings, &collection, &report, start.elapsed().as_secs_f64())?;
    end(&collection, &report)
}

/// Whether something named is no URL and not there.
fn is_missing(path: &std::path::Path) -> bool {
    !path.exists() && !path.to_str().is_some_and(|text| text.contains("://"))
}

fn ingest_options(args: &IndexArgs) -> IngestOptions {
    IngestOptions { retry_failed: args.retry_failed, dry_run: args.dry_run, prune: args.prune }
}

fn source_options(args: &IndexArgs) -> SourceOptions {
    let downloads = &args.downloads;
    SourceOptions {
        exclude: args.exclude.clone(),
        hidden: args.hidden,
        sidecars: args.payload.sidecar,
        lenient: args.from_list.is_some(),
        urls: UrlOptions {
            column: downloads.url_column.clone(),
            payload_columns: downloads.payload_columns.clone(),
        },
        fetch: FetchOptions {
            downloads: downloads.downloads,
            per_host: downloads.per_host,
            retries: downloads.retries,
            user_agent: downloads.user_agent.clone(),
            ignore_robots: downloads.ignore_robots,
            allow_private: downloads.allow_private_addresses,
            ..FetchOptions::default()
        },
    }
}

/// What is attached, with folders among the sources as places to take relative paths from.
fn metadata(args: &IndexArgs, named: &[PathBuf]) -> Outcome<Metadata> {
    let payload = &args.payload;
    let options = MetadataOptions {
        exif: payload.exif,
        exif_gps: payload.exif_gps,
        sidecar: payload.sidecar,
        table: payload.payload.clone(),
        key: payload.payload_key.clone(),
    };
    let roots: Vec<PathBuf> = named
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    Ok(Metadata::open(options, &roots)?)
}

/// A collection and the model it is made with: its own when it exists, else that of the settings.
pub fn open_or_create(
    settings: &Settings,
    name: &str,
    input: &InputArgs,
) -> Outcome<(Collection, Opened)> {
    let collections = Collections::new(&settings.home);
    let opened = match collections.exists(name)? {
        true => embedder::for_collection(settings, input, &collections.manifest(name)?)?,
        false => {
            if settings.model.is_none() && !settings.quiet {
                note(&format!(
                    "using the built-in model {}; for a larger one: `akin model pull vits14_reg`, \
                     then `--model vits14_reg`",
                    shipped::NAME
                ));
            }
            embedder::open(settings, input)?
        }
    };
    Ok((open_with(settings, name, &opened)?, opened))
}

/// A new collection for the model of the settings.
pub fn create(settings: &Settings, name: &str, input: &InputArgs) -> Outcome<Collection> {
    open_with(settings, name, &embedder::open(settings, input)?)
}

/// A collection made with this model, new if there is none.
pub fn open_with(settings: &Settings, name: &str, opened: &Opened) -> Outcome<Collection> {
    let collections = Collections::new(&settings.home);
    let identity = opened.embedder.identity();
    let mut collection = match collections.exists(name)? {
        true => collections.open(name)?,
        false => collections.create(name, identity, CreateOptions::default())?,
    };
    collection.check_model(identity)?;
    collection.set_model_source(&opened.source)?;
    Ok(collection)
}

/// Brings a collection up to date, with a bar, and lists what was skipped.
pub fn with_progress(
    settings: &Settings,
    collection: &mut Collection,
    model: &dyn Embedder,
    sources: &[PathBuf],
    options: IngestOptions,
) -> Outcome<IngestReport> {
    observed(settings, &mut |on_event| {
        ingest(collection, model, sources, options, on_event, &CANCELLED)
    })
}

/// What brings a collection up to date, telling how far it is.
type Ingest<'a> = dyn FnMut(&mut dyn FnMut(IngestEvent<'_>)) -> indexer::Result<IngestReport> + 'a;

/// Runs an ingest with a bar, and lists what was skipped and what was kept though it is gone.
fn observed(settings: &Settings, ingest: &mut Ingest<'_>) -> Outcome<IngestReport> {
    let mut progress: Option<FileProgress> = None;
    let mut on_event = |event: IngestEvent<'_>| match event {
        IngestEvent::Listed { to_read } => match &progress {
            Some(progress) => progress.expect_more(to_read),
            None => progress = Some(FileProgress::new(settings, to_read)),
        },
        IngestEvent::Between(_) => {}
        IngestEvent::Done => {
            if let Some(progress) = &progress {
                progress.done();
            }
        }
        IngestEvent::Skipped(skipped) => {
            if let Some(progress) = &mut progress {
                progress.skipped(skipped);
            }
        }
    };
    let report = ingest(&mut on_event)?;
    if let Some(progress) = progress {
        progress.finish();
    }
    list_skipped(&report.skipped);
    report.held_back.iter().for_each(|held_back| note(&held_back.to_string()));
    let unmatched = &report.unmatched;
    if unmatched.rows > 0 {
        let first = unmatched.first.join(", ");
        note(&format!("{} rows of payload are about no picture: {first}", unmatched.rows));
    }
    Ok(report)
}
