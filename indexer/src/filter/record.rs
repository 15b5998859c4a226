//! A filter asked about one record: the plain meaning, which the index has to agree with.

use std::cell::OnceCell;
use std::ops::Bound;

use super::{BuiltIn, Field, Filter, Scalar, Test};
use crate::{ImageId, Record, scalars};

impl Filter {
    /// Whether an image passes.
    pub fn matches(&self, id: ImageId, record: &Record) -> bool {
        Prepared::new(self).matches(id, record)
    }
}

/// A filter ready to be asked about many records: times are seconds.
pub(super) struct Prepared(Filter);

impl Prepared {
    pub(super) fn new(filter: &Filter) -> Self {
        Self(with_seconds(filter))
    }

    pub(super) fn matches(&self, id: ImageId, record: &Record) -> bool {
        holds(&self.0, &Image { id, record, payload: OnceCell::new() })
    }
}

fn with_seconds(filter: &Filter) -> Filter {
    let all = |parts: &[Filter]| parts.iter().map(with_seconds).collect();
    match filter {
        Filter::And(parts) => Filter::And(all(parts)),
        Filter::Or(parts) => Filter::Or(all(parts)),
        Filter::Not(part) => Filter::Not(Box::new(with_seconds(part))),
        Filter::Term(field, test) => {
            let bound = |bound: &Bound<Scalar>| bound.as_ref().map(|value| field.comparable(value));
            let test = match test {
                Test::Eq(value) => Test::Eq(field.comparable(value)),
                Test::Ne(value) => Test::Ne(field.comparable(value)),
                Test::In(values) => {
                    Test::In(values.iter().map(|value| field.comparable(value)).collect())
                }
                Test::Range(low, high) => Test::Range(bound(low), bound(high)),
                Test::Prefix(_) | Test::Exists => test.clone(),
            };
            Filter::Term(field.clone(), test)
        }
    }
}

struct Image<'a> {
    id: ImageId,
    record: &'a Record,
    payload: OnceCell<Vec<(String, Scalar)>>,
}

/// A value of a record. Paths are bytes, not always text.
enum Value<'a> {
    Bool(bool),
    Number(f64),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a Scalar> for Value<'a> {
    fn from(scalar: &'a Scalar) -> Self {
        match scalar {
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Number(value) => Self::Number(*value),
            Scalar::Text(value) => Self::Bytes(value.as_bytes()),
        }
    }
}

fn holds(filter: &Filter, image: &Image<'_>) -> bool {
    match filter {
        Filter::And(parts) => parts.iter().all(|part| holds(part, image)),
        Filter::Or(parts) => parts.iter().any(|part| holds(part, image)),
        Filter::Not(part) => !holds(part, image),
        Filter::Term(field, Test::Ne(value)) => !image.any(field, |have| equal(have, value)),
        Filter::Term(field, test) => image.any(field, |have| passes(have, test)),
    }
}

fn passes(have: &Value<'_>, test: &Test) -> bool {
    match test {
        Test::Eq(value) => equal(have, value),
        Test::Ne(value) => !equal(have, value),
        Test::In(values) => values.iter().any(|value| equal(have, value)),
        Test::Range(low, high) => {
            let above = |order: std::cmp::Ordering, bound: &Bound<Scalar>| {
                order.is_gt() || (order.is_eq() && matches!(bound, Bound::Included(_)))
            };
            let side = |bound: &Bound<Scalar>, reverse: bool| match bound {
                Bound::Unbounded => true,
                Bound::Included(value) | Bound::Excluded(value) => order(have, value)
                    .is_some_and(|o| above(if reverse { o.reverse() } else { o }, bound)),
            };
            side(low, false) && side(high, true)
        }
        Test::Prefix(text) => {
            matches!(have, Value::Bytes(have) if have.starts_with(text.as_bytes()))
        }
        Test::Exists => true,
    }
}

fn equal(have: &Value<'_>, value: &Scalar) -> bool {
    match (have, value) {
        (Value::Bool(a), Scalar::Bool(b)) => a == b,
        (Value::Number(a), Scalar::Number(b)) => a == b,
        (Value::Bytes(a), Scalar::Text(b)) => *a == b.as_bytes(),
        _ => false,
    }
}

/// How a value stands to one of the same type; none for another type.
fn order(have: &Value<'_>, value: &Scalar) -> Option<std::cmp::Ordering> {
    match (have, value) {
        (Value::Number(a), Scalar::Number(b)) => a.partial_cmp(b),
        (Value::Bytes(a), Scalar::Text(b)) => Some((*a).cmp(b.as_bytes())),
        _ => None,
    }
}

impl Image<'_> {
    /// Whether any value of a field is as wanted.
    fn any(&self, field: &Field, mut wanted: impl FnMut(&Value<'_>) -> bool) -> bool {
        let record = self.record;
        let field = match field {
            Field::Payload(name) => {
                let payload = self.payload.get_or_init(|| scalars(&record.payload));
                return payload
                    .iter()
                    .any(|(have, value)| have == name && wanted(&Value::from(value)));
            }
            Field::BuiltIn(field) => *field,
        };
        let path = record.path.as_bytes();
        let number = match field {
            BuiltIn::Path => return wanted(&Value::Bytes(path)),
            BuiltIn::Name => return wanted(&Value::Bytes(name(path))),
            BuiltIn::Ext => {
                let ext = extension(path).map(<[u8]>::to_ascii_lowercase);
                return ext.is_some_and(|ext| wanted(&Value::Bytes(&ext)));
            }
            BuiltIn::Sha256 => return wanted(&Value::Bytes(record.sha256.as_str().as_bytes())),
            BuiltIn::Id => self.id.0 as f64,
            BuiltIn::Width => f64::from(record.width),
            BuiltIn::Height => f64::from(record.height),
            BuiltIn::Pixels => f64::from(record.width) * f64::from(record.height),
            BuiltIn::Size => record.stamp.size as f64,
            BuiltIn::Mtime => record.stamp.mtime_ns as f64 / 1e9,
        };
        wanted(&Value::Number(number))
    }
}

/// What follows the last slash.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// What follows the last dot of the name, when something precedes it.
fn extension(path: &[u8]) -> Option<&[u8]> {
    let name = name(path);
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0)?;
    Some(&name[dot + 1..])
}
