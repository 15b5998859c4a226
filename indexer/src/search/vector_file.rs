//! One vector from a file: a NumPy array or a JSON list.

use std::path::Path;

use half::f16;

use crate::error::{IndexerError, IoContext, Result};

/// Largest file that is read: far above any vector.
const MAX_BYTES: u64 = 16 << 20;

/// The vector in a `.npy` file (16-, 32- or 64-bit floats, shape (n,) or (1, n)) or in a `.json` file
/// (a list of numbers).
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_vector(path: &Path) -> Result<Vec<f32>> {
    let size = std::fs::metadata(path).io("read", path)?.len();
    let invalid = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
    if size > MAX_BYTES {
        return Err(invalid(format!(
            "the file has {size} bytes, a file with one vector has at most {MAX_BYTES}"
        )));
    }
    let bytes = std::fs::read(path).io("read", path)?;
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("this is no list of numbers: {error}"))),
        Some("npy") => npy(&bytes).map_err(invalid),
        _ => Err(invalid("a vector comes from a .npy or a .json file".to_owned())),
    }
}

/// The array of a NumPy file (NEP 1, versions 1 to 3).
fn npy(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("this is no NumPy file")?;
    let cut = || "the NumPy file ends within its header".to_owned();
    let (&[major, _], rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return Err(format!("NumPy format {major} is not known; save it with numpy.save")),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    let dtype = after(&header, "'descr':").and_then(|rest| rest.split('\'').nth(1)).unwrap_or("?");
    let shape = after(&header, "'shape':").and_then(|rest| rest.split(['(', ')']).nth(1));
    let shape: Option<Vec<usize>> = shape.and_then(|shape| {
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        sides.map(|side| side.parse().ok()).collect()
    });
    let count = match shape.as_deref() {
        Some([count] | [1, count]) => *count,
        _ => return Err("the array must have one vector: shape (n,) or (1, n)".to_owned()),
    };
    let values: Vec<f32> = match dtype {
        "<f2" => data.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        "<f4" => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        "<f8" => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => {
            return Err(format!("the array holds `{dtype}`; use 16-, 32- or 64-bit floats"));
        }
    };
    let size = match dtype {
        "<f2" => 2,
        "<f4" => 4,
        _ => 8,
    };
    if values.len() != count || data.len() != count.saturating_mul(size) {
        return Err(format!(
            "the array should have {count} values, the file has {} bytes of them",
            data.len()
        ));
    }
    Ok(values)
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.find(key).map(|at| &text[at + key.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn arrays_of_all_floats_are_read() {
        let f4: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let f8: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let f2 = [0x00, 0x3e, 0x00, 0xc0];
        for file in [
            array("<f4", "(2,)", &f4),
            array("<f4", "(1, 2)", &f4),
            array("<f8", "(2,)", &f8),
            array("<f2", "(2,)", &f2),
        ] {
            assert_eq!(npy(&file), Ok(vec![1.5, -2.0]));
        }
        for (file, reason) in [
            (array("<f4", "(2, 1)", &f4), "one vector"),
            (array("<f4", "()", &f4), "one vector"),
            (array("<f4", "(3,)", &f4), "should have 3 values"),
            (array("<f4", "(2,)", &f4[..7]), "should have 2 values"),
            (array("<i4", "(2,)", &f4), "`<i4`"),
            (array(">f4", "(2,)", &f4), "`>f4`"),
            (array("<f4", "(2,)", &f4)[..20].to_vec(), "within its header"),
            (b"PAR1".to_vec(), "no NumPy file"),
        ] {
            let error = npy(&file).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
    }
}
