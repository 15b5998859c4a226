//! Models: opened once, shared by all collections that were made with the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::Embedder;
use indexer::Manifest;

use crate::problem::{Answer, Code, Problem};

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
}

impl Models {
    /// None open yet.
    pub fn new(source: Box<dyn ModelSource>) -> Self {
        Self { source, open: Mutex::default() }
    }

    /// The model of a collection. Opens it the first time, which takes a while: for threads that may
    /// wait.
    ///
    /// # Errors
    /// The collection's vectors were made elsewhere, or its model cannot be opened.
    pub fn for_collection(&self, manifest: &Manifest) -> Answer<Model> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = open.get(&manifest.fingerprint) {
            return Ok(Arc::clone(model));
        }
        if manifest.model.is_foreign() {
            let name = &manifest.model.name;
            let detail = format!(
                "this collection holds vectors that another program made ({name}), and no picture \
                 can be compared with them"
            );
            return Err(
                Problem::new(Code::ModelMismatch, detail).remedy("search it by id or by vector")
            );
        }
        let model = self.source.for_collection(manifest).map_err(|reason| {
            tracing::warn!(model = manifest.model.name, %reason, "a model cannot be opened");
            let detail = format!("the model {} cannot be opened here", manifest.model.name);
            Problem::new(Code::ModelMismatch, detail).remedy("search by id or by vector")
        })?;
        if model.identity().fingerprint() != manifest.fingerprint {
            let detail = format!(
                "the model {} that is here is not the one the collection was made with",
                model.identity().name
            );
            return Err(Problem::new(Code::ModelMismatch, detail)
                .remedy("search by id or by vector, or serve it with its own model"));
        }
        open.insert(manifest.fingerprint.clone(), Arc::clone(&model));
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
        let named = self.source.named(name).map_err(|reason| {
            Problem::new(Code::BadRequest, reason.clone()).field("model", reason)
        })?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let model = open
            .entry(named.model.identity().fingerprint())
            .or_insert_with(|| Arc::clone(&named.model));
        Ok(NamedModel { model: Arc::clone(model), source: named.source })
    }

    /// Where models compute, in a word.
    pub fn device(&self) -> String {
        self.source.device()
    }

    /// Models that are open.
    pub fn open(&self) -> Vec<Model> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models: Vec<Model> = open.values().map(Arc::clone).collect();
        models.sort_by(|a, b| a.identity().name.cmp(&b.identity().name));
        models
    }
}
