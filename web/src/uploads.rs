//! Pictures that come to stay: kept in a folder of the home, and added to a collection.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use engine::Embedding;
use engine::decode::{Format, decode};
use indexer::{
    Collection, ContentHash, FileStamp, ImageId, Known, Locator, NewImage, Payload, Record,
};

use crate::metrics::Stage;
use crate::models::Model;
use crate::problem::{Answer, Code, Problem};
use crate::shelf::Served;
use crate::state::AppState;

/// Most bytes that are attached to one image, as JSON.
const MAX_PAYLOAD: usize = 64 << 10;

/// An image that was added.
pub struct Added {
    /// The image.
    pub id: ImageId,
    /// What is known of it.
    pub record: Record,
    /// Whether it is new: the same file may have been uploaded before.
    pub is_new: bool,
}

/// An upload that was decoded.
struct Ready {
    format: Format,
    width: u32,
    height: u32,
    warning: Option<String>,
    pixels: engine::Pixels,
    sha256: ContentHash,
}

impl AppState {
    /// Folder of a collection's uploads. Their names are hashes: nothing in a request decides on paths.
    pub fn upload_folder(&self, collection: &str) -> PathBuf {
        self.home.join("uploads").join(collection)
    }

    /// Adds a picture for good.
    ///
    /// # Errors
    /// It is no picture, or the collection is being written to.
    pub async fn add_upload(
        &self,
        served: &Arc<Served>,
        file: Bytes,
        payload: Payload,
    ) -> Answer<Added> {
        check_payload(&payload)?;
        let model = self.model_of(served).await?;
        let announced = self.device.announce();
        let (state, bytes, by) = (self.clone(), file.clone(), Arc::clone(&model));
        let ready = self.decoders.run(move || state.ready(&by, &bytes)).await?;
        let embedding = self.device.embed(&model, ready.pixels.clone(), announced).await?;
        let folder = self.upload_folder(served.name());
        let note =
            move |writer: &mut Collection| add(writer, &folder, &file, &ready, &embedding, payload);
        served.change(&self.searchers, note, |added, _| Ok(added)).await
    }

    fn ready(&self, model: &Model, file: &[u8]) -> Answer<Ready> {
        let start = std::time::Instant::now();
        let decoded = decode(file, &self.options.decode(model.input_options()))?;
        self.metrics.stage(Stage::Decode, start.elapsed());
        let start = std::time::Instant::now();
        let pixels = model.prepare_decoded(&decoded)?;
        self.metrics.stage(Stage::Preprocess, start.elapsed());
        Ok(Ready {
            format: decoded.format,
            width: decoded.width,
            height: decoded.height,
            warning: decoded.warning.map(|warning| warning.to_string()),
            pixels,
            sha256: ContentHash::of(file),
        })
    }

    /// Removes an image. Its file is removed only if it was an upload.
    ///
    /// # Errors
    /// `image_not_found`, or the collection is being written to.
    pub async fn remove_image(&self, served: &Arc<Served>, id: u64) -> Answer<()> {
        let (name, folder) = (served.name().to_owned(), self.upload_folder(served.name()));
        let note = move |writer: &mut Collection| {
            let Some(record) = writer.record(ImageId(id))? else {
                return Err(Problem::no_image(&name, id));
            };
            writer.remove(ImageId(id))?;
            Ok(record.path)
        };
        let settle = move |locator: Locator, writer: &Collection| {
            let path = locator.to_path();
            // The same file may have been uploaded again in the same commit.
            if path.parent() == Some(&folder)
                && writer.known(&locator)?.is_none()
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "an upload is not removed");
            }
            Ok(())
        };
        served.change(&self.searchers, note, settle).await
    }

    /// Changes what is attached to an image by a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// `image_not_found`, what would be attached is too large, or the collection is being written to.
    pub async fn patch_payload(
        &self,
        served: &Arc<Served>,
        id: u64,
        patch: Payload,
    ) -> Answer<Record> {
        let name = served.name().to_owned();
        let note = move |writer: &mut Collection| {
            let Some(record) = writer.record(ImageId(id))? else {
                return Err(Problem::no_image(&name, id));
            };
            let mut payload = record.payload.clone();
            merge(&mut payload, patch);
            check_payload(&payload)?;
            if payload != record.payload {
                writer.set_payload(ImageId(id), record.clone(), payload.clone())?;
            }
            Ok(Record { payload, ..record })
        };
        served.change(&self.searchers, note, |record, _| Ok(record)).await
    }
}

