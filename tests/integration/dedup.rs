//! `akin dedup` as its users meet it.

use std::path::Path;

use image::{Rgb, RgbImage, imageops};
use serde_json::Value;

use crate::support::{Akin, file_name};

/// Four pictures of their own, and of the first a mirror image, a smaller one and an equal file.
fn collection() -> Akin {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 4);
    for number in 0..4 {
        // Something to hold on to, in every block of pixels.
        let path = folder.join(format!("{number:02}.png"));
        textured(number).save(&path).expect("save");
    }
    let first = textured(0);
    imageops::flip_horizontal(&first).save(folder.join("flipped.png")).expect("save");
    let small = imageops::resize(&first, 180, 150, imageops::FilterType::CatmullRom);
    small.save(folder.join("small.png")).expect("save");
    std::fs::copy(folder.join("00.png"), folder.join("zz.png")).expect("copy");
    akin.ok("index {}/pictures -c c --model {}/model");
    akin
}

fn textured(number: u32) -> RgbImage {
    RgbImage::from_fn(240, 200, |x, y| {
        let cell = |size: u32, salt: u32| {
            let n = (x / size) * 7919 + (y / size) * 104_729 + number * 31 + salt;
            let mut h = n.wrapping_mul(2_654_435_761);
            h ^= h >> 15;
            h = h.wrapping_mul(2_246_822_519);
            h ^= h >> 13;
            h % 256
        };
        let grey = ((2 * cell(23, 1) + cell(11, 2)) / 3) as u8;
        Rgb([grey, grey / 2, 255 - grey])
    })
}

fn names(members: &Value) -> Vec<&str> {
    let members = members.as_array().expect("members").iter();
    let mut names: Vec<&str> =
        members.map(|member| file_name(member["path"].as_str().expect("path"))).collect();
    names.sort_unstable();
    names
}

#[test]
fn copies_are_found_told_apart_and_taken_out_only_on_request() {
    let akin = collection();
    let words =
        "dedup -c c --threshold -1 --pixels --keep path-order --report {}/report.jsonl --json";
    let found = akin.ok(words).json();
    assert_eq!((&found["images"], &found["verified"]), (&7.into(), &true.into()));
    let groups = found["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 1, "{found}");
    assert_eq!(names(&groups[0]["kept"]).len(), 1);
    let mut all = names(&groups[0]["dropped"]);
    all.extend(names(&groups[0]["kept"]));
    all.sort_unstable();
    assert_eq!(all, ["00.png", "flipped.png", "small.png", "zz.png"]);
    assert_eq!(found["dropped_by_kind"]["same picture edited"], 2, "{found}");
    assert_eq!(found["dropped_by_kind"]["same file"], 1, "{found}");
    assert_eq!(found["removed_from_collection"], 0);

    let report = std::fs::read_to_string(akin.path("report.jsonl")).expect("report");
    let lines: Vec<Value> =
        report.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.iter().filter(|line| line["type"] == "group").count(), 1);
    let pairs = lines.iter().filter(|line| line["type"] == "pair");
    assert!(pairs.clone().any(|pair| pair["kind"] == "same-subject"));
    assert!(pairs.clone().all(|pair| pair["evidence"]["hash_bits"].is_u64()));

    let human = akin.ok("dedup -c c --threshold -1");
    assert!(human.stdout.contains("keep") && human.stdout.contains("same picture edited"));
    assert!(human.stderr.contains("nothing was changed"), "{}", human.stderr);

    let removed = akin
        .ok("dedup -c c --threshold -1 --keep path-order --remove-from-collection --json")
        .json();
    assert_eq!(removed["removed_from_collection"], 3);
    assert_eq!(akin.ok("collection info c --json").json()["images"], 4);
    assert!(akin.path("pictures/zz.png").exists() && akin.path("pictures/flipped.png").exists());
    let again = akin.ok("dedup -c c --threshold -1 --json").json();
    assert_eq!(again["dropped"], 0);
}

#[test]
fn a_pair_is_remembered_and_forgotten() {
    let akin = collection();
    let flipped = |akin: &Akin| {
        let found = akin.ok("dedup -c c --threshold -1 --keep path-order --json").json();
        let dropped = found["groups"][0]["dropped"].clone();
        (names(&dropped).contains(&"flipped.png"), found["remembered_pairs"].clone())
    };
    assert_eq!(flipped(&akin), (true, 0.into()));
    akin.ok("dedup -c c --not-duplicate {}/pictures/00.png {}/pictures/flipped.png");
    let (dropped_for_another, remembered) = flipped(&akin);
    assert_eq!(remembered, 1);
    // It may still be a copy of the small one, but never in one group with the first.
    let found = akin.ok("dedup -c c --threshold -1 --keep path-order --json").json();
    for group in found["groups"].as_array().expect("groups") {
        let mut all = names(&group["kept"]);
        all.extend(names(&group["dropped"]));
        assert!(!(all.contains(&"00.png") && all.contains(&"flipped.png")), "{found}");
    }
    assert!(!dropped_for_another);
    akin.ok("dedup -c c --not-duplicate {}/pictures/flipped.png {}/pictures/00.png --forget");
    assert_eq!(flipped(&akin), (true, 0.into()));
}

