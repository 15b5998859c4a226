//! Folders into collections and back, with an embedder that needs no weights.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, RgbImage, decode};
use image::Rgb;
use indexer::pipeline::Skipped;
use indexer::{
    Collection, Collections, CreateOptions, Hit, IndexerError, IngestEvent, IngestOptions,
    IngestReport, ingest,
};

struct Case {
    home: tempfile::TempDir,
    pictures: PathBuf,
    embedder: ThumbnailEmbedder,
}

/// A picture of coloured squares that only this number gives.
fn squares(number: u32) -> RgbImage {
    RgbImage::from_fn(96, 96, |x, y| {
        let mut h = (x / 12 * 31 + y / 12 * 17 + number * 101).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
    })
}

impl Case {
    fn new(pictures: u32) -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let folder = home.path().join("pictures");
        std::fs::create_dir_all(&folder).expect("create");
        let pictures_folder = folder.canonicalize().expect("canonical");
        let case = Self { home, pictures: pictures_folder, embedder: ThumbnailEmbedder::default() };
        for number in 0..pictures {
            case.write(number, number);
        }
        case
    }

    fn path(&self, number: u32) -> PathBuf {
        self.pictures.join(format!("{number:03}.png"))
    }

    fn write(&self, number: u32, content: u32) {
        squares(content).save(self.path(number)).expect("save");
    }

    fn collections(&self) -> Collections {
        Collections::new(self.home.path())
    }

    fn create(&self, ann_from: Option<u64>) -> Collection {
        let options = CreateOptions { ann_from, ..CreateOptions::default() };
        self.collections().create("c", self.embedder.identity(), options).expect("create")
    }

    fn open(&self) -> Collection {
        self.collections().open("c").expect("open")
    }

    fn ingest(&self, collection: &mut Collection, options: IngestOptions) -> IngestReport {
        let sources = [self.pictures.clone()];
        let cancel = AtomicBool::new(false);
        ingest(collection, &self.embedder, &sources, options, &mut |_| {}, &cancel).expect("ingest")
    }

    fn query(&self, content: u32) -> Embedding {
        let pixels = self.embedder.prepare(&squares(content)).expect("prepare");
        self.embedder.embed(&[pixels]).expect("embed").remove(0)
    }

    fn best(&self, collection: &Collection, content: u32) -> Hit {
        collection.search(&self.query(content), 3).expect("search").remove(0)
    }

    /// Every picture is found by its own content, first and alone with similarity 1.
    fn assert_finds(&self, collection: &Collection, contents: impl Iterator<Item = (u32, u32)>) {
        for (number, content) in contents {
            let hit = self.best(collection, content);
            assert_eq!(hit.record.path.to_path(), self.path(number));
            assert!((hit.similarity - 1.0).abs() < 1e-4, "{}", hit.similarity);
        }
    }
}

#[test]
fn only_what_is_new_or_changed_is_embedded_again() {
    let case = Case::new(40);
    let mut collection = case.create(None);
    let report = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!((report.added, report.updated, report.unchanged), (40, 0, 0));
    case.assert_finds(&collection, (0..40).map(|n| (n, n)));
    let id = case.best(&collection, 7).id;
    drop(collection);

    let mut collection = case.open();
    let report = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!((report.added, report.updated, report.unchanged), (0, 0, 40));

    case.write(7, 107);
    case.write(40, 40);
    // Touched: other time, same content.
    let touched = std::fs::File::options().append(true).open(case.path(3)).expect("open");
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touch");
    let dry = IngestOptions { dry_run: true, ..IngestOptions::default() };
    assert_eq!(case.ingest(&mut collection, dry).would_read, [3, 7, 40].map(|n| case.path(n)));
    let report = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!((report.added, report.updated, report.unchanged), (1, 1, 39));
    drop(collection);

    let collection = case.open();
    assert_eq!(collection.len(), 41);
    let contents = (0..41).map(|n| (n, if n == 7 { 107 } else { n }));
    case.assert_finds(&collection, contents);
    assert_eq!(case.best(&collection, 107).id, id, "a changed picture keeps its id");
    assert!(case.best(&collection, 7).similarity < 0.99, "the old content is gone");
    assert_eq!(collection.manifest().images, 41);
}

