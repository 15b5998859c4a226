//! What is attached to images when they are indexed: rows of a table, JSON files beside the
//! pictures, EXIF.

mod exif;
mod table;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::table::PayloadTable;
use crate::error::Result;
use crate::id::ContentHash;
use crate::locator::{Locator, LocatorKind};
use crate::record::Payload;
use crate::source::read_file;

/// Most bytes, as JSON, that are attached to one image.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// Where payload comes from. Where two say something under the same name, the one further down
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataOptions {
    /// Date, camera and exposure from EXIF, under `exif.`.
    pub exif: bool,
    /// The place from EXIF too, as `exif.lat` and `exif.lon`.
    pub exif_gps: bool,
    /// A JSON object in a file beside the picture: `photo.jpg.json` or `photo.json`.
    pub sidecar: bool,
    /// CSV, TSV, JSON lines or Parquet with one row for each picture.
    pub table: Option<PathBuf>,
    /// Column of the table that names the picture [default: `path`, `file_name`, `file` or
    /// `sha256`].
    pub key: Option<String>,
}

/// Payload for pictures.
#[derive(Debug)]
pub struct Metadata {
    options: MetadataOptions,
    table: Option<PayloadTable>,
}

/// Rows of a table that no picture was found for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// How many.
    pub rows: usize,
    /// The keys of the first few.
    pub first: Vec<String>,
}

impl Metadata {
    /// Reads the table, if there is one. Its relative paths are taken from its own folder and from
    /// each of `roots`.
    ///
    /// # Errors
    /// The table cannot be read, a row of it cannot be, has no key or too much payload.
    pub fn open(options: MetadataOptions, roots: &[PathBuf]) -> Result<Self> {
        let table = match &options.table {
            Some(path) => Some(PayloadTable::open(path, options.key.as_deref(), roots)?),
            None => None,
        };
        Ok(Self { options, table })
    }

    /// No payload but what sources give.
    pub fn none() -> Self {
        Self { options: MetadataOptions::default(), table: None }
    }

    /// Whether payload can change while the picture does not.
    pub(crate) fn changes_alone(&self) -> bool {
        self.options.sidecar || self.table.is_some()
    }

    /// What the table and the file beside say about a picture.
    ///
    /// # Errors
    /// The file beside is no JSON object, in words.
    pub(crate) fn of(&self, locator: &Locator, sha256: &ContentHash) -> Result<Payload, String> {
        let mut payload = Payload::new();
        if self.options.sidecar && locator.kind() == LocatorKind::File {
            payload.extend(sidecar(&locator.to_path())?);
        }
        if let Some(row) = self.table.as_ref().and_then(|table| table.row(locator, sha256)) {
            payload.extend(row.clone());
        }
        Ok(payload)
    }

    /// What the picture says about itself.
    pub(crate) fn of_bytes(&self, bytes: &[u8]) -> Payload {
        match self.options.exif || self.options.exif_gps {
            true => exif::read(bytes, self.options.exif, self.options.exif_gps),
            false => Payload::new(),
        }
    }

    /// Rows of the table that no picture has asked for so far.
    pub fn unmatched(&self) -> Unmatched {
        self.table.as_ref().map(PayloadTable::unmatched).unwrap_or_default()
    }
}

/// The object in `photo.jpg.json`, else in `photo.json`; empty without either.
fn sidecar(picture: &Path) -> Result<Payload, String> {
    let mut beside = picture.as_os_str().to_owned();
    beside.push(".json");
    for path in [PathBuf::from(beside), picture.with_extension("json")] {
        if path == picture || !path.is_file() {
            continue;
        }
        let bad = |reason: String| format!("{} beside it: {reason}", path.display());
        let bytes = read_file(&path, MAX_PAYLOAD as u64).map_err(bad)?;
        return match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(fields.into_iter().collect()),
            Ok(_) => Err(bad("it is no JSON object".to_owned())),
            Err(error) => Err(bad(error.to_string())),
        };
    }
    Ok(Payload::new())
}

/// Adds `new` to `old`: values are replaced, and null takes one away.
///
/// # Errors
/// There is too much of it, in words.
pub(crate) fn merge(old: &Payload, new: Payload) -> Result<Payload, String> {
    let mut payload = old.clone();
    for (name, value) in new {
        match value {
            Value::Null => drop(payload.remove(&name)),
            value => drop(payload.insert(name, value)),
        }
    }
    check_size(&payload)?;
    Ok(payload)
}

fn check_size(payload: &Payload) -> Result<(), String> {
    if payload.is_empty() {
        return Ok(());
    }
    let size = serde_json::to_vec(payload).map_err(|error| error.to_string())?.len();
    match size > MAX_PAYLOAD {
        true => Err(format!(
            "its payload has {size} bytes as JSON, the limit is {MAX_PAYLOAD}; attach less"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(value: Value) -> Payload {
        match value {
            Value::Object(fields) => fields.into_iter().collect(),
            _ => Payload::new(),
        }
    }

    #[test]
    fn merging_replaces_removes_and_limits() {
        let old = payload(json!({"label": "cat", "rating": 3}));
        let new = payload(json!({"rating": null, "author": "A"}));
        assert_eq!(merge(&old, new), Ok(payload(json!({"label": "cat", "author": "A"}))));
        let large = payload(json!({"text": "x".repeat(MAX_PAYLOAD)}));
        let error = merge(&old, large).expect_err("too large");
        assert!(error.contains("65536"), "{error}");
    }

    #[test]
    fn a_file_beside_the_picture_is_found_by_both_names() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("write");
        };
        write("b.json", r#"{"n": 1}"#);
        write("c.jpg.json", r#"{"n": 2}"#);
        write("c.json", r#"{"n": 3}"#);
        write("d.json", "[1]");
        let read = |name: &str| sidecar(&folder.path().join(name));
        assert_eq!(read("a.jpg"), Ok(Payload::new()));
        assert_eq!(read("b.jpg"), Ok(payload(json!({"n": 1}))));
        assert_eq!(read("c.jpg"), Ok(payload(json!({"n": 2}))));
        assert!(read("d.jpg").expect_err("no object").contains("d.json"));
    }
}
