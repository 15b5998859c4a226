//! A gallery of Akin's own: pictures drawn by this code, with near-copies and leaks planted in
//! known places, so that everything Akin does can be tried, and its answers judged, on a machine
//! that has no pictures to offer.
//!
//! ```text
//! akin-gallery.json        what drew it: version, seed, number of pictures
//! pool/<family>/<n>.jpg    pictures by family (.png where that suits them)
//! pool/<family>/<n>-<edit>.jpg    near-copies of some of them
//! test/<family>/<n>.jpg    held-out pictures of the same families
//! test/<family>/<n>-<edit>.jpg    leaks: copies of pool pictures
//! truth.csv                original, copy, edit, split: which is a copy of which
//! ```
//!
//! The same seed draws the same pictures, whatever the number of threads.

mod lot;
mod colour;
mod noise;
mod canvas;
mod scenes;
mod edits;
mod plan;
mod judge;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageResult, RgbImage};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::judge::{Called, Embedded, Judgement};
use self::lot::Lot;
use self::plan::{Piece, plan};
use crate::durable::{replace_file, temporary_beside};
use crate::error::{IndexerError, IoContext, Result};

/// Changes whenever the same seed would draw other pictures.
pub const VERSION: u32 = 1;
/// JPEG quality of everything that is not compressed on purpose.
const QUALITY: u8 = 92;
const STAMP: &str = "akin-gallery.json";
const TRUTH: &str = "truth.csv";
/// With fewer there would be no leak.
const FEWEST: usize = 48;
const MOST: usize = 100_000;

/// What decides every pixel of a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GallerySpec {
    /// Any number.
    pub seed: u64,
    /// Pictures in the pool, near-copies not counted: 48 to 100,000.
    pub pictures: usize,
}

impl Default for GallerySpec {
    fn default() -> Self {
        Self { seed: 0, pictures: 288 }
    }
}

/// The two sets of a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What one collects from.
    Pool,
    /// What one measures on, and must not train on.
    Test,
}

impl Part {
    /// Name of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Test => "test",
        }
    }
}

/// A copy whose original is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    /// A picture of the pool; absolute path.
    pub original: PathBuf,
    /// The copy; absolute path.
    pub copy: PathBuf,
    /// Where the copy is: in the test set it is a leak.
    pub part: Part,
    /// What was done to it, in one word.
    pub edit: &'static str,
}

/// A gallery on disk.
#[derive(Clone, Debug)]
pub struct Gallery {
    /// Absolute path.
    pub folder: PathBuf,
    /// Kinds of pictures.
    pub families: usize,
    /// Files in the pool.
    pub pool: usize,
    /// Files in the test set.
    pub test: usize,
    /// Every copy planted, in either part.
    pub planted: Vec<Planted>,
    /// Files drawn by this call; the others were there.
    pub drawn: usize,
    /// Whether every file is there; not so after a cancellation.
    pub complete: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    format: String,
    version: u32,
    #[serde(flatten)]
    spec: GallerySpec,
}

impl Gallery {
    /// Draws a gallery into a new or empty folder, or what one interrupted earlier lacks; calls
    /// `on_event` once with the number of files to draw, then after each with `None`. Stops early,
    /// without error, once `cancel` is set.
    ///
    /// # Errors
    /// The folder holds anything else, or a gallery of another seed, size or version: nothing is
    /// overwritten. Or a file cannot be written.
    pub fn draw(
        folder: &Path,
        spec: GallerySpec,
        on_event: &(dyn Fn(Option<usize>) + Sync),
        cancel: &AtomicBool,
    ) -> Result<Self> {
        if !(FEWEST..=MOST).contains(&spec.pictures) {
            let got = spec.pictures;
            return Err(IndexerError::InvalidRequest(format!(
                "a gallery has {FEWEST} to {MOST} pictures, not {got}"
            )));
        }
        claim(folder, spec)?;
        let folder = folder.canonicalize().io("open", folder)?;
        let pieces = plan(spec);
        let missing: Vec<&Piece> =
            pieces.iter().filter(|piece| !folder.join(&piece.path).exists()).collect();
        for piece in &missing {
            if let Some(parent) = folder.join(&piece.path).parent() {
                std::fs::create_dir_all(parent).io("create", parent)?;
            }
        }
        on_event(Some(missing.len()));
        let drawn = AtomicUsize::new(0);
        missing.par_iter().try_for_each(|piece| {
            if cancel.load(Ordering::Relaxed) {
                return Ok(());
            }
            write(&folder.join(&piece.path), piece, spec.seed)?;
            drawn.fetch_add(1, Ordering::Relaxed);
            on_event(None);
            Result::<()>::Ok(())
        })?;
        let drawn = drawn.into_inner();
        let complete = drawn == missing.len();
        if complete {
            write_truth(&folder.join(TRUTH), &pieces)?;
        }
        let count = |part| pieces.iter().filter(|piece| piece.part == part).count();
        let planted = |piece: &Piece| {
            let (edit, original) = piece.copied.as_ref()?;
            Some(Planted {
                original: folder.join(original),
                copy: folder.join(&piece.path),
                part: piece.part,
                edit: edit.name(),
            })
        };
        Ok(Self {
            families: scenes::FAMILIES.len(),
            pool: count(Part::Pool),
            test: count(Part::Test),
            planted: pieces.iter().filter_map(planted).collect(),
            drawn,
            complete,
            folder,
        })
    }

