use std::time::Duration;

use axum::body::Body;
use axum::http::header::{HOST, RETRY_AFTER};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::keys;

struct Guarded {
    home: tempfile::TempDir,
    routes: Router,
    guard: Arc<Guard>,
}

fn guarded(settings: Settings, base: &str, with_keys: bool) -> (Guarded, Vec<String>) {
    let home = tempfile::tempdir().expect("temporary folder");
    let roles = [Role::Read, Role::Write, Role::Admin];
    let made = match with_keys {
        true => roles.map(|role| keys::create(home.path(), "", role).expect("a key").1).into(),
        false => Vec::new(),
    };
    let guard = Guard::new(settings, base, Keys::open(home.path()).expect("keys"));
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(30)).await;
        "slow"
    };
    let who = async |axum::Extension(granted): axum::Extension<Granted>| format!("{granted:?}");
    let routes = Router::new()
        .route("/", get(async || "page"))
        .route("/api/v1/status", get(who))
        .route("/api/v1/slow", get(slow))
        .route("/api/v1/collections/{name}/search", post(async |body: String| body))
        .route("/api/v1/runs", post(async || axum::http::StatusCode::ACCEPTED));
    let routes = if base.is_empty() { routes } else { Router::new().nest(base, routes) };
    let routes = guard.protect(routes).layer(axum::middleware::from_fn(crate::request_id::assign));
    (Guarded { home, routes, guard }, made)
}

struct Asked {
    status: u16,
    retry_after: Option<u64>,
    text: String,
}

impl Guarded {
    async fn ask(&self, from: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Asked {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1:1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        let from: SocketAddr = from.parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(from));
        let response = self.routes.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER);
        let retry_after = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Asked { status, retry_after, text: String::from_utf8_lossy(&body).into_owned() }
    }
}

const HERE: &str = "127.0.0.1:5000";
const THERE: &str = "203.0.113.9:5000";
const STATUS: &str = "/api/v1/status";

#[tokio::test]
async fn without_keys_only_this_machine_is_answered() {
    let (server, _) = guarded(Settings::default(), "", false);
    let here = server.ask(HERE, "GET", STATUS, &[]).await;
    assert!(here.status == 200 && here.text.contains("Admin"), "{}", here.text);
    for path in [STATUS, "/"] {
        let there = server.ask(THERE, "GET", path, &[]).await;
        assert_eq!(there.status, 403, "{}", there.text);
        assert!(there.text.contains("akin key create"), "{}", there.text);
    }
    let address = |text: &str| server.guard.check_address(text.parse().expect("an address"));
    assert!(address("127.0.0.1:1").is_ok() && address("[::1]:1").is_ok());
    for open in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1"] {
        assert!(address(open).expect_err("refused").contains("--insecure"), "{open}");
    }
    let insecure = Settings { is_insecure: true, ..Settings::default() };
    let (server, _) = guarded(insecure, "", false);
    assert_eq!(server.ask(THERE, "GET", STATUS, &[]).await.status, 200);
    let rebound = server.ask(THERE, "GET", STATUS, &[("host", "evil.example")]).await;
    assert_eq!(rebound.status, 400, "two hosts, since the first stays: {}", rebound.text);
}

#[tokio::test]
async fn the_first_key_closes_a_running_server() {
    let (server, _) = guarded(Settings::default(), "", false);
    assert_eq!(server.ask(HERE, "GET", STATUS, &[]).await.status, 200);
    let (_, key) = keys::create(server.home.path(), "", Role::Write).expect("a key");
    assert_eq!(server.ask(HERE, "GET", STATUS, &[]).await.status, 401);
    let bearer = format!("bearer {key}");
    let with = server.ask(THERE, "GET", STATUS, &[("authorization", &bearer)]).await;
    assert!(with.status == 200 && with.text.contains("Write"), "{}", with.text);
    assert!(server.guard.check_address("0.0.0.0:1".parse().expect("address")).is_ok());
}

