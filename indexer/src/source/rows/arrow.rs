//! Values of Arrow columns as JSON values, and lists of numbers as vectors.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use serde_json::Value;

use crate::error::IndexerError;
use crate::record::Payload;

/// Whether the values of a column can be payload.
pub(super) fn is_plain(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) => is_scalar(item.data_type()),
        kind => is_scalar(kind),
    }
}

fn is_scalar(kind: &DataType) -> bool {
    kind.is_integer()
        || kind.is_floating()
        || matches!(
            kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean
        )
}

/// The rows of a batch; null values are left out.
pub(super) fn payloads(batch: &RecordBatch) -> Vec<Payload> {
    let schema = batch.schema();
    let mut rows = vec![Payload::new(); batch.num_rows()];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        for (row, payload) in rows.iter_mut().enumerate() {
            if let Some(value) = value(column.as_ref(), row) {
                payload.insert(field.name().clone(), value);
            }
        }
    }
    rows
}

fn value(column: &dyn Array, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    let list = |items: &dyn Array| {
        (0..items.len()).filter_map(|item| value(items, item)).collect::<Vec<_>>().into()
    };
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => column.as_primitive::<Float16Type>().value(row).to_f32().into(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::List(_) => list(column.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row).as_ref()),
        _ => return None,
    })
}

/// The vectors of a column of lists of numbers; `None` for a null one, or where an item is null.
/// `Err` with the column's type when it is no such column.
pub(in crate::source) fn vectors(column: &dyn Array) -> Result<Vec<Option<Vec<f32>>>, String> {
    let rows = 0..column.len();
    let item = |items: &dyn Array| floats(items);
    match column.data_type() {
        DataType::FixedSizeList(of, _) if of.data_type().is_floating() => {
            let lists = column.as_fixed_size_list();
            Ok(rows.map(|row| (!lists.is_null(row)).then(|| item(&lists.value(row)))?).collect())
        }
        DataType::List(of) if of.data_type().is_floating() => {
            let lists = column.as_list::<i32>();
            Ok(rows.map(|row| (!lists.is_null(row)).then(|| item(&lists.value(row)))?).collect())
        }
        DataType::LargeList(of) if of.data_type().is_floating() => {
            let lists = column.as_list::<i64>();
            Ok(rows.map(|row| (!lists.is_null(row)).then(|| item(&lists.value(row)))?).collect())
        }
        other => Err(other.to_string()),
    }
}

fn floats(items: &dyn Array) -> Option<Vec<f32>> {
    if items.null_count() > 0 {
        return None;
    }
    match items.data_type() {
        DataType::Float16 => {
            let values = items.as_primitive::<Float16Type>().values();
            Some(values.iter().map(|value| value.to_f32()).collect())
        }
        DataType::Float32 => Some(items.as_primitive::<Float32Type>().values().to_vec()),
        DataType::Float64 => {
            let values = items.as_primitive::<Float64Type>().values();
            Some(values.iter().map(|&value| value as f32).collect())
        }
        _ => None,
    }
}

pub(in crate::source) fn failed(path: &Path, error: &dyn std::fmt::Display) -> IndexerError {
    IndexerError::Source {
        path: path.to_path_buf(),
        reason: format!("it cannot be read as Parquet: {error}"),
    }
}
