//! Searching.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answered;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use futures_util::future::{join_all, try_join, try_join_all};
use indexer::search::{SearchRequest, count_newest, search_newest_timed};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::examples::{Found, Given, Took};
use crate::extract::{self, Json, Path};
use crate::form::{Expected, Form};
use crate::metrics::Stage;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::searching::{Examples, HitBody, SearchAnswer, SearchBody, TookMs};
use crate::shelf::Served;
use crate::state::AppState;

/// Parts of a form that are fields of [`SearchBody`].
const TEXTS: [&str; 5] = ["url", "query", "cursor", "filter", "scoring"];
const FIELDS: [&str; 13] = [
    "id",
    "vector",
    "crop",
    "positive",
    "k",
    "offset",
    "min_similarity",
    "hide_duplicates",
    "diversity",
    "include_examples",
    "exclude",
    "exact",
    "payload",
];

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(search_batch))
        .routes(routes!(count))
}

/// A search and the files that came with it.
struct Asked {
    body: SearchBody,
    images: Vec<Bytes>,
    negatives: Vec<Bytes>,
}

impl FromRequest<AppState> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Answer<Self> {
        if extract::media_type(request.headers()) == "multipart/form-data" {
            let expected = Expected {
                files: &["image", "negative"],
                object: Some("request"),
                texts: &TEXTS,
                fields: &FIELDS,
            };
            let mut form = Form::read(request, state, expected).await?;
            let (images, negatives) = (form.take("image"), form.take("negative"));
            let body = serde_json::from_value(Value::Object(form.fields))
                .map_err(|error| Problem::new(Code::BadRequest, format!("the form: {error}")))?;
            return Ok(Self { body, images, negatives });
        }
        if !extract::is_json(request.headers()) {
            let detail = "a search is JSON (application/json) or a form (multipart/form-data)";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let body = extract::from_json(&extract::body(request, state).await?)?;
        Ok(Self { body, images: Vec::new(), negatives: Vec::new() })
    }
}

/// The form of a search, for the description of the API.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a description only")]
struct SearchForm {
    /// Pictures to be near to.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    image: Option<Vec<u8>>,
    /// Pictures not to be near to.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    negative: Option<Vec<u8>>,
    /// All the rest; its fields may also come as parts of their own.
    request: Option<SearchBody>,
}

