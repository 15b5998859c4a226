//! One Parquet row group per thousand pictures, Snappy-compressed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use super::{Row, TableShape};
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, Result};

const ROWS_PER_GROUP: usize = 1000;

pub(super) struct ParquetTable {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<NamedTempFile>,
    rows: Vec<Row>,
    dim: usize,
    patch_values: Option<usize>,
}

impl ParquetTable {
    pub(super) fn create(path: &Path, shape: TableShape) -> Result<Self> {
        let dim = shape.model.dim;
        let patch_values = shape.patch_tokens.map(|(patches, channels)| patches * channels);
        let list = |name: &str, values: usize| {
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            Field::new(name, DataType::FixedSizeList(item, values as i32), false)
        };
        let mut fields = vec![
            Field::new("path", DataType::Utf8, false),
            Field::new("sha256", DataType::Utf8, false),
            Field::new("width", DataType::UInt32, false),
            Field::new("height", DataType::UInt32, false),
            list("embedding", dim),
        ];
        fields.extend(patch_values.map(|values| list("patch_tokens", values)));
        let schema = Arc::new(Schema::new(fields));

        let identity = serde_json::to_string(&shape.model).map_err(|error| failed(path, &error))?;
        let mut metadata = vec![
            KeyValue::new("akin.model".to_owned(), shape.model.name.clone()),
            KeyValue::new("akin.fingerprint".to_owned(), shape.model.fingerprint()),
            KeyValue::new("akin.pooling".to_owned(), shape.model.pooling.to_string()),
            KeyValue::new("akin.identity".to_owned(), identity),
        ];
        if let Some((patches, channels)) = shape.patch_tokens {
            let shape = format!("{patches},{channels}");
            metadata.push(KeyValue::new("akin.patch_tokens_shape".to_owned(), shape));
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(metadata))
            .build();
        let file = temporary_beside(path)?;
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
            .map_err(|error| failed(path, &error))?;
        let path = path.to_path_buf();
        Ok(Self { path, schema, writer, rows: Vec::new(), dim, patch_values })
    }

    pub(super) fn write(&mut self, row: Row) -> Result<()> {
        for (got, expected) in [
            (row.embedding.len(), self.dim),
            (row.patch_tokens.len(), self.patch_values.unwrap_or(0)),
        ] {
            if got != expected {
                return Err(IndexerError::Dimension { got, expected });
            }
        }
        self.rows.push(row);
        if self.rows.len() >= ROWS_PER_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let list = |values: fn(&Row) -> &Vec<f32>, length: usize| -> ArrayRef {
            let rows = rows.iter().map(|row| Some(values(row).iter().copied().map(Some)));
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                rows,
                length as i32,
            ))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.path.to_string()))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.sha256.as_str()))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.width))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.height))),
            list(|row| &row.embedding, self.dim),
        ];
        columns.extend(self.patch_values.map(|values| list(|row| &row.patch_tokens, values)));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| failed(&self.path, &error))?;
        self.writer
            .write(&batch)
            .and_then(|()| self.writer.flush())
            .map_err(|error| failed(&self.path, &error))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        let file = self.writer.into_inner().map_err(|error| failed(&self.path, &error))?;
        persist(file, &self.path)
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> IndexerError {
    IndexerError::Io {
        action: "write",
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    }
}
