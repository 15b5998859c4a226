//! A pool with classes, planted copies and planted leaks; seeds and an excluded set.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, ModelIdentity};
use indexer::curate::config::{Balance, Method, RelativeDedup, Retrieve, SelfDedup, SemDedup};
use indexer::curate::ledger::LedgerRow;
use indexer::curate::{self, CurateConfig, CurateEvent, ImageSet, RunInfo, Sources, Step};
use indexer::{
    Collection, Collections, ContentHash, CreateOptions, FileStamp, IndexerError, Locator,
    NewImage, Payload,
};

pub const CLASSES: u64 = 8;
pub const PER_CLASS: u64 = 30;
/// Pool images that are the same file as another, near-duplicates of one, or leaks: in each class.
pub const PLANTED: u64 = 2;
/// Between what is planted as a copy, and everything else.
pub const THRESHOLD: f32 = 0.95;

pub struct World {
    pub home: tempfile::TempDir,
}

fn identity() -> ModelIdentity {
    ThumbnailEmbedder::default().identity().clone()
}

/// Numbers that only this name gives, in -1..1.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let bytes = ContentHash::of(name.as_bytes()).to_bytes().expect("a hash");
    let mut state = u64::from_le_bytes(*bytes.first_chunk::<8>().expect("8 bytes"));
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The direction of a class, and as much again that is the image's own.
fn vector(class: u64, name: &str, edit: Option<&str>) -> Embedding {
    let dim = identity().dim;
    let class = noise(&format!("class {class}"), dim);
    let own = noise(name, dim);
    let mut values: Vec<f32> = class.iter().zip(own).map(|(a, b)| a + 0.8 * b).collect();
    if let Some(edit) = edit {
        let edit = noise(edit, dim);
        values.iter_mut().zip(edit).for_each(|(value, edit)| *value += 0.15 * edit);
    }
    Embedding::normalised(values).expect("finite")
}

/// One image to put.
struct Plant {
    file: String,
    content: String,
    vector: Embedding,
    class: u64,
    width: u32,
}

fn image(class: u64, name: &str) -> Plant {
    let file = format!("{class}/{name}.png");
    Plant { content: file.clone(), file, vector: vector(class, name, None), class, width: 100 }
}

