//! What is new, changed, moved, copied, gone or out of reach.

use std::path::PathBuf;

use indexer::metadata::Metadata;
use indexer::source::SourceOptions;
use indexer::{IngestOptions, Locator};

use crate::support::{Case, png};

const PRUNE: IngestOptions = IngestOptions { retry_failed: false, dry_run: false, prune: true };
const DRY: IngestOptions = IngestOptions { retry_failed: false, dry_run: true, prune: false };

#[test]
fn a_moved_picture_keeps_its_id_and_a_copy_takes_over_the_vector() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 10);
    case.ingest(std::slice::from_ref(&folder));
    let (id, _) = case.image(&folder.join("003.png")).expect("image");
    std::fs::create_dir(folder.join("new")).expect("create");
    let to = folder.join("new/three.png");
    std::fs::rename(folder.join("003.png"), &to).expect("rename");
    std::fs::copy(folder.join("004.png"), folder.join("copy.png")).expect("copy");
    // A change in place that is at the same time a copy of another.
    std::fs::copy(folder.join("005.png"), folder.join("006.png")).expect("copy");
    // A picture that replaces another that is gone by it: not moved, the path keeps its id.
    let (at, _) = case.image(&folder.join("008.png")).expect("image");
    std::fs::rename(folder.join("007.png"), folder.join("008.png")).expect("rename");

    let would = case.ingest_with(std::slice::from_ref(&folder), DRY).expect("dry run");
    assert_eq!(would.would_move, [(folder.join("003.png"), to.clone())]);
    assert_eq!(would.would_add, [folder.join("copy.png")]);
    assert_eq!(would.would_remove, [folder.join("007.png")]);
    assert_eq!(would.would_read.len(), 4);
    assert_eq!((would.moved, would.removed, case.collection.len()), (0, 0, 10));

    let report = case.ingest(std::slice::from_ref(&folder));
    assert_eq!((report.moved, report.added, report.updated), (1, 1, 2), "{report:?}");
    assert_eq!((report.copied, report.removed, report.unchanged), (3, 1, 6), "{report:?}");
    assert_eq!(case.image(&to).expect("moved").0, id);
    assert_eq!(case.image(&folder.join("003.png")), None);
    assert_eq!(case.image(&folder.join("008.png")).expect("image").0, at);
    let locator = |name: &str| Locator::from(folder.join(name).as_path());
    for (name, content) in
        [("new/three.png", 3), ("copy.png", 4), ("006.png", 5), ("008.png", 7), ("009.png", 9)]
    {
        assert!(case.looks_like(&locator(name), content), "{name}");
    }
    let report = case.ingest(&[folder]);
    assert_eq!((report.unchanged, report.held_back.len()), (10, 0));
}

#[test]
fn a_renamed_folder_is_moved_as_a_whole() {
    let mut case = Case::new();
    let root = case.path("root");
    case.pictures("root/a", 0, 50);
    case.ingest(std::slice::from_ref(&root));
    let (id, _) = case.image(&root.join("a/007.png")).expect("image");
    std::fs::rename(root.join("a"), root.join("b")).expect("rename");
    let report = case.ingest(std::slice::from_ref(&root));
    assert_eq!((report.moved, report.added, report.removed), (50, 0, 0), "{report:?}");
    assert!(report.held_back.is_empty());
    assert_eq!(case.image(&root.join("b/007.png")).expect("image").0, id);
    assert_eq!(case.collection.len(), 50);
}

#[test]
fn what_has_gone_is_removed_and_what_may_be_out_of_reach_is_not() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 60);
    case.pictures("other", 100, 3);
    let other = case.path("other");
    case.ingest(&[folder.clone(), other.clone()]);
    let remove = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            std::fs::remove_file(folder.join(format!("{number:03}.png"))).expect("remove");
        }
    };
    // A few, of many.
    remove(0..20);
    let report = case.ingest(&[folder.clone(), other.clone()]);
    assert_eq!((report.removed, report.held_back.len()), (20, 0));
    // Most of them.
    remove(20..41);
    let report = case.ingest(&[folder.clone(), other.clone()]);
    assert_eq!((report.removed, case.collection.len()), (0, 43));
    let held = &report.held_back[0];
    assert_eq!((held.gone, held.known, held.missing), (21, 40, false));
    assert!(held.to_string().contains("--prune"), "{held}");
    let report = case.ingest_with(std::slice::from_ref(&folder), PRUNE).expect("ingest");
    assert_eq!((report.removed, case.collection.len()), (21, 22));

    // An empty folder, where a disk was.
    let away = case.path("away");
    std::fs::rename(&other, &away).expect("rename");
    std::fs::create_dir(&other).expect("create");
    let report = case.ingest(&[folder.clone(), other.clone()]);
    assert_eq!((report.removed, report.held_back[0].gone), (0, 3));
    // What is elsewhere meanwhile is a copy: the images stay where they were.
    let report = case.ingest(&[other.clone(), away.clone()]);
    assert_eq!((report.moved, report.added, report.copied), (0, 3, 3), "{report:?}");
    std::fs::remove_dir(&other).expect("remove");
    let report = case.ingest(std::slice::from_ref(&other));
    assert!(report.held_back[0].missing && report.removed == 0);
    std::fs::rename(&away, &other).expect("rename");
    assert_eq!(case.ingest(std::slice::from_ref(&other)).unchanged, 3);
    std::fs::remove_dir_all(&other).expect("remove");
    assert_eq!(case.ingest_with(std::slice::from_ref(&other), PRUNE).expect("ingest").removed, 3);
    // Nothing is known of it any more: now it is a mistake.
    let error = case.ingest_with(&[other], IngestOptions::default()).expect_err("missing");
    assert!(error.to_string().contains("no such file or folder"), "{error}");
}

