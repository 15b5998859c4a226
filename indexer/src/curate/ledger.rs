//! The ledger: one row for every image of the pool, in or out, and why.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use super::output::Rule;
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, IoContext, Result};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;

const ROWS_PER_GROUP: usize = 10_000;

/// An image of another set, or of the pool, that is a reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Because {
    /// `pool`, or the name of a seed set or an excluded set.
    pub set: String,
    /// In that set's collection.
    pub id: ImageId,
    /// Where it is.
    pub path: Locator,
}

/// Why one image of the pool is in or out.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRow {
    /// In the pool.
    pub id: ImageId,
    /// Where it is.
    pub path: Locator,
    /// Hash of its file.
    pub sha256: ContentHash,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Whether it is in the result.
    pub kept: bool,
    /// The step that decided: `03-retrieve`, `review`, or `union` when none did.
    pub step: String,
    /// How.
    pub rule: Rule,
    /// In: the seed image it is there for.
    pub seed: Option<Because>,
    /// Its rank among that seed image's neighbours, from 1.
    pub rank: Option<u32>,
    /// Out: the image that is the reason.
    pub because: Option<Because>,
    /// Cosine similarity with the seed image, or with the reason.
    pub similarity: Option<f32>,
    /// Component of the last step that found it in one, named by that one's first image.
    pub component: Option<ImageId>,
    /// Cluster of the last step that made some.
    pub cluster: Option<u32>,
    /// The excluded image it is most like.
    pub excluded: Option<Because>,
    /// Cosine similarity with that.
    pub excluded_similarity: Option<f32>,
    /// Whether that is at or above the threshold: it can never be in.
    pub leak: bool,
}

fn fields() -> Vec<Field> {
    use DataType::{Binary, Boolean, Float32, UInt32, UInt64, Utf8};
    let because = |name: &str| {
        [
            Field::new(format!("{name}_set"), Utf8, true),
            Field::new(format!("{name}_id"), UInt64, true),
            Field::new(format!("{name}_path"), Utf8, true),
        ]
    };
    let mut fields = vec![
        Field::new("id", UInt64, false),
        Field::new("path", Utf8, false),
        Field::new("path_bytes", Binary, true),
        Field::new("sha256", Utf8, false),
        Field::new("width", UInt32, false),
        Field::new("height", UInt32, false),
        Field::new("kept", Boolean, false),
        Field::new("step", Utf8, false),
        Field::new("rule", Utf8, false),
    ];
    fields.extend(because("seed"));
    fields.push(Field::new("rank", UInt32, true));
    fields.extend(because("because"));
    fields.push(Field::new("similarity", Float32, true));
    fields.push(Field::new("component", UInt64, true));
    fields.push(Field::new("cluster", UInt32, true));
    fields.extend(because("excluded"));
    fields.push(Field::new("excluded_similarity", Float32, true));
    fields.push(Field::new("leak", Boolean, false));
    fields.push(Field::new("fingerprint", Utf8, false));
    fields
}

/// Writes a ledger: whole or not at all.
///
/// # Errors
/// The disk refuses.
pub fn write(path: &Path, rows: &[LedgerRow], fingerprint: &str) -> Result<()> {
    let schema = Arc::new(Schema::new(fields()));
    let metadata = vec![KeyValue::new("akin.fingerprint".to_owned(), fingerprint.to_owned())];
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(metadata))
        .build();
    let file = temporary_beside(path)?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
        .map_err(|error| failed(path, "write", &error))?;
    for rows in rows.chunks(ROWS_PER_GROUP) {
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns(rows, fingerprint))
            .map_err(|error| failed(path, "write", &error))?;
        writer
            .write(&batch)
            .and_then(|()| writer.flush())
            .map_err(|error| failed(path, "write", &error))?;
    }
    let file = writer.into_inner().map_err(|error| failed(path, "write", &error))?;
    persist(file, path)
}

