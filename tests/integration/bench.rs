//! `akin bench pipeline`, and ways of decoding.

use crate::support::Akin;

/// JPEGs large enough to be scaled down by half for an input of 56 pixels, of noise, in which that
/// shows.
fn large_jpegs(akin: &Akin, count: u32) {
    let folder = akin.path("photos");
    std::fs::create_dir_all(&folder).expect("create");
    for number in 0..count {
        let picture = image::RgbImage::from_fn(700, 600, |x, y| {
            let mut h = (x * 7919 + y * 104_729 + number * 1_299_709).wrapping_mul(2_654_435_761);
            h ^= h >> 15;
            let wave = (x / 40 + y / 50 + number) % 5 * 25;
            image::Rgb([h as u8 / 2 + wave as u8, (h >> 8) as u8 / 2, (h >> 16) as u8 / 3])
        });
        picture.save(folder.join(format!("{number}.jpg"))).expect("save");
    }
}

#[test]
fn the_pipeline_is_timed_and_leaves_nothing_behind() {
    let akin = Akin::new();
    akin.pictures("pictures", 5);
    let words = "bench pipeline {}/pictures --rounds 1 --model-seconds 1 --model {}/model";
    let report = akin.ok(&format!("{words} --json")).json();
    assert_eq!((&report["files"], &report["decode"]), (&5.into(), &"exact".into()), "{report}");
    for figure in ["model_per_second", "prepare_per_second", "index_per_second", "index_of_model"] {
        let median = report[figure]["median"].as_f64().expect(figure);
        assert!(median.is_finite() && median > 0.0, "{figure}: {median}");
    }
    let text = akin.ok(words).stdout;
    assert!(text.contains("index / model alone:"), "{text}");

    std::fs::create_dir(akin.path("empty")).expect("create");
    let run = akin.run("bench pipeline {}/empty --model-seconds 1 --model {}/model");
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("there is no picture"), "{}", run.stderr);
    assert_eq!(akin.run("bench pipeline {}/gone --model {}/model").code, Some(1));
    let left = std::fs::read_dir(akin.path("home")).expect("home").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("bench")), "{left:?}");
}

#[test]
fn a_collection_holds_vectors_of_one_way_of_decoding() {
    let akin = Akin::new();
    large_jpegs(&akin, 3);
    akin.ok("index {}/photos -c fast --size 56 --decode fast --model {}/model");
    akin.ok("index {}/photos -c exact --size 56 --model {}/model");
    let info = |name: &str| akin.ok(&format!("collection info {name} --json")).json();
    let (fast, exact) = (info("fast"), info("exact"));
    assert_eq!((&fast["decode"], &exact["decode"]), (&"fast".into(), &"exact".into()));
    assert_ne!(fast["fingerprint"], exact["fingerprint"]);
    assert!(akin.ok("collection info fast").stdout.contains("decode fast"));

    // Each is searched in its own way, without being told: to the last digit.
    let similarity = |words: &str| {
        let found = akin.ok(&format!("search {words} -k 1 --json")).json();
        let hit = &found["hits"][0];
        assert!(hit["path"].as_str().expect("path").ends_with("1.jpg"), "{found}");
        assert_eq!((&hit["width"], &hit["height"]), (&700.into(), &600.into()));
        hit["similarity"].as_f64().expect("similarity")
    };
    let words = "embed {}/photos/1.jpg --size 56 --model {}/model";
    akin.ok(&format!("{words} --out {{}}/exact.npy"));
    akin.ok(&format!("{words} --decode fast --out {{}}/fast.npy"));
    for (name, other) in [("fast", "exact"), ("exact", "fast")] {
        let by_picture = similarity(&format!("{{}}/photos/1.jpg -c {name}"));
        assert_eq!(by_picture, similarity(&format!("--vector {{}}/{name}.npy -c {name}")));
        assert_ne!(by_picture, similarity(&format!("--vector {{}}/{other}.npy -c {name}")));
        assert_eq!(akin.ok(&format!("index {{}}/photos -c {name} --json")).json()["unchanged"], 3);
    }

    let run = akin.run("index {}/photos -c exact --size 56 --decode fast --model {}/model");
    assert_eq!(run.code, Some(1));
    let says = |words: &str| assert!(run.stderr.contains(words), "{}", run.stderr);
    says("decode exact");
    says("decode fast");
    let run = akin.run("index {}/photos -c c --size 56 --decode quick --model {}/model");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("[possible values: exact, fast]"), "{}", run.stderr);
}

#[test]
fn the_configuration_file_decides_for_new_collections() {
    let akin = Akin::new();
    large_jpegs(&akin, 1);
    std::fs::write(akin.path("fast.toml"), "decode = \"fast\"\n").expect("write");
    std::fs::write(akin.path("wrong.toml"), "decode = \"quick\"\n").expect("write");
    akin.ok("--config {}/fast.toml index {}/photos -c a --size 56 --model {}/model");
    akin.ok("--config {}/fast.toml index {}/photos -c b --size 56 --decode exact --model {}/model");
    // It changes nothing in what there is.
    akin.ok("--config {}/fast.toml index {}/photos -c b");
    for (name, expected) in [("a", "fast"), ("b", "exact")] {
        let info = akin.ok(&format!("collection info {name} --json")).json();
        assert_eq!(info["decode"], expected);
    }
    let run = akin.run("--config {}/wrong.toml index {}/photos -c d --size 56 --model {}/model");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("quick"), "{}", run.stderr);
}
