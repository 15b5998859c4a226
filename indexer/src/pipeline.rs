//! Files to model outputs, in order: decoding on all cores feeds the model, which never waits
//! longer than for the slowest picture of a block.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use engine::decode::{DecodeError, DecodeOptions, Decoded};
use engine::{Embedder, Pixels};
use rayon::prelude::*;

use crate::error::Result;
use crate::id::ContentHash;
use crate::locator::Locator;
use crate::source::{SourceFile, has_picture_extension, read_file};

/// Files decoded together; a few batches, so that one slow file does not starve the model.
const BLOCK: usize = 64;
/// Pictures per forward pass, unless something else suits the model better.
pub const BATCH: usize = 16;
/// Batches that a device is given at a time if it likes other ones: it copies one while it computes another.
const AHEAD: usize = 4;
/// Pictures that wait for the model at most.
const MOST: usize = 1024;
/// How often a sink is told that there is nothing for it yet.
const IDLE: Duration = Duration::from_millis(20);

/// What is known of a picture once it is decoded.
#[derive(Clone, Debug)]
pub struct Picture {
    /// SHA-256 of the file.
    pub sha256: ContentHash,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Something odd about the file.
    pub warning: Option<String>,
}

/// Why a file gave no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// In one sentence.
    pub reason: String,
    /// Neither its content nor its name is a picture's.
    pub not_a_picture: bool,
}

/// What became of one file.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Decoded and computed.
    Done(Picture, T),
    /// The caller's check said its content is already known.
    Unchanged,
    /// No output.
    Skipped(Skipped),
}

enum Prepared {
    Pixels(Picture, Pixels),
    Unchanged,
}

/// Runs files through decoding and `compute`, handing each outcome to `sink` in the order of
/// `files`. `is_unchanged` may save a file from being decoded, by its content hash.
///
/// Stops early, without error, once `cancel` is set; everything handed to `sink` is complete.
///
/// # Errors
/// `sink` failed. A file that cannot be read, or a batch that cannot be computed, is an outcome.
pub fn run<T: Send>(
    files: &[SourceFile],
    embedder: &dyn Embedder,
    cancel: &AtomicBool,
    is_unchanged: &(dyn Fn(&SourceFile, &ContentHash) -> bool + Sync),
    compute: &(dyn Fn(&[Pixels]) -> engine::Result<Vec<T>> + Sync),
    sink: &mut dyn FnMut(&SourceFile, Outcome<T>) -> Result<()>,
) -> Result<()> {
    let options = embedder.input_options();
    let to_pixels = |decoded: &Decoded, _: &ContentHash| embedder.prepare_decoded(decoded);
    let batch = batch_for(embedder, files.len());
    run_prepared(files, (&options, &to_pixels), batch, cancel, is_unchanged, compute, sink)
}

/// How many of so many pictures a model is best given at a time. For a few nothing is measured.
pub fn batch_for(embedder: &dyn Embedder, pictures: usize) -> usize {
    match pictures > BLOCK {
        true => match embedder.batch() {
            batch @ ..=BATCH => batch.max(1),
            batch => (AHEAD * batch).min(MOST),
        },
        false => BATCH,
    }
}

/// Makes model input of a decoded picture with this hash; on worker threads.
pub type ToPixels<'a> = dyn Fn(&Decoded, &ContentHash) -> engine::Result<Pixels> + Sync + 'a;

