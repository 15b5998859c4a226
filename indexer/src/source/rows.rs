//! Tables read row by row: CSV, TSV, JSON lines, Parquet, and plain lists of URLs.

mod arrow;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

pub(super) use self::arrow::{failed, vectors};
use crate::error::{IndexerError, IoContext, Result};
use crate::record::Payload;

/// Longest line of JSON.
const MAX_LINE: u64 = 1 << 20;
/// Rows of a Parquet file that are decoded together.
const BATCH_ROWS: usize = 1024;

/// The rows of a table, in its order. A row that cannot be read is an error of that row.
pub(crate) struct Rows {
    path: PathBuf,
    kind: Kind,
    /// Rows given, which is the number of the latest one, from 1 on.
    number: u64,
    done: bool,
}

enum Kind {
    Csv { columns: Vec<String>, records: csv::StringRecordsIntoIter<File> },
    Json(BufReader<File>),
    Lines(BufReader<File>),
    Parquet { columns: Vec<String>, batches: Box<ParquetRecordBatchReader>, rows: Vec<Payload> },
}

/// A row's number, from 1 on (a CSV's heading is not counted), and its values; or why it has none.
pub(crate) type Row = (u64, Result<Payload, String>);

impl Rows {
    /// Opens a table; the format is told by the extension. Columns of nested values that are no
    /// lists of plain ones are left out.
    ///
    /// # Errors
    /// The file cannot be read or is not what its extension says.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => super::no_such(path),
            _ => bad(error.to_string()),
        })?;
        let kind = match extension.to_str() {
            Some("csv") => open_csv(path, file, b',')?,
            Some("tsv") => open_csv(path, file, b'\t')?,
            Some("jsonl" | "ndjson") => Kind::Json(BufReader::new(file)),
            Some("txt") => Kind::Lines(BufReader::new(file)),
            Some("parquet") => open_parquet(path, file)?,
            _ => {
                let known = "a table must end in .parquet, .csv, .tsv, .jsonl or .txt";
                return Err(bad(known.to_owned()));
            }
        };
        Ok(Self { path: path.to_path_buf(), kind, number: 0, done: false })
    }

    /// Names of the columns, where the table declares them.
    pub(crate) fn columns(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::Csv { columns, .. } | Kind::Parquet { columns, .. } => Some(columns),
            Kind::Json(_) | Kind::Lines(_) => None,
        }
    }

    /// Checks that the table has a column, as far as it declares any.
    ///
    /// # Errors
    /// It has not; names those that it has.
    pub(crate) fn check_column(&self, name: &str) -> Result<()> {
        match self.columns() {
            Some(columns) if !columns.iter().any(|column| column == name) => {
                Err(IndexerError::Source {
                    path: self.path.clone(),
                    reason: format!("no column `{name}`; there are: {}", columns.join(", ")),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.done {
            return None;
        }
        let row = match &mut self.kind {
            Kind::Csv { columns, records } => {
                let record = records.next()?;
                if record.as_ref().is_err_and(csv::Error::is_io_error) {
                    self.done = true;
                }
                record.map_err(|error| error.to_string()).map(|record| {
                    let values = columns.iter().zip(record.iter());
                    values.filter_map(|(name, text)| Some((name.clone(), typed(text)?))).collect()
                })
            }
            Kind::Json(reader) => match line(reader) {
                None => return None,
                Some(Ok(bytes)) => parse_object(&bytes),
                Some(Err(reason)) => {
                    self.done = true;
                    Err(reason)
                }
            },
            Kind::Lines(reader) => match line(reader) {
                None => return None,
                Some(Ok(bytes)) => String::from_utf8(bytes)
                    .map(|text| Payload::from([("url".to_owned(), text.trim().into())]))
                    .map_err(|_| "it is not UTF-8".to_owned()),
                Some(Err(reason)) => {
                    self.done = true;
                    Err(reason)
                }
            },
            Kind::Parquet { batches, rows, .. } => loop {
                if let Some(row) = rows.pop() {
                    break Ok(row);
                }
                match batches.next()? {
                    Ok(batch) => {
                        *rows = arrow::payloads(&batch);
                        rows.reverse();
                    }
                    Err(error) => {
                        self.done = true;
                        break Err(error.to_string());
                    }
                }
            },
        };
        self.number += 1;
        Some((self.number, row))
    }
}

fn open_csv(path: &Path, file: File, delimiter: u8) -> Result<Kind> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let headers = reader.headers().map_err(|error| IndexerError::Source {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    let columns = headers.iter().map(str::to_owned).collect();
    Ok(Kind::Csv { columns, records: reader.into_records() })
}

fn open_parquet(path: &Path, file: File) -> Result<Kind> {
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(path, &error))?;
    let fields = builder.schema().fields().iter().enumerate();
    let plain: Vec<(usize, String)> = fields
        .filter(|(_, field)| arrow::is_plain(field.data_type()))
        .map(|(number, field)| (number, field.name().clone()))
        .collect();
    let numbers = plain.iter().map(|(number, _)| *number);
    let mask = ProjectionMask::roots(builder.parquet_schema(), numbers);
    let batches = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| failed(path, &error))?;
    let columns = plain.into_iter().map(|(_, name)| name).collect();
    Ok(Kind::Parquet { columns, batches: Box::new(batches), rows: Vec::new() })
}

/// The next line that is not empty, without its end.
fn line(reader: &mut BufReader<File>) -> Option<Result<Vec<u8>, String>> {
    loop {
        let mut bytes = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(read) if read as u64 == MAX_LINE && !bytes.ends_with(b"\n") => {
                return Some(Err(format!("it is longer than {MAX_LINE} bytes")));
            }
            Ok(_) => {}
            Err(error) => return Some(Err(super::cannot_read(&error))),
        }
        if !bytes.trim_ascii().is_empty() {
            return Some(Ok(bytes.trim_ascii().to_vec()));
        }
    }
}

fn parse_object(bytes: &[u8]) -> Result<Payload, String> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields.into_iter().collect()),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A cell as a value: nothing if empty, numbers and `true`/`false` as such, the rest as text. What
/// a number would not give back as written, such as `007`, stays text.
pub(crate) fn typed(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return None;
    }
    if let Ok(truth) = trimmed.to_ascii_lowercase().parse::<bool>() {
        return Some(truth.into());
    }
    let digits = trimmed.strip_prefix('-').unwrap_or(trimmed);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && !(digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0."));
    if plain {
        if let Ok(number) = trimmed.parse::<i64>() {
            return Some(number.into());
        }
        let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(number) = trimmed.parse().ok().filter(|n: &f64| n.is_finite() && !is_integer) {
            return Some(number.into());
        }
    }
    Some(text.into())
}

