//! `akin train ssl`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use engine::train::Student;
use engine::train::checkpoint::{write_weights, write_whole};
use engine::train::head::HeadConfig;
use engine::train::losses::Centring;
use engine::train::ops::MatmulPrecision;
use engine::train::ssl::{CropSizes, Execution, HighRes, SslConfig, SslReport, SslTrainer};
use engine::vit::config::HEAD_DIM;
use engine::vit::{PosEmbedRule, VitConfig, Weights};
use engine::{DinoEmbedder, ModelOptions, Preprocess};
use indexer::eval::Knn;
use indexer::source::{self, SourceFile};
use indexer::training_pictures::TrainingPictures;
use serde_json::{Value, json};

use super::metrics::{Curves, Metrics};
use super::{bar, pictures, precision, weights_dtype};
use crate::args::{ArchArg, BackboneArgs, CentringArg, SslArgs};
use crate::commands::eval;
use crate::embedder;
use crate::outcome::{Failure, Outcome, Success, note, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;

const CURVES: &Curves = &[
    ("Losses", &["loss", "dino_global", "dino_local", "ibot", "koleo"]),
    ("k-NN accuracy of the teacher, %", &["knn_percent"]),
    ("Learning rate", &["lr"]),
    ("Images per second", &["images_per_second"]),
];
/// As published for ImageNet's smaller relatives: the 10 nearest vote.
const KNN: Knn = Knn { k: 10, temperature: 0.07 };

pub fn run(settings: &Settings, args: &SslArgs) -> Outcome {
    let pictures = pictures(&args.sources)?;
    let held_out = args.eval.as_deref().map(labelled_files).transpose()?;
    let config = config(args);
    let device = engine::open_device(&settings.device)?;
    let precision = precision(args.matmul);
    let backbone = backbone(settings, args, precision, &device)?;
    std::fs::create_dir_all(&args.out).map_err(|error| {
        Failure::Failed(format!("cannot create {}: {error}", args.out.display()))
    })?;
    let execution = Execution { checkpointing: args.checkpointing, plain: false };
    let mut run = match &args.teacher {
        None => SslTrainer::new(config, execution, backbone, precision)?,
        Some(name) => {
            let weights = embedder::weights(settings, name)?;
            let rule = PosEmbedRule::Published;
            let teacher = Student::from_weights(&weights, rule, precision, &device)?;
            let teacher = (&teacher, weights.sha256()?);
            SslTrainer::distillation(
                config,
                execution,
                backbone,
                teacher,
                args.teacher_heads.as_deref(),
            )?
        }
    };
    let checkpoint = args.out.join("checkpoint.safetensors");
    if checkpoint.exists() {
        run.resume(&checkpoint)?;
        if !settings.quiet {
            note(&format!("going on after step {}", run.step_count()));
        }
    }
    let start = Instant::now();
    let mut session = Session {
        settings,
        args,
        device,
        held_out,
        checkpoint,
        metrics: Metrics::open(&args.out, run.step_count(), CURVES)?,
        accuracy: None,
    };
    let last = session.train(&mut run, &pictures)?;
    if settings.json {
        print_json(&json!({
            "out": args.out, "steps": run.step_count(), "finished": run.step_count() >= args.steps,
            "last": last, "knn_percent": session.accuracy,
            "seconds": start.elapsed().as_secs_f64(),
        }))?;
    } else if !settings.quiet {
        let (done, steps) = (run.step_count(), args.steps);
        let model = args.out.join("model.safetensors");
        let accuracy = session.accuracy.map(|a| format!("; k-NN {a:.1} %")).unwrap_or_default();
        note(&format!("{done} of {steps} steps done; model in {}{accuracy}", model.display()));
    }
    Ok(Success::Done)
}

/// The published settings, changed as asked.
fn config(args: &SslArgs) -> SslConfig {
    let published = match args.teacher {
        None => {
            let published = SslConfig::published(args.steps, args.batch);
            SslConfig { drop_path: args.drop_path, ..published }
        }
        Some(_) => SslConfig::distillation(args.steps, args.batch),
    };
    let sizes = CropSizes { global: args.size, local: args.local_size };
    let high_res = args
        .high_res_steps
        .map(|steps| HighRes { steps, sizes: CropSizes { global: args.high_res_size, ..sizes } });
    SslConfig {
        seed: args.seed,
        accumulate: args.accumulate,
        sizes,
        locals: args.locals,
        high_res,
        head: HeadConfig {
            hidden: args.hidden,
            bottleneck: args.bottleneck,
            prototypes: args.prototypes,
        },
        shared_head: args.shared_head,
        centring: match args.centring {
            CentringArg::SinkhornKnopp => Centring::SinkhornKnopp,
            CentringArg::Softmax => Centring::Softmax,
        },
        lr: args.lr.unwrap_or_else(|| SslConfig::published_lr(args.batch * args.accumulate)),
        warmup: args.warmup.unwrap_or(published.warmup),
        temperature_warmup: args.temperature_warmup.unwrap_or(published.temperature_warmup),
        freeze_last_layer: args.freeze_last_layer.unwrap_or(published.freeze_last_layer),
        layer_decay: args.layer_decay,
        momentum: (args.momentum, published.momentum.1),
        ..published
    }
}

/// Random, or from weights.
fn backbone(
    settings: &Settings,
    args: &SslArgs,
    precision: MatmulPrecision,
    device: &engine::Device,
) -> Outcome<Student> {
    let BackboneArgs { arch, width, depth, heads, registers, layer_scale, init } = &args.backbone;
    let rule = PosEmbedRule::Published;
    if let Some(name) = init {
        let weights = embedder::weights(settings, name)?;
        let mut student = Student::from_weights(&weights, rule, precision, device)?;
        student.add_mask_token(Some(&weights))?;
        return Ok(student);
    }
    let shape = shape(*arch, (*width, *depth, *heads), args.size);
    let shape = VitConfig { num_register_tokens: *registers, ..shape };
    let student = Student::random(shape, rule, precision, device, args.seed)?;
    student.set_layer_scale(*layer_scale)?;
    Ok(student)
}

/// A shape of the family, with another width, depth or number of heads where given, for pictures of
/// `size` pixels.
pub(super) fn shape(
    arch: ArchArg,
    (width, depth, heads): (Option<usize>, Option<usize>, Option<usize>),
    size: u32,
) -> VitConfig {
    let (arch_width, arch_depth, arch_heads) = match arch {
        ArchArg::Ti => (192, 12, 3),
        ArchArg::Xs => (256, 12, 4),
        ArchArg::S => (384, 12, 6),
        ArchArg::B => (768, 12, 12),
        ArchArg::L => (1024, 24, 16),
    };
    let width = width.unwrap_or(arch_width);
    // Heads of the published width, unless asked otherwise or that is impossible.
    let usual = if width == arch_width { arch_heads } else { (width / HEAD_DIM).max(1) };
    let grid = size as usize / engine::vit::config::PATCH_SIZE;
    VitConfig::mlp(width, depth.unwrap_or(arch_depth), heads.unwrap_or(usual), grid)
}

/// Pictures with a class that at least one other has.
fn labelled_files(folder: &Path) -> Outcome<Vec<SourceFile>> {
    let files: Vec<SourceFile> = source::list(&[folder.to_path_buf()])?
        .files
        .into_iter()
        .filter(|file| source::has_picture_extension(&file.path))
        .collect();
    let mut classes = HashMap::new();
    for file in &files {
        *classes.entry(file.path.parent()).or_insert(0usize) += 1;
    }
    match classes.values().any(|count| *count > 1) {
        true => Ok(files),
        false => Err(Failure::Usage(format!(
            "{} cannot be evaluated on: no folder in it holds two pictures (a picture's class is \
             the name of its folder); name another folder with --eval",
            folder.display()
        ))),
    }
}

struct Session<'a> {
    settings: &'a Settings,
    args: &'a SslArgs,
    device: engine::Device,
    held_out: Option<Vec<SourceFile>>,
    checkpoint: PathBuf,
    metrics: Metrics,
    /// The latest.
    accuracy: Option<f64>,
}

