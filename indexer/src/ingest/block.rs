//! The wanted entries of one block: read, recognised or embedded, and noted.

use std::path::PathBuf;

use engine::decode::{DecodeOptions, Decoded};
use engine::{Embedding, Pixels};

use super::gone::Gone;
use super::plan::Priors;
use super::{IngestEvent, Run};
use crate::collection::NewImage;
use crate::error::{IndexerError, Result};
use crate::id::{ContentHash, ImageId};
use crate::metadata::merge;
use crate::pipeline::{self, Given, Picture, Skipped, Step};
use crate::record::{Failure, FileStamp, Payload, Record};
use crate::source::{Content, Entry, Loaded, Source, VectorRow};

/// What became of an entry on a worker thread.
struct Outcome {
    entry: Entry,
    stamp: FileStamp,
    /// What the source, the table, the file beside and the picture say, in this order.
    payload: Payload,
    kind: Kind,
}

enum Kind {
    /// To go with the model's output.
    Picture(Picture),
    /// With its vector already.
    Vector(Picture, Embedding),
    /// Its content is that of this image, as it was known.
    Known(ImageId, Box<Record>),
    Skipped(Skipped),
}

impl Run<'_> {
    pub(super) fn load_block(
        &mut self,
        source: &mut dyn Source,
        wanted: Vec<Entry>,
        priors: &Priors,
        gone: &mut Gone,
    ) -> Result<()> {
        (self.on_event)(IngestEvent::Listed { to_read: wanted.len() });
        if wanted.is_empty() {
            return Ok(());
        }
        let embedder = self.embedder;
        let decode = embedder.map(|embedder| embedder.input_options()).unwrap_or_default();
        let cancel = self.cancel;
        let known = Recognise { reader: self.collection.reader() };
        let metadata = self.metadata;
        let prepare = |loaded: Loaded| {
            let Loaded { entry, content } = loaded;
            let path = entry.locator.to_path();
            let mut work = Work { entry, path, metadata, decode: &decode, known: &known };
            let (kind, stamp, payload, pixels) = match work.prepare(content, embedder) {
                Ok(Prepared { kind, stamp, payload, pixels }) => (kind, stamp, payload, pixels),
                Err(skipped) => (Kind::Skipped(skipped), work.entry.stamp, Payload::new(), None),
            };
            let outcome = Outcome { entry: work.entry, stamp, payload, kind };
            match pixels {
                Some(pixels) => Step::Compute(outcome, pixels),
                None => Step::Done(outcome),
            }
        };
        let compute = |batch: &[Pixels]| match embedder {
            Some(embedder) => embedder.embed(batch),
            None => Ok(Vec::new()),
        };
        let batch =
            embedder.map_or(pipeline::BATCH, |model| pipeline::batch_for(model, wanted.len()));
        let loads = source.load(wanted, decode.limits.max_bytes, cancel);
        pipeline::stream(loads, batch, cancel, &prepare, &compute, &mut |given| {
            if let Given::Item(outcome, output) = given {
                self.take(outcome, output, priors, gone)?;
                self.commit_if_due()?;
            }
            self.between();
            Ok(())
        })
    }

    /// Notes one outcome.
    fn take(
        &mut self,
        outcome: Outcome,
        output: Option<Result<Embedding, String>>,
        priors: &Priors,
        gone: &mut Gone,
    ) -> Result<()> {
        let Outcome { entry, stamp, payload, kind } = outcome;
        let prior = match priors.get(&entry.locator) {
            // As it is by now.
            Some((id, _)) => match self.collection.record(*id)? {
                Some(record) => Some((*id, record)),
                None => return self.leave(),
            },
            None => None,
        };
        let skip = |reason: String| {
            let path = entry.locator.to_path();
            Skipped { path, reason, not_a_picture: false }
        };
        let (picture, embedding) = match (kind, output) {
            (Kind::Skipped(skipped), _) => return self.fail(entry, stamp, skipped),
            (Kind::Picture(_), Some(Err(reason))) => {
                let skipped = skip(reason);
                return self.fail(entry, stamp, skipped);
            }
            (Kind::Picture(_), None) => {
                let skipped = skip("the model gave no output".to_owned());
                return self.fail(entry, stamp, skipped);
            }
            (Kind::Picture(picture), Some(Ok(embedding))) => (picture, embedding),
            (Kind::Vector(picture, embedding), _) => (picture, embedding),
            (Kind::Known(original, known), _) => {
                match prior {
                    Some((id, record)) if record.sha256 == known.sha256 => {
                        return self.touch(id, record, &entry, stamp, payload);
                    }
                    None => {
                        if let Some((id, _)) = gone.found(&known.sha256) {
                            return match self.collection.record(id)? {
                                Some(record) => self.relocate(id, record, entry, stamp, payload),
                                None => self.leave(),
                            };
                        }
                    }
                    Some(_) => {}
                }
                self.report.copied += 1;
                // A row stays where it is, even if its image was removed meanwhile.
                let embedding = self.collection.embedding(original, &known)?;
                let Record { sha256, width, height, warning, .. } = *known;
                (Picture { sha256, width, height, warning }, embedding)
            }
        };
        let payload = match merge(&Payload::new(), payload) {
            Ok(payload) => payload,
            Err(reason) => {
                let skipped = skip(reason);
                return self.fail(entry, stamp, skipped);
            }
        };
        let Picture { sha256, width, height, warning } = picture;
        let path = entry.locator;
        let image = NewImage { path, sha256, stamp, width, height, warning, payload };
        self.collection.put(image, &embedding)?;
        match prior {
            Some(_) => self.report.updated += 1,
            None => self.report.added += 1,
        }
        (self.on_event)(IngestEvent::Done);
        Ok(())
    }

    fn fail(&mut self, entry: Entry, stamp: FileStamp, skipped: Skipped) -> Result<()> {
        (self.on_event)(IngestEvent::Skipped(&skipped));
        self.collection.fail(&Failure {
            path: entry.locator,
            reason: skipped.reason.clone(),
            not_a_picture: skipped.not_a_picture,
            stamp,
        })?;
        self.note(skipped);
        Ok(())
    }

    /// The image of a file was removed while the run went on: the file is left alone, as if it had
    /// been removed afterwards. The next run finds it as new.
    fn leave(&mut self) -> Result<()> {
        (self.on_event)(IngestEvent::Done);
        Ok(())
    }

    /// The file is another, its content is not.
    fn touch(
        &mut self,
        id: ImageId,
        record: Record,
        entry: &Entry,
        stamp: FileStamp,
        payload: Payload,
    ) -> Result<()> {
        let payload = self.merged(&record, payload, entry);
        if payload != record.payload {
            self.report.payload_updated += 1;
        }
        let record = Record { payload, ..record };
        self.collection.touch(id, record, stamp)?;
        self.report.unchanged += 1;
        (self.on_event)(IngestEvent::Done);
        Ok(())
    }

    fn relocate(
        &mut self,
        id: ImageId,
        record: Record,
        entry: Entry,
        stamp: FileStamp,
        payload: Payload,
    ) -> Result<()> {
        let payload = self.merged(&record, payload, &entry);
        let record = Record { payload, ..record };
        self.collection.relocate(id, record, entry.locator, stamp)?;
        self.report.moved += 1;
        (self.on_event)(IngestEvent::Done);
        Ok(())
    }

    /// An image's payload with what is said now. Too much is listed, and the old one kept.
    fn merged(&mut self, record: &Record, payload: Payload, entry: &Entry) -> Payload {
        match merge(&record.payload, payload) {
            Ok(payload) => payload,
            Err(reason) => {
                let path = entry.locator.to_path();
                self.note(Skipped { path, reason, not_a_picture: false });
                record.payload.clone()
            }
        }
    }

    /// Brings the payload of an image up to date whose file has not changed.
    pub(super) fn update_payload(&mut self, entry: &Entry, id: ImageId) -> Result<()> {
        let Some(record) = self.collection.record(id)? else { return Ok(()) };
        let mut fresh = entry.payload.clone();
        match self.metadata.of(&entry.locator, &record.sha256) {
            Ok(payload) => fresh.extend(payload),
            Err(reason) => {
                let path = entry.locator.to_path();
                self.note(Skipped { path, reason, not_a_picture: false });
            }
        }
        let payload = self.merged(&record, fresh, entry);
        if payload != record.payload {
            self.report.payload_updated += 1;
            if !self.options.dry_run {
                self.collection.set_payload(id, record, payload)?;
                self.commit_if_due()?;
            }
        }
        Ok(())
    }

    /// Says what would be done with the wanted entries. Only what may have moved is read.
    pub(super) fn dry_block(
        &mut self,
        source: &mut dyn Source,
        wanted: Vec<Entry>,
        priors: &Priors,
        gone: &mut Gone,
    ) -> Result<()> {
        let max_bytes = DecodeOptions::default().limits.max_bytes;
        let mut candidates = Vec::new();
        for entry in wanted {
            let path = entry.locator.to_path();
            self.report.would_read.push(path.clone());
            if priors.contains_key(&entry.locator) {
                self.report.would_update.push(path);
            } else if gone.has_size(entry.stamp.size) {
                candidates.push(entry);
            } else {
                self.report.would_add.push(path);
            }
        }
        for Loaded { entry, content } in source.load(candidates, max_bytes, self.cancel).flatten() {
            let bytes = match content {
                Content::Later(read) => read(max_bytes).ok(),
                Content::Bytes(bytes, _) => Some(bytes),
                Content::Vector(_) | Content::Failed(_) => None,
            };
            let to = entry.locator.to_path();
            match bytes.and_then(|bytes| gone.found(&ContentHash::of(&bytes))) {
                Some((_, record)) => self.report.would_move.push((record.path.to_path(), to)),
                None => self.report.would_add.push(to),
            }
        }
        Ok(())
    }
}

