//! Pictures read again from their files, and what is remembered of their pixels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::RgbImage;
use engine::decode::{DecodeOptions, decode};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::graph::OnDone;
use super::keep::Candidate;
use crate::durable::replace_file;
use crate::error::{IndexerError, IoContext, Result};
use crate::id::ContentHash;
use crate::pipeline::Skipped;

/// Name of the file in a collection's folder.
pub const FILE: &str = "pixel-hashes.jsonl";

/// The picture of an image, if its file is still the one that was indexed.
///
/// # Errors
/// What keeps it from being read, for the user.
pub fn original(image: &Candidate, options: &DecodeOptions) -> Result<RgbImage, Skipped> {
    let path = image.path.to_path();
    let skipped = |reason: String| Skipped { path: path.clone(), reason, not_a_picture: false };
    let bytes = image.path.read(options.limits.max_bytes).map_err(skipped)?;
    if ContentHash::of(&bytes) != image.sha256 {
        return Err(skipped(
            "it has changed since it was indexed; run `akin index` again".to_owned(),
        ));
    }
    Ok(decode(&bytes, options).map_err(|error| skipped(error.to_string()))?.image)
}

/// Hashes of decoded pixels, by file content. Derived: losing the file costs only time.
#[derive(Clone, Debug)]
pub struct PixelHashes {
    path: PathBuf,
    known: BTreeMap<ContentHash, ContentHash>,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    sha256: ContentHash,
    pixels: ContentHash,
}

impl PixelHashes {
    /// Reads those of a collection's folder; lines that are damaged are left out.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.io("read", &path)?,
        };
        let lines = text.split(|&byte| byte == b'\n');
        let lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        let known = lines.map(|line| (line.sha256, line.pixels)).collect();
        Ok(Self { path, known, changed: false })
    }

    /// Hash of the pixels of a file content, if known.
    pub fn of(&self, content: &ContentHash) -> Option<&ContentHash> {
        self.known.get(content)
    }

    /// Decodes what is not known yet, each content once; gives the originals that cannot be read.
    ///
    /// # Errors
    /// [`IndexerError::Cancelled`]; what was decoded until then is kept.
    pub fn add(
        &mut self,
        images: &[Candidate],
        on_done: OnDone<'_>,
        cancel: &AtomicBool,
    ) -> Result<Vec<Skipped>> {
        let mut new: Vec<&Candidate> =
            images.iter().filter(|image| !self.known.contains_key(&image.sha256)).collect();
        new.sort_by(|a, b| a.sha256.cmp(&b.sha256).then(a.id.cmp(&b.id)));
        new.dedup_by(|a, b| a.sha256 == b.sha256);
        let options = DecodeOptions::default();
        let hash = |image: &&Candidate| {
            if cancel.load(Ordering::Relaxed) {
                return None;
            }
            let hash = original(image, &options).map(|picture| hash_of(&picture));
            on_done(1);
            Some((image.sha256.clone(), hash))
        };
        let hashed: Vec<_> = new.par_iter().map(hash).collect();
        let mut skipped = Vec::new();
        for (content, hash) in hashed.into_iter().flatten() {
            match hash {
                Ok(pixels) => {
                    self.known.insert(content, pixels);
                    self.changed = true;
                }
                Err(one) => skipped.push(one),
            }
        }
        if cancel.load(Ordering::Relaxed) {
            return Err(IndexerError::Cancelled);
        }
        Ok(skipped)
    }

    /// Replaces the file, if there is anything new.
    ///
    /// # Errors
    /// It cannot be written; the old one is intact.
    pub fn save(&mut self) -> Result<()> {
        if self.changed {
            let known = &self.known;
            replace_file(&self.path, |file| {
                known.iter().try_for_each(|(sha256, pixels)| {
                    let line = Line { sha256: sha256.clone(), pixels: pixels.clone() };
                    serde_json::to_writer(&mut *file, &line)?;
                    file.write_all(b"\n")
                })
            })?;
            self.changed = false;
        }
        Ok(())
    }
}

/// Hash of size and pixels.
fn hash_of(picture: &RgbImage) -> ContentHash {
    let mut bytes = Vec::with_capacity(picture.as_raw().len() + 8);
    bytes.extend(picture.width().to_le_bytes());
    bytes.extend(picture.height().to_le_bytes());
    bytes.extend_from_slice(picture.as_raw());
    ContentHash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ImageId;
    use crate::locator::Locator;

    #[test]
    fn pixels_are_hashed_once_and_files_that_are_gone_are_named() -> Result<()> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let picture = RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 3]));
        let candidate = |name: &str, id: u64| {
            let path = folder.path().join(name);
            let bytes = std::fs::read(&path).unwrap_or_default();
            Candidate {
                row: id as u32,
                id: ImageId(id),
                path: Locator::from(path.as_path()),
                sha256: ContentHash::of(&bytes),
                width: 9,
                height: 7,
                bytes: bytes.len() as u64,
                mtime_ns: 0,
            }
        };
        for name in ["a.png", "b.bmp"] {
            picture.save(folder.path().join(name)).expect("save");
        }
        let images = [candidate("a.png", 0), candidate("b.bmp", 1), candidate("gone.png", 2)];
        let cancel = AtomicBool::new(false);
        let mut hashes = PixelHashes::open(folder.path())?;
        let skipped = hashes.add(&images, &|_| {}, &cancel)?;
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].path.ends_with("gone.png"), "{:?}", skipped[0]);
        hashes.save()?;
        let mut back = PixelHashes::open(folder.path())?;
        assert!(back.of(&images[0].sha256).is_some());
        assert_eq!(back.of(&images[0].sha256), back.of(&images[1].sha256));
        assert_eq!(back.of(&images[2].sha256), None);
        // Nothing is decoded again: the files are gone, and nobody notices.
        std::fs::remove_file(folder.path().join("a.png")).expect("remove");
        assert!(back.add(&images[..2], &|_| {}, &cancel)?.is_empty());
        Ok(())
    }
}
