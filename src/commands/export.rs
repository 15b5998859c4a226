//! `akin export`.

use std::collections::BTreeMap;
use std::path::Path;

use indexer::curate::{ImageSet, Run, SetInfo};
use indexer::export::{self, ExportInfo, ExportOptions, ExportReport, Files, Format, Selection};
use indexer::{Collection, Collections, IndexerError};
use serde_json::json;

use crate::args::{ExportArgs, ExportCommand, ExportWriteArgs, FilesArg, FormatArg, VerifyArgs};
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::{CANCELLED, FileProgress, list_skipped};
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &ExportArgs) -> Outcome {
    match (&args.command, &args.write) {
        (Some(ExportCommand::Verify(args)), _) => verify(settings, args),
        (None, Some(args)) => write(settings, args),
        (None, None) => Err(Failure::Usage("name a run or a collection, and --out".to_owned())),
    }
}

fn write(settings: &Settings, args: &ExportWriteArgs) -> Outcome {
    let options = ExportOptions {
        format: match args.format {
            FormatArg::Parquet => Format::Parquet,
            FormatArg::Jsonl => Format::Jsonl,
            FormatArg::Csv => Format::Csv,
            FormatArg::Imagefolder => Format::Imagefolder,
            FormatArg::Webdataset => Format::Webdataset,
            FormatArg::Coco => Format::Coco,
        },
        files: args.files.map(|files| match files {
            FilesArg::None => Files::None,
            FilesArg::Copy => Files::Copy,
            FilesArg::Hardlink => Files::Hardlink,
            FilesArg::Symlink => Files::Symlink,
        }),
        embeddings: args.embeddings,
        strict: args.strict,
        shard_samples: args.shard_samples,
        margin: args.margin,
    };
    let mut open = Open::new(settings);
    let folder = Path::new(&args.source);
    let report = if Run::is_run(folder) {
        let run = Run::open(folder)?;
        let (pool, excluded) = open.sets_of(&run.info().pool, &run.info().excluded)?;
        let selection = Selection::Run { run: &run, pool: &pool, excluded: &excluded };
        export_with_progress(settings, &args.out, selection, &options, run.info().kept)?
    } else if folder.is_dir() && !open.collections.exists(&args.source).unwrap_or(false) {
        return Err(Failure::Failed(format!(
            "{}: this is no folder of `akin curate`",
            folder.display()
        )));
    } else {
        let set = open.set(&args.source, &args.source)?;
        let images = set.images().len();
        export_with_progress(settings, &args.out, Selection::Collection(&set), &options, images)?
    };
    list_skipped(&report.skipped);
    show(settings, &args.out, &report)?;
    Ok(Success::unless_skipped(report.skipped.len()))
}

fn export_with_progress(
    settings: &Settings,
    out: &Path,
    selection: Selection<'_>,
    options: &ExportOptions,
    images: usize,
) -> Outcome<ExportReport> {
    let progress = FileProgress::new(settings, images);
    let mut on_done = |count: usize| (0..count).for_each(|_| progress.done());
    let report = export::export(out, selection, options, &mut on_done, &CANCELLED);
    progress.finish();
    match report {
        Err(IndexerError::Cancelled) => {
            Err(Failure::Failed("stopped; nothing was exported".to_owned()))
        }
        report => Ok(report?),
    }
}

fn show(settings: &Settings, out: &Path, report: &ExportReport) -> Outcome<()> {
    let certificate = report.certificate.as_ref();
    let max = certificate.and_then(|certificate| certificate.max_similarity);
    if settings.json {
        let skipped = report.skipped.iter().map(
            |skipped| json!({"path": skipped.path.to_string_lossy(), "reason": skipped.reason}),
        );
        return print_json(&json!({
            "out": out.to_string_lossy(),
            "images": report.images,
            "skipped": skipped.collect::<Vec<_>>(),
            "certified": certificate.is_some(),
            "max_similarity": max,
            "threshold": certificate.map(|certificate| certificate.threshold),
            "pairs_compared": certificate.map(|certificate| certificate.pairs_compared),
            "leaks": certificate.map(|certificate| certificate.leaks),
        }));
    }
    print(&format!("{} images are in {}", report.images, out.display()))?;
    if let (Some(certificate), Some(max)) = (certificate, max) {
        print(&format!(
            "no leaks: the highest similarity with an excluded image is {max:.4}, the threshold \
             {:.4} ({} pairs compared)",
            certificate.threshold, certificate.pairs_compared
        ))?;
    }
    Ok(())
}

fn verify(settings: &Settings, args: &VerifyArgs) -> Outcome {
    let mut open = Open::new(settings);
    let mut missing = None;
    let sets = |info: &ExportInfo| {
        let Some(run) = info.run.as_ref().filter(|_| !args.files_only) else { return Ok(None) };
        match open.sets_of(&run.pool, &run.excluded) {
            Ok(sets) => Ok(Some(sets)),
            Err(error @ IndexerError::NoSuchCollection { .. }) => {
                missing = Some(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    let found = export::verify(&args.folder, sets, &CANCELLED)?;
    if let Some(missing) = missing.filter(|_| !settings.quiet) {
        note(&format!("the certificate was not made again: {missing}"));
    }
    if settings.json {
        print_json(&json!({
            "images": found.info.images,
            "files": found.files,
            "problems": found.problems,
            "certificate": found.certificate.is_some(),
            "certificate_remade": found.certificate_remade,
        }))?;
    } else if found.problems.is_empty() {
        let certificate = match (&found.certificate, found.certificate_remade) {
            (None, _) => "",
            (Some(_), true) => "; the leak certificate holds",
            (Some(_), false) => "; the leak certificate was not compared with the collections",
        };
        print(&format!("{} files are as exported{certificate}", found.files))?;
    }
    match found.problems.as_slice() {
        [] => Ok(Success::Done),
        problems => {
            problems.iter().for_each(|problem| note(problem));
            Err(Failure::Failed(format!(
                "{} problems in {}",
                problems.len(),
                args.folder.display()
            )))
        }
    }
}

/// Collections that are read, each opened once.
struct Open {
    collections: Collections,
    open: BTreeMap<String, Collection>,
}

impl Open {
    fn new(settings: &Settings) -> Self {
        Self { collections: Collections::new(&settings.home), open: BTreeMap::new() }
    }

    fn set(&mut self, name: &str, collection: &str) -> indexer::Result<ImageSet> {
        if !self.open.contains_key(collection) {
            self.open.insert(collection.to_owned(), self.collections.open(collection)?);
        }
        match self.open.get(collection) {
            Some(open) => ImageSet::new(name, open.view()),
            None => Err(IndexerError::InvalidRequest(format!("`{collection}` is not open"))),
        }
    }

    /// The pool and the excluded sets of a run.
    fn sets_of(
        &mut self,
        pool: &SetInfo,
        excluded: &[SetInfo],
    ) -> indexer::Result<(ImageSet, Vec<ImageSet>)> {
        let pool = self.set(&pool.name, &pool.collection)?;
        let excluded = excluded.iter().map(|set| self.set(&set.name, &set.collection));
        let excluded = excluded.collect::<indexer::Result<_>>()?;
        Ok((pool, excluded))
    }
}
