//! A line in the log and a count in the metrics for every answer. Lines have no query string, which may
//! hold what people search for, and nothing of bodies.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::request_id;
use crate::state::AppState;

/// Methods that are counted by their names; others could be made up without an end.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Notes a request when its answer is ready to be sent.
pub async fn note(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = METHODS.into_iter().find(|method| *method == request.method().as_str());
    let method = method.unwrap_or("other");
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "other".to_owned(), |route| route.as_str().to_owned());
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), start.elapsed());
    state.metrics.request(method, &route, status, took);
    tracing::info!(
        target: "akin::access",
        request_id = %request_id::current(),
        method,
        %path,
        status,
        ms = (took.as_secs_f64() * 1e5).round() / 100.0,
    );
    response
}
