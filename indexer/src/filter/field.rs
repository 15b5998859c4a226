//! What a filter can ask about: attached values by name, and what is known of every file.

use std::ops::Bound;

use super::time::parse_time;
use super::{FilterError, Scalar, Test, bound_value};
use crate::TEXT_BYTES;

/// Names start with this when a payload key is called like a built-in field.
const PAYLOAD: &str = "payload.";

/// A field of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Known of every image.
    BuiltIn(BuiltIn),
    /// Attached; nested objects have names joined by dots.
    Payload(String),
}

/// What is known of every image without attaching anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    /// Number: the image's id.
    Id,
    /// Text: where it is, as listed in results.
    Path,
    /// Text: what follows the last `/` of the path.
    Name,
    /// Text: what follows the last `.` of the name, ASCII letters in lower case; not every file has
    /// one.
    Ext,
    /// Number: pixels, upright.
    Width,
    /// Number: pixels, upright.
    Height,
    /// Number: width times height.
    Pixels,
    /// Number: bytes of the file.
    Size,
    /// Time: when the file was changed last. Compared with RFC 3339 texts or dates
    /// (`"2024-05-01"`: its first moment, UTC) or with seconds since 1970.
    Mtime,
    /// Text: hash of the file, 64 lower-case hexadecimal digits.
    Sha256,
}

#[derive(PartialEq)]
enum Kind {
    Number,
    Text,
    Time,
}

impl BuiltIn {
    /// Every built-in field.
    pub const ALL: [Self; 10] = [
        Self::Id,
        Self::Path,
        Self::Name,
        Self::Ext,
        Self::Width,
        Self::Height,
        Self::Pixels,
        Self::Size,
        Self::Mtime,
        Self::Sha256,
    ];

    /// As written in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Path => "path",
            Self::Name => "name",
            Self::Ext => "ext",
            Self::Width => "width",
            Self::Height => "height",
            Self::Pixels => "pixels",
            Self::Size => "size",
            Self::Mtime => "mtime",
            Self::Sha256 => "sha256",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Id | Self::Width | Self::Height | Self::Pixels | Self::Size => Kind::Number,
            Self::Path | Self::Name | Self::Ext | Self::Sha256 => Kind::Text,
            Self::Mtime => Kind::Time,
        }
    }
}

impl Field {
    /// The field of a name as written in text and JSON: `payload.` reaches the payload key that
    /// follows, whatever its name; other names are built-in fields, or else payload keys.
    pub fn named(name: &str) -> Self {
        if let Some(key) = name.strip_prefix(PAYLOAD) {
            return Self::Payload(key.to_owned());
        }
        match BuiltIn::ALL.into_iter().find(|field| field.name() == name) {
            Some(field) => Self::BuiltIn(field),
            None => Self::Payload(name.to_owned()),
        }
    }

    /// The shortest name that [`Field::named`] turns into this field.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn(field) => field.name().to_owned(),
            Self::Payload(key) if Self::named(key) == *self => key.clone(),
            Self::Payload(key) => format!("{PAYLOAD}{key}"),
        }
    }

    /// Refuses comparisons that can never hold, or that have no meaning.
    pub(super) fn check(&self, test: &Test) -> Result<(), FilterError> {
        let name = self.name();
        let wrong = |message: String| Err(FilterError::new(message));
        if matches!(self, Self::Payload(key) if key.is_empty()) {
            return wrong("a field's name cannot be empty".to_owned());
        }
        let not_finite = |value: &&Scalar| matches!(value, Scalar::Number(x) if !x.is_finite());
        if test.values().iter().any(not_finite) {
            return wrong(format!("`{name}` is compared with something that is no finite number"));
        }
        if let Test::Range(low, high) = test {
            check_range(&name, low, high)?;
        }
        let Self::BuiltIn(field) = self else { return check_indexed(&name, test) };
        let kind = field.kind();
        if kind != Kind::Text && matches!(test, Test::Prefix(_)) {
            return wrong(format!(
                "`{name}` is no text, so it has no prefix; compare it: {name} >= 1"
            ));
        }
        for value in test.values() {
            match (&kind, value) {
                (Kind::Number, Scalar::Number(_)) | (Kind::Text, Scalar::Text(_)) => {}
                (Kind::Time, Scalar::Number(_)) => {}
                (Kind::Time, Scalar::Text(text)) if parse_time(text).is_some() => {}
                (Kind::Number, _) => {
                    return wrong(format!("`{name}` is a number: {name} >= 640, without quotes"));
                }
                (Kind::Text, _) => {
                    return wrong(format!("`{name}` is a text: {name} = \"...\", in quotes"));
                }
                (Kind::Time, _) => {
                    return wrong(format!(
                        "`{name}` is a time: {name} >= \"2024-05-01\", {name} >= \
                         \"2024-05-01T12:00:00Z\" or seconds since 1970"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A value as this field compares it: times become seconds.
    pub(super) fn comparable(&self, value: &Scalar) -> Scalar {
        match (self, value) {
            (Self::BuiltIn(BuiltIn::Mtime), Scalar::Text(text)) => {
                parse_time(text).map_or_else(|| value.clone(), Scalar::Number)
            }
            _ => value.clone(),
        }
    }
}

/// The index of payload values compares only the start of a text.
fn check_indexed(name: &str, test: &Test) -> Result<(), FilterError> {
    let longest = match test {
        Test::Range(low, high) => {
            let length = |bound| match bound_value(bound) {
                Some(Scalar::Text(text)) => text.len(),
                _ => 0,
            };
            length(low).max(length(high))
        }
        Test::Prefix(text) => text.len(),
        _ => 0,
    };
    if longest <= TEXT_BYTES {
        return Ok(());
    }
    Err(FilterError::new(format!(
        "`{name}` is compared by order or prefix with a text of {longest} bytes, the limit is {TEXT_BYTES}; \
         shorten it, or use ="
    )))
}

fn check_range(name: &str, low: &Bound<Scalar>, high: &Bound<Scalar>) -> Result<(), FilterError> {
    let wrong = |message: String| Err(FilterError::new(message));
    match (bound_value(low), bound_value(high)) {
        (None, None) => wrong(format!("the range of `{name}` has no end: {name} >= 1")),
        (Some(Scalar::Bool(_)), _) | (_, Some(Scalar::Bool(_))) => {
            wrong(format!("true and false have no order: {name} = true"))
        }
        // A time may be written in two ways, even in one range.
        _ if name == BuiltIn::Mtime.name() => Ok(()),
        (Some(Scalar::Number(_)), Some(Scalar::Text(_)))
        | (Some(Scalar::Text(_)), Some(Scalar::Number(_))) => wrong(format!(
            "the range of `{name}` has a number at one end and a text at the other; types never mix"
        )),
        _ => Ok(()),
    }
}
