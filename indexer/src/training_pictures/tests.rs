use std::fs::File;

use super::*;

fn jpeg(shade: u8) -> Vec<u8> {
    let picture = RgbImage::from_pixel(16, 12, image::Rgb([shade, 90, 200]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).expect("encode");
    bytes.into_inner()
}

fn write_shard(path: &Path, entries: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(File::create(path).expect("create"));
    for (key, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, key, *bytes).expect("append");
    }
    builder.into_inner().expect("finish").sync_all().expect("sync");
}

fn listed(sources: &[PathBuf]) -> Result<TrainingPictures> {
    TrainingPictures::list(sources, DecodeOptions::default())
}

fn refusal(sources: &[PathBuf]) -> String {
    listed(sources).err().map(|error| error.to_string()).unwrap_or_default()
}

/// Names below `root`, and the red of the first pixel.
fn seen(pictures: &TrainingPictures, root: &Path) -> Vec<(String, u8)> {
    (0..pictures.len())
        .map(|i| {
            let name = PathBuf::from(pictures.name(i));
            let name = name.strip_prefix(root).expect("below the root").display().to_string();
            (name, pictures.load(i).expect("load").get_pixel(0, 0)[0])
        })
        .collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root = folder.path().canonicalize().expect("canonical");
    (folder, root)
}

#[test]
fn a_shard_is_read_where_it_lies() {
    let (_guard, root) = folder();
    let [a, b] = [40, 160].map(jpeg);
    let long = format!("{}/key.jpg", "deep/".repeat(40).trim_end_matches('/'));
    write_shard(
        &root.join("train-000.tar"),
        &[("b.jpg", &b), ("b.cls", b"3"), ("b.json", b"{}"), ("a.jpg", &a), (&long, &b)],
    );
    std::fs::write(root.join("loose.jpg"), &a).expect("write");
    let pictures = listed(std::slice::from_ref(&root)).expect("list");
    let seen = seen(&pictures, &root);
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    let long = format!("train-000.tar/{long}");
    assert_eq!(names, ["loose.jpg", "train-000.tar/a.jpg", "train-000.tar/b.jpg", long.as_str()]);
    assert_eq!(pictures.others(), 2);
    for (i, shade) in [40, 40, 160, 160].into_iter().enumerate() {
        assert!(seen[i].1.abs_diff(shade) <= 3, "{seen:?}");
    }
}

#[test]
fn a_damaged_shard_is_named() {
    let (_guard, root) = folder();
    let shard = root.join("cut.tar");
    write_shard(&shard, &[("a.jpg", &jpeg(1)), ("b.jpg", &[7; 3000])]);
    let whole = std::fs::read(&shard).expect("read");
    std::fs::write(&shard, &whole[..whole.len() - 3000]).expect("cut");
    let error = refusal(std::slice::from_ref(&shard));
    assert!(error.contains("cut.tar is damaged") && error.contains("entry b.jpg"), "{error}");

    std::fs::write(&shard, vec![b'x'; 2048]).expect("write");
    assert!(refusal(std::slice::from_ref(&root)).contains("cut.tar is damaged"));
    std::fs::write(&shard, b"").expect("write");
    assert!(refusal(std::slice::from_ref(&root)).contains("the file is empty"));
    std::fs::rename(&shard, root.join("cut.tar.gz")).expect("rename");
    assert!(refusal(std::slice::from_ref(&root)).contains("decompress"));
}

#[test]
fn a_broken_picture_in_a_shard_is_a_reason_and_no_end() {
    let (_guard, root) = folder();
    let shard = root.join("s.tar");
    write_shard(&shard, &[("a.jpg", b"words"), ("b.jpg", &jpeg(9))]);
    let pictures = listed(&[shard]).expect("list");
    assert_eq!(pictures.len(), 2);
    assert!(pictures.name(0).ends_with("s.tar/a.jpg"));
    assert!(pictures.load(0).is_err() && pictures.load(1).is_ok());
}

#[test]
fn a_curated_run_names_its_pictures() {
    let (_guard, root) = folder();
    let run = root.join("run");
    std::fs::create_dir_all(run.join("images")).expect("create");
    for (path, shade) in [("run/images/0.jpg", 30), ("elsewhere.jpg", 60), ("run/stray.jpg", 90)] {
        std::fs::write(root.join(path), jpeg(shade)).expect("write");
    }
    write_shard(&run.join("part.tar"), &[("k.jpg", &jpeg(120)), ("other.jpg", &jpeg(1))]);
    let elsewhere = root.join("elsewhere.jpg").display().to_string();
    let line = |file: &str, path: &str| {
        serde_json::json!({"id": 1, "file": file, "path": path, "sha256": "00"}).to_string()
    };
    // Copied along; not copied; within a shard.
    let lines = [
        line("images/0.jpg", "/gone/0.jpg"),
        line("images/1.jpg", &elsewhere),
        line("part.tar/k.jpg", "/gone/k.jpg"),
    ];
    std::fs::write(run.join("manifest.jsonl"), lines.join("\n")).expect("write");
    let expected = ["elsewhere.jpg", "run/images/0.jpg", "run/part.tar/k.jpg"];
    for source in [run.clone(), run.join("manifest.jsonl")] {
        let pictures = listed(&[source]).expect("list");
        let names: Vec<String> = seen(&pictures, &root).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected);
    }

    let mut lines = lines.to_vec();
    lines.push(line("images/2.jpg", "/gone/2.jpg"));
    std::fs::write(run.join("manifest.jsonl"), lines.join("\n")).expect("write");
    let error = refusal(std::slice::from_ref(&run));
    assert!(error.contains("manifest.jsonl: line 4 names"), "{error}");
    assert!(error.contains("images/2.jpg or /gone/2.jpg, which is not there"), "{error}");
    std::fs::write(run.join("manifest.jsonl"), "{\"id\": 1}").expect("write");
    assert!(refusal(&[run]).contains("line 1: it has neither `file` nor `path`"));
}

#[test]
fn a_list_is_followed_and_nothing_comes_twice() {
    let (_guard, root) = folder();
    for name in ["a.jpg", "b.jpg"] {
        std::fs::write(root.join(name), jpeg(10)).expect("write");
    }
    std::fs::write(root.join("list.txt"), "# chosen\nb.jpg\n\nb.jpg\n").expect("write");
    let pictures = listed(&[root.join("list.txt"), root.join("b.jpg")]).expect("list");
    assert_eq!(seen(&pictures, &root).len(), 1);
    std::fs::write(root.join("list.txt"), "b.jpg\nc.jpg\n").expect("write");
    assert!(refusal(&[root.join("list.txt")]).contains("line 2 names"));
}

#[test]
fn an_empty_folder_gives_no_pictures_and_a_missing_one_an_error() {
    let (_guard, root) = folder();
    assert!(listed(std::slice::from_ref(&root)).expect("list").is_empty());
    assert!(refusal(&[root.join("gone")]).contains("no such file or folder"));
}
