//! Embeddings that were computed elsewhere: what `akin embed` wrote, any Parquet file with a list
//! column, any NumPy array.

mod npy;
mod parquet;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::ModelIdentity;
use serde_json::Value;

use self::npy::NpyFile;
use self::parquet::ParquetFile;
use super::{
    Block, Content, Entry, Loaded, Loads, Source, VectorRow, short_hash, sort_entries, stamp,
};
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ContentHash;
use crate::locator::Locator;
use crate::record::{FileStamp, Payload};

/// Rows listed together.
const BLOCK_ROWS: usize = 10_000;
/// Vectors handed on together.
const LOAD_ROWS: usize = 256;
/// Columns that name a row, the first one present.
const NAME_COLUMNS: &[&str] = &["path", "file_name", "file", "url", "id"];

/// How a table of embeddings is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingOptions {
    /// Column with the vectors [default: `embedding`].
    pub column: Option<String>,
    /// What the model that made them is called [default: the name of the file].
    pub model_name: Option<String>,
}

/// A table of embeddings.
///
/// Rows are named by their column `path`, `file_name`, `file`, `url` or `id`, else by their number:
/// `row-000000001`. Other plain columns become payload, except `sha256`, `width` and `height`,
/// which are what they say. Vectors of any length are scaled to 1; those that cannot be are listed.
pub struct EmbeddingSource {
    path: PathBuf,
    table: Table,
    identity: ModelIdentity,
    is_ours: bool,
    stamp: FileStamp,
    /// Rows listed so far.
    rows: u64,
    /// What the rows of the latest block say about their pictures, by place.
    about: BTreeMap<u64, About>,
    seen: HashSet<u128>,
    done: bool,
}

/// What a row says about its picture.
#[derive(Debug, Default)]
struct About {
    sha256: Option<ContentHash>,
    width: u32,
    height: u32,
}

enum Table {
    Npy(NpyFile),
    Parquet(ParquetFile),
}

/// What a table says about the model that made it.
#[derive(Debug, Default)]
struct Made {
    /// Everything, as JSON.
    identity: Option<ModelIdentity>,
    /// Only enough to compare.
    fingerprint: Option<String>,
}

impl EmbeddingSource {
    /// Opens a table; the format is told by the extension, `.parquet` or `.npy`.
    ///
    /// # Errors
    /// The file cannot be read, has no vectors, or comes from a release that did not say enough
    /// about its model.
    pub fn open(path: &Path, options: &EmbeddingOptions) -> Result<Self> {
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => super::no_such(path),
            _ => bad(error.to_string()),
        })?;
        let (table, dim, made) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => {
                let column = options.column.as_deref().unwrap_or("embedding");
                let (file, dim, made) = ParquetFile::open(path, column)?;
                (Table::Parquet(file), dim, made)
            }
            Some("npy") => {
                let (file, dim, made) = NpyFile::open(path)?;
                (Table::Npy(file), dim, made)
            }
            _ => return Err(bad("embeddings must end in .parquet or .npy".to_owned())),
        };
        let is_ours = made.fingerprint.is_some();
        let identity = match (made.identity, &made.fingerprint) {
            (Some(identity), Some(fingerprint)) if identity.fingerprint() != *fingerprint => {
                return Err(bad("what it says about its model contradicts itself".to_owned()));
            }
            (Some(identity), _) => identity,
            (None, Some(_)) => {
                return Err(bad(
                    "an early release wrote it, which did not record all of its model; run `akin \
                     embed` again"
                        .to_owned(),
                ));
            }
            (None, None) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                ModelIdentity::foreign(options.model_name.as_deref().unwrap_or(&stem), dim)
            }
        };
        if identity.dim != dim {
            return Err(IndexerError::Dimension { got: dim, expected: identity.dim });
        }
        let stamp = FileStamp { size: 0, mtime_ns: stamp(&metadata).mtime_ns };
        let path = path.canonicalize().io("read", path)?;
        Ok(Self {
            path,
            table,
            identity,
            is_ours,
            stamp,
            rows: 0,
            about: BTreeMap::new(),
            seen: HashSet::new(),
            done: false,
        })
    }

    /// What made the vectors: the model that `akin embed` used, or a foreign one.
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Takes vectors of an unnamed foreign model for those of a collection's foreign model, if they
    /// have the same length: a table in several files has several names.
    pub fn adopt(&mut self, collection: &ModelIdentity, options: &EmbeddingOptions) {
        let unnamed = !self.is_ours && options.model_name.is_none();
        if unnamed && collection.is_foreign() && collection.dim == self.identity.dim {
            self.identity = collection.clone();
        }
    }

    fn entry(&mut self, number: u64, mut row: Payload) -> Entry {
        let name = NAME_COLUMNS.iter().find_map(|column| match row.remove(*column) {
            Some(Value::String(name)) if !name.is_empty() => Some(name),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        });
        let name = name.unwrap_or_else(|| format!("row-{number:09}"));
        for about_the_table in ["fingerprint", "identity"] {
            row.remove(about_the_table);
        }
        let place = number - 1;
        self.about.insert(place, About::of(&mut row));
        Entry { locator: Locator::Text(name), stamp: self.stamp, payload: row, place }
    }
}

