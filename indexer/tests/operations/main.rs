//! What is done with whole collections: compacting, reindexing, removing, deleting, and moving them in
//! one file.

mod compact;
mod kill;
mod reindex;
mod remove;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding};
use indexer::{
    Collection, Collections, ContentHash, CreateOptions, Failure, FileStamp, ImageId, Locator,
    NewImage, Payload, Precision, Progress, Record, Step,
};

/// A home folder with a collection `c` in it.
struct Case {
    home: tempfile::TempDir,
    cancel: AtomicBool,
}

/// Everything that must survive: images with payload and vector, failures.
type State = (Vec<(ImageId, Record, Vec<u32>)>, Vec<Failure>);

fn embedding(seed: u64) -> Embedding {
    let values = (0..192u64).map(|i| ((i * 31 + seed * 17) % 101) as f32 - 50.0).collect();
    Embedding::normalised(values).expect("finite")
}

fn place(number: u64) -> Locator {
    Locator::from(Path::new(&format!("/pictures/{number}.jpg")))
}

impl Case {
    fn empty() -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        Self { home, cancel: AtomicBool::new(false) }
    }

    /// Thirty images; twenty of them replaced and five removed, so that 25 rows are dead; failures.
    fn new() -> Self {
        let case = Self::empty();
        let mut collection = case.create(Precision::F16);
        for number in (0..30).chain(0..20) {
            put(&mut collection, number, number);
        }
        for id in [4, 8, 15, 16, 23] {
            assert!(collection.remove(ImageId(id)).expect("remove"));
        }
        fail(&mut collection, "/pictures/bad.jpg", false);
        fail(&mut collection, "/notes.txt", true);
        collection.finish().expect("finish");
        assert_eq!((collection.len(), collection.manifest().rows), (25, 50));
        case
    }

    fn create(&self, precision: Precision) -> Collection {
        let model = ThumbnailEmbedder::default();
        let options = CreateOptions { ann_from: Some(10), precision };
        self.collections().create("c", model.identity(), options).expect("create")
    }

    fn collections(&self) -> Collections {
        Collections::new(self.home.path())
    }

    fn open(&self) -> Collection {
        self.collections().open("c").expect("open")
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("collections/c")
    }

    fn with<T>(&self, work: impl FnOnce(&mut Progress<'_>) -> T) -> T {
        work(&mut Progress::new(&mut |_| {}, &self.cancel))
    }

    /// Stops at the first step that does this.
    fn stopped_at<T>(&self, doing: &str, work: impl FnOnce(&mut Progress<'_>) -> T) -> T {
        let mut on_step = |step: Step| {
            if step.doing == doing {
                self.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        };
        let result = work(&mut Progress::new(&mut on_step, &self.cancel));
        self.cancel.store(false, std::sync::atomic::Ordering::Relaxed);
        result
    }

    fn assert_sound(&self, name: &str) {
        let report = self.with(|progress| self.collections().check(name, false, progress));
        let report = report.expect("check");
        assert!(report.is_sound() && report.notes.is_empty(), "{report:#?}");
    }
}

fn put(collection: &mut Collection, number: u64, content: u64) -> ImageId {
    let payload = format!(r#"{{"name": "n{number}", "value": {}}}"#, number as f64 / 7.0);
    let payload: Payload = serde_json::from_str(&payload).expect("JSON");
    let image = NewImage {
        path: place(number),
        sha256: ContentHash::of(&content.to_le_bytes()),
        stamp: FileStamp { size: number, mtime_ns: -7 },
        width: 4,
        height: 5,
        warning: number.is_multiple_of(2).then(|| "odd".to_owned()),
        payload,
    };
    let id = collection.put(image, &embedding(content)).expect("put");
    collection.commit().expect("commit");
    id
}

fn fail(collection: &mut Collection, path: &str, not_a_picture: bool) {
    let path = Locator::from(Path::new(path));
    let stamp = FileStamp { size: 1, mtime_ns: 2 };
    let failure = Failure { path, reason: "it is cut".to_owned(), not_a_picture, stamp };
    collection.fail(&failure).expect("fail");
}

/// Rows are not part of it, bits of vectors are.
fn state(collection: &Collection) -> State {
    let images = collection.images().map(|image| {
        let (id, record) = image.expect("image");
        let vector = collection.view().vector(record.row as u32, id).expect("vector");
        let bits = vector.iter().map(|value| value.to_bits()).collect();
        (id, Record { row: 0, ..record }, bits)
    });
    (images.collect(), collection.failures().expect("failures"))
}

fn error<T>(result: indexer::Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

fn folder_bytes(folder: &Path) -> u64 {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}
