//! `akin train`.

mod metrics;
mod ssl;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use engine::Preprocess;
use engine::decode::{DecodeOptions, IccPolicy};
use engine::train::Student;
use engine::train::checkpoint::{WeightsDtype, write_weights};
use engine::train::distill::{DistillConfig, Distiller, Pictures, StepReport, ViewGroup};
use engine::train::ops::MatmulPrecision;
use engine::vit::PosEmbedRule;
use engine::vit::config::PATCH_SIZE;
use indexer::training_pictures::TrainingPictures;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::metrics::{Curves, Metrics};
use crate::args::{DistillArgs, StoreArg, TrainCommand, TrainMatmulArg};
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;

const DISTILL_CURVES: &Curves = &[
    ("Distances", &["loss", "cls", "patch"]),
    ("Learning rate", &["lr"]),
    ("Images per second", &["images_per_second"]),
];

pub fn run(settings: &Settings, command: &TrainCommand) -> Outcome {
    match command {
        TrainCommand::Ssl(args) => ssl::run(settings, args),
        TrainCommand::Distill(args) => distill(settings, args),
        TrainCommand::Probe(args) => super::probe::train(settings, args),
    }
}

/// The pictures of sources, decoded when asked for.
fn pictures(sources: &[PathBuf]) -> Outcome<TrainingPictures> {
    // Colours as the released models were trained on, and as models take them by default.
    let options = DecodeOptions { icc: IccPolicy::Ignore, ..DecodeOptions::default() };
    let pictures = TrainingPictures::list(sources, options)?;
    for (path, reason) in pictures.unreadable() {
        note(&format!("skipped {}: {reason}", path.display()));
    }
    if pictures.is_empty() {
        let named: Vec<String> = sources.iter().map(|s| s.display().to_string()).collect();
        return Err(Failure::Failed(format!(
            "there is no picture in the sources given ({}); name files or folders with some",
            named.join(", ")
        )));
    }
    Ok(pictures)
}

fn distill(settings: &Settings, args: &DistillArgs) -> Outcome {
    let name = settings.model.as_deref().ok_or_else(|| {
        Failure::Usage("name the teacher: `--model PATH`, or a name of `akin model list`".into())
    })?;
    let pictures = pictures(&args.sources)?;
    let config = DistillConfig {
        seed: args.seed,
        steps: args.steps,
        batch: args.batch,
        accumulate: args.accumulate,
        groups: groups(args),
        views: args.views,
        lr: args.lr.unwrap_or(if args.arch.is_some() { 5e-4 } else { 2e-5 }),
        warmup: args.warmup,
        ..DistillConfig::default()
    };
    std::fs::create_dir_all(&args.out).map_err(|error| {
        Failure::Failed(format!("cannot create {}: {error}", args.out.display()))
    })?;
    let weights = embedder::weights(settings, name)?;
    let device = engine::open_device(&settings.device)?;
    let precision = precision(args.matmul);
    let mut teacher =
        Student::from_weights(&weights, PosEmbedRule::Published, precision, &device)?.frozen();
    let student = match args.arch {
        Some(arch) => {
            let shape = ssl::shape(arch, (args.width, args.depth, None), args.size);
            Student::random(shape, PosEmbedRule::Published, precision, &device, args.seed)?
        }
        None => {
            let all: Vec<usize> = (0..teacher.config().depth).collect();
            let grid = args.size as usize / PATCH_SIZE;
            teacher.start_from(args.blocks.as_deref().unwrap_or(&all), grid)?
        }
    };
    let mut run =
        Distiller::new(config, &teacher, weights.sha256()?, student, args.cache.as_deref())?;
    let checkpoint = args.out.join("checkpoint.safetensors");
    if checkpoint.exists() {
        run.resume(&checkpoint)?;
        if !settings.quiet {
            note(&format!("going on after step {}", run.step_count()));
        }
    }
    let start = Instant::now();
    let last = train(settings, args, &mut run, &pictures, &checkpoint)?;
    if settings.json {
        print_json(&json!({
            "out": args.out, "steps": run.step_count(), "finished": run.step_count() >= args.steps,
            "last": last, "seconds": start.elapsed().as_secs_f64(),
        }))?;
    } else if !settings.quiet {
        let (done, steps) = (run.step_count(), args.steps);
        let model = args.out.join("model.safetensors");
        note(&format!("{done} of {steps} steps done; model in {}", model.display()));
    }
    Ok(Success::Done)
}