/// The file of which rows are asked for again by number.
pub(super) fn open_file(path: &Path) -> Result<File> {
    File::open(path).io("open", path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_get_the_type_they_look_like() {
        for (text, value) in [
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("0.5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("True", json!(true)),
            ("007", json!("007")),
            ("+1", json!("+1")),
            ("123456789012345678901", json!("123456789012345678901")),
            ("inf", json!("inf")),
            ("2024-01-02", json!("2024-01-02")),
            (" words ", json!(" words ")),
        ] {
            assert_eq!(typed(text), Some(value), "{text}");
        }
        assert_eq!(typed("  "), None);
    }

    #[test]
    fn bad_rows_are_named_and_the_rest_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let rows = |name: &str, text: &[u8]| -> Vec<Row> {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("write");
            Rows::open(&path).expect("open").collect()
        };
        let read = rows("a.csv", b"url,n\nhttp://a,1\nonly one\nhttp://b,\n");
        let numbers: Vec<u64> = read.iter().map(|row| row.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let first = Payload::from([("url".into(), json!("http://a")), ("n".into(), json!(1))]);
        assert_eq!(read[0].1, Ok(first));
        assert!(read[1].1.is_err() && read[2].1.as_ref().is_ok_and(|row| row.len() == 1));

        let read =
            rows("a.jsonl", b"{\"url\":\"http://a\"}\n\n[1]\nnonsense\n{\"url\":\"http://b\"}");
        let good: Vec<bool> = read.iter().map(|row| row.1.is_ok()).collect();
        assert_eq!(good, [true, false, false, true]);
        let read = rows("a.txt", b"http://a\r\n\xff\nhttp://b\n");
        assert_eq!(read.iter().filter(|row| row.1.is_ok()).count(), 2);
        let error = Rows::open(&folder.path().join("b.parquet")).err().expect("an error");
        assert!(error.to_string().contains("no such file"), "{error}");
        std::fs::write(folder.path().join("b.parquet"), b"PAR1 words PAR1").expect("write");
        assert!(Rows::open(&folder.path().join("b.parquet")).is_err());
    }
}
