use std::path::Path;
use std::sync::atomic::AtomicBool;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding};

use super::*;
use crate::catalog::Catalog;
use crate::collection::{Collection, CreateOptions, NewImage};
use crate::id::{ContentHash, ImageId};
use crate::locator::Locator;
use crate::record::{self, Failure, FileStamp, Payload, Record, Seen, SeenKind};

const IMAGES: u64 = 30;

struct Case {
    home: tempfile::TempDir,
}

fn embedding(seed: u64) -> Embedding {
    let values = (0..192u64).map(|i| ((i * 31 + seed * 17) % 101) as f32 - 50.0).collect();
    Embedding::normalised(values).expect("finite")
}

fn place(number: u64) -> Locator {
    Locator::from(Path::new(&format!("/pictures/{number}.jpg")))
}

impl Case {
    /// Thirty images, two failures, one replaced image (row 30), a graph.
    fn new() -> Self {
        let case = Self { home: tempfile::tempdir().expect("temporary folder") };
        let model = ThumbnailEmbedder::default();
        let options = CreateOptions { ann_from: Some(10), ..CreateOptions::default() };
        let mut collection =
            case.collections().create("c", model.identity(), options).expect("create");
        for number in (0..IMAGES).chain([3]) {
            case.put(&mut collection, number);
        }
        for (name, not_a_picture) in [("/pictures/bad.jpg", false), ("/notes.txt", true)] {
            let path = Locator::from(Path::new(name));
            let reason = "it is cut".to_owned();
            let stamp = FileStamp { size: 3, mtime_ns: 4 };
            collection.fail(&Failure { path, reason, not_a_picture, stamp }).expect("fail");
        }
        collection.finish().expect("finish");
        case
    }

    fn put(&self, collection: &mut Collection, number: u64) {
        let payload: Payload = serde_json::from_str(&format!(
            r#"{{"group": {}, "name": "n{number}", "tags": ["x", "y"]}}"#,
            number % 3
        ))
        .expect("JSON");
        let image = NewImage {
            path: place(number),
            sha256: ContentHash::of(&number.to_le_bytes()),
            stamp: FileStamp { size: number, mtime_ns: 7 },
            width: 4,
            height: 5,
            warning: None,
            payload,
        };
        collection.put(image, &embedding(number)).expect("put");
        // One by one, so that rows are in the order of calls.
        collection.commit().expect("commit");
    }

    fn collections(&self) -> Collections {
        Collections::new(self.home.path())
    }

    fn folder(&self) -> std::path::PathBuf {
        self.home.path().join("collections/c")
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder().join("data-000001")
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.data().join("catalog")).expect("open")
    }

    fn check(&self, repair: bool) -> CheckReport {
        let cancel = AtomicBool::new(false);
        self.collections()
            .check("c", repair, &mut Progress::new(&mut |_| {}, &cancel))
            .expect("check")
    }

    /// A violation about this subject with this problem is found, repair makes all sound, and these
    /// images are all that is missing then.
    fn assert_repaired(&self, subject: &str, problem: &str, gone: &[u64]) {
        let before = fingerprint_of(&self.folder());
        let report = self.check(false);
        assert_eq!(fingerprint_of(&self.folder()), before, "a check changed files");
        let text = format!("{:#?}", report.violations);
        let is_it = |v: &Violation| v.subject.contains(subject) && v.problem.contains(problem);
        assert!(report.violations.iter().any(is_it), "no `{subject}: {problem}` in {text}");
        assert!(!report.is_sound() && report.actions.is_empty());
        assert!(report.violations.iter().all(|v| v.remedy.contains("--repair")), "{text}");

        let repaired = self.check(true);
        assert!(repaired.is_sound() && !repaired.actions.is_empty(), "{repaired:#?}");
        let again = self.check(false);
        assert!(again.is_sound() && again.notes.is_empty(), "{again:#?}");
        let collection = self.collections().open("c").expect("opens");
        for number in 0..IMAGES {
            let best = collection.search(&embedding(number), 1).expect("search").remove(0);
            let is_there = best.id == ImageId(number);
            assert_eq!(is_there, !gone.contains(&number), "image {number}: {best:?}");
            assert!(!is_there || best.similarity > 0.999);
        }
        assert_eq!(collection.len() as u64, IMAGES - gone.len() as u64);
        assert_eq!(collection.failures().expect("failures").len(), 1);
        let view = collection.view();
        let tagged = view.rows_with("tags", crate::catalog::ValueRange::Any).expect("rows");
        assert_eq!(tagged & view.alive(), *view.alive());
    }
}

/// Names and contents of everything but what the storage engine writes when it is opened.
fn fingerprint_of(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let path = entry.expect("entry").into_path();
        let is_ours = !path.components().any(|part| part.as_os_str() == "catalog")
            && path.file_name().is_some_and(|name| name != "lock");
        if path.is_file() && is_ours {
            files.push((path.clone(), std::fs::read(&path).expect("read")));
        }
    }
    files
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn a_sound_collection_has_nothing_to_be_said_about() {
    let case = Case::new();
    let report = case.check(false);
    assert_eq!((report.found, report.images, report.failures, report.rows), (0, 30, 2, 31));
    assert!(report.is_sound() && report.notes.is_empty(), "{report:#?}");
    let repaired = case.check(true);
    assert!(repaired.actions.is_empty(), "{repaired:#?}");
}

