//! Self-supervised training as its users meet it.

use crate::support::Akin;

const SMALL: &str = "--width 64 --depth 1 --size 42 --local-size 28 --locals 2 --batch 4 \
                     --hidden 32 --bottleneck 16 --prototypes 32 --matmul f32";

fn ssl(akin: &Akin, words: &str) -> crate::support::Run {
    akin.run(&format!("train ssl {{}}/pictures --out {{}}/run {SMALL} {words}"))
}

#[test]
fn a_trained_model_indexes_and_a_run_goes_on() {
    let akin = Akin::new();
    let pictures = akin.pictures("pictures", 5);
    std::fs::write(pictures.join("torn.png"), b"no picture").expect("write");
    akin.pictures("held/a", 3);
    akin.pictures("held/b", 3);
    let run = ssl(&akin, "--steps 2 --eval {}/held --eval-every 1 --json -q --drop-path 0.4");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let done = run.json();
    assert_eq!((&done["steps"], &done["finished"]), (&2.into(), &true.into()));
    assert!(done["last"]["ibot"].as_f64().is_some_and(f64::is_finite), "{done}");
    assert!(done["knn_percent"].as_f64().is_some(), "{done}");
    let metrics = std::fs::read_to_string(akin.path("run/metrics.jsonl")).expect("metrics");
    let count = |key: &str| metrics.lines().filter(|line| line.contains(key)).count();
    assert_eq!((count("images_per_second"), count("knn_percent")), (2, 3));
    let curves = std::fs::read_to_string(akin.path("run/metrics.svg")).expect("curves");
    assert!(curves.contains("k-NN") && curves.contains("polyline"));

    akin.ok("index {}/held -c c --model {}/run/model.safetensors");
    assert_eq!(akin.ok("collection info c --json").json()["dim"], 64);
    // Nothing is left to do; other settings are refused and harm nothing.
    let again = ssl(&akin, "--steps 2 --drop-path 0.4 --json -q");
    assert_eq!((again.code, &again.json()["steps"]), (Some(0), &2.into()), "{}", again.stderr);
    let other = ssl(&akin, "--steps 2 --drop-path 0.1");
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("drop_path was 0.4 and now is 0.1"), "{}", other.stderr);
    // A new run from the weights of this one, with heads of another width than 64.
    let words = "train ssl {}/pictures --out {}/next --init {}/run/model.safetensors --size 42 \
                 --local-size 28 --locals 1 --batch 2 --hidden 8 --bottleneck 8 --prototypes 8 \
                 --steps 1 --json -q";
    assert_eq!(akin.ok(words).json()["finished"], true);
}

#[test]
fn heads_of_any_width_are_remembered() {
    let akin = Akin::new();
    akin.pictures("pictures", 4);
    let run = ssl(&akin, "--heads 2 --steps 1 -q");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let info = akin.ok("model info {}/run/model.safetensors --json").json();
    assert_eq!(info["config"]["num_heads"], 2);
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_a_remedy() {
    let akin = Akin::new();
    std::fs::create_dir_all(akin.path("pictures")).expect("create");
    let empty = ssl(&akin, "");
    assert_eq!(empty.code, Some(1));
    assert!(empty.stderr.contains("no picture in the sources"), "{}", empty.stderr);
    akin.pictures("pictures", 1);
    let one = ssl(&akin, "");
    assert_eq!(one.code, Some(1));
    assert!(one.stderr.contains("1 picture, fewer than the 4 of a batch"), "{}", one.stderr);
    akin.pictures("pictures", 4);
    for (words, part) in [
        ("--high-res-steps 1 --high-res-size 50", "50 px; take a multiple of 14"),
        ("--heads 5", "heads that divide the width"),
        ("--eval {}/pictures/00.png --steps 1", "no folder in it holds two pictures"),
        ("--drop-path 1.5", "between 0 and 0.99"),
        ("--lr inf", "learning rate is inf"),
    ] {
        let run = ssl(&akin, words);
        assert!(matches!(run.code, Some(1 | 2)), "{words}: {run:?}");
        assert!(run.stderr.contains(part), "{words}: {}", run.stderr);
    }
    // A full disk, as far as the program can tell.
    #[cfg(target_os = "linux")]
    {
        let full = akin.run(&format!("train ssl {{}}/pictures --out /proc/akin {SMALL}"));
        assert!(full.stderr.contains("cannot create /proc/akin"), "{}", full.stderr);
    }
}
