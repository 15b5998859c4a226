//! The contract of `Source`, for every implementation, and bad archives.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use indexer::fetch::FetchOptions;
use indexer::source::{
    self, Content, EmbeddingOptions, EmbeddingSource, Entry, Source, SourceOptions,
};
use indexer::{IngestOptions, Locator};

use crate::support::{Case, Zip, gz, png, tar};
use crate::web::Web;

const MAX_BYTES: u64 = 1 << 20;

/// Local addresses are where the tests' server is.
pub fn local() -> SourceOptions {
    let fetch = FetchOptions { allow_private: true, ..FetchOptions::default() };
    SourceOptions { fetch, ..SourceOptions::default() }
}

fn list(source: &mut dyn Source) -> (Vec<Entry>, Vec<(PathBuf, String)>) {
    let cancel = AtomicBool::new(false);
    let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(block) = source.next_block(&cancel).expect("list") {
        let sorted = block.entries.is_sorted_by_key(|entry| entry.locator.as_bytes());
        assert!(sorted, "a block is sorted");
        entries.extend(block.entries);
        unreadable.extend(block.unreadable);
    }
    (entries, unreadable)
}

fn load(source: &mut dyn Source, wanted: Vec<Entry>) -> Vec<(Locator, Result<usize, String>)> {
    let cancel = AtomicBool::new(false);
    let content = |content| match content {
        Content::Later(read) => read(MAX_BYTES).map(|bytes| bytes.len()),
        Content::Bytes(bytes, _) => Ok(bytes.len()),
        Content::Vector(row) => Ok(row.vector.len()),
        Content::Failed(reason) => Err(reason),
    };
    let loads = source.load(wanted, MAX_BYTES, &cancel);
    loads.flatten().map(|loaded| (loaded.entry.locator, content(loaded.content))).collect()
}

/// Lists and loads again and again; `open` gives the same source each time, with `good` entries
/// that can be loaded and `bad` ones, or rows, that cannot.
fn check(name: &str, open: &dyn Fn() -> Box<dyn Source>, good: usize, bad: usize) {
    let mut first = open();
    let (entries, unreadable) = list(&mut *first);
    let mut second = open();
    let again = list(&mut *second);
    assert_eq!((&entries, &unreadable), (&again.0, &again.1), "{name}: listings are stable");
    let mut names: Vec<&[u8]> = entries.iter().map(|entry| entry.locator.as_bytes()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), entries.len(), "{name}: each once");

    let mut loaded = load(&mut *first, entries.clone());
    loaded.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let loaded_names: Vec<&[u8]> = loaded.iter().map(|(name, _)| name.as_bytes()).collect();
    assert_eq!(loaded_names, names, "{name}: exactly what was wanted is loaded");
    let loadable = loaded.iter().filter(|(_, content)| content.is_ok()).count();
    let failed = loaded.len() - loadable + unreadable.len();
    assert_eq!((loadable, failed), (good, bad), "{name}: {loaded:?} {unreadable:?}");

    // A part, in any order.
    let some: Vec<Entry> = entries.iter().step_by(2).rev().cloned().collect();
    let expected = some.len();
    assert_eq!(load(&mut *second, some).len(), expected, "{name}");
    assert!(load(&mut *second, Vec::new()).is_empty(), "{name}");
}

fn members() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut members: Vec<_> =
        (0..70).map(|n| (format!("inner/{n:02}.png").into_bytes(), png(n))).collect();
    members.push((b"../up.png".to_vec(), png(100)));
    members.push((b"odd-\xff.png".to_vec(), png(101)));
    members.push((b".hidden.png".to_vec(), png(102)));
    members.push((b"large.png".to_vec(), vec![7; MAX_BYTES as usize + 1]));
    members
}

fn tar_bytes() -> Vec<u8> {
    let members = members();
    let borrowed: Vec<(&[u8], &[u8])> =
        members.iter().map(|(name, content)| (name.as_slice(), content.as_slice())).collect();
    tar(&borrowed)
}

fn zip_bytes() -> Zip {
    let mut zip = Zip::default();
    for (name, content) in members() {
        if let Ok(name) = String::from_utf8(name) {
            zip = zip.add(&name, &content);
        }
    }
    zip
}

