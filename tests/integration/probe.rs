//! Heads: trained, tested, applied to collections, and refused.

use crate::support::{Akin, file_name};

const CLASSES: [(&str, [u8; 3]); 3] =
    [("forest", [20, 120, 30]), ("sea", [20, 60, 190]), ("sunset", [220, 90, 30])];

/// A folder for each class, with pictures of its colour numbered from `first`.
fn draw(akin: &Akin, folder: &str, first: u32, count: u32) {
    for (class, colour) in CLASSES {
        let folder = akin.path(folder).join(class);
        std::fs::create_dir_all(&folder).expect("create");
        for number in first..first + count {
            let picture = image::RgbImage::from_fn(64, 48, |x, y| {
                let noise = (x / 8 * 31 + y / 8 * 17 + number * 101).wrapping_mul(2_654_435_761);
                image::Rgb(colour.map(|v| v.saturating_add((noise >> 27) as u8)))
            });
            picture.save(folder.join(format!("{class}-{number:02}.png"))).expect("save");
        }
    }
}

/// The label in the payload of each hit, by file name.
fn labels(akin: &Akin) -> Vec<(String, serde_json::Value)> {
    let found = akin.ok("search {}/test/sea/sea-20.png -c c -k 100 --json").json();
    let hits = found["hits"].as_array().expect("hits");
    let name = |hit: &serde_json::Value| file_name(hit["path"].as_str().expect("path")).to_owned();
    let mut labels: Vec<_> = hits.iter().map(|hit| (name(hit), hit["payload"].clone())).collect();
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels
}

#[test]
fn a_head_is_trained_and_labels_a_collection() {
    let akin = Akin::new();
    draw(&akin, "train", 0, 6);
    draw(&akin, "test", 20, 3);
    let trained = akin.ok(
        "train probe {}/train --queries {}/test --out {}/colours.safetensors --model {}/model \
         --layers 1,2 --iterations 150 --batch 16 --json",
    );
    let result = trained.json();
    assert_eq!(result["heads_tried"], 52);
    assert_eq!(result["tried"].as_array().expect("the grid").len(), 52);
    assert_eq!(
        (&result["training_pictures"], &result["validation_pictures"]),
        (&15.into(), &3.into())
    );
    assert_eq!((&result["queries"], &result["correct"]), (&9.into(), &9.into()));
    assert_eq!((&result["top1_percent"], &result["top5_percent"]), (&100.0.into(), &100.0.into()));
    assert!(!trained.stderr.contains("test result"), "{}", trained.stderr);

    akin.ok("index {}/test -c c --model {}/model");
    let dry = akin.ok("label -c c --head {}/colours.safetensors --dry-run --json").json();
    assert_eq!(
        (&dry["labelled"], &dry["below"], &dry["dry_run"]),
        (&9.into(), &0.into(), &true.into())
    );
    assert!(labels(&akin).iter().all(|(_, payload)| payload == &serde_json::json!({})));

    let done = akin.ok("label -c c --head {}/colours.safetensors --json").json();
    assert_eq!(done["classes"], serde_json::json!({"forest": 3, "sea": 3, "sunset": 3}));
    for (name, payload) in labels(&akin) {
        let class = name.split('-').next();
        assert_eq!(payload["label"].as_str(), class, "{name}");
        let confidence = payload["label_confidence"].as_f64().expect("a number");
        assert!((1.0 / 3.0..=1.0).contains(&confidence), "{name}: {confidence}");
        assert!(payload["label_head"].as_str().expect("text").starts_with("colours@"));
    }
    let words = akin.ok("search {}/test/sea/sea-20.png -c c -k 1").stdout;
    assert!(words.contains("label=sea  label_confidence="), "{words}");

    // Not sure enough: labels go again, and nothing else.
    let none = akin.ok("label -c c --head {}/colours.safetensors --min-confidence 1 --json").json();
    assert_eq!((&none["labelled"], &none["below"]), (&0.into(), &9.into()));
    assert!(labels(&akin).iter().all(|(_, payload)| payload == &serde_json::json!({})));
}

