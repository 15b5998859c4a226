use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, ModelIdentity, Pixels, RgbImage};
use image::Rgb;
use indexer::{
    Collection, ImageId, IngestOptions, Locator, Payload, Precision, ReindexOptions, ReindexReport,
    Result, ingest,
};

use crate::{Case, error, fail};

/// Another model: the thumbnail, its values in reverse.
#[derive(Debug)]
pub struct Other {
    inner: ThumbnailEmbedder,
    identity: ModelIdentity,
    /// Pictures embedded so far.
    embedded: Mutex<usize>,
    /// Done once, when this many are embedded.
    at: Mutex<Option<(usize, Once)>>,
}

/// Something to do once.
struct Once(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Once")
    }
}

impl Other {
    pub fn new(weights: char) -> Self {
        let inner = ThumbnailEmbedder::default();
        let identity = ModelIdentity {
            name: "other".to_owned(),
            weights_sha256: weights.to_string().repeat(64),
            ..inner.identity().clone()
        };
        Self { inner, identity, embedded: Mutex::new(0), at: Mutex::new(None) }
    }
}

impl Embedder for Other {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, batch: &[Pixels]) -> engine::Result<Vec<Embedding>> {
        let mut embedded = self.embedded.lock().expect("lock");
        *embedded += batch.len();
        let mut at = self.at.lock().expect("lock");
        if at.as_ref().is_some_and(|(count, _)| *embedded >= *count)
            && let Some((_, step)) = at.take()
        {
            step.0();
        }
        let reversed = |embedding: Embedding| {
            Embedding::normalised(embedding.as_slice().iter().rev().copied().collect())
        };
        self.inner.embed(batch)?.into_iter().map(reversed).collect()
    }
}

fn squares(number: u32) -> RgbImage {
    RgbImage::from_fn(48, 48, |x, y| {
        let mut h = (x / 6 * 31 + y / 6 * 17 + number * 101).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
    })
}

fn pictures(case: &Case) -> PathBuf {
    let folder = case.home.path().join("pictures");
    std::fs::create_dir_all(&folder).expect("create");
    folder.canonicalize().expect("canonical")
}

fn picture(case: &Case, number: u32) -> PathBuf {
    pictures(case).join(format!("{number:03}.png"))
}

fn write(case: &Case, number: u32, content: u32) {
    squares(content).save(picture(case, number)).expect("save");
}

fn index(case: &Case, collection: &mut Collection) {
    let options = IngestOptions::default();
    let model = ThumbnailEmbedder::default();
    let sources = [pictures(case)];
    ingest(collection, &model, &sources, options, &mut |_| {}, &AtomicBool::new(false))
        .expect("ingest");
}

/// Pictures 0 to `count`, indexed, each with its number as payload.
pub fn indexed(count: u32) -> Case {
    let case = Case::empty();
    (0..count).for_each(|number| write(&case, number, number));
    let mut collection = case.create(Precision::F16);
    index(&case, &mut collection);
    let images: Vec<_> = collection.images().map(|image| image.expect("image")).collect();
    for (id, record) in images {
        let payload: Payload = [("number".to_owned(), id.0.into())].into();
        collection.set_payload(id, record, payload).expect("payload");
    }
    fail(&mut collection, "/elsewhere/bad.jpg", false);
    collection.finish().expect("finish");
    case
}

fn reindex(case: &Case, model: &Other, options: &ReindexOptions) -> Result<ReindexReport> {
    case.with(|progress| case.collections().reindex("c", model, options, progress))
}

fn plain() -> ReindexOptions {
    ReindexOptions { model_source: Some("other.safetensors".to_owned()), ..Default::default() }
}

/// Every picture is its own nearest under the new model, with its id and payload.
fn assert_moved(case: &Case, numbers: impl Iterator<Item = u32>) {
    let collection = case.open();
    let model = Other::new('1');
    collection.check_model(model.identity()).expect("the new model");
    for number in numbers {
        let pixels = model.prepare(&squares(number)).expect("prepare");
        let query = model.embed(&[pixels]).expect("embed").remove(0);
        let hit = collection.search(&query, 1).expect("search").remove(0);
        assert_eq!(hit.record.path.to_path(), picture(case, number));
        assert_eq!(hit.id, ImageId(u64::from(number)));
        assert_eq!(hit.record.payload["number"], number);
        assert!(hit.similarity > 0.999);
    }
    drop(collection);
    case.assert_sound("c");
    assert!(!case.folder().join("reindex").exists());
}

