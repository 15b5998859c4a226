//! Models: opened once, shared by all collections that were made with the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::Embedder;
use indexer::Manifest;

use crate::problem::{Answer, Code, Problem};

/// When a model that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A model that is ready to embed.
pub type Model = Arc<dyn Embedder>;

/// Where models come from: the program that has the settings.
pub trait ModelSource: Send + Sync {
    /// Opens the model that a collection was made with.
    ///
    /// # Errors
    /// Why there is none, in words for the operator.
    fn for_collection(&self, manifest: &Manifest) -> Result<Model, String>;

    /// Opens a model by its name, or the one for new collections. A name is never a path.
    ///
    /// # Errors
    /// Why there is none, in words for the one who asks.
    fn named(&self, name: Option<&str>) -> Result<NamedModel, String>;

    /// Where models compute, in a word.
    fn device(&self) -> String;
}

/// A model and what a collection remembers it by.
#[derive(Clone)]
pub struct NamedModel {
    /// Ready to embed.
    pub model: Model,
    /// What [`ModelSource`] finds it by again.
    pub source: String,
}

/// Models opened so far.
pub struct Models {
    source: Box<dyn ModelSource>,
    /// By fingerprint.
    open: Mutex<HashMap<String, Model>>,
    /// By the name asked for.
    named: Mutex<HashMap<Option<String>, NamedModel>>,
    /// Those that could not be opened, with when and why.
    failed: Mutex<HashMap<String, (Instant, Problem)>>,
}

impl Models {
    /// None open yet.
    pub fn new(source: Box<dyn ModelSource>) -> Self {
        Self { source, open: Mutex::default(), named: Mutex::default(), failed: Mutex::default() }
    }

    /// The model of this fingerprint, if it is open.
    pub fn ready(&self, fingerprint: &str) -> Option<Model> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(fingerprint).map(Arc::clone)
    }

    /// The model of a collection. Opens it the first time, which takes a while: for threads that may
    /// wait. One that cannot be opened is tried again only after half a minute.
    ///
    /// # Errors
    /// `model_mismatch`: the collection's vectors were made elsewhere, or its model cannot be opened.
    pub fn for_collection(&self, manifest: &Manifest) -> Answer<Model> {
        let fingerprint = &manifest.fingerprint;
        if let Some(model) = self.ready(fingerprint) {
            return Ok(model);
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // While this waited, another thread may have opened it.
        if let Some(model) = self.ready(fingerprint) {
            return Ok(model);
        }
        if let Some((when, problem)) = failed.get(fingerprint)
            && when.elapsed() < RETRY
        {
            return Err(problem.clone());
        }
        match self.open(manifest) {
            Ok(model) => {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.insert(fingerprint.clone(), Arc::clone(&model));
                Ok(model)
            }
            Err(problem) => {
                failed.insert(fingerprint.clone(), (Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    fn open(&self, manifest: &Manifest) -> Answer<Model> {
        let name = &manifest.model.name;
        let mismatch = |detail: String, remedy: &str| {
            Err(Problem::new(Code::ModelMismatch, detail).remedy(remedy))
        };
        if manifest.model.is_foreign() {
            let detail = format!(
                "this collection holds vectors that another program made ({name}), and no picture \
                 can be compared with them"
            );
            return mismatch(detail, "search it by id or by vector");
        }
        let model = match self.source.for_collection(manifest) {
            Ok(model) => model,
            Err(reason) => {
                tracing::warn!(model = name, %reason, "a model cannot be opened");
                let detail = format!("the model {name} cannot be opened here");
                return mismatch(detail, "search by id or by vector");
            }
        };
        if model.identity().fingerprint() != manifest.fingerprint {
            let here = &model.identity().name;
            let detail = format!("the collection was made with another model than {here}");
            return mismatch(detail, "search by id or by vector, or serve it with its own model");
        }
        Ok(model)
    }

    /// A model by name, or that for new collections.
    ///
    /// # Errors
    /// There is no such model here.
    pub fn named(&self, name: Option<&str>) -> Answer<NamedModel> {
        let sound = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            (1..=64).contains(&name.len()) && name.chars().all(allowed)
        };
        if let Some(name) = name.filter(|name| !sound(name)) {
            let detail = format!("`{name}` is no name of a model");
            return Err(Problem::new(Code::BadRequest, detail.clone()).field("model", detail));
        }
        // Held while one is opened, so that it is done once.
        let mut known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.map(str::to_owned);
        if let Some(named) = known.get(&name) {
            return Ok(named.clone());
        }
        let named = self.source.named(name.as_deref()).map_err(|reason| {
            Problem::new(Code::NotFound, reason.clone()).field("model", reason)
        })?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let model = open
            .entry(named.model.identity().fingerprint())
            .or_insert_with(|| Arc::clone(&named.model));
        let named = NamedModel { model: Arc::clone(model), source: named.source };
        known.insert(name, named.clone());
        Ok(named)
    }

    /// Where models compute, in a word.
    pub fn device(&self) -> String {
        self.source.device()
    }

    /// Models that are open, by name.
    pub fn all(&self) -> Vec<Model> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models: Vec<Model> = open.values().map(Arc::clone).collect();
        models.sort_by(|a, b| a.identity().name.cmp(&b.identity().name));
        models
    }
}