#[test]
fn heads_read_stored_vectors_or_the_files() {
    let akin = Akin::new();
    draw(&akin, "train", 0, 6);
    draw(&akin, "test", 20, 3);
    akin.ok("index {}/test -c c --model {}/model");
    let train = "train probe {}/train --model {}/model --iterations 150 --batch 16 -q --json";
    let stored = akin.ok(&format!("{train} --layers 1 --avg-pool no --out {{}}/a.safetensors"));
    assert_eq!(stored.json()["labels_from"], "stored vectors");
    let files = akin.ok(&format!("{train} --layers 2 --avg-pool yes --out {{}}/b.safetensors"));
    assert_eq!(files.json()["labels_from"], "files");
    let logistic = "train probe {}/train --model {}/model --method logistic -q --json";
    let logistic = akin.ok(&format!("{logistic} --out {{}}/c.safetensors")).json();
    assert_eq!(
        (&logistic["heads_tried"], &logistic["labels_from"]),
        (&45.into(), &"stored vectors".into())
    );
    // Fitted once more to all pictures when the strength is chosen.
    assert_eq!(logistic["training_pictures"], 18);

    // Without the picture, its vector is enough; a head that needs the picture skips it.
    std::fs::remove_file(akin.path("test/sea/sea-21.png")).expect("remove");
    std::fs::copy(akin.path("test/sea/sea-22.png"), akin.path("test/sunset/sunset-22.png"))
        .expect("copy");
    for head in ["a", "c"] {
        let done = akin.ok(&format!("label -c c --head {{}}/{head}.safetensors --json")).json();
        assert_eq!((&done["labelled"], &done["classes"]["sea"]), (&9.into(), &3.into()), "{head}");
    }
    let some = akin.run("label -c c --head {}/b.safetensors --json");
    assert_eq!(some.code, Some(3), "{}", some.stderr);
    assert!(some.stderr.contains("sea-21.png") && some.stderr.contains("sunset-22.png"));
    assert!(some.stderr.contains("has changed since it was indexed"), "{}", some.stderr);
    assert_eq!((&some.json()["labelled"], &some.json()["skipped"]), (&7.into(), &2.into()));

    // A label belongs to the content: the changed picture loses it.
    akin.run("index {}/test -c c");
    let labels = labels(&akin);
    let of = |wanted: &str| &labels.iter().find(|(name, _)| name == wanted).expect("a hit").1;
    assert_eq!(of("sunset-22.png"), &serde_json::json!({}));
    assert_eq!(of("sea-20.png")["label"], "sea");
}

#[test]
fn probes_are_evaluated_and_selection_is_no_test() {
    let akin = Akin::new();
    draw(&akin, "train", 0, 5);
    draw(&akin, "test", 20, 2);
    draw(&akin, "val", 40, 2);
    let words = "eval linear {}/train --model {}/model --layers 1 --iterations 60 --batch 8 --json";
    let run = akin.ok(words);
    let chosen = run.json();
    assert!(chosen.get("top1_percent").is_none() && chosen.get("correct").is_none());
    assert!(run.stderr.contains("for a test result, name others with --queries"), "{}", run.stderr);
    assert_eq!((&chosen["protocol"], &chosen["heads_tried"]), (&"linear probe".into(), &26.into()));
    assert!(chosen["features"].as_str().expect("text").ends_with("raw length"));

    let words = "eval linear {}/train --val {}/val --queries {}/test --model {}/model --layers 1 \
                 --iterations 60 --batch 8 --views 2 --json";
    let mut first = akin.ok(words).json();
    assert_eq!(
        (&first["training_pictures"], &first["validation_pictures"]),
        (&15.into(), &6.into())
    );
    assert_eq!((&first["queries"], &first["views"]), (&6.into(), &2.into()));
    let mut again = akin.ok(words).json();
    first["training_seconds"] = 0.into();
    again["training_seconds"] = 0.into();
    assert_eq!(first, again);

    let words = "eval linear {}/train --queries {}/test --method logistic --model {}/model";
    let text = akin.ok(words).stdout;
    assert!(text.contains("logistic regression") && text.contains("top1_percent"), "{text}");

    let knn = "eval knn {}/train --queries {}/test --model {}/model --json";
    let several = akin.ok(&format!("{knn} -k 1,3,100")).json();
    let rows = several["by_k"].as_array().expect("a list");
    assert_eq!(rows.iter().map(|row| row["k"].as_u64()).collect::<Vec<_>>(), [1, 3, 100].map(Some));
    let one = akin.ok(&format!("{knn} -k 3")).json();
    assert_eq!(
        (&one["top1_percent"], &one["top5_percent"]),
        (&rows[1]["top1_percent"], &rows[1]["top5_percent"])
    );
}

