//! Which model a command uses.

use std::path::PathBuf;

use engine::{DinoEmbedder, Embedder, ModelOptions};
use indexer::Manifest;
use indexer::model_store::ModelStore;

use crate::args::InputArgs;
use crate::outcome::{Failure, Outcome};
use crate::settings::Settings;

/// An open model and how it was named.
pub struct Opened {
    pub embedder: DinoEmbedder,
    /// Name, or absolute path.
    pub source: String,
}

/// Opens the model of `--model` with the chosen input settings.
pub fn open(settings: &Settings, input: &InputArgs) -> Outcome<Opened> {
    let options = input.to_options().map_err(|error| Failure::Usage(error.to_string()))?;
    let source = settings.model.as_deref().ok_or_else(|| {
        Failure::Usage(
            "no model is named: use `--model PATH` for a weights file, or `akin model pull \
             vits14_reg` once and `--model vits14_reg`"
                .to_owned(),
        )
    })?;
    load(settings, source, &options)
}

/// Opens the model a collection was made with: that of `--model` if given, else the one it
/// remembers; with the collection's input settings unless others are chosen (which it refuses).
pub fn for_collection(
    settings: &Settings,
    input: &InputArgs,
    manifest: &Manifest,
) -> Outcome<Opened> {
    let options = match input.is_default() {
        true => ModelOptions {
            preprocess: manifest.model.preprocess.clone(),
            pooling: manifest.model.pooling,
            pos_embed: manifest.model.pos_embed,
            icc: manifest.model.icc,
        },
        false => input.to_options().map_err(|error| Failure::Usage(error.to_string()))?,
    };
    let source = settings.model.as_ref().or(manifest.model_source.as_ref());
    let source = source.ok_or_else(|| {
        let name = &manifest.model.name;
        Failure::Usage(format!("name the model this collection was made with ({name}): --model"))
    })?;
    load(settings, source, &options)
}

/// The weights file of a name or path.
pub fn weights_path(settings: &Settings, source: &str) -> Outcome<PathBuf> {
    Ok(ModelStore::new(&settings.home).resolve(source)?)
}

fn load(settings: &Settings, source: &str, options: &ModelOptions) -> Outcome<Opened> {
    let path = weights_path(settings, source)?;
    let device = engine::open_device(&settings.device)?;
    let start = std::time::Instant::now();
    let embedder = DinoEmbedder::open(&path, options, &device)?;
    let identity = embedder.identity();
    tracing::debug!(
        model = identity.name,
        weights = %path.display(),
        sha256 = identity.weights_sha256,
        fingerprint = identity.fingerprint(),
        device = ?device.location(),
        took = ?start.elapsed(),
        "opened the model"
    );
    // A path is remembered absolutely, so that a search from elsewhere finds it.
    let source = match path.canonicalize() {
        Ok(path) if std::path::Path::new(source).exists() => path.to_string_lossy().into_owned(),
        _ => source.to_owned(),
    };
    Ok(Opened { embedder, source })
}
