//! `akin index` from all it takes, and what it says.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Akin;

#[test]
fn moved_gone_and_pruned_pictures_are_reported() {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 6);
    akin.ok("index {}/pictures -c c --model {}/model");
    std::fs::rename(folder.join("00.png"), folder.join("moved.png")).expect("rename");
    std::fs::remove_file(folder.join("01.png")).expect("remove");
    let would = akin.ok("index {}/pictures -c c --dry-run --json").json();
    assert!(would["would_move"][0]["to"].as_str().expect("path").ends_with("moved.png"));
    assert!(would["would_remove"][0].as_str().expect("path").ends_with("01.png"));
    let report = akin.ok("index {}/pictures -c c --json").json();
    assert_eq!((&report["moved"], &report["removed"]), (&1.into(), &1.into()), "{report}");
    assert_eq!((&report["unchanged"], &report["images"]), (&4.into(), &5.into()));

    std::fs::remove_dir_all(&folder).expect("remove");
    let run = akin.ok("index {}/pictures -c c --json");
    assert_eq!(run.json()["held_back"][0]["gone"], 5);
    assert!(run.stderr.contains("--prune"), "{}", run.stderr);
    let report = akin.ok("index {}/pictures -c c --prune --json").json();
    assert_eq!((&report["removed"], &report["images"]), (&5.into(), &0.into()));
}

#[test]
fn lists_patterns_and_payload_are_taken() {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 4);
    let list = format!("{0}/00.png\0{0}/01.png\0{0}/gone.png\0", folder.display());
    let run = akin.run_with("index --from-list - -0 -c c --model {}/model --json", list.as_bytes());
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert_eq!(run.json()["added"], 2);
    assert!(run.stderr.contains("gone.png: no such file"), "{}", run.stderr);

    std::fs::write(akin.path("t.csv"), "file,stars\npictures/02.png,4\nnone.png,1\n")
        .expect("write");
    let words = "index {}/pictures -c c --exclude 03* --payload {}/t.csv --json";
    let run = akin.ok(words);
    let report = run.json();
    assert_eq!((&report["added"], &report["unchanged"]), (&1.into(), &2.into()), "{report}");
    assert_eq!(report["unmatched_payload"]["first"][0], "none.png");
    assert!(run.stderr.contains("1 rows of payload are about no picture: none.png"));
    let hit = akin.ok("search {}/pictures/02.png -c c -k 1 --json").json();
    assert_eq!(hit["hits"][0]["payload"]["stars"], 4);
}

#[test]
fn the_output_of_embed_and_foreign_vectors_are_indexed() {
    let akin = Akin::new();
    akin.pictures("pictures", 5);
    for out in ["e.parquet", "e.npy"] {
        akin.ok(&format!("embed {{}}/pictures --model {{}}/model --out {{}}/{out}"));
        let report = akin.ok(&format!("index --embeddings {{}}/{out} -c from-{out} --json")).json();
        assert_eq!((&report["added"], &report["model"]), (&5.into(), &"vit-32x2".into()));
        // The same model, so pictures can be searched with and indexed on top.
        let words = "search {}/pictures/03.png -k 1 --model {}/model --json";
        let hit = akin.ok(&format!("{words} -c from-{out}")).json();
        assert!(hit["hits"][0]["path"].as_str().expect("path").ends_with("03.png"), "{hit}");
        let words = format!("index {{}}/pictures -c from-{out} --model {{}}/model --json");
        let report = akin.ok(&words).json();
        assert_eq!((&report["unchanged"], &report["added"]), (&5.into(), &0.into()));
    }
    std::fs::remove_file(akin.path("e.jsonl")).expect("remove");
    let words = "index --embeddings {}/e.npy --embedding-model clip -c f --json";
    assert_eq!(akin.ok(words).json()["model"], "foreign:clip");
    for (words, code, message) in [
        ("index --embeddings {}/e.npy --embedding-model other -c f", 1, "cannot be mixed"),
        ("index --embeddings {}/gone.npy -c f", 1, "no such file"),
        ("index --embeddings {}/e.parquet --embedding-column x -c f", 1, "no column `x`"),
        ("search {}/pictures/00.png -c f", 1, "vectors that another program made (foreign:clip)"),
        ("index {}/pictures -c f", 1, "vectors that another program made"),
        ("index {}/pictures --embeddings {}/e.npy -c f", 2, "cannot be used with"),
        ("index -c f", 2, "required"),
        ("index {}/pictures/00.png --watch -c f", 2, "--watch needs a folder"),
        ("index {}/pictures --exclude [ -c f", 1, "is no pattern"),
    ] {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
    }
}

#[cfg(unix)]
#[test]
fn watching_follows_changes_and_ends_well_at_ctrl_c() {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_akin"))
        .args(["index", "-c", "c", "--watch", "--json", "--quiet", "--model"])
        .args([akin.path("model"), folder.clone()])
        .env_clear()
        .env("AKIN_HOME", akin.path("home"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let mut report = || -> serde_json::Value {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    assert_eq!(report()["added"], 2);
    std::fs::copy(folder.join("00.png"), folder.join("new.png")).expect("copy");
    let seen = report();
    assert_eq!(
        (&seen["added"], &seen["copied"], &seen["images"]),
        (&1.into(), &1.into(), &3.into())
    );

    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill").success());
    let asked = Instant::now();
    let status = child.wait().expect("wait");
    let mut errors = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("read");
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(asked.elapsed() < Duration::from_secs(30));
    assert_eq!(akin.ok("collection info c --json").json()["images"], 3);
}
