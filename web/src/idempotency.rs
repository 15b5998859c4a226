//! Writes that are done once, however often they are asked for: the first answer to an
//! `Idempotency-Key` is kept and given again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use sha2::{Digest, Sha256};

use crate::guard::rate::Caller;
use crate::problem::{Answer, Code, Problem};
use crate::request_id;

/// The request's header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is one given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key.
const KEY_CHARS: usize = 200;
/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(6 * 3600);
/// Answers kept, and bytes of them; the oldest go first.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;
/// A longer answer is not kept, and the key with it.
const LONGEST: usize = 1 << 20;

/// Whose key it is, and for what: two callers may come up with the same one.
type Name = [u8; 32];

/// Answers given before.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    by_name: HashMap<Name, Entry>,
    /// Names of finished entries with the time they were finished at, oldest first.
    order: VecDeque<(Name, Instant)>,
    bytes: usize,
}

struct Entry {
    /// Hash of the request's body.
    body: [u8; 32],
    /// `None` while the first request is being answered.
    answer: Option<Kept>,
}

#[derive(Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What there is under a name.
enum Found {
    Nothing,
    Answer(Kept),
    Running,
    OtherBody,
}

/// Answers a write, or gives the answer that it was given before. Without the header it just
/// answers.
pub async fn once(
    answers: &Answers,
    caller: &Caller,
    body: &Bytes,
    request: Request,
    next: Next,
) -> Response {
    let mut keys = request.headers().get_all(HEADER).into_iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => None,
        (Some(key), None) => Some(key),
        (Some(_), Some(_)) => return bad("there is more than one Idempotency-Key").into_response(),
    };
    let name = match key.map(|key| name(key, caller, &request)).transpose() {
        Ok(name) => name,
        Err(problem) => return problem.into_response(),
    };
    let Some(name) = name else { return finish(request, next).await };
    let body: [u8; 32] = Sha256::digest(body).into();
    match answers.begin(name, body, Instant::now()) {
        Found::Answer(kept) => kept.again(),
        Found::OtherBody => Problem::new(
            Code::IdempotencyMismatch,
            "this Idempotency-Key was used before, with another body",
        )
        .remedy("use a new key for a new request")
        .field("Idempotency-Key", "belongs to another request")
        .into_response(),
        Found::Running => {
            Problem::new(Code::Conflict, "a request with this Idempotency-Key is being answered")
                .remedy("ask again in a moment for its answer")
                .retry_after(Duration::from_secs(1))
                .into_response()
        }
        Found::Nothing => {
            let running = Running { answers: answers.clone(), name };
            let work = async move {
                let response = finish(request, next).await;
                running.end(response).await
            };
            joined(work).await
        }
    }
}

/// Goes on to the end even when the client leaves: half a write would be worse.
async fn finish(request: Request, next: Next) -> Response {
    joined(next.run(request)).await
}

async fn joined(work: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::spawn(request_id::scoped(work)).await {
        Ok(response) => response,
        Err(error) => Problem::internal(error).into_response(),
    }
}

fn name(key: &HeaderValue, caller: &Caller, request: &Request) -> Answer<Name> {
    let text = key.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    let text = text.filter(|text| text.len() <= KEY_CHARS).ok_or_else(|| {
        bad(&format!("an Idempotency-Key has 1 to {KEY_CHARS} visible ASCII characters"))
    })?;
    let place = format!("{caller:?}\n{} {}\n{text}", request.method(), request.uri());
    Ok(Sha256::digest(place).into())
}

fn bad(detail: &str) -> Problem {
    Problem::new(Code::BadRequest, detail).field("Idempotency-Key", detail)
}

/// A request being answered; if it comes to no answer, its name is free again.
struct Running {
    answers: Answers,
    name: Name,
}

impl Running {
    async fn end(self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        // Passing troubles are no answers: the next try may do it.
        let is_final = !parts.status.is_server_error()
            && !matches!(parts.status.as_u16(), 401 | 403 | 408 | 409 | 425 | 429);
        if !is_final {
            return Response::from_parts(parts, body);
        }
        match Limited::new(body, LONGEST).collect().await {
            Ok(body) => {
                let (status, headers) = (parts.status, parts.headers.clone());
                let body = body.to_bytes();
                self.answers.keep(self.name, Kept { status, headers, body: body.clone() });
                Response::from_parts(parts, Body::from(body))
            }
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.answers.lock();
        if state.by_name.get(&self.name).is_some_and(|entry| entry.answer.is_none()) {
            state.by_name.remove(&self.name);
        }
    }
}

impl Kept {
    fn again(self) -> Response {
        let Self { status, mut headers, body } = self;
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        (status, headers, body).into_response()
    }