#[test]
fn thresholds_are_calibrated_with_labels_and_without() {
    let akin = collection();
    let path = |name: &str| akin.path(&format!("pictures/{name}.png")).display().to_string();
    let line = |a: &str, b: &str, copy: u8| format!("{},{},{copy}\n", path(a), path(b));
    let truth: String = [
        "a,b,copy\n".to_owned(),
        line("00", "flipped", 1),
        line("00", "small", 1),
        line("00", "01", 0),
        line("01", "02", 0),
        line("02", "03", 0),
    ]
    .concat();
    std::fs::write(akin.path("truth.csv"), truth).expect("write");
    let words = "dedup -c c --calibrate {}/truth.csv --threshold -1 --out {}/out --json";
    let found = akin.ok(words).json();
    assert_eq!((&found["pairs"], &found["copies"]), (&5.into(), &2.into()));
    assert_eq!(found["verified"]["precision"], 1.0, "{found}");
    assert_eq!(found["verified"]["recall"], 1.0, "{found}");
    assert!(found["by_similarity"]["threshold_95"].as_array().is_some_and(|both| both.len() == 2));
    assert_eq!(akin.ok(words).json(), found, "seeded");
    let csv = std::fs::read_to_string(akin.path("out/calibration.csv")).expect("CSV");
    assert!(csv.starts_with("threshold,called,found,copies,precision,recall\n"), "{csv}");
    let svg = std::fs::read_to_string(akin.path("out/calibration.svg")).expect("SVG");
    assert!(svg.contains("recall") && svg.ends_with("</svg>\n"));

    let found = akin.ok("dedup -c c --calibrate --out {}/out --json").json();
    let counts = found["by_threshold"].as_array().expect("counts");
    assert_eq!(counts.len(), 60);
    let pairs = |i: usize| counts[i]["pairs"].as_u64().expect("pairs");
    assert!((1..60).all(|i| pairs(i) <= pairs(i - 1)));
}

#[test]
fn bad_requests_get_one_clear_sentence() {
    let akin = collection();
    akin.pictures("few", 2);
    akin.ok("index {}/few -c wide --model {}/model --pooling cls-mean-patch");
    std::fs::write(akin.path("bad.csv"), "a,b,copy\n1,2,perhaps\n").expect("write");
    std::fs::write(akin.path("unknown.csv"), "a,b,copy\n0,99,1\n0,1,0\n").expect("write");
    std::fs::write(akin.path("self.csv"), "a,b,copy\n1,1,1\n").expect("write");
    let cases = [
        ("dedup -c c", 2, "no threshold has been measured for vit-32x2"),
        ("dedup -c c --threshold 1.5", 2, "between -1 and 1"),
        ("dedup -c c --threshold x", 2, "must be a number"),
        ("dedup -c c --threshold 0.5 -k 0", 2, "at least 1"),
        ("dedup -c gone --threshold 0.5", 1, "no collection `gone`"),
        ("dedup -c c --threshold 0.5 --reference c", 2, "its own reference"),
        ("dedup -c c --threshold 0.5 --reference gone", 1, "no collection `gone`"),
        ("dedup -c c --threshold 0.5 --reference wide", 1, "cannot be mixed"),
        ("dedup -c c --threshold 0.5 --protect {}/gone", 1, "gone: No such file"),
        ("dedup -c c --threshold 0.5 --no-verify --report {}/no/r.jsonl", 1, "cannot write"),
        ("dedup -c c --not-duplicate 0 99", 1, "no image `99`"),
        (
            "dedup -c c --not-duplicate {}/pictures/00.png {}/pictures/zz.png",
            1,
            "same file content",
        ),
        ("dedup -c c --calibrate {}/bad.csv", 1, "line 2"),
        ("dedup -c c --calibrate {}/unknown.csv", 1, "no image `99`"),
        ("dedup -c c --calibrate {}/self.csv", 1, "with itself"),
        ("dedup -c c --calibrate {}/gone.csv", 1, "gone.csv"),
        ("dedup -c c --seed 3", 2, "--calibrate"),
    ];
    for (words, code, message) in cases {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.contains("panicked"), "{words}");
    }
}

#[test]
fn originals_that_are_gone_are_named_and_their_pairs_stay() {
    let akin = collection();
    for name in ["flipped", "small"] {
        std::fs::remove_file(akin.path(&format!("pictures/{name}.png"))).expect("remove");
    }
    let run = akin.run("dedup -c c --threshold -1 --json");
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let found = run.json();
    // Equal files need no look.
    assert_eq!(found["dropped_by_kind"]["same file"], 1);
    assert_eq!(found["dropped"], 1);
    assert!(found["unseen_pairs"].as_u64().expect("pairs") > 0);
    assert_eq!(found["skipped"].as_array().expect("skipped").len(), 2);
    assert!(Path::new(&akin.path("pictures/00.png")).exists());
    // By similarity alone, files are not needed.
    akin.ok("dedup -c c --threshold 0.999 --no-verify");
}
