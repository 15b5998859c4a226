//! What is attached to images when they are indexed.

use indexer::metadata::{MAX_PAYLOAD, Metadata, MetadataOptions};
use indexer::source::SourceOptions;
use indexer::{IngestOptions, IngestReport, Locator};
use serde_json::{Value, json};

use crate::support::Case;

fn run(case: &mut Case, options: MetadataOptions) -> IngestReport {
    let folder = case.path("folder");
    let sidecars = options.sidecar;
    let metadata = Metadata::open(options, std::slice::from_ref(&folder)).expect("metadata");
    let sources = SourceOptions { sidecars, ..SourceOptions::default() };
    let mut sources = case.open(&[folder], &sources);
    case.run(&mut sources, &metadata, IngestOptions::default()).expect("ingest")
}

fn of(case: &Case, name: &str) -> Value {
    let locator = Locator::from(case.path("folder").join(name).as_path());
    serde_json::to_value(case.payload(&locator)).expect("JSON")
}

#[test]
fn rows_of_a_table_are_attached_and_changed_without_reading_pictures() {
    let mut case = Case::new();
    case.pictures("folder", 0, 3);
    let table = |case: &Case, text: &str| {
        let table = Some(case.write("t.csv", text.as_bytes()));
        MetadataOptions { table, ..MetadataOptions::default() }
    };
    let options = table(&case, "path,rating,tag\n000.png,5,\nfolder/001.png,,x\ngone.png,1,\n");
    let report = run(&mut case, options);
    assert_eq!((report.added, report.unmatched.rows), (3, 1), "{report:?}");
    assert_eq!(report.unmatched.first, ["gone.png"]);
    assert_eq!(of(&case, "000.png"), json!({"rating": 5}));
    assert_eq!(of(&case, "001.png"), json!({"tag": "x"}));

    // What others have attached stays, what the table says is replaced.
    let locator = Locator::from(case.path("folder/000.png").as_path());
    let (id, record) = case.image_at(&locator).expect("image");
    let mut payload = record.payload.clone();
    payload.insert("label".to_owned(), "cat".into());
    case.collection.set_payload(id, record, payload).expect("set");
    case.collection.commit().expect("commit");
    let options = table(&case, "path,rating,tag\n000.png,4,\nfolder/001.png,,x\n");
    let report = run(&mut case, options.clone());
    assert_eq!((report.unchanged, report.payload_updated, report.unmatched.rows), (3, 1, 0));
    assert_eq!(of(&case, "000.png"), json!({"rating": 4, "label": "cat"}));
    assert_eq!(run(&mut case, options.clone()).payload_updated, 0);

    // Payload belongs to the content: with another picture, only what is said now is attached.
    case.write("folder/000.png", &crate::support::png(77));
    assert_eq!(run(&mut case, options).updated, 1);
    assert_eq!(of(&case, "000.png"), json!({"rating": 4}));
}

#[test]
fn files_beside_the_pictures_are_attached_and_are_no_candidates() {
    let mut case = Case::new();
    case.pictures("folder", 0, 4);
    case.write("folder/000.png.json", br#"{"a": 1}"#);
    case.write("folder/001.json", br#"{"a": [2, 3]}"#);
    case.write("folder/002.json", b"broken");
    let options = MetadataOptions { sidecar: true, ..MetadataOptions::default() };
    let report = run(&mut case, options.clone());
    assert_eq!((report.added, report.not_pictures), (3, 0), "{report:?}");
    assert!(report.skipped[0].reason.contains("002.json beside it"), "{report:?}");
    assert_eq!(of(&case, "001.png"), json!({"a": [2, 3]}));
    case.write("folder/000.png.json", br#"{"a": null, "b": true}"#);
    let report = run(&mut case, options);
    assert_eq!((report.unchanged, report.payload_updated), (3, 1), "{report:?}");
    assert_eq!(of(&case, "000.png"), json!({"b": true}));
}

#[test]
fn too_much_payload_is_refused_with_both_numbers() {
    let mut case = Case::new();
    case.pictures("folder", 0, 1);
    let text = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_PAYLOAD));
    case.write("folder/000.json", text.as_bytes());
    let options = MetadataOptions { sidecar: true, ..MetadataOptions::default() };
    let report = run(&mut case, options);
    assert_eq!((report.added, report.skipped.len()), (0, 1));
    assert!(report.skipped[0].reason.contains("65536"), "{report:?}");
}

#[test]
fn exif_is_attached_to_what_is_read() {
    use exif::experimental::Writer;
    use exif::{Field, In, Tag};
    let mut case = Case::new();
    let mut writer = Writer::new();
    let make = exif::Value::Ascii(vec![b"Maker".to_vec()]);
    let field = Field { tag: Tag::Make, ifd_num: In::PRIMARY, value: make };
    writer.push_field(&field);
    let mut tiff = std::io::Cursor::new(Vec::new());
    writer.write(&mut tiff, false).expect("write");
    // An `eXIf` chunk after the header of the PNG.
    let png = crate::support::png(1);
    let mut chunk = b"eXIf".to_vec();
    chunk.extend(tiff.into_inner());
    let mut bytes = png[..33].to_vec();
    bytes.extend((chunk.len() as u32 - 4).to_be_bytes());
    bytes.extend(&chunk);
    bytes.extend(crc32fast::hash(&chunk).to_be_bytes());
    bytes.extend(&png[33..]);
    case.write("folder/a.png", &bytes);
    let options = MetadataOptions { exif: true, ..MetadataOptions::default() };
    assert_eq!(run(&mut case, options).added, 1);
    assert_eq!(of(&case, "a.png"), json!({"exif.make": "Maker"}));
}
