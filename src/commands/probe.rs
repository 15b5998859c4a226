//! `akin train probe` and `akin eval linear`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use engine::probe::{
    Head, LabelledTokens, LinearConfig, Method, Plan, Recipe, Scale, Ties, Tried, fit_head,
};
use engine::{DinoEmbedder, Embedder};
use indexer::pipeline::Skipped;
use indexer::probe::{LabelledPicture, Reader, accuracy, check_apart, classes, labelled, split};
use indexer::source;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{EvalLinearArgs, FitArgs, MethodArg, ProbeArgs, ScaleArg, YesNo};
use crate::commands::eval::report;
use crate::embedder;
use crate::outcome::{Failure, Outcome, note};
use crate::progress::{CANCELLED, FileProgress, unreadable};
use crate::settings::Settings;

/// `akin train probe`.
pub fn train(settings: &Settings, args: &ProbeArgs) -> Outcome {
    check_out(&args.out)?;
    let mut run = Run::new(settings, &args.fit)?;
    // Its probabilities will be read as confidence.
    let (head, mut result) = run.fit(&plan(&args.fit, args.scale, Ties::LowestLoss)?)?;
    head.save(&args.out)?;
    result["out"] = json!(args.out);
    result["labels_from"] =
        json!(if head.reads_stored_vectors() { "stored vectors" } else { "files" });
    run.report(&result)
}

/// `akin eval linear`.
pub fn eval(settings: &Settings, args: &EvalLinearArgs) -> Outcome {
    let mut run = Run::new(settings, &args.fit)?;
    let (_, result) = run.fit(&plan(&args.fit, args.scale, Ties::First)?)?;
    run.report(&result)
}

/// Hours may pass before the file is written.
fn check_out(out: &Path) -> Outcome<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let reason = match folder {
        _ if out.is_dir() => "it is a folder; name a file",
        Some(folder) if !folder.is_dir() => "its folder does not exist; create it first",
        _ => return Ok(()),
    };
    Err(Failure::Failed(format!("cannot write {}: {reason}", out.display())))
}

fn plan(args: &FitArgs, scale: ScaleArg, ties: Ties) -> Outcome<Plan> {
    let scale = match scale {
        ScaleArg::Raw => Scale::Raw,
        ScaleArg::Unit => Scale::Unit,
    };
    if args.method == MethodArg::Logistic {
        let given = [
            ("--layers", args.layers.is_some()),
            ("--avg-pool", args.avg_pool.is_some()),
            ("--lr", args.lr.is_some()),
            ("--iterations", args.iterations.is_some()),
            ("--batch", args.batch.is_some()),
            ("--views", args.views.is_some()),
        ];
        return match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::Usage(format!(
                "{name} belongs to `--method linear`; logistic regression reads CLS of the last \
                 block, once for each picture"
            ))),
            None => Ok(Plan::Logistic { scale, ties }),
        };
    }
    let published = LinearConfig::default();
    let layers = args.layers.as_deref().unwrap_or(&[1, 4]);
    let avg_pool = args.avg_pool.as_deref().unwrap_or(&[YesNo::No, YesNo::Yes]);
    let recipe =
        |blocks: usize, pool: &YesNo| Recipe { blocks, avg_pool: *pool == YesNo::Yes, scale };
    let config = LinearConfig {
        recipes: layers
            .iter()
            .flat_map(|&blocks| avg_pool.iter().map(move |pool| recipe(blocks, pool)))
            .collect(),
        learning_rates: args.lr.clone().unwrap_or(published.learning_rates),
        batch: args.batch.unwrap_or(published.batch),
        iterations: args.iterations.unwrap_or(published.iterations),
        ties,
        seed: args.seed,
    };
    Ok(Plan::Linear { config, views: args.views.unwrap_or(0) })
}

struct Run<'a> {
    settings: &'a Settings,
    args: &'a FitArgs,
    model: DinoEmbedder,
    skipped: Vec<Skipped>,
}

impl<'a> Run<'a> {
    fn new(settings: &'a Settings, args: &'a FitArgs) -> Outcome<Self> {
        let model = embedder::open(settings, &args.input)?.embedder;
        Ok(Self { settings, args, model, skipped: Vec::new() })
    }

