//! Models for the server, as the settings name them.

use std::sync::Arc;

use engine::shipped;
use indexer::Manifest;
use indexer::model_store::ModelStore;
use web::{Model, ModelSource, NamedModel};

use crate::args::InputArgs;
use crate::embedder::{self, Opened};
use crate::outcome::{Failure, Outcome};
use crate::settings::Settings;

/// The settings of this process, and what they come to.
pub struct Settled {
    settings: Settings,
    device: String,
}

impl Settled {
    /// Looks for the device.
    pub fn new(settings: Settings) -> Outcome<Self> {
        let device = embedder::devices(&settings)?.to_string();
        Ok(Self { device, settings })
    }
}

impl ModelSource for Settled {
    fn for_collection(&self, manifest: &Manifest) -> Result<Model, String> {
        let Opened { embedder, .. } =
            embedder::for_serving(&self.settings, manifest).map_err(|failure| words(&failure))?;
        Ok(Arc::new(embedder))
    }

    fn named(&self, name: Option<&str>) -> Result<NamedModel, String> {
        let opened = match name {
            None => embedder::open(&self.settings, &InputArgs::NONE),
            Some(name) => {
                // A file of that name where the server runs is no model of the server's.
                if name != shipped::NAME {
                    let store = ModelStore::new(&self.settings.home);
                    let entry = store.info(name).map_err(|error| error.to_string())?;
                    if !entry.weights.exists() {
                        return Err(format!("the model {name} is not on this server"));
                    }
                }
                embedder::open_named(&self.settings, name)
            }
        };
        let Opened { embedder, source } = opened.map_err(|failure| words(&failure))?;
        Ok(NamedModel { model: Arc::new(embedder), source })
    }

    fn device(&self) -> String {
        self.device.clone()
    }
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::Failed(message) | Failure::Usage(message) => message.clone(),
        Failure::Told | Failure::OutputClosed => "it cannot be opened".to_owned(),
    }
}
