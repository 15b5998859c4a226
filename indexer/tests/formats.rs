//! Collections that earlier releases wrote. Each was made by the release itself.

use std::path::Path;

use engine::Embedding;
use indexer::{Collections, FORMAT_VERSION, ImageId, Locator};

/// Puts the committed collection of a format into a new home.
fn unpacked(format: u32) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("temporary folder");
    let archive = fixtures::path(&format!("collections/format-{format}.tar.gz"));
    let file = std::fs::File::open(archive).expect("a committed collection");
    tar::Archive::new(flate2::read::GzDecoder::new(file))
        .unpack(home.path().join("collections"))
        .expect("unpacks");
    home
}

/// The collection was made of six pictures, of which the second was replaced later, a damaged one
/// and a text.
fn assert_is_whole(home: &Path) {
    let collection = Collections::new(home).open("one").expect("opens");
    assert_eq!(collection.manifest().format_version, FORMAT_VERSION);
    let images: Vec<_> = collection.images().collect::<Result<_, _>>().expect("records");
    let paths: Vec<String> = images.iter().map(|(_, record)| record.path.to_string()).collect();
    assert_eq!(paths, (1..=6).map(|n| format!("/pictures/0{n}.jpg")).collect::<Vec<_>>());
    let ids: Vec<u64> = images.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5], "a replaced picture keeps its id");
    let failures = collection.failures().expect("failures");
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].path.to_string(), "/pictures/broken.png");
    let notes = Locator::from(Path::new("/pictures/notes.txt"));
    assert!(collection.known(&notes).expect("known").is_some(), "tried before");

    for (id, record) in &images {
        let query: Embedding = collection.embedding(*id, record).expect("embedding");
        let hits = collection.search(&query, 3).expect("search");
        assert_eq!((hits[0].id, hits.len()), (*id, 3));
        assert!((hits[0].similarity - 1.0).abs() < 1e-3);
        assert_eq!(collection.with_content(&record.sha256).expect("by content"), [*id]);
    }
    assert_eq!(collection.manifest().images, 6);
    assert_eq!(collection.manifest().failed, 1);
}

#[test]
fn a_collection_of_format_1_opens_and_stays_open() {
    let home = unpacked(1);
    assert_is_whole(home.path());
    // What it was before is gone, and opening again finds the new one.
    let folder = home.path().join("collections/one");
    for old in ["catalog", "vectors", "ann", "next"] {
        assert!(!folder.join(old).exists(), "{old}");
    }
    assert_is_whole(home.path());
}

#[test]
fn an_interrupted_change_of_format_is_begun_again() {
    let home = unpacked(1);
    let folder = home.path().join("collections/one");
    std::fs::create_dir_all(folder.join("next/vectors")).expect("create");
    std::fs::write(folder.join("next/vectors/shard-00000.f16"), b"half").expect("write");
    assert_is_whole(home.path());

    // Interrupted after the manifest was replaced, before the old data was removed.
    std::fs::create_dir_all(folder.join("vectors")).expect("create");
    std::fs::write(folder.join("vectors/shard-00000.f16"), b"old").expect("write");
    std::fs::create_dir_all(folder.join("data-000000")).expect("create");
    assert_is_whole(home.path());
    assert!(!folder.join("vectors").exists() && !folder.join("data-000000").exists());
}

#[test]
fn ids_are_not_given_twice_after_a_change_of_format() {
    let home = unpacked(1);
    let mut collection = Collections::new(home.path()).open("one").expect("opens");
    assert!(collection.remove(ImageId(5)).expect("remove"));
    collection.commit().expect("commit");
    let (id, record) = collection.images().next().expect("an image").expect("a record");
    let embedding = collection.embedding(id, &record).expect("embedding");
    let image = indexer::NewImage {
        path: Locator::from(Path::new("/pictures/07.jpg")),
        sha256: record.sha256.clone(),
        stamp: record.stamp,
        width: 1,
        height: 1,
        warning: None,
        payload: indexer::Payload::new(),
    };
    assert_eq!(collection.put(image, &embedding).expect("put"), ImageId(6));
}
