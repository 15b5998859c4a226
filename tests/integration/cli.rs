//! Commands, their output and their exit codes.

use crate::support::{Akin, file_name};

#[test]
fn a_folder_is_indexed_and_a_picture_finds_itself() {
    let akin = Akin::new();
    let folder = akin.pictures("pictures", 12);
    let report = akin.ok("index {}/pictures -c c --model {}/model --json").json();
    assert_eq!((&report["added"], &report["images"]), (&12.into(), &12.into()));

    // The model is remembered; every picture is its own nearest.
    for number in [0, 7, 11] {
        let run = akin.ok(&format!("search {{}}/pictures/{number:02}.png -c c -k 3 --json"));
        let found = run.json();
        assert_eq!(found["collection"], "c");
        assert_eq!(found["model"], "vit-32x2");
        assert!(found["took_ms"]["total"].as_f64().expect("ms") > 0.0);
        let hits = found["hits"].as_array().expect("hits");
        assert_eq!(hits.len(), 3);
        let best = &hits[0];
        let path = folder.join(format!("{number:02}.png"));
        assert_eq!(best["path"], path.to_string_lossy().as_ref());
        assert_eq!(best["rank"], 1);
        assert!((best["similarity"].as_f64().expect("similarity") - 1.0).abs() <= 1e-4);
        assert_eq!(best["percentile"], 100.0);
        assert_eq!((&best["width"], &best["height"]), (&120.into(), &90.into()));
        assert!(best["id"].is_u64() && best["payload"].is_object());
        let similarity = |i: usize| hits[i]["similarity"].as_f64().expect("similarity");
        assert!(similarity(0) >= similarity(1) && similarity(1) >= similarity(2));
    }

    let bytes = std::fs::read(folder.join("05.png")).expect("read");
    let piped = akin.run_with("search - -c c -k 1", &bytes);
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    assert!(piped.stdout.contains("1.0000") && piped.stdout.contains("05.png"), "{}", piped.stdout);
    let all = akin.ok("search {}/pictures/05.png -c c -k 500 --json").json();
    assert_eq!(all["hits"].as_array().expect("hits").len(), 12);
}

#[test]
fn a_second_run_reads_nothing_and_bad_files_give_exit_code_3() {
    let akin = Akin::new();
    akin.pictures("pictures", 3);
    std::fs::write(akin.path("pictures/broken.jpg"), b"\xff\xd8\xff\xe0 cut").expect("write");
    std::fs::write(akin.path("pictures/notes.txt"), b"words").expect("write");
    let first = akin.run("index {}/pictures -c c --model {}/model --json");
    assert_eq!(first.code, Some(3));
    assert!(first.stderr.contains("broken.jpg"), "{}", first.stderr);
    let report = first.json();
    assert_eq!((&report["added"], &report["not_pictures"]), (&3.into(), &1.into()));
    let skipped = &report["skipped"][0];
    assert_eq!(file_name(skipped["path"].as_str().expect("path")), "broken.jpg");
    assert!(!skipped["reason"].as_str().expect("reason").is_empty());

    let second = akin.run("index {}/pictures -c c --json");
    assert_eq!(second.code, Some(3));
    let report = second.json();
    assert_eq!((&report["added"], &report["unchanged"]), (&0.into(), &3.into()));
    let info = akin.ok("collection info c --json --failures").json();
    assert_eq!(
        (&info["images"], &info["failed"], &info["dim"]),
        (&3.into(), &1.into(), &32.into())
    );
    assert_eq!(info["failures"].as_array().expect("failures").len(), 1);
    assert_eq!(akin.ok("collection list --json").json()[0]["name"], "c");
}

#[test]
fn embeddings_go_to_numpy_and_parquet() {
    let akin = Akin::new();
    akin.pictures("pictures", 5);
    akin.ok("embed {}/pictures --model {}/model --out {}/e.npy --patch-tokens");
    let array = std::fs::read(akin.path("e.npy")).expect("read");
    let header = String::from_utf8_lossy(&array[10..128]).into_owned();
    assert!(header.contains("'<f4'") && header.contains("'shape': (5, 32), }"), "{header}");
    assert_eq!(array.len(), 128 + 5 * 32 * 4);
    let norm: f32 = array[128..128 + 128]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes).powi(2))
        .sum();
    assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    let patches = std::fs::metadata(akin.path("e.patch_tokens.npy")).expect("patches").len();
    assert_eq!(patches, 128 + 5 * 256 * 32 * 4);
    let rows = std::fs::read_to_string(akin.path("e.jsonl")).expect("rows");
    let names: Vec<String> = rows
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            file_name(row["path"].as_str().expect("path")).to_owned()
        })
        .collect();
    assert_eq!(names, ["00.png", "01.png", "02.png", "03.png", "04.png"]);

    akin.ok("embed {}/pictures --model {}/model --out {}/e.parquet");
    let table = std::fs::read(akin.path("e.parquet")).expect("read");
    assert!(table.starts_with(b"PAR1") && table.ends_with(b"PAR1"));
}