#[test]
fn every_source_keeps_the_contract() {
    let case = Case::new();
    let web = Web::start();
    let open =
        |path: &Path| -> Box<dyn Source> { case.open(&[path.to_path_buf()], &local()).remove(0) };

    let folder = case.pictures("folder", 0, 70);
    case.write("folder/deep/er/a.png", &png(99));
    case.write("folder/large.png", &vec![7; MAX_BYTES as usize + 1]);
    check("folder", &|| open(&folder), 71, 1);
    let some = [case.path("folder/000.png"), case.path("folder/001.png")];
    check("files", &|| case.open(&some, &local()).remove(0), 2, 0);

    // Too large a member; the hidden one is not listed.
    let shard = case.write("shard.tar", &tar_bytes());
    check("tar", &|| open(&shard), 72, 1);
    let cut = case.write("cut.tar", &tar_bytes()[..40_000]);
    let before = list(&mut *open(&cut)).0.len();
    assert!(before > 3, "{before}");
    let mut source = open(&cut);
    let entries = list(&mut *source).0;
    let good = load(&mut *source, entries).iter().filter(|(_, content)| content.is_ok()).count();
    assert!(good >= before - 1);
    // A member that the cut goes through is listed and cannot be read; and the damage itself.
    check("cut tar", &|| open(&cut), good, before - good + 1);
    let shard = case.write("shard.tar.gz", &gz(&tar_bytes()));
    check("tar.gz", &|| open(&shard), 72, 1);
    let zip = case.write("a.zip", &zip_bytes().finish());
    check("zip", &|| open(&zip), 71, 1);

    let urls: String = (0..30).map(|n| web.url(&format!("/ok/{n}.png")) + "\n").collect();
    let table = urls + &web.url("/status/404") + "\nno url\n" + &web.url("/ok/0.png") + "\n";
    let table = case.write("urls.txt", table.as_bytes());
    check("URLs", &|| open(&table), 30, 2);

    let rows = "{\"path\":\"/a.jpg\"}\n{\"path\":\"/b.jpg\"}\n{\"path\":\"/a.jpg\"}\n";
    case.write("e.jsonl", rows.as_bytes());
    let vectors = case.write("e.npy", &npy(3, 4));
    let open = || -> Box<dyn Source> {
        let options = EmbeddingOptions::default();
        Box::new(EmbeddingSource::open(&vectors, &options).expect("open"))
    };
    check("embeddings", &open, 2, 0);
}

/// An array of f32 that are all different.
pub fn npy(rows: usize, dim: usize) -> Vec<u8> {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend((0..rows * dim).flat_map(|n| (n as f32 + 1.0).to_le_bytes()));
    bytes
}

#[test]
fn members_of_archives_are_indexed_once_and_can_be_opened_again() {
    let mut case = Case::new();
    let archives = [
        case.write("shard.tar", &tar_bytes()),
        case.write("shard.tgz", &gz(&tar_bytes())),
        case.write("a.zip", &zip_bytes().finish()),
    ];
    for archive in &archives {
        let named = [archive.clone()];
        let first = case.ingest(&named);
        assert!(first.added >= 71, "{first:?}");
        assert_eq!(first.skipped.len(), 1, "the one that is no picture: {first:?}");
        let member = Locator::member(archive, b"inner/07.png");
        assert!(case.looks_like(&member, 7));
        assert_eq!(member.read(MAX_BYTES), Ok(png(7)));
        assert!(member.read(10).is_err());
        let gone = Locator::member(archive, b"inner/77.png").read(MAX_BYTES);
        assert!(gone.expect_err("no member").contains("no member"));

        let second = case.ingest(&named);
        let expected = first.added + first.updated;
        assert_eq!((second.unchanged, second.added, second.copied), (expected, 0, 0));
        assert_eq!(second.removed, 0);
    }
    let odd = Locator::member(&archives[0], b"odd-\xff.png");
    assert_eq!(odd.read(MAX_BYTES), Ok(png(101)));
    assert!(case.looks_like(&odd, 101));
    // The same pictures a second time were recognised, not computed.
    assert_eq!(case.collection.len(), 72 + 72 + 71);
}

#[test]
fn members_that_have_gone_are_removed_and_those_behind_damage_are_not() {
    let mut case = Case::new();
    let all = [(b"a.png".as_slice(), png(0)), (b"b.png", png(1)), (b"c.png", png(2))];
    let some = |kept: &[usize]| {
        let members: Vec<(&[u8], &[u8])> =
            kept.iter().map(|&n| (all[n].0, all[n].1.as_slice())).collect();
        tar(&members)
    };
    let shard = case.write("shard.tar", &some(&[0, 1, 2]));
    assert_eq!(case.ingest(std::slice::from_ref(&shard)).added, 3);
    let whole = some(&[0, 1, 2]);
    case.write("shard.tar", &whole[..whole.len() - 2000]);
    let report = case.ingest(std::slice::from_ref(&shard));
    assert_eq!(report.removed, 0);
    assert!(report.skipped.iter().any(|s| s.reason.contains("damaged at byte")), "{report:?}");
    case.write("shard.tar", &some(&[0, 2]));
    let report = case.ingest(std::slice::from_ref(&shard));
    assert_eq!((report.removed, case.collection.len()), (1, 2));
    std::fs::remove_file(&shard).expect("remove");
    let report = case.ingest(std::slice::from_ref(&shard));
    assert_eq!((report.removed, report.held_back[0].gone), (0, 2));
    let prune = IngestOptions { prune: true, ..IngestOptions::default() };
    assert_eq!(case.ingest_with(&[shard], prune).expect("ingest").removed, 2);
}

