//! `akin collection`: its commands, their output and their exit codes.

use crate::support::{Akin, Run};

/// Five pictures in collection `c`.
fn indexed() -> Akin {
    let akin = Akin::new();
    akin.pictures("pictures", 5);
    akin.ok("index {}/pictures -c c --model {}/model");
    akin
}

fn images(akin: &Akin, name: &str) -> serde_json::Value {
    akin.ok(&format!("collection info {name} --json")).json()["images"].clone()
}

fn assert_says(run: &Run, code: i32, words: &str) {
    assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
    assert!(format!("{}{}", run.stdout, run.stderr).contains(words), "`{words}` in {run:?}");
}

#[test]
fn a_check_says_what_is_wrong_and_repair_lets_index_mend_it() {
    let akin = indexed();
    let sound = akin.ok("collection check c --json").json();
    assert_eq!((&sound["is_sound"], &sound["images"]), (&true.into(), &5.into()));
    assert_says(&akin.run("collection check c"), 0, "5 images, 0 failures, 5 rows; all sound");

    let shard = akin.path("home/collections/c/data-000001/vectors/shard-00000.f16");
    let mut bytes = std::fs::read(&shard).expect("read");
    bytes[16 + 2 * (8 + 2 * 32 + 4) + 20] ^= 1;
    std::fs::write(&shard, bytes).expect("write");
    let run = akin.run("collection check c");
    assert_says(&run, 1, "row 2 fails its checksum");
    assert_says(&run, 1, "run: akin collection check c --repair, then `akin index`");
    let json = akin.run("collection check c --json");
    assert_eq!(json.code, Some(1));
    assert_eq!((&json.json()["found"], &json.json()["remaining"]), (&1.into(), &1.into()));

    let repaired = akin.ok("collection check c --repair --json").json();
    assert_eq!((&repaired["found"], &repaired["remaining"]), (&1.into(), &0.into()));
    assert_eq!(images(&akin, "c"), 4);
    let report = akin.ok("index {}/pictures -c c --json").json();
    assert_eq!((&report["added"], &report["images"]), (&1.into(), &5.into()));
    akin.ok("collection check c -q");
}

#[test]
fn removed_images_give_their_space_back() {
    let akin = indexed();
    let planned = akin.ok("collection remove c --id 0 3 --dry-run");
    assert_eq!(planned.stdout.lines().count(), 2);
    assert_eq!(images(&akin, "c"), 5);
    let removed = akin.ok("collection remove c --path {}/pictures/00.png --id 3 --json").json();
    assert_eq!(removed["images"].as_array().expect("images").len(), 2);
    let info = akin.ok("collection info c --json").json();
    assert_eq!(
        (&info["images"], &info["rows"], &info["dead_rows"]),
        (&3.into(), &5.into(), &2.into())
    );
    assert!(info["bytes"]["total"].as_u64() > info["bytes"]["vectors"].as_u64());

    let vectors = info["bytes"]["vectors"].as_u64().expect("bytes");
    let report = akin.ok("collection compact c --json").json();
    assert_eq!((&report["is_rewritten"], &report["dead_rows"]), (&true.into(), &2.into()));
    let info = akin.ok("collection info c --json").json();
    assert!(info["bytes"]["vectors"].as_u64().expect("bytes") < vectors);
    assert_eq!((&info["rows"], &info["data"]), (&3.into(), &"data-000002".into()));
    assert_says(&akin.run("collection compact c"), 0, "nothing to do");

    // A folder that is gone.
    std::fs::remove_dir_all(akin.path("pictures")).expect("remove");
    akin.ok("collection remove c --under {}/pictures");
    assert_eq!(images(&akin, "c"), 0);
}

#[test]
fn a_collection_moves_in_one_file() {
    let akin = indexed();
    let before = akin.ok("search {}/pictures/03.png -c c --json").json();
    akin.ok("collection snapshot c --out {}/c.akin");
    let info = akin.ok("collection info --archive {}/c.akin --json").json();
    assert_eq!((&info["name"], &info["images"]), (&"c".into(), &5.into()));
    assert_says(&akin.run("collection info --archive {}/c.akin"), 0, "member       vectors.npy");
    akin.ok("collection restore {}/c.akin --as d");
    let after = akin.ok("search {}/pictures/03.png -c d --json").json();
    assert_eq!(before["hits"], after["hits"]);
    akin.ok("collection check d -q");
    let again = akin.ok("index {}/pictures -c d --json").json();
    assert_eq!(again["unchanged"], 5);

    akin.ok("collection remove c --id 1");
    let json = akin.ok("collection restore {}/c.akin --replace --json").json();
    assert_eq!(json["has_replaced"], true);
    assert_eq!(images(&akin, "c"), 5);
}

