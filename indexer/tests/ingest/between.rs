//! Changes that others make while a run is at work.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use indexer::metadata::Metadata;
use indexer::source::{self, SourceOptions};
use indexer::{
    Collection, ImageId, IngestEvent, IngestOptions, IngestReport, Locator, Payload, ingest_sources,
};

use crate::support::{Case, png};

/// Indexes a folder and lets `between` change the collection; it is told how many files are done.
fn index(
    case: &mut Case,
    folder: &PathBuf,
    mut between: impl FnMut(&mut Collection, usize),
) -> IngestReport {
    let mut sources =
        source::open(std::slice::from_ref(folder), &SourceOptions::default()).expect("open");
    let mut done = 0;
    let mut on_event = |event: IngestEvent<'_>| match event {
        IngestEvent::Done => done += 1,
        IngestEvent::Between(collection) => between(collection, done),
        _ => {}
    };
    ingest_sources(
        &mut case.collection,
        &case.embedder,
        &mut sources,
        &Metadata::none(),
        IngestOptions::default(),
        &mut on_event,
        &AtomicBool::new(false),
    )
    .expect("ingest")
}

fn payload(text: &str) -> Payload {
    serde_json::from_str(text).expect("JSON")
}

fn attach(collection: &mut Collection, id: ImageId, text: &str) {
    let record = collection.record(id).expect("catalog").expect("image");
    collection.set_payload(id, record, payload(text)).expect("noted");
    collection.commit().expect("commit");
}

#[test]
fn what_is_removed_or_changed_while_files_are_read_stays_so() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 8);
    index(&mut case, &folder, |_, _| {});
    let id = |case: &Case, name: &str| case.image(&folder.join(name)).expect("image").0;
    let ids = [id(&case, "000.png"), id(&case, "001.png"), id(&case, "002.png")];
    // All of them are looked at again: touched, changed, moved, and copied.
    let touch = |name: &str| {
        let file = std::fs::File::options().write(true).open(folder.join(name)).expect("open");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touch");
    };
    touch("000.png");
    touch("001.png");
    std::fs::write(folder.join("002.png"), png(102)).expect("write");
    std::fs::rename(folder.join("003.png"), folder.join("moved.png")).expect("rename");
    std::fs::rename(folder.join("004.png"), folder.join("moved-too.png")).expect("rename");
    let (moved, moved_too) = (id(&case, "003.png"), id(&case, "004.png"));
    std::fs::copy(folder.join("005.png"), folder.join("copy.png")).expect("copy");
    let original = id(&case, "005.png");

    let mut calls = 0;
    let report = index(&mut case, &folder, |collection, done| {
        // All are read, the first alone is noted.
        if done != 1 || calls > 0 {
            return;
        }
        calls += 1;
        attach(collection, ids[0], r#"{"label": "mine"}"#);
        attach(collection, moved, r#"{"label": "moved"}"#);
        for gone in [ids[1], ids[2], moved_too, original] {
            assert!(collection.remove(gone).expect("remove"));
        }
        collection.commit().expect("commit");
    });
    assert_eq!((calls, report.skipped.len()), (1, 0));
    let of = |name: &str| case.image(&folder.join(name));
    assert_eq!(of("000.png").expect("image").1.payload, payload(r#"{"label": "mine"}"#));
    for removed in ["001.png", "002.png", "003.png", "004.png", "005.png", "moved-too.png"] {
        assert_eq!(of(removed), None, "{removed}");
    }
    let (at, record) = of("moved.png").expect("moved");
    assert_eq!((at, record.payload), (moved, payload(r#"{"label": "moved"}"#)));
    // A file of its own, whatever became of the one with the same content.
    assert!(case.looks_like(&Locator::from(folder.join("copy.png").as_path()), 5));
    assert_eq!(case.collection.len(), 5, "000, 006, 007, moved, copy");

    // What was removed and is still in the folder comes back, as new.
    let report = index(&mut case, &folder, |_, _| {});
    assert_eq!(report.added, 4, "{report:?}");
    let (again, _) = case.image(&folder.join("001.png")).expect("image");
    assert!(again.0 > ids[1].0);
}

#[test]
fn what_is_added_while_files_are_read_is_there_beside_them() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 40);
    let other = case.pictures("other", 500, 1).join("000.png");
    let (mut added, mut committed) = (Vec::new(), 0);
    let image = indexer::NewImage {
        path: Locator::from(other.as_path()),
        sha256: indexer::ContentHash::of(b"x"),
        stamp: indexer::FileStamp { size: 1, mtime_ns: 1 },
        width: 48,
        height: 48,
        warning: None,
        payload: Payload::new(),
    };
    let vector = engine::Embedding::normalised(vec![1.0; 192]).expect("finite");
    let report = index(&mut case, &folder, |collection, _| {
        let path = Locator::from(PathBuf::from(format!("/upload/{}.png", added.len())).as_path());
        let image = indexer::NewImage { path, ..image.clone() };
        added.push(collection.put(image, &vector).expect("put"));
        collection.commit().expect("commit");
        assert!(collection.len() > committed, "durable at once");
        committed = collection.len();
    });
    assert_eq!(report.added, 40);
    assert!(added.len() > 2);
    assert_eq!(case.collection.len(), 40 + added.len());
    let ids: std::collections::BTreeSet<_> = added.iter().collect();
    assert_eq!(ids.len(), added.len(), "no id is given twice");
}
