//! NumPy's array format, version 1.0 (NEP 1): a padded header, then the raw values.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use engine::ModelIdentity;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::{Row, TableShape};
use crate::durable::{persist, temporary_beside};
use crate::error::{IndexerError, IoContext, Result};

/// Room for the header: the number of rows is known only at the end.
const HEADER_BYTES: usize = 128;

pub(super) struct NpyTable {
    embeddings: NpyFile,
    patch_tokens: Option<NpyFile>,
    rows: Pending,
    fingerprint: String,
    /// Written into the first row only.
    model: Option<ModelIdentity>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    path: String,
    sha256: &'a str,
    width: u32,
    height: u32,
    fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<ModelIdentity>,
}

impl NpyTable {
    pub(super) fn create(path: &Path, shape: &TableShape) -> Result<Self> {
        let patch_tokens = match shape.patch_tokens {
            Some((patches, channels)) => Some(NpyFile::create(
                &path.with_extension("patch_tokens.npy"),
                vec![patches, channels],
            )?),
            None => None,
        };
        Ok(Self {
            embeddings: NpyFile::create(path, vec![shape.model.dim])?,
            patch_tokens,
            rows: Pending::create(&path.with_extension("jsonl"))?,
            fingerprint: shape.model.fingerprint(),
            model: Some(shape.model.clone()),
        })
    }

    pub(super) fn write(&mut self, row: &Row) -> Result<()> {
        self.embeddings.write(&row.embedding)?;
        if let Some(patch_tokens) = &mut self.patch_tokens {
            patch_tokens.write(&row.patch_tokens)?;
        }
        let Row { path, sha256, width, height, .. } = row;
        let (path, sha256) = (path.to_string(), sha256.as_str());
        let json = JsonRow {
            path,
            sha256,
            width: *width,
            height: *height,
            fingerprint: &self.fingerprint,
            identity: self.model.take(),
        };
        let mut line = serde_json::to_vec(&json)
            .map_err(|error| IndexerError::InvalidRequest(error.to_string()))?;
        line.push(b'\n');
        self.rows.write(&line)
    }

    pub(super) fn finish(self) -> Result<()> {
        self.embeddings.finish()?;
        self.patch_tokens.map_or(Ok(()), NpyFile::finish)?;
        self.rows.finish()
    }
}

struct NpyFile {
    file: Pending,
    rows: usize,
    row_shape: Vec<usize>,
}

impl NpyFile {
    fn create(path: &Path, row_shape: Vec<usize>) -> Result<Self> {
        let mut file = Pending::create(path)?;
        file.write(&[0; HEADER_BYTES])?;
        Ok(Self { file, rows: 0, row_shape })
    }

    fn write(&mut self, values: &[f32]) -> Result<()> {
        let expected = self.row_shape.iter().product();
        if values.len() != expected {
            return Err(IndexerError::Dimension { got: values.len(), expected });
        }
        self.rows += 1;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write(&bytes)
    }

    fn finish(mut self) -> Result<()> {
        let header = header(self.rows, &self.row_shape);
        let path = self.file.path.clone();
        self.file.writer.seek(SeekFrom::Start(0)).io("write", &path)?;
        self.file.write(&header)?;
        self.file.finish()
    }
}

fn header(rows: usize, row_shape: &[usize]) -> Vec<u8> {
    let shape: Vec<String> = row_shape.iter().map(usize::to_string).collect();
    let dict = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {}), }}",
        shape.join(", ")
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((HEADER_BYTES as u16 - 10).to_le_bytes());
    bytes.extend(dict.bytes());
    bytes.resize(HEADER_BYTES - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// A file that gets its name when it is complete.
struct Pending {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl Pending {
    fn create(path: &Path) -> Result<Self> {
        let file = temporary_beside(path)?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::new(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).io("write", &self.path)
    }

    fn finish(self) -> Result<()> {
        let file = self.writer.into_inner().map_err(|error| error.into_error());
        persist(file.io("write", &self.path)?, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_padded_and_says_the_shape() {
        let header = header(12_345_678, &[1369, 1536]);
        assert_eq!(header.len(), HEADER_BYTES);
        let text = String::from_utf8_lossy(&header[10..]).into_owned();
        assert!(text.contains("'shape': (12345678, 1369, 1536), }"), "{text}");
        assert!(text.ends_with('\n'));
    }
}
