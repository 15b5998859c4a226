//! What a request gives to search with, made vectors: uploaded pictures, pictures at URLs, pictures
//! uploaded before, images of the collection and parts of all these.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use engine::decode::{DecodeLimits, decode};
use engine::{Pixels, RgbImage};
use indexer::search::Example;
use indexer::search::crop::Crop;
use indexer::{ContentHash, ImageId, IndexerError, LocatorKind, Record};

use crate::metrics::Stage;
use crate::models::Model;
use crate::problem::{Answer, Code, Problem};
use crate::queries::Kept;
use crate::shelf::Served;
use crate::state::AppState;

/// Where an example comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A file in the request.
    Upload(Bytes),
    /// A picture on the net.
    Url(String),
    /// A picture of an earlier request, by its token.
    Query(String),
    /// An image of the collection.
    Id(u64),
    /// A vector.
    Vector(Vec<f32>),
}

/// An example, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Where it comes from.
    pub source: Source,
    /// The part that counts.
    pub crop: Option<Crop>,
}

/// An example to search with.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its vector, or the image that has it.
    pub example: Example,
    /// By which it can be searched with again.
    pub token: Option<String>,
    /// Time spent.
    pub took: Took,
}

/// Time spent on one example.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// Fetching, reading and decoding it.
    pub decode: Duration,
    /// The model, waiting for it included.
    pub embed: Duration,
}

/// A picture ready for the model.
struct Prepared {
    pixels: Pixels,
    /// Whole and upright, if it was decoded for a part of it: another part may follow.
    picture: Option<Arc<RgbImage>>,
    took: Duration,
}

impl AppState {
    /// Makes an example a vector.
    ///
    /// # Errors
    /// It is no picture, too large, not there any more, or the model has too much to do.
    pub async fn example(&self, served: &Arc<Served>, given: Given) -> Answer<Found> {
        let Given { source, crop } = given;
        match source {
            Source::Id(id) if crop.is_none() => Ok(Found::plain(Example::Id(ImageId(id)))),
            Source::Vector(_) if crop.is_some() => {
                let detail = "a vector has no parts: a crop goes with a picture";
                Err(Problem::new(Code::InvalidCrop, detail).field("crop", detail))
            }
            Source::Vector(vector) => {
                check_vector(&vector, served.view().manifest().model.dim)?;
                Ok(Found::plain(Example::Vector(vector)))
            }
            Source::Id(id) => {
                let start = Instant::now();
                let (state, of) = (self.clone(), Arc::clone(served));
                let file = self.decoders.run(move || state.stored_file(&of, id)).await?;
                let mut found = self.embed_file(served, file.into(), crop, false).await?;
                found.took.decode = start.elapsed().saturating_sub(found.took.embed);
                Ok(found)
            }
            Source::Upload(file) => self.embed_file(served, file, crop, true).await,
            Source::Url(url) => {
                let start = Instant::now();
                let file = self.remote.get(&url).await?;
                let fetched = start.elapsed();
                self.metrics.stage(Stage::Fetch, fetched);
                let mut found = self.embed_file(served, file, crop, true).await?;
                found.took.decode += fetched;
                Ok(found)
            }
            Source::Query(token) => self.embed_kept(served, token, crop).await,
        }
    }

    /// The model of a collection.
    ///
    /// # Errors
    /// There is none that pictures could be compared with.
    pub async fn model_of(&self, served: &Arc<Served>) -> Answer<Model> {
        let view = served.view();
        if let Some(model) = self.models.ready(&view.manifest().fingerprint) {
            return Ok(model);
        }
        let state = self.clone();
        self.searchers.run(move || state.models.for_collection(view.manifest())).await
    }

    async fn embed_file(
        &self,
        served: &Arc<Served>,
        file: Bytes,
        crop: Option<Crop>,
        keep: bool,
    ) -> Answer<Found> {
        let model = self.model_of(served).await?;
        let announced = self.device.announce();
        let (state, bytes, by) = (self.clone(), file.clone(), Arc::clone(&model));
        let prepare = move || match &crop {
            None => state.prepare(&by, &bytes),
            Some(crop) => state.prepare_part(&by, &bytes, None, crop),
        };
        let prepared = self.decoders.run(prepare).await?;
        let start = Instant::now();
        let embedding = self.device.embed(&model, prepared.pixels, announced).await?;
        let vector = embedding.as_slice().to_vec();
        let mut token = None;
        if keep {
            let identity = model.identity();
            let kept = Kept::new(file);
            kept.remember(key(&identity.fingerprint(), crop.as_ref()), &vector);
            let named = self.queries.keep(Arc::new(kept))?;
            if let Some(picture) = &prepared.picture {
                self.queries.keep_pixels(&named, identity.icc, picture);
            }
            token = Some(named);
        }
        let took = Took { decode: prepared.took, embed: start.elapsed() };
        Ok(Found { example: Example::Vector(vector), token, took })
    }

    async fn embed_kept(
        &self,
        served: &Arc<Served>,
        token: String,
        crop: Option<Crop>,
    ) -> Answer<Found> {
        let kept = self.queries.find(&token)?;
        let key = key(&served.view().manifest().fingerprint, crop.as_ref());
        if let Some(vector) = kept.embedding(&key) {
            let example = Example::Vector(vector);
            return Ok(Found { example, token: Some(token), took: Took::default() });
        }
        let model = self.model_of(served).await?;
        let announced = self.device.announce();
        let (state, of, by) = (self.clone(), Arc::clone(&kept), Arc::clone(&model));
        let prepare = move || match &crop {
            None => state.prepare(&by, &of.file),
            Some(crop) => {
                let pixels = of.pixels(by.identity().icc);
                state.prepare_part(&by, &of.file, pixels, crop)
            }
        };
        let prepared = self.decoders.run(prepare).await?;
        if let Some(picture) = &prepared.picture {
            self.queries.keep_pixels(&token, model.identity().icc, picture);
        }
        let start = Instant::now();
        let embedding = self.device.embed(&model, prepared.pixels, announced).await?;
        kept.remember(key, embedding.as_slice());
        let took = Took { decode: prepared.took, embed: start.elapsed() };
        let example = Example::Vector(embedding.as_slice().to_vec());
        Ok(Found { example, token: Some(token), took })
    }

