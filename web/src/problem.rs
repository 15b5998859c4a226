//! What goes wrong, as programs get it: RFC 9457 problem documents with stable codes.
//!
//! All codes are in one table. The title and the status follow from the code; what is wrong with this
//! very request is in `detail`, what to do about it in `remedy`.

mod causes;

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::request_id;

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// What kind of problem it is. Codes never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As programs get it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// A few words that are the same for every problem of this code.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", BAD_REQUEST, "The request makes no sense";
    InvalidFilter = "invalid_filter", BAD_REQUEST, "The filter cannot be understood";
    InvalidVector = "invalid_vector", BAD_REQUEST, "The vector cannot be searched with";
    InvalidCrop = "invalid_crop", BAD_REQUEST, "The crop does not fit the picture";
    NotAnImage = "not_an_image", BAD_REQUEST, "This is no picture that can be read";
    ImageTooLarge = "image_too_large", PAYLOAD_TOO_LARGE, "The picture is too large";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The request is too large";
    TooManyParts = "too_many_parts", PAYLOAD_TOO_LARGE, "The request has too many parts";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE,
        "This content type is not taken here";
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "The answer cannot be given in this form";
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE,
        "The range lies outside of the file";
    MissingKey = "missing_key", UNAUTHORIZED, "A key is needed";
    Forbidden = "forbidden", FORBIDDEN, "This is not allowed";
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    CollectionNotFound = "collection_not_found", NOT_FOUND, "There is no such collection";
    ImageNotFound = "image_not_found", NOT_FOUND, "There is no such image";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED,
        "This method is not for this address";
    Conflict = "conflict", CONFLICT, "The request does not fit the present state";
    CollectionExists = "collection_exists", CONFLICT, "There is such a collection already";
    ModelMismatch = "model_mismatch", CONFLICT, "The collection was made with another model";
    Changed = "changed", CONFLICT, "The file has changed since it was indexed";
    Busy = "busy", CONFLICT, "The collection is being written to";
    QueryExpired = "query_expired", GONE, "The uploaded picture is not kept any more";
    Gone = "gone", GONE, "The file is not there any more";
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY,
        "This idempotency key belongs to another request";
    AddressRefused = "address_refused", FORBIDDEN, "This address is not fetched from";
    RemoteFailed = "remote_failed", BAD_GATEWAY, "The picture could not be fetched";
    RemoteTooLarge = "remote_too_large", PAYLOAD_TOO_LARGE, "The picture at that address is too large";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    Overloaded = "overloaded", TOO_MANY_REQUESTS, "The server has too much to do";
    SlowRequest = "slow_request", REQUEST_TIMEOUT, "The request came too slowly";
    Timeout = "timeout", SERVICE_UNAVAILABLE, "The answer took too long";
    Draining = "draining", SERVICE_UNAVAILABLE, "The server is shutting down";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "The server cannot answer searches";
    Internal = "internal", INTERNAL_SERVER_ERROR, "The server failed";
}

/// A problem with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Name of the field, parameter or part.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a request gets no answer. Handlers return it as their error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind of problem.
    pub code: Code,
    /// What is wrong with this request.
    pub detail: String,
    /// What to do; empty when `detail` says so.
    pub remedy: String,
    /// Parts of the request that are wrong, if there are several or one is to be pointed at.
    pub errors: Vec<FieldError>,
    /// After how long to try again.
    pub retry_after: Option<Duration>,
}

/// A problem document as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: the code says what the problem is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// A few words that are the same for every problem of this code.
    title: &'static str,
    /// Status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Stable name of the problem.
    code: &'static str,
    /// What is wrong with this request.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    remedy: String,
    /// As in the header `x-request-id`, to find the request in the log.
    request_id: String,
    /// Parts of the request that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

/// Result of what answers a request.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    /// A problem whose detail says all.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            remedy: String::new(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    /// Says which part of the request is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// A failure that is the server's own. The cause is logged; the client gets the request id only,
    /// since causes name paths.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(request_id = %request_id::current(), %cause, "internal failure");
        Self::new(Code::Internal, "something failed on the server's side")
            .remedy("the server's log says more, under this request id")
    }

    /// As it is sent.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: "about:blank",
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.as_str(),
            detail: self.detail.clone(),
            remedy: self.remedy.clone(),
            request_id: request_id::current(),
            errors: self.errors.clone(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(wait) = self.retry_after {
            headers
                .insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        (self.code.status(), headers, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_and_differ() {
        let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            let word = code.as_str();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{word}");
        }
    }

    #[test]
    fn every_code_is_documented() {
        let text = include_str!("../../docs/http-api.md");
        for code in Code::ALL {
            let row = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
            assert!(text.contains(&row), "docs/http-api.md has no row that starts: {row}");
        }
    }

    #[test]
    fn waits_are_whole_seconds_and_never_none() {
        let problem =
            Problem::new(Code::RateLimited, "slow down").retry_after(Duration::from_millis(1));
        let response = problem.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }
}
