use std::path::{Path, PathBuf};

use indexer::{ImageId, RestoreOptions, RestoreReport, Result, read_snapshot_info};
use sha2::{Digest, Sha256};

use crate::{Case, error, put, state};

impl Case {
    fn file(&self) -> PathBuf {
        self.home.path().join("c.akin")
    }

    pub fn snapshot(&self) -> PathBuf {
        let file = self.file();
        let report = self.with(|progress| self.collections().snapshot("c", &file, false, progress));
        let report = report.expect("snapshot");
        assert_eq!(report.bytes, std::fs::metadata(&file).expect("file").len());
        file
    }

    pub fn restore(&self, file: &Path, name: Option<&str>, replace: bool) -> Result<RestoreReport> {
        let options = RestoreOptions { name: name.map(str::to_owned), replace };
        self.with(|progress| self.collections().restore(file, &options, progress))
    }

    /// This archive is refused, for this reason, and leaves nothing behind.
    fn assert_refused(&self, archive: &[u8], reason: &str) {
        let file = self.home.path().join("bad.akin");
        std::fs::write(&file, archive).expect("write");
        let text = error(self.restore(&file, Some("bad"), false));
        assert!(text.contains(reason), "`{reason}` is not in `{text}`");
        let folder = self.home.path().join("collections");
        assert!(!folder.join("bad").exists(), "{reason}");
    }
}

#[test]
fn a_snapshot_comes_back_the_same_under_any_name() {
    let case = Case::new();
    let before = state(&case.open());
    let file = case.snapshot();
    let info = read_snapshot_info(&file).expect("info");
    assert_eq!((info.collection.as_str(), info.images, info.failures), ("c", 25, 2));

    let report = case.restore(&file, Some("d"), false).expect("restore");
    assert_eq!((report.images, report.failures, report.has_replaced), (25, 2, false));
    let mut restored = case.collections().open("d").expect("open");
    assert_eq!(state(&restored), before);
    assert!(restored.view().is_approximate(), "the graph is built");
    // Drawn again: the pairs depend on the order of rows, which has no gaps any more.
    assert_eq!(restored.manifest().background.len(), 1001);
    assert_eq!(put(&mut restored, 99, 99), ImageId(30), "ids go on");
    drop(restored);
    case.assert_sound("d");

    // On a machine that has nothing yet.
    let other = Case::empty();
    other.restore(&file, None, false).expect("restore");
    assert_eq!(state(&other.open()), before);
}

#[test]
fn members_can_be_read_by_anything() {
    let case = Case::new();
    let bytes = std::fs::read(case.snapshot()).expect("read");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut names = Vec::new();
    for entry in archive.entries().expect("tar") {
        use std::io::Read;
        let mut entry = entry.expect("entry");
        let name = entry.path().expect("path").to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        if name == "vectors.npy" {
            assert!(content.starts_with(b"\x93NUMPY") && content.len() == 128 + 25 * 192 * 2);
        }
        if name == "records.jsonl" {
            let lines: Vec<_> = content.split(|&byte| byte == b'\n').collect();
            assert_eq!(lines.len(), 26);
            let first: serde_json::Value = serde_json::from_slice(lines[0]).expect("JSON");
            assert_eq!((&first["id"], &first["row"]), (&0.into(), &0.into()));
            assert_eq!(first["payload"]["name"], "n0");
        }
        names.push(name);
    }
    assert_eq!(
        names,
        ["snapshot.json", "records.jsonl", "failures.jsonl", "vectors.npy", "SHA256SUMS"]
    );
}

#[test]
fn an_existing_collection_is_replaced_only_when_told_and_at_once() {
    let case = Case::new();
    let before = state(&case.open());
    let file = case.snapshot();
    let mut collection = case.open();
    let new = put(&mut collection, 50, 50);
    collection.finish().expect("finish");
    let changed = state(&collection);
    drop(collection);
    let text = error(case.restore(&file, None, false));
    assert!(text.contains("--as") && text.contains("--replace"), "{text}");
    assert_eq!(state(&case.open()), changed);

    let open = case.open();
    assert!(error(case.restore(&file, None, true)).contains("in use"));
    drop(open);
    let stopped = case.stopped_at("restoring images", |progress| {
        let options = RestoreOptions { name: None, replace: true };
        case.collections().restore(&file, &options, progress)
    });
    assert!(error(stopped).contains("nothing was restored"));
    assert_eq!(state(&case.open()), changed);

    let report = case.restore(&file, None, true).expect("restore");
    assert!(report.has_replaced);
    let mut collection = case.open();
    assert_eq!(state(&collection), before);
    // The id that was given meanwhile is not given to something else.
    assert!(put(&mut collection, 60, 60) > new);
    drop(collection);
    case.assert_sound("c");
}