#[test]
fn a_single_file_that_is_gone_is_kept_unless_pruned() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 2);
    case.write("folder/000.png.bak", b"words");
    let file = folder.join("000.png");
    case.ingest(std::slice::from_ref(&folder));
    std::fs::remove_file(&file).expect("remove");
    let report = case.ingest(std::slice::from_ref(&file));
    assert_eq!((report.removed, report.held_back[0].gone), (0, 1));
    assert_eq!(case.ingest_with(&[file], PRUNE).expect("ingest").removed, 1);
    assert_eq!(case.collection.len(), 1);
}

#[test]
fn what_is_excluded_or_hidden_now_is_left_alone() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 4);
    case.write("folder/.hidden/a.png", &png(50));
    let run = |case: &mut Case, exclude: &[&str], hidden: bool| {
        let exclude = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
        let options = SourceOptions { exclude, hidden, ..SourceOptions::default() };
        let mut sources = case.open(std::slice::from_ref(&folder), &options);
        case.run(&mut sources, &Metadata::none(), IngestOptions::default()).expect("ingest")
    };
    assert_eq!(run(&mut case, &[], true).added, 5);
    let report = run(&mut case, &["00[01].png"], false);
    assert_eq!((report.unchanged, report.removed, report.held_back.len()), (2, 0, 0));
    assert_eq!(case.collection.len(), 5);
}

#[test]
fn archives_and_urls_under_a_folder_are_not_its_files() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 2);
    let shard = case.write("folder/s.tar", &crate::support::tar(&[(b"a.png", &png(9))]));
    assert_eq!(case.ingest(&[shard]).added, 1);
    let report = case.ingest(&[folder]);
    assert_eq!((report.added, report.removed, report.not_pictures), (2, 0, 1), "{report:?}");
    assert_eq!(case.collection.len(), 3);
}

#[test]
fn failures_of_files_that_have_gone_are_forgotten() {
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 2);
    let broken = case.write("folder/broken.png", b"\x89PNG\r\n\x1a\n");
    let emptied = case.write("folder/001.png", b"");
    let report = case.ingest(std::slice::from_ref(&folder));
    assert_eq!(report.skipped.len(), 2);
    assert_eq!(case.collection.failures().expect("failures").len(), 2);
    std::fs::remove_file(&broken).expect("remove");
    std::fs::write(&emptied, png(1)).expect("write");
    let report = case.ingest(&[folder]);
    assert_eq!((report.added, report.removed, report.skipped.len()), (1, 0, 0));
    assert!(case.collection.failures().expect("failures").is_empty());
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_and_link_loops_do_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let mut case = Case::new();
    let folder = case.pictures("folder", 0, 1);
    let odd = folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.png"));
    std::fs::write(&odd, png(5)).expect("write");
    std::os::unix::fs::symlink(&folder, folder.join("loop")).expect("link");
    let report = case.ingest(std::slice::from_ref(&folder));
    assert_eq!((report.added, report.skipped.len()), (2, 1), "{report:?}");
    assert!(case.looks_like(&Locator::from(odd.as_path()), 5));
    let report = case.ingest(&[folder]);
    assert_eq!((report.unchanged, report.removed), (2, 0));
}

#[test]
fn many_files_named_one_by_one_are_joined_in_one_pass() {
    let mut case = Case::new();
    let words: Vec<PathBuf> =
        (0..1200).map(|n| case.write(&format!("f/{n:04}.txt"), n.to_string().as_bytes())).collect();
    let picture = case.write("f/a.png", &png(1));
    let named: Vec<PathBuf> = words.into_iter().chain([picture]).collect();
    let run = |case: &mut Case| {
        // Text files named as sources would be tables of URLs.
        let folder = case.path("f");
        case.ingest(&[folder])
    };
    let report = run(&mut case);
    assert_eq!((report.added, report.not_pictures), (1, 1200));
    let pictures: Vec<PathBuf> = named.iter().map(|path| path.with_extension("jpg")).collect();
    for (from, to) in named.iter().zip(&pictures) {
        std::fs::rename(from, to).expect("rename");
    }
    let report = case.ingest(&pictures);
    assert_eq!((report.added, report.skipped.len()), (1, 1200));
    let report = case.ingest(&pictures);
    assert_eq!((report.unchanged, report.added, report.skipped.len()), (1, 0, 1200));
}

/// `cargo nextest run -p indexer --run-ignored only --no-capture no_change`
#[test]
#[ignore = "a measurement, to be read by a person"]
fn cost_of_a_no_change_run() {
    const FILES: usize = 20_000;
    let mut case = Case::new();
    let picture = png(1);
    for number in 0..FILES {
        case.write(&format!("folder/{}/{number:05}.png", number % 50), &picture);
    }
    let folder = case.path("folder");
    case.ingest(std::slice::from_ref(&folder));
    for _ in 0..3 {
        let start = std::time::Instant::now();
        indexer::source::list(std::slice::from_ref(&folder)).expect("list");
        let walk = start.elapsed();
        let start = std::time::Instant::now();
        assert_eq!(case.ingest(std::slice::from_ref(&folder)).unchanged, FILES);
        let run = start.elapsed();
        let beyond = run.saturating_sub(walk).as_secs_f64() * 1e6 / FILES as f64;
        eprintln!("walk {walk:?}, run {run:?}: {beyond:.2} ms per 1,000 files beyond the walk");
    }
}
