//! Where a page starts and how long it is.

use crate::problem::{Answer, Code, Problem};

/// A number in an address that says where a page starts.
///
/// # Errors
/// It is none.
pub(super) fn cursor(text: Option<&str>) -> Answer<u64> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    text.parse().map_err(|_| {
        let detail = "this is no cursor; take `next_cursor` of the page before, whole";
        Problem::new(Code::BadRequest, detail).field("cursor", detail)
    })
}

/// How long a page is.
///
/// # Errors
/// It is out of range.
pub(super) fn limit(wanted: Option<usize>, default: usize, most: usize) -> Answer<usize> {
    let limit = wanted.unwrap_or(default);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit is {limit}; it must be from 1 to {most}");
    Err(Problem::new(Code::BadRequest, detail.clone()).field("limit", detail))
}
