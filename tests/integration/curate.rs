//! From a pool and examples to an export, by the program.

use std::path::Path;

use crate::support::{Akin, file_name};

/// A pool of 12 pictures, folders of two seeds and of one picture to stay clear of.
fn pool() -> Akin {
    let akin = Akin::new();
    let pool = akin.pictures("pool", 12);
    let set = |name: &str, numbers: &[u32]| {
        let folder = akin.path(name);
        std::fs::create_dir_all(&folder).expect("create");
        for number in numbers {
            let file = format!("{number:02}.png");
            std::fs::copy(pool.join(&file), folder.join(&file)).expect("copy");
        }
    };
    set("seeds", &[3, 4]);
    set("tests", &[5]);
    std::fs::copy(pool.join("07.png"), pool.join("seven-again.png")).expect("copy");
    akin.ok("index {}/pool -c pool --model {}/model");
    akin
}

/// The tiny model finds everything alike: only the same picture counts as a copy.
const CURATE: &str = "curate --pool pool --seed {}/seeds --exclude {}/tests --self-threshold \
                      0.999 --threshold 0.999 -k 2 --out {}/run";

fn manifest(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("manifest.jsonl")).expect("manifest");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_dataset_is_grown_explained_reviewed_exported_and_verified() {
    let akin = pool();
    let run = akin.ok(&format!("{CURATE} --json")).json();
    let result = &run["result"];
    assert_eq!(result["pool"]["images"], 13);
    assert_eq!(result["accounts"][0]["seeds"], "seeds");
    assert_eq!(result["accounts"][0]["images"], 2);
    let lines = manifest(&akin.path("run"));
    assert_eq!(result["kept"], lines.len());
    let names: Vec<&str> =
        lines.iter().map(|line| file_name(line["path"].as_str().expect("path"))).collect();
    // The seeds are in the pool too, and one neighbour at least; the copy and the leak are not.
    assert!(names.contains(&"03.png") && names.contains(&"04.png") && names.len() > 2, "{names:?}");
    assert!(!names.contains(&"05.png") && !names.contains(&"seven-again.png"), "{names:?}");
    for line in &lines {
        assert_eq!(line["sha256"].as_str().map(str::len), Some(64));
        assert_eq!(line["seed"]["set"], "seeds");
        assert!(line["similarity"].is_f64() && line["file"].is_null());
    }

    let leak = akin.ok("curate explain {}/run {}/pool/05.png").stdout;
    assert!(leak.contains("like the excluded image") && leak.contains("tests/05.png"), "{leak}");
    let copy = akin.ok("curate explain {}/run {}/pool/seven-again.png --json").json();
    assert_eq!((&copy[0]["kept"], &copy[0]["rule"]), (&false.into(), &"same file".into()));

    let id = lines[0]["id"].to_string();
    std::fs::write(akin.path("out.txt"), format!("# not this one\n{id}\n")).expect("write");
    let left = akin.ok("curate review {}/run --reject {}/out.txt --json").json();
    assert_eq!((&left["kept"], &left["rejected"]), (&(lines.len() - 1).into(), &1.into()));
    std::fs::write(akin.path("in.txt"), akin.path("pool/05.png").to_string_lossy().as_bytes())
        .expect("write");
    let refused = akin.run("curate review {}/run --accept {}/in.txt");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot be accepted"), "{}", refused.stderr);

    let done = akin.ok("export {}/run --format imagefolder --out {}/set --json").json();
    assert_eq!(done["images"], lines.len() - 1);
    assert_eq!((&done["leaks"], &done["certified"]), (&0.into(), &true.into()));
    for line in manifest(&akin.path("set")) {
        assert!(akin.path("set").join(line["file"].as_str().expect("a file")).is_file());
    }
    let sound = akin.ok("export verify {}/set --json").json();
    assert_eq!(sound["certificate_remade"], true);
    // What is exported is what a trainer reads.
    std::fs::write(akin.path("set/README.md"), "other").expect("write");
    let changed = akin.run("export verify {}/set");
    assert_eq!(changed.code, Some(1));
    assert!(changed.stderr.contains("README.md is not what was exported"), "{}", changed.stderr);

    assert_eq!(akin.ok("curate review {}/run --undo --json").json()["kept"], lines.len());
    let again = akin.ok(CURATE);
    assert!(again.stderr.contains("as computed before"), "{}", again.stderr);
    std::fs::remove_file(akin.path("pool/03.png")).expect("remove");
    let some = akin.run("export {}/run --format webdataset --embeddings --out {}/shards --json");
    assert_eq!(some.code, Some(3), "{}", some.stderr);
    assert!(some.stderr.contains("03.png: the original is missing"), "{}", some.stderr);
    let strict = akin.run("export {}/run --format csv --strict --out {}/strict");
    assert_eq!(strict.code, Some(1));
    assert!(!akin.path("strict").exists());
}

