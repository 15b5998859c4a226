use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringBitmap;

use super::frozen::{Accept, Frozen};
use super::hnsw::Graph;
use super::loose::Loose;
use super::quantised::Candidate;
use super::*;
use crate::id::ImageId;
use crate::vectors::{Precision, Rows, Vectors};

const DIM: usize = 48;

/// A cheap integer hash gives well-spread directions.
fn vector(seed: u64) -> Vec<f32> {
    let values = (0..DIM as u64).map(|i| {
        let mut h = (seed * 1_000_003 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^= h >> 31;
        (h % 2001) as f32 - 1000.0
    });
    let values: Vec<f32> = values.collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

fn stored(folder: &Path, rows: u64) -> (Vectors, Rows, RoaringBitmap) {
    let mut vectors = Vectors::open(&folder.join("vectors"), DIM, Precision::F16, 0).expect("open");
    for row in 0..rows {
        vectors.append(ImageId(row), &vector(row)).expect("append");
    }
    vectors.sync().expect("sync");
    let snapshot = vectors.snapshot();
    (vectors, snapshot, (0..rows as u32).collect())
}

fn rows_of(found: crate::error::Result<Vec<Candidate>>) -> Vec<u32> {
    found.expect("candidates").into_iter().map(|candidate| candidate.row).collect()
}

#[test]
fn what_a_similarity_hardly_exceeds_is_just_above_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_vectors, rows, alive) = stored(folder.path(), 2000);
    let layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    for seed in 0..50 {
        let query = vector(1_000_000 + seed);
        for candidate in layers.candidates(&query, 80, None).expect("candidates") {
            let (_, stored) = rows.checked(u64::from(candidate.row)).expect("row");
            let similarity = engine::kernels::dot(&query, &stored);
            let over = candidate.at_most - similarity;
            assert!((0.0..0.05).contains(&over), "{similarity} but at most {}", candidate.at_most);
        }
    }
}

#[test]
fn rows_in_no_graph_are_compared_whether_copied_or_not() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_vectors, rows, _) = stored(folder.path(), 5000);
    let alive: RoaringBitmap = (0..5000).filter(|row| row % 3 != 0).collect();
    // 5,000 are too many to be copied.
    for count in [0, 1, 700, 5000] {
        let mut loose = Loose::new(0..count);
        for k in [1, 10] {
            let among =
                exact(&rows, &alive.range(0..count).collect(), &vector(77), k).expect("exact");
            let mut found = loose.nearest(&rows, &alive, &vector(77), k).expect("nearest");
            found.sort_unstable_by(Neighbour::best_first);
            assert_eq!(found, among, "{k} of {count}");
        }
        // One more is seen though a copy was made before.
        loose.insert(4999);
        let found = loose.nearest(&rows, &alive, &vector(4999), 1).expect("nearest");
        assert_eq!(found[0].row, 4999);
    }
}

/// Of the ten nearest of 50 queries, how many the layers and the rows beyond them hold.
fn recall(layers: &Layers, rows: &Rows, alive: &RoaringBitmap) -> f64 {
    let mut found = 0;
    for query in 0..50 {
        let query = vector(1_000_000 + query);
        let mut candidates = rows_of(layers.candidates(&query, 80, None));
        candidates.extend(layers.rows() as u32..rows.len() as u32);
        let truth = exact(rows, alive, &query, 10).expect("exact");
        found += truth.iter().filter(|hit| candidates.contains(&hit.row)).count();
    }
    found as f64 / 500.0
}

#[test]
fn layers_keep_their_recall_as_they_grow_and_are_opened_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (mut vectors, rows, mut alive) = stored(folder.path(), 2000);
    let mut layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    assert!(recall(&layers, &rows, &alive) >= 0.95);
    let base = || std::fs::metadata(folder.path().join("base.hnsw")).expect("base").len();
    let small = base();
    // Less than a fifth goes to the tail, then more makes a new base.
    for (upto, grows) in [(2300, false), (3000, true)] {
        for row in rows_from(&vectors)..upto {
            vectors.append(ImageId(row), &vector(row)).expect("append");
            alive.insert(row as u32);
        }
        vectors.sync().expect("sync");
        let rows = vectors.snapshot();
        assert!(recall(&layers, &rows, &alive) >= 0.95, "rows in no graph are compared");
        layers.extend(&rows, &alive).expect("extend");
        assert_eq!(layers.rows(), upto);
        layers.save(folder.path(), &rows, &alive).expect("save");
        assert_eq!(base() > small, grows, "{upto}");
        // With a new base, the tail holds at most the few rows that the base does not lead to.
        assert!(grows || folder.path().join("tail.hnsw").exists());
        let opened = Layers::open(folder.path(), DIM, upto).expect("open").expect("sound");
        assert_eq!(opened.rows(), upto);
        for layers in [&layers, &opened] {
            let recall = recall(layers, &rows, &alive);
            assert!(recall >= 0.95, "{upto}: {recall}");
        }
    }
}

