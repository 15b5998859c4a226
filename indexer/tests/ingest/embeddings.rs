//! Vectors that were computed elsewhere.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use engine::{Embedder, ModelIdentity};
use half::f16;
use indexer::metadata::Metadata;
use indexer::source::{EmbeddingOptions, EmbeddingSource};
use indexer::table::{Row, TableShape, TableWriter};
use indexer::{
    Collection, Collections, ContentHash, CreateOptions, IngestOptions, IngestReport, Known,
    Locator, ingest_embeddings,
};
use serde_json::json;

use crate::sources::npy;
use crate::support::Case;

fn open(path: &Path) -> indexer::Result<EmbeddingSource> {
    EmbeddingSource::open(path, &EmbeddingOptions::default())
}

fn run(collection: &mut Collection, source: &mut EmbeddingSource) -> indexer::Result<IngestReport> {
    let (options, cancel) = (IngestOptions::default(), AtomicBool::new(false));
    ingest_embeddings(collection, source, &Metadata::none(), options, &mut |_| {}, &cancel)
}

/// A table as `akin embed` writes it, of a few rows.
fn write_ours(case: &Case, name: &str, rows: usize) -> std::path::PathBuf {
    let path = case.path(name);
    let model = case.embedder.identity().clone();
    let dim = model.dim;
    let mut table =
        TableWriter::create(&path, TableShape { model, patch_tokens: None }).expect("create");
    for row in 0..rows {
        let mut embedding = vec![0.1; dim];
        embedding[row % dim] = 3.0;
        let path = format!("/pictures/{row:05}.png");
        table
            .write(Row {
                sha256: ContentHash::of(path.as_bytes()),
                path: Locator::Text(path),
                width: 7,
                height: 5,
                embedding,
                patch_tokens: Vec::new(),
            })
            .expect("write");
    }
    table.finish().expect("finish");
    path
}

#[test]
fn what_akin_embed_wrote_goes_into_a_collection_of_its_model() {
    for name in ["e.parquet", "e.npy"] {
        let mut case = Case::new();
        let path = write_ours(&case, name, 2500);
        let mut source = open(&path).expect("open");
        assert_eq!(source.identity().fingerprint(), case.embedder.identity().fingerprint());
        let report = run(&mut case.collection, &mut source).expect("ingest");
        assert_eq!(
            (report.added, report.skipped.len()),
            (2500, 0),
            "{name}: {:?}",
            report.skipped.first()
        );
        let at = Locator::Text("/pictures/01234.png".to_owned());
        let (id, record) = case.image_at(&at).expect("image");
        assert_eq!((record.width, record.height), (7, 5));
        assert_eq!(record.sha256, ContentHash::of(b"/pictures/01234.png"));
        assert!(record.payload.is_empty(), "{:?}", record.payload);
        let vector = case.collection.embedding(id, &record).expect("vector");
        let largest =
            (0..192).max_by(|&a, &b| vector.as_slice()[a].total_cmp(&vector.as_slice()[b]));
        assert_eq!(largest, Some(1234 % 192));
        let report = run(&mut case.collection, &mut open(&path).expect("open")).expect("again");
        assert_eq!((report.unchanged, report.added), (2500, 0));
    }
}

#[test]
fn foreign_vectors_make_a_collection_that_says_so() {
    let case = Case::new();
    let rows = "{\"id\":\"a\",\"year\":2001}\n{\"id\":17}\n{\"year\":3}\n";
    case.write("clip.jsonl", rows.as_bytes());
    let path = case.write("clip.npy", &npy(3, 5));
    let mut source = open(&path).expect("open");
    assert_eq!(source.identity().name, "foreign:clip");
    assert!(source.identity().is_foreign() && !case.embedder.identity().is_foreign());
    let collections = Collections::new(&case.path("home"));
    let mut collection =
        collections.create("f", source.identity(), CreateOptions::default()).expect("create");
    let report = run(&mut collection, &mut source).expect("ingest");
    assert_eq!(report.added, 3, "{report:?}");
    let record = |name: &str| match collection.known(&Locator::Text(name.to_owned())) {
        Ok(Some(Known::Image(id, record))) => (id, record),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(serde_json::to_value(record("a").1.payload).expect("JSON"), json!({"year": 2001}));
    record("17");
    let (id, third) = record("row-000000003");
    let vector = collection.embedding(id, &third).expect("vector");
    let norm: f32 = vector.as_slice().iter().map(|value| value * value).sum();
    assert!((norm - 1.0).abs() < 1e-3, "{norm}");

    // Another file of the same model, another model, another length.
    let mut more = open(&case.write("more.npy", &npy(2, 5))).expect("open");
    assert!(run(&mut collection, &mut more).is_err(), "its name is another");
    more.adopt(&collection.manifest().model, &EmbeddingOptions::default());
    assert_eq!(run(&mut collection, &mut more).expect("adopted").added, 2);
    let mut other = open(&case.write("other.npy", &npy(2, 6))).expect("open");
    other.adopt(&collection.manifest().model, &EmbeddingOptions::default());
    let error = run(&mut collection, &mut other).expect_err("another length").to_string();
    assert!(error.contains('6') && error.contains('5'), "{error}");
    let named = ModelIdentity::foreign("clip", 5);
    assert_eq!(named.fingerprint(), collection.manifest().fingerprint);
}

#[test]
fn half_and_double_precision_are_read_and_bad_rows_are_listed() {
    let case = Case::new();
    let header = |kind: &str, rows: usize| {
        let text =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, 2), }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes
    };
    let values = [3.0, 4.0, 0.0, 0.0, f32::NAN, 1.0, 1.0, 0.0];
    let mut half = header("<f2", 4);
    half.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
    let mut double = header("<f8", 4);
    double.extend(values.iter().flat_map(|&value| f64::from(value).to_le_bytes()));
    for (name, bytes) in [("half", half), ("double", double)] {
        let mut source = open(&case.write(&format!("{name}.npy"), &bytes)).expect("open");
        let collections = Collections::new(&case.path("home"));
        let mut collection =
            collections.create(name, source.identity(), CreateOptions::default()).expect("create");
        let report = run(&mut collection, &mut source).expect("ingest");
        assert_eq!((report.added, report.skipped.len()), (2, 2), "{report:?}");
        let reasons = format!("{:?}", report.skipped);
        assert!(reasons.contains("zero") && reasons.contains("NaN"), "{reasons}");
    }
    let cut = npy(10, 4);
    let error = open(&case.write("cut.npy", &cut[..cut.len() - 1])).err().expect("cut");
    assert!(error.to_string().contains("does not fit"), "{error}");
    for (name, text) in [("a.npy", "words"), ("a.parquet", "words"), ("a.csv", "words")] {
        assert!(open(&case.write(name, text.as_bytes())).is_err(), "{name}");
    }
    assert!(open(&case.path("gone.npy")).err().expect("gone").to_string().contains("no such file"));
}