#[test]
fn bad_files_are_listed_once_and_tried_again_only_when_asked_or_changed() {
    let case = Case::new(3);
    std::fs::write(case.pictures.join("broken.png"), b"\x89PNG\r\n\x1a\n").expect("write");
    std::fs::write(case.pictures.join("empty.jpg"), b"").expect("write");
    std::fs::write(case.pictures.join("words.jpg"), b"no picture at all").expect("write");
    std::fs::write(case.pictures.join("notes.txt"), b"no picture at all").expect("write");
    let mut collection = case.create(None);
    let names = |report: &IngestReport| -> Vec<String> {
        let name = |skipped: &Skipped| {
            skipped.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        report.skipped.iter().map(name).collect()
    };
    let expected = ["broken.png", "empty.jpg", "words.jpg"];
    let first = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!(names(&first), expected);
    assert_eq!((first.added, first.not_pictures), (3, 1));
    assert_eq!(collection.failures().expect("failures").len(), 3);
    assert_eq!(collection.manifest().failed, 3);

    // Known failures are told again but not read again.
    let second = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!(second.skipped, first.skipped);
    squares(50).save(case.pictures.join("broken.png")).expect("save");
    let third = case.ingest(&mut collection, IngestOptions::default());
    assert_eq!((third.added, names(&third)), (1, vec!["empty.jpg".into(), "words.jpg".into()]));

    let mut tried = 0;
    let retry = IngestOptions { retry_failed: true, ..IngestOptions::default() };
    let sources = [case.pictures.clone()];
    let mut count = |event: IngestEvent<'_>| {
        if let IngestEvent::Listed { to_read } = event {
            tried = to_read;
        }
    };
    let cancel = AtomicBool::new(false);
    ingest(&mut collection, &case.embedder, &sources, retry, &mut count, &cancel).expect("ingest");
    assert_eq!(tried, 3, "the two failures and the text file");

    // A picture that becomes unreadable is gone, not served from memory.
    std::fs::write(case.path(1), b"\x89PNG\r\n\x1a\nxxxx").expect("write");
    case.ingest(&mut collection, IngestOptions::default());
    assert!(case.best(&collection, 1).similarity < 0.99);
    drop(collection);
    assert_eq!(case.open().len(), 3);
}

#[test]
fn a_stopped_run_leaves_a_collection_that_the_next_one_completes() {
    let case = Case::new(200);
    let mut collection = case.create(None);
    let cancel = AtomicBool::new(false);
    let mut done = 0;
    let mut stop = |event: IngestEvent<'_>| {
        if let IngestEvent::Done = event {
            done += 1;
            cancel.store(done >= 30, Ordering::Relaxed);
        }
    };
    let sources = [case.pictures.clone()];
    let options = IngestOptions::default();
    let report = ingest(&mut collection, &case.embedder, &sources, options, &mut stop, &cancel);
    let report = report.expect("ingest");
    assert!(report.cancelled && (30..200).contains(&report.added), "{}", report.added);
    drop(collection);

    let mut collection = case.open();
    assert_eq!(collection.len(), report.added);
    case.assert_finds(&collection, (0..report.added as u32).map(|n| (n, n)));
    let rest = case.ingest(&mut collection, options);
    assert_eq!((rest.added, rest.unchanged), (200 - report.added, report.added));
    case.assert_finds(&collection, (0..200).step_by(17).map(|n| (n, n)));
}

#[test]
fn the_same_pictures_give_the_same_collection() {
    let listing = |case: &Case| -> Vec<(u64, String)> {
        let mut collection = case.create(None);
        case.ingest(&mut collection, IngestOptions::default());
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let images = collection.images().map(|image| {
            let (id, record) = image.expect("record");
            (id.0, name(&record.path.to_path()))
        });
        images.collect()
    };
    let first = listing(&Case::new(100));
    assert_eq!(first.len(), 100);
    assert_eq!(first, listing(&Case::new(100)));
}

#[test]
fn approximate_search_finds_the_same_and_catches_up() {
    let case = Case::new(150);
    let mut collection = case.create(Some(100));
    case.ingest(&mut collection, IngestOptions::default());
    let snapshot = case.home.path().join("collections/c/data-000001/ann/base.hnsw");
    assert!(snapshot.exists());
    case.assert_finds(&collection, (0..150).map(|n| (n, n)));
    drop(collection);

    // A snapshot older than the vectors, then a damaged one, then none.
    let old = std::fs::read(&snapshot).expect("read");
    case.write(150, 150);
    case.write(5, 305);
    case.ingest(&mut case.open(), IngestOptions::default());
    let contents = || (0..151).map(|n| (n, if n == 5 { 305 } else { n }));
    std::fs::write(&snapshot, &old).expect("write");
    case.assert_finds(&case.open(), contents());
    std::fs::write(&snapshot, &old[..old.len() / 2]).expect("write");
    case.assert_finds(&case.open(), contents());
    std::fs::remove_file(&snapshot).expect("remove");
    case.assert_finds(&case.open(), contents());
}

#[test]
fn derived_data_follows_when_the_last_commit_came_early() {
    // 1,000 images are committed on the way, so that nothing is left for the end.
    let case = Case::new(0);
    squares(1).save(case.path(0)).expect("save");
    squares(2).save(case.path(1)).expect("save");
    let mut collection = case.create(None);
    case.ingest(&mut collection, IngestOptions::default());
    let background = collection.manifest().background.clone();
    let image = |n: u32| indexer::NewImage {
        path: Path::new(&format!("/{n}")).into(),
        sha256: indexer::ContentHash::of(&n.to_le_bytes()),
        stamp: indexer::FileStamp { size: 1, mtime_ns: 1 },
        width: 1,
        height: 1,
        warning: None,
        payload: indexer::Payload::new(),
    };
    collection.put(image(7), &case.query(7)).expect("put");
    collection.commit().expect("commit");
    collection.finish().expect("finish");
    assert_ne!(collection.manifest().background, background);
}