#[test]
fn evaluation_protocols_run_from_folders_and_from_collections() {
    let akin = Akin::new();
    for class in ["a", "b"] {
        akin.pictures(&format!("classes/{class}"), 4);
    }
    let knn = akin.ok("eval knn {}/classes --model {}/model -k 1 --json").json();
    assert_eq!(knn["queries"], 8);
    // Every picture occurs in both classes, so its nearest is in the other one.
    assert_eq!(knn["top1_percent"], 0.0);
    akin.ok("index {}/classes -c c --model {}/model");
    let again = akin.ok("eval knn -c c -k 1 --json").json();
    assert_eq!(again, knn);
    let map = akin.ok("eval retrieval -c c --json").json();
    assert_eq!(map["queries"], 8);

    let truth = "original,copy\n00.png,01.png\n02.png,02.png\n";
    std::fs::write(akin.path("classes/a/truth.csv"), truth).expect("write");
    let words = "eval copies --truth {}/classes/a/truth.csv {}/classes/b --model {}/model --json";
    let copies = akin.ok(words).json();
    assert_eq!((&copies["queries"], &copies["originals"]), (&2.into(), &2.into()));
}

#[test]
fn bad_input_gets_one_clear_sentence_and_the_right_exit_code() {
    let akin = Akin::new();
    akin.pictures("pictures", 2);
    akin.ok("index {}/pictures -c c --model {}/model");
    std::fs::write(akin.path("empty.jpg"), b"").expect("write");
    std::fs::write(akin.path("words.jpg"), b"just some words\n").expect("write");
    std::fs::write(akin.path("zero.safetensors"), b"").expect("write");
    let cases = [
        ("search {}/gone.jpg -c c", 1, "gone.jpg: it cannot be read: No such file"),
        ("search {}/pictures -c c", 1, "this is a folder"),
        ("search {}/empty.jpg -c c", 1, "file is empty"),
        ("search {}/words.jpg -c c", 1, "not a picture: looks like a text file"),
        ("search {}/pictures/00.png -c other", 1, "no collection `other`"),
        ("search {}/pictures/00.png -c ../x", 1, "cannot be a collection name"),
        ("search {}/pictures/00.png -c c -k 0", 2, "at least 1"),
        ("search http://127.0.0.1:9/a.jpg -c c", 1, "is not a public address"),
        ("index {}/gone -c c", 1, "no such file or folder"),
        ("index {}/pictures -c d --model {}/zero.safetensors", 1, "the file is empty"),
        ("index {}/pictures -c d --model vitz14", 1, "no model `vitz14`; known are vits14"),
        ("index {}/pictures -c d --model vits14_reg", 1, "akin model pull vits14_reg"),
        ("index {}/pictures -c d --model {}/gone.safetensors", 1, "no such weights file"),
        ("index {}/pictures -c c --size 448", 1, "cannot be mixed"),
        ("index {}/pictures -c d --model {}/model --size 450", 2, "multiple of 14"),
        ("index {}/pictures -c d --model {}/model --device gpu", 1, "auto, cpu, cuda"),
        ("index {}/pictures -c d --model {}/model --device cuda:1,1", 1, "cuda:N,M"),
        (
            "index {}/pictures -c d --model {}/model --device cuda",
            1,
            "device `cuda` cannot be used",
        ),
        ("index {}/pictures -c d --model {}/model --matmul f16", 1, "f16 is for GPUs"),
        ("embed {}/pictures --model {}/model --out {}/e.csv", 1, ".parquet or .npy"),
        ("embed {}/pictures --model {}/model --out {}/no/e.npy", 1, "create a file in"),
        ("eval knn {}/pictures/00.png --model {}/model", 1, "at least 2 images"),
        ("model pull vits14 --endpoint http://127.0.0.1:9 --offline", 1, "not on this machine"),
        ("collection info nothing", 1, "there are: c"),
        ("collection info c --config {}/gone.toml", 2, "config file"),
        ("fly", 2, "unrecognized subcommand"),
    ];
    for (words, code, message) in cases {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{words}: {}", run.stdout);
        assert!(!run.stderr.contains("panicked"), "{words}: {}", run.stderr);
        if code == 1 {
            assert_eq!(run.stderr.lines().count(), 1, "{words}: {}", run.stderr);
        }
    }
}

#[test]
fn a_collection_of_another_width_is_refused() {
    let akin = Akin::new();
    akin.pictures("pictures", 2);
    akin.ok("index {}/pictures -c c --model {}/model --pooling cls-mean-patch");
    let info = akin.ok("collection info c --json").json();
    assert_eq!((&info["dim"], &info["pooling"]), (&64.into(), &"cls_mean_patch".into()));
    let weights = fixtures::path("golden/tiny_plain.meta.safetensors");
    std::fs::copy(weights, akin.path("model/model.safetensors")).expect("copy");
    let other = akin.run("search {}/pictures/00.png -c c");
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("cannot be mixed"), "{}", other.stderr);
}

