//! Which images of a collection to search: a small language of conditions on what is known of them.
//!
//! A [`Filter`] is a tree. It is written as text (`Filter::parse`, the grammar is in `parse.rs` and in
//! docs/search.md) or as JSON (serde, see `json.rs`); both say the same things, and each can be turned
//! into the other. It is evaluated on one record ([`Filter::matches`]) or on a whole view
//! ([`Filter::rows`]), with the same answers.
//!
//! Meaning, fixed for good:
//! - A field has no value, one, or several (an array: any element may match; null is no value).
//! - Without a value `eq`, `in`, ranges, `prefix` and `exists` are false and `ne` is true; `ne` is the
//!   opposite of `eq` always.
//! - Types never mix: the text "1" is not the number 1, and is neither below nor above it.
//! - Texts are compared byte by byte, numbers as f64; there is no NaN.

mod time;
mod field;
mod parse;
mod print;
mod json;
mod record;
mod eval;
mod cache;

use std::ops::Bound;

pub use self::cache::FilterCache;
pub use self::field::{BuiltIn, Field};
pub use crate::Scalar;
use crate::error::IndexerError;

/// Deepest nesting of `and`, `or` and `not`. JSON needs two levels for each, of the 127 that
/// serde_json reads; the rest is for a request around the filter.
pub const MAX_DEPTH: usize = 60;
/// Most conditions in one filter; every value of an `in` list counts as one.
pub const MAX_TERMS: usize = 1000;
/// Longest text, in bytes; also the most bytes of names and values together in the JSON form.
pub const MAX_TEXT: usize = 64 << 10;

/// A condition on an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these hold; never empty.
    And(Vec<Filter>),
    /// At least one of these holds; never empty.
    Or(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// One condition on one field.
    Term(Field, Test),
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Some value equals this.
    Eq(Scalar),
    /// No value equals this.
    Ne(Scalar),
    /// Some value is one of these; of none of an empty list.
    In(Vec<Scalar>),
    /// Some value lies within. Both ends are numbers, or both are texts; at most one is open.
    Range(Bound<Scalar>, Bound<Scalar>),
    /// Some value is a text that starts like this.
    Prefix(String),
    /// There is a value.
    Exists,
}

/// A filter that cannot be understood, or that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// What is wrong, where, and how it is written right.
    pub message: String,
    /// Byte of the text at which it was noticed; none for other forms.
    pub at: Option<usize>,
}

impl FilterError {
    fn new(message: String) -> Self {
        Self { message, at: None }
    }
}

impl From<FilterError> for IndexerError {
    fn from(error: FilterError) -> Self {
        Self::InvalidRequest(error.message)
    }
}

impl Filter {
    /// Reads a filter from text.
    ///
    /// # Errors
    /// The text is no filter: the message has the position (counted in characters from 1), what was
    /// expected and an example. Or a limit is exceeded.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// Checks what the types alone do not ensure: limits, empty lists, comparisons that can never
    /// hold. Filters from text and JSON were checked.
    ///
    /// # Errors
    /// What is wrong, and the remedy.
    pub fn check(&self) -> Result<(), FilterError> {
        let (mut terms, mut bytes) = (0, 0);
        // A stack of its own: a tree built by a program may be as deep as memory allows.
        let mut open = vec![(self, 0)];
        while let Some((filter, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return Err(too_deep());
            }
            match filter {
                Self::And(parts) | Self::Or(parts) if parts.is_empty() => {
                    let message = "`and` and `or` need at least one condition".to_owned();
                    return Err(FilterError::new(message));
                }
                Self::And(parts) | Self::Or(parts) => {
                    open.extend(parts.iter().map(|part| (part, depth + 1)));
                }
                Self::Not(part) => open.push((part.as_ref(), depth + 1)),
                Self::Term(field, test) => {
                    field.check(test)?;
                    terms += test.values().len().max(1);
                    bytes += field.name().len() + test.text_bytes();
                }
            }
            if terms > MAX_TERMS {
                return Err(FilterError::new(format!(
                    "the filter has more than {MAX_TERMS} conditions and list values; split the \
                     search"
                )));
            }
            if bytes > MAX_TEXT {
                return Err(too_long(bytes));
            }
        }
        Ok(())
    }

    /// Whether the answer depends on fields that have no index.
    pub fn needs_records(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::needs_records),
            Self::Not(part) => part.needs_records(),
            Self::Term(Field::BuiltIn(_), _) => true,
            Self::Term(Field::Payload(_), _) => false,
        }
    }
}

impl Test {
    /// The values compared with, in the order written.
    fn values(&self) -> Vec<&Scalar> {
        match self {
            Self::Eq(value) | Self::Ne(value) => vec![value],
            Self::In(values) => values.iter().collect(),
            Self::Range(low, high) => [low, high].into_iter().filter_map(bound_value).collect(),
            Self::Prefix(_) | Self::Exists => Vec::new(),
        }
    }

    fn text_bytes(&self) -> usize {
        let prefix = if let Self::Prefix(text) = self { text.len() } else { 0 };
        let text = |value: &&Scalar| if let Scalar::Text(text) = value { text.len() } else { 0 };
        self.values().iter().map(text).sum::<usize>() + prefix
    }
}

fn bound_value(bound: &Bound<Scalar>) -> Option<&Scalar> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

fn too_deep() -> FilterError {
    FilterError::new(format!(
        "the filter nests `and`, `or`, `not` and parentheses more than {MAX_DEPTH} deep; write it flatter"
    ))
}

fn too_long(bytes: usize) -> FilterError {
    FilterError::new(format!(
        "the filter has {bytes} bytes, the limit is {MAX_TEXT}; split the search"
    ))
}
