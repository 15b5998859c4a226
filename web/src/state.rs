//! What all requests share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use indexer::IndexerError;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::models::{ModelSource, Models};
use crate::options::Options;
use crate::problem::Answer;
use crate::shelf::{Served, Shelf, Which};
use crate::workers::Workers;

/// What a server is made of.
pub struct Config {
    /// Folder of collections and models.
    pub home: PathBuf,
    /// Which collections are served.
    pub collections: Which,
    /// Where models come from.
    pub models: Box<dyn ModelSource>,
    /// Choices and limits.
    pub options: Options,
    /// What time it is.
    pub clock: Clock,
}

/// What all requests share. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The fields of [`AppState`].
pub struct Shared {
    /// Folder of collections and models.
    pub home: PathBuf,
    /// Choices and limits.
    pub options: Options,
    /// What time it is.
    pub clock: Clock,
    /// Open collections.
    pub shelf: Shelf,
    /// Open models.
    pub models: Models,
    /// Threads that read and decode pictures.
    pub decoders: Workers,
    /// Threads that search and look things up.
    pub searchers: Workers,
    /// Whether the server is ending; see [`AppState::drain`].
    draining: watch::Sender<bool>,
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// Opens the collections.
    ///
    /// # Errors
    /// A collection named cannot be opened.
    pub fn open(config: Config) -> Result<Self, IndexerError> {
        let Config { home, collections, models, options, clock } = config;
        let shelf = Shelf::open(&home, collections)?;
        let waiting = options.max_waiting;
        Ok(Self(Arc::new(Shared {
            shelf,
            models: Models::new(models),
            decoders: Workers::new("pictures to decode", options.decoders, waiting),
            searchers: Workers::new("searches", 2 * options.decoders, waiting),
            draining: watch::Sender::new(false),
            home,
            options,
            clock,
        })))
    }

    /// A collection that is served, by the name in the address.
    ///
    /// # Errors
    /// `collection_not_found`, or `busy` while another process has it.
    pub async fn collection(&self, name: &str) -> Answer<Arc<Served>> {
        if let Some(served) = self.shelf.find(name) {
            return Ok(served);
        }
        let (state, name) = (self.clone(), name.to_owned());
        self.searchers.run(move || state.shelf.find_or_open(&name)).await
    }

    /// Tells everything that goes on for long that the server is ending.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the server is ending.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Completes when the server begins to end: for streams that would go on for ever.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as the state.
        let _ = draining.wait_for(|is| *is).await;
    }
}
