//! `akin curate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexer::curate::config::{Balance, Method, Spread};
use indexer::curate::{
    self, CurateConfig, CurateEvent, ImageSet, Run, RunInfo, Sources, Step, Verdict,
};
use indexer::{
    Collection, Collections, ContentHash, IndexerError, IngestOptions, Locator, Manifest, View,
};
use serde_json::json;

use crate::args::{
    CurateArgs, CurateCommand, CurateMethod, CurateRunArgs, ExplainArgs, InputArgs, ReviewArgs,
    SpreadArg,
};
use crate::commands::index;
use crate::embedder::{self, Opened};
use crate::outcome::{Failure, Outcome, Success, note, print, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;

pub fn run(settings: &Settings, args: &CurateArgs) -> Outcome {
    match (&args.command, &args.run) {
        (Some(CurateCommand::Explain(args)), _) => explain(settings, args),
        (Some(CurateCommand::Review(args)), _) => review(settings, args),
        (None, Some(args)) => grow(settings, args),
        (None, None) => Err(Failure::Usage("name a pool and a folder: --pool, --out".to_owned())),
    }
}

fn grow(settings: &Settings, args: &CurateRunArgs) -> Outcome {
    let config = configured(settings, args);
    config.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let mut sets = Sets::new(settings, &args.pool)?;
    let named = |sets: &mut Sets<'_>, words: &[String]| -> Outcome<Vec<ImageSet>> {
        words.iter().map(|word| sets.open(word)).collect()
    };
    let seeds = named(&mut sets, &args.seeds)?;
    let excluded = named(&mut sets, &args.exclude)?;
    let pool = ImageSet::new(&args.pool, sets.view(&args.pool)?)?;
    let skipped = sets.skipped;
    let sources = Sources { pool, seeds, excluded };
    let mut on_event = |event: CurateEvent<'_>| {
        if settings.quiet {
            return;
        }
        match event {
            CurateEvent::Started { folder, images } => note(&format!("{folder}: {images} images")),
            CurateEvent::Done { step, reused } => note(&format!(
                "{}: {} images left{}",
                step.folder,
                step.images_out,
                if reused { ", as computed before" } else { "" }
            )),
            CurateEvent::Computed { .. } | CurateEvent::Writing => {}
        }
    };
    let info = match curate::run(&args.out, &sources, &config, &mut on_event, &CANCELLED) {
        Err(IndexerError::Cancelled) => {
            return Err(Failure::Failed(
                "stopped; the same command goes on after the last step that was done".to_owned(),
            ));
        }
        done => done?,
    };
    report(settings, &args.out, &info)?;
    Ok(Success::unless_skipped(skipped))
}

/// The configured steps, with what the command line says instead.
fn configured(settings: &Settings, args: &CurateRunArgs) -> CurateConfig {
    let mut config = settings.curate.clone().unwrap_or_default();
    config.random_seed = args.random_seed.unwrap_or(config.random_seed);
    for step in &mut config.steps {
        match step {
            Step::SelfDedup(step) => step.threshold = args.self_threshold.or(step.threshold),
            Step::RelativeDedup(step) => {
                step.threshold = args.threshold.or(step.threshold);
                step.spread = match args.spread {
                    Some(SpreadArg::Duplicates) => Spread::Duplicates,
                    Some(SpreadArg::Component) => Spread::Component,
                    Some(SpreadArg::Direct) => Spread::Direct,
                    None => step.spread,
                };
            }
            Step::Retrieve(step) => {
                step.method = match args.method {
                    Some(CurateMethod::Sample) => Method::Sample,
                    Some(CurateMethod::Cluster) => Method::Cluster,
                    None => step.method,
                };
                step.k = args.k.unwrap_or(step.k);
                step.clusters = args.clusters.or(step.clusters);
                step.min_seeds = args.min_seeds.unwrap_or(step.min_seeds);
                step.per_cluster = args.per_cluster.unwrap_or(step.per_cluster);
                step.cap = args.cap.unwrap_or(step.cap);
            }
            Step::Balance(step) => step.target = args.balance.unwrap_or(step.target),
            Step::SemDedup(_) => {}
        }
    }
    let balances = config.steps.iter().any(|step| matches!(step, Step::Balance(_)));
    if let Some(target) = args.balance.filter(|_| !balances) {
        config.steps.push(Step::Balance(Balance { target, ..Balance::default() }));
    }
    config
}

/// Collections that are read, each opened once.
struct Sets<'a> {
    settings: &'a Settings,
    collections: Collections,
    pool: Manifest,
    /// Opened when a folder is the first to need it.
    model: Option<Opened>,
    open: BTreeMap<String, Collection>,
    /// Pictures of folders that could not be read.
    skipped: usize,
}

impl<'a> Sets<'a> {
    fn new(settings: &'a Settings, pool: &str) -> Outcome<Self> {
        let collections = Collections::new(&settings.home);
        let pool = collections.manifest(pool)?;
        let open = BTreeMap::new();
        Ok(Self { settings, collections, pool, model: None, open, skipped: 0 })
    }

