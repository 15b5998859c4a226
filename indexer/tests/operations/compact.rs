use indexer::{ImageId, Precision, StorageChoices};

use crate::{Case, embedding, error, folder_bytes, put, state};

#[test]
fn dead_rows_go_and_all_else_stays() {
    let case = Case::new();
    let before = state(&case.open());
    let bytes = folder_bytes(&case.folder().join("data-000001/vectors"));
    let report = case.with(|progress| case.collections().compact("c", false, progress));
    let report = report.expect("compact");
    assert!(report.is_rewritten);
    assert_eq!((report.images, report.dead_rows), (25, 25));

    assert!(!case.folder().join("data-000001").exists(), "the old data is gone");
    let data = case.folder().join("data-000002");
    assert_eq!(folder_bytes(&data.join("vectors")) - 16, (bytes - 16) / 2);
    assert_eq!(report.bytes_after, case.collections().usage("c").expect("usage").total());
    assert!(data.join("ann/base.hnsw").exists(), "the graph is there before it is needed");
    let mut collection = case.open();
    assert_eq!(state(&collection), before);
    assert_eq!(collection.manifest().rows, 25);
    assert!(collection.view().is_approximate());
    assert_eq!(collection.search(&embedding(7), 1).expect("search")[0].id, ImageId(7));
    // Ids of removed images are not given again.
    assert_eq!(put(&mut collection, 77, 77), ImageId(30));
    drop(collection);
    case.assert_sound("c");

    let again = case.with(|progress| case.collections().compact("c", false, progress));
    let again = again.expect("compact");
    assert!(!again.is_rewritten && case.folder().join("data-000002").exists());
    let forced = case.with(|progress| case.collections().compact("c", true, progress));
    assert!(forced.expect("compact").is_rewritten);
    assert!(case.folder().join("data-000003").exists());
}

#[test]
fn stopping_leaves_the_collection_as_it_was() {
    let case = Case::new();
    let before = state(&case.open());
    let result = case
        .stopped_at("copying images", |progress| case.collections().compact("c", false, progress));
    assert!(error(result).contains("stopped; the collection is as it was"));
    assert!(!case.folder().join("next").exists());
    assert_eq!(state(&case.open()), before);
}

#[test]
fn what_is_half_written_is_dropped_at_the_next_open() {
    let case = Case::new();
    let before = state(&case.open());
    // As a kill leaves it: copied in part, or whole and renamed but not yet in the manifest.
    for half in ["next", "data-000002"] {
        let from = case.folder().join("data-000001/vectors");
        std::fs::create_dir_all(case.folder().join(half).join("vectors")).expect("create");
        let shard = "shard-00000.f16";
        std::fs::copy(from.join(shard), case.folder().join(half).join("vectors").join(shard))
            .expect("copy");
    }
    assert_eq!(state(&case.open()), before);
    assert!(!case.folder().join("next").exists() && !case.folder().join("data-000002").exists());
    case.with(|progress| case.collections().compact("c", false, progress)).expect("compact");
    assert_eq!(state(&case.open()), before);
}

#[test]
fn damage_is_not_copied() {
    let case = Case::new();
    let shard = case.folder().join("data-000001/vectors/shard-00000.f16");
    let mut bytes = std::fs::read(&shard).expect("read");
    let stride = 8 + 2 * 192 + 4;
    bytes[16 + 25 * stride + 99] ^= 1;
    std::fs::write(&shard, bytes).expect("write");
    let result = case.with(|progress| case.collections().compact("c", false, progress));
    assert!(error(result).contains("fails its checksum; run `akin collection check --repair`"));
    assert!(!case.folder().join("next").exists() && case.folder().join("data-000001").exists());
}

#[test]
fn a_collection_in_use_or_unknown_is_refused() {
    let case = Case::new();
    let open = case.open();
    let result = case.with(|progress| case.collections().compact("c", false, progress));
    assert!(error(result).contains("in use"));
    drop(open);
    let result = case.with(|progress| case.collections().compact("d", false, progress));
    assert!(error(result).contains("there are: c"));
}

