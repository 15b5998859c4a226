//! Files cut short and bits flipped, in every file of a collection: damage is named, and nothing
//! wrong is ever served.

mod machine;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use indexer::{Collections, CreateOptions};
use machine::{Lot, Model};

const SEED: u64 = 3;

/// A sound collection whose searches go through a graph.
fn sound(home: &Path) -> Model {
    let options = CreateOptions { ann_from: Some(50), ..CreateOptions::default() };
    let collections = Collections::new(home);
    let mut collection = collections.create("c", &machine::identity(), options).expect("create");
    let mut model = Model::default();
    for step in 0..30 {
        model.drive(SEED, &mut collection).expect("step");
        if step == 24 {
            collection.finish().expect("finish");
        }
    }
    collection.finish().expect("finish");
    assert!(collection.view().is_approximate());
    model.compare(&collection, usize::MAX).expect("sound");
    model
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copy")),
        }
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
    found.sort();
}

/// What became of a damaged collection.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It does not open, and says why.
    Refused(String),
    /// It opens; so many of its images could be looked up, and all of those were right.
    Served(usize),
}

fn fate(home: &Path, model: &Model) -> Fate {
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| Collections::new(home).open("c")));
    let collection = match opened.expect("opening does not panic") {
        Ok(collection) => collection,
        Err(error) => return Fate::Refused(error.to_string()),
    };
    let mut served = 0;
    for expected in model.images.values() {
        let query = machine::vector(expected.content);
        let searched = std::panic::catch_unwind(AssertUnwindSafe(|| collection.search(&query, 5)));
        let Ok(hits) = searched.expect("searching does not panic") else { continue };
        for hit in &hits {
            // Whatever is served is what was stored.
            let path = hit.record.path.to_string();
            let stored = &model.images.get(&path).expect("an image that was there");
            assert_eq!(stored.id, hit.id.0, "{path}");
            let truth = query.similarity(&machine::vector(stored.content));
            assert!((hit.similarity - truth).abs() < 2e-3, "{path}: {} {truth}", hit.similarity);
        }
        served += usize::from(hits.first().is_some_and(|hit| hit.id.0 == expected.id));
    }
    Fate::Served(served)
}

#[test]
fn damage_to_any_file_is_noticed_or_harmless() {
    let home = tempfile::tempdir().expect("temporary folder");
    let model = sound(home.path());
    let mut all = Vec::new();
    files(home.path(), &mut all);
    let name = |path: &Path| path.strip_prefix(home.path()).expect("inside").to_path_buf();
    assert!(all.len() >= 6, "{all:?}");
    let mut lot = Lot(1);
    let mut tally: std::collections::BTreeMap<PathBuf, [usize; 3]> = Default::default();
    for path in &all {
        let length = std::fs::metadata(path).expect("metadata").len();
        let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = std::fs::read(path).expect("read");
        for share in [0.0, 0.3, 0.9] {
            let end = (length as f64 * share) as usize;
            damages.push((format!("cut to {end}"), bytes[..end].to_vec()));
        }
        if length > 7 {
            damages.push(("cut by 7".to_owned(), bytes[..bytes.len() - 7].to_vec()));
        }
        for _ in 0..12 {
            if length == 0 {
                break;
            }
            let at = lot.below(length) as usize;
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << lot.below(8);
            damages.push((format!("bit of byte {at}"), flipped));
        }
        for (damage, bytes) in damages {
            let copied = tempfile::tempdir().expect("temporary folder");
            copy(home.path(), copied.path());
            std::fs::write(copied.path().join(name(path)), bytes).expect("write");
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| {}));
            let fate = std::panic::catch_unwind(AssertUnwindSafe(|| fate(copied.path(), &model)));
            std::panic::set_hook(hook);
            let Ok(fate) = fate else { panic!("{}, {damage}: served wrongly", path.display()) };
            let counts = tally.entry(name(path)).or_default();
            match fate {
                Fate::Refused(reason) => {
                    assert!(reason.len() > 20, "{}, {damage}: {reason}", path.display());
                    counts[0] += 1;
                }
                Fate::Served(all) if all == model.images.len() => counts[2] += 1,
                Fate::Served(_) => counts[1] += 1,
            }
        }
    }
    println!("{:60} refused, served in part, whole", "file");
    for (path, [refused, part, whole]) in &tally {
        println!("{:60} {refused:7} {part:15} {whole:6}", path.display().to_string());
        let derived = path.components().any(|part| part.as_os_str() == "ann");
        if derived {
            assert_eq!((*refused, *part), (0, 0), "graphs are made again");
        }
    }
    let manifest = tally.iter().find(|(path, _)| path.ends_with("manifest.json"));
    assert_eq!(manifest.expect("a manifest").1[1..], [0, 0], "the manifest has a checksum");
    // Most flips in a shard hit a row.
    let shard = tally.iter().find(|(path, _)| path.ends_with("shard-00000.f16")).expect("a shard");
    assert!(shard.1[0] > 0 && shard.1[1] > 0, "{tally:?}");
}