#[tokio::test]
async fn each_caller_has_a_rate_of_its_own() {
    let limits = Limits { rate: 1, burst: 3, ..Limits::default() };
    let (server, made) = guarded(Settings { limits, ..Settings::default() }, "", true);
    let keys: Vec<String> = made.iter().map(|key| format!("Bearer {key}")).collect();
    for key in &keys {
        for _ in 0..3 {
            let asked = server.ask(THERE, "GET", STATUS, &[("authorization", key)]).await;
            assert_eq!(asked.status, 200);
        }
        let asked = server.ask(THERE, "GET", STATUS, &[("authorization", key)]).await;
        assert_eq!((asked.status, asked.retry_after), (429, Some(1)), "{}", asked.text);
    }
    // Guessing keys has a rate, too.
    let mut refused = [0, 0];
    for _ in 0..10 {
        let asked = server.ask(THERE, "GET", STATUS, &[("authorization", "Bearer akin_x")]).await;
        refused[usize::from(asked.status == 429)] += 1;
    }
    assert_eq!(refused, [3, 7]);
    assert_eq!(server.ask("203.0.113.8:1", "GET", STATUS, &[]).await.status, 401, "another one");
}

#[tokio::test]
async fn proxies_that_are_trusted_name_the_client() {
    let limits = Limits { rate: 1, burst: 1, ..Limits::default() };
    let trusted_proxies = vec!["10.0.0.0/8".parse().expect("a net")];
    let settings = Settings { limits, trusted_proxies, ..Settings::default() };
    let (server, made) = guarded(settings, "", true);
    let ask = async |client: &str| {
        let headers = [("x-forwarded-for", client)];
        server.ask("10.1.1.1:1", "GET", STATUS, &headers).await.status
    };
    // The first entry is whatever the client made up.
    assert_eq!(ask("1.1.1.1, 9.9.9.9").await, 401);
    assert_eq!(ask("2.2.2.2, 9.9.9.9").await, 429);
    assert_eq!(ask("1.1.1.1, 8.8.8.8").await, 401);
    assert_eq!(made.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn too_many_at_once_wait_a_while_and_are_then_refused() {
    let limits = Limits {
        in_flight: 1,
        waiting: 1,
        wait: Duration::from_secs(5),
        work: Duration::from_secs(20),
        ..Limits::default()
    };
    let (server, _) = guarded(Settings { limits, ..Settings::default() }, "", false);
    let ask = || server.ask(HERE, "GET", "/api/v1/slow", &[]);
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    let mut all = [first.status, second.status, third.status];
    all.sort_unstable();
    assert_eq!(all, [429, 429, 503], "one waits in vain, one is refused, one takes too long");
    assert!(third.retry_after.is_some() && third.text.contains("overloaded"), "{}", third.text);
    assert_eq!(server.guard.waiting(), 0);
}

#[tokio::test]
async fn below_a_base_path_the_same_roles_are_needed() {
    let (server, made) = guarded(Settings::default(), "/akin", true);
    assert_eq!(server.ask(THERE, "GET", "/akin", &[]).await.status, 200);
    assert_eq!(server.ask(THERE, "GET", "/akin/api/v1/status", &[]).await.status, 401);
    let read = format!("Bearer {}", made[0]);
    let post = async |path: &str| {
        server.ask(THERE, "POST", path, &[("authorization", &read)]).await.status
    };
    assert_eq!(post("/akin/api/v1/runs").await, 403);
    assert_eq!(post("/akin/api/v1/collections/a/search").await, 200);
    assert_eq!(post("/akinapi/v1/runs").await, 404);
    assert_eq!(post("/api/v1/runs").await, 404);
}

#[tokio::test]
async fn writes_are_done_once_for_each_caller() {
    let (server, made) = guarded(Settings::default(), "", true);
    let write = [&made[1], &made[2]].map(|key| format!("Bearer {key}"));
    for bearer in &write {
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "same")];
        assert_eq!(server.ask(THERE, "POST", "/api/v1/runs", &headers).await.status, 202);
        assert_eq!(server.ask(THERE, "POST", "/api/v1/runs", &headers).await.status, 202);
    }
}