fn columns(rows: &[LedgerRow], fingerprint: &str) -> Vec<ArrayRef> {
    fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }
    let because = |of: fn(&LedgerRow) -> &Option<Because>| -> [ArrayRef; 3] {
        let sets = rows.iter().map(|row| of(row).as_ref().map(|b| b.set.as_str()));
        let ids = rows.iter().map(|row| of(row).as_ref().map(|b| b.id.0));
        let paths = rows.iter().map(|row| of(row).as_ref().map(|b| b.path.to_string()));
        [
            Arc::new(sets.collect::<StringArray>()),
            Arc::new(ids.collect::<UInt64Array>()),
            Arc::new(paths.collect::<StringArray>()),
        ]
    };
    let odd_path = |row: &LedgerRow| match &row.path {
        Locator::Text(_) => None,
        Locator::Bytes(bytes) => Some(bytes.clone()),
    };
    let flags = |of: fn(&LedgerRow) -> bool| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>())
    };
    let shares = |of: fn(&LedgerRow) -> Option<f32>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float32Array>())
    };
    let numbers = |of: fn(&LedgerRow) -> Option<u32>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<UInt32Array>())
    };
    let ids = |of: fn(&LedgerRow) -> Option<u64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<UInt64Array>())
    };
    let paths: Vec<String> = rows.iter().map(|row| row.path.to_string()).collect();
    let mut columns = vec![
        ids(|row| Some(row.id.0)),
        texts(paths.iter().map(String::as_str)),
        Arc::new(rows.iter().map(odd_path).collect::<BinaryArray>()) as ArrayRef,
        texts(rows.iter().map(|row| row.sha256.as_str())),
        numbers(|row| Some(row.width)),
        numbers(|row| Some(row.height)),
        flags(|row| row.kept),
        texts(rows.iter().map(|row| row.step.as_str())),
        texts(rows.iter().map(|row| row.rule.as_str())),
    ];
    columns.extend(because(|row| &row.seed));
    columns.push(numbers(|row| row.rank));
    columns.extend(because(|row| &row.because));
    columns.push(shares(|row| row.similarity));
    columns.push(ids(|row| row.component.map(|id| id.0)));
    columns.push(numbers(|row| row.cluster));
    columns.extend(because(|row| &row.excluded));
    columns.push(shares(|row| row.excluded_similarity));
    columns.push(flags(|row| row.leak));
    columns.push(texts(rows.iter().map(|_| fingerprint)));
    columns
}

/// Reads a ledger, in its order.
///
/// # Errors
/// The file is missing or damaged.
pub fn read(path: &Path) -> Result<Vec<LedgerRow>> {
    let file = File::open(path).io("open", path)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| failed(path, "read", &error))?;
    let reader = builder.build().map_err(|error| failed(path, "read", &error))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| failed(path, "read", &error))?;
        if batch.schema().fields().len() != fields().len()
            || batch
                .schema()
                .fields()
                .iter()
                .zip(fields())
                .any(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type())
        {
            return Err(IndexerError::Damaged {
                path: path.to_path_buf(),
                reason: "it has not the columns of a ledger; run the same `akin curate` again"
                    .to_owned(),
            });
        }
        for row in 0..batch.num_rows() {
            rows.push(row_of(&batch, row).ok_or_else(|| IndexerError::Damaged {
                path: path.to_path_buf(),
                reason: format!("row {row} makes no sense; run the same `akin curate` again"),
            })?);
        }
    }
    Ok(rows)
}

fn row_of(batch: &RecordBatch, row: usize) -> Option<LedgerRow> {
    let column = |name: &str| batch.column_by_name(name).filter(|column| column.is_valid(row));
    let text = |name: &str| Some(column(name)?.as_string_opt::<i32>()?.value(row).to_owned());
    let id = |name: &str| Some(column(name)?.as_primitive_opt::<UInt64Type>()?.value(row));
    let number = |name: &str| Some(column(name)?.as_primitive_opt::<UInt32Type>()?.value(row));
    let share = |name: &str| Some(column(name)?.as_primitive_opt::<Float32Type>()?.value(row));
    let flag = |name: &str| Some(column(name)?.as_boolean_opt()?.value(row));
    let because = |name: &str| {
        Some(Because {
            set: text(&format!("{name}_set"))?,
            id: ImageId(id(&format!("{name}_id"))?),
            path: Locator::Text(text(&format!("{name}_path"))?),
        })
    };
    let path = match column("path_bytes") {
        Some(bytes) => Locator::from_bytes(bytes.as_binary_opt::<i32>()?.value(row)),
        None => Locator::Text(text("path")?),
    };
    Some(LedgerRow {
        id: ImageId(id("id")?),
        path,
        sha256: ContentHash::from_bytes(&hash_bytes(&text("sha256")?)?),
        width: number("width")?,
        height: number("height")?,
        kept: flag("kept")?,
        step: text("step")?,
        rule: Rule::from_name(&text("rule")?)?,
        seed: because("seed"),
        rank: number("rank"),
        because: because("because"),
        similarity: share("similarity"),
        component: id("component").map(ImageId),
        cluster: number("cluster"),
        excluded: because("excluded"),
        excluded_similarity: share("excluded_similarity"),
        leak: flag("leak")?,
    })
}

fn hash_bytes(text: &str) -> Option<[u8; 32]> {
    serde_json::from_value::<ContentHash>(text.into()).ok()?.to_bytes()
}

fn failed(path: &Path, action: &'static str, error: &dyn std::fmt::Display) -> IndexerError {
    IndexerError::Io {
        action,
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    }
}
