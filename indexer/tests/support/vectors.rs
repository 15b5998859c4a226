//! Collections of vectors drawn by lot, without pictures.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, ModelIdentity};
use indexer::{
    Collection, Collections, ContentHash, CreateOptions, FileStamp, Locator, NewImage, Payload,
    Precision,
};

use super::filters::Lot;

pub const DIM: usize = 16;

pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    /// An empty collection; HNSW from this many images on.
    pub fn create(&self, name: &str, ann_from: u64) -> Collection {
        // In so few dimensions, half precision would not keep lengths to 1e-4.
        let options = CreateOptions { ann_from: Some(ann_from), precision: Precision::F32 };
        Collections::new(self.0.path()).create(name, &identity(), options).expect("create")
    }
}

fn identity() -> ModelIdentity {
    let embedder = ThumbnailEmbedder::default();
    ModelIdentity { dim: DIM, ..embedder.identity().clone() }
}

/// A vector near one of ten centres, so that some are near each other.
pub fn vector(lot: &mut Lot) -> Vec<f32> {
    let mut centre = Lot(lot.below(10));
    let value = |lot: &mut Lot| lot.below(2001) as f32 / 1000.0 - 1.0;
    (0..DIM).map(|_| value(&mut centre) + 0.4 * value(lot)).collect()
}

pub fn image(number: usize, payload: Payload) -> NewImage {
    let extension = ["jpg", "PNG", "b"][number % 3];
    let folder = ["/p", "/q", "/p/r"][number / 3 % 3];
    NewImage {
        path: Locator::from(Path::new(&format!("{folder}/{number}.{extension}"))),
        sha256: ContentHash::of(&number.to_le_bytes()),
        stamp: FileStamp { size: number as u64, mtime_ns: number as i64 * 500_000_000 },
        width: number as u32 % 50,
        height: number as u32 % 7,
        warning: None,
        payload,
    }
}
