//! The images of an export, with what is known of them.

use super::Selection;
use crate::curate::manifest::ManifestLine;
use crate::error::Result;
use crate::pipeline::Skipped;
use crate::record::{FileStamp, Payload};

/// Name of the payload value that is an image's class.
const LABEL: &str = "label";

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) line: ManifestLine,
    /// Row of its embedding.
    pub(super) row: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stamp: FileStamp,
    pub(super) payload: Payload,
}

impl Entry {
    /// Its class, when it has one.
    pub(super) fn label(&self) -> Option<String> {
        match self.payload.get(LABEL)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// Everything selected, by id; and what the collection no longer has.
pub(super) fn of(selection: &Selection<'_>) -> Result<(Vec<Entry>, Vec<Skipped>)> {
    let mut entries = Vec::new();
    let mut skipped = Vec::new();
    match selection {
        Selection::Collection(set) => {
            for image in set.images() {
                let record = set.record(image.id)?;
                let line = ManifestLine {
                    id: image.id,
                    path: record.path,
                    file: None,
                    sha256: record.sha256,
                    seed: None,
                    similarity: None,
                    step: None,
                };
                let (width, height, stamp) = (record.width, record.height, record.stamp);
                let payload = record.payload;
                entries.push(Entry { line, row: image.row, width, height, stamp, payload });
            }
        }
        Selection::Run { run, pool, .. } => {
            for row in run.rows().iter().filter(|row| row.kept) {
                let at = pool.position(row.id);
                let image = at.map(|at| &pool.images()[at as usize]);
                let record = pool.view().record(row.id)?;
                match (image, record) {
                    (Some(image), Some(record)) if record.sha256 == row.sha256 => {
                        entries.push(Entry {
                            line: ManifestLine { path: record.path, ..ManifestLine::from(row) },
                            row: image.row,
                            width: record.width,
                            height: record.height,
                            stamp: record.stamp,
                            payload: record.payload,
                        });
                    }
                    _ => skipped.push(Skipped {
                        path: row.path.to_path(),
                        reason:
                            "the collection has it no more, or with other content; curate again"
                                .to_owned(),
                        not_a_picture: false,
                    }),
                }
            }
        }
    }
    Ok((entries, skipped))
}
