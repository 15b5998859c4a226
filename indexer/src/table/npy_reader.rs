//! Reading large f32 arrays of NumPy's format, a block of rows at a time.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{IndexerError, IoContext, Result};

/// Longest header; that of any array of two dimensions is a line.
const MAX_HEADER: usize = 1 << 16;

/// Rows of a `.npy` file: f32, little-endian, C order, two dimensions.
#[derive(Debug)]
pub struct NpyReader {
    path: PathBuf,
    file: BufReader<File>,
    rows: usize,
    dim: usize,
    left: usize,
}

impl NpyReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// It is no such file, or its length is not what the header says.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |reason: &str| IndexerError::Source {
            path: path.to_path_buf(),
            reason: reason.to_owned(),
        };
        let file = File::open(path).io("open", path)?;
        let length = file.metadata().io("read", path)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut start = [0u8; 10];
        file.read_exact(&mut start).map_err(|_| bad("too short for a .npy file"))?;
        if &start[..6] != b"\x93NUMPY" || start[6] != 1 {
            return Err(bad("not a .npy file of version 1"));
        }
        let header = usize::from(u16::from_le_bytes([start[8], start[9]])).min(MAX_HEADER);
        let mut text = vec![0; header];
        file.read_exact(&mut text).map_err(|_| bad("too short for its header"))?;
        let text = String::from_utf8_lossy(&text);
        if !text.contains("'<f4'") || !text.contains("'fortran_order': False") {
            return Err(bad("only little-endian f32 in C order can be read; save with \
                            `numpy.save(file, array.astype('<f4'))`"));
        }
        let shape = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let sides: Option<Vec<usize>> = shape
            .and_then(|(shape, _)| shape.split(',').map(|side| side.trim().parse().ok()).collect());
        let Some(&[rows, dim]) = sides.as_deref() else {
            return Err(bad("the array does not have two dimensions"));
        };
        let values = rows.checked_mul(dim).and_then(|values| values.checked_mul(4));
        if values.map(|bytes| (bytes + 10 + header) as u64) != Some(length) {
            return Err(bad(&format!("{rows} rows of {dim} values do not fit its {length} bytes")));
        }
        Ok(Self { path: path.to_path_buf(), file, rows, dim, left: rows })
    }

    /// Rows in the file.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The next rows, at most `count`, one after the other; empty at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_rows(&mut self, count: usize) -> Result<Vec<f32>> {
        let count = count.min(self.left);
        self.left -= count;
        let mut bytes = vec![0; count * self.dim * 4];
        self.file.read_exact(&mut bytes).io("read", &self.path)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, values: &[f32]) -> tempfile::NamedTempFile {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), bytes).expect("write");
        file
    }

    #[test]
    fn rows_come_in_blocks_and_what_does_not_fit_is_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }\n";
        let sound = file(header, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut reader = NpyReader::open(sound.path()).expect("opens");
        assert_eq!((reader.rows(), reader.dim()), (3, 2));
        assert_eq!(reader.next_rows(2).expect("rows"), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(reader.next_rows(2).expect("rows"), [5.0, 6.0]);
        assert!(reader.next_rows(2).expect("rows").is_empty());
        for (header, reason) in [
            (header.replace("3, 2", "4, 2"), "do not fit"),
            (header.replace("3, 2", "6,"), "two dimensions"),
            (header.replace("<f4", "<f8"), "only little-endian f32"),
            (header.replace("False", "True"), "C order"),
        ] {
            let odd = file(&header, &[0.0; 6]);
            let error = NpyReader::open(odd.path()).expect_err("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