#[test]
fn what_is_damaged_beyond_opening_can_be_replaced() {
    for spoil in ["manifest.json", "data-000001/catalog/db"] {
        let case = Case::new();
        let before = state(&case.open());
        let file = case.snapshot();
        std::fs::write(case.folder().join(spoil), b"{").expect("write");
        assert!(case.collections().open("c").is_err());
        case.restore(&file, None, true).expect("restore");
        assert_eq!(state(&case.open()), before);
        case.assert_sound("c");
    }
}

#[test]
fn a_snapshot_is_written_whole_or_not_at_all() {
    let case = Case::new();
    let file = case.file();
    let take = |name: &str, replace| {
        case.with(|progress| case.collections().snapshot(name, &file, replace, progress))
    };
    assert!(error(take("none", false)).contains("no collection"));
    let open = case.open();
    assert!(error(take("c", false)).contains("in use"));
    // Who has it open can take one.
    case.with(|progress| open.snapshot(&file, progress)).expect("snapshot");
    drop(open);
    let first = std::fs::read(&file).expect("read");
    assert!(error(take("c", false)).contains("exists already"));
    for doing in ["measuring", "writing"] {
        let stopped = case
            .stopped_at(doing, |progress| case.collections().snapshot("c", &file, true, progress));
        assert!(error(stopped).contains("no snapshot was written"));
    }
    assert_eq!(std::fs::read(&file).expect("read"), first);
    take("c", true).expect("snapshot");
    assert_eq!(std::fs::read_dir(case.home.path()).expect("list").count(), 2, "no temporary file");
    let nowhere = case.home.path().join("none/c.akin");
    let result = case.with(|progress| case.collections().snapshot("c", &nowhere, false, progress));
    assert!(error(result).contains("none"));

    // A damaged vector is named, not archived.
    let shard = case.folder().join("data-000001/vectors/shard-00000.f16");
    let mut bytes = std::fs::read(&shard).expect("read");
    bytes[16 + 25 * (8 + 2 * 192 + 4) + 99] ^= 1;
    std::fs::write(&shard, bytes).expect("write");
    assert!(error(take("c", true)).contains("fails its checksum"));
}

#[test]
fn any_cut_or_flipped_archive_is_refused() {
    let case = Case::new();
    let sound = std::fs::read(case.snapshot()).expect("read");
    case.assert_refused(&sound[..sound.len() - 1], "SHA256SUMS");
    case.assert_refused(&sound[..sound.len() - 4000], "vectors.npy: it should take");
    case.assert_refused(&sound[..600], "snapshot.json");
    case.assert_refused(&sound[..100], "no snapshot");
    case.assert_refused(b"", "no snapshot");
    case.assert_refused(&[sound.as_slice(), b"more"].concat(), "4 bytes follow");
    let mut flipped = sound.clone();
    let at = sound.len() - 4000;
    flipped[at] ^= 4;
    case.assert_refused(&flipped, "vectors.npy: bytes 0 to");
    let file = case.home.path().join("bad.akin");
    for at in (0..sound.len()).step_by(211) {
        let mut flipped = sound.clone();
        flipped[at] ^= 4;
        std::fs::write(&file, flipped).expect("write");
        assert!(case.restore(&file, Some("bad"), false).is_err(), "byte {at} of {}", sound.len());
    }
    assert_eq!(case.collections().list().expect("list").len(), 1);
}

#[test]
fn what_is_no_snapshot_is_told_so() {
    let case = Case::new();
    case.assert_refused(&[0x1F, 0x8B, 8, 0], "gunzip");
    case.assert_refused(&[0x28, 0xB5, 0x2F, 0xFD, 0], "zstd -d");
    case.assert_refused(&[7; 2000], "no snapshot");
    assert!(error(case.restore(&case.folder(), None, false)).contains("it is no file"));
    assert!(error(case.restore(Path::new("/none.akin"), None, false)).contains("cannot open"));
    let file = case.snapshot();
    assert!(error(case.restore(&file, Some("../x"), false)).contains("collection name"));
}

/// An archive of these members whose hashes are all right.
fn forged(info: &serde_json::Value, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut info = info.clone();
    info["members"] = members
        .iter()
        .map(|(name, content)| {
            let crc32: Vec<u32> = content.chunks(1 << 20).map(crc32fast::hash).collect();
            serde_json::json!({
                "name": name, "bytes": content.len(),
                "sha256": format!("{:x}", Sha256::digest(content)), "crc32": crc32,
            })
        })
        .collect();
    let mut all = vec![("snapshot.json", serde_json::to_vec(&info).expect("JSON"))];
    all.extend(members.iter().cloned());
    let line =
        |(name, content): &(&str, Vec<u8>)| format!("{:x}  {name}\n", Sha256::digest(content));
    let sums: String = all.iter().map(line).collect();
    all.push(("SHA256SUMS", sums.into_bytes()));
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in all {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().expect("GNU").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content.as_slice()).expect("append");
    }
    archive.into_inner().expect("finish")
}