impl Session<'_> {
    fn train(
        &mut self,
        run: &mut SslTrainer,
        pictures: &TrainingPictures,
    ) -> Outcome<Option<SslReport>> {
        let args = self.args;
        let bar = bar(self.settings, args.steps, run.step_count());
        let mut last = None;
        if run.step_count() == 0 && self.held_out.is_some() {
            bar.set_message("evaluating");
            self.save(run)?;
            self.evaluate(run)?;
        }
        while run.step_count() < args.steps && !CANCELLED.load(Ordering::Relaxed) {
            let start = Instant::now();
            let report = run.step(pictures)?;
            let rate = report.images as f64 / start.elapsed().as_secs_f64();
            for (name, reason) in &report.skipped {
                bar.suspend(|| note(&format!("skipped {name}: {reason}")));
            }
            self.metrics.add(&report, rate)?;
            bar.set_position(report.step as u64);
            bar.set_message(self.message(&report, rate));
            let is_last = report.step == args.steps;
            let evaluate =
                self.held_out.is_some() && (is_last || report.step % args.eval_every == 0);
            if evaluate || is_last || report.step % args.save_every == 0 {
                self.save(run)?;
            }
            if evaluate {
                self.evaluate(run)?;
            }
            last = Some(report);
        }
        bar.finish_and_clear();
        self.save(run)?;
        Ok(last)
    }

    fn message(&self, report: &SslReport, rate: f64) -> String {
        let losses = &report.losses;
        let accuracy = self.accuracy.map(|a| format!("  k-NN {a:.1} %")).unwrap_or_default();
        format!(
            "loss {:.3} (DINO {:.3} + {:.3}, iBOT {:.3}, KoLeo {:.3})  lr {:.1e}  {rate:.1} \
             images/s{accuracy}",
            losses.loss,
            losses.dino_global,
            losses.dino_local,
            losses.ibot,
            losses.koleo,
            report.lr
        )
    }

    fn model(&self) -> PathBuf {
        self.args.out.join("model.safetensors")
    }

    /// The model first: a checkpoint never is newer than it.
    fn save(&self, run: &SslTrainer) -> Outcome<()> {
        let done = run.step_count().saturating_sub(1);
        let preprocess = Preprocess::for_size(run.config().sizes_at(done).global)?;
        let folder = || self.args.out.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = self.args.name.clone().or_else(folder).unwrap_or_else(|| "ssl".to_owned());
        let metadata = HashMap::from([
            ("akin.name".to_owned(), name),
            ("akin.resize".to_owned(), preprocess.resize.to_string()),
            ("akin.crop".to_owned(), preprocess.crop.to_string()),
        ]);
        let shape = run.backbone_config();
        // Weights do not tell how many heads there are; other readers assume 64 values each.
        if shape.num_heads * HEAD_DIM != shape.embed_dim {
            let heads = json!({ "num_attention_heads": shape.num_heads });
            write_whole(&self.args.out.join("config.json"), heads.to_string().as_bytes())?;
        }
        let dtype = weights_dtype(self.args.store);
        write_weights(&self.model(), shape, run.average(), dtype, metadata)?;
        run.save(&self.checkpoint)?;
        self.metrics.draw()
    }

    /// k-NN accuracy of the saved model on the held-out pictures, each classified by all others.
    fn evaluate(&mut self, run: &SslTrainer) -> Outcome<()> {
        let Some(files) = &self.held_out else { return Ok(()) };
        let weights = Weights::open(&self.model())?;
        let options = ModelOptions {
            preprocess: weights.preprocess()?.unwrap_or_default(),
            ..ModelOptions::default()
        };
        let model = DinoEmbedder::from_weights(&weights, &options, &self.device)?;
        let Some(images) = eval::embed_quietly(files, &model)? else { return Ok(()) };
        let accuracy = KNN.leave_one_out(&images)?;
        let line: Value = json!({
            "step": run.step_count(), "knn_percent": accuracy.percent(),
            "queries": accuracy.queries,
        });
        self.metrics.write(&line)?;
        self.accuracy = Some(accuracy.percent());
        self.metrics.draw()
    }
}