fn rows_from(vectors: &Vectors) -> u64 {
    vectors.rows()
}

#[test]
fn a_base_of_mostly_dead_rows_is_built_anew() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_vectors, rows, mut alive) = stored(folder.path(), 1000);
    let mut layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    let size = || std::fs::metadata(folder.path().join("base.hnsw")).expect("base").len();
    let before = size();
    alive.remove_range(0..200);
    layers.save(folder.path(), &rows, &alive).expect("save");
    assert_eq!(size(), before, "a fifth dead is left alone");
    alive.remove_range(0..400);
    layers.save(folder.path(), &rows, &alive).expect("save");
    assert!(size() < before * 7 / 10, "{} of {before}", size());
    let found = rows_of(layers.candidates(&vector(900), 50, None));
    assert!(found.contains(&900) && found.iter().all(|&row| row >= 400));
}

#[test]
fn a_damaged_snapshot_is_not_opened() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_vectors, rows, alive) = stored(folder.path(), 50);
    Layers::build(folder.path(), &rows, &alive).expect("build");
    let path = folder.path().join("base.hnsw");
    let sound = std::fs::read(&path).expect("read");
    let opens = || Layers::open(folder.path(), DIM, 50).expect("open").is_some();
    assert!(opens());
    for at in (0..sound.len()).step_by(97).chain([0, 9, 20, sound.len() - 1]) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).expect("write");
        assert!(!opens(), "byte {at}");
    }
    for length in [0, 3, 7, 4096, sound.len() - 7] {
        std::fs::write(&path, &sound[..length]).expect("write");
        assert!(!opens(), "{length} bytes");
    }
    std::fs::remove_file(&path).expect("remove");
    assert!(!opens());
    std::fs::write(&path, &sound).expect("write");
    assert!(Layers::open(folder.path(), DIM, 49).expect("open").is_none(), "ahead of the rows");
    assert!(Layers::open(folder.path(), DIM + 1, 50).expect("open").is_none(), "other vectors");
}

#[test]
fn a_tail_of_another_base_is_not_used() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (mut vectors, rows, mut alive) = stored(folder.path(), 400);
    let mut layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    for row in 400..420 {
        vectors.append(ImageId(row), &vector(row)).expect("append");
        alive.insert(row as u32);
    }
    vectors.sync().expect("sync");
    let rows = vectors.snapshot();
    layers.extend(&rows, &alive).expect("extend");
    layers.save(folder.path(), &rows, &alive).expect("save");
    let tail = std::fs::read(folder.path().join("tail.hnsw")).expect("tail");
    // The base changes, the tail of the old one stays behind, as after a crash in between.
    alive.remove(7);
    Layers::build(folder.path(), &rows, &alive).expect("build");
    std::fs::write(folder.path().join("tail.hnsw"), tail).expect("write");
    let opened = Layers::open(folder.path(), DIM, 420).expect("open").expect("sound");
    assert!(!rows_of(opened.candidates(&vector(7), 20, None)).contains(&7));
    assert!(recall(&opened, &rows, &alive) >= 0.95);
}

#[test]
fn a_filter_is_kept_to_and_its_panic_goes_no_further() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (_vectors, rows, alive) = stored(folder.path(), 500);
    let layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    let third = |row: u32| row.is_multiple_of(3);
    let found = rows_of(layers.candidates(&vector(12), 10, Some(&third)));
    assert!(found.len() >= 10 && found.contains(&12) && found.iter().all(|row| row % 3 == 0));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = layers.candidates(&vector(12), 10, Some(&|row| row == 12 || panic!("odd")));
    std::panic::set_hook(hook);
    assert_eq!(rows_of(found), [12]);
}

#[test]
fn vectors_that_would_spoil_a_graph_are_refused() {
    let mut graph = Graph::new(DIM, 0.5).expect("new");
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vector(1);
        values[3] = bad;
        assert!(graph.add(&[(1, values.clone())]).is_err());
        graph.add(&[(2, vector(2))]).or_else(|_| graph.add(&[])).expect("add");
        assert!(graph.candidates(&values, 1, None).is_err());
    }
    assert!(graph.add(&[(3, vec![0.1; DIM + 1])]).is_err());
    assert_eq!(graph.len(), 1);
}

