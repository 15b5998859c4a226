//! Which rows have which payload values: keys that sort as the values do, and pages of rows.
//!
//! Key: `x`, the field, the value, the page (row / 65,536, big-endian). Value: a sealed roaring
//! bitmap of the rows within the page. Values: `1` and a byte for booleans; `2` and eight bytes that
//! sort like the number; `3` and text. Field and text end with `00 00`; a zero byte in them is
//! `00 FF`. Of text beyond [`TEXT_BYTES`], the rest is a hash after `00 01`.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{IndexerError, Result};
use crate::record::Payload;

/// Bytes of a text that take part in comparisons; longer ones are told apart by hash.
pub const TEXT_BYTES: usize = 200;

/// A payload value that can be searched for.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// Any number, as f64: integers beyond 2^53 are rounded.
    Number(f64),
    /// Text, compared by bytes.
    Text(String),
}

/// Which values of a field are wanted. Values of other types never match.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueRange {
    /// Any value.
    Any,
    /// This value.
    Eq(Scalar),
    /// Values between two bounds of one type.
    Between {
        /// Lower bound.
        low: Bound<Scalar>,
        /// Upper bound.
        high: Bound<Scalar>,
    },
    /// Texts that start so.
    Prefix(String),
}

impl Scalar {
    /// The value in JSON; `None` for null, arrays and objects.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(Self::Bool(*flag)),
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        }
    }

    fn encode(&self, key: &mut Vec<u8>) {
        key.push(self.tag());
        match self {
            Self::Bool(flag) => key.push(u8::from(*flag)),
            Self::Number(number) => {
                // Adding zero makes -0 and 0 one value. Flipping makes the bits sort like numbers.
                let bits = (number + 0.0).to_bits();
                let flipped = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
                key.extend(flipped.to_be_bytes());
            }
            Self::Text(text) if text.len() <= TEXT_BYTES => {
                escape(text.as_bytes(), key);
                key.extend([0, 0]);
            }
            Self::Text(text) => {
                escape(&text.as_bytes()[..TEXT_BYTES], key);
                key.extend([0, 1]);
                key.extend(&Sha256::digest(text.as_bytes())[..16]);
            }
        }
    }
}

/// Every field and scalar in a payload: arrays element by element, objects with dotted names.
pub fn scalars(payload: &Payload) -> Vec<(String, Scalar)> {
    fn walk(name: &str, value: &Value, out: &mut Vec<(String, Scalar)>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| walk(name, value, out)),
            Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| walk(&format!("{name}.{key}"), value, out));
            }
            _ => out.extend(Scalar::of(value).map(|scalar| (name.to_owned(), scalar))),
        }
    }
    let mut out = Vec::new();
    payload.iter().for_each(|(name, value)| walk(name, value, &mut out));
    out
}

/// Keys, without page, that an image with this payload is listed under.
pub(super) fn keys(payload: &Payload) -> BTreeSet<Vec<u8>> {
    let key = |(field, scalar): (String, Scalar)| {
        let mut key = field_key(&field);
        scalar.encode(&mut key);
        key
    };
    scalars(payload).into_iter().map(key).collect()
}

/// A key with its page.
pub(super) fn paged(key: &[u8], page: u32) -> Vec<u8> {
    [key, &page.to_be_bytes()].concat()
}

/// The page at the end of a key.
pub(super) fn page_of(key: &[u8]) -> Option<u32> {
    key.last_chunk::<4>().map(|page| u32::from_be_bytes(*page))
}

/// The field at the start of a key.
pub(super) fn field_of(key: &[u8]) -> Option<String> {
    let mut field = Vec::new();
    let mut bytes = key.strip_prefix(b"x")?.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (0, Some(0xFF)) => {
                bytes.next();
                field.push(0);
            }
            (0, _) => return String::from_utf8(field).ok(),
            _ => field.push(byte),
        }
    }
    None
}

/// The value in a key with its page; `None` for a text of which the key has only a part.
pub(super) fn value_of(key: &[u8]) -> Option<Scalar> {
    let start = key.windows(2).position(|pair| pair == [0, 0])? + 2;
    let (&tag, value) = key.get(start..key.len().checked_sub(4)?)?.split_first()?;
    match tag {
        1 => Some(Scalar::Bool(*value.first()? != 0)),
        2 => {
            let flipped = u64::from_be_bytes(*value.first_chunk::<8>()?);
            let bits = if flipped >> 63 == 1 { flipped & !(1 << 63) } else { !flipped };
            Some(Scalar::Number(f64::from_bits(bits)))
        }
        3 => {
            let escaped = value.strip_suffix(&[0, 0])?;
            let mut text = Vec::with_capacity(escaped.len());
            let mut bytes = escaped.iter();
            while let Some(&byte) = bytes.next() {
                text.push(byte);
                if byte == 0 && bytes.next() != Some(&0xFF) {
                    return None;
                }
            }
            String::from_utf8(text).ok().map(Scalar::Text)
        }
        _ => None,
    }
}

