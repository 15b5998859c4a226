//! One Parquet table of all images, with their embeddings if asked for.

use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::entries::Entry;
use super::rows::Row;
use crate::collection::View;
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, Result};

const ROWS_PER_GROUP: usize = 1000;

pub(super) fn write(path: &Path, entries: &[Entry], view: &View, embeddings: bool) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| IndexerError::Io {
        action: "write",
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    };
    let model = &view.manifest().model;
    let schema = schema(embeddings.then_some(model.dim));
    let metadata = vec![
        KeyValue::new("akin.model".to_owned(), model.name.clone()),
        KeyValue::new("akin.fingerprint".to_owned(), view.manifest().fingerprint.clone()),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(metadata))
        .build();
    let file = temporary_beside(path)?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
        .map_err(|error| failed(&error))?;
    for entries in entries.chunks(ROWS_PER_GROUP) {
        let rows: Vec<Row> = entries.iter().map(Row::from).collect();
        let mut columns = columns(&rows);
        if embeddings {
            let vectors: Vec<Vec<f32>> = entries
                .iter()
                .map(|entry| view.vector(entry.row, entry.line.id))
                .collect::<Result<_>>()?;
            let lists = vectors.iter().map(|vector| Some(vector.iter().copied().map(Some)));
            columns.push(Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                lists,
                model.dim as i32,
            )));
        }
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| failed(&error))?;
        writer.write(&batch).and_then(|()| writer.flush()).map_err(|error| failed(&error))?;
    }
    persist(writer.into_inner().map_err(|error| failed(&error))?, path)
}

/// The names and types of [`Row`], and the embedding.
fn schema(dim: Option<usize>) -> Arc<Schema> {
    use DataType::{Float32, UInt32, UInt64, Utf8};
    let mut fields = vec![
        Field::new("id", UInt64, false),
        Field::new("path", Utf8, false),
        Field::new("file", Utf8, true),
        Field::new("sha256", Utf8, false),
        Field::new("width", UInt32, false),
        Field::new("height", UInt32, false),
        Field::new("seed_set", Utf8, true),
        Field::new("seed_id", UInt64, true),
        Field::new("seed_path", Utf8, true),
        Field::new("similarity", Float32, true),
        Field::new("step", Utf8, true),
        Field::new("label", Utf8, true),
        Field::new("payload", Utf8, true),
    ];
    fields.extend(dim.map(|dim| {
        let item = Arc::new(Field::new("item", Float32, true));
        Field::new("embedding", DataType::FixedSizeList(item, dim as i32), false)
    }));
    Arc::new(Schema::new(fields))
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let text = |of: fn(&Row) -> Option<&String>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.id))),
        text(|row| Some(&row.path)),
        text(|row| row.file.as_ref()),
        text(|row| Some(&row.sha256)),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.width))),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.height))),
        text(|row| row.seed_set.as_ref()),
        Arc::new(rows.iter().map(|row| row.seed_id).collect::<UInt64Array>()),
        text(|row| row.seed_path.as_ref()),
        Arc::new(rows.iter().map(|row| row.similarity).collect::<Float32Array>()),
        text(|row| row.step.as_ref()),
        text(|row| row.label.as_ref()),
        text(|row| row.payload.as_ref()),
    ]
}
