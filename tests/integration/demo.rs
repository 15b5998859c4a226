//! `akin demo`, with the tiny model: every stage runs and adds up; how well a model fares is for
//! real ones.

use std::path::Path;

use crate::support::Akin;

const DEMO: &str = "demo --pictures 48 --out {}/gallery --model {}/model";

#[test]
fn the_walk_counts_what_was_planted_and_a_second_one_draws_nothing() {
    let akin = Akin::new();
    let demo = akin.ok(&format!("{DEMO} --json")).json();
    let counts = &demo["counts"];
    let count = |name: &str| counts[name].as_u64().expect("count");
    assert_eq!((count("families"), count("pool"), count("test")), (16, 53, 3));
    assert_eq!((count("near_copies"), count("leaks"), count("drawn")), (5, 1, 56));
    assert_eq!((&demo["index"]["images"], &demo["index"]["added"]), (&56.into(), &56.into()));
    assert_eq!(demo["skipped"].as_array().expect("skipped").len(), 0);

    let hits = demo["search"]["hits"].as_array().expect("hits");
    assert_eq!(hits.len(), 8);
    assert_eq!(hits[0]["path"], demo["search"]["query"]);
    assert!((hits[0]["similarity"].as_f64().expect("similarity") - 1.0).abs() <= 1e-4);

    for (part, planted) in [("near_copies", 5), ("leaks", 1)] {
        let report = &demo[part];
        assert_eq!(report["planted"], planted);
        assert_eq!(report["threshold"], demo["near_copies"]["threshold"]);
        let pairs = report["pairs"].as_array().expect("pairs");
        assert_eq!(report["called"], pairs.len());
        let found = pairs.iter().filter(|pair| pair["edit"].is_string()).count();
        assert_eq!(report["found"], found);
        for pair in pairs {
            assert!(pair["similarity"].as_f64() >= report["threshold"].as_f64());
            assert!(Path::new(pair["copy"].as_str().expect("path")).is_file());
        }
    }
    assert_eq!(demo["knn"]["queries"], 48);
    assert!(demo["took_ms"]["total"].as_f64().expect("ms") > 0.0);

    let again = akin.ok(&format!("{DEMO} --json")).json();
    assert_eq!((&again["counts"]["drawn"], &again["index"]["added"]), (&0.into(), &0.into()));
    assert_eq!(again["index"]["unchanged"], 56);
    for same in ["search", "near_copies", "leaks", "knn"] {
        assert_eq!(again[same], demo[same], "{same}");
    }
}

#[test]
fn the_commands_it_suggests_work() {
    let akin = Akin::new();
    let shown = akin.ok(DEMO).stdout;
    for stage in [
        "1. A gallery: 56 pictures",
        "2. Indexed",
        "3. What is akin",
        "4. Near-copies",
        "5. Leaks",
        "Next:",
    ] {
        assert!(shown.contains(stage), "{shown}");
    }
    let suggested: Vec<&str> = shown.lines().skip_while(|line| *line != "Next:").skip(1).collect();
    let words = |line: &str| {
        line.split_once(" akin ").or(line.split_once("/akin ")).map(|s| s.1.to_owned())
    };
    let [search, copies] = [0, 1].map(|i| words(suggested[i]).expect("a command"));
    assert!(search.starts_with("search ") && copies.starts_with("eval copies "), "{shown}");
    assert_eq!(akin.ok(&format!("{search} --json")).json()["collection"], "demo");
    assert_eq!(akin.ok(&format!("{copies} --json")).json()["queries"], 5);
    let quiet = akin.ok(&format!("{DEMO} --quiet"));
    assert!(!quiet.stdout.contains("Next:") && quiet.stderr.is_empty(), "{}", quiet.stderr);
}

#[test]
fn what_is_not_a_gallery_is_left_alone() {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 2);
    let refused = |words: &str, message: &str| {
        let run = akin.run(words);
        assert_eq!(run.code, Some(1), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
    };
    refused("demo --out {}/pictures --model {}/model", "nothing is overwritten");
    assert_eq!(std::fs::read_dir(&folder).expect("list").count(), 2);
    refused("demo --pictures 3 --out {}/gallery --model {}/model", "48 to 100000");

    akin.ok("index {}/pictures -c c --model {}/model");
    refused(&format!("{DEMO} -c c"), "holds pictures that are not in");
    refused("demo --pictures 49 --out {}/gallery --model {}/model", "48 pictures, wanted are");
}
