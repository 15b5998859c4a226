//! A collection of its own for each test, and pictures to put into it.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::decode::DecodeOptions;
use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, RgbImage};
use image::Rgb;
use indexer::metadata::Metadata;
use indexer::source::{self, Source, SourceOptions};
use indexer::{
    Collection, Collections, CreateOptions, ImageId, IngestOptions, IngestReport, Known, Locator,
    Payload, Record, ingest_sources,
};

pub struct Case {
    pub home: tempfile::TempDir,
    pub collection: Collection,
    pub embedder: ThumbnailEmbedder,
    /// Largest file that is read.
    pub max_bytes: u64,
}

/// The embedder with a limit of its own.
struct Limited<'a>(&'a ThumbnailEmbedder, u64);

impl Embedder for Limited<'_> {
    fn identity(&self) -> &engine::ModelIdentity {
        self.0.identity()
    }

    fn embed(&self, batch: &[engine::Pixels]) -> engine::Result<Vec<engine::Embedding>> {
        self.0.embed(batch)
    }

    fn decode_options(&self) -> DecodeOptions {
        let mut options = self.0.decode_options();
        options.limits.max_bytes = self.1;
        options
    }
}

/// The bytes of a small picture that only this number gives.
pub fn png(number: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(48, 48, |x, y| {
        let mut h = (x / 6 * 31 + y / 6 * 17 + number * 101).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encode");
    bytes.into_inner()
}

impl Case {
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let embedder = ThumbnailEmbedder::default();
        let collections = Collections::new(&home.path().join("home"));
        let options = CreateOptions::default();
        let collection =
            collections.create("c", embedder.identity(), options).expect("create a collection");
        Self { home, collection, embedder, max_bytes: 1 << 20 }
    }

    /// A path in this test's folder, without links.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().canonicalize().expect("canonical").join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(&path, bytes).expect("write");
        path
    }

    /// Pictures `NAME/000.png` and so on; the content is the number and `from`.
    pub fn pictures(&self, name: &str, from: u32, count: u32) -> PathBuf {
        for number in 0..count {
            self.write(&format!("{name}/{number:03}.png"), &png(from + number));
        }
        self.path(name)
    }

    pub fn open(&self, named: &[PathBuf], options: &SourceOptions) -> Vec<Box<dyn Source>> {
        source::open(named, options).expect("open sources")
    }

    pub fn ingest(&mut self, named: &[PathBuf]) -> IngestReport {
        self.ingest_with(named, IngestOptions::default()).expect("ingest")
    }

    pub fn ingest_with(
        &mut self,
        named: &[PathBuf],
        options: IngestOptions,
    ) -> indexer::Result<IngestReport> {
        let mut sources = source::open(named, &SourceOptions::default())?;
        self.run(&mut sources, &Metadata::none(), options)
    }

    pub fn run(
        &mut self,
        sources: &mut [Box<dyn Source>],
        metadata: &Metadata,
        options: IngestOptions,
    ) -> indexer::Result<IngestReport> {
        let cancel = AtomicBool::new(false);
        ingest_sources(
            &mut self.collection,
            &Limited(&self.embedder, self.max_bytes),
            sources,
            metadata,
            options,
            &mut |_| {},
            &cancel,
        )
    }

    pub fn image(&self, path: &Path) -> Option<(ImageId, Record)> {
        self.image_at(&Locator::from(path))
    }

    pub fn image_at(&self, locator: &Locator) -> Option<(ImageId, Record)> {
        match self.collection.known(locator).expect("known") {
            Some(Known::Image(id, record)) => Some((id, record)),
            _ => None,
        }
    }

    pub fn payload(&self, locator: &Locator) -> Payload {
        self.image_at(locator).map(|(_, record)| record.payload).unwrap_or_default()
    }

    /// Whether the vector of an image is that of this picture.
    pub fn looks_like(&self, locator: &Locator, number: u32) -> bool {
        let picture = engine::decode::decode(&png(number), &self.embedder.decode_options());
        let pixels = self.embedder.prepare(&picture.expect("decode").image).expect("prepare");
        let expected = self.embedder.embed(&[pixels]).expect("embed").remove(0);
        let (id, record) = self.image_at(locator).expect("an image");
        let stored = self.collection.embedding(id, &record).expect("vector");
        stored.similarity(&expected) > 0.999
    }
}

pub fn tar(members: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        builder.append_pax_extensions([("path", *name)]).expect("pax");
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_path("member").expect("path");
        header.set_cksum();
        builder.append(&header, *content).expect("append");
    }
    builder.into_inner().expect("archive")
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// A zip of deflated members, written by hand: flags, CRC and sizes can be wrong as wanted.
#[derive(Default)]
pub struct Zip {
    body: Vec<u8>,
    directory: Vec<u8>,
    members: u16,
}

impl Zip {
    pub fn add(self, name: &str, content: &[u8]) -> Self {
        let size = content.len() as u32;
        self.add_with(name, content, 0, crc32fast::hash(content), size)
    }

    pub fn add_with(mut self, name: &str, content: &[u8], flags: u16, crc: u32, size: u32) -> Self {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("compress");
        let compressed = encoder.finish().expect("compress");
        let mut common = Vec::new();
        for value in [20, flags, 8, 0, 0x21] {
            common.extend(u16::to_le_bytes(value));
        }
        for value in [crc, compressed.len() as u32, size] {
            common.extend(u32::to_le_bytes(value));
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let at = self.body.len() as u32;
        self.body.extend(b"PK\x03\x04");
        self.body.extend(&common);
        self.body.extend(name.bytes());
        self.body.extend(compressed);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        self.directory.extend([0; 10]);
        self.directory.extend(at.to_le_bytes());
        self.directory.extend(name.bytes());
        self.members += 1;
        self
    }

    pub fn finish(self) -> Vec<u8> {
        let Self { body, directory, members } = self;
        let mut bytes = body;
        let start = bytes.len() as u32;
        bytes.extend(&directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend(members.to_le_bytes());
        bytes.extend(members.to_le_bytes());
        bytes.extend((directory.len() as u32).to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend([0, 0]);
        bytes
    }
}
