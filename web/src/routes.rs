//! The addresses, one file for each kind of resource.

mod collections;
mod dedup;
mod embeddings;
mod health;
mod images;
mod jobs;
mod page;
mod paging;
mod runs;
mod search;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Method, Uri};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::problem::{Code, Problem};
use crate::state::AppState;

/// Where the API is, below the base path.
pub const API: &str = "/api/v1";

/// The description of the API, without its paths: each route brings its own.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Akin",
        description = "Visual search over collections of pictures. docs/http-api.md is its manual.",
    ),
    components(schemas(crate::problem::ProblemBody, crate::problem::FieldError)),
    modifiers(&Key),
    security((), ("key" = [])),
)]
struct Description;

/// How keys are sent.
struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let scheme = scheme.description(Some("A key made with `akin key create`"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
    }
}

/// Routes of the API, relative to [`API`], with their descriptions.
fn api() -> OpenApiRouter<AppState> {
    // Each kind of resource is merged here: `.merge(jobs::routes())`, and so on.
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(jobs::routes())
        .merge(dedup::routes())
        .merge(runs::routes())
        .merge(status::routes())
        .merge(collections::routes())
        .merge(search::routes())
        .merge(embeddings::routes())
        .merge(images::routes())
}

/// All routes, below the base path, and the description of the API.
pub fn all(state: &AppState) -> (Router, Document) {
    let (routes, mut document) = OpenApiRouter::new().nest(API, api()).split_for_parts();
    document.info = Description::openapi().info;
    document.security = Description::openapi().security;
    if !state.options.base_path.is_empty() {
        document.servers = Some(vec![utoipa::openapi::Server::new(&state.options.base_path)]);
    }
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    let described = get(async move || {
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")];
        (headers, text.to_string())
    });
    let routes = routes
        .route(&format!("{API}/openapi.json"), described)
        .merge(health::routes())
        .merge(page::routes())
        .fallback(nothing)
        .method_not_allowed_fallback(other_method);
    let base = &state.options.base_path;
    let routes = match base.is_empty() {
        true => routes,
        // Nested routes would take the path without its slash for the page too.
        false => Router::new()
            .route(base, get(page::to_page))
            .nest(&format!("{base}/"), routes)
            .fallback(nothing)
            .method_not_allowed_fallback(other_method),
    };
    // What may come is limited before: by the guard for all bodies, by readers for each kind.
    let routes = routes.layer(DefaultBodyLimit::disable());
    (routes.with_state(state.clone()), document)
}

async fn nothing(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[tokio::test]
    async fn the_description_names_every_route_and_no_reference_leads_nowhere() {
        let server = Server::with_pictures(0);
        let document = server.get("/api/v1/openapi.json").await.json();
        assert!(document["openapi"].as_str().expect("a version").starts_with("3."));
        let paths = document["paths"].as_object().expect("paths");
        for path in ["/api/v1/status", "/api/v1/collections/{name}/search", "/api/v1/embeddings"] {
            assert!(paths.contains_key(path), "{path} is not described");
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().expect("an end");
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
        }
    }
}