#[test]
fn every_picture_is_embedded_again_and_keeps_its_id() {
    let case = indexed(20);
    let model = Other::new('1');
    let report = reindex(&case, &model, &plain()).expect("reindex");
    assert_eq!((report.images, report.embedded, report.skipped.len()), (20, 20, 0));
    assert_moved(&case, 0..20);
    let collection = case.open();
    assert_eq!(collection.failures().expect("failures").len(), 1, "failures stay");
    assert_eq!(collection.manifest().model_source.as_deref(), Some("other.safetensors"));
    assert!(collection.view().is_approximate(), "the graph is built");
    let old = collection.check_model(ThumbnailEmbedder::default().identity());
    assert!(error(old).contains("cannot be mixed"));
}

#[test]
fn a_stopped_one_changes_nothing_and_goes_on_where_it_was() {
    let case = indexed(150);
    let before = crate::state(&case.open());
    let model = Other::new('1');
    let stopped = case.stopped_at("embedding", |progress| {
        case.collections().reindex("c", &model, &plain(), progress)
    });
    assert!(error(stopped).contains("the same command goes on from there"));
    assert_eq!(crate::state(&case.open()), before);

    // Ends by itself after some batches, as with Ctrl-C.
    let model = Other::new('1');
    let cancel = std::sync::Arc::new(AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&cancel);
    let stop = move || flag.store(true, std::sync::atomic::Ordering::Relaxed);
    *model.at.lock().expect("lock") = Some((48, Once(Box::new(stop))));
    let result = case.collections().reindex(
        "c",
        &model,
        &plain(),
        &mut indexer::Progress::new(&mut |_| {}, &cancel),
    );
    assert!(error(result).contains("stopped"));
    let first = *model.embedded.lock().expect("lock");
    assert!((48..150).contains(&first), "{first}");
    assert_eq!(crate::state(&case.open()), before);
    assert!(case.folder().join("reindex/target.json").exists());

    let model = Other::new('1');
    let report = reindex(&case, &model, &plain()).expect("reindex");
    assert_eq!(report.images, 150);
    assert_eq!(report.embedded as usize + first, 150, "nothing is computed twice");
    assert_moved(&case, 0..150);
}

#[test]
fn an_unfinished_one_for_another_model_is_not_mixed_in() {
    let case = indexed(70);
    let model = Other::new('1');
    let stop = |progress: &mut indexer::Progress<'_>| {
        case.collections().reindex("c", &model, &plain(), progress)
    };
    assert!(error(case.stopped_at("embedding", stop)).contains("stopped"));
    let text = error(reindex(&case, &Other::new('2'), &plain()));
    assert!(text.contains("is unfinished") && text.contains("--restart"), "{text}");
    let restart = ReindexOptions { restart: true, ..plain() };
    let report = reindex(&case, &Other::new('2'), &restart).expect("reindex");
    assert_eq!(report.embedded, 70);

    assert!(error(case.stopped_at("embedding", stop)).contains("stopped"));
    assert!(case.collections().abandon_reindex("c").expect("abandon"));
    assert!(!case.collections().abandon_reindex("c").expect("abandon"));
    case.assert_sound("c");
}