#[test]
fn bad_input_is_refused_with_a_remedy() {
    let akin = Akin::new();
    draw(&akin, "train", 0, 3);
    draw(&akin, "one", 0, 1);
    std::fs::create_dir_all(akin.path("empty")).expect("create");
    std::fs::create_dir_all(akin.path("lone")).expect("create");
    std::fs::rename(akin.path("train/sea"), akin.path("lone/sea")).expect("move");
    draw(&akin, "train", 0, 3);
    draw(&akin, "test", 20, 1);
    std::fs::create_dir_all(akin.path("other")).expect("create");
    std::fs::rename(akin.path("test/sunset"), akin.path("other/dawn")).expect("move");
    std::fs::write(akin.path("words.safetensors"), b"just some words\n").expect("write");
    let config = r#"{"num_attention_heads": 2}"#;
    std::fs::create_dir_all(akin.path("model2")).expect("create");
    std::fs::write(akin.path("model2/config.json"), config).expect("write");
    let weights = fixtures::path("golden/tiny_plain.meta.safetensors");
    std::fs::copy(weights, akin.path("model2/model.safetensors")).expect("copy");

    let fast = "--layers 1 --iterations 5 --batch 4 -q";
    akin.ok(&format!("train probe {{}}/train --model {{}}/model {fast} --out {{}}/h.safetensors"));
    akin.ok("index {}/train -c c --model {}/model");
    akin.ok("index {}/train -c other --model {}/model2");
    let probe = "train probe --model {}/model --out {}/x.safetensors";
    let eval = "eval linear --model {}/model";
    let cases = [
        (format!("{probe} {{}}/lone {fast}"), 1, "of one class, `sea`"),
        (format!("{probe} {{}}/one {fast}"), 1, "single picture"),
        (format!("{probe} {{}}/empty {fast}"), 1, "no picture to train on"),
        (format!("{probe} {{}}/gone {fast}"), 1, "no such file or folder"),
        (format!("{probe} {{}}/train --val {{}}/empty {fast}"), 1, "no validation picture"),
        (format!("{probe} {{}}/train --val-share 1 {fast}"), 1, "between 0 and 1"),
        (format!("{probe} {{}}/train --layers 4 -q"), 1, "choose 1 to 2 with `--layers`"),
        (format!("{probe} {{}}/train --layers 0"), 2, "at least 1"),
        (format!("{probe} {{}}/train --lr 0 {fast}"), 1, "learning rate 0"),
        (format!("{probe} {{}}/train --lr 1e60 {fast}"), 1, "every head diverged"),
        (format!("{probe} {{}}/train --method logistic --views 3"), 2, "--views belongs to"),
        (format!("{eval} {{}}/train --queries {{}}/one {fast}"), 1, "keep them apart"),
        (format!("{eval} {{}}/train --queries {{}}/other {fast}"), 1, "of class `dawn`"),
        (
            format!("train probe {{}}/train --model {{}}/model {fast} --out {{}}/no/h"),
            1,
            "create it first",
        ),
        (
            format!("train probe {{}}/train --model {{}}/model {fast} --out {{}}/empty"),
            1,
            "name a file",
        ),
        (
            "label -c c --head {}/gone.safetensors".to_owned(),
            1,
            "gone.safetensors is not a usable head",
        ),
        ("label -c c --head {}/words.safetensors".to_owned(), 1, "make a head with"),
        ("label -c c --head {}/model/model.safetensors".to_owned(), 1, "holds tensors but no head"),
        ("label -c other --head {}/h.safetensors".to_owned(), 1, "train a head on that model"),
        ("label -c nothing --head {}/h.safetensors".to_owned(), 1, "no collection `nothing`"),
        ("label -c c --head {}/h.safetensors --min-confidence 2".to_owned(), 2, "from 0 to 1"),
    ];
    for (words, code, message) in cases {
        let run = akin.run(&words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{words}: {}", run.stdout);
        assert!(!run.stderr.contains("panicked"), "{words}: {}", run.stderr);
        if code == 1 {
            assert_eq!(run.stderr.lines().count(), 1, "{words}: {}", run.stderr);
        }
    }
    assert!(!akin.path("x.safetensors").exists());
    assert!(labels_of(&akin, "c").iter().all(|payload| payload == &serde_json::json!({})));
}

fn labels_of(akin: &Akin, collection: &str) -> Vec<serde_json::Value> {
    let words = format!("search {{}}/train/sea/sea-00.png -c {collection} --json");
    let found = akin.ok(&words).json();
    found["hits"].as_array().expect("hits").iter().map(|hit| hit["payload"].clone()).collect()
}
