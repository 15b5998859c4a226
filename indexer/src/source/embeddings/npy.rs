//! NumPy arrays of vectors, with what a JSON-lines file beside them says about the rows.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use half::f16;
use serde_json::Value;

use super::Made;
use crate::error::{IndexerError, IoContext, Result};
use crate::record::Payload;
use crate::source::cannot_read;
use crate::source::rows::Rows;

/// Longest header; that of any array of two dimensions is a line.
const MAX_HEADER: u32 = 1 << 16;

pub(super) struct NpyFile {
    path: PathBuf,
    shape: Shape,
    /// About the rows, one by one.
    beside: Option<Rows>,
    next: u64,
}

/// Where the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// First byte of the values.
    start: u64,
    rows: u64,
    dim: usize,
    width: Width,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    F16 = 2,
    F32 = 4,
    F64 = 8,
}

impl NpyFile {
    pub(super) fn open(path: &Path) -> Result<(Self, usize, Made)> {
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let mut file = BufReader::new(File::open(path).io("open", path)?);
        let length = file.get_ref().metadata().io("read", path)?.len();
        let shape = read_shape(&mut file).map_err(bad)?;
        let bytes = shape.rows.checked_mul(shape.dim as u64 * shape.width as u64);
        if bytes.and_then(|bytes| bytes.checked_add(shape.start)) != Some(length) {
            return Err(bad(format!(
                "an array of {} rows of {} values does not fit its {length} bytes",
                shape.rows, shape.dim
            )));
        }
        let beside = path.with_extension("jsonl");
        let (made, rows) = match beside.is_file() {
            true => (made(&beside)?, Some(Rows::open(&beside)?)),
            false => (Made::default(), None),
        };
        let file = Self { path: path.to_path_buf(), shape, beside: rows, next: 0 };
        Ok((file, shape.dim, made))
    }

    pub(super) fn next_row(&mut self) -> Option<Result<Payload, String>> {
        if self.next >= self.shape.rows {
            return None;
        }
        self.next += 1;
        match self.beside.as_mut() {
            None => Some(Ok(Payload::new())),
            Some(rows) => Some(match rows.next() {
                Some((_, row)) => row,
                None => Err("the .jsonl file beside it has fewer rows".to_owned()),
            }),
        }
    }

    /// The vectors of rows with ascending numbers.
    pub(super) fn vectors(
        &self,
        places: Vec<u64>,
    ) -> impl Iterator<Item = Result<Vec<f32>, String>> + Send {
        let shape = self.shape;
        let mut file = File::open(&self.path).map(BufReader::new);
        places.into_iter().map(move |place| match &mut file {
            Ok(file) => shape.read(file, place).map_err(|error| cannot_read(&error)),
            Err(error) => Err(cannot_read(error)),
        })
    }
}

impl Shape {
    fn read(&self, file: &mut BufReader<File>, row: u64) -> std::io::Result<Vec<f32>> {
        let bytes = self.dim * self.width as usize;
        let target = self.start + row * bytes as u64;
        // Rows that follow each other are read without leaving the buffer.
        let here = file.stream_position()?;
        file.seek_relative(target as i64 - here as i64)?;
        let mut row = vec![0; bytes];
        file.read_exact(&mut row)?;
        Ok(match self.width {
            Width::F16 => {
                let values = row.as_chunks::<2>().0.iter();
                values.map(|&value| f16::from_le_bytes(value).to_f32()).collect()
            }
            Width::F32 => {
                row.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
            }
            Width::F64 => {
                let values = row.as_chunks::<8>().0.iter();
                values.map(|&value| f64::from_le_bytes(value) as f32).collect()
            }
        })
    }
}

/// What the first row of the file beside says about the model.
fn made(path: &Path) -> Result<Made> {
    let Some((_, Ok(mut row))) = Rows::open(path)?.next() else {
        return Ok(Made::default());
    };
    let fingerprint = match row.remove("fingerprint") {
        Some(Value::String(fingerprint)) => Some(fingerprint),
        _ => None,
    };
    let identity = row.remove("identity").and_then(|value| serde_json::from_value(value).ok());
    Ok(Made { identity: identity.filter(|_| fingerprint.is_some()), fingerprint })
}

fn read_shape(file: &mut impl Read) -> Result<Shape, String> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|error| cannot_read(&error))?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err("it is no NumPy array".to_owned());
    }
    let mut length = [0; 4];
    let prefix = if magic[6] == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..prefix]).map_err(|error| cannot_read(&error))?;
    let length = u32::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(format!("its header has {length} bytes, the limit is {MAX_HEADER}"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(|error| cannot_read(&error))?;
    let header = String::from_utf8_lossy(&header);
    let (rows, dim, width) = parse_header(&header)?;
    Ok(Shape { start: 8 + prefix as u64 + u64::from(length), rows, dim, width })
}

fn parse_header(header: &str) -> Result<(u64, usize, Width), String> {
    let after = |key: &str| {
        let rest = header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        rest.ok_or_else(|| format!("its header lacks `{key}`"))
    };
    let kind = after("descr")?.trim_start_matches('\'').split('\'').next().unwrap_or_default();
    let width = match kind {
        "<f2" => Width::F16,
        "<f4" => Width::F32,
        "<f8" => Width::F64,
        other => return Err(format!("its values are `{other}`; f16, f32 or f64 are read")),
    };
    if after("fortran_order")?.starts_with("True") {
        return Err("it is stored by columns; save it with numpy.ascontiguousarray".to_owned());
    }
    let shape = after("shape")?.trim_start_matches('(').split(')').next().unwrap_or_default();
    let sides: Option<Vec<u64>> = shape
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty())
        .map(|side| side.parse().ok())
        .collect();
    match sides.as_deref() {
        Some(&[rows, dim]) if dim > 0 && dim <= 1 << 20 => Ok((rows, dim as usize, width)),
        _ => Err(format!("its shape is ({shape}); (rows, values) is read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_shape_and_type() {
        let header = |kind: &str, order: &str, shape: &str| {
            parse_header(&format!(
                "{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}"
            ))
        };
        assert_eq!(header("<f2", "False", "(7, 384)"), Ok((7, 384, Width::F16)));
        assert_eq!(header("<f8", "False", "(0, 2)"), Ok((0, 2, Width::F64)));
        for (kind, order, shape) in [
            ("<i4", "False", "(7, 384)"),
            (">f4", "False", "(7, 384)"),
            ("<f4", "True", "(7, 384)"),
            ("<f4", "False", "(7,)"),
            ("<f4", "False", "(7, 3, 4)"),
            ("<f4", "False", "(7, 0)"),
        ] {
            assert!(header(kind, order, shape).is_err(), "{kind} {order} {shape}");
        }
    }
}
