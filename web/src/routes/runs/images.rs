//! The images of a run, in and out, with reasons.

use axum::Json as Answered;
use axum::extract::State;
use indexer::curate::ledger::{Because, LedgerRow};
use indexer::curate::{Rule, RunInfo, explain};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::paging::{cursor, limit};
use crate::extract::{Path, Query};
use crate::items::Item;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::shelf::Served;
use crate::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(why))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only images that are in, or only those that are out.
    kept: Option<bool>,
    /// Only images with this rule, such as `near-duplicate`.
    rule: Option<String>,
    /// Only images that this step decided about, such as `03-retrieve` or `review`.
    step: Option<String>,
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
    /// Images wanted, 1 to 500; by default 100.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// A page of a run's images.
#[derive(Debug, Serialize, ToSchema)]
struct RunImagesAnswer {
    /// By id.
    images: Vec<RunImage>,
    /// Says where the next page starts; null when there is no other.
    next_cursor: Option<String>,
    /// All that pass.
    total: usize,
}

/// An image of the pool, and why it is in or out.
#[derive(Debug, Serialize, ToSchema)]
struct RunImage {
    #[serde(flatten)]
    image: Item,
    /// Whether it is in the result.
    kept: bool,
    /// The step that decided.
    step: String,
    /// How.
    rule: String,
    /// The same in a sentence.
    reason: String,
    /// The seed image it is there for.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<OtherImage>,
    /// Its rank among that one's neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    /// The image that is the reason for its being out.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<OtherImage>,
    /// Similarity with the seed image, or with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
    /// What review said.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
}

/// An image of some set.
#[derive(Debug, Serialize, ToSchema)]
struct OtherImage {
    /// `pool`, or the name of a set.
    set: String,
    /// In that set's collection.
    id: u64,
    /// Where it is.
    path: String,
}

impl From<&Because> for OtherImage {
    fn from(because: &Because) -> Self {
        let Because { set, id, path } = because;
        Self { set: set.clone(), id: id.0, path: path.to_string() }
    }
}

/// Why an image is in or out.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainAnswer {
    /// In words.
    sentences: Vec<String>,
}

/// List the images of a run
#[utoipa::path(
    get, path = "/runs/{run}/images", tag = "runs", operation_id = "list_run_images",
    params(("run" = String, Path, description = "Run"), Page),
    responses(
        (status = 200, description = "One page", body = RunImagesAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Answer<Answered<RunImagesAnswer>> {
    let (first, limit) = (cursor(page.cursor.as_deref())?, limit(page.limit, 100, 500)?);
    let rule = page.rule.as_deref().map(from_slug).transpose()?;
    let of = state.clone();
    let look = move || {
        of.runs.with(&name, |run| {
            let passes = |row: &&LedgerRow| {
                page.kept.is_none_or(|kept| kept == row.kept)
                    && rule.is_none_or(|rule| rule == row.rule)
                    && page.step.as_ref().is_none_or(|step| *step == row.step)
            };
            let rows = || run.rows().iter().filter(passes);
            let mut rest = rows().skip_while(|row| row.id.0 < first);
            // Of a pool that is not served any more, there is still the ledger.
            let pool = of.shelf.find_or_open(&run.info().pool.collection).ok();
            let image = |row| of.run_image(pool.as_deref(), run.info(), row);
            let images = rest.by_ref().take(limit).map(image).collect::<Answer<_>>()?;
            let next_cursor = rest.next().map(|row| row.id.to_string());
            Ok(RunImagesAnswer { images, next_cursor, total: rows().count() })
        })
    };
    state.searchers.run(look).await.map(Answered)
}

/// Say why an image is in or out
#[utoipa::path(
    get, path = "/runs/{run}/images/{id}/explain", tag = "runs", operation_id = "explain_image",
    params(
        ("run" = String, Path, description = "Run"),
        ("id" = u64, Path, description = "Image of the pool"),
    ),
    responses(
        (status = 200, description = "Sentences", body = ExplainAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn why(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
) -> Answer<Answered<ExplainAnswer>> {
    let of = state.clone();
    let look = move || {
        of.runs.with(&name, |run| {
            let rows = run.rows();
            let at = rows.binary_search_by_key(&id, |row| row.id.0);
            let at = at.map_err(|_| Problem::no_image(&run.info().pool.collection, id))?;
            Ok(ExplainAnswer { sentences: explain(&rows[at], run.info()) })
        })
    };
    state.searchers.run(look).await.map(Answered)
}

impl AppState {
    fn run_image(
        &self,
        pool: Option<&Served>,
        info: &RunInfo,
        row: &LedgerRow,
    ) -> Answer<RunImage> {
        let record = match pool {
            Some(pool) => pool.view().record(row.id)?,
            None => None,
        };
        let image = match record {
            Some(record) => self.item(&info.pool.collection, row.id, record),
            None => Item {
                id: row.id.0,
                path: row.path.to_string(),
                width: row.width,
                height: row.height,
                bytes: 0,
                modified: None,
                sha256: row.sha256.as_str().to_owned(),
                warning: None,
                payload: std::collections::BTreeMap::new(),
                thumbnail: String::new(),
                original: String::new(),
            },
        };
        Ok(RunImage {
            image,
            kept: row.kept,
            step: row.step.clone(),
            rule: slug(row.rule),
            // The first sentence says whether it is in, the second why.
            reason: explain(row, info).into_iter().nth(1).unwrap_or_default(),
            seed: row.seed.as_ref().map(OtherImage::from),
            rank: row.rank,
            because: row.because.as_ref().map(OtherImage::from),
            similarity: row.similarity,
            decision: match row.rule {
                Rule::Accepted => Some("accepted"),
                Rule::Rejected => Some("rejected"),
                _ => None,
            },
        })
    }
}

/// A rule as it is named in the API.
pub(super) fn slug(rule: Rule) -> String {
    let json = serde_json::to_value(rule).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

fn from_slug(text: &str) -> Answer<Rule> {
    serde_json::from_value(text.into()).map_err(|_| {
        let all: Vec<String> = Rule::ALL.into_iter().map(slug).collect();
        let detail = format!("there is no such rule; there are {}", all.join(", "));
        Problem::new(Code::BadRequest, detail.clone()).field("rule", detail)
    })
}