#[test]
fn archives_made_to_do_harm_are_refused() {
    let case = Case::new();
    let file = case.snapshot();
    let info = serde_json::to_value(read_snapshot_info(&file).expect("info")).expect("JSON");
    let bytes = std::fs::read(&file).expect("read");
    let mut members: Vec<(&str, Vec<u8>)> = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().expect("tar").skip(1).take(3) {
        let mut entry = entry.expect("entry");
        let name = ["records.jsonl", "failures.jsonl", "vectors.npy"][members.len()];
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("read");
        members.push((name, content));
    }
    // The forger's tools make a sound archive of sound parts.
    std::fs::write(case.home.path().join("same.akin"), forged(&info, &members)).expect("write");
    let same = case.home.path().join("same.akin");
    case.restore(&same, Some("same"), false).expect("restore");

    let with_info = |field: &str, value: serde_json::Value| {
        let mut info = info.clone();
        *info.pointer_mut(field).expect("a field") = value;
        forged(&info, &members)
    };
    for (field, value, reason) in [
        ("/format_version", 2.into(), "is a snapshot of format 2, this release reads up to 1"),
        ("/format", "zip".into(), "`zip` is not"),
        ("/images", 24.into(), "vectors.npy has not the"),
        ("/images", u64::MAX.into(), "are not possible"),
        ("/failures", 1.into(), "there should be 1 failures"),
        ("/next_id", 20.into(), "is not possible here"),
        ("/manifest/format_version", 9.into(), "has format 9"),
        ("/manifest/metric", "l2".into(), "metric `l2`"),
        ("/manifest/fingerprint", "0".into(), "fingerprint"),
        ("/manifest/model/dim", 100.into(), "fingerprint"),
        ("/manifest/model/dim", (-1).into(), "invalid value"),
    ] {
        case.assert_refused(&with_info(field, value), reason);
    }

    let with_member = |index: usize, name: &'static str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut members = members.clone();
        members[index].0 = name;
        change(&mut members[index].1);
        forged(&info, &members)
    };
    let text = |from: &'static str, to: &'static str| {
        move |content: &mut Vec<u8>| {
            let old = String::from_utf8(content.clone()).expect("UTF-8");
            assert!(old.contains(from), "{from} in {old}");
            *content = old.replacen(from, to, 1).into_bytes();
        }
    };
    let path = "\"/pictures/1.jpg\"";
    for (index, name, change, reason) in [
        (0, "../../records.jsonl", &(|_: &mut Vec<u8>| {}) as &dyn Fn(&mut Vec<u8>), "its members"),
        (1, "records.jsonl", &|_: &mut Vec<u8>| {}, "its members"),
        (0, "records.jsonl", &text("\"id\":1,", "\"id\":0,"), "line 2: id 0 is not possible"),
        (0, "records.jsonl", &text("\"row\":1,", "\"row\":7,"), "line 2: row 7 should be 1"),
        (0, "records.jsonl", &text("/pictures/1.jpg", "/pictures/0.jpg"), "was there before"),
        (0, "records.jsonl", &text(path, "\"\""), "is empty"),
        (0, "records.jsonl", &text(path, "[300]"), "line 2"),
        (0, "records.jsonl", &text("\"sha256\":\"", "\"sha256\":\"x"), "no hash"),
        (0, "records.jsonl", &text("{", "["), "line 1"),
        (0, "records.jsonl", &|lines: &mut Vec<u8>| lines.truncate(lines.len() - 1), "has no end"),
        (0, "records.jsonl", &|lines: &mut Vec<u8>| lines.truncate(0), "missing from here"),
        (0, "records.jsonl", &|lines: &mut Vec<u8>| lines.extend(b"{}\n"), "25 images only"),
        (1, "failures.jsonl", &text("/notes.txt", "/pictures/1.jpg"), "was there before"),
        (2, "vectors.npy", &|table: &mut Vec<u8>| table[50] ^= 1, "its header"),
        (2, "vectors.npy", &|table: &mut Vec<u8>| table[128..192].fill(0x7C), "row 0: its vector"),
        (2, "vectors.npy", &|table: &mut Vec<u8>| table[128..512].fill(0), "length 0.0000"),
        (2, "vectors.npy", &|table: &mut Vec<u8>| table.extend([0; 384]), "has not the"),
    ] {
        case.assert_refused(&with_member(index, name, change), reason);
    }
    let mut doubled = members.clone();
    doubled.push(members[0].clone());
    case.assert_refused(&forged(&info, &doubled), "its members");
    // A size that no file has.
    let mut huge = forged(&info, &members);
    let header = tar::Header::from_byte_slice(huge[..512].try_into().expect("a block"));
    let mut header = header.clone();
    header.set_size(1 << 60);
    header.set_cksum();
    huge[..512].copy_from_slice(header.as_bytes());
    case.assert_refused(&huge, "snapshot.json: it should take");
}
