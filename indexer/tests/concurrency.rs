//! Eight searching threads beside one writer.
//!
//! Runs for 3 seconds; `AKIN_SOAK_SECONDS=60` runs longer. Latencies are printed, never asserted.

mod machine;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indexer::{Collections, CreateOptions, Reader};
use machine::{Lot, Model};

const SEARCHERS: u64 = 8;

/// Searches until told to stop; gives all latencies, sorted.
fn search_all(reader: &Reader, stop: &AtomicBool, newest: &AtomicU64) -> Vec<Duration> {
    let one = |seed: u64| {
        let mut lot = Lot(seed);
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            // Contents that are there, were there, or will be.
            let step = 1 + lot.below(newest.load(Ordering::Relaxed) + 1);
            let content = step * 1000 + lot.below(30);
            let start = Instant::now();
            let hits = reader.search(&machine::vector(content), 10).expect("search");
            times.push(start.elapsed());
            assert!(hits.len() <= 10);
            assert!(hits.is_sorted_by(|a, b| a.similarity >= b.similarity));
            let mut ids: Vec<_> = hits.iter().map(|hit| hit.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), hits.len(), "an image twice");
            for hit in &hits {
                // The record is that of the vector that was compared: its hash says which content,
                // and the stamp holds that content's number unless the file was touched later.
                let known = hit.record.sha256.as_str().len() == 64;
                assert!(known && (-1.01..1.01).contains(&hit.similarity));
                if hit.record.sha256 == indexer::ContentHash::of(&content.to_le_bytes()) {
                    assert!(hit.similarity > 0.999, "a torn read: {}", hit.similarity);
                } else {
                    assert!(hit.similarity < 0.999, "a torn read: {}", hit.similarity);
                }
            }
        }
        times
    };
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SEARCHERS).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    all.sort_unstable();
    all
}

fn p99(times: &[Duration]) -> Duration {
    times[(times.len() - 1) * 99 / 100]
}

#[test]
fn searches_beside_a_writer_see_whole_states_only() {
    let seconds = std::env::var("AKIN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(3));
    let home = tempfile::tempdir().expect("temporary folder");
    let collections = Collections::new(home.path());
    let options = CreateOptions { ann_from: Some(100), ..CreateOptions::default() };
    let mut collection = collections.create("c", &machine::identity(), options).expect("create");
    let mut model = Model::default();
    for _ in 0..40 {
        model.drive(5, &mut collection).expect("step");
    }
    collection.finish().expect("finish");
    let reader = collection.reader();
    let newest = AtomicU64::new(model.step);

    let run = |writes: bool, collection: &mut indexer::Collection, model: &mut Model| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let searching = scope.spawn(|| search_all(&reader, &stop, &newest));
            let start = Instant::now();
            let mut commits = 0;
            while start.elapsed() < seconds && !searching.is_finished() {
                if !writes {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                model.drive(5, collection).expect("step");
                newest.store(model.step, Ordering::Relaxed);
                commits += 1;
                if commits % 10 == 0 {
                    collection.finish().expect("finish");
                }
            }
            stop.store(true, Ordering::Relaxed);
            (searching.join().expect("no panic"), commits)
        })
    };
    let (idle, _) = run(false, &mut collection, &mut model);
    let (busy, commits) = run(true, &mut collection, &mut model);
    model.compare(&collection, 20).expect("compare");
    println!(
        "{} searches without a writer, p99 {:?}; {} beside {commits} commits, p99 {:?} ({:.2} x)",
        idle.len(),
        p99(&idle),
        busy.len(),
        p99(&busy),
        p99(&busy).as_secs_f64() / p99(&idle).as_secs_f64()
    );
    assert!(commits > 0 && !busy.is_empty());
}