impl World {
    pub fn new() -> Self {
        let world = Self { home: tempfile::tempdir().expect("temporary folder") };
        let mut pool = Vec::new();
        let mut seeds = Vec::new();
        let mut excluded = Vec::new();
        for class in 0..CLASSES {
            pool.extend((0..PER_CLASS).map(|n| image(class, &format!("p{class}-{n}"))));
            for n in 0..PLANTED {
                let name = format!("p{class}-{n}");
                let same = image(class, &name);
                pool.push(Plant { file: format!("{class}/same-{name}.png"), ..same });
                let larger = n == 1;
                pool.push(Plant {
                    file: format!("{class}/edit-{name}.png"),
                    content: format!("edit of {name}"),
                    vector: vector(class, &name, Some("edit")),
                    class,
                    width: if larger { 200 } else { 50 },
                });
                let test = format!("t{class}-{n}");
                excluded.push(image(class, &test));
                pool.push(Plant {
                    file: format!("{class}/leak-{test}.png"),
                    content: format!("leak of {test}"),
                    vector: vector(class, &test, Some("leak")),
                    class,
                    width: 100,
                });
            }
            excluded.extend((PLANTED..6).map(|n| image(class, &format!("t{class}-{n}"))));
            if class < 3 {
                seeds.extend((0..5).map(|n| image(class, &format!("s{class}-{n}"))));
            }
        }
        world.make("pool", pool);
        world.make("seeds", seeds);
        world.make("tests", excluded);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn collections(&self) -> Collections {
        Collections::new(self.home.path())
    }

    fn make(&self, name: &str, images: Vec<Plant>) {
        let collections = self.collections();
        let mut collection =
            collections.create(name, &identity(), CreateOptions::default()).expect("create");
        for plant in images {
            self.put(&mut collection, name, plant);
        }
        collection.finish().expect("finish");
    }

    fn put(&self, collection: &mut Collection, name: &str, plant: Plant) {
        let path = self.path("files").join(name).join(&plant.file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("create");
        std::fs::write(&path, &plant.content).expect("write");
        let payload =
            Payload::from([("label".to_owned(), format!("class {}", plant.class).into())]);
        let image = NewImage {
            path: Locator::from(path.as_path()),
            sha256: ContentHash::of(plant.content.as_bytes()),
            // Never the file's own: every check reads it.
            stamp: FileStamp { size: plant.content.len() as u64, mtime_ns: 1 },
            width: plant.width,
            height: 100,
            warning: None,
            payload,
        };
        collection.put(image, &plant.vector).expect("put");
    }

    /// Adds one image of a class.
    pub fn add(&self, collection: &str, class: u64, name: &str) {
        let mut open = self.collections().open(collection).expect("open");
        self.put(&mut open, collection, image(class, name));
        open.finish().expect("finish");
    }

    pub fn set(&self, collection: &str) -> ImageSet {
        let open = self.collections().open(collection).expect("open");
        ImageSet::new(collection, open.view()).expect("set")
    }

    pub fn sources(&self) -> Sources {
        Sources {
            pool: self.set("pool"),
            seeds: vec![self.set("seeds")],
            excluded: vec![self.set("tests")],
        }
    }

    /// For tests that open the pool themselves; its place is to be filled.
    pub fn sources_without_pool(&self) -> Sources {
        let seeds = self.set("seeds");
        Sources { pool: seeds.clone(), seeds: vec![seeds], excluded: vec![self.set("tests")] }
    }

    pub fn run(&self, folder: &str, config: &CurateConfig) -> Result<RunInfo, IndexerError> {
        curate(&self.path(folder), &self.sources(), config, &mut |_| {})
    }
}

pub fn curate(
    folder: &Path,
    sources: &Sources,
    config: &CurateConfig,
    on_event: &mut dyn FnMut(CurateEvent<'_>),
) -> Result<RunInfo, IndexerError> {
    curate::run(folder, sources, config, on_event, &AtomicBool::new(false))
}

pub fn config(retrieve: Retrieve) -> CurateConfig {
    CurateConfig {
        random_seed: 7,
        steps: vec![
            Step::SelfDedup(SelfDedup { threshold: Some(THRESHOLD), ..SelfDedup::default() }),
            Step::RelativeDedup(RelativeDedup {
                threshold: Some(THRESHOLD),
                ..RelativeDedup::default()
            }),
            Step::Retrieve(retrieve),
        ],
    }
}

pub fn sample() -> CurateConfig {
    config(Retrieve { k: 6, ..Retrieve::default() })
}

pub fn cluster() -> CurateConfig {
    config(Retrieve {
        method: Method::Cluster,
        clusters: Some(CLASSES as usize),
        ..Retrieve::default()
    })
}

/// Every step there is.
pub fn everything() -> CurateConfig {
    let mut config = cluster();
    config.steps.push(Step::SemDedup(SemDedup { threshold: Some(0.7), ..SemDedup::default() }));
    config.steps.push(Step::Balance(Balance {
        target: 20,
        levels: vec![9, 3],
        resamplings: 2,
        ..Balance::default()
    }));
    config
}

/// Bytes of every file of a run, by path.
pub fn bytes_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(bytes_of(&path));
        } else {
            let bytes = std::fs::read(&path).expect("read");
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

/// The same, below the folder: for comparing two.
pub fn relative_bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let strip = |(path, bytes): (PathBuf, Vec<u8>)| {
        (path.strip_prefix(folder).expect("below").to_path_buf(), bytes)
    };
    bytes_of(folder).into_iter().map(strip).collect()
}

pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (relative_bytes(a), relative_bytes(b));
    let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        files.iter().map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(names(&a), names(&b));
    for ((path, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{} differs", path.display());
    }
}

/// File name of a path without its extension.
pub fn stem(path: &Locator) -> String {
    path.to_path().file_stem().expect("a name").to_string_lossy().into_owned()
}

/// The class that an image's folder says.
pub fn class(row: &LedgerRow) -> u64 {
    let path = row.path.to_path();
    let folder = path.parent().and_then(Path::file_name).expect("a folder");
    folder.to_string_lossy().parse().expect("a class")
}