#[test]
fn steps_come_from_the_configuration_file() {
    let akin = pool();
    let config = "[curate]\nrandom_seed = 3\n\n[[curate.steps]]\nstep = \"retrieve\"\nmethod = \
                  \"cluster\"\nclusters = 1\nmin_seeds = 1\n\n[[curate.steps]]\nstep = \"balance\"\n\
                  target = 5\nlevels = [3]\n";
    std::fs::write(akin.path("akin.toml"), config).expect("write");
    let words = "curate --pool pool --seed a={}/seeds --out {}/run --config {}/akin.toml --json";
    let result = akin.ok(words).json()["result"].clone();
    assert_eq!(result["kept"], 5);
    assert_eq!(result["steps"][1]["folder"], "02-balance");
    assert_eq!(result["accounts"][0]["seeds"], "a");
    let fewer = akin.ok(&format!("{words} --balance 4")).json()["result"].clone();
    assert_eq!(fewer["kept"], 4);
    std::fs::write(akin.path("akin.toml"), "[curate]\nsteps = [{ step = \"retrieve\", kk = 3 }]\n")
        .expect("write");
    let bad = akin.run(words);
    assert_eq!(bad.code, Some(2));
    assert!(bad.stderr.contains("kk"), "{}", bad.stderr);
}

#[test]
fn bad_input_gets_one_clear_sentence_and_the_right_exit_code() {
    let akin = pool();
    akin.pictures("none", 0);
    akin.ok("index {}/seeds -c other --model {}/model --size 448");
    std::fs::write(akin.path("file"), b"x").expect("write");
    let cases = [
        ("curate --pool gone --seed {}/seeds --out {}/run", 1, "no collection `gone`"),
        ("curate --pool pool --seed {}/gone --out {}/run", 2, "neither a collection"),
        ("curate --pool pool --out {}/run", 1, "no seed images"),
        ("curate --pool pool --seed {}/none --out {}/run", 1, "`none` has no images"),
        ("curate --pool pool --seed other --out {}/run", 1, "cannot be mixed"),
        ("curate --pool pool --seed {}/seeds --exclude pool --out {}/run", 1, "is the pool itself"),
        ("curate --pool pool --seed {}/seeds --cap 0 --out {}/run", 2, "at least 1"),
        ("curate --pool pool --seed {}/seeds --threshold 7 --out {}/run", 2, "no cosine"),
        ("curate --pool pool --seed {}/seeds --out {}/file", 1, "cannot open"),
        ("curate --pool pool --seed {}/seeds --out {}/pool", 1, "not empty and no curation's"),
        ("curate --seed {}/seeds --out {}/run", 2, "--pool"),
        ("curate explain {}/pool 3", 1, "no folder of `akin curate`"),
        ("curate review {}/gone --undo", 1, "no folder of `akin curate`"),
        ("export {}/pool --format csv --out {}/out", 1, "no folder of `akin curate`"),
        ("export gone --format csv --out {}/out", 1, "no collection `gone`"),
        ("export pool --format csv --out {}/pool", 1, "nothing is overwritten"),
        ("export pool --format csv --out {}/file", 1, "this is a file"),
        ("export pool --format imagefolder --files none --out {}/out", 1, "needs its pictures"),
        ("export pool --format tfrecord --out {}/out", 2, "tfrecord"),
        ("export pool --out {}/out", 2, "--format"),
        ("export verify {}/pool", 1, "this is no export"),
    ];
    for (words, code, sentence) in cases {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(sentence), "{words}: {}", run.stderr);
        assert!(!akin.path("run").exists() && !akin.path("out").exists(), "{words}");
    }
}
