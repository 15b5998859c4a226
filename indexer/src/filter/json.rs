//! Filters as JSON: what the text says, for programs.
//!
//! ```json
//! {"and": [
//!   {"eq": {"field": "label", "value": "dog"}},
//!   {"range": {"field": "date", "gte": "2024-01-01", "lt": "2025-01-01"}},
//!   {"not": {"or": [{"in": {"field": "camera", "values": ["X", "Y"]}},
//!                   {"prefix": {"field": "path", "value": "/photos/2020/"}}]}},
//!   {"ne": {"field": "rating", "value": 1}},
//!   {"exists": {"field": "exif.lat"}}
//! ]}
//! ```
//!
//! Field names are as in text (`payload.` reaches a payload key called like a built-in field). `and`
//! and `or` of one condition are that condition.

use std::ops::Bound;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Field, Filter, Scalar, Test};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Json {
    And(Vec<Json>),
    Or(Vec<Json>),
    Not(Box<Json>),
    Eq(OneValue),
    Ne(OneValue),
    In(Values),
    Range(Ends),
    Prefix(Start),
    Exists(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneValue {
    field: String,
    value: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    field: String,
    values: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gt: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gte: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lt: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lte: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    field: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    field: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a value is a text, a number, true or false")]
enum Value {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let filter = Json::deserialize(deserializer)?.filter().map_err(D::Error::custom)?;
        filter.check().map_err(D::Error::custom)?;
        Ok(filter)
    }
}

impl Json {
    fn of(filter: &Filter) -> Self {
        let all = |parts: &[Filter]| parts.iter().map(Self::of).collect();
        let (field, test) = match filter {
            Filter::And(parts) => return Self::And(all(parts)),
            Filter::Or(parts) => return Self::Or(all(parts)),
            Filter::Not(part) => return Self::Not(Box::new(Self::of(part))),
            Filter::Term(field, test) => (field.name(), test),
        };
        match test {
            Test::Eq(value) => Self::Eq(OneValue { field, value: value.into() }),
            Test::Ne(value) => Self::Ne(OneValue { field, value: value.into() }),
            Test::In(values) => {
                Self::In(Values { field, values: values.iter().map(Value::from).collect() })
            }
            Test::Range(low, high) => {
                let mut ends = Ends { field, gt: None, gte: None, lt: None, lte: None };
                match low {
                    Bound::Included(value) => ends.gte = Some(value.into()),
                    Bound::Excluded(value) => ends.gt = Some(value.into()),
                    Bound::Unbounded => {}
                }
                match high {
                    Bound::Included(value) => ends.lte = Some(value.into()),
                    Bound::Excluded(value) => ends.lt = Some(value.into()),
                    Bound::Unbounded => {}
                }
                Self::Range(ends)
            }
            Test::Prefix(text) => Self::Prefix(Start { field, value: text.clone() }),
            Test::Exists => Self::Exists(Name { field }),
        }
    }

    fn filter(self) -> Result<Filter, String> {
        let term = |field: String, test| Ok(Filter::Term(Field::named(&field), test));
        match self {
            Self::And(parts) => many(parts, Filter::And),
            Self::Or(parts) => many(parts, Filter::Or),
            Self::Not(part) => Ok(Filter::Not(Box::new(part.filter()?))),
            Self::Eq(OneValue { field, value }) => term(field, Test::Eq(value.into())),
            Self::Ne(OneValue { field, value }) => term(field, Test::Ne(value.into())),
            Self::In(Values { field, values }) => {
                term(field, Test::In(values.into_iter().map(Scalar::from).collect()))
            }
            Self::Range(Ends { field, gt, gte, lt, lte }) => {
                let low = end(&field, ["gt", "gte"], gt, gte)?;
                let high = end(&field, ["lt", "lte"], lt, lte)?;
                term(field, Test::Range(low, high))
            }
            Self::Prefix(Start { field, value }) => term(field, Test::Prefix(value)),
            Self::Exists(Name { field }) => term(field, Test::Exists),
        }
    }
}

fn many(parts: Vec<Json>, join: fn(Vec<Filter>) -> Filter) -> Result<Filter, String> {
    let mut parts = parts.into_iter().map(Json::filter).collect::<Result<Vec<_>, _>>()?;
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => Ok(only),
        (_, last) => {
            parts.extend(last);
            Ok(join(parts))
        }
    }
}

fn end(
    field: &str,
    [without, with]: [&str; 2],
    excluded: Option<Value>,
    included: Option<Value>,
) -> Result<Bound<Scalar>, String> {
    match (excluded, included) {
        (None, None) => Ok(Bound::Unbounded),
        (Some(value), None) => Ok(Bound::Excluded(value.into())),
        (None, Some(value)) => Ok(Bound::Included(value.into())),
        (Some(_), Some(_)) => {
            Err(format!("the range of `{field}` has both `{without}` and `{with}`; give one"))
        }
    }
}

impl From<&Scalar> for Value {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Number(value) => Self::Number(*value),
            Scalar::Text(value) => Self::Text(value.clone()),
        }
    }
}

impl From<Value> for Scalar {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Number(value),
            Value::Text(value) => Self::Text(value),
        }
    }
}
