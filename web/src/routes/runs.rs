//! Curation runs: how many images came through each step, which and why, review, export.

mod images;

use std::collections::BTreeMap;

use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use indexer::curate::{Account, Batch, Run, RunInfo, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::jobs::accepted;
use crate::clock::rfc3339;
use crate::extract::{Json, Path};
use crate::jobs::curate::CurateBody;
use crate::jobs::export::ExportBody;
use crate::jobs::{Job, Kind};
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::state::AppState;

/// Images that one request decides about.
const MOST_DECISIONS: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(get))
        .routes(routes!(reviewed, review))
        .routes(routes!(export))
        .merge(images::routes())
}

/// All runs.
#[derive(Debug, Serialize, ToSchema)]
struct RunsAnswer {
    /// By name.
    runs: Vec<RunBody>,
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
struct RunBody {
    /// Its name.
    name: String,
    /// `done`, `running`, or `unfinished` when it was stopped.
    state: &'static str,
    /// When it was finished, or begun (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    /// Collection that was chosen from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// Sets of examples.
    seeds: Vec<String>,
    /// Sets that nothing in the result is like.
    excluded: Vec<String>,
    /// Images in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<usize>,
    /// Images in and out by review.
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<ReviewCounts>,
    /// What each step did.
    accounting: Vec<StepBody>,
    /// What was retrieved for each set of examples.
    #[schema(value_type = Vec<Object>)]
    accounts: Vec<Account>,
}

/// What review did.
#[derive(Debug, Serialize, ToSchema)]
struct ReviewCounts {
    accepted: usize,
    rejected: usize,
}

/// What a step did.
#[derive(Debug, Serialize, ToSchema)]
struct StepBody {
    /// Number and name.
    step: String,
    /// Images before it.
    images_in: usize,
    /// Images after it.
    images_out: usize,
    /// Similarity that was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f32>,
    /// Images dropped, by rule; only of a single run.
    rules: BTreeMap<String, usize>,
}

/// List runs
#[utoipa::path(
    get, path = "/runs", tag = "runs", operation_id = "list_runs",
    responses(
        (status = 200, description = "All runs", body = RunsAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn list(State(state): State<AppState>) -> Answer<Answered<RunsAnswer>> {
    let of = state.clone();
    let look = move || {
        let names = of.runs.names()?;
        let runs = names.into_iter().map(|name| of.run_body(name)).collect::<Answer<_>>()?;
        Ok(RunsAnswer { runs })
    };
    state.searchers.run(look).await.map(Answered)
}

/// Look at a run
#[utoipa::path(
    get, path = "/runs/{run}", tag = "runs", operation_id = "get_run",
    params(("run" = String, Path, description = "Run")),
    responses(
        (status = 200, description = "The run", body = RunBody),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn get(State(state): State<AppState>, Path(name): Path<String>) -> Answer<Answered<RunBody>> {
    let of = state.clone();
    let look = move || {
        let mut body = of.run_body(name.clone())?;
        if body.state != "done" {
            return Ok(body);
        }
        let rules = of.runs.with(&name, |run| Ok(rules(run)))?;
        for step in &mut body.accounting {
            step.rules = rules.get(&step.step).cloned().unwrap_or_default();
        }
        Ok(body)
    };
    state.searchers.run(look).await.map(Answered)
}

/// Images that each step dropped, by rule.
fn rules(run: &Run) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut steps: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for row in run.rows().iter().filter(|row| !row.kept) {
        let rules = steps.entry(row.step.clone()).or_default();
        *rules.entry(images::slug(row.rule)).or_default() += 1;
    }
    steps
}

impl AppState {
    fn run_body(&self, name: String) -> Answer<RunBody> {
        let folder = self.runs.folder(&name)?;
        // A damaged run is listed, so that the others are.
        let info = match self.runs.info(&name) {
            Ok(info) => info,
            Err(problem) if problem.code == Code::NotFound => return Err(problem),
            Err(_) => None,
        };
        let runs = |job: &Job| job.kind == Kind::Curate && !job.is_over() && job.is_about(&name);
        let state = match (&info, self.jobs.list().iter().any(runs)) {
            (_, true) => "running",
            (Some(_), _) => "done",
            (None, _) => "unfinished",
        };
        let of = |file: &str| folder.join(file).metadata().and_then(|m| m.modified()).ok();
        let time = of("run.json").or_else(|| of("run.lock"));
        let time = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let created = time.map(|time| rfc3339(time.as_secs().try_into().unwrap_or(i64::MAX)));
        let names = |sets: &[indexer::curate::SetInfo]| {
            sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>()
        };
        let empty = RunBody {
            name,
            state,
            created,
            pool: None,
            seeds: Vec::new(),
            excluded: Vec::new(),
            kept: None,
            review: None,
            accounting: Vec::new(),
            accounts: Vec::new(),
        };
        let Some(RunInfo {
            pool, seeds, excluded, steps, accounts, kept, accepted, rejected, ..
        }) = info
        else {
            return Ok(empty);
        };
        let step = |step: indexer::curate::StepInfo| StepBody {
            step: step.folder,
            images_in: step.images_in,
            images_out: step.images_out,
            threshold: step.threshold,
            rules: BTreeMap::new(),
        };
        Ok(RunBody {
            pool: Some(pool.collection),
            seeds: names(&seeds),
            excluded: names(&excluded),
            kept: Some(kept),
            review: Some(ReviewCounts { accepted, rejected }),
            accounting: steps.into_iter().map(step).collect(),
            accounts,
            ..empty
        })
    }
}

/// Grow a data set
#[utoipa::path(
    post, path = "/runs", tag = "runs", operation_id = "start_run",
    request_body = CurateBody,
    responses(
        (status = 202, description = "The job that does it", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn start(
    State(state): State<AppState>,
    Json(body): Json<CurateBody>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let of = state.clone();
    accepted(state.searchers.run(move || of.curate(body)).await)
}

/// Export a run
///
/// Into a folder of its own below the home's folder `exports`, with a certificate when sets were
/// excluded.
#[utoipa::path(
    post, path = "/runs/{run}/export", tag = "runs", operation_id = "export_run",
    params(("run" = String, Path, description = "Run")),
    request_body = ExportBody,
    responses(
        (status = 202, description = "The job that does it", body = Job),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn export(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<ExportBody>,
) -> Answer<(StatusCode, Answered<Job>)> {
    let of = state.clone();
    accepted(state.searchers.run(move || of.export(&name, body)).await)
}

/// What review decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ReviewAction {
    /// In, whatever the steps say; but never what is like an excluded image.
    Accept,
    /// Out, whatever the steps say.
    Reject,
    /// Takes the last batch of decisions back.
    Undo,
}

/// Decisions about images, as one batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReviewBody {
    action: ReviewAction,
    /// Images of the pool; none for `undo`.
    #[serde(default)]
    ids: Vec<u64>,
}

/// What review did so far.
#[derive(Debug, Serialize, ToSchema)]
struct ReviewAnswer {
    /// Images in by review alone.
    accepted: usize,
    /// Images out by review.
    rejected: usize,
    /// Decisions that this request took back.
    undone: usize,
    /// Whether there is a decision that can be taken back.
    can_undo: bool,
    /// Images in the result.
    kept: usize,
}

/// All decisions of review.
#[derive(Debug, Serialize, ToSchema)]
struct JournalAnswer {
    /// In the order in which they were made.
    #[schema(value_type = Vec<Object>)]
    batches: Vec<Batch>,
    /// Images in by review alone.
    accepted: usize,
    /// Images out by review.
    rejected: usize,
    /// Whether there is a decision that can be taken back.
    can_undo: bool,
    /// Images in the result.
    kept: usize,
}

fn can_undo(run: &Run) -> bool {
    run.batches().iter().any(|batch| !batch.is_undone)
}

/// Show the journal of review
#[utoipa::path(
    get, path = "/runs/{run}/review", tag = "runs", operation_id = "get_review",
    params(("run" = String, Path, description = "Run")),
    responses(
        (status = 200, description = "All decisions", body = JournalAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn reviewed(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Answer<Answered<JournalAnswer>> {
    let of = state.clone();
    let look = move || {
        of.runs.with(&name, |run| {
            let &RunInfo { accepted, rejected, kept, .. } = run.info();
            let (batches, can_undo) = (run.batches(), can_undo(run));
            Ok(JournalAnswer { batches, accepted, rejected, can_undo, kept })
        })
    };
    state.searchers.run(look).await.map(Answered)
}

/// Accept or reject images
///
/// The next export honours it. Images that are like an excluded one are never accepted.
#[utoipa::path(
    post, path = "/runs/{run}/review", tag = "runs", operation_id = "review_run",
    params(("run" = String, Path, description = "Run")),
    request_body = ReviewBody,
    responses(
        (status = 200, description = "What review did so far", body = ReviewAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn review(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(body): Json<ReviewBody>,
) -> Answer<Answered<ReviewAnswer>> {
    let verdict = match body.action {
        ReviewAction::Accept => Some(Verdict::Accept),
        ReviewAction::Reject => Some(Verdict::Reject),
        ReviewAction::Undo => None,
    };
    let count = body.ids.len();
    if verdict.is_some() != (count > 0) || count > MOST_DECISIONS {
        let detail =
            format!("{count} ids are named; undo takes none, all else 1 to {MOST_DECISIONS}");
        return Err(Problem::new(Code::BadRequest, detail.clone()).field("ids", detail));
    }
    let of = state.clone();
    let work = move || {
        of.runs.with(&name, |run| {
            let mut undone = 0;
            match verdict {
                Some(verdict) => {
                    let decisions: Vec<_> =
                        body.ids.iter().map(|id| (verdict, id.to_string())).collect();
                    run.decide(&decisions).map_err(refused)?;
                }
                None => undone = run.undo().map_err(refused)?,
            }
            let &RunInfo { accepted, rejected, kept, .. } = run.info();
            Ok(ReviewAnswer { accepted, rejected, undone, can_undo: can_undo(run), kept })
        })
    };
    state.searchers.run(work).await.map(Answered)
}

/// A leak cannot be accepted, and there may be nothing to take back: the request is sound, the state
/// is another.
fn refused(error: indexer::IndexerError) -> Problem {
    match error {
        indexer::IndexerError::InvalidRequest(reason) => Problem::new(Code::Conflict, reason),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