#[test]
fn a_damaged_row_takes_its_image_with_it_and_no_other() {
    let case = Case::new();
    let stride = 8 + 2 * 192 + 4;
    flip(&case.data().join("vectors/shard-00000.f16"), 16 + 5 * stride + 20);
    case.assert_repaired("image 5", "fails its checksum", &[5]);
}

#[test]
fn a_row_of_no_image_may_be_damaged() {
    let case = Case::new();
    let stride = 8 + 2 * 192 + 4;
    // Image 3 moved on to row 30.
    flip(&case.data().join("vectors/shard-00000.f16"), 16 + 3 * stride + 20);
    assert!(case.check(false).is_sound());
}

#[test]
fn a_shard_cut_short_or_with_another_header_is_named() {
    let case = Case::new();
    let shard = case.data().join("vectors/shard-00000.f16");
    let bytes = std::fs::read(&shard).expect("read");
    let stride = 8 + 2 * 192 + 4;
    std::fs::write(&shard, &bytes[..16 + 28 * stride + 9]).expect("write");
    assert!(case.collections().open("c").is_err());
    case.assert_repaired("shard-00000.f16", "holds 28 rows of 31", &[3, 28, 29]);

    let case = Case::new();
    flip(&case.data().join("vectors/shard-00000.f16"), 9);
    case.assert_repaired("shard-00000.f16", "header", &[]);

    let case = Case::new();
    std::fs::remove_file(case.data().join("vectors/shard-00000.f16")).expect("remove");
    let report = case.check(true);
    assert!(report.is_sound() && report.violations[0].problem.contains("missing"), "{report:#?}");
    assert!(case.collections().open("c").expect("opens").is_empty());
}

#[test]
fn graphs_are_compared_and_built_again() {
    let case = Case::new();
    flip(&case.data().join("ann/base.hnsw"), 5000);
    case.assert_repaired("base.hnsw", "checksum", &[]);

    // A graph of more rows than there are, as from a newer backup.
    let case = Case::new();
    let newer = Case::new();
    let mut collection = newer.collections().open("c").expect("open");
    for number in 100..140 {
        newer.put(&mut collection, number);
    }
    collection.finish().expect("finish");
    drop(collection);
    let base = "ann/base.hnsw";
    std::fs::copy(newer.data().join(base), case.data().join(base)).expect("copy");
    case.assert_repaired("base.hnsw", "covers 71 rows, there are 31", &[]);

    let case = Case::new();
    std::fs::remove_file(case.data().join(base)).expect("remove");
    let report = case.check(false);
    assert!(report.is_sound() && report.notes[0].contains("no graph"), "{report:#?}");
    assert!(case.check(true).actions[0].contains("built the graphs"));
    assert!(case.data().join(base).exists());
}

#[test]
fn entries_that_do_not_lead_back_are_found_and_made_again() {
    let seen = |id| {
        let kind = SeenKind::Image(ImageId(id));
        record::encode(&Seen { kind, stamp: FileStamp { size: 4, mtime_ns: 7 } })
    };
    let path = |number: u64| key(b'p', place(number).as_bytes());
    let hash = |number: u64| {
        let hash = ContentHash::of(&number.to_le_bytes()).to_bytes().expect("a hash");
        [key(b'h', &hash[..16]), number.to_be_bytes().to_vec()].concat()
    };
    let odd = Some(b"\0\0\0\0odd".to_vec());
    type Tampering<'a> = (Vec<u8>, Option<Vec<u8>>, &'a str, &'a str);
    let cases: [Tampering<'_>; 14] = [
        (path(4), None, "image 4", "no entry"),
        (path(4), seen(7), "image 4", "leads to image 7"),
        (path(4), seen(99), "path /pictures/4.jpg", "image 99, which is not there"),
        (path(5), seen(5), "image 5", "size and time"),
        (path(4), odd.clone(), "entry `p/pictures/4.jpg`", "checksum"),
        (key(b'p', b"/pictures/none.jpg"), seen(99), "none.jpg", "image 99"),
        (key(b'p', b"/pictures/bad.jpg"), None, "failure /pictures/bad.jpg", "does not lead"),
        (hash(6), None, "image 6", "hash"),
        ([&hash(6)[..17], &7u64.to_be_bytes()].concat(), Some(vec![]), "hash entry", "image 7"),
        (key(b'b', &0u32.to_be_bytes()), None, "row 9", "not marked alive"),
        (key(b'b', &0u32.to_be_bytes()), odd.clone(), "entry `b", "checksum"),
        (key(b'q', b"?"), odd.clone(), "entry `q?`", "no known kind"),
        (b"m".to_vec(), odd.clone(), "catalog", "counters"),
        (b"m".to_vec(), None, "catalog", "counters are missing"),
    ];
    for (key, value, subject, problem) in cases {
        let case = Case::new();
        case.catalog().tamper(&key, value);
        // An entry without failure behind it is not what `assert_repaired` counts on.
        case.assert_repaired(subject, problem, &[]);
    }
}

