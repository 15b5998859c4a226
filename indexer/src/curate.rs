//! Grows a dataset out of an uncurated pool from examples, with a reason for every image: the
//! pipeline of LVD-142M (arXiv 2304.07193, section 3), and what came after it.
//!
//! ```text
//! pool → self-dedup → relative-dedup against excluded sets → retrieve for seeds → union
//!                                            (sem-dedup and balance where the configuration says)
//! ```
//!
//! Steps are data. Each writes a folder of its own, whole or not at all, under a key of everything
//! that decides what it does: a run that was stopped goes on, and one with other parameters redoes
//! only what they change. The same images, parameters and seed give the same bytes.

pub mod config;
mod sets;
mod similar;
mod kmeans;
mod hierarchical;
mod output;
mod steps;
pub mod ledger;
pub mod manifest;
mod run_folder;
mod result;
mod review;
mod explain;

use std::path::Path;
use std::sync::atomic::AtomicBool;

pub use self::config::{CurateConfig, Step};
pub use self::explain::explain;
use self::ledger::LedgerRow;
use self::manifest::ManifestLine;
pub use self::output::{Retrieved, Rule};
use self::result::Done;
use self::review::Journal;
pub use self::review::{Batch, Verdict};
use self::run_folder::RunFolder;
pub(crate) use self::run_folder::sha256;
pub use self::run_folder::{Account, RUN_FORMAT, RunInfo, SetInfo, StepInfo};
pub use self::sets::{ImageSet, SetImage};
pub(crate) use self::similar::stop_if;
use self::steps::{Inputs, State};
use crate::error::{IndexerError, Result};

/// The ledger as the steps left it, before decisions of review.
const BASE_LEDGER: &str = "before-review.parquet";
/// The ledger, decisions of review included.
const LEDGER: &str = "ledger.parquet";
/// The images of the result.
const MANIFEST: &str = "manifest.jsonl";

/// What a curation reads.
#[derive(Debug)]
pub struct Sources {
    /// What it chooses from.
    pub pool: ImageSet,
    /// Examples of what is wanted, by set.
    pub seeds: Vec<ImageSet>,
    /// What must have nothing like it in the result, by set.
    pub excluded: Vec<ImageSet>,
}

/// What a curation tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum CurateEvent<'a> {
    /// A step starts with so many images.
    Started {
        /// Number and name.
        folder: &'a str,
        /// Images still in.
        images: usize,
    },
    /// A step is computed, and not yet written.
    Computed {
        /// Number and name.
        folder: &'a str,
    },
    /// A step is done, now or in an earlier run.
    Done {
        /// What it did.
        step: &'a StepInfo,
        /// Whether its result was there already.
        reused: bool,
    },
    /// The ledger and the manifest are about to be written.
    Writing,
}

impl Sources {
    fn check(&self, config: &CurateConfig) -> Result<()> {
        let bad = |reason: String| Err(IndexerError::InvalidRequest(reason));
        let Self { pool, seeds, excluded } = self;
        if pool.images().is_empty() {
            return bad(format!("the pool `{}` has no images", pool.view().name()));
        }
        for set in seeds.iter().chain(excluded) {
            pool.view().check_model(&set.view().manifest().model)?;
            if set.images().is_empty() {
                return bad(format!("the set `{}` has no images", set.name()));
            }
        }
        if seeds.is_empty() && config.needs_seeds() {
            return bad("there are no seed images to retrieve for; name some with `--seed`".into());
        }
        if let Some(set) = excluded.iter().find(|set| set.view().name() == pool.view().name()) {
            let name = set.name();
            return bad(format!("`{name}` is the pool itself: excluding it would leave nothing"));
        }
        if !excluded.is_empty() && !config.can_exclude() {
            return bad("excluded sets have no effect without a step `relative-dedup`".into());
        }
        let mut names: Vec<&str> = seeds.iter().map(ImageSet::name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => bad(format!(
                "two seed sets are called `{}`; name them with `--seed NAME=SET`",
                pair[0]
            )),
            None => Ok(()),
        }
    }
}