#[test]
fn a_collection_goes_over_to_other_settings() {
    let akin = indexed();
    let same = akin.run("collection reindex c");
    assert_says(&same, 2, "name another model");
    let run = akin.ok("collection reindex c --pooling mean-patch --json").json();
    assert_eq!((&run["embedded"], &run["images"]), (&5.into(), &5.into()));
    let info = akin.ok("collection info c --json").json();
    assert_eq!(info["pooling"], "mean_patch");
    let found = akin.ok("search {}/pictures/02.png -c c --json").json();
    assert!(found["hits"][0]["similarity"].as_f64().expect("similarity") > 0.999);
    akin.ok("collection check c -q");

    // No picture is needed for this.
    let pictures = akin.path("pictures");
    std::fs::rename(&pictures, akin.path("away")).expect("rename");
    let run = akin.ok("collection reindex c --ann-from 3 --json").json();
    assert_eq!((&run["embedded"], &run["is_changed"]), (&0.into(), &true.into()));
    assert_eq!(akin.ok("collection info c --json").json()["search"], "graph");
    assert_says(&akin.run("collection reindex c --ann-from 3"), 0, "nothing to do");
    // For this there are none.
    let run = akin.run("collection reindex c --precision f32");
    assert_says(&run, 1, "5 images are missing together with their folder");
    assert_says(&akin.run("collection info c"), 0, "unfinished");
    akin.ok("collection reindex c --abandon");
    std::fs::rename(akin.path("away"), &pictures).expect("rename");
    std::fs::remove_file(pictures.join("01.png")).expect("remove");
    let run = akin.run("collection reindex c --precision f32 --json");
    assert_says(&run, 3, "01.png: the file is gone");
    assert_eq!(run.json()["images"], 4);
    let info = akin.ok("collection info c --json").json();
    assert_eq!((&info["precision"], &info["failed"]), (&"f32".into(), &1.into()));
    akin.ok("collection check c -q");
}

#[test]
fn a_collection_is_deleted_after_a_yes() {
    let akin = indexed();
    assert_says(&akin.run("collection delete c"), 2, "add --yes");
    assert_eq!(images(&akin, "c"), 5);
    let gone = akin.ok("collection delete c --yes --json").json();
    assert_eq!((&gone["images"], &gone["is_deleted"]), (&5.into(), &true.into()));
    assert_says(&akin.run("collection delete c --yes"), 1, "there is no collection `c`");
    assert_eq!(akin.ok("collection list --json").stdout.trim(), "[]");
    assert!(akin.path("pictures/00.png").exists());
}

#[test]
fn bad_input_is_told_what_is_wrong_with_it() {
    let akin = indexed();
    std::fs::write(akin.path("junk"), [7; 3000]).expect("write");
    akin.ok("collection snapshot c --out {}/c.akin");
    for (words, code, message) in [
        ("collection check none", 1, "there are: c"),
        ("collection compact ../c", 1, "cannot be a collection name"),
        ("collection reindex none --size 28", 1, "there is no collection"),
        ("collection reindex c --size 27", 2, "14"),
        ("collection reindex c --model {}/none", 1, "none"),
        ("collection reindex c --keep-missing", 2, "those of two models cannot be compared"),
        ("collection reindex c --precision f64", 2, "f16"),
        ("collection reindex c --abandon --restart", 2, "cannot be used with"),
        ("collection remove c", 2, "--id"),
        ("collection remove c --id x", 2, "invalid"),
        ("collection remove c --id 77", 1, "there is no image 77 in collection `c`"),
        ("collection remove c --path {}/pictures/none.png", 1, "nothing is known of"),
        ("collection remove c --under {}/none", 1, "nothing is known below"),
        ("collection delete", 2, "<NAME>"),
        ("collection snapshot c", 2, "--out"),
        ("collection snapshot none --out {}/n.akin", 1, "there is no collection"),
        ("collection snapshot c --out {}/c.akin", 1, "--force"),
        ("collection snapshot c --out {}/none/c.akin", 1, "none"),
        ("collection restore {}/junk", 1, "it is no snapshot"),
        ("collection restore {}/none", 1, "cannot open"),
        ("collection restore {}/c.akin", 1, "--replace"),
        ("collection restore {}/c.akin --as a/b", 1, "cannot be a collection name"),
        ("collection info --archive {}/junk", 1, "it is no snapshot"),
        ("collection info c --archive {}/c.akin", 2, "cannot be used with"),
    ] {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: `{message}` in {}", run.stderr);
    }
    assert_eq!(images(&akin, "c"), 5);
}
