//! Folders being watched, with real files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indexer::metadata::Metadata;
use indexer::source::SourceOptions;
use indexer::watch::{Batch, Watch, WatchTiming};
use indexer::{IngestOptions, IngestReport};

use crate::support::{Case, png};

/// The default, faster.
const TIMING: WatchTiming = WatchTiming {
    quiet: Duration::from_millis(150),
    at_most: Duration::from_secs(3),
    look: Duration::from_millis(100),
    most_paths: 3000,
};

/// Long enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ingests what is touched until `done` says so.
fn until(
    case: &mut Case,
    watch: &mut Watch,
    done: &dyn Fn(&Case) -> bool,
) -> (Vec<Batch>, IngestReport) {
    let start = Instant::now();
    let (mut batches, mut total) = (Vec::new(), IngestReport::default());
    while !done(case) {
        assert!(start.elapsed() < PATIENCE, "{total:?}, {} images", case.collection.len());
        let Some(batch) = next(watch) else { continue };
        let mut sources = batch.sources(&SourceOptions::default()).expect("sources");
        let report =
            case.run(&mut sources, &Metadata::none(), IngestOptions::default()).expect("ingest");
        total.added += report.added;
        total.updated += report.updated;
        total.moved += report.moved;
        total.removed += report.removed;
        total.skipped.extend(report.skipped);
        total.held_back.extend(report.held_back);
        batches.push(batch);
    }
    (batches, total)
}

/// The next batch, or none for a while.
fn next(watch: &mut Watch) -> Option<Batch> {
    let cancel = Arc::new(AtomicBool::new(false));
    let timer = Arc::clone(&cancel);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        timer.store(true, Ordering::Relaxed);
    });
    watch.next(&cancel).expect("watch")
}

fn has(path: PathBuf) -> impl Fn(&Case) -> bool {
    move |case| case.image(&path).is_some()
}

fn start(case: &Case, root: &Path) -> Watch {
    std::fs::create_dir_all(root).expect("create");
    let _ = case;
    Watch::new(&[root.to_path_buf()], TIMING).expect("watch")
}

#[test]
fn what_comes_changes_moves_and_goes_is_followed() {
    let mut case = Case::new();
    let root = case.path("root");
    let mut watch = start(&case, &root);
    case.write("root/sub/a.png", &png(1));
    case.write("root/b.png", &png(2));
    case.write("root/.hidden.png", &png(3));
    until(&mut case, &mut watch, &|case| case.collection.len() == 2);
    let (id, before) = case.image(&root.join("sub/a.png")).expect("image");

    case.write("root/sub/a.png", &png(4));
    let sha256 = before.sha256.clone();
    let changed = root.join("sub/a.png");
    until(&mut case, &mut watch, &|case| {
        case.image(&changed).is_some_and(|(_, record)| record.sha256 != sha256)
    });
    assert_eq!(case.image(&changed).expect("image").0, id);

    std::fs::rename(root.join("sub"), root.join("renamed")).expect("rename");
    let (_, report) = until(&mut case, &mut watch, &has(root.join("renamed/a.png")));
    assert_eq!((report.moved, report.added), (1, 0), "{report:?}");
    assert_eq!(case.image(&root.join("renamed/a.png")).expect("image").0, id);
    assert_eq!(case.collection.len(), 2);

    std::fs::remove_file(root.join("b.png")).expect("remove");
    until(&mut case, &mut watch, &|case| case.collection.len() == 1);
}

#[test]
fn a_burst_of_ten_thousand_files_takes_a_few_runs() {
    let mut case = Case::new();
    let root = case.path("root");
    let mut watch = start(&case, &root);
    // Copies of a few contents, so that the time is not that of decoding.
    let contents: Vec<Vec<u8>> = (0..10).map(png).collect();
    for number in 0..10_000 {
        case.write(&format!("root/{}/{number}.png", number % 7), &contents[number % 10]);
    }
    let (batches, report) = until(&mut case, &mut watch, &|case| case.collection.len() == 10_000);
    assert!(batches.len() <= 20, "{} runs", batches.len());
    assert!(batches.iter().any(|batch| !batch.rescan.is_empty()), "too many to name");
    assert!(report.skipped.is_empty() && report.removed == 0);
}

#[test]
fn a_file_being_written_waits_and_does_not_hold_back_others() {
    let mut case = Case::new();
    let root = case.path("root");
    let mut watch = start(&case, &root);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, growing) = (Arc::clone(&stop), root.join("growing.png"));
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut file = std::fs::File::create(growing).expect("create");
        while !stopped.load(Ordering::Relaxed) {
            file.write_all(b"not yet").expect("write");
            std::thread::sleep(Duration::from_millis(20));
        }
        file.set_len(0).expect("truncate");
        drop(file);
    });
    case.write("root/done.png", &png(1));
    let (_, report) = until(&mut case, &mut watch, &has(root.join("done.png")));
    assert!(report.skipped.is_empty(), "the other one is not looked at: {report:?}");
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("writer");
    case.write("root/growing.png", &png(2));
    let (_, report) = until(&mut case, &mut watch, &has(root.join("growing.png")));
    assert!(report.skipped.is_empty(), "{report:?}");
}

#[test]
fn a_root_that_vanishes_is_kept_and_watched_again_when_it_returns() {
    let mut case = Case::new();
    let root = case.pictures("root", 0, 30);
    let mut watch = start(&case, &root);
    case.ingest(std::slice::from_ref(&root));
    let away = case.path("away");
    std::fs::rename(&root, &away).expect("rename");
    for _ in 0..2 {
        if let Some(batch) = next(&mut watch) {
            let mut sources = batch.sources(&SourceOptions::default()).expect("sources");
            let report = case.run(&mut sources, &Metadata::none(), IngestOptions::default());
            assert_eq!(report.expect("ingest").removed, 0);
        }
    }
    assert_eq!(case.collection.len(), 30);
    std::fs::rename(&away, &root).expect("rename");
    case.write("root/new.png", &png(99));
    until(&mut case, &mut watch, &has(root.join("new.png")));
    // And it goes on.
    case.write("root/newer.png", &png(98));
    until(&mut case, &mut watch, &has(root.join("newer.png")));
    assert_eq!(case.collection.len(), 32);
}

#[test]
fn watching_ends_when_asked() {
    let case = Case::new();
    let mut watch = start(&case, &case.path("root"));
    assert_eq!(watch.next(&AtomicBool::new(true)).expect("watch"), None);
}