    /// Folder of a part; absolute path.
    pub fn part(&self, part: Part) -> PathBuf {
        self.folder.join(part.folder())
    }

    /// The list of copies, in the form that `akin eval copies` reads; absolute path.
    pub fn truth(&self) -> PathBuf {
        self.folder.join(TRUTH)
    }

    /// Copies planted in a part.
    pub fn planted_in(&self, part: Part) -> impl Iterator<Item = &Planted> {
        self.planted.iter().filter(move |planted| planted.part == part)
    }
}

/// Makes sure that the folder is ours to write into.
fn claim(folder: &Path, spec: GallerySpec) -> Result<()> {
    let bad = |reason: String| IndexerError::Source { path: folder.to_path_buf(), reason };
    if folder.exists() && !folder.is_dir() {
        return Err(bad("this is a file; a gallery needs a new or empty folder".to_owned()));
    }
    let ours = Stamp { format: "akin gallery".to_owned(), version: VERSION, spec };
    let stamp = folder.join(STAMP);
    if stamp.exists() {
        let text = std::fs::read(&stamp).io("read", &stamp)?;
        let found: Stamp = serde_json::from_slice(&text).map_err(|error| {
            bad(format!("its {STAMP} is not one of a gallery ({error}); use another folder"))
        })?;
        if found == ours {
            return Ok(());
        }
        let Stamp { version, spec: GallerySpec { seed, pictures }, .. } = found;
        return Err(bad(format!(
            "this gallery has version {version}, seed {seed} and {pictures} pictures, wanted are \
             version {VERSION}, seed {} and {} pictures; remove it or use another folder",
            spec.seed, spec.pictures
        )));
    }
    std::fs::create_dir_all(folder).io("create", folder)?;
    if std::fs::read_dir(folder).io("list", folder)?.next().is_some() {
        return Err(bad(
            "this folder holds something that is no gallery, and nothing is overwritten; use a \
             new or empty folder"
                .to_owned(),
        ));
    }
    replace_file(&stamp, |file| {
        serde_json::to_writer_pretty(&mut *file, &ours)?;
        writeln!(file)
    })
}

/// Draws one file under a temporary name: a file that has its own name is whole.
fn write(path: &Path, piece: &Piece, seed: u64) -> Result<()> {
    let mut file = temporary_beside(path)?;
    let mut buffer = std::io::BufWriter::new(&mut file);
    let encoded = encode(&mut buffer, piece, &render(piece, seed));
    encoded.map_err(std::io::Error::other).and_then(|()| buffer.flush()).io("write", path)?;
    drop(buffer);
    file.persist(path).map_err(|error| error.error).io("write", path)?;
    Ok(())
}

fn render(piece: &Piece, seed: u64) -> RgbImage {
    let picture = scenes::render(seed, piece.family, piece.number);
    match piece.copied {
        Some((edit, _)) => {
            let seeds = [seed, piece.family as u64, piece.number as u64, edit as u64];
            edit.apply(&picture, &mut Lot::of(&seeds))
        }
        None => picture,
    }
}

fn encode(file: &mut impl Write, piece: &Piece, picture: &RgbImage) -> ImageResult<()> {
    if piece.path.ends_with(".png") {
        return picture.write_with_encoder(PngEncoder::new(file));
    }
    let quality = piece.copied.as_ref().map_or(QUALITY, |(edit, _)| edit.quality());
    picture.write_with_encoder(JpegEncoder::new_with_quality(file, quality))
}

fn write_truth(path: &Path, pieces: &[Piece]) -> Result<()> {
    replace_file(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(["original", "copy", "edit", "split"])?;
        for piece in pieces {
            if let Some((edit, original)) = &piece.copied {
                let part = piece.part.folder();
                writer.write_record([original, &piece.path, edit.name(), part])?;
            }
        }
        writer.flush()
    })
}

#[cfg(test)]
mod tests;
