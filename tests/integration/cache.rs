//! Packed weights kept between starts, as users meet them: the same vectors, and a word when
//! something is wrong.

use std::path::PathBuf;

use crate::support::Akin;

const EMBED: &str = "embed {}/pictures --model {}/model --out {}/out.npy";

/// Stored vectors, and what was said, of one run.
fn embed(akin: &Akin, words: &str) -> (Vec<u8>, String) {
    let run = akin.ok(&format!("{EMBED} {words}"));
    (std::fs::read(akin.path("out.npy")).expect("vectors"), run.stderr)
}

fn kept(akin: &Akin) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(akin.path("home/cache"));
    folder
        .map(|folder| folder.map(|entry| entry.expect("entry").path()).collect())
        .unwrap_or_default()
}

#[test]
fn damaged_and_outdated_files_are_made_anew_and_never_used() {
    let akin = Akin::new();
    akin.pictures("pictures", 3);
    std::fs::write(akin.path("off.toml"), "cache = false\n").expect("write");
    let (without, _) = embed(&akin, "--config {}/off.toml");
    assert!(kept(&akin).is_empty(), "the cache is off");
    let (first, said) = embed(&akin, "");
    assert!(!said.contains("WARN"), "{said}");
    let [file] = &kept(&akin)[..] else { panic!("one file: {:?}", kept(&akin)) };
    let (second, said) = embed(&akin, "");
    assert!(!said.contains("WARN"), "{said}");
    assert!(first == without && second == without);

    let sound = std::fs::read(file).expect("kept");
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    for bytes in [&damaged[..], &sound[..sound.len() / 2], &[]] {
        std::fs::write(file, bytes).expect("write");
        let (vectors, said) = embed(&akin, "");
        assert!(vectors == without);
        assert_eq!(said.matches("are damaged").count(), 1, "{said}");
        assert!(std::fs::read(file).expect("kept") == sound, "made anew");
        assert!(!embed(&akin, "").1.contains("damaged"));
    }

    // Other weights in the same place.
    let weights = akin.path("model/model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    std::fs::write(&weights, &bytes).expect("write");
    let (vectors, said) = embed(&akin, "-v");
    assert!(vectors != without && vectors == embed(&akin, "--config {}/off.toml").0);
    assert!(said.contains("packed weights are of other weights"), "{said}");
    assert_eq!(kept(&akin).len(), 1);
}

#[test]
fn a_home_that_cannot_be_written_is_no_obstacle() {
    let akin = Akin::new();
    akin.pictures("pictures", 2);
    // Even root cannot make a folder below a file.
    std::fs::write(akin.path("home"), "a file").expect("write");
    let run = akin.ok(EMBED);
    assert_eq!(run.stderr.matches("cannot keep packed weights").count(), 1, "{}", run.stderr);
    assert!(akin.path("out.npy").exists());
}

#[test]
fn many_starts_at_once_give_the_same_vectors_and_leave_one_file() {
    let akin = Akin::new();
    akin.pictures("pictures", 2);
    let run = |number: usize| {
        let out = format!("out{number}.npy");
        akin.ok(&format!("embed {{}}/pictures --model {{}}/model --out {{}}/{out}"));
        std::fs::read(akin.path(&out)).expect("vectors")
    };
    let vectors: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6).map(|number| scope.spawn(move || run(number))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    assert!(vectors.iter().all(|vector| *vector == vectors[0]));
    assert_eq!(kept(&akin).len(), 1);
}