/// Find the images that are most similar to examples
#[utoipa::path(
    post, path = "/collections/{name}/search", tag = "search", operation_id = "search",
    params(("name" = String, Path, description = "Collection")),
    request_body(content(
        (SearchBody = "application/json"),
        (SearchForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "One page of results", body = SearchAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn search(
    State(state): State<AppState>,
    Path(name): Path<String>,
    asked: Asked,
) -> Answer<Answered<SearchAnswer>> {
    let start = Instant::now();
    let Asked { body, images, negatives } = asked;
    let served = state.collection(&name).await?;
    one(&state, &served, body, images, negatives, start).await.map(Answered)
}

async fn one(
    state: &AppState,
    served: &Arc<Served>,
    mut body: SearchBody,
    images: Vec<Bytes>,
    negatives: Vec<Bytes>,
    start: Instant,
) -> Answer<SearchAnswer> {
    let payload = body.payload.unwrap_or(true);
    let examples = body.examples(images, negatives)?;
    if examples.positive.is_empty() {
        let detail = "there is nothing to search with";
        return Err(Problem::new(Code::BadRequest, detail)
            .remedy("give an image, id, url, vector or query"));
    }
    let request = body.request(state.options.max_k)?;
    let before = Instant::now();
    let (request, tokens, took) = with_examples(state, served, examples, request).await?;
    let prepared = before.elapsed();

    let (of, metrics) = (Arc::clone(served), Arc::clone(&state.metrics));
    let before = Instant::now();
    let search = move || {
        let found = search_newest_timed(of.reader(), &request, Some(&of.filters));
        let (response, took) = found.map_err(searching_failed)?;
        metrics.stage(Stage::Ann, took.choosing);
        metrics.stage(Stage::Rescore, took.rescoring);
        metrics.stage(Stage::Records, took.records);
        Ok(response)
    };
    let response = state.searchers.run(search).await?;
    let searched = before.elapsed();

    let view = served.view();
    let model = &view.manifest().model;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(SearchAnswer {
        collection: served.name().to_owned(),
        model: model.name.clone(),
        took_ms: TookMs {
            decode: ms(took.decode),
            open: ms(prepared.saturating_sub(took.decode + took.embed)),
            embed: ms(took.embed),
            search: ms(searched),
            total: ms(start.elapsed()),
        },
        exact: response.exact,
        next_cursor: response.next_cursor,
        hits: response.hits.into_iter().map(|hit| HitBody::new(hit, model, payload)).collect(),
        query: tokens.first().cloned(),
        queries: tokens,
    })
}

/// A request with its examples made vectors, tokens of the pictures, and the time of the slowest.
async fn with_examples(
    state: &AppState,
    served: &Arc<Served>,
    examples: Examples,
    request: SearchRequest,
) -> Answer<(SearchRequest, Vec<String>, Took)> {
    let all = |given: Vec<Given>| {
        try_join_all(given.into_iter().map(|given| state.example(served, given)))
    };
    let (positive, negative) = try_join(all(examples.positive), all(examples.negative)).await?;
    let both = || positive.iter().chain(&negative);
    let tokens: Vec<String> = both().filter_map(|found| found.token.clone()).collect();
    let slowest = |of: fn(&Took) -> Duration| both().map(|found| of(&found.took)).max();
    let took = Took {
        decode: slowest(|took| took.decode).unwrap_or_default(),
        embed: slowest(|took| took.embed).unwrap_or_default(),
    };
    let vectors = |found: Vec<Found>| found.into_iter().map(|found| found.example).collect();
    let request =
        SearchRequest { positive: vectors(positive), negative: vectors(negative), ..request };
    Ok((request, tokens, took))
}

/// Problems of searches, some of which have codes of their own.
fn searching_failed(error: indexer::IndexerError) -> Problem {
    let problem = Problem::from(error);
    // The library has one kind of error for all that is asked wrong.
    match problem.code == Code::BadRequest && problem.detail.starts_with("there is no image ") {
        true => Problem { code: Code::ImageNotFound, ..problem },
        false => problem,
    }
}

/// Several searches.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    /// At most 32.
    #[schema(min_items = 1, max_items = 32)]
    searches: Vec<SearchBody>,
}

/// Outcomes of several searches, in their order.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    /// A page of results, or why there is none.
    results: Vec<BatchResult>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum BatchResult {
    Page(SearchAnswer),
    Problem(ProblemBody),
}

/// Several searches at once, each as if it were alone
#[utoipa::path(
    post, path = "/collections/{name}/search/batch", tag = "search", operation_id = "search_batch",
    params(("name" = String, Path, description = "Collection")),
    request_body = BatchBody,
    responses(
        (status = 200, description = "Outcomes in the order of the searches", body = BatchAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn search_batch(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Json(BatchBody { searches }): Json<BatchBody>,
) -> Answer<Answered<BatchAnswer>> {
    let limit = state.options.max_batch;
    if searches.is_empty() || searches.len() > limit {
        let detail =
            format!("{} searches in one batch; from 1 to {limit} are taken", searches.len());
        return Err(Problem::new(Code::BadRequest, detail.clone()).field("searches", detail));
    }
    let served = state.collection(&name).await?;
    let searches = searches.into_iter().map(async |body| {
        match one(&state, &served, body, Vec::new(), Vec::new(), Instant::now()).await {
            Ok(page) => BatchResult::Page(page),
            Err(problem) => BatchResult::Problem(problem.body()),
        }
    });
    Ok(Answered(BatchAnswer { results: join_all(searches).await }))
}

/// How many images there are.
#[derive(Debug, Serialize, ToSchema)]
struct CountAnswer {
    /// Images.
    count: u64,
    /// Always true: every image was compared.
    exact: bool,
}

/// Count the images that pass a filter and, with examples, are similar enough
///
/// Takes what a search takes. Pages, near-duplicates and variety make no difference.
#[utoipa::path(
    post, path = "/collections/{name}/count", tag = "search", operation_id = "count",
    params(("name" = String, Path, description = "Collection")),
    request_body(content(
        (SearchBody = "application/json"),
        (SearchForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "How many", body = CountAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn count(
    State(state): State<AppState>,
    Path(name): Path<String>,
    asked: Asked,
) -> Answer<Answered<CountAnswer>> {
    let Asked { mut body, images, negatives } = asked;
    let served = state.collection(&name).await?;
    let examples = body.examples(images, negatives)?;
    let request = body.request(state.options.max_k)?;
    let (request, _, _) = with_examples(&state, &served, examples, request).await?;
    let count = move || {
        count_newest(served.reader(), &request, Some(&served.filters)).map_err(searching_failed)
    };
    let count = state.searchers.run(count).await?;
    Ok(Answered(CountAnswer { count, exact: true }))
}

#[cfg(test)]
mod tests;