/// The whole picture and, where asked for, parts of it; the teacher sees all at one scale.
fn groups(args: &DistillArgs) -> Vec<ViewGroup> {
    let mut groups = vec![ViewGroup::global(args.size, args.teacher_size)];
    if args.locals > 0 {
        let patch = PATCH_SIZE as u32;
        let teacher_size =
            (args.local_size.saturating_mul(args.teacher_size) / args.size.max(1) / patch).max(1);
        groups.push(ViewGroup::local(args.locals, args.local_size, teacher_size * patch));
    }
    groups
}

fn train(
    settings: &Settings,
    args: &DistillArgs,
    run: &mut Distiller,
    pictures: &TrainingPictures,
    checkpoint: &Path,
) -> Outcome<Option<StepReport>> {
    let bar = bar(settings, args.steps, run.step_count());
    let mut metrics = Metrics::open(&args.out, run.step_count(), DISTILL_CURVES)?;
    let mut last = None;
    while run.step_count() < args.steps && !CANCELLED.load(Ordering::Relaxed) {
        let start = Instant::now();
        let report = run.step(pictures)?;
        let rate = report.images as f64 / start.elapsed().as_secs_f64();
        for (name, reason) in &report.skipped {
            bar.suspend(|| note(&format!("skipped {name}: {reason}")));
        }
        metrics.add(&report, rate)?;
        bar.set_position(report.step as u64);
        let StepReport { loss, cls, lr, .. } = &report;
        bar.set_message(format!("loss {loss:.4} (CLS {cls:.4})  lr {lr:.1e}  {rate:.1} images/s"));
        if report.step % args.save_every == 0 {
            save(args, run, checkpoint)?;
            metrics.draw()?;
        }
        last = Some(report);
    }
    bar.finish_and_clear();
    save(args, run, checkpoint)?;
    metrics.draw()?;
    Ok(last)
}

/// The model first: a checkpoint never is newer than it.
fn save(args: &DistillArgs, run: &Distiller, checkpoint: &Path) -> Outcome<()> {
    let preprocess = Preprocess::for_size(args.size)?;
    let folder = || args.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(folder).unwrap_or_else(|| "distilled".to_owned());
    let metadata = HashMap::from([
        ("akin.name".to_owned(), name),
        ("akin.resize".to_owned(), preprocess.resize.to_string()),
        ("akin.crop".to_owned(), preprocess.crop.to_string()),
    ]);
    let dtype = weights_dtype(args.store);
    let model = args.out.join("model.safetensors");
    write_weights(&model, run.student_config(), run.average(), dtype, metadata)?;
    run.save(checkpoint)?;
    Ok(())
}

/// Progress over `steps` steps, `done` of them behind.
fn bar(settings: &Settings, steps: usize, done: usize) -> ProgressBar {
    let bar = match settings.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(steps as u64),
    };
    let template = "{bar:30} {pos}/{len} steps  ETA {eta}  {msg}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_position(done as u64);
    bar.reset_eta();
    bar
}

fn precision(matmul: TrainMatmulArg) -> MatmulPrecision {
    match matmul {
        TrainMatmulArg::F32 => MatmulPrecision::F32,
        TrainMatmulArg::Bf16 => MatmulPrecision::Bf16,
    }
}

fn weights_dtype(store: StoreArg) -> WeightsDtype {
    match store {
        StoreArg::F32 => WeightsDtype::F32,
        StoreArg::F16 => WeightsDtype::F16,
        StoreArg::Int8 => WeightsDtype::Int8,
    }
}
