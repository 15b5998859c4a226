//! Collections over HTTP: the API under `/api/v1`, the page, and what operators ask.
//!
//! Modules are listed in the order in which a request meets them; a file uses only those above it.
//! [`app`] makes the routes, [`serve`] answers with them. All requests share an [`AppState`], which has
//! the collections open: this process is their one writer, and searches go on beside it.

mod random;
mod memory;
pub mod request_id;
pub mod problem;
pub mod clock;
pub mod keys;
pub mod tls;
mod idempotency;
pub mod guard;
pub mod remote;
pub mod options;
pub mod models;
pub mod workers;
pub mod shelf;
pub mod metrics;
pub mod device;
mod queries;
mod thumbnails;
mod trial;
mod audit;
mod deriving;
pub mod jobs;
mod reports;
mod runs;
pub mod state;
mod examples;
mod likeness;
mod searching;
mod extract;
mod form;
mod items;
mod uploads;
mod routes;
mod access_log;
mod layers;
#[cfg(test)]
mod testing;

use std::future::Future;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

use crate::guard::connections::Connections;
pub use crate::models::{Model, ModelSource, NamedModel};
pub use crate::options::Options;
pub use crate::shelf::Which;
pub use crate::state::{AppState, Config};

/// How often what is not used any more is let go of.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// All routes, with everything around them.
pub fn app(state: AppState) -> Router {
    let (routes, _document) = routes::all(&state);
    layers::around(routes, &state)
}

/// Serves until `shutdown` completes. From then on no connection is taken, and every request that was
/// is answered.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let ending = state.clone();
    let shutdown = async move {
        shutdown.await;
        ending.drain();
        ending.jobs.stop();
    };
    let guard::Settings { limits, tls, .. } = state.options.access.clone();
    let drain = state.options.drain;
    let limits = guard::Limits { drain, ..limits };
    let jobs = state.jobs.clone();
    tokio::spawn(state.clone().keep_auditing());
    tokio::spawn(keep_tidying(state.clone()));
    tokio::spawn(state.clone().keep_deriving());
    Connections { limits, tls }.serve(listener, app(state.clone()), shutdown).await?;
    jobs.end(drain).await;
    state.save_graphs(drain).await;
    Ok(())
}

/// Lets go of what nobody asks about any more, until the server ends.
async fn keep_tidying(state: AppState) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TIDY_EVERY) => state.runs.tidy(),
            () = state.drained() => return,
        }
    }
}