#[test]
fn what_others_change_meanwhile_is_brought_over() {
    let case = std::sync::Arc::new(indexed(200));
    let model = Other::new('1');
    let meanwhile = std::sync::Arc::clone(&case);
    let change = move || {
        // The collection is not locked while pictures are read.
        let mut collection = meanwhile.open();
        assert_eq!(collection.len(), 200);
        collection.remove(ImageId(5)).expect("remove");
        std::fs::remove_file(picture(&meanwhile, 5)).expect("remove");
        write(&meanwhile, 200, 200);
        index(&meanwhile, &mut collection);
        let id = ImageId(200);
        let record = collection.record(id).expect("read").expect("there");
        let payload: Payload = [("number".to_owned(), 200.into())].into();
        collection.set_payload(id, record, payload).expect("payload");
        let record = collection.record(ImageId(7)).expect("read").expect("there");
        let path = picture(&meanwhile, 907);
        std::fs::rename(record.path.to_path(), &path).expect("rename");
        let stamp = record.stamp;
        collection
            .relocate(ImageId(7), record, Locator::from(path.as_path()), stamp)
            .expect("relocate");
        collection.finish().expect("finish");
    };
    *model.at.lock().expect("lock") = Some((100, Once(Box::new(change))));
    let report = reindex(&case, &model, &plain()).expect("reindex");
    assert_eq!((report.images, report.skipped.len()), (200, 0));
    let collection = case.open();
    assert!(collection.record(ImageId(5)).expect("read").is_none());
    let moved = collection.record(ImageId(7)).expect("read").expect("there");
    assert_eq!(moved.path.to_path(), picture(&case, 907));
    drop(collection);
    assert_moved(&case, (0..=200).filter(|number| ![5, 7].contains(number)));
}

#[test]
fn missing_pictures_become_failures_and_missing_folders_are_not_believed() {
    let case = indexed(10);
    std::fs::remove_file(picture(&case, 3)).expect("remove");
    std::fs::write(picture(&case, 4), b"no picture any more").expect("write");
    let report = reindex(&case, &Other::new('1'), &plain()).expect("reindex");
    assert_eq!((report.images, report.skipped.len()), (8, 2));
    assert!(report.skipped[0].reason.contains("gone"));
    assert_eq!(case.open().failures().expect("failures").len(), 3);
    assert_moved(&case, [0, 1, 2, 5, 9].into_iter());
    // When it comes back it is read, with a new id.
    write(&case, 3, 3);

    let case = indexed(10);
    let before = crate::state(&case.open());
    let away = case.home.path().join("away");
    std::fs::rename(pictures(&case), &away).expect("rename");
    let text = error(reindex(&case, &Other::new('1'), &plain()));
    assert!(text.contains("10 images are missing together with their folder"), "{text}");
    assert!(text.contains("--prune"), "{text}");
    assert_eq!(crate::state(&case.open()), before);
    std::fs::remove_dir_all(pictures(&case)).expect("remove");
    std::fs::rename(&away, case.home.path().join("pictures")).expect("rename");
    assert_eq!(reindex(&case, &Other::new('1'), &plain()).expect("reindex").images, 10);
    assert_moved(&case, 0..10);

    let case = indexed(10);
    std::fs::remove_dir_all(pictures(&case)).expect("remove");
    let prune = ReindexOptions { prune: true, ..plain() };
    let report = reindex(&case, &Other::new('1'), &prune).expect("reindex");
    assert_eq!((report.images, report.skipped.len()), (0, 10));
}

#[test]
fn f32_is_computed_anew_with_the_same_model() {
    let case = indexed(12);
    let options = ReindexOptions { precision: Some(Precision::F32), ..plain() };
    let model = ThumbnailEmbedder::default();
    let report = case.with(|progress| case.collections().reindex("c", &model, &options, progress));
    assert_eq!(report.expect("reindex").embedded, 12);
    let collection = case.open();
    assert_eq!(collection.manifest().precision, Precision::F32);
    let query =
        model.embed(&[model.prepare(&squares(4)).expect("prepare")]).expect("embed").remove(0);
    let hit = collection.search(&query, 1).expect("search").remove(0);
    let stored = collection.embedding(hit.id, &hit.record).expect("embedding");
    assert_eq!(stored.as_slice(), query.as_slice());
    drop(collection);
    case.assert_sound("c");
}

#[test]
fn a_collection_in_use_or_unknown_is_refused() {
    let case = indexed(3);
    let open = case.open();
    assert!(error(reindex(&case, &Other::new('1'), &plain())).contains("in use"));
    drop(open);
    case.collections().delete("c").expect("delete");
    assert!(error(reindex(&case, &Other::new('1'), &plain())).contains("no collection"));
}
