//! Pictures to train on: files and folders, WebDataset shards, lists, curated runs.
//!
//! Everything is listed first, so that the order and the number of pictures are known, and read
//! when it is wanted. Shards are not unpacked: their headers are walked once, and a picture is read
//! from its place in the file.

mod shard;
mod lists;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::RgbImage;
use engine::decode::{DecodeOptions, decode};
use engine::train::distill::Pictures;

use self::shard::{Entry, is_compressed_shard, is_shard};
use crate::error::{IndexerError, Result};
use crate::{pipeline, source};

/// A curated run or export names its pictures here, one JSON object a line.
const MANIFEST: &str = "manifest.jsonl";

/// Where one picture is.
#[derive(Clone, Debug)]
enum Place {
    /// A file of its own.
    File,
    /// A part of a shard.
    Entry { shard: PathBuf, entry: Entry },
}

/// The pictures of some sources, sorted by name, each once.
///
/// A source is a picture file; a WebDataset shard (`.tar`); a list (`.txt`, one path a line); the
/// manifest of a curated run (`.jsonl`, one object a line with `file`, below the manifest's folder,
/// or `path`); or a folder: if it holds a `manifest.jsonl`, what that names, else every picture and
/// shard below it.
#[derive(Debug)]
pub struct TrainingPictures {
    /// File, or shard and key: `shard.tar/key.jpg`.
    pictures: Vec<(PathBuf, Place)>,
    /// Files and entries that are not named like pictures.
    others: usize,
    /// Folders and links that could not be listed, with the reason.
    unreadable: Vec<(PathBuf, String)>,
    options: DecodeOptions,
}

impl TrainingPictures {
    /// Lists sources. Files and entries that are not named like pictures are left out.
    ///
    /// # Errors
    /// A source does not exist, a shard is damaged, or a list or manifest cannot be read or names
    /// a picture that is not there.
    pub fn list(sources: &[PathBuf], options: DecodeOptions) -> Result<Self> {
        let mut lister = Lister::default();
        for source in sources {
            let manifest = source.join(MANIFEST);
            if source.is_dir() && manifest.is_file() {
                lister.add_list(&manifest)?;
            } else if source.is_dir() {
                let listing = source::list(std::slice::from_ref(source))?;
                lister.unreadable.extend(listing.unreadable);
                for file in listing.files {
                    lister.add_file(file.path)?;
                }
            } else {
                // Refuses what does not exist, and makes the path absolute.
                for file in source::list(std::slice::from_ref(source))?.files {
                    match lists::is_list(&file.path) {
                        true => lister.add_list(&file.path)?,
                        false => lister.add_file(file.path)?,
                    }
                }
            }
        }
        let Lister { mut pictures, others, unreadable, .. } = lister;
        pictures.sort_by(|a, b| a.0.cmp(&b.0));
        pictures.dedup_by(|a, b| a.0 == b.0);
        Ok(Self { pictures, others, unreadable, options })
    }

    /// Files and entries left out because they are not named like pictures.
    pub fn others(&self) -> usize {
        self.others
    }

    /// Folders and links that could not be listed, with the reason.
    pub fn unreadable(&self) -> &[(PathBuf, String)] {
        &self.unreadable
    }

    /// The encoded bytes of a picture.
    fn read(&self, index: usize) -> Result<Vec<u8>, String> {
        let (path, place) = &self.pictures[index];
        let max_bytes = self.options.limits.max_bytes;
        match place {
            Place::File => pipeline::read_limited(path, max_bytes),
            Place::Entry { shard, entry } => shard::read(shard, *entry, max_bytes),
        }
    }
}

impl Pictures for TrainingPictures {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn name(&self, index: usize) -> String {
        self.pictures[index].0.display().to_string()
    }

    fn load(&self, index: usize) -> Result<RgbImage, String> {
        let bytes = self.read(index)?;
        Ok(decode(&bytes, &self.options).map_err(|error| error.to_string())?.image)
    }
}

/// What has been found so far.
#[derive(Default)]
struct Lister {
    pictures: Vec<(PathBuf, Place)>,
    others: usize,
    unreadable: Vec<(PathBuf, String)>,
    /// Shards that lists point into, by path, with their entries by key.
    shards: BTreeMap<PathBuf, BTreeMap<PathBuf, Entry>>,
}

impl Lister {
    /// A file found in a folder or named by the caller: a picture, a shard, or neither.
    fn add_file(&mut self, path: PathBuf) -> Result<()> {
        if is_compressed_shard(&path) {
            return Err(IndexerError::Source {
                path,
                reason: "a compressed shard cannot be read in any order; decompress it to .tar"
                    .to_owned(),
            });
        }
        if is_shard(&path) {
            let entries = shard::index(&path)?;
            for (key, entry) in entries {
                match source::has_picture_extension(&key) {
                    true => self.add_entry(&path, &key, entry),
                    false => self.others += 1,
                }
            }
        } else if source::has_picture_extension(&path) {
            self.pictures.push((path, Place::File));
        } else {
            self.others += 1;
        }
        Ok(())
    }

    fn add_entry(&mut self, shard: &Path, key: &Path, entry: Entry) {
        let place = Place::Entry { shard: shard.to_path_buf(), entry };
        self.pictures.push((shard.join(key), place));
    }

    /// Every picture that a list or manifest names.
    fn add_list(&mut self, list: &Path) -> Result<()> {
        let list = list.canonicalize().map_err(|error| IndexerError::Source {
            path: list.to_path_buf(),
            reason: error.to_string(),
        })?;
        for line in lists::read(&list)? {
            let mut found = false;
            for candidate in &line.candidates {
                found = found || self.add_named(candidate)?;
            }
            if !found {
                let named: Vec<String> =
                    line.candidates.iter().map(|path| path.display().to_string()).collect();
                return Err(IndexerError::Source {
                    path: list,
                    reason: format!(
                        "line {} names {}, which is not there",
                        line.number,
                        named.join(" or ")
                    ),
                });
            }
        }
        Ok(())
    }

    /// Adds a file, or an entry of a shard given as `shard.tar/key`; false if there is none.
    fn add_named(&mut self, path: &Path) -> Result<bool> {
        if path.is_file() {
            self.add_file(path.to_path_buf())?;
            return Ok(true);
        }
        let Some(shard) = path.ancestors().find(|above| is_shard(above) && above.is_file()) else {
            return Ok(false);
        };
        if !self.shards.contains_key(shard) {
            let entries = shard::index(shard)?.into_iter().collect();
            self.shards.insert(shard.to_path_buf(), entries);
        }
        let key = path.strip_prefix(shard).unwrap_or(path).to_path_buf();
        let entry = self.shards.get(shard).and_then(|entries| entries.get(&key)).copied();
        if let Some(entry) = entry {
            self.add_entry(shard, &key, entry);
        }
        Ok(entry.is_some())
    }
}

#[cfg(test)]
mod tests;