    fn fit(&mut self, plan: &Plan) -> Outcome<(Head, Value)> {
        if let Plan::Linear { config, .. } = plan {
            let depth = self.model.config().depth;
            config.recipes.iter().try_for_each(|recipe| recipe.check(depth))?;
        }
        let args = self.args;
        let pictures = self.read(&args.sources, plan)?;
        let classes = classes(&pictures)?;
        let (train, validation) = match args.val.is_empty() {
            true => split(pictures, args.val_share, args.seed)?,
            false => {
                let validation = self.read(&args.val, plan)?;
                check_apart("validation", &validation, &pictures)?;
                (pictures, validation)
            }
        };
        let validation_tokens = labelled("validation", &validation, &classes)?;
        // Before training, so that what is wrong with them is known early.
        let queries = match args.queries.is_empty() {
            true => None,
            false => {
                let queries = self.read(&args.queries, plan)?;
                check_apart("test", &queries, &train)?;
                check_apart("test", &queries, &validation)?;
                Some(labelled("test", &queries, &classes)?)
            }
        };
        let views = self.views(plan, &train, labelled("training", &train, &classes)?)?;
        let start = Instant::now();
        let (head, tried) = self.train(plan, &classes, &views, &validation_tokens)?;
        let mut result = describe(plan, &head, &tried);
        result["training_seconds"] = json!(start.elapsed().as_secs_f64());
        if let Some(queries) = queries {
            let (top1, top5) = accuracy(&head, &queries)?;
            result["queries"] = json!(top1.queries);
            result["correct"] = json!(top1.correct);
            result["top1_percent"] = json!(top1.percent());
            result["top5_percent"] = json!(top5.percent());
        }
        Ok((head, result))
    }

    fn read(&mut self, sources: &[PathBuf], plan: &Plan) -> Outcome<Vec<LabelledPicture>> {
        let listing = source::list(sources)?;
        self.skipped.extend(unreadable(listing.unreadable));
        let mut progress = FileProgress::new(self.settings, listing.files.len());
        let (pictures, skipped) =
            self.reader(plan).read(&listing.files, &mut |skipped| progress.next(skipped))?;
        progress.finish();
        self.skipped.extend(skipped);
        not_cancelled()?;
        Ok(pictures)
    }

    /// The training pictures as they are, or random views of them.
    fn views(
        &self,
        plan: &Plan,
        train: &[LabelledPicture],
        tokens: LabelledTokens,
    ) -> Outcome<Vec<LabelledTokens>> {
        let (Plan::Linear { views: count @ 1.., .. }, seed) = (plan, self.args.seed) else {
            return Ok(vec![tokens]);
        };
        let mut progress = FileProgress::new(self.settings, train.len() * *count as usize);
        let mut views = Vec::new();
        for view in 0..*count {
            let mut on_file = |skipped: Option<&Skipped>| progress.next(skipped);
            let view = self.reader(plan).read_view(train, (seed, view), &mut on_file)?;
            not_cancelled()?;
            views.push(LabelledTokens { tokens: view, labels: tokens.labels.clone() });
        }
        progress.finish();
        Ok(views)
    }

    fn train(
        &self,
        plan: &Plan,
        classes: &[String],
        views: &[LabelledTokens],
        validation: &LabelledTokens,
    ) -> Outcome<(Head, Tried)> {
        let bar = match self.settings.quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(plan.steps() as u64),
        };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  ETA {eta}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut on_step = |step: usize, loss: Option<f32>| {
            bar.set_position(step as u64);
            if let Some(loss) = loss.filter(|_| step.is_multiple_of(50)) {
                bar.set_message(format!("mean loss {loss:.4}"));
            }
            !CANCELLED.load(Ordering::Relaxed)
        };
        let model = self.model.identity();
        let fitted = fit_head(plan, (model, classes), views, validation, &mut on_step);
        bar.finish_and_clear();
        Ok(fitted?)
    }

    fn reader(&self, plan: &Plan) -> Reader<'_> {
        Reader { model: &self.model, blocks: plan.blocks(), cancel: &CANCELLED }
    }

    fn report(&self, result: &Value) -> Outcome {
        if result.get("top1_percent").is_none() && !self.settings.quiet {
            note(
                "validation figures are of the pictures the head was chosen on, and flatter it; \
                 for a test result, name others with --queries",
            );
        }
        report(self.settings, &self.skipped, result)
    }
}

fn not_cancelled() -> Outcome<()> {
    match CANCELLED.load(Ordering::Relaxed) {
        true => Err(Failure::Failed("stopped before the end; there is no head".to_owned())),
        false => Ok(()),
    }
}

fn describe(plan: &Plan, head: &Head, tried: &Tried) -> Value {
    let info = head.info();
    let mut result = json!({
        "protocol": match plan {
            Plan::Linear { .. } => "linear probe",
            Plan::Logistic { .. } => "logistic regression",
        },
        "model": info.model.name,
        "classes": info.classes.len(),
        "training_pictures": info.training_pictures,
        "heads_tried": tried.len(),
        "features": info.recipe.to_string(),
    });
    match info.method {
        Method::Linear { learning_rate, batch, iterations, views, .. } => {
            result["learning_rate"] = json!(learning_rate);
            result["batch"] = json!(batch);
            result["iterations"] = json!(iterations);
            result["views"] = json!(views);
        }
        Method::Logistic { c } => result["c"] = json!(c),
    }
    let score = info.validation;
    result["validation_pictures"] = json!(score.pictures);
    result["validation_correct"] = json!(score.correct);
    result["validation_percent"] =
        json!(100.0 * score.correct as f64 / score.pictures.max(1) as f64);
    result["tried"] = json!(tried);
    result
}
