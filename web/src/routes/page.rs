//! The page: files of `web/ui`, which are in the program.

use std::borrow::Cow;
use std::path::{Component, PathBuf};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use crate::problem::{Answer, Code, Problem};
use crate::state::AppState;

/// A browser asks every time whether a file has changed, so that a new release is seen at once.
const CACHE: &str = "no-cache";

#[derive(RustEmbed)]
#[folder = "ui/"]
#[allow_missing = true]
struct Files;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/", get(index)).route("/ui/{*path}", get(file))
}

/// From the base path to the page, whose addresses are relative.
pub(super) async fn to_page(State(state): State<AppState>) -> Redirect {
    Redirect::permanent(&format!("{}/", state.options.base_path))
}

async fn index(State(state): State<AppState>, headers: HeaderMap) -> Answer<Response> {
    answer(&state, "index.html", &headers).await
}

async fn file(State(state): State<AppState>, uri: Uri, headers: HeaderMap) -> Answer<Response> {
    // Names of files need no escapes, so that none is undone.
    let path = uri.path().split_once("/ui/").map_or("", |(_, path)| path).to_owned();
    answer(&state, &path, &headers).await
}

async fn answer(state: &AppState, path: &str, headers: &HeaderMap) -> Answer<Response> {
    let nothing = || Problem::new(Code::NotFound, "the page has no such file");
    let kind = content_type(path).ok_or_else(nothing)?;
    let (content, hash) = find(state, path).await.ok_or_else(nothing)?;
    let tag = format!(
        "\"{}\"",
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let about = [(ETAG, tag), (CACHE_CONTROL, CACHE.to_owned())];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, [(CONTENT_TYPE, kind)], content).into_response())
}

async fn find(state: &AppState, path: &str) -> Option<(Cow<'static, [u8]>, [u8; 32])> {
    // Only for those who work on the page, in builds that are not released.
    if cfg!(debug_assertions)
        && let Some(folder) = &state.options.ui_dir
    {
        let path = PathBuf::from(path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let file = folder.join(path);
        let content = tokio::task::spawn_blocking(move || std::fs::read(file)).await.ok()?.ok()?;
        let hash = Sha256::digest(&content).into();
        return Some((Cow::Owned(content), hash));
    }
    let file = Files::get(path)?;
    let hash = file.metadata.sha256_hash();
    Some((file.data, hash))
}

/// By the end of the name; the page has no other files.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "webmanifest" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;

    use super::*;
    use crate::options::Options;
    use crate::testing::Server;

    #[tokio::test]
    async fn every_file_of_the_page_is_served_with_its_type() {
        let server = Server::with_pictures(0);
        for name in Files::iter() {
            let path = format!("/ui/{name}");
            let answer = server.get(&path).await;
            assert_eq!(answer.status.as_u16(), 200, "{path}");
            assert_eq!(answer.body, &*Files::get(&name).expect("a file").data, "{path}");
            let tag = answer.headers[ETAG].clone();
            let again = Request::get(&path).header(IF_NONE_MATCH, tag).body(Body::empty());
            let again = server.send(again.expect("a request")).await;
            assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
        }
    }

    #[tokio::test]
    async fn nothing_but_files_of_the_page_is_served() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(folder.path().join("ui")).expect("create");
        std::fs::write(folder.path().join("secret.txt"), "secret").expect("write");
        std::fs::write(folder.path().join("ui/index.html"), "<p>page").expect("write");
        let options = Options { ui_dir: Some(folder.path().join("ui")), ..Options::default() };
        let server = Server::with_options(0, options);
        let answer = server.get("/").await;
        assert_eq!(answer.body, b"<p>page");
        assert_eq!(answer.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = answer.headers["content-security-policy"].to_str().expect("text");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        for path in [
            "/ui/../secret.txt",
            "/ui/%2e%2e/secret.txt",
            "/ui/..%2fsecret.txt",
            "/ui//secret.txt",
            "/ui/%2fetc/passwd",
            "/ui/none.js",
            "/ui/index",
        ] {
            assert_eq!(server.get(path).await.status.as_u16(), 404, "{path}");
        }
    }

    #[tokio::test]
    async fn below_a_base_path_the_page_is_found_with_and_without_a_slash() {
        let options = Options { base_path: "/akin".to_owned(), ..Options::default() };
        let server = Server::with_options(1, options);
        let answer = server.get("/akin").await;
        assert_eq!(answer.status.as_u16(), 308);
        assert_eq!(answer.headers["location"], "/akin/");
        assert_eq!(server.get("/akin/livez").await.status.as_u16(), 200);
        let item = server.get("/akin/api/v1/collections/photos/images/0").await.json();
        assert_eq!(item["thumbnail"], "/akin/api/v1/collections/photos/images/0/thumbnail");
        assert_eq!(server.get("/livez").await.status.as_u16(), 404);
    }
}
