//! Pictures as files: thumbnails and originals.

use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::decode::{DecodeOptions, Format, decode};
use indexer::{ImageId, Record};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::examples::read_verified;
use crate::extract::{Path, Query};
use crate::metrics::Stage;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::shelf::Served;
use crate::state::AppState;
use crate::thumbnails;

/// What is at an address changes only when an image is replaced; then its tag does.
const CACHE: &str = "private, max-age=3600";

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(thumbnail)).routes(routes!(original))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ThumbnailSize {
    /// Longer side in pixels; by default 320.
    #[param(inline)]
    size: Option<Side>,
}

/// Longer side of a thumbnail in pixels.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
enum Side {
    #[serde(rename = "160")]
    Small,
    #[default]
    #[serde(rename = "320")]
    Middle,
    #[serde(rename = "640")]
    Large,
}

impl Side {
    fn pixels(self) -> u32 {
        match self {
            Self::Small => 160,
            Self::Middle => 320,
            Self::Large => 640,
        }
    }
}

/// A small copy of an image
#[utoipa::path(
    get, path = "/collections/{name}/images/{id}/thumbnail", tag = "images",
    operation_id = "get_thumbnail",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = u64, Path, description = "Image"),
        ThumbnailSize,
    ),
    responses(
        (status = 200, description = "A JPEG file", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 304, description = "The client has it"),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn thumbnail(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
    Query(ThumbnailSize { size }): Query<ThumbnailSize>,
    headers: HeaderMap,
) -> Answer<Response> {
    let size = size.unwrap_or_default().pixels();
    let served = state.collection(&name).await?;
    let record = record(&state, &served, id).await?;
    let tag = format!("\"{}-{size}\"", record.sha256);
    if is_known(&headers, &tag) {
        return Ok(not_modified(tag));
    }
    let (of, content) = (state.clone(), record.sha256.clone());
    let found = state.searchers.run(move || Ok(of.thumbnails.find(&content, size))).await?;
    let file = match found {
        Some(file) => file,
        None => {
            let of = state.clone();
            state.decoders.run(move || make(&of, &record, size)).await?
        }
    };
    let headers =
        [(CONTENT_TYPE, "image/jpeg".to_owned()), (CACHE_CONTROL, CACHE.to_owned()), (ETAG, tag)];
    Ok((headers, file).into_response())
}

fn make(state: &AppState, record: &Record, size: u32) -> Answer<Vec<u8>> {
    // Another request may have made it while this one waited.
    if let Some(file) = state.thumbnails.find(&record.sha256, size) {
        return Ok(file);
    }
    let bytes = read_verified(record)?;
    let start = std::time::Instant::now();
    // It was indexed within these limits.
    let decoded = decode(&bytes, &DecodeOptions::default())?;
    state.metrics.stage(Stage::Decode, start.elapsed());
    let file = thumbnails::make(&decoded.image, size).map_err(Problem::internal)?;
    state.thumbnails.keep(&record.sha256, size, &file);
    Ok(file)
}

/// The file of an image, exactly as it was indexed
///
/// One byte range is served; `if-range` and `if-none-match` are understood.
#[utoipa::path(
    get, path = "/collections/{name}/images/{id}/original", tag = "images",
    operation_id = "get_original",
    params(
        ("name" = String, Path, description = "Collection"),
        ("id" = u64, Path, description = "Image"),
    ),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "image/*"),
        (status = 206, description = "A part of it", body = Vec<u8>, content_type = "image/*"),
        (status = 304, description = "The client has it"),
        (status = "4XX", description = "Not answered; 410 `gone`, 409 `changed`", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn original(
    State(state): State<AppState>,
    Path((name, id)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Answer<Response> {
    let served = state.collection(&name).await?;
    let record = record(&state, &served, id).await?;
    let tag = format!("\"{}\"", record.sha256);
    if is_known(&headers, &tag) {
        return Ok(not_modified(tag));
    }
    let bytes = state.decoders.run(move || read_verified(&record)).await?;
    let (kind, disposition) = content_type(&bytes);
    let mut answer = vec![
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, disposition.to_owned()),
        (CACHE_CONTROL, CACHE.to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, tag.clone()),
    ];
    let length = bytes.len() as u64;
    let range = match text(&headers, &IF_RANGE) {
        // Of another version, the whole of this one is wanted.
        Some(wanted) if wanted != tag => None,
        _ => text(&headers, &RANGE),
    };
    match range.and_then(|range| parse_range(range, length)) {
        None => Ok((headers_of(answer), bytes).into_response()),
        Some(Ok(range)) => {
            let (start, end) = (*range.start(), *range.end());
            answer.push((CONTENT_RANGE, format!("bytes {start}-{end}/{length}")));
            let part = axum::body::Bytes::from(bytes).slice(start as usize..=end as usize);
            Ok((StatusCode::PARTIAL_CONTENT, headers_of(answer), part).into_response())
        }
        Some(Err(())) => {
            let detail = format!("the file has {length} bytes, none of them in that range");
            let range = [(CONTENT_RANGE, format!("bytes */{length}"))];
            Ok((range, Problem::new(Code::RangeNotSatisfiable, detail)).into_response())
        }
    }
}

async fn record(state: &AppState, served: &std::sync::Arc<Served>, id: u64) -> Answer<Record> {
    let served = std::sync::Arc::clone(served);
    let look = move || {
        let record = served.view().record(ImageId(id))?;
        record.ok_or_else(|| Problem::no_image(served.name(), id))
    };
    state.searchers.run(look).await
}

fn headers_of(list: Vec<(HeaderName, String)>) -> HeaderMap {
    let value = |(name, value): (HeaderName, String)| Some((name, value.parse().ok()?));
    list.into_iter().filter_map(value).collect()
}

fn not_modified(tag: String) -> Response {
    let headers = [(ETAG, tag), (CACHE_CONTROL, CACHE.to_owned())];
    let mut response = (StatusCode::NOT_MODIFIED, headers).into_response();
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the client has what has this tag (RFC 9110, 13.1.2: weak comparison).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// The bytes that a range asks for (RFC 9110, 14.1.2); `None` where it is to be ignored: it is none, or
/// several. An error where the file has none of them.
fn parse_range(range: &str, length: u64) -> Option<Result<RangeInclusive<u64>, ()>> {
    let (start, end) = range.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Beyond all numbers is beyond every file.
        true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        false => None,
    };
    let last = length.checked_sub(1);
    let range = match (start, end) {
        ("", "") => return None,
        ("", suffix) => {
            let suffix = number(suffix)?;
            (length.saturating_sub(suffix), if suffix == 0 { None } else { last })
        }
        (start, "") => (number(start)?, last),
        (start, end) => {
            let (start, end) = (number(start)?, number(end)?);
            if start > end {
                return None;
            }
            (start, last.map(|last| last.min(end)))
        }
    };
    Some(match range {
        (start, Some(end)) if start <= end => Ok(start..=end),
        _ => Err(()),
    })
}

/// What a file is, by its content, and whether browsers may show it. Nothing that can hold code is
/// ever named.
fn content_type(bytes: &[u8]) -> (&'static str, &'static str) {
    let shown = match Format::sniff(bytes) {
        Ok(Format::Jpeg) => "image/jpeg",
        Ok(Format::Png) => "image/png",
        Ok(Format::WebP) => "image/webp",
        Ok(Format::Gif) => "image/gif",
        Ok(Format::Bmp) => "image/bmp",
        Ok(Format::Ico) => "image/x-icon",
        Ok(Format::Avif) => "image/avif",
        Ok(Format::Tiff) => "image/tiff",
        Ok(Format::Heic) => "image/heic",
        _ => return ("application/octet-stream", "attachment"),
    };
    (shown, "inline")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_file_of_ten_bytes() {
        for (range, expected) in [
            ("bytes=0-0", Some(Ok(0..=0))),
            ("bytes=2-5", Some(Ok(2..=5))),
            ("bytes=2-", Some(Ok(2..=9))),
            ("bytes=-3", Some(Ok(7..=9))),
            ("bytes=-30", Some(Ok(0..=9))),
            ("bytes=8-99999999999999999999", Some(Ok(8..=9))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=10-12", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=99999999999999999999-", Some(Err(()))),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=1-2,4-5", None),
            ("lines=1-2", None),
            ("bytes=+1-2", None),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(Err(())));
    }

    #[test]
    fn what_could_run_is_only_saved() {
        for bytes in [&b"<svg onload=x>"[..], b"<html>", b"%PDF-1.7", b"", b"GIF"] {
            assert_eq!(content_type(bytes), ("application/octet-stream", "attachment"));
        }
        assert_eq!(content_type(b"\xff\xd8\xff\xe0<script>").0, "image/jpeg");
    }

    #[test]
    fn tags_are_compared_weakly() {
        let mut headers = HeaderMap::new();
        assert!(!is_known(&headers, "\"a\""));
        for (value, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            headers.insert(IF_NONE_MATCH, value.parse().expect("a header"));
            assert_eq!(is_known(&headers, "\"a\""), known, "{value}");
        }
    }
}