/// [`run`] with decoding and model input of the caller's own, and so many pictures per forward pass.
///
/// # Errors
/// As `run`.
pub fn run_prepared<T: Send>(
    files: &[SourceFile],
    (options, to_pixels): (&DecodeOptions, &ToPixels<'_>),
    batch: usize,
    cancel: &AtomicBool,
    is_unchanged: &(dyn Fn(&SourceFile, &ContentHash) -> bool + Sync),
    compute: &(dyn Fn(&[Pixels]) -> engine::Result<Vec<T>> + Sync),
    sink: &mut dyn FnMut(&SourceFile, Outcome<T>) -> Result<()>,
) -> Result<()> {
    let prepare = |file| match prepare(file, to_pixels, options, is_unchanged) {
        Ok(Prepared::Pixels(picture, pixels)) => {
            Step::Compute((file, Outcome::Done(picture, ())), pixels)
        }
        Ok(Prepared::Unchanged) => Step::Done((file, Outcome::Unchanged)),
        Err(skipped) => Step::Done((file, Outcome::Skipped(skipped))),
    };
    let blocks = files.chunks(BLOCK).map(|block| block.iter().collect());
    stream(blocks, batch, cancel, &prepare, compute, &mut |given| {
        let Given::Item((file, outcome), output) = given else { return Ok(()) };
        let outcome = match (outcome, output) {
            (Outcome::Done(picture, ()), Some(Ok(output))) => Outcome::Done(picture, output),
            (Outcome::Done(..), Some(Err(reason))) => Outcome::Skipped(skipped(&file.path, reason)),
            (Outcome::Done(..), None) => Outcome::Skipped(skipped(&file.path, NO_OUTPUT.into())),
            (Outcome::Unchanged, _) => Outcome::Unchanged,
            (Outcome::Skipped(skipped), _) => Outcome::Skipped(skipped),
        };
        sink(file, outcome)
    })
}

/// What the worker threads made of an item.
pub(crate) enum Step<N> {
    /// It is to go through the model.
    Compute(N, Pixels),
    /// It is not.
    Done(N),
}

/// What the sink of [`stream`] is given.
pub(crate) enum Given<N, T> {
    /// An item, with the model's output if it was to have one.
    Item(N, Option<Result<T, String>>),
    /// Nothing yet; something else may be done meanwhile.
    Nothing,
}

/// Runs blocks of items through `prepare` on all cores and then through the model, handing what
/// `prepare` gave to `sink` in the order of the items, with the model's output for those that were
/// to have one. While there is nothing to hand over, the sink is told so, every [`IDLE`]. Batches larger
/// than [`BATCH`] are made of several blocks, for as long as these follow each other.
///
/// Stops early, without error, once `cancel` is set; everything handed to `sink` is complete.
///
/// # Errors
/// `sink` failed.
pub(crate) fn stream<I: Send, N: Send, T: Send>(
    blocks: impl Iterator<Item = Vec<I>> + Send,
    batch: usize,
    cancel: &AtomicBool,
    prepare: &(dyn Fn(I) -> Step<N> + Sync),
    compute: &(dyn Fn(&[Pixels]) -> engine::Result<Vec<T>> + Sync),
    sink: &mut dyn FnMut(Given<N, T>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        // One block waits while the next is decoded and the one before is computed.
        let (sender, receiver) = crossbeam_channel::bounded(1);
        scope.spawn(move || {
            for block in blocks {
                if cancel.load(Ordering::Relaxed) {
                    break;
                }
                let prepared: Vec<Step<N>> = block.into_par_iter().map(prepare).collect();
                // The other side is gone only after its error, which it reports.
                if sender.send(prepared).is_err() {
                    break;
                }
            }
        });
        let mut waiting = Vec::new();
        loop {
            let more = match receiver.recv_timeout(IDLE) {
                Ok(block) => {
                    waiting.extend(block);
                    batch > BATCH
                }
                Err(RecvTimeoutError::Timeout) if waiting.is_empty() => {
                    sink(Given::Nothing)?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) if waiting.is_empty() => break,
                Err(_) => false,
            };
            while waiting.len() >= batch || (!more && !waiting.is_empty()) {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let rest = waiting.split_off(waiting.len().min(batch));
                run_batch(std::mem::replace(&mut waiting, rest), compute, sink)?;
            }
        }
        Ok(())
    })
}

fn run_batch<N, T>(
    batch: Vec<Step<N>>,
    compute: &(dyn Fn(&[Pixels]) -> engine::Result<Vec<T>> + Sync),
    sink: &mut dyn FnMut(Given<N, T>) -> Result<()>,
) -> Result<()> {
    let mut pixels = Vec::new();
    let mut waiting = Vec::new();
    for step in batch {
        waiting.push(match step {
            Step::Done(note) => (note, false),
            Step::Compute(note, values) => {
                pixels.push(values);
                (note, true)
            }
        });
    }
    let mut outputs = compute_each(&pixels, compute).into_iter();
    for (note, computed) in waiting {
        let output = computed.then(|| outputs.next().unwrap_or_else(|| Err(NO_OUTPUT.to_owned())));
        sink(Given::Item(note, output))?;
    }
    Ok(())
}

const NO_OUTPUT: &str = "the model gave no output";

/// Computes a batch; when that fails, each picture alone, so that one cannot take down the rest.
fn compute_each<T>(
    pixels: &[Pixels],
    compute: &(dyn Fn(&[Pixels]) -> engine::Result<Vec<T>> + Sync),
) -> Vec<Result<T, String>> {
    if pixels.is_empty() {
        return Vec::new();
    }
    if let Ok(outputs) = compute(pixels) {
        return outputs.into_iter().map(Ok).collect();
    }
    let alone = |one: &Pixels| {
        let outputs = compute(std::slice::from_ref(one)).map_err(|error| error.to_string())?;
        outputs.into_iter().next().ok_or_else(|| NO_OUTPUT.to_owned())
    };
    pixels.iter().map(alone).collect()
}

