//! The addresses, one file for each kind of resource.

mod dedup;
mod health;
mod jobs;
mod runs;

use axum::Router;
use axum::http::{Method, Uri};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;

use crate::problem::{Code, Problem};
use crate::state::AppState;

/// Where the API is, below the base path.
pub const API: &str = "/api/v1";

/// The description of the API, without its paths: each route brings its own.
#[derive(OpenApi)]
#[openapi(
    info(title = "Akin", description = "Visual search over collections of pictures."),
    components(schemas(crate::problem::ProblemBody, crate::problem::FieldError))
)]
struct Description;

/// Routes of the API, relative to [`API`], with their descriptions.
fn api() -> OpenApiRouter<AppState> {
    // Each kind of resource is merged here: `.merge(jobs::routes())`, and so on.
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(jobs::routes())
        .merge(dedup::routes())
        .merge(runs::routes())
}

/// All routes, below the base path, and the description of the API.
pub fn all(state: &AppState) -> (Router, Document) {
    let (routes, document) = OpenApiRouter::new().nest(API, api()).split_for_parts();
    let routes = routes.merge(health::routes());
    let routes = routes.fallback(nothing).method_not_allowed_fallback(other_method);
    let routes = routes.with_state(state.clone());
    let base = &state.options.base_path;
    let routes = match base.is_empty() {
        true => routes,
        false => Router::new().nest(base, routes).fallback(nothing),
    };
    (routes, document)
}

async fn nothing(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