    /// A file as input of the model. Its pixels are not kept: most pictures are searched with once.
    fn prepare(&self, model: &Model, file: &[u8]) -> Answer<Prepared> {
        let start = Instant::now();
        let decoded = decode(file, &self.options.decode(model.input_options()))?;
        self.metrics.stage(Stage::Decode, start.elapsed());
        let before = Instant::now();
        let pixels = model.prepare_decoded(&decoded)?;
        self.metrics.stage(Stage::Preprocess, before.elapsed());
        Ok(Prepared { pixels, picture: None, took: start.elapsed() })
    }

    /// A part of a file as input of the model, cut out of all its pixels.
    fn prepare_part(
        &self,
        model: &Model,
        file: &[u8],
        pixels: Option<Arc<RgbImage>>,
        crop: &Crop,
    ) -> Answer<Prepared> {
        let start = Instant::now();
        let picture = match pixels {
            Some(pixels) => pixels,
            None => {
                let decoded = decode(file, &self.options.decode(model.decode_options()))?;
                self.metrics.stage(Stage::Decode, start.elapsed());
                Arc::new(decoded.image)
            }
        };
        let before = Instant::now();
        let pixels = model.prepare(&crop.apply(&picture).map_err(bad_crop)?)?;
        self.metrics.stage(Stage::Preprocess, before.elapsed());
        Ok(Prepared { pixels, picture: Some(picture), took: start.elapsed() })
    }

    /// The embedding of a picture in a request, for its own sake.
    ///
    /// # Errors
    /// It is no picture, too large, or the model has too much to do.
    pub async fn embed_alone(&self, model: &Model, file: Bytes) -> Answer<Vec<f32>> {
        let announced = self.device.announce();
        let (state, by) = (self.clone(), Arc::clone(model));
        let prepared = self.decoders.run(move || state.prepare(&by, &file)).await?;
        let embedding = self.device.embed(model, prepared.pixels, announced).await?;
        Ok(embedding.as_slice().to_vec())
    }

    /// The file of an image, exactly as it was indexed. For threads that may block.
    ///
    /// # Errors
    /// `image_not_found`; `gone` or `changed`: the file is not there as it was indexed.
    pub fn stored_file(&self, served: &Served, id: u64) -> Answer<Vec<u8>> {
        match served.view().record(ImageId(id))? {
            Some(record) => read_verified(&record),
            None => Err(Problem::no_image(served.name(), id)),
        }
    }
}

impl Found {
    fn plain(example: Example) -> Self {
        Self { example, token: None, took: Took::default() }
    }
}

/// Reads the file of a record, which must be the one that was indexed.
///
/// # Errors
/// `gone` or `changed`.
pub fn read_verified(record: &Record) -> Answer<Vec<u8>> {
    let gone = |detail: &str| Problem::new(Code::Gone, detail);
    let changed = || {
        Problem::new(Code::Changed, "the file of this image has changed")
            .remedy("index its folder again")
    };
    if record.path.kind() == LocatorKind::File {
        let path = record.path.to_path();
        // Rows of foreign tables have names where others have paths; such a name must not become a
        // path relative to wherever the server runs.
        if !path.is_absolute() {
            return Err(gone("this image came as a vector, without a file"));
        }
        // What is in its place may be a pipe, which would be waited for for ever.
        match std::fs::metadata(&path) {
            Ok(about) if about.is_file() && about.len() == record.stamp.size => {}
            Ok(about) if about.is_file() => return Err(changed()),
            _ => return Err(gone("the file of this image is not there any more")),
        }
    }
    // A file of another size is another file, whatever is in it. Of URLs, none may be known.
    let most = match record.stamp.size {
        0 => DecodeLimits::default().max_bytes,
        size => size,
    };
    let bytes = record.path.read(most).map_err(|reason| {
        tracing::info!(path = %record.path, %reason, "the file of an image cannot be read");
        gone("the file of this image is not there any more, or cannot be read as it was")
            .remedy("index its folder again")
    })?;
    match ContentHash::of(&bytes) == record.sha256 {
        true => Ok(bytes),
        false => Err(changed()),
    }
}

/// What an embedding of a kept picture depends on.
fn key(fingerprint: &str, crop: Option<&Crop>) -> String {
    format!("{fingerprint} {crop:?}")
}

fn bad_crop(error: IndexerError) -> Problem {
    let message = error.to_string();
    Problem::new(Code::InvalidCrop, message.clone()).field("crop", message)
}

fn check_vector(vector: &[f32], dim: usize) -> Answer<()> {
    let bad = |detail: String| {
        Err(Problem::new(Code::InvalidVector, detail.clone()).field("vector", detail))
    };
    if vector.len() != dim {
        return bad(format!("the vector has {} values, the collection's have {dim}", vector.len()));
    }
    if !vector.iter().all(|value| value.is_finite()) {
        return bad("the vector has values that are no finite single-precision numbers".to_owned());
    }
    if vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() < 1e-12 {
        return bad("the vector is zero, so that nothing is similar to it".to_owned());
    }
    Ok(())
}