#[test]
fn a_collection_of_bytes_stays_one() {
    let akin = Akin::new();
    akin.pictures("pictures", 4);
    akin.ok("index {}/pictures -c c --matmul int8");
    akin.ok("index {}/pictures -c f");
    let fingerprint = |name: &str| {
        let info = akin.ok(&format!("collection info {name} --json")).json();
        info["fingerprint"].as_str().expect("a fingerprint").to_owned()
    };
    assert_ne!(fingerprint("c"), fingerprint("f"));
    // It is searched and extended in its own precision without asking, and in no other.
    let found = akin.ok("search {}/pictures/02.png -c c --json").json();
    let best = &found["hits"][0];
    assert!(best["similarity"].as_f64().expect("a number") > 0.9999, "{found}");
    akin.pictures("pictures", 5);
    akin.ok("index {}/pictures -c c");
    for (words, named) in [
        ("index {}/pictures -c c --matmul f32", "matmul int8"),
        ("index {}/pictures -c c --matmul bf16", "matmul bf16"),
        ("index {}/pictures -c f --matmul int8", "matmul int8"),
    ] {
        let run = akin.run(words);
        assert_eq!(run.code, Some(1), "{words}");
        let told = run.stderr.contains("cannot be mixed") && run.stderr.contains(named);
        assert!(told, "{words}: {}", run.stderr);
    }
    let heads = akin.run("embed {}/pictures --model {}/model --matmul int8 --out {}/e.npy");
    assert_eq!(heads.code, Some(1));
    assert!(
        heads.stderr.contains("int8") && heads.stderr.contains("--matmul f32"),
        "{}",
        heads.stderr
    );
    let training = akin.run("train ssl {}/pictures --out {}/t --matmul int8");
    assert_eq!(training.code, Some(2));
    assert!(training.stderr.contains("possible values: f32, bf16"), "{}", training.stderr);
}

#[test]
fn models_are_listed_and_checked() {
    let akin = Akin::new();
    let list = akin.ok("model list --json").json();
    let (built_in, public): (Vec<_>, Vec<_>) =
        list.as_array().expect("models").iter().partition(|model| model["built_in"] == true);
    assert_eq!(built_in.iter().map(|model| &model["name"]).collect::<Vec<_>>(), ["akin-ti14"]);
    assert_eq!(public.len(), 8);
    assert!(public.iter().all(|model| model["here"] == false));
    let info = akin.ok("model info {}/model --json").json();
    assert_eq!((&info["layout"], &info["stored_dtype"]), (&"Hugging Face".into(), &"F32".into()));
    assert_eq!(info["config"]["num_heads"], 2);
    let verified = akin.ok("model verify {}/model --json").json();
    assert_eq!(verified["sha256"], info["sha256"]);
}

#[test]
fn a_config_file_fills_in_what_is_not_said() {
    let akin = Akin::new();
    akin.pictures("pictures", 2);
    let model = akin.path("model");
    let config = format!("model = {:?}\nthreads = 1\ndevice = \"cpu\"\n", model.to_string_lossy());
    std::fs::write(akin.path("akin.toml"), config).expect("write");
    akin.ok("index {}/pictures -c c --config {}/akin.toml");
    std::fs::write(akin.path("akin.toml"), "modell = 1").expect("write");
    let run = akin.run("collection list --config {}/akin.toml");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("modell"), "{}", run.stderr);
}

#[test]
fn empty_variables_are_not_set_and_empty_flags_are_mistakes() {
    let akin = Akin::new();
    let data = akin.path("data");
    let data = data.to_str().expect("UTF-8");
    let empty = [
        ("AKIN_HOME", ""),
        ("AKIN_CONFIG", ""),
        ("AKIN_MODEL", ""),
        ("AKIN_OFFLINE", ""),
        ("HF_TOKEN", ""),
        ("HF_ENDPOINT", ""),
        ("XDG_DATA_HOME", data),
        ("HOME", data),
    ];
    // The platform's folder, which has nothing yet.
    let run = akin.run_in("collection list --json", &[], &empty);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    akin.pictures("pictures", 2);
    let index = "index {}/pictures -c c --model {}/model --json";
    let run = akin.run_in(index, &[], &empty);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(akin.path("data/akin/collections/c").is_dir() || !cfg!(target_os = "linux"));
    assert!(!akin.path("home").exists());
    let help = akin.run_in("model pull --help", &[], &empty).stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in ["[env: AKIN_HOME=]", "[env: AKIN_CONFIG=]", "[env: AKIN_MODEL=]"] {
        assert!(help.contains(name) && !help.contains("=="), "{help}");
    }
    for words in ["--home= collection list", "--config= collection list"] {
        let run = akin.run_in(words, &[], &[("AKIN_HOME", "")]);
        assert_eq!(run.code, Some(2), "{words}: {}", run.stderr);
    }
    let run = akin.run_in("model pull vits14 --json", &[], &[("AKIN_OFFLINE", "1")]);
    assert!(run.code == Some(1) && !run.stderr.contains("invalid value"), "{}", run.stderr);
}
