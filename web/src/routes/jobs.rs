//! Long work: started here, listed, watched and stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{Json, Path};
use crate::jobs::dedup::DedupBody;
use crate::jobs::{Job, Watched, index};
use crate::problem::{Answer, Problem, ProblemBody};
use crate::state::AppState;

/// Streams of events at once.
const MOST_STREAMS: usize = 128;
/// Events of one job come this often at most.
const PACE: Duration = Duration::from_millis(250);
/// A comment is sent this often, so that proxies keep the connection and dead ones are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, cancel))
        .routes(routes!(events))
        .routes(routes!(start_index))
        .routes(routes!(start_dedup))
        .routes(routes!(start_snapshot))
        .routes(routes!(start_compact))
}

/// Jobs since the server was started.
#[derive(Debug, Serialize, ToSchema)]
struct JobsAnswer {
    /// Newest first.
    jobs: Vec<Job>,
}

/// Folders and files to index.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct IndexBody {
    /// Absolute paths on the server, at or below folders that the operator allowed.
    sources: Vec<String>,
}

/// List jobs
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "list_jobs",
    responses(
        (status = 200, description = "All jobs since the server was started", body = JobsAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn list(State(state): State<AppState>) -> Answered<JobsAnswer> {
    Answered(JobsAnswer { jobs: state.jobs.list() })
}

/// Look at a job
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(("id" = String, Path, description = "Job")),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn get(State(state): State<AppState>, Path(id): Path<String>) -> Answer<Answered<Job>> {
    state.jobs.find(&id).map(Answered)
}

/// Stop a job
///
/// One that waits is over at once; one at work ends at the next safe point.
#[utoipa::path(
    delete, path = "/jobs/{id}", tag = "jobs", operation_id = "cancel_job",
    params(("id" = String, Path, description = "Job")),
    responses(
        (status = 202, description = "The job, which was told to stop", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn cancel(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Answered<Job>)> {
    state.jobs.cancel(&id).map(|job| (StatusCode::ACCEPTED, Answered(job)))
}

/// Watch a job
///
/// Server-sent events: `progress` whenever the job has changed, first of all as it is; `end` when it
/// is over. The data of each is the job.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "jobs", operation_id = "watch_job",
    params(("id" = String, Path, description = "Job")),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn events(State(state): State<AppState>, Path(id): Path<String>) -> Answer<Response> {
    static STREAMS: std::sync::LazyLock<Arc<Semaphore>> =
        std::sync::LazyLock::new(|| Arc::new(Semaphore::new(MOST_STREAMS)));
    let watched = state.jobs.watch(&id)?;
    let place = Arc::clone(&STREAMS).try_acquire_owned();
    let place = place.map_err(|_| Problem::overloaded("streams of events", MOST_STREAMS))?;
    let stream = stream::unfold(Next::First(state, watched, place), next_event);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let headers = [("cache-control", "no-store"), ("x-accel-buffering", "no")];
    Ok((headers, Sse::new(stream).keep_alive(keep_alive)).into_response())
}

/// Where a stream of events is.
enum Next {
    First(AppState, Watched, OwnedSemaphorePermit),
    Later(AppState, Watched, OwnedSemaphorePermit),
    Over,
}

async fn next_event(next: Next) -> Option<(Result<Event, Infallible>, Next)> {
    let (state, mut watched, place) = match next {
        Next::First(state, watched, place) => (state, watched, place),
        Next::Later(state, mut watched, place) => {
            tokio::select! {
                () = watched.changed() => {}
                // An open stream must not keep the server from ending.
                () = state.drained() => return None,
            }
            tokio::time::sleep(PACE).await;
            (state, watched, place)
        }
        Next::Over => return None,
    };
    watched.seen();
    let job = watched.job();
    let name = if job.is_over() { "end" } else { "progress" };
    let event = Event::default().event(name).json_data(&job).unwrap_or_default();
    let next = if job.is_over() { Next::Over } else { Next::Later(state, watched, place) };
    Some((Ok(event), next))
}

/// Index folders
#[utoipa::path(
    post, path = "/collections/{name}/index", tag = "jobs", operation_id = "index_folders",
    params(("name" = String, Path, description = "Collection")),
    request_body = IndexBody,
    responses(
        (status = 202, description = "The job that does it", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn start_index(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<IndexBody>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    let start = move || {
        let sources = index::allowed(&body.sources, &of.options.roots)?;
        of.index(served, sources)
    };
    accepted(state.searchers.run(start).await)
}

/// Look for duplicates
#[utoipa::path(
    post, path = "/collections/{name}/dedup", tag = "duplicates", operation_id = "find_duplicates",
    params(("name" = String, Path, description = "Collection")),
    request_body = DedupBody,
    responses(
        (status = 202, description = "The job that does it; its result names the report", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn start_dedup(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<DedupBody>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let served = state.collection(&name).await?;
    accepted(state.dedup(served, &body))
}

/// Write a collection into one file
///
/// The file is in the folder `snapshots` of the home; `akin collection restore` reads it.
#[utoipa::path(
    post, path = "/collections/{name}/snapshot", tag = "collections", operation_id = "snapshot",
    params(("name" = String, Path, description = "Collection")),
    responses(
        (status = 202, description = "The job that does it", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn start_snapshot(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let served = state.collection(&name).await?;
    accepted(state.snapshot(served))
}

/// Give back the space of removed images
///
/// Copies what is there beside the old, and swaps: both need room meanwhile. Searches go on; changes of
/// images are `busy` while it is at work. Cancelled, it leaves the collection as it was. It does
/// nothing where no image was removed or replaced.
#[utoipa::path(
    post, path = "/collections/{name}/compact", tag = "collections", operation_id = "compact",
    params(("name" = String, Path, description = "Collection")),
    responses(
        (status = 202, description = "The job that does it", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn start_compact(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let served = state.collection(&name).await?;
    accepted(state.compact(served))
}

/// What to answer when a job was taken.
pub(super) fn accepted(job: Answer<Job>) -> Answer<(StatusCode, Answered<Job>)> {
    job.map(|job| (StatusCode::ACCEPTED, Answered(job)))
}

#[cfg(test)]
mod tests;
