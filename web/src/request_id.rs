//! A name for every request, in its answer and in the log.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

/// Header that carries it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken over from a client or proxy.
const MAX_LENGTH: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// Id of the request that this task answers; empty outside of one.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Names a request, for all that runs inside, and says so in the answer. A sound id of the client's
/// is taken over, so that one request has one name on its way through several programs.
pub async fn assign(request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).and_then(|id| id.to_str().ok());
    let id = given.filter(|id| is_sound(id)).map_or_else(random, str::to_owned);
    let header = HeaderValue::from_str(&id);
    let mut response = CURRENT.scope(id, next.run(request)).await;
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response
}

fn is_sound(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=MAX_LENGTH).contains(&id.len()) && id.chars().all(allowed)
}

/// Runs work on another thread under the id of this task.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let id = current();
    move || CURRENT.sync_scope(id, work)
}

/// Runs work for a request that is another task's.
pub fn under<T>(id: String, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(id, work)
}

/// A future for another task, under the id of this one.
pub fn scoped<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    CURRENT.scope(current(), work)
}

/// 96 bits in hexadecimal; a running number where there is no randomness.
fn random() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let counted = || format!("n{}", COUNT.fetch_add(1, Ordering::Relaxed));
    crate::random::hex::<12>().unwrap_or_else(|_| counted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert!(is_sound("a-B_9") && is_sound(&"x".repeat(64)));
        for id in ["", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert!(!is_sound(id), "{id}");
        }
        assert_ne!(random(), random());
    }
}
