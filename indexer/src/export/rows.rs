//! Tables of text: one row for every image.

use std::path::Path;

use serde::Serialize;

use super::entries::Entry;
use crate::curate::manifest::write_line;
use crate::durable::replace_file;
use crate::error::{IndexerError, Result};

/// One row; names and order are a contract.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) path: String,
    pub(super) file: Option<String>,
    pub(super) sha256: String,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) seed_set: Option<String>,
    pub(super) seed_id: Option<u64>,
    pub(super) seed_path: Option<String>,
    pub(super) similarity: Option<f32>,
    pub(super) step: Option<String>,
    /// The payload value `label`.
    pub(super) label: Option<String>,
    /// The payload as JSON, when there is any.
    pub(super) payload: Option<String>,
}

impl From<&Entry> for Row {
    fn from(entry: &Entry) -> Self {
        let line = &entry.line;
        let seed = line.seed.as_ref();
        let payload = serde_json::to_string(&entry.payload).ok();
        Self {
            id: line.id.0,
            path: line.path.to_string(),
            file: line.file.clone(),
            sha256: line.sha256.as_str().to_owned(),
            width: entry.width,
            height: entry.height,
            seed_set: seed.map(|seed| seed.set.clone()),
            seed_id: seed.map(|seed| seed.id.0),
            seed_path: seed.map(|seed| seed.path.to_string()),
            similarity: line.similarity,
            step: line.step.clone(),
            label: entry.label(),
            payload: payload.filter(|_| !entry.payload.is_empty()),
        }
    }
}

/// A row of `metadata.jsonl`, by whose `file_name` Hugging Face `datasets` finds the picture.
#[derive(Serialize)]
struct MetadataRow {
    file_name: Option<String>,
    #[serde(flatten)]
    row: Row,
}

pub(super) fn write_jsonl(path: &Path, entries: &[Entry]) -> Result<()> {
    replace_file(path, |file| {
        entries.iter().try_for_each(|entry| write_line(file, &Row::from(entry)))
    })
}

pub(super) fn write_metadata(path: &Path, entries: &[Entry]) -> Result<()> {
    replace_file(path, |file| {
        entries.iter().try_for_each(|entry| {
            let row = Row { file: None, ..Row::from(entry) };
            write_line(file, &MetadataRow { file_name: entry.line.file.clone(), row })
        })
    })
}

pub(super) fn write_csv(path: &Path, entries: &[Entry]) -> Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(true).from_writer(Vec::new());
    let failed = |error: &dyn std::fmt::Display| IndexerError::Io {
        action: "write",
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    };
    if entries.is_empty() {
        // Headers come with the first row; an empty table has them all the same.
        let names = "id,path,file,sha256,width,height,seed_set,seed_id,seed_path,similarity,step,\
                     label,payload";
        writer.write_record(names.split(',')).map_err(|error| failed(&error))?;
    }
    for entry in entries {
        writer.serialize(Row::from(entry)).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    replace_file(path, |file| file.write_all(&bytes))
}