#[test]
fn zip_bombs_encrypted_and_damaged_members_are_listed_with_the_reason() {
    let mut case = Case::new();
    case.max_bytes = 256 << 20;
    let picture = png(1);
    let crc = crc32fast::hash(&picture);
    let size = picture.len() as u32;
    let zip = Zip::default()
        .add("good.png", &picture)
        .add_with("encrypted.png", &picture, 1, crc, size)
        .add_with("checksum.png", &png(2), 0, 7, png(2).len() as u32)
        .add_with("longer.png", &vec![0; 100_000], 0, 7, 50_000)
        .add_with("bomb.png", &vec![0; 100_000], 0, 7, 200_000_000)
        .add_with("huge.png", &vec![0; 100_000], 0, 7, 4_000_000_000);
    let path = case.write("a.zip", &zip.finish());
    let report = case.ingest(std::slice::from_ref(&path));
    assert_eq!(report.added, 1);
    let reason = |name: &str| {
        let path = Locator::member(&path, name.as_bytes()).to_path();
        let found = report.skipped.iter().find(|skipped| skipped.path == path);
        found.map(|skipped| skipped.reason.clone()).unwrap_or_default()
    };
    for (name, part) in [
        ("encrypted.png", "encrypted"),
        ("checksum.png", "checksum"),
        ("longer.png", "it should have 50000 bytes and has more"),
        ("bomb.png", "to 1"),
        ("huge.png", "the limit is"),
    ] {
        assert!(reason(name).contains(part), "{name}: {}", reason(name));
    }

    // Without its directory, what lies before the damage is still found.
    let bytes = zip_bytes().finish();
    let cut = case.write("cut.zip", &bytes[..20_000]);
    let report = case.ingest(&[cut]);
    assert!(report.added + report.copied > 3, "{report:?}");
    assert!(report.skipped.iter().any(|s| s.reason.contains("damaged at byte")), "{report:?}");
    let words = case.write("words.zip", b"no archive");
    let report = case.ingest(&[words]);
    assert_eq!((report.added, report.skipped.len()), (0, 1));
}

#[test]
fn a_webdataset_shard_brings_its_payload() {
    let mut case = Case::new();
    let shard = case.write(
        "shard.tar",
        &tar(&[
            (b"000.json", br#"{"license": "cc0", "width": 3}"#),
            (b"000.png", &png(0)),
            (b"000.txt", b"a square\n"),
            (b"001.png", &png(1)),
            (b"001.cls", b"7"),
            (b"002.png", &png(2)),
            (b"002.json", b"broken"),
        ]),
    );
    let report = case.ingest(std::slice::from_ref(&shard));
    assert_eq!((report.added, report.not_pictures), (3, 1), "{report:?}");
    let payload = |name: &[u8]| {
        let payload = case.payload(&Locator::member(&shard, name));
        serde_json::to_value(payload).expect("JSON")
    };
    let expected = serde_json::json!({"license": "cc0", "width": 3, "caption": "a square"});
    assert_eq!(payload(b"000.png"), expected);
    assert_eq!(payload(b"001.png"), serde_json::json!({"cls": "7"}));
    assert_eq!(payload(b"002.png"), serde_json::json!({}));
}

#[test]
fn a_list_takes_files_folders_and_urls_and_reports_what_is_missing() {
    let mut case = Case::new();
    let web = Web::start();
    let folder = case.pictures("folder", 0, 3);
    let named = [
        folder.join("000.png"),
        folder,
        case.path("gone.png"),
        PathBuf::from(web.url("/ok/9.png")),
    ];
    let options = SourceOptions { lenient: true, ..local() };
    let mut sources = source::open(&named, &options).expect("open");
    let metadata = indexer::metadata::Metadata::none();
    let report = case.run(&mut sources, &metadata, IngestOptions::default()).expect("ingest");
    assert_eq!((report.added, report.skipped.len()), (4, 1), "{report:?}");
    assert!(report.skipped[0].reason.contains("no such file"));
    assert!(case.ingest_with(&named[2..3], IngestOptions::default()).is_err());
}
