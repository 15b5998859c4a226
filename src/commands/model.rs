//! `akin model`.

use engine::shipped;
use indexer::model_store::{ModelEntry, ModelStore, PullOptions, PullProgress};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{ModelCommand, ModelName, PullArgs};
use crate::embedder;
use crate::outcome::{Outcome, Success, note, print, print_json};
use crate::progress::CANCELLED;
use crate::settings::Settings;

pub fn run(settings: &Settings, command: &ModelCommand) -> Outcome {
    match command {
        ModelCommand::List => list(settings),
        ModelCommand::Pull(args) => pull(settings, args),
        ModelCommand::Verify(args) => verify(settings, args),
        ModelCommand::Info(args) => info(settings, args),
    }
}

fn list(settings: &Settings) -> Outcome {
    let entries = ModelStore::new(&settings.home).list()?;
    if settings.json {
        let mut models = Vec::new();
        if let Some(weights) = shipped::weights()? {
            models.push(json!({
                "name": shipped::NAME,
                "dim": weights.config().embed_dim,
                "million_parameters": weights.num_parameters() / 1_000_000,
                "licence": "Apache-2.0",
                "here": true,
                "built_in": true,
            }));
        }
        models.extend(entries.iter().map(entry_json));
        print_json(&models)?;
        return Ok(Success::Done);
    }
    if let Some(weights) = shipped::weights()? {
        let (name, dim) = (shipped::NAME, weights.config().embed_dim);
        let millions = weights.num_parameters() / 1_000_000;
        print(&format!("{name:11} {dim:5} dim {millions:5} M parameters  {:40} here", "built in"))?;
    }
    for ModelEntry { model, record, .. } in entries {
        let here = match record {
            Some(record) => format!("here, commit {}", record.commit),
            None => "not here".to_owned(),
        };
        let (name, dim, millions) = (model.name, model.dim, model.million_parameters);
        let repository = model.repository;
        print(&format!("{name:11} {dim:5} dim {millions:5} M parameters  {repository:40} {here}"))?;
    }
    Ok(Success::Done)
}

fn pull(settings: &Settings, args: &PullArgs) -> Outcome {
    let defaults = PullOptions::default();
    let mut http = defaults.http.clone();
    http.proxy = first_of(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
    http.no_proxy = first_of(&["NO_PROXY", "no_proxy"]);
    let options = PullOptions {
        endpoint: args.endpoint.clone().unwrap_or(defaults.endpoint),
        revision: args.revision.clone(),
        token: args.token.clone(),
        force: args.force,
        offline: args.offline,
        http,
        ..PullOptions::default()
    };
    let bar = match settings.quiet {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0),
    };
    let style = "{msg}  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut progress = |PullProgress { file, done, total }: PullProgress<'_>| {
        bar.set_message(file.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    };
    let store = ModelStore::new(&settings.home);
    let pulled = store.pull(&args.name, &options, &mut progress, &CANCELLED)?;
    bar.finish_and_clear();
    if settings.json {
        let weights = pulled.weights.to_string_lossy();
        print_json(&json!({
            "weights": weights, "was_here": pulled.was_here, "record": pulled.record,
        }))?;
    } else if !settings.quiet {
        let state = if pulled.was_here { "was here already" } else { "is here now, checked" };
        note(&format!("{} {state}: {}", pulled.record.name, pulled.weights.display()));
    }
    Ok(Success::Done)
}

fn verify(settings: &Settings, args: &ModelName) -> Outcome {
    let source = source(settings, args);
    let store = ModelStore::new(&settings.home);
    // A path has no record; its tensors are checked all the same.
    let record = match store.info(&source) {
        Ok(_) => Some(store.verify(&source)?),
        Err(_) => None,
    };
    let weights = embedder::weights(settings, &source)?;
    weights.check_values()?;
    let variant = weights.config().variant_name();
    if settings.json {
        let hashes_checked = record.is_some();
        print_json(&json!({
            "variant": variant, "sha256": weights.sha256()?, "hashes_checked": hashes_checked,
            "tensors_checked": true,
        }))?;
    } else {
        let hashes = match record {
            Some(record) => format!("files as recorded from commit {}", record.commit),
            None if source == shipped::NAME => "part of the program".to_owned(),
            None => "a local file, with no recorded hash".to_owned(),
        };
        print(&format!("{variant}: tensors complete and finite; {hashes}"))?;
    }
    Ok(Success::Done)
}

fn info(settings: &Settings, args: &ModelName) -> Outcome {
    let source = source(settings, args);
    let entry = ModelStore::new(&settings.home).info(&source).ok();
    if let Some(entry) = &entry
        && entry.record.is_none()
    {
        if settings.json {
            print_json(&entry_json(entry))?;
        } else {
            let (name, repository) = (entry.model.name, entry.model.repository);
            print(&format!(
                "{name}: not here; `akin model pull {name}` gets it from {repository}"
            ))?;
        }
        return Ok(Success::Done);
    }
    let weights = embedder::weights(settings, &source)?;
    let config = weights.config();
    let path = weights.path().display().to_string();
    if settings.json {
        print_json(&json!({
            "path": path,
            "variant": config.variant_name(),
            "layout": weights.layout().to_string(),
            "stored_dtype": weights.stored_dtype(),
            "parameters": weights.num_parameters(),
            "sha256": weights.sha256()?,
            "config": config,
            "record": entry.and_then(|entry| entry.record),
        }))?;
        return Ok(Success::Done);
    }
    print(&format!("path        {path}"))?;
    print(&format!("variant     {}", config.variant_name()))?;
    print(&format!("layout      {}, {}", weights.layout(), weights.stored_dtype()))?;
    print(&format!("parameters  {}", weights.num_parameters()))?;
    print(&format!(
        "shape       width {}, depth {}, heads {}, registers {}",
        config.embed_dim, config.depth, config.num_heads, config.num_register_tokens
    ))?;
    print(&format!("sha256      {}", weights.sha256()?))?;
    if let Some(record) = entry.and_then(|entry| entry.record) {
        print(&format!("from        {} at {}", record.repository, record.commit))?;
    }
    Ok(Success::Done)
}

fn source(settings: &Settings, args: &ModelName) -> String {
    let named = args.name.clone().or_else(|| settings.model.clone());
    named.unwrap_or_else(|| shipped::NAME.to_owned())
}

fn entry_json(entry: &ModelEntry) -> serde_json::Value {
    let ModelEntry { model, record, weights } = entry;
    json!({
        "name": model.name,
        "repository": model.repository,
        "dim": model.dim,
        "million_parameters": model.million_parameters,
        "licence": model.licence,
        "here": record.is_some(),
        "weights": weights.to_string_lossy(),
        "record": record,
    })
}

fn first_of(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}
