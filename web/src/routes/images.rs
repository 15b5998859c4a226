//! Images of a collection, one by one.

mod files;

use axum::Json as Answered;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use indexer::filter::Filter;
use indexer::{ImageId, Payload, Record, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::paging::{cursor, limit};
use crate::extract::{self, Json, Path, Query};
use crate::form::{Expected, Form};
use crate::items::Item;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::searching::FilterBody;
use crate::shelf::Served;
use crate::state::AppState;

/// Images of a page unless another number is asked for.
const DEFAULT_LIMIT: usize = 100;
/// Most images of a page.
const MAX_LIMIT: usize = 1000;
/// Longest name of an upload that is kept, in characters.
const MAX_NAME: usize = 255;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(get, remove))
        .routes(routes!(patch))
        .merge(files::routes())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Where the page before ended: its `next_cursor`.
    #[param(pattern = "^[0-9]{0,19}$")]
    cursor: Option<String>,
    /// Images wanted, 1 to 1000; by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only images that pass, as text or as JSON.
    filter: Option<String>,
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
struct ImagesAnswer {
    /// By id.
    images: Vec<Item>,
    /// Says where the next page starts; null when there is no other.
    next_cursor: Option<String>,
}

/// List images by id
#[utoipa::path(
    get, path = "/collections/{name}/images", tag = "images", operation_id = "list_images",
    params(("name" = String, Path, description = "Collection"), Page),
    responses(
        (status = 200, description = "One page", body = ImagesAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Answer<Answered<ImagesAnswer>> {
    let served = state.collection(&name).await?;
    let limit = limit(page.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let first = cursor(page.cursor.as_deref())?;
    let filter = page.filter.filter(|text| !text.trim().is_empty()).map(read_filter).transpose()?;
    let of = state.clone();
    let look = move || {
        let view = served.view();
        let found = match &filter {
            None => from(&view, first, limit + 1)?,
            Some(filter) => passing(&served, &view, filter, first, limit + 1)?,
        };
        let next_cursor = found.get(limit).map(|(id, _)| id.to_string());
        let item = |(id, record)| of.item(served.name(), id, record);
        let images = found.into_iter().take(limit).map(item).collect();
        Ok(ImagesAnswer { images, next_cursor })
    };
    state.searchers.run(look).await.map(Answered)
}

/// A filter in an address.
fn read_filter(text: String) -> Answer<Filter> {
    let tree = text.trim_start().starts_with('{').then(|| serde_json::from_str(&text));
    match tree {
        Some(Ok(tree)) => Filter::try_from(FilterBody::Tree(tree)),
        Some(Err(error)) => {
            let detail = format!("the filter is no JSON: {error}");
            Err(Problem::new(Code::InvalidFilter, detail.clone()).field("filter", detail))
        }
        None => Filter::try_from(FilterBody::Text(text)),
    }
}

fn from(view: &View, first: u64, wanted: usize) -> Answer<Vec<(ImageId, Record)>> {
    Ok(view.images_from(ImageId(first)).take(wanted).collect::<indexer::Result<_>>()?)
}

fn passing(
    served: &Served,
    view: &View,
    filter: &Filter,
    first: u64,
    wanted: usize,
) -> Answer<Vec<(ImageId, Record)>> {
    let rows = served.filters.rows(filter, view)?;
    let mut ids = Vec::new();
    for row in rows.iter() {
        let id = view.id_of(row)?;
        if id.0 >= first {
            ids.push(id);
        }
    }
    if ids.len() > wanted {
        ids.select_nth_unstable(wanted - 1);
        ids.truncate(wanted);
    }
    ids.sort_unstable();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        // One that was removed meanwhile is left out.
        if let Some(record) = view.record(id)? {
            found.push((id, record));
        }
    }
    Ok(found)
}

/// An image
#[utoipa::path(
    get, path = "/collections/{name}/images/{id}", tag = "images", operation_id = "get_image",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = u64, Path, description = "Image"),
    ),
    responses(
        (status = 200, description = "The image", body = Item),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn get(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
) -> Answer<Answered<Item>> {
    let served = state.collection(&name).await?;
    let of = state.clone();
    let look = move || match served.view().record(ImageId(id))? {
        Some(record) => Ok(of.item(served.name(), ImageId(id), record)),
        None => Err(Problem::no_image(served.name(), id)),
    };
    state.searchers.run(look).await.map(Answered)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a description only")]
struct AddForm {
    /// The picture.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// What is attached to it: a JSON object.
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    /// What it is called; attached as `name`.
    name: Option<String>,
}

/// Add an image for good
///
/// The picture is kept in the server's home and is searched from now on. The same file again is the
/// same image.
#[utoipa::path(
    post, path = "/collections/{name}/images", tag = "images", operation_id = "add_image",
    params(("name" = String, Path, description = "Collection")),
    request_body(content((AddForm = "multipart/form-data"))),
    responses(
        (status = 201, description = "Added", body = Item),
        (status = 200, description = "This file was here already", body = Item),
        (status = "4XX", description = "Not added", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn add(
    State(state): State<AppState>,
    Path(collection): Path<String>,
    request: Request,
) -> Answer<Response> {
    let served = state.collection(&collection).await?;
    if extract::media_type(request.headers()) != "multipart/form-data" {
        let detail = "a picture is added as a form (multipart/form-data) with a part `image`";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let expected =
        Expected { files: &["image"], object: None, texts: &["name"], fields: &["payload"] };
    let mut form = Form::read(request, &state, expected).await?;
    let mut files = form.take("image");
    let (Some(file), true) = (files.pop(), files.is_empty()) else {
        let detail = "the form must have exactly one part `image`";
        return Err(Problem::new(Code::BadRequest, detail).field("image", detail));
    };
    let mut payload = match form.fields.remove("payload") {
        None | Some(Value::Null) => Payload::new(),
        Some(Value::Object(fields)) => fields.into_iter().collect(),
        Some(_) => {
            let detail = "the payload must be a JSON object";
            return Err(Problem::new(Code::BadRequest, detail).field("payload", detail));
        }
    };
    if let Some(Value::String(name)) = form.fields.remove("name") {
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        payload.entry("name".to_owned()).or_insert(name.into());
    }
    let added = state.add_upload(&served, file, payload).await?;
    let status = if added.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let item = state.item(served.name(), added.id, added.record);
    let at = item.thumbnail.trim_end_matches("/thumbnail").to_owned();
    Ok((status, [(LOCATION, at)], Answered(item)).into_response())
}

/// Remove an image
///
/// Its file is not touched, unless it was uploaded here.
#[utoipa::path(
    delete, path = "/collections/{name}/images/{id}", tag = "images", operation_id = "remove_image",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = u64, Path, description = "Image"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Not removed", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn remove(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
) -> Answer<StatusCode> {
    let served = state.collection(&name).await?;
    state.remove_image(&served, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change what is attached to an image
///
/// The body is a JSON merge patch (RFC 7396): fields that are null are removed, others set.
#[utoipa::path(
    patch, path = "/collections/{name}/images/{id}/payload", tag = "images",
    operation_id = "patch_payload",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = u64, Path, description = "Image"),
    ),
    request_body(content((Object = "application/merge-patch+json"), (Object = "application/json"))),
    responses(
        (status = 200, description = "The image as it is now", body = Item),
        (status = "4XX", description = "Not changed", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn patch(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
    Json(patch): Json<Payload>,
) -> Answer<Answered<Item>> {
    let served = state.collection(&name).await?;
    let record = state.patch_payload(&served, id, patch).await?;
    Ok(Answered(state.item(served.name(), ImageId(id), record)))
}

#[cfg(test)]
mod tests;