fn add(
    writer: &mut Collection,
    folder: &Path,
    file: &[u8],
    ready: &Ready,
    embedding: &Embedding,
    payload: Payload,
) -> Answer<Added> {
    let path = folder.join(format!("{}.{}", ready.sha256, extension(ready.format)));
    let locator = Locator::from(path.as_path());
    if let Some(Known::Image(id, record)) = writer.known(&locator)?
        && path.exists()
    {
        // The same file again: what is attached may be new.
        let all = record.payload.clone().into_iter().chain(payload).collect();
        check_payload(&all)?;
        if all != record.payload {
            writer.set_payload(id, record.clone(), all.clone())?;
        }
        return Ok(Added { id, record: Record { payload: all, ..record }, is_new: false });
    }
    let stamp = write(folder, &path, file).map_err(|error| {
        tracing::error!(%error, path = %path.display(), "an upload cannot be kept");
        Problem::internal("the disk refuses an upload")
    })?;
    let image = NewImage {
        path: locator,
        sha256: ready.sha256.clone(),
        stamp,
        width: ready.width,
        height: ready.height,
        warning: ready.warning.clone(),
        payload,
    };
    let id = writer.put(image, embedding)?;
    let record = writer.record(id)?;
    let record = record.ok_or_else(|| Problem::internal("an image just added is not there"))?;
    Ok(Added { id, record, is_new: true })
}

/// Writes a file whole or not at all.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<FileStamp> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    let file = file.persist(path).map_err(|error| error.error)?;
    let modified = file.metadata()?.modified()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mtime_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    Ok(FileStamp { size: bytes.len() as u64, mtime_ns })
}

fn check_payload(payload: &Payload) -> Answer<()> {
    let bytes = serde_json::to_vec(payload).map_err(Problem::internal)?.len();
    if bytes <= MAX_PAYLOAD {
        return Ok(());
    }
    let detail = format!("the payload has {bytes} bytes as JSON, the limit is {MAX_PAYLOAD}");
    Err(Problem::new(Code::BodyTooLarge, detail.clone()).field("payload", detail))
}

/// RFC 7396, section 2.
fn merge(payload: &mut Payload, patch: Payload) {
    for (name, value) in patch {
        match value {
            serde_json::Value::Null => {
                payload.remove(&name);
            }
            value => merge_value(payload.entry(name).or_default(), value),
        }
    }
}

fn merge_value(target: &mut serde_json::Value, patch: serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            serde_json::Value::Null => {
                object.remove(&name);
            }
            value => merge_value(object.entry(name).or_insert_with(Default::default), value),
        }
    }
}

/// What files of a format are called.
fn extension(format: Format) -> &'static str {
    match format {
        Format::Jpeg => "jpg",
        Format::Png => "png",
        Format::WebP => "webp",
        Format::Gif => "gif",
        Format::Bmp => "bmp",
        Format::Tiff => "tiff",
        Format::Ico => "ico",
        Format::Tga => "tga",
        Format::Qoi => "qoi",
        Format::Pnm => "pnm",
        Format::Hdr => "hdr",
        Format::Heic => "heic",
        Format::Avif => "avif",
        _ => "picture",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_are_those_of_the_rfc() {
        // Appendix A of RFC 7396, as far as targets and patches are objects.
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut payload: Payload = serde_json::from_value(target.clone()).expect("an object");
            merge(&mut payload, serde_json::from_value(patch.clone()).expect("an object"));
            assert_eq!(json!(payload), result, "{target} {patch}");
        }
    }
}