    fn bytes(&self) -> usize {
        self.body.len() + 512
    }
}

impl Answers {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a name up, and takes it when it is free.
    fn begin(&self, name: Name, body: [u8; 32], now: Instant) -> Found {
        let mut state = self.lock();
        state.forget(now);
        match state.by_name.get(&name) {
            Some(entry) if entry.body != body => Found::OtherBody,
            Some(Entry { answer: Some(kept), .. }) => Found::Answer(kept.clone()),
            Some(_) => Found::Running,
            None => {
                state.by_name.insert(name, Entry { body, answer: None });
                Found::Nothing
            }
        }
    }

    fn keep(&self, name: Name, kept: Kept) {
        let mut state = self.lock();
        let bytes = kept.bytes();
        if let Some(entry) = state.by_name.get_mut(&name) {
            entry.answer = Some(kept);
            state.bytes += bytes;
            state.order.push_back((name, Instant::now()));
        }
    }
}

impl State {
    /// Drops what is too old, and the oldest of what is too much.
    fn forget(&mut self, now: Instant) {
        while let Some(&(name, at)) = self.order.front() {
            let is_old = now.saturating_duration_since(at) >= KEPT;
            if !is_old && self.order.len() < MOST && self.bytes < MOST_BYTES {
                break;
            }
            self.order.pop_front();
            if let Some(Entry { answer: Some(kept), .. }) = self.by_name.remove(&name) {
                self.bytes -= kept.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State as Shared;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    /// Counts what is done; answers with the number, or as the body says.
    fn routes(answers: Answers, done: Arc<AtomicUsize>) -> Router {
        let count = async move |body: String| {
            let number = done.fetch_add(1, Ordering::SeqCst);
            if body == "wait" {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let status = if body == "fail" { 503 } else { 201 };
            (StatusCode::from_u16(status).expect("a status"), number.to_string())
        };
        let pass = async |Shared(answers): Shared<Answers>, request: Request, next: Next| {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let request = Request::from_parts(parts, Body::from(body.clone()));
            let caller = match request.headers().get("x-caller") {
                Some(_) => Caller::Others,
                None => Caller::at(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            };
            once(&answers, &caller, &body, request, next).await
        };
        let count = post(count);
        Router::new()
            .route("/", count.clone())
            .route("/other", count)
            .layer(from_fn_with_state(answers, pass))
    }

    async fn ask(
        routes: &Router,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = routes.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_done_once() {
        let routes = routes(Answers::default(), Arc::default());
        let key = [("idempotency-key", "a")];
        assert_eq!(ask(&routes, "/", &key, "x").await, (201, "0".to_owned()));
        assert_eq!(ask(&routes, "/", &key, "x").await, (201, "0".to_owned()));
        assert_eq!(ask(&routes, "/", &key, "y").await.0, 422);
        let elsewhere = ask(&routes, "/other", &key, "x").await;
        assert_eq!(elsewhere, (201, "1".to_owned()));
        let others = ask(&routes, "/", &[key[0], ("x-caller", "1")], "x").await;
        assert_eq!(others, (201, "2".to_owned()));
        assert_eq!(ask(&routes, "/", &[], "x").await, (201, "3".to_owned()));
        assert_eq!(ask(&routes, "/", &[("idempotency-key", "")], "x").await.0, 400);
        assert_eq!(ask(&routes, "/", &[key[0], key[0]], "x").await.0, 400);
        let long = "a".repeat(201);
        assert_eq!(ask(&routes, "/", &[("idempotency-key", &long)], "x").await.0, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept() {
        let routes = routes(Answers::default(), Arc::default());
        let key = [("idempotency-key", "a")];
        assert_eq!(ask(&routes, "/", &key, "fail").await, (503, "0".to_owned()));
        assert_eq!(ask(&routes, "/", &key, "fail").await, (503, "1".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_and_asks_again_gets_the_first_answer() {
        let done = Arc::new(AtomicUsize::new(0));
        let routes = routes(Answers::default(), Arc::clone(&done));
        let key = [("idempotency-key", "a")];
        let left = tokio::time::timeout(Duration::from_millis(10), ask(&routes, "/", &key, "wait"));
        assert!(left.await.is_err());
        assert_eq!(ask(&routes, "/", &key, "wait").await.0, 409, "still at work");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(ask(&routes, "/", &key, "wait").await, (201, "0".to_owned()));
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn answers_are_forgotten_in_time() {
        let answers = Answers::default();
        let now = Instant::now();
        let kept = |bytes| Kept {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![0; bytes]),
        };
        for number in 0..100u8 {
            assert!(matches!(answers.begin([number; 32], [0; 32], now), Found::Nothing));
            answers.keep([number; 32], kept(1 << 20));
        }
        assert!(answers.lock().bytes <= MOST_BYTES + (1 << 20) + 512);
        assert!(matches!(answers.begin([99; 32], [0; 32], now), Found::Answer(_)));
        let later = now + KEPT + Duration::from_secs(1);
        assert!(matches!(answers.begin([99; 32], [0; 32], later), Found::Nothing));
        let state = answers.lock();
        assert_eq!((state.bytes, state.order.len()), (0, 0));
    }
}
