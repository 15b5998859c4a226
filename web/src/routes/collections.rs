//! Collections as a whole.

use std::sync::Arc;

use axum::Json as Answered;
use axum::extract::State;
use axum::http::StatusCode;
use indexer::{CollectionSummary, CreateOptions, Precision, Scalar, View};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{Json, Path};
use crate::problem::{Answer, ProblemBody};
use crate::shelf::Served;
use crate::state::AppState;

/// Payload fields that are shown.
const FIELDS: usize = 50;
/// Values of a field that are shown.
const TOP: usize = 20;
/// Values of a field that are looked at.
const LOOKED_AT: usize = 10_000;
/// Percents of which the background's quantiles are shown.
const PERCENTS: [f64; 11] = [0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0];

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get)).routes(routes!(stats))
}

/// A collection.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct CollectionBody {
    /// Its name.
    name: String,
    /// Images in it.
    images: u64,
    /// Files that look like pictures and gave none.
    failed: u64,
    /// Length of its embeddings.
    dim: usize,
    /// Name of its model.
    model: String,
    /// Number of its last commit; null while it is not open.
    sequence: Option<u64>,
    /// Whether pictures can be compared with its images: its model is here.
    servable: bool,
    /// Why it is not open, if something is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Bytes on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// What is attached to its images.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_fields: Option<Vec<FieldBody>>,
}

/// A payload field.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct FieldBody {
    /// As filters write it.
    name: String,
    /// What most of its values shown are: `text`, `number` or `bool`.
    kind: &'static str,
    /// Different values; absent when there are very many.
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct: Option<usize>,
    /// The most frequent values.
    top: Vec<ValueBody>,
}

/// A value of a payload field.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ValueBody {
    /// Text, number or truth value.
    #[schema(value_type = Value)]
    value: serde_json::Value,
    /// Images that have it.
    count: u64,
}

impl CollectionBody {
    /// A collection that is open. Opens its model, for threads that may wait.
    pub(super) fn open(state: &AppState, served: &Served) -> Self {
        let view = served.view();
        let manifest = view.manifest();
        Self {
            name: served.name().to_owned(),
            images: view.len() as u64,
            failed: manifest.failed,
            dim: manifest.model.dim,
            model: manifest.model.name.clone(),
            sequence: Some(view.sequence()),
            servable: state.models.for_collection(manifest).is_ok(),
            problem: None,
            bytes: None,
            payload_fields: None,
        }
    }

    fn closed(summary: CollectionSummary) -> Self {
        let CollectionSummary { name, manifest } = summary;
        let (images, failed, dim, model, problem) = match manifest {
            Ok(manifest) => {
                let model = manifest.model;
                (manifest.images, manifest.failed, model.dim, model.name, None)
            }
            Err(error) => {
                tracing::warn!(collection = name, %error, "a collection cannot be read");
                let problem = "it cannot be read; the server's log says more".to_owned();
                (0, 0, 0, String::new(), Some(problem))
            }
        };
        let (sequence, servable) = (None, problem.is_none());
        let (bytes, payload_fields) = (None, None);
        Self {
            name,
            images,
            failed,
            dim,
            model,
            sequence,
            servable,
            problem,
            bytes,
            payload_fields,
        }
    }