#[test]
fn more_searching_threads_than_permits_wait_and_the_tail_grows_meanwhile() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (mut vectors, rows, mut alive) = stored(folder.path(), 500);
    let mut layers = Layers::build(folder.path(), &rows, &alive).expect("build");
    // The first insertion into the tail happens while others search it.
    let done = AtomicBool::new(false);
    // A graph that grows may cut off a row that it led to before.
    let cut_off = Mutex::new(RoaringBitmap::new());
    let searched = layers.clone();
    vectors.append(ImageId(500), &vector(500)).expect("append");
    vectors.sync().expect("sync");
    alive.insert(500);
    layers.extend(&vectors.snapshot(), &alive).expect("extend");
    let with_tail = layers.clone();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..32u64)
            .map(|t| {
                let layers = if t % 2 == 0 { &searched } else { &with_tail };
                let (done, cut_off) = (&done, &cut_off);
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) || count < 20 {
                        let seed = (t * 50 + count) % 500;
                        let found = rows_of(layers.candidates(&vector(seed), 5, None));
                        assert!(found.len() >= 5, "{seed}");
                        if !found.contains(&(seed as u32)) {
                            cut_off.lock().expect("lock").insert(seed as u32);
                        }
                        count += 1;
                    }
                })
            })
            .collect();
        for row in 501..700 {
            vectors.append(ImageId(row), &vector(row)).expect("append");
            alive.insert(row as u32);
            vectors.sync().expect("sync");
            layers.extend(&vectors.snapshot(), &alive).expect("extend");
        }
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
    let cut_off = cut_off.into_inner().expect("lock");
    assert!(cut_off.len() <= 5, "{cut_off:?}");
    // They are found again: once it has grown much, it is looked over.
    let rows = vectors.snapshot();
    for seed in 0..700 {
        let mut found = rows_of(layers.candidates(&vector(seed), 5, None));
        let loose = layers.nearest_loose(&rows, &alive, &vector(seed), 5).expect("loose");
        found.extend(loose.iter().map(|neighbour| neighbour.row));
        assert!(found.contains(&(seed as u32)), "{seed}");
    }
}

/// A graph of `rows` vectors, added one after the other.
fn graph(rows: u64) -> Graph {
    let mut graph = Graph::new(DIM, 0.5).expect("new");
    let rows: Vec<_> = (0..rows).map(|row| (row as u32 + 7, vector(row))).collect();
    graph.add(&rows).expect("add");
    graph
}

type Search<'a> = dyn Fn(&[f32], usize, Accept<'_>) -> Vec<Candidate> + 'a;

#[test]
fn a_frozen_graph_answers_as_the_library_does() {
    for rows in [0, 1, 2, 40, 5000] {
        let graph = graph(rows);
        let even = |row: u32| row.is_multiple_of(2);
        let queries: Vec<_> = (0..40).map(|seed| vector(1_000_000 + seed)).collect();
        let answers = |search: &Search<'_>| {
            let mut answers = Vec::new();
            for query in &queries {
                answers.push(search(query, 10, None));
                answers.push(search(query, 100, None));
                answers.push(search(query, 10, Some(&even)));
            }
            answers
        };
        let expected = answers(&|query, k, accept| graph.candidates(query, k, accept).expect("ok"));
        let frozen = graph.frozen().expect("frozen");
        assert_eq!(frozen.len(), rows as usize);
        assert_eq!(frozen.rows(), (7..7 + rows as u32).collect());
        let found = answers(&|query, k, accept| frozen.candidates(query, k, accept).expect("ok"));
        let (mut same, mut all) = (0, 0);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            assert!(found.is_sorted_by(|a, b| a.at_most >= b.at_most));
            let expected: Vec<u32> = expected.iter().map(|candidate| candidate.row).collect();
            same += found.iter().filter(|candidate| expected.contains(&candidate.row)).count();
            all += expected.len();
        }
        // Rows that are equally near may stand for each other.
        assert!(same as f64 >= 0.998 * all as f64, "{rows} rows: {same} of {all}");
    }
}

#[test]
fn bytes_that_lie_are_refused_or_lead_nowhere() {
    let sound = graph(300).to_bytes().expect("bytes");
    let opened = |bytes: &[u8]| {
        let mut memory = memmap2::MmapMut::map_anon(bytes.len().max(1)).expect("memory");
        memory[..bytes.len()].copy_from_slice(bytes);
        Frozen::new(memory, 0, bytes.len(), DIM, 0.5)
    };
    assert!(opened(&sound).is_some());
    for length in [0, 7, 8, 100, 8 + 300 * DIM, sound.len() - 1] {
        assert!(opened(&sound[..length]).is_none(), "{length} bytes");
    }
    let graph = 8 + 300 * DIM;
    let mut refused = 0;
    // All of both heads, the levels, and some of the nodes.
    for at in (0..8).chain(graph..graph + 700).chain((graph + 704..sound.len()).step_by(31)) {
        for value in [0, 0x7F, 0xFF] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            match opened(&bytes) {
                Some(frozen) => {
                    let found = frozen.candidates(&vector(3), 20, None).expect("candidates");
                    assert!(found.len() <= 20);
                    let _ = frozen.rows();
                }
                None => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