#[test]
fn a_damaged_record_is_lost_and_nothing_else() {
    let case = Case::new();
    case.catalog().tamper(&key(b'i', &8u64.to_be_bytes()), Some(b"\0\0\0\0odd".to_vec()));
    case.assert_repaired("image 8", "record is damaged", &[8]);
}

#[test]
fn two_images_of_one_row_or_one_path_are_told_apart() {
    let record =
        |case: &Case, id| case.catalog().record(ImageId(id)).expect("read").expect("there");
    let set = |case: &Case, id: u64, record: Record| {
        case.catalog().tamper(&key(b'i', &id.to_be_bytes()), record.encode());
    };
    let case = Case::new();
    let changed = Record { row: record(&case, 4).row, ..record(&case, 9) };
    set(&case, 9, changed);
    case.assert_repaired("image 9", "another image's too", &[9]);

    let case = Case::new();
    let changed = Record { row: 1000, ..record(&case, 9) };
    set(&case, 9, changed);
    case.assert_repaired("image 9", "beyond the 31", &[9]);

    let case = Case::new();
    let changed = Record { path: place(4), ..record(&case, 9) };
    set(&case, 9, changed);
    case.assert_repaired("image 9", "image 4 is at the same path", &[9]);
}

#[test]
fn payload_that_is_listed_wrongly_is_found() {
    let case = Case::new();
    let record = case.catalog().record(ImageId(4)).expect("read").expect("there");
    let posting = Catalog::posting_keys(&record.payload, record.row as u32).next().expect("a key");
    case.catalog().tamper(&posting, None);
    case.assert_repaired("payload field `group`", "not listed", &[]);

    let case = Case::new();
    let mut wrong = roaring::RoaringBitmap::from_iter([0u32, 1, 2, 4]);
    wrong.optimize();
    let mut bytes = vec![0; 4];
    wrong.serialize_into(&mut bytes).expect("serialise");
    case.catalog().tamper(&posting, Some(record::sealed(bytes)));
    case.assert_repaired("payload field `group`", "listed wrongly", &[]);
}

#[test]
fn what_cannot_be_opened_is_reported_with_the_way_out() {
    let lost = |spoil: &dyn Fn(&Case), problem: &str| {
        let case = Case::new();
        spoil(&case);
        for repair in [false, true] {
            let report = case.check(repair);
            assert!(!report.is_sound(), "{report:#?}");
            let violation = &report.violations[0];
            assert!(violation.problem.contains(problem), "{report:#?}");
            assert!(violation.remedy.contains("restore"), "{report:#?}");
        }
    };
    lost(&|case| std::fs::write(manifest_path(&case.folder()), b"{").expect("write"), "read");
    lost(&|case| std::fs::remove_file(manifest_path(&case.folder())).expect("remove"), "read");
    lost(
        &|case| std::fs::remove_dir_all(case.data().join("catalog")).expect("remove"),
        "the catalog is missing",
    );
    lost(
        &|case| {
            // A bit of the engine's own header of the first segment, which it checks at opening.
            let db = case.data().join("catalog/db");
            let mut bytes = std::fs::read(&db).expect("read");
            bytes[5] ^= 1;
            std::fs::write(db, bytes).expect("write");
        },
        "the catalog is damaged",
    );
    lost(
        &|case| {
            let path = manifest_path(&case.folder());
            let mut manifest = Manifest::read(&path, "c").expect("read");
            manifest.model.weights_sha256 = "1".repeat(64);
            manifest.write(&path).expect("write");
        },
        "fingerprint",
    );
}

#[test]
fn leftovers_are_noted_and_removed() {
    let case = Case::new();
    for leftover in ["next/vectors", "data-000000", "reindex"] {
        std::fs::create_dir_all(case.folder().join(leftover)).expect("create");
    }
    let report = case.check(false);
    assert!(report.is_sound() && report.notes.len() == 3, "{report:#?}");
    let report = case.check(true);
    assert_eq!(report.actions.len(), 2, "{report:#?}");
    assert!(!case.folder().join("next").exists() && case.folder().join("reindex").exists());
}

#[test]
fn a_check_needs_a_collection_and_its_lock() {
    let case = Case::new();
    let cancel = AtomicBool::new(false);
    let check = |name: &str| {
        let result =
            case.collections().check(name, false, &mut Progress::new(&mut |_| {}, &cancel));
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(check("none").contains("no collection"));
    assert!(check("../c").contains("cannot be a collection name"));
    let open = case.collections().open("c").expect("open");
    assert!(check("c").contains("in use"));
    drop(open);
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(check("c").contains("stopped"));
}