    /// All that are served, by name.
    pub(super) fn all(state: &AppState) -> Answer<Vec<Self>> {
        let mut all: Vec<Self> =
            state.shelf.all().iter().map(|served| Self::open(state, served)).collect();
        all.extend(state.shelf.closed()?.into_iter().map(Self::closed));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// Collections.
#[derive(Debug, Serialize, ToSchema)]
struct CollectionsAnswer {
    /// By name.
    collections: Vec<CollectionBody>,
}

/// List the collections
#[utoipa::path(
    get, path = "/collections", tag = "collections", operation_id = "list_collections",
    responses(
        (status = 200, description = "All that are served", body = CollectionsAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn list(State(state): State<AppState>) -> Answer<Answered<CollectionsAnswer>> {
    let of = state.clone();
    let collections = state.searchers.run(move || CollectionBody::all(&of)).await?;
    Ok(Answered(CollectionsAnswer { collections }))
}

/// A collection to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    /// 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    name: String,
    /// Name of a model that the server has; by default the server's own.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    model: Option<String>,
    /// How exactly embeddings are kept.
    #[serde(default)]
    precision: PrecisionBody,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum PrecisionBody {
    /// Half precision.
    #[default]
    F16,
    /// Single precision.
    F32,
}

/// Make an empty collection
#[utoipa::path(
    post, path = "/collections", tag = "collections", operation_id = "create_collection",
    request_body = CreateBody,
    responses(
        (status = 201, description = "Made", body = CollectionBody),
        (status = "4XX", description = "Not made", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn create(
    State(state): State<AppState>,
    Json(body): Json<CreateBody>,
) -> Answer<(StatusCode, Answered<CollectionBody>)> {
    let of = state.clone();
    let make = move || {
        let named = of.models.named(body.model.as_deref())?;
        let precision = match body.precision {
            PrecisionBody::F16 => Precision::F16,
            PrecisionBody::F32 => Precision::F32,
        };
        let options = CreateOptions { precision, ..CreateOptions::default() };
        let identity = named.model.identity();
        let served = of.shelf.create(&body.name, identity, &named.source, options)?;
        Ok(CollectionBody::open(&of, &served))
    };
    Ok((StatusCode::CREATED, Answered(state.searchers.run(make).await?)))
}

/// A collection, with what is attached to its images
#[utoipa::path(
    get, path = "/collections/{name}", tag = "collections", operation_id = "get_collection",
    params(("name" = String, Path, description = "Collection")),
    responses(
        (status = 200, description = "The collection", body = CollectionBody),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn get(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Answer<Answered<CollectionBody>> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    let look = move || {
        let usage = of.shelf.collections().usage(served.name())?;
        Ok(CollectionBody {
            bytes: Some(usage.total()),
            payload_fields: Some(fields(&served.view())?),
            ..CollectionBody::open(&of, &served)
        })
    };
    state.searchers.run(look).await.map(Answered)
}

fn fields(view: &View) -> Answer<Vec<FieldBody>> {
    let mut fields = Vec::new();
    for name in view.payload_fields(FIELDS)? {
        let values = view.field_values(&name, TOP, LOOKED_AT)?;
        let count = |of: fn(&Scalar) -> bool| {
            values.top.iter().filter(|(value, _)| of(value)).map(|(_, count)| count).sum::<u64>()
        };
        let texts = count(|value| matches!(value, Scalar::Text(_)));
        let numbers = count(|value| matches!(value, Scalar::Number(_)));
        let flags = count(|value| matches!(value, Scalar::Bool(_)));
        let kind = match (numbers > texts, flags > texts.max(numbers)) {
            (_, true) => "bool",
            (true, false) => "number",
            (false, false) => "text",
        };
        let value = |(value, count): (Scalar, u64)| ValueBody { value: json(value), count };
        let top = values.top.into_iter().map(value).collect();
        fields.push(FieldBody { name, kind, distinct: values.distinct, top });
    }
    Ok(fields)
}

/// A value as it would be written by hand: whole numbers without a point.
fn json(value: Scalar) -> serde_json::Value {
    match value {
        Scalar::Bool(flag) => flag.into(),
        Scalar::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            (number as i64).into()
        }
        Scalar::Number(number) => number.into(),
        Scalar::Text(text) => text.into(),
    }
}

/// How a collection is kept.
#[derive(Debug, Serialize, ToSchema)]
struct StatsAnswer {
    /// Its name.
    name: String,
    /// Images in it.
    images: u64,
    /// Files that look like pictures and gave none.
    failed: u64,
    /// Embeddings on disk, those of no image counted.
    rows: u64,
    /// Embeddings of images that were removed or replaced; compacting drops them.
    dead_rows: u64,
    /// How exactly embeddings are kept.
    precision: String,
    /// How searches without a filter go: `exact`, or `graph`.
    search: &'static str,
    /// From this many images on they go through a graph.
    graph_from: u64,
    /// Bytes on disk.
    bytes: BytesBody,
    /// Cosine similarity of random pairs of images, by the share of pairs in percent that are at most
    /// as similar. Empty in small collections.
    background: Vec<QuantileBody>,
    /// Weights, and the settings with which pictures are made embeddings.
    #[schema(value_type = Object)]
    model: engine::ModelIdentity,
    /// What embeddings must have in common to be compared.
    fingerprint: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct BytesBody {
    total: u64,
    catalog: u64,
    vectors: u64,
    graphs: u64,
    reindex: u64,
    other: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct QuantileBody {
    percent: f64,
    similarity: f32,
}

/// How a collection is kept, and what similarities mean in it
#[utoipa::path(
    get, path = "/collections/{name}/stats", tag = "collections", operation_id = "collection_stats",
    params(("name" = String, Path, description = "Collection")),
    responses(
        (status = 200, description = "Figures", body = StatsAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn stats(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Answer<Answered<StatsAnswer>> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    state.searchers.run(move || figures(&of, &served)).await.map(Answered)
}

fn figures(state: &AppState, served: &Arc<Served>) -> Answer<StatsAnswer> {
    let view = served.view();
    let manifest = view.manifest();
    let usage = state.shelf.collections().usage(served.name())?;
    let steps = manifest.background.len().saturating_sub(1) as f64;
    let quantile = |percent: f64| {
        let at = (percent / 100.0 * steps).round() as usize;
        let similarity = *manifest.background.get(at)?;
        Some(QuantileBody { percent, similarity })
    };
    Ok(StatsAnswer {
        name: served.name().to_owned(),
        images: view.len() as u64,
        failed: manifest.failed,
        rows: view.rows(),
        dead_rows: view.rows().saturating_sub(view.len() as u64),
        precision: manifest.precision.to_string(),
        search: if view.is_approximate() { "graph" } else { "exact" },
        graph_from: manifest.ann_from,
        bytes: BytesBody {
            total: usage.total(),
            catalog: usage.catalog,
            vectors: usage.vectors,
            graphs: usage.graphs,
            reindex: usage.reindex,
            other: usage.other,
        },
        background: PERCENTS.into_iter().filter_map(quantile).collect(),
        model: manifest.model.clone(),
        fingerprint: manifest.fingerprint.clone(),
    })
}

#[cfg(test)]
mod tests;
