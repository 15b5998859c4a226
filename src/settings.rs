//! Flags, environment, config file and defaults, merged once.

use std::path::PathBuf;

use engine::decode::DecodeMode;
use etcetera::{BaseStrategy, choose_base_strategy};
use indexer::curate::CurateConfig;
use serde::Deserialize;

use crate::args::GlobalArgs;
use crate::outcome::{Failure, Outcome};

/// What every command may need.
#[derive(Debug)]
pub struct Settings {
    pub home: PathBuf,
    pub model: Option<String>,
    pub device: String,
    /// Whether a GPU replays recorded passes.
    pub cuda_graphs: bool,
    pub json: bool,
    pub quiet: bool,
    /// How files are decoded for what is made anew; collections remember their own way.
    pub decode: DecodeMode,
    /// Whether packed weights are kept between starts.
    pub cache: bool,
    /// Steps of `akin curate`.
    pub curate: Option<CurateConfig>,
}

/// The file of `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    home: Option<PathBuf>,
    model: Option<String>,
    device: Option<String>,
    threads: Option<usize>,
    decode: Option<DecodeMode>,
    cache: Option<bool>,
    curate: Option<CurateConfig>,
}

impl Settings {
    /// Flags win over the config file, the file over defaults.
    pub fn resolve(args: GlobalArgs) -> Outcome<Self> {
        let file = match &args.config {
            Some(path) => {
                let usage = |reason: String| {
                    Failure::Usage(format!("config file {}: {reason}", path.display()))
                };
                let text =
                    std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
                toml::from_str(&text).map_err(|error| usage(error.message().to_owned()))?
            }
            None => ConfigFile::default(),
        };
        if let Some(threads) = args.threads.or(file.threads) {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
        }
        let platform = || Some(choose_base_strategy().ok()?.data_dir().join("akin"));
        let home = args.home.or(file.home).or_else(platform);
        Ok(Self {
            home: home.ok_or_else(|| {
                Failure::Usage("no home folder is known; name one with --home DIR".to_owned())
            })?,
            model: args.model.or(file.model),
            device: args.device.or(file.device).unwrap_or_else(|| "auto".to_owned()),
            cuda_graphs: args.cuda_graphs,
            json: args.json,
            quiet: args.quiet,
            decode: file.decode.unwrap_or_default(),
            cache: file.cache.unwrap_or(true),
            curate: file.curate,
        })
    }

    /// Where packed weights are kept: in one folder for all models, as theirs may be read-only or
    /// shared, and one of them is part of the program.
    pub fn packed_weights(&self) -> Option<PathBuf> {
        self.cache.then(|| self.home.join("cache"))
    }
}