/// What tells that a content need not be decoded: that of a committed image.
struct Recognise {
    reader: crate::collection::Reader,
}

impl Recognise {
    fn find(&self, sha256: &ContentHash) -> Result<Option<(ImageId, Record)>> {
        let view = self.reader.view();
        let Some(id) = view.first_with_content(sha256)? else { return Ok(None) };
        // Between the two it may have been removed, or its file replaced.
        let record = view.record(id)?.filter(|record| record.sha256 == *sha256);
        Ok(record.map(|record| (id, record)))
    }
}

/// One entry on a worker thread.
struct Work<'a> {
    entry: Entry,
    path: PathBuf,
    metadata: &'a crate::metadata::Metadata,
    decode: &'a DecodeOptions,
    known: &'a Recognise,
}

struct Prepared {
    kind: Kind,
    stamp: FileStamp,
    payload: Payload,
    pixels: Option<Pixels>,
}

impl Work<'_> {
    fn prepare(
        &mut self,
        content: Content,
        embedder: Option<&dyn engine::Embedder>,
    ) -> Result<Prepared, Skipped> {
        let skipped =
            |reason: String| Skipped { path: self.path.clone(), reason, not_a_picture: false };
        let mut stamp = self.entry.stamp;
        let bytes = match content {
            Content::Later(read) => read(self.decode.limits.max_bytes).map_err(skipped)?,
            Content::Bytes(bytes, fetched) => {
                stamp = fetched.unwrap_or(stamp);
                bytes
            }
            Content::Failed(reason) => return Err(skipped(reason)),
            Content::Vector(row) => return self.vector(row),
        };
        let sha256 = ContentHash::of(&bytes);
        let mut payload = self.metadata.of_bytes(&bytes);
        payload.append(&mut self.entry.payload);
        payload.extend(self.metadata.of(&self.entry.locator, &sha256).map_err(skipped)?);
        let known = self.known.find(&sha256);
        let known = known.map_err(|error: IndexerError| skipped(error.to_string()))?;
        if let Some((id, record)) = known {
            let kind = Kind::Known(id, Box::new(record));
            return Ok(Prepared { kind, stamp, payload, pixels: None });
        }
        let Some(embedder) = embedder else {
            return Err(skipped("there is no model to embed it with".to_owned()));
        };
        let to_pixels = |decoded: &Decoded, _: &ContentHash| embedder.prepare_decoded(decoded);
        let (picture, pixels) =
            pipeline::decode(&self.path, &bytes, sha256, self.decode, &to_pixels)?;
        Ok(Prepared { kind: Kind::Picture(picture), stamp, payload, pixels: Some(pixels) })
    }

    fn vector(&mut self, row: VectorRow) -> Result<Prepared, Skipped> {
        let skipped =
            |reason: String| Skipped { path: self.path.clone(), reason, not_a_picture: false };
        let VectorRow { sha256, width, height, vector } = row;
        let embedding =
            Embedding::normalised(vector).map_err(|error| skipped(error.to_string()))?;
        let mut payload = std::mem::take(&mut self.entry.payload);
        payload.extend(self.metadata.of(&self.entry.locator, &sha256).map_err(skipped)?);
        let picture = Picture { sha256, width, height, warning: None };
        let (kind, stamp) = (Kind::Vector(picture, embedding), self.entry.stamp);
        Ok(Prepared { kind, stamp, payload, pixels: None })
    }
}