/// Curates, or goes on with a curation, in a folder of its own.
///
/// Afterwards the folder has `manifest.jsonl` (what is in), `ledger.parquet` (every image of the
/// pool and why) and `run.json`.
///
/// # Errors
/// The sources or the configuration make no sense, a set is of another model, the folder is no
/// run's or cannot be written, or [`IndexerError::Cancelled`].
pub fn run(
    folder: &Path,
    sources: &Sources,
    config: &CurateConfig,
    on_event: &mut dyn FnMut(CurateEvent<'_>),
    cancel: &AtomicBool,
) -> Result<RunInfo> {
    config.check()?;
    sources.check(config)?;
    let folder = RunFolder::create(folder)?;
    folder.unfinish()?;
    let inputs = Inputs {
        pool: &sources.pool,
        seeds: &sources.seeds,
        excluded: &sources.excluded,
        random_seed: config.random_seed,
        cancel,
    };
    let mut state = State::new(&sources.pool);
    let mut done: Vec<Done> = Vec::new();
    let mut infos: Vec<StepInfo> = Vec::new();
    for (number, step) in config.steps.iter().enumerate() {
        let name = format!("{:02}-{}", number + 1, step.name());
        let parameters = steps::parameters(step, config, sources.pool.view().manifest());
        let reads = steps::reads(step, &inputs);
        let before = infos.last().map_or("", |info| info.key.as_str());
        let key = serde_json::json!([RUN_FORMAT, before, parameters, reads]);
        let key = sha256(key.to_string().as_bytes());
        let images_in = state.alive.len();
        let found = folder.load(&name, &key);
        let reused = found.is_some();
        let (output, output_sha256) = match found {
            Some(found) => found,
            None => {
                on_event(CurateEvent::Started { folder: &name, images: images_in });
                (steps::run(step, &inputs, &state)?, String::new())
            }
        };
        // Numbers come from the output, which has every bit of them, not from `step.json`.
        let mut info = StepInfo {
            folder: name,
            key,
            parameters,
            reads,
            images_in,
            images_out: images_in - output.dropped.len(),
            threshold: output.threshold,
            figures: output.figures.clone(),
            output_sha256,
        };
        if !reused {
            on_event(CurateEvent::Computed { folder: &info.folder });
            folder.save(&mut info, &output)?;
        }
        on_event(CurateEvent::Done { step: &info, reused });
        state.apply(step, &output);
        done.push(Done { folder: info.folder.clone(), step: step.clone(), output });
        infos.push(info);
    }
    folder.remove_others(&infos)?;
    on_event(CurateEvent::Writing);
    let rows = result::ledger(&inputs, &done, &state)?;
    let manifest = sources.pool.view().manifest();
    ledger::write(&folder.path().join(BASE_LEDGER), &rows, &manifest.fingerprint)?;
    let info = RunInfo {
        format_version: RUN_FORMAT,
        akin: env!("CARGO_PKG_VERSION").to_owned(),
        model: manifest.model.name.clone(),
        fingerprint: manifest.fingerprint.clone(),
        pool: set_info(&sources.pool),
        seeds: sources.seeds.iter().map(set_info).collect(),
        excluded: sources.excluded.iter().map(set_info).collect(),
        config: config.clone(),
        steps: infos,
        accounts: result::accounts(&done, &state),
        kept: 0,
        accepted: 0,
        rejected: 0,
        journal_sha256: String::new(),
    };
    let journal = Journal::read(folder.path())?;
    Ok(publish(&folder, info, rows, &journal)?.0)
}

fn set_info(set: &ImageSet) -> SetInfo {
    SetInfo {
        name: set.name().to_owned(),
        collection: set.view().name().to_owned(),
        images: set.images().len(),
        digest: set.digest(),
    }
}

/// Writes ledger, manifest and `run.json`, with all decisions of review applied.
fn publish(
    folder: &RunFolder,
    mut info: RunInfo,
    mut rows: Vec<LedgerRow>,
    journal: &Journal,
) -> Result<(RunInfo, Vec<LedgerRow>)> {
    (info.accepted, info.rejected) = journal.apply(&mut rows);
    info.kept = rows.iter().filter(|row| row.kept).count();
    info.journal_sha256 = journal.sha256().to_owned();
    ledger::write(&folder.path().join(LEDGER), &rows, &info.fingerprint)?;
    let kept: Vec<ManifestLine> =
        rows.iter().filter(|row| row.kept).map(ManifestLine::from).collect();
    manifest::write(&folder.path().join(MANIFEST), kept.iter())?;
    folder.finish(&info)?;
    Ok((info, rows))
}

/// A finished run: its ledger, and review of its result.
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    info: RunInfo,
    rows: Vec<LedgerRow>,
    journal: Journal,
}

