//! Headers that every answer has, and what they keep browsers from.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The page: only what this server sends, no code in attributes or between tags, in no frame.
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: \
                    data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri \
                    'none'; form-action 'none'; frame-ancestors 'none'";
/// Everything else, pictures of strangers among it: nothing runs, whatever it may be taken for.
const DATA: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

const ALWAYS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Adds the headers. A handler's own Content-Security-Policy stays.
pub fn secure(headers: &mut HeaderMap, is_page: bool) {
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let policy = HeaderValue::from_static(if is_page { PAGE } else { DATA });
    headers.entry("content-security-policy").or_insert(policy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inline_and_no_frames() {
        for is_page in [true, false] {
            let mut headers = HeaderMap::new();
            secure(&mut headers, is_page);
            let policy = headers["content-security-policy"].to_str().expect("text");
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors"));
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }
}
