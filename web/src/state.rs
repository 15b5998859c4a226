//! What all requests share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use indexer::IndexerError;
use tokio::sync::watch;

use crate::audit::Recall;
use crate::clock::Clock;
use crate::device::{Device, DeviceOptions};
use crate::guard::Guard;
use crate::jobs::Jobs;
use crate::keys::{KeyError, Keys};
use crate::memory;
use crate::metrics::Metrics;
use crate::models::{ModelSource, Models};
use crate::options::Options;
use crate::problem::Answer;
use crate::queries::Queries;
use crate::remote::{Remote, RemoteOptions};
use crate::reports::Reports;
use crate::runs::Runs;
use crate::shelf::{Served, Shelf, Which};
use crate::thumbnails::Thumbnails;
use crate::trial::Trial;
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
    /// The line before the model.
    pub device: Device,
    /// Pictures that were searched with.
    pub queries: Queries,
    /// Thumbnails on disk.
    pub thumbnails: Thumbnails,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// What searches through graphs find.
    pub recall: Recall,
    /// The last trial of whether searches are answered.
    pub trial: Trial,
    /// Threads that read and decode pictures.
    pub decoders: Workers,
    /// Threads that search and look things up.
    pub searchers: Workers,
    /// What requests pass before a route.
    pub guard: Arc<Guard>,
    /// Pictures named by URL.
    pub remote: Remote,
    /// Long work.
    pub jobs: Jobs,
    /// Reports of duplicates.
    pub reports: Reports,
    /// Curation runs that are open.
    pub runs: Runs,
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
    /// Opens the collections. From now on the process gives memory that is over back to the system.
    ///
    /// # Errors
    /// A collection named cannot be opened.
    pub fn open(config: Config) -> Result<Self, IndexerError> {
        memory::give_back();
        let Config { home, collections, models, options, clock } = config;
        let bad_keys = |error: KeyError| IndexerError::InvalidRequest(error.to_string());
        let keys = Keys::open(&home).map_err(bad_keys)?;
        let mut access = options.access.clone();
        // A form is longer than the picture in it.
        let form = options.max_upload_bytes.saturating_add(1 << 20);
        access.limits.body_bytes = access.limits.body_bytes.max(form);
        let guard = Guard::new(access, &options.base_path, keys);
        let fetching =
            RemoteOptions { allow_private: options.allow_private, ..options.remote.clone() };
        let remote = Remote::new(fetching, options.max_upload_bytes);
        let jobs = Jobs::start(clock.clone()).map_err(|source| IndexerError::Io {
            action: "start the thread of jobs for",
            path: home.clone(),
            source,
        })?;
        let shelf = Shelf::open(&home, collections)?;
        let waiting = options.max_waiting;
        let metrics = Arc::<Metrics>::default();
        let Options { max_queue, batch, gather, .. } = options;
        let device =
            Device::start(DeviceOptions { max_queue, batch, gather }, Arc::clone(&metrics));
        let device = device.map_err(|source| IndexerError::Io {
            action: "start the threads of the model for",
            path: home.clone(),
            source,
        })?;
        Ok(Self(Arc::new(Shared {
            shelf,
            models: Models::new(models),
            device,
            queries: Queries::new(clock.clone(), options.query_ttl, options.query_bytes),
            thumbnails: Thumbnails::new(&home, options.thumbnail_bytes),
            metrics,
            recall: Recall::default(),
            trial: Trial::default(),
            decoders: Workers::new("pictures to decode", options.decoders, waiting),
            searchers: Workers::new("searches", 2 * options.decoders, waiting),
            draining: watch::Sender::new(false),
            guard,
            remote,
            jobs,
            reports: Reports::new(&home),
            runs: Runs::new(&home),
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

    /// Opens the models of all open collections, for threads that may wait. One that cannot be opened
    /// is said so in the log.
    pub fn open_models(&self) {
        for served in self.shelf.all() {
            let _ = self.models.for_collection(served.view().manifest());
        }
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