    /// A set as typed: `NAME=SET` or `SET`, a collection or else a folder.
    fn open(&mut self, word: &str) -> Outcome<ImageSet> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '\\']);
        let (name, set) = match word.split_once('=') {
            Some((name, set)) if is_name(name) && !Path::new(word).exists() => (Some(name), set),
            _ => (None, word),
        };
        let is_collection = self.collections.exists(set).unwrap_or(false);
        if is_collection {
            return Ok(ImageSet::new(name.unwrap_or(set), self.view(set)?)?);
        }
        let folder = Path::new(set);
        if !folder.is_dir() {
            return Err(Failure::Usage(format!(
                "`{set}` is neither a collection (see `akin collection list`) nor a folder"
            )));
        }
        let folder = folder.canonicalize()?;
        let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let collection = self.embed(&folder)?;
        Ok(ImageSet::new(name.unwrap_or(&own), self.view(&collection)?)?)
    }

    /// The state of a collection.
    fn view(&mut self, name: &str) -> Outcome<Arc<View>> {
        if !self.open.contains_key(name) {
            self.open.insert(name.to_owned(), self.collections.open(name)?);
        }
        let open = self.open.get(name);
        open.map(Collection::view)
            .ok_or_else(|| Failure::Failed(format!("collection `{name}` is not open")))
    }

    /// Brings a collection of a folder's pictures up to date, made with the pool's model; its name.
    fn embed(&mut self, folder: &PathBuf) -> Outcome<String> {
        let path = Locator::from(folder.as_path());
        let key = [path.as_bytes(), b"\0", self.pool.fingerprint.as_bytes()].concat();
        let hash = ContentHash::of(&key);
        let name = format!("set-{}", hash.as_str().get(..16).unwrap_or_default());
        if self.open.contains_key(&name) {
            return Ok(name);
        }
        let opened = match self.model.take() {
            Some(opened) => opened,
            None => embedder::for_collection(self.settings, &InputArgs::NONE, &self.pool)?,
        };
        let mut collection = index::open_with(self.settings, &name, &opened)?;
        let sources = std::slice::from_ref(folder);
        let options = IngestOptions::default();
        let report = index::with_progress(
            self.settings,
            &mut collection,
            &opened.embedder,
            sources,
            options,
        )?;
        index::end(&collection, &report)?;
        self.skipped += report.skipped.len();
        forget_missing(&mut collection)?;
        self.model = Some(opened);
        self.open.insert(name.clone(), collection);
        Ok(name)
    }
}

/// Removes images whose file is no more: the folder is the set, not what it once held.
fn forget_missing(collection: &mut Collection) -> Outcome<()> {
    let mut gone = Vec::new();
    for image in collection.images() {
        let (id, record) = image?;
        if !record.path.to_path().exists() {
            gone.push(id);
        }
    }
    for id in gone {
        collection.remove(id)?;
    }
    collection.finish()?;
    Ok(())
}

fn report(settings: &Settings, folder: &Path, info: &RunInfo) -> Outcome<()> {
    if settings.json {
        return print_json(&json!({"run": folder.to_string_lossy(), "result": info}));
    }
    print(&format!("{} of {} images are in {}", info.kept, info.pool.images, folder.display()))?;
    for account in &info.accounts {
        let of = &account.retrieved;
        print(&format!(
            "  {}: {} seed images, {} found by {}, {} collisions, {} retrieved, {} in the result",
            of.seeds, of.images, of.found, of.method, of.collisions, of.retrieved, account.kept
        ))?;
    }
    Ok(())
}

fn explain(settings: &Settings, args: &ExplainArgs) -> Outcome {
    let run = Run::open(&args.folder)?;
    let mut answers = Vec::new();
    for image in &args.images {
        let row = run.find(image)?;
        let sentences = curate::explain(row, run.info());
        if !settings.json {
            print(&sentences.join("\n"))?;
        }
        answers.push(json!({
            "id": row.id,
            "path": row.path,
            "kept": row.kept,
            "step": row.step,
            "rule": row.rule.as_str(),
            "seed": row.seed,
            "rank": row.rank,
            "because": row.because,
            "similarity": row.similarity,
            "component": row.component,
            "cluster": row.cluster,
            "excluded": row.excluded,
            "excluded_similarity": row.excluded_similarity,
            "leak": row.leak,
            "sentences": sentences,
        }));
    }
    if settings.json {
        print_json(&answers)?;
    }
    Ok(Success::Done)
}

fn review(settings: &Settings, args: &ReviewArgs) -> Outcome {
    let mut run = Run::open(&args.folder)?;
    let mut decisions = Vec::new();
    for (verdict, file) in [(Verdict::Reject, &args.reject), (Verdict::Accept, &args.accept)] {
        if let Some(file) = file {
            decisions.extend(names(file)?.into_iter().map(|name| (verdict, name)));
        }
    }
    if args.undo {
        let undone = run.undo()?;
        if !settings.quiet {
            note(&format!("took {undone} decisions back"));
        }
    } else {
        run.decide(&decisions)?;
    }
    let RunInfo { kept, accepted, rejected, .. } = run.info();
    if settings.json {
        print_json(&json!({"kept": kept, "accepted": accepted, "rejected": rejected}))?;
    } else {
        print(&format!(
            "{kept} images are in, {accepted} of them by review, which took {rejected} \
                        out"
        ))?;
    }
    Ok(Success::Done)
}

/// Images named in a file, one a line: id, path, or an object with `id`.
fn names(file: &Path) -> Outcome<Vec<String>> {
    let bad = |reason: String| Failure::Failed(format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let mut names = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with('{') {
            names.push(line.to_owned());
            continue;
        }
        let object: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| bad(format!("line {}: {error}", number + 1)))?;
        let id = object.get("id").and_then(serde_json::Value::as_u64);
        let id = id.ok_or_else(|| bad(format!("line {}: it has no `id`", number + 1)))?;
        names.push(id.to_string());
    }
    Ok(names)
}
