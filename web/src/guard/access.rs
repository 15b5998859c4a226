//! Which role a request needs. One table for all routes; what is not in it needs more, not less.

use axum::http::Method;

use crate::keys::Role;

/// Who may make a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: the page itself, which holds nothing, and whether the server lives.
    Open,
    /// Callers with this role or a higher one.
    Role(Role),
}

/// What a request needs. `path` is the raw path behind the base path.
pub fn needed(method: &Method, path: &str) -> Access {
    let Some(rest) = path.strip_prefix("/api/v1/") else {
        return match path {
            "/metrics" => Access::Role(Role::Read),
            _ if path == "/api" || path.starts_with("/api/") => Access::Role(Role::Read),
            _ => Access::Open,
        };
    };
    let segments: Vec<&str> = rest.split('/').collect();
    if *method == Method::GET || *method == Method::HEAD {
        return match segments[..] {
            ["openapi.json"] => Access::Open,
            _ => Access::Role(Role::Read),
        };
    }
    Access::Role(match (method.as_str(), &segments[..]) {
        // Searches have bodies, and change nothing.
        ("POST", ["embeddings"] | ["collections", _, "search" | "count"]) => Role::Read,
        ("POST", ["collections", _, "search", "batch"]) => Role::Read,
        ("POST", ["collections"] | ["collections", _, "snapshot" | "compact"]) => Role::Admin,
        ("DELETE", ["collections", _]) => Role::Admin,
        _ => Role::Write,
    })
}

/// Whether a request changes something, so that it must not happen twice.
pub fn writes(method: &Method, path: &str) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    !reads && matches!(needed(method, path), Access::Role(Role::Write | Role::Admin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_needs_its_role() {
        use Access::{Open, Role as Needs};
        for (method, path, access) in [
            ("GET", "/", Open),
            ("GET", "/ui/app.js", Open),
            ("GET", "/livez", Open),
            ("GET", "/metrics", Needs(Role::Read)),
            ("GET", "/api/v1/openapi.json", Open),
            ("GET", "/api/v1/status", Needs(Role::Read)),
            ("GET", "/api/v1", Needs(Role::Read)),
            ("GET", "/api/v1/collections/a/images/1/original", Needs(Role::Read)),
            ("GET", "/api/v1/jobs/1/events", Needs(Role::Read)),
            ("POST", "/api/v1/collections/a/search", Needs(Role::Read)),
            ("POST", "/api/v1/collections/a/search/batch", Needs(Role::Read)),
            ("POST", "/api/v1/collections/a/count", Needs(Role::Read)),
            ("POST", "/api/v1/embeddings", Needs(Role::Read)),
            ("POST", "/api/v1/collections/a/images", Needs(Role::Write)),
            ("PATCH", "/api/v1/collections/a/images/1/payload", Needs(Role::Write)),
            ("DELETE", "/api/v1/collections/a/images/1", Needs(Role::Write)),
            ("POST", "/api/v1/collections/a/index", Needs(Role::Write)),
            ("POST", "/api/v1/collections/a/dedup/r/decisions", Needs(Role::Write)),
            ("DELETE", "/api/v1/jobs/1", Needs(Role::Write)),
            ("POST", "/api/v1/runs", Needs(Role::Write)),
            ("POST", "/api/v1/collections", Needs(Role::Admin)),
            ("POST", "/api/v1/collections/a/snapshot", Needs(Role::Admin)),
            ("POST", "/api/v1/collections/a/compact", Needs(Role::Admin)),
            ("DELETE", "/api/v1/collections/a", Needs(Role::Admin)),
            ("POST", "/api/v1/collections/a/%73earch", Needs(Role::Write)),
            ("POST", "/api/v1/anything/else", Needs(Role::Write)),
        ] {
            let method: Method = method.parse().expect("a method");
            assert_eq!(needed(&method, path), access, "{method} {path}");
        }
    }

    #[test]
    fn searches_are_no_writes() {
        assert!(!writes(&Method::POST, "/api/v1/collections/a/search"));
        assert!(!writes(&Method::GET, "/api/v1/jobs") && !writes(&Method::POST, "/"));
        assert!(writes(&Method::POST, "/api/v1/runs"));
    }
}