impl Run {
    /// Whether a folder is a run's, finished or not.
    pub fn is_run(folder: &Path) -> bool {
        RunFolder::is_one(folder)
    }

    /// Opens a finished run, with all decisions of its review.
    ///
    /// # Errors
    /// The folder is no run's, the run is not finished or in use, or a file is damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = RunFolder::open(folder)?;
        let info = folder.info()?;
        let journal = Journal::read(folder.path())?;
        // A process may have ended between a decision and what follows from it.
        let (info, rows) = match info.journal_sha256 == journal.sha256() {
            true => (info, ledger::read(&folder.path().join(LEDGER))?),
            false => {
                let base = ledger::read(&folder.path().join(BASE_LEDGER))?;
                publish(&folder, info, base, &journal)?
            }
        };
        Ok(Self { folder, info, rows, journal })
    }

    /// What the run is.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// Every image of the pool, by id.
    pub fn rows(&self) -> &[LedgerRow] {
        &self.rows
    }

    /// What the finished run in a folder is, read without opening it.
    ///
    /// # Errors
    /// The run is not finished, or `run.json` is damaged.
    pub fn read_info(folder: &Path) -> Result<RunInfo> {
        run_folder::read_info(folder)
    }

    /// Every batch of decisions, in the order in which they were made.
    pub fn batches(&self) -> Vec<Batch> {
        self.journal.batches()
    }

    /// An image by its id or its path.
    ///
    /// # Errors
    /// There is none in the pool.
    pub fn find(&self, name: &str) -> Result<&LedgerRow> {
        find(&self.rows, name)
    }

    /// Notes decisions about images named by id or path, as one batch, and applies them.
    ///
    /// # Errors
    /// A name is no image's, or a leak would be accepted; nothing is noted then.
    pub fn decide(&mut self, decisions: &[(Verdict, String)]) -> Result<()> {
        let Self { rows, journal, .. } = self;
        let leaks = review::leaks(rows);
        let mut found = Vec::with_capacity(decisions.len());
        for (verdict, name) in decisions {
            let row = find(rows, name)?;
            if *verdict == Verdict::Accept
                && let Some(reason) = leaks.get(&row.id)
            {
                return Err(IndexerError::InvalidRequest(format!(
                    "{} cannot be accepted: {reason}. Nothing was changed",
                    row.path
                )));
            }
            found.push((*verdict, row));
        }
        if found.is_empty() {
            return Ok(());
        }
        journal.decide(&found)?;
        self.republish()
    }

    /// Takes the last batch of decisions back; how many there were.
    ///
    /// # Errors
    /// There is none, or the disk refuses.
    pub fn undo(&mut self) -> Result<usize> {
        let decisions = self.journal.undo()?;
        self.republish()?;
        Ok(decisions)
    }

    fn republish(&mut self) -> Result<()> {
        let base = ledger::read(&self.folder.path().join(BASE_LEDGER))?;
        (self.info, self.rows) = publish(&self.folder, self.info.clone(), base, &self.journal)?;
        Ok(())
    }
}

fn find<'a>(rows: &'a [LedgerRow], name: &str) -> Result<&'a LedgerRow> {
    let by_path = |path: &[u8]| rows.iter().find(|row| row.path.as_bytes() == path);
    let by_id = || {
        let id = name.parse::<u64>().ok()?;
        rows.binary_search_by_key(&id, |row| row.id.0).ok().map(|at| &rows[at])
    };
    let absolute = || {
        let path = Path::new(name).canonicalize().ok()?;
        by_path(path.as_os_str().as_encoded_bytes())
    };
    by_path(name.as_bytes()).or_else(by_id).or_else(absolute).ok_or_else(|| {
        IndexerError::InvalidRequest(format!(
            "`{name}` is neither id nor path of an image of the pool"
        ))
    })
}
