//! `akin bench pipeline`: making a collection of files, end to end, against the model alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{Embedder, Pixels, RgbImage};
use indexer::source::SourceFile;
use indexer::{Collections, CreateOptions, IngestOptions, ingest, pipeline, source};
use serde_json::json;

use crate::args::BenchPipelineArgs;
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;
use crate::usage::{cpu_time, memory};

const COLLECTION: &str = "bench";

pub fn run(settings: &Settings, args: &BenchPipelineArgs) -> Outcome {
    let files = source::list(&args.sources)?.files;
    let model = embedder::open(settings, &args.input)?.embedder;
    let scratch = Scratch::new(&settings.home)?;
    let time = Duration::from_secs(args.model_seconds as u64);
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let before = model_alone(&model, time)?;
        let prepared = prepare_alone(&files, &model)?;
        let indexed = index(&scratch.0, &args.sources, &model)?;
        let after = model_alone(&model, time)?;
        rounds.push(Round { model: (before + after) / 2.0, prepared, indexed });
    }
    report(settings, &model, files.len(), &rounds)
}

/// A folder of our own in the home folder, which goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(home: &Path) -> Outcome<Self> {
        let folder = home.join(format!("bench-pipeline-{}", std::process::id()));
        std::fs::create_dir_all(home)
            .and_then(|()| std::fs::create_dir(&folder))
            .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a folder is left behind");
        }
    }
}

/// Pictures a second and seconds of processor time for each picture.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    cpu: f64,
}

#[derive(Debug)]
struct Round {
    /// The model alone, pictures a second.
    model: f64,
    prepared: Rate,
    indexed: Rate,
}

impl Round {
    fn share(&self) -> f64 {
        self.indexed.per_second / self.model
    }

    /// What the cores could do that compute both one after the other and nothing else.
    fn bound(&self) -> f64 {
        1.0 / (1.0 / self.model + 1.0 / self.prepared.per_second)
    }
}

fn timed(work: impl FnOnce() -> Outcome<usize>) -> Outcome<Rate> {
    let (start, cpu) = (Instant::now(), cpu_time());
    let done = work()?;
    let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    if CANCELLED.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Failure::Failed("stopped".to_owned()));
    }
    let done = done as f64;
    Ok(Rate { per_second: done / wall.as_secs_f64(), cpu: cpu.as_secs_f64() / done })
}

/// The model on pictures that are ready, in batches as when indexing.
fn model_alone(model: &dyn Embedder, time: Duration) -> Outcome<f64> {
    // Any picture will do: the time does not depend on what it shows.
    let values = (0..256 * 256 * 3).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
    let picture = RgbImage::from_raw(256, 256, values)
        .ok_or_else(|| Failure::Failed("a picture to time with cannot be made".to_owned()))?;
    // As many as when indexing more than a few.
    let batch = pipeline::batch_for(model, usize::MAX);
    let batch: Vec<Pixels> = vec![model.prepare(&picture)?; batch];
    model.embed(&batch)?;
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        done += model.embed(&batch)?.len();
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Reading, hashing, decoding and resizing, on all cores, for no model.
fn prepare_alone(files: &[SourceFile], model: &dyn Embedder) -> Outcome<Rate> {
    timed(|| {
        let compute = |batch: &[Pixels]| Ok(vec![(); batch.len()]);
        let mut done = 0;
        pipeline::run(files, model, &CANCELLED, &|_, _| false, &compute, &mut |_, outcome| {
            done += usize::from(matches!(outcome, pipeline::Outcome::Done(..)));
            Ok(())
        })?;
        match done {
            0 => Err(Failure::Failed("there is no picture in what is named".to_owned())),
            done => Ok(done),
        }
    })
}

/// `akin index` into a new collection.
fn index(home: &Path, sources: &[PathBuf], model: &dyn Embedder) -> Outcome<Rate> {
    let collections = Collections::new(home);
    let rate = timed(|| {
        let options = CreateOptions::default();
        let mut collection = collections.create(COLLECTION, model.identity(), options)?;
        let options = IngestOptions::default();
        let report = ingest(&mut collection, model, sources, options, &mut |_| (), &CANCELLED)?;
        // Copies take over the vector of their like: a folder of them would time something else.
        if report.copied > 0 {
            note(&format!("{} files are copies of others and cost less", report.copied));
        }
        Ok(report.added)
    })?;
    collections.delete(COLLECTION)?;
    Ok(rate)
}

/// Name in JSON, name for people, and how it follows from a round.
type Figure<'a> = (&'a str, &'a str, &'a dyn Fn(&Round) -> f64);

fn report(settings: &Settings, model: &dyn Embedder, files: usize, rounds: &[Round]) -> Outcome {
    let identity = model.identity();
    let median = |of: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[0], values[values.len() - 1])
    };
    let figures: [Figure<'_>; 7] = [
        ("model_per_second", "model alone, pictures/s", &|round| round.model),
        ("prepare_per_second", "files to model input alone, pictures/s", &|round| {
            round.prepared.per_second
        }),
        ("index_per_second", "index, pictures/s", &|round| round.indexed.per_second),
        ("index_of_model", "index / model alone", &Round::share),
        ("index_of_bound", "index / both one after the other", &|round| {
            round.indexed.per_second / round.bound()
        }),
        ("prepare_cpu_ms", "files to model input, core-ms a picture", &|round| {
            round.prepared.cpu * 1e3
        }),
        ("index_cpu_ms", "index, core-ms a picture", &|round| round.indexed.cpu * 1e3),
    ];
    let resident = memory().peak;
    if settings.json {
        let mut value = json!({
            "model": identity.name, "size": identity.preprocess.crop,
            "precision": identity.precision, "decode": identity.decode,
            "threads": rayon::current_num_threads(), "files": files, "rounds": rounds.len(),
            "peak_rss_bytes": resident,
        });
        for (key, _, of) in figures {
            let (middle, least, most) = median(of);
            value[key] = json!({ "median": middle, "min": least, "max": most });
        }
        print_json(&value)?;
        return Ok(Success::Done);
    }
    print(&format!(
        "{} at {} px, {}, decode {}, {} threads: {files} files, {} rounds",
        identity.name,
        identity.preprocess.crop,
        identity.precision,
        identity.decode,
        rayon::current_num_threads(),
        rounds.len(),
    ))?;
    for (_, name, of) in figures {
        let (middle, least, most) = median(of);
        print(&format!("{name}: {middle:.2} ({least:.2}-{most:.2})"))?;
    }
    print(&format!("{} MiB resident at most", resident >> 20))?;
    Ok(Success::Done)
}
