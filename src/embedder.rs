//! Which model a command uses.

use std::path::Path;
use std::sync::Once;

use engine::decode::DecodeMode;
use engine::vit::Weights;
use engine::{Devices, DinoEmbedder, Embedder, ModelOptions, Precision, shipped};
use indexer::Manifest;
use indexer::model_store::ModelStore;

use crate::args::InputArgs;
use crate::outcome::{Failure, Outcome, note};
use crate::settings::Settings;

/// An open model and how it was named.
pub struct Opened {
    pub embedder: DinoEmbedder,
    /// Name, or absolute path.
    pub source: String,
}

/// Opens the model of `--model`, or the shipped one, with the chosen input settings.
pub fn open(settings: &Settings, input: &InputArgs) -> Outcome<Opened> {
    let source = settings.model.as_deref().unwrap_or(shipped::NAME);
    load(settings, source, input, None)
}

/// Opens the model a collection was made with: that of `--model` if given, else the one it
/// remembers; with the collection's input settings unless others are chosen (which it refuses).
pub fn for_collection(
    settings: &Settings,
    input: &InputArgs,
    manifest: &Manifest,
) -> Outcome<Opened> {
    if manifest.model.is_foreign() {
        return Err(Failure::Failed(format!(
            "this collection holds vectors that another program made ({}), and no picture can be \
             compared with them; search it by id or by vector",
            manifest.model.name
        )));
    }
    let options = input.is_default().then(|| options_of(manifest));
    let source = settings.model.as_ref().or(manifest.model_source.as_ref());
    let source = source.ok_or_else(|| {
        let name = &manifest.model.name;
        Failure::Usage(format!("name the model this collection was made with ({name}): --model"))
    })?;
    load(settings, source, input, options)
}

/// Opens a model by its name, with its own input settings.
pub fn open_named(settings: &Settings, name: &str) -> Outcome<Opened> {
    load(settings, name, &InputArgs::NONE, None)
}

/// Opens the model that a collection remembers, or that of `--model` where it remembers none: one
/// server has collections of several models.
pub fn for_serving(settings: &Settings, manifest: &Manifest) -> Outcome<Opened> {
    let source = manifest.model_source.as_ref().or(settings.model.as_ref());
    let source = source.ok_or_else(|| {
        let name = &manifest.model.name;
        Failure::Usage(format!("name the model this collection was made with ({name}): --model"))
    })?;
    load(settings, source, &InputArgs::NONE, Some(options_of(manifest)))
}

/// The settings that a collection's vectors were made with.
fn options_of(manifest: &Manifest) -> ModelOptions {
    let model = &manifest.model;
    ModelOptions {
        preprocess: model.preprocess.clone(),
        pooling: model.pooling,
        pos_embed: model.pos_embed,
        icc: model.icc,
        precision: model.precision,
        decode: model.decode,
        ..ModelOptions::default()
    }
}

/// Opens the model that a collection is to have from now on: that of `--model`, with its own
/// settings, else its present one, with its present settings where no others are chosen.
pub fn to_replace(settings: &Settings, input: &InputArgs, manifest: &Manifest) -> Outcome<Opened> {
    if settings.model.is_some() {
        return open(settings, input);
    }
    let options = input.over(&manifest.model).map_err(|error| Failure::Usage(error.to_string()))?;
    let source = manifest.model_source.as_ref().ok_or_else(|| {
        let name = &manifest.model.name;
        Failure::Usage(format!("name the model this collection was made with ({name}): --model"))
    })?;
    load(settings, source, input, Some(options))
}

/// The weights of a name or path.
pub fn weights(settings: &Settings, source: &str) -> Outcome<Weights> {
    if source != shipped::NAME {
        return Ok(Weights::open(&ModelStore::new(&settings.home).resolve(source)?)?);
    }
    shipped::weights()?.ok_or_else(|| {
        Failure::Usage(format!(
            "no model is named, and this build comes without `{}`: use `--model PATH` for a \
             weights file, or `akin model pull vits14_reg` once and `--model vits14_reg`",
            shipped::NAME
        ))
    })
}

/// The devices of `--device`. That `auto` took the CPU where it could have been a GPU is said once.
pub fn devices(settings: &Settings) -> Outcome<Devices> {
    static SAID: Once = Once::new();
    let devices = Devices::open(&settings.device)?;
    if let (Some(reason), false) = (devices.fell_back(), settings.quiet) {
        SAID.call_once(|| note(&format!("computing on the CPU: {reason}")));
    }
    Ok(devices)
}

/// Precision where none is chosen: what each kind of device is made for.
pub fn default_precision(devices: &Devices) -> Precision {
    if devices.is_cpu() { Precision::F32 } else { Precision::Bf16 }
}

fn load(
    settings: &Settings,
    source: &str,
    input: &InputArgs,
    options: Option<ModelOptions>,
) -> Outcome<Opened> {
    let start = std::time::Instant::now();
    let weights = weights(settings, source)?;
    let devices = devices(settings)?;
    let options = match options {
        Some(options) => options,
        None => {
            let chosen = input
                .to_options(&weights.preprocess()?.unwrap_or_default())
                .map_err(|error| Failure::Usage(error.to_string()))?;
            let decode = input.decode.map_or(settings.decode, DecodeMode::from);
            let precision = input.matmul.map_or(default_precision(&devices), Precision::from);
            ModelOptions { decode, precision, ..chosen }
        }
    };
    let (packed_weights, cuda_graphs) = (settings.packed_weights(), settings.cuda_graphs);
    let options = ModelOptions { packed_weights, cuda_graphs, ..options };
    let embedder = DinoEmbedder::from_weights(&weights, &options, &devices)?;
    let identity = embedder.identity();
    tracing::debug!(
        model = identity.name,
        weights = %weights.path().display(),
        sha256 = identity.weights_sha256,
        fingerprint = identity.fingerprint(),
        device = %devices,
        took = ?start.elapsed(),
        "opened the model"
    );
    // A path is remembered absolutely, so that a search from elsewhere finds it.
    let source = match weights.path().canonicalize() {
        Ok(path) if source != shipped::NAME && Path::new(source).exists() => {
            path.to_string_lossy().into_owned()
        }
        _ => source.to_owned(),
    };
    Ok(Opened { embedder, source })
}