impl Source for EmbeddingSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn next_block(&mut self, cancel: &AtomicBool) -> Result<Option<Block>> {
        if self.done {
            return Ok(None);
        }
        let mut block = Block::default();
        self.about.clear();
        for _ in 0..BLOCK_ROWS {
            let row = match &mut self.table {
                Table::Npy(file) => file.next_row(),
                Table::Parquet(file) => file.next_row(),
            };
            let Some(row) = row.filter(|_| !cancel.load(Ordering::Relaxed)) else {
                self.done = true;
                break;
            };
            self.rows += 1;
            match row {
                Ok(row) => {
                    let entry = self.entry(self.rows, row);
                    if self.seen.insert(short_hash(entry.locator.as_bytes())) {
                        block.entries.push(entry);
                    }
                }
                Err(reason) => {
                    let name = format!("{}: row {}", self.path.display(), self.rows);
                    block.unreadable.push((PathBuf::from(name), reason));
                }
            }
        }
        sort_entries(&mut block.entries);
        Ok(Some(block))
    }

    fn load<'a>(
        &'a mut self,
        mut wanted: Vec<Entry>,
        _max_bytes: u64,
        cancel: &'a AtomicBool,
    ) -> Loads<'a> {
        wanted.sort_by_key(|entry| entry.place);
        let places: Vec<u64> = wanted.iter().map(|entry| entry.place).collect();
        let vectors: Box<dyn Iterator<Item = Result<Vec<f32>, String>> + Send + '_> =
            match &self.table {
                Table::Npy(file) => Box::new(file.vectors(places)),
                Table::Parquet(file) => Box::new(file.vectors(places)),
            };
        let about = &self.about;
        let mut rows = wanted.into_iter().zip(vectors).map(move |(entry, vector)| {
            let content = match vector {
                Ok(vector) => Content::Vector(row(about.get(&entry.place), vector)),
                Err(reason) => Content::Failed(reason),
            };
            Loaded { entry, content }
        });
        Box::new(std::iter::from_fn(move || {
            let stop = cancel.load(Ordering::Relaxed);
            let block: Vec<Loaded> = rows.by_ref().take(if stop { 0 } else { LOAD_ROWS }).collect();
            (!block.is_empty()).then_some(block)
        }))
    }
}

impl About {
    /// Takes it out of the row's payload. What is not as it should be stays there.
    fn of(row: &mut Payload) -> Self {
        let sha256 = match row.get("sha256") {
            Some(Value::String(text)) => ContentHash::parse(text),
            _ => None,
        };
        if sha256.is_some() {
            row.remove("sha256");
        }
        let mut side = |name: &str| -> u32 {
            let pixels = row.get(name).and_then(Value::as_u64);
            let pixels = pixels.and_then(|pixels| u32::try_from(pixels).ok());
            if pixels.is_some() {
                row.remove(name);
            }
            pixels.unwrap_or(0)
        };
        let (width, height) = (side("width"), side("height"));
        Self { sha256, width, height }
    }
}

fn row(about: Option<&About>, vector: Vec<f32>) -> VectorRow {
    let sha256 = about.and_then(|about| about.sha256.clone()).unwrap_or_else(|| {
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        ContentHash::of(&bytes)
    });
    let (width, height) = about.map_or((0, 0), |about| (about.width, about.height));
    VectorRow { sha256, width, height, vector }
}
