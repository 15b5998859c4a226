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

/// Data folder of a new collection.
const FIRST_DATA: &str = "data-000001";

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
            data: FIRST_DATA.to_owned(),
            ann_from: ANN_FROM,
            rows: 0,
            images: 0,
            failed: 0,
            background: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let bytes = std::fs::read(path).io("read", path)?;
        let damaged = |error: serde_json::Error| IndexerError::Damaged {
            path: path.to_path_buf(),
            reason: format!("{error}; {}", crate::error::RESTORE),
        };
        let Version { format_version: found } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if found > FORMAT_VERSION {
            let supported = FORMAT_VERSION;
            return Err(IndexerError::NewerFormat { name: name.to_owned(), found, supported });
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        // A data folder that is a path could be anything on this disk.
        let plain = manifest.data.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain { Ok(manifest) } else { Err(damaged(serde::de::Error::custom("bad data folder"))) }
    }

    /// Name of the data folder that follows the present one.
    pub(crate) fn next_data(&self) -> String {
        let number = self.data.strip_prefix("data-").and_then(|number| number.parse::<u64>().ok());
        format!("data-{:06}", number.unwrap_or(0) + 1)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        replace_file(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }

    /// Share of random image pairs less similar than this, in percent; `None` without background.
    pub fn percentile(&self, similarity: f32) -> Option<f32> {
        let steps = self.background.len().checked_sub(1).filter(|&steps| steps > 0)?;
        let below = self.background.partition_point(|&quantile| quantile < similarity);
        Some(100.0 * below.min(steps) as f32 / steps as f32)
    }
}
