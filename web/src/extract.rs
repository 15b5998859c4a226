//! Parts of requests as handlers take them. Whatever is wrong with one is a problem document.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};
use crate::state::AppState;

/// Values in the address.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// Parameters behind the question mark.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection: PathRejection| {
            Problem::new(Code::BadRequest, format!("the address: {}", rejection.body_text()))
        })
    }
}

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection: QueryRejection| {
            Problem::new(Code::BadRequest, format!("the parameters: {}", rejection.body_text()))
        })
    }
}

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "the body must be JSON";
            return Err(Problem::new(Code::UnsupportedMediaType, detail)
                .remedy("send it with content-type: application/json"));
        }
        let body = body(request, state).await?;
        from_json(&body).map(Self)
    }
}

/// The whole body of what is to be JSON.
///
/// # Errors
/// It is too large, or was cut off.
pub async fn body(request: Request, state: &AppState) -> Result<Bytes, Problem> {
    let body = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
        Problem::new(Code::BadRequest, format!("the body: {}", rejection.body_text()))
    })?;
    let limit = state.options.max_json_bytes;
    if body.len() as u64 > limit {
        let detail = format!("the JSON body has {} bytes, the limit is {limit}", body.len());
        return Err(Problem::new(Code::BodyTooLarge, detail));
    }
    Ok(body)
}

/// Reads a JSON object.
///
/// # Errors
/// It is none, or not what is taken here.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Lists of values without their names would be taken, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(Code::BadRequest, "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::BadRequest, format!("the body: {error}")))
}

/// Whether the body says that it is JSON, of whatever kind.
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = media_type(headers);
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Type of the body in lower case, without its parameters; empty when it says none.
pub fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
