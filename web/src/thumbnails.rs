//! Small pictures of images, made when they are first asked for and kept on disk by the hash of their
//! content, so that they never go stale. What was not used for longest goes first when there are too
//! many.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use engine::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize, thumbnail};
use indexer::ContentHash;

/// Longest sides that thumbnails have, in pixels.
const SIZES: [u32; 3] = [160, 320, 640];
/// 0 to 100; above, files grow and nobody sees why.
const QUALITY: u8 = 82;
/// Share of the limit that is left after room was made.
const KEEP: f64 = 0.8;

/// Thumbnails of a home.
#[derive(Debug)]
pub struct Thumbnails {
    folder: PathBuf,
    max_bytes: u64,
    /// Bytes on disk, once somebody counted.
    bytes: AtomicU64,
}

/// Nobody has counted yet.
const UNKNOWN: u64 = u64::MAX;

impl Thumbnails {
    /// Those in a home, of at most `max_bytes` together, give or take those being written.
    pub fn new(home: &Path, max_bytes: u64) -> Self {
        Self { folder: home.join("thumbnails"), max_bytes, bytes: AtomicU64::new(UNKNOWN) }
    }

    fn path(&self, content: &ContentHash, size: u32) -> PathBuf {
        let hash = content.as_str();
        let start = hash.get(..2).unwrap_or("00");
        self.folder.join(size.to_string()).join(start).join(format!("{hash}.jpg"))
    }

    /// One that was made before: a JPEG file.
    pub fn find(&self, content: &ContentHash, size: u32) -> Option<Vec<u8>> {
        let path = self.path(content, size);
        let bytes = std::fs::read(&path).ok()?;
        // When it was last used; a file system that does not want this loses only the order.
        let file = std::fs::File::options().append(true).open(&path);
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        // A crash may have left part of a file.
        bytes.ends_with(&[0xff, 0xd9]).then_some(bytes)
    }

    /// Keeps one. That the disk refuses only means that it will be made again.
    pub fn keep(&self, content: &ContentHash, size: u32, bytes: &[u8]) {
        if let Err(error) = self.write(&self.path(content, size), bytes) {
            tracing::warn!(%error, folder = %self.folder.display(), "a thumbnail is not kept");
            return;
        }
        let known = self.bytes.load(Ordering::Relaxed);
        let now = match known {
            UNKNOWN => self.make_room(self.max_bytes),
            _ => self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64,
        };
        if known == UNKNOWN {
            self.bytes.store(now, Ordering::Relaxed);
        } else if now > self.max_bytes {
            let left = self.make_room((self.max_bytes as f64 * KEEP) as u64);
            self.bytes.store(left, Ordering::Relaxed);
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        // Whole or not at all, whoever else makes the same one.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Removes what was not used for longest until at most `limit` bytes are left; says how many are.
    fn make_room(&self, limit: u64) -> u64 {
        let mut files = Vec::new();
        let sizes = SIZES.map(|size| self.folder.join(size.to_string()));
        let folders = sizes.iter().flat_map(|size| std::fs::read_dir(size).into_iter().flatten());
        for folder in folders.flatten() {
            for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if let Ok(metadata) = file.metadata()
                    && metadata.is_file()
                {
                    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    files.push((used, metadata.len(), file.path()));
                }
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|file| file.1).sum();
        for (_, length, path) in files {
            if bytes <= limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                bytes -= length;
            }
        }
        bytes
    }
}

/// A JPEG file of a picture with its longer side brought down to `size`; smaller ones keep theirs.
///
/// # Errors
/// The picture has a side that a JPEG cannot have.
pub fn make(picture: &RgbImage, size: u32) -> image::ImageResult<Vec<u8>> {
    let (width, height) = picture.dimensions();
    let longer = width.max(height).max(1);
    let small = match longer <= size {
        true => None,
        false => {
            let scale = |side: u32| {
                let scaled =
                    (u64::from(side) * u64::from(size) + u64::from(longer) / 2) / u64::from(longer);
                u32::try_from(scaled).unwrap_or(size).max(1)
            };
            let (to_width, to_height) = (scale(width), scale(height));
            // Box sums first where much is to be left out: ten times faster, and no less sharp.
            let near = match longer > 4 * size {
                true => Some(thumbnail(picture, 2 * to_width, 2 * to_height)),
                false => None,
            };
            let from = near.as_ref().unwrap_or(picture);
            Some(resize(from, to_width, to_height, FilterType::CatmullRom))
        }
    };
    let mut bytes = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    small.as_ref().unwrap_or(picture).write_with_encoder(encoder)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_brought_down_and_nothing_is_blown_up() {
        for ((width, height), expected) in [
            ((1000, 500), (160, 80)),
            ((500, 1000), (80, 160)),
            ((5000, 10), (160, 1)),
            ((100, 50), (100, 50)),
            ((161, 160), (160, 159)),
        ] {
            let picture = RgbImage::from_pixel(width, height, image::Rgb([200, 100, 50]));
            let file = make(&picture, 160).expect("encodes");
            let small = image::load_from_memory(&file).expect("decodes").into_rgb8();
            assert_eq!(small.dimensions(), expected, "{width} x {height}");
            let middle = small.get_pixel(expected.0 / 2, expected.1 / 2).0;
            assert!(
                middle.iter().zip([200u8, 100, 50]).all(|(a, b)| a.abs_diff(b) < 6),
                "{middle:?}"
            );
        }
    }

    #[test]
    fn what_was_used_last_is_kept() {
        let home = tempfile::tempdir().expect("temporary folder");
        let thumbnails = Thumbnails::new(home.path(), 1000);
        let hash = |number: u8| ContentHash::of(&[number]);
        let file: Vec<u8> = [&[0; 298][..], &[0xff, 0xd9]].concat();
        for number in 0..3 {
            thumbnails.keep(&hash(number), 160, &file);
            // Order by time needs times that differ.
            let used =
                SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 + u64::from(number));
            let opened =
                std::fs::File::options().append(true).open(thumbnails.path(&hash(number), 160));
            opened.and_then(|opened| opened.set_modified(used)).expect("set");
        }
        assert_eq!(thumbnails.find(&hash(0), 160).as_deref(), Some(&file[..]));
        assert_eq!(thumbnails.find(&hash(0), 320), None);
        thumbnails.keep(&hash(3), 160, &file);
        let left: Vec<bool> = (0..4).map(|n| thumbnails.find(&hash(n), 160).is_some()).collect();
        assert_eq!(left, [true, false, false, true]);
        // Part of a file is none.
        std::fs::write(thumbnails.path(&hash(3), 160), &file[..200]).expect("write");
        assert_eq!(thumbnails.find(&hash(3), 160), None);
    }
}