#[test]
fn collections_keep_to_one_model_one_process_and_sound_requests() {
    let case = Case::new(2);
    let mut collection = case.create(None);
    case.ingest(&mut collection, IngestOptions::default());
    let message = |result: Result<(), IndexerError>| {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };

    let busy = message(case.collections().open("c").map(drop));
    assert!(busy.contains(&format!("in use by process {}", std::process::id())), "{busy}");

    let mut other = case.embedder.identity().clone();
    other.preprocess = engine::Preprocess::for_size(448).expect("size");
    let mixing = message(collection.check_model(&other));
    assert!(mixing.contains("crop 224") && mixing.contains("crop 448"), "{mixing}");

    let short = Embedding::normalised(vec![1.0; 7]).expect("unit");
    let dimension = message(collection.search(&short, 1).map(drop));
    assert_eq!(dimension, "the vector has 7 values, the collection's have 192");
    assert!(message(collection.search(&case.query(0), 0).map(drop)).contains("k is 0"));
    assert_eq!(collection.search(&case.query(0), 99).expect("search").len(), 2);

    let missing = message(case.collections().open("d").map(drop));
    assert!(missing.contains("no collection `d`") && missing.contains("there are: c"), "{missing}");
    for bad in ["", "a/b", "..", ".x", "a b"] {
        let refused = message(case.collections().open(bad).map(drop));
        assert!(refused.contains("cannot be a collection name"), "{bad}: {refused}");
    }
    let sources = [case.pictures.join("gone")];
    let cancel = AtomicBool::new(false);
    let options = IngestOptions::default();
    let gone = ingest(&mut collection, &case.embedder, &sources, options, &mut |_| {}, &cancel);
    assert!(message(gone.map(drop)).ends_with("no such file or folder"));
}

#[test]
fn percentiles_rise_with_similarity() {
    let case = Case::new(60);
    let mut collection = case.create(None);
    case.ingest(&mut collection, IngestOptions::default());
    let manifest = collection.manifest();
    assert_eq!(manifest.background.len(), 1001);
    assert!(manifest.background.is_sorted());
    assert_eq!(manifest.percentile(1.0), Some(100.0));
    assert_eq!(manifest.percentile(-1.0), Some(0.0));
    let middle = manifest.background[500];
    assert!((manifest.percentile(middle).expect("percentile") - 50.0).abs() < 1.0);
}

#[test]
fn a_newer_format_and_a_damaged_manifest_are_named() {
    let case = Case::new(1);
    drop(case.create(None));
    let path = case.home.path().join("collections/c/manifest.json");
    let sound = std::fs::read_to_string(&path).expect("read");
    let open = || case.collections().open("c").err().map(|e| e.to_string()).unwrap_or_default();
    let newer = sound.replace("\"format_version\": 2", "\"format_version\": 99");
    std::fs::write(&path, newer).expect("write");
    assert!(open().contains("has format 99, this release reads up to 2"), "{}", open());
    std::fs::write(&path, "{").expect("write");
    assert!(open().contains("manifest.json is damaged"), "{}", open());
}

#[test]
fn every_odd_file_is_indexed_or_listed() {
    let Some(shared) = fixtures::shared() else {
        println!("skipped: no shared folder with odd files");
        return;
    };
    let folders = ["odd_image_rs", "odd_pillow", "exif_orientation"];
    let sources: Vec<_> = folders.iter().map(|f| shared.join("images").join(f)).collect();
    let case = Case::new(0);
    let mut collection = case.create(None);
    let cancel = AtomicBool::new(false);
    let options = IngestOptions::default();
    let report = ingest(&mut collection, &case.embedder, &sources, options, &mut |_| {}, &cancel);
    let report = report.expect("ingest");
    let files = indexer::source::list(&sources).expect("list").files;
    assert_eq!(report.added + report.skipped.len() + report.not_pictures, files.len());
    assert!(report.added >= 200, "{}", report.added);
    assert!(report.skipped.iter().all(|skipped| !skipped.reason.is_empty()));

    // The eight orientations of one scene are one picture.
    let decode_options = case.embedder.decode_options();
    for scene in ["Landscape", "Portrait"] {
        let embeddings: Vec<_> = (0..=8)
            .map(|i| {
                let path = shared.join(format!("images/exif_orientation/{scene}_{i}.jpg"));
                let bytes = std::fs::read(path).expect("read");
                let image = decode::decode(&bytes, &decode_options).expect("decode").image;
                let pixels = case.embedder.prepare(&image).expect("prepare");
                case.embedder.embed(&[pixels]).expect("embed").remove(0)
            })
            .collect();
        for other in &embeddings {
            assert!(embeddings[0].similarity(other) > 0.99, "{scene}");
        }
    }
}