/// The keys that hold a field's wanted values.
pub(super) fn key_range(field: &str, range: &ValueRange) -> Result<Range<Vec<u8>>> {
    let field = field_key(field);
    let with = |scalar: &Scalar, after: bool| {
        let mut key = field.clone();
        scalar.encode(&mut key);
        if after {
            // Above every page of this value, below the next value.
            key.extend([0xFF; 5]);
        }
        key
    };
    Ok(match range {
        ValueRange::Any => after_prefix(field),
        ValueRange::Eq(scalar) => with(scalar, false)..with(scalar, true),
        ValueRange::Prefix(text) => {
            check_length(text)?;
            let mut key = field;
            key.push(3);
            escape(text.as_bytes(), &mut key);
            after_prefix(key)
        }
        ValueRange::Between { low, high } => {
            let mut tags = BTreeSet::new();
            for bound in [low, high] {
                if let Bound::Included(scalar) | Bound::Excluded(scalar) = bound {
                    tags.insert(scalar.tag());
                    if let Scalar::Text(text) = scalar {
                        check_length(text)?;
                    }
                }
            }
            let mut of_type = field.clone();
            match (tags.pop_first(), tags.is_empty()) {
                (Some(tag), true) => of_type.push(tag),
                (None, _) => {}
                (Some(_), false) => {
                    return Err(IndexerError::InvalidRequest(
                        "the bounds of a range are of two types; give two numbers or two texts"
                            .to_owned(),
                    ));
                }
            }
            let all = after_prefix(of_type);
            let start = match low {
                Bound::Included(scalar) => with(scalar, false),
                Bound::Excluded(scalar) => with(scalar, true),
                Bound::Unbounded => all.start,
            };
            let end = match high {
                Bound::Included(scalar) => with(scalar, true),
                Bound::Excluded(scalar) => with(scalar, false),
                Bound::Unbounded => all.end,
            };
            // Ranges of keys may not run backwards.
            if start < end { start..end } else { start.clone()..start }
        }
    })
}

fn check_length(text: &str) -> Result<()> {
    if text.len() <= TEXT_BYTES {
        return Ok(());
    }
    Err(IndexerError::InvalidRequest(format!(
        "a text of {} bytes cannot be the bound of a range or a prefix, the limit is {TEXT_BYTES}; \
         compare with = instead",
        text.len()
    )))
}

fn field_key(field: &str) -> Vec<u8> {
    let mut key = vec![b'x'];
    escape(field.as_bytes(), &mut key);
    key.extend([0, 0]);
    key
}

fn escape(bytes: &[u8], key: &mut Vec<u8>) {
    for &byte in bytes {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
}

/// Every key that starts so. No key here is all `FF`.
fn after_prefix(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    while end.pop_if(|last| *last == 0xFF).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    prefix..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scalar: Scalar) -> Vec<u8> {
        let mut key = Vec::new();
        scalar.encode(&mut key);
        key
    }

    #[test]
    fn keys_sort_as_the_values_do() {
        let numbers = [f64::MIN, -2.5, -1.0, -1e-300, 0.0, 1e-300, 1.0, 2.0, 1e300];
        let keys: Vec<_> = numbers.map(|number| key(Scalar::Number(number))).into();
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert_eq!(key(Scalar::Number(-0.0)), key(Scalar::Number(0.0)));

        let long = "a".repeat(TEXT_BYTES);
        let texts = ["", "\0", "\0\0", "\0a", "a", "a\0", "aa", &long, &format!("{long}b"), "b"];
        let keys: Vec<_> = texts.map(|text| key(Scalar::Text(text.to_owned()))).into();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn values_come_back_from_keys() {
        let texts =
            ["", "a", "\0", "\0\u{ff}", "a\0b", "häschen"].map(|text| Scalar::Text(text.into()));
        let numbers = [f64::MIN, -1.5, 0.0, 1e-300, 7.0, 1e300].map(Scalar::Number);
        let flags = [Scalar::Bool(false), Scalar::Bool(true)];
        for scalar in texts.into_iter().chain(numbers).chain(flags) {
            for field in ["a", "x\0y", ""] {
                let mut key = field_key(field);
                scalar.encode(&mut key);
                // A page with zeros, and one of ends of texts.
                for page in [0, 0x0000_0100, u32::MAX] {
                    assert_eq!(value_of(&paged(&key, page)), Some(scalar.clone()), "{field:?}");
                }
            }
        }
        let mut key = field_key("a");
        Scalar::Text("b".repeat(TEXT_BYTES + 1)).encode(&mut key);
        assert_eq!(value_of(&paged(&key, 3)), None);
    }

    #[test]
    fn a_field_never_runs_into_another() {
        let range = key_range("a", &ValueRange::Any).expect("range");
        for other in ["a\0", "a.b", "ab", "b", ""] {
            let other = paged(&field_key(other), 3);
            assert!(!range.contains(&other));
        }
        assert!(range.contains(&paged(&field_key("a"), u32::MAX)));
    }

    #[test]
    fn arrays_and_objects_are_taken_apart() {
        let payload: Payload = serde_json::from_str(
            r#"{"tags": ["x", "y", null], "exif": {"iso": 100, "flash": false}, "none": null}"#,
        )
        .expect("JSON");
        let mut found: Vec<String> =
            scalars(&payload).iter().map(|(field, scalar)| format!("{field} {scalar:?}")).collect();
        found.sort();
        let expected = [
            "exif.flash Bool(false)",
            "exif.iso Number(100.0)",
            "tags Text(\"x\")",
            "tags Text(\"y\")",
        ];
        assert_eq!(found, expected);
        assert_eq!(keys(&payload).len(), 4);
    }
}
