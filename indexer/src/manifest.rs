//! The one small file that says what a collection is.

use std::path::Path;

use engine::ModelIdentity;
use serde::{Deserialize, Serialize};

use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::vectors::Precision;

/// Newest collection format this release reads and the one it writes.
pub const FORMAT_VERSION: u32 = 2;

/// Default of [`Manifest::ann_from`]: exact search of 100,000 rows of 384 values takes about 10 ms
/// on one core, less than decoding the query picture.
pub const ANN_FROM: u64 = 100_000;

/// What a data folder is called.
pub(crate) fn data_name(number: u64) -> String {
    format!("data-{number:06}")
}

/// All that is read of a manifest before it is known to be of a format understood here.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// `manifest.json` of a collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of the files around it.
    pub format_version: u32,
    /// What decides the vectors.
    pub model: ModelIdentity,
    /// [`ModelIdentity::fingerprint`] of `model`.
    pub fingerprint: String,
    /// Weights file or model name last used, so that a search need not name it again.
    pub model_source: Option<String>,
    /// How vectors are compared; always `cosine`.
    pub metric: String,
    /// How exactly vectors are kept. Absent from format 1, which had f16.
    #[serde(default)]
    pub precision: Precision,
    /// Folder of the data that counts, beside this file. Replacing this file swaps all data at once.
    /// Absent from format 1, whose data lay beside the manifest.
    #[serde(default)]
    pub data: String,
    /// From this many images on, search goes through HNSW; below, it is exact.
    pub ann_from: u64,
    /// Rows ever committed; such a row is never given to another image.
    pub rows: u64,
    /// Images as of the last commit.
    pub images: u64,
    /// Files skipped with a reason, as of the last commit.
    pub failed: u64,
    /// Quantiles 0, 1/1000, … 1 of the similarity of random pairs of its images; empty when there
    /// are too few. Turns a cosine into a percentile.
    pub background: Vec<f32>,
}

impl Manifest {
    /// A new collection's manifest.
    pub(crate) fn new(model: &ModelIdentity, model_source: Option<String>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            fingerprint: model.fingerprint(),
            model: model.clone(),
            model_source,
            metric: "cosine".to_owned(),
            precision: Precision::default(),
            data: data_name(1),
            ann_from: ANN_FROM,
            rows: 0,
            images: 0,
            failed: 0,
            background: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path, name: &str) -> Result<Self> {
        let bytes = std::fs::read(path).io("read", path)?;
        let damaged = |reason: &dyn std::fmt::Display| IndexerError::Damaged {
            path: path.to_path_buf(),
            reason: format!("{reason}; {}", crate::error::RESTORE),
        };
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
        let found = version.format_version;
        if found > FORMAT_VERSION {
            let supported = FORMAT_VERSION;
            return Err(IndexerError::NewerFormat { name: name.to_owned(), found, supported });
        }
        // Format 1 had no checksum.
        if found > 1 && !is_sealed(&bytes) {
            return Err(damaged(&"its checksum does not match what it says"));
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
        // A data folder that is a path could be anything on this disk.
        let plain = manifest.data.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain { Ok(manifest) } else { Err(damaged(&"its data folder is no plain name")) }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(std::io::Error::other).io("write", path)?;
        let (front, rest) = text.split_at(text.find('\n').map_or(0, |end| end + 1));
        let crc = crc_line(front.as_bytes(), rest.as_bytes());
        replace_file(path, |file| {
            [front, &crc, rest].iter().try_for_each(|part| file.write_all(part.as_bytes()))
        })
    }

    /// Share of random image pairs less similar than this, in percent; `None` without background.
    pub fn percentile(&self, similarity: f32) -> Option<f32> {
        let steps = self.background.len().checked_sub(1).filter(|&steps| steps > 0)?;
        let below = self.background.partition_point(|&quantile| quantile < similarity);
        Some(100.0 * below.min(steps) as f32 / steps as f32)
    }
}

/// The second line of the file: CRC-32 of all others, in hexadecimal.
fn crc_line(front: &[u8], rest: &[u8]) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(front);
    crc.update(rest);
    format!("  \"crc32\": \"{:08x}\",\n", crc.finalize())
}

fn is_sealed(bytes: &[u8]) -> bool {
    let mut lines = bytes.splitn(3, |&byte| byte == b'\n');
    let (Some(front), Some(line), Some(rest)) = (lines.next(), lines.next(), lines.next()) else {
        return false;
    };
    let expected = crc_line(&[front, b"\n"].concat(), rest);
    line == expected.trim_end().as_bytes()
}
