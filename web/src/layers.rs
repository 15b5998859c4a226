//! What every request goes through before its route, from the outside in:
//!
//! 1. it gets an id (`request_id`), which is in its answer and in the log;
//! 2. it is timed and written to the log (`access_log`);
//! 3. it is guarded ([`guard`]): headers, client address, key and role, rates, limits;
//! 4. a panic in a route becomes an answer.

use std::any::Any;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access_log;
use crate::problem::Problem;
use crate::request_id;
use crate::state::AppState;

/// Puts everything around the routes.
pub fn around(routes: Router, state: &AppState) -> Router {
    let routes = routes.layer(CatchPanicLayer::custom(panicked));
    guard(routes, state)
        .layer(from_fn_with_state(state.clone(), access_log::note))
        .layer(from_fn(request_id::assign))
}

/// What keeps strangers out and everybody within limits.
fn guard(routes: Router, state: &AppState) -> Router {
    state.guard.protect(routes)
}

fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Problem::internal(text.unwrap_or_else(|| "a panic".to_owned())).into_response()
}