#[test]
fn stored_vectors_are_kept_otherwise_without_a_model() {
    let case = Case::empty();
    let mut collection = case.create(Precision::F32);
    for number in 0..15 {
        put(&mut collection, number, number);
    }
    collection.finish().expect("finish");
    let before = state(&collection);
    drop(collection);
    let change = |precision, ann_from| {
        let choices = StorageChoices { precision, ann_from };
        case.with(|progress| case.collections().store_otherwise("c", choices, progress))
    };
    assert!(!change(Some(Precision::F32), Some(10)).expect("same"));
    assert!(change(None, Some(1000)).expect("no graph"));
    let collection = case.open();
    assert!(!collection.view().is_approximate());
    assert_eq!(state(&collection), before);
    drop(collection);

    assert!(change(Some(Precision::F16), Some(5)).expect("f16"));
    let collection = case.open();
    assert!(collection.view().is_approximate());
    assert_eq!(collection.manifest().precision, Precision::F16);
    let hit = collection.search(&embedding(3), 1).expect("search").remove(0);
    assert!(hit.id == ImageId(3) && hit.similarity > 0.9999);
    drop(collection);
    case.assert_sound("c");
    assert!(error(change(Some(Precision::F32), None)).contains("cannot become more exact"));
    assert_eq!(case.open().manifest().precision, Precision::F16);
}

#[test]
fn a_collection_is_compacted_while_it_is_searched() {
    let case = Case::new();
    let mut collection = case.open();
    let (before, reader, view) = (state(&collection), collection.reader(), collection.view());
    let found = collection.search(&embedding(7), 3).expect("search");
    let compacted = case.with(|progress| collection.compact(false, progress));
    let (report, old) = compacted.expect("compact");
    let old = old.expect("old data");
    assert_eq!((report.images, report.dead_rows, report.is_rewritten), (25, 25, true));
    assert!(report.bytes_after < report.bytes_before, "{report:?}");
    // Those who began before see what there was, everybody else the same in less space.
    assert_eq!((view.rows(), reader.view().rows()), (50, 25));
    assert!(reader.view().sequence() > view.sequence(), "filters and cursors are of another state");
    assert!(view.vector(49, view.id_of(49).expect("id")).is_ok());
    assert!(!old.remove(std::time::Duration::ZERO).expect("in use"), "the view uses it");
    assert!(case.folder().join("data-000001").exists());
    drop(view);
    assert_eq!(state(&collection), before);
    let now = collection.search(&embedding(7), 3).expect("search");
    let what = |hits: &[indexer::Hit]| hits.iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(what(&now), what(&found));
    // It is written to as before, and what was written is there when it is opened again.
    assert_eq!(put(&mut collection, 77, 77), ImageId(30));
    let nothing = case.with(|progress| collection.compact(false, progress)).expect("compact");
    assert!(!nothing.0.is_rewritten && nothing.1.is_none());
    let after = state(&collection);
    drop((collection, reader, now, found));
    assert_eq!(state(&case.open()), after);
    assert!(!case.folder().join("data-000001").exists(), "left alone, it goes with the next open");
    case.assert_sound("c");

    let mut collection = case.open();
    assert!(collection.remove(ImageId(0)).expect("remove"));
    let compacted = case.with(|progress| collection.compact(false, progress));
    let old = compacted.expect("compact").1.expect("old data");
    assert!(old.remove(std::time::Duration::from_secs(60)).expect("removed"));
    assert!(!case.folder().join("data-000002").exists());
}

#[test]
fn stopping_leaves_an_open_collection_as_it_was() {
    let case = Case::new();
    let mut collection = case.open();
    let before = state(&collection);
    let stopped = case.stopped_at("copying images", |progress| collection.compact(true, progress));
    assert!(error(stopped).contains("stopped; the collection is as it was"));
    assert_eq!(state(&collection), before);
    put(&mut collection, 78, 78);
    drop(collection);
    case.assert_sound("c");
    assert_eq!(case.open().len(), 26);
}