fn prepare(
    file: &SourceFile,
    to_pixels: &ToPixels<'_>,
    options: &DecodeOptions,
    is_unchanged: &(dyn Fn(&SourceFile, &ContentHash) -> bool + Sync),
) -> Result<Prepared, Skipped> {
    let bytes = Locator::from(file.path.as_path())
        .read(options.limits.max_bytes)
        .map_err(|reason| skipped(&file.path, reason))?;
    let sha256 = ContentHash::of(&bytes);
    if is_unchanged(file, &sha256) {
        return Ok(Prepared::Unchanged);
    }
    let (picture, pixels) = decode(&file.path, &bytes, sha256, options, to_pixels)?;
    Ok(Prepared::Pixels(picture, pixels))
}

/// Decodes the bytes of a file and makes them model input.
pub(crate) fn decode(
    path: &Path,
    bytes: &[u8],
    sha256: ContentHash,
    options: &DecodeOptions,
    to_pixels: &ToPixels<'_>,
) -> Result<(Picture, Pixels), Skipped> {
    let decoded = engine::decode::decode(bytes, options).map_err(|error| Skipped {
        not_a_picture: matches!(error, DecodeError::UnknownFormat { .. })
            && !has_picture_extension(path),
        ..skipped(path, error.to_string())
    })?;
    let pixels = to_pixels(&decoded, &sha256).map_err(|error| skipped(path, error.to_string()))?;
    let picture = Picture {
        sha256,
        width: decoded.width,
        height: decoded.height,
        warning: decoded.warning.map(|warning| warning.to_string()),
    };
    Ok((picture, pixels))
}

/// Reads a file unless it is larger than `max_bytes`, which is checked before reading.
///
/// # Errors
/// In words, without the name.
pub fn read_limited(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    read_file(path, max_bytes)
}

pub(crate) fn skipped(path: &Path, reason: String) -> Skipped {
    Skipped { path: path.to_path_buf(), reason, not_a_picture: false }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use engine::testing::ThumbnailEmbedder;

    use super::*;

    /// Sizes of the batches that 200 pictures go through the model in, 64 to a block.
    fn sizes(batch: usize) -> Vec<usize> {
        let picture = engine::RgbImage::new(224, 224);
        let pixels = ThumbnailEmbedder::default().prepare(&picture).expect("pixels");
        let numbers: Vec<usize> = (0..200).collect();
        let blocks: Vec<Vec<usize>> = numbers.chunks(64).map(<[usize]>::to_vec).collect();
        let prepare = |number: usize| match number % 10 {
            0 => Step::Done(number),
            _ => Step::Compute(number, pixels.clone()),
        };
        let sizes = Mutex::new(Vec::new());
        let compute = |batch: &[Pixels]| {
            sizes.lock().expect("lock").push(batch.len());
            Ok(vec![(); batch.len()])
        };
        let mut seen = Vec::new();
        let cancel = AtomicBool::new(false);
        stream(blocks.into_iter(), batch, &cancel, &prepare, &compute, &mut |given| {
            if let Given::Item(number, output) = given {
                assert_eq!(output.is_some(), number % 10 != 0);
                seen.push(number);
            }
            Ok(())
        })
        .expect("runs");
        assert_eq!(seen, numbers, "in order, each once");
        sizes.into_inner().expect("lock")
    }

    #[test]
    fn batches_may_be_made_of_several_blocks() {
        let usual = sizes(BATCH);
        assert!(usual.iter().all(|&size| size <= BATCH) && usual.len() >= 200 / BATCH);
        let large = sizes(100);
        // How many depends on how fast blocks come; each block is given whole at least.
        assert!(large.iter().all(|&size| size <= 100) && large.len() <= 4, "{large:?}");
        assert_eq!(large.iter().sum::<usize>(), 180);
        assert_eq!(usual.iter().sum::<usize>(), 180);
    }

    #[test]
    fn what_suits_a_model_is_asked_for_many_pictures_only() {
        struct Asked(usize);
        impl Embedder for Asked {
            fn identity(&self) -> &engine::ModelIdentity {
                unreachable!("not asked")
            }
            fn embed(&self, _: &[Pixels]) -> engine::Result<Vec<engine::Embedding>> {
                unreachable!("not asked")
            }
            fn batch(&self) -> usize {
                self.0
            }
        }
        assert_eq!(batch_for(&Asked(64), BLOCK), BATCH);
        assert_eq!(batch_for(&Asked(64), BLOCK + 1), 4 * 64);
        assert_eq!(batch_for(&Asked(8 * 512), 100_000), MOST);
        assert_eq!(batch_for(&Asked(BATCH), 100_000), BATCH);
        assert_eq!(batch_for(&Asked(0), 100_000), 1);
    }
}
