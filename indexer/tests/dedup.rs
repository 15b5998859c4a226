//! Duplicates of small collections, against brute force and against what was put in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, ModelIdentity, RgbImage};
use image::{Rgb, imageops};
use indexer::dedup::{
    DedupOptions, DedupReport, Grouping, Keep, Kind, Method, NotDuplicates, Originals, PixelHashes,
    Verifier, components, dedup, knn_graph,
};
use indexer::{
    Collection, Collections, ContentHash, CreateOptions, FileStamp, ImageId, IndexerError, Locator,
    NewImage, Payload, Precision, View,
};
use roaring::RoaringBitmap;
use safetensors::SafeTensors;

static QUIET: AtomicBool = AtomicBool::new(false);

fn model(dim: usize) -> ModelIdentity {
    ModelIdentity { dim, ..ThumbnailEmbedder::default().identity().clone() }
}

struct Case {
    home: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("temporary folder") }
    }

    fn create(&self, name: &str, dim: usize, ann_from: Option<u64>) -> Collection {
        let options = CreateOptions { ann_from, precision: Precision::F32 };
        let collections = Collections::new(self.home.path());
        collections.create(name, &model(dim), options).expect("create")
    }

    /// A collection of these vectors, each of a file of its own that does not exist.
    fn with_vectors(&self, name: &str, vectors: &[Vec<f32>], ann_from: Option<u64>) -> Collection {
        let mut collection = self.create(name, vectors[0].len(), ann_from);
        for (number, vector) in vectors.iter().enumerate() {
            let path = PathBuf::from(format!("/{name}/{number:04}.png"));
            put(
                &mut collection,
                &path,
                path.as_os_str().as_encoded_bytes(),
                (9, 9),
                vector.clone(),
            );
        }
        collection.finish().expect("finish");
        collection
    }

    /// A collection of pictures, written to disk, embedded as thumbnails.
    fn with_pictures(&self, name: &str, pictures: &[(&str, &RgbImage)]) -> Collection {
        let embedder = ThumbnailEmbedder::default();
        let mut collection = self.create(name, embedder.identity().dim, None);
        for (file, picture) in pictures {
            let path = self.home.path().join(format!("{name}-{file}"));
            picture.save(&path).expect("save");
            let bytes = std::fs::read(&path).expect("read");
            let pixels = embedder.prepare(picture).expect("prepare");
            let vector = embedder.embed(&[pixels]).expect("embed").remove(0).as_slice().to_vec();
            put(&mut collection, &path, &bytes, picture.dimensions(), vector);
        }
        collection.finish().expect("finish");
        collection
    }
}

fn put(
    collection: &mut Collection,
    path: &Path,
    content: &[u8],
    (width, height): (u32, u32),
    vector: Vec<f32>,
) -> ImageId {
    let image = NewImage {
        path: Locator::from(path),
        sha256: ContentHash::of(content),
        stamp: FileStamp { size: content.len() as u64, mtime_ns: 0 },
        width,
        height,
        warning: None,
        payload: Payload::new(),
    };
    let embedding = Embedding::normalised(vector).expect("a vector");
    collection.put(image, &embedding).expect("put")
}

fn run(view: &View, options: &DedupOptions, originals: Originals<'_>) -> DedupReport {
    dedup(view, options, originals, &|_| {}, &|_| {}, &QUIET).expect("dedup")
}

fn by_similarity(view: &View, options: &DedupOptions) -> DedupReport {
    run(view, options, Originals::default())
}

fn error(view: &View, options: &DedupOptions) -> String {
    let found = dedup(view, options, Originals::default(), &|_| {}, &|_| {}, &QUIET);
    found.expect_err("refused").to_string()
}

/// Ids of each group, ascending.
fn groups(report: &DedupReport) -> Vec<Vec<u64>> {
    let ids = |group: &indexer::dedup::Group| {
        let dropped = group.dropped.iter().map(|dropped| &dropped.member);
        let members = group.kept.iter().chain(dropped);
        let mut ids: Vec<u64> = members.map(|member| member.image.id.0).collect();
        ids.sort_unstable();
        ids
    };
    report.groups.iter().map(ids).collect()
}

fn kept(report: &DedupReport) -> Vec<u64> {
    report.groups.iter().map(|group| group.kept[0].image.id.0).collect()
}

/// A unit vector at an angle, in degrees.
fn at(degrees: f32) -> Vec<f32> {
    vec![degrees.to_radians().cos(), degrees.to_radians().sin()]
}

fn cosine(degrees: f32) -> f32 {
    degrees.to_radians().cos()
}

struct Golden {
    vectors: Vec<Vec<f32>>,
    thresholds: Vec<f32>,
    groups: Vec<Vec<u32>>,
    nearest: Vec<Vec<u32>>,
    similarities: Vec<Vec<f32>>,
}

impl Golden {
    fn read() -> Self {
        let bytes = std::fs::read(fixtures::path("golden/dedup.safetensors")).expect("golden");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let words = |name: &str| {
            let tensor = file.tensor(name).expect("in the golden file");
            let columns = *tensor.shape().last().expect("a shape");
            let words = tensor.data().as_chunks::<4>().0.to_vec();
            (words, columns)
        };
        let floats = |name: &str| {
            let (words, columns) = words(name);
            let values: Vec<f32> = words.into_iter().map(f32::from_le_bytes).collect();
            values.chunks(columns).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let numbers = |name: &str| {
            let (words, columns) = words(name);
            let values: Vec<u32> = words.into_iter().map(u32::from_le_bytes).collect();
            values.chunks(columns).map(<[u32]>::to_vec).collect::<Vec<_>>()
        };
        Self {
            vectors: floats("vectors"),
            thresholds: floats("thresholds").remove(0),
            groups: numbers("groups"),
            nearest: numbers("nearest"),
            similarities: floats("similarities"),
        }
    }

    /// Members of each group of at least two, at a threshold.
    fn expected(&self, nth: usize) -> Vec<Vec<u64>> {
        let names = &self.groups[nth];
        let of = |name: usize| -> Vec<u64> {
            (0..names.len() as u64).filter(|i| names[*i as usize] as usize == name).collect()
        };
        (0..names.len()).map(of).filter(|group| group.len() > 1).collect()
    }
}

#[test]
fn groups_equal_those_of_scipy_over_all_pairs() {
    let golden = Golden::read();
    let case = Case::new();
    let collection = case.with_vectors("c", &golden.vectors, None);
    let view = collection.view();
    for (nth, &threshold) in golden.thresholds.iter().enumerate() {
        let options = DedupOptions { method: Method::Exact, ..DedupOptions::new(threshold) };
        let report = by_similarity(&view, &options);
        assert_eq!(report.truncated, 0);
        assert_eq!(groups(&report), golden.expected(nth), "threshold {threshold}");
    }
}

#[test]
fn nearest_neighbours_equal_those_of_numpy_in_any_number_of_threads() {
    let golden = Golden::read();
    let case = Case::new();
    let collection = case.with_vectors("c", &golden.vectors, None);
    let view = collection.view();
    let k = golden.nearest[0].len();
    let graph = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| knn_graph(&view, None, k, Method::Exact, &|_| {}, &QUIET)).expect("graph")
    };
    let (one, four) = (graph(1), graph(4));
    for (row, near) in one.iter() {
        let rows: Vec<u32> = near.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, golden.nearest[row as usize], "row {row}");
        for ((_, ours), theirs) in near.iter().zip(&golden.similarities[row as usize]) {
            assert!((ours - theirs).abs() < 1e-6, "row {row}: {ours} {theirs}");
        }
        assert_eq!(near, four.of(row));
    }
    // Some of the rows, among themselves.
    let some = RoaringBitmap::from_iter(0..40u32);
    let graph = knn_graph(&view, Some(&some), 500, Method::Exact, &|_| {}, &QUIET).expect("graph");
    assert_eq!((graph.rows().len(), graph.k()), (40, 39));
    assert!(graph.iter().all(|(row, near)| near.len() == 39 && near.iter().all(|n| n.0 != row)));
}

#[test]
fn hnsw_finds_the_same_groups() {
    let golden = Golden::read();
    let case = Case::new();
    let collection = case.with_vectors("c", &golden.vectors, Some(1));
    let view = collection.view();
    assert!(view.is_approximate());
    for (nth, &threshold) in golden.thresholds.iter().enumerate().skip(1) {
        let options = DedupOptions { method: Method::Hnsw, k: 24, ..DedupOptions::new(threshold) };
        assert_eq!(groups(&by_similarity(&view, &options)), golden.expected(nth));
    }
}

#[test]
fn a_chain_is_reported_and_medoids_cut_it() {
    let case = Case::new();
    let vectors: Vec<Vec<f32>> = [0.0, 10.0, 20.0, 30.0, 90.0].map(at).to_vec();
    let collection = case.with_vectors("c", &vectors, None);
    let mut options = DedupOptions::new(cosine(12.0));
    let report = by_similarity(&collection.view(), &options);
    let group = &report.groups[0];
    assert_eq!(groups(&report), [[0, 1, 2, 3]]);
    assert_eq!((group.chain, group.chain_is_exact, group.spread.exact), (3, true, true));
    assert!((group.spread.lowest - cosine(30.0)).abs() < 1e-6);
    assert!((group.weakest - cosine(10.0)).abs() < 1e-6);
    let direct: Vec<bool> = group.dropped.iter().map(|dropped| dropped.direct).collect();
    assert_eq!(direct, [true, false, false]);
    assert!((group.dropped[2].similarity - cosine(30.0)).abs() < 1e-6);

    options.grouping = Grouping::Medoid;
    let report = by_similarity(&collection.view(), &options);
    assert_eq!(groups(&report), [vec![0, 1], vec![2, 3]]);
    assert!(report.dropped().all(|dropped| dropped.direct));
}

#[test]
fn equal_files_are_one_group_whatever_k_is() {
    let case = Case::new();
    let mut collection = case.create("c", 2, None);
    for number in 0..30u32 {
        // Twenty times the same content, in different sizes on record.
        let content = if number < 20 { b"same".to_vec() } else { vec![number as u8] };
        let angle = if number < 20 { 0.0 } else { number as f32 * 5.0 };
        let path = PathBuf::from(format!("/{number}"));
        put(&mut collection, &path, &content, (number, number), at(angle));
    }
    collection.finish().expect("finish");
    let options = DedupOptions { k: 1, ..DedupOptions::new(0.9999) };
    let report = by_similarity(&collection.view(), &options);
    assert_eq!(report.images, 30);
    assert_eq!(groups(&report), [(0..20).collect::<Vec<u64>>()]);
    assert_eq!(kept(&report), [19], "the largest");
    assert!(report.dropped().all(|dropped| dropped.kind == Kind::SameFile));
    assert!(report.dropped().all(|dropped| (dropped.similarity - 1.0).abs() < 1e-6));
}

#[test]
fn protected_images_and_references_stay() {
    let case = Case::new();
    let pool = case.with_vectors("pool", &[0.0, 1.0, 50.0, 90.0].map(at), None);
    let reference = case.with_vectors("reference", &[49.0, 49.5, 170.0].map(at), None);
    let mut options = DedupOptions::new(cosine(2.0));
    options.keep = Keep::PathOrder;
    let view = pool.view();
    assert_eq!(
        (groups(&by_similarity(&view, &options)), kept(&by_similarity(&view, &options))),
        (vec![vec![0, 1]], vec![0])
    );

    options.protected = RoaringBitmap::from_iter([1]);
    assert_eq!(kept(&by_similarity(&view, &options)), [1]);
    options.protected.insert(0);
    assert!(by_similarity(&view, &options).groups.is_empty(), "nothing to drop");
    options.protected.clear();

    options.references = vec![reference.view()];
    for grouping in [Grouping::Components, Grouping::Medoid] {
        options.grouping = grouping;
        let report = by_similarity(&view, &options);
        assert_eq!(report.groups.len(), 2, "{grouping:?}");
        let group = &report.groups[1];
        assert!(group.kept.iter().all(|member| member.reference.as_deref() == Some("reference")));
        assert_eq!(group.dropped.len(), 1);
        assert_eq!(group.dropped[0].member.image.id, ImageId(2));
        assert!(report.dropped().all(|dropped| dropped.member.reference.is_none()));
    }

    let other = case.with_vectors("other", &[vec![1.0, 0.0, 0.0]], None);
    options.references = vec![other.view()];
    assert!(error(&view, &options).contains("cannot be mixed"));
    options.references = vec![Arc::clone(&view)];
    assert!(error(&view, &options).contains("its own reference"));
}

#[test]
fn remembered_pairs_are_no_duplicates_until_a_file_changes() {
    let case = Case::new();
    let mut collection = case.with_vectors("c", &[0.0, 5.0, 10.0].map(at), None);
    let hash = |collection: &Collection, id: u64| {
        collection.record(ImageId(id)).expect("catalog").expect("an image").sha256
    };
    let mut options = DedupOptions::new(cosine(6.0));
    options.keep = Keep::PathOrder;
    let pair = (hash(&collection, 0), hash(&collection, 1));
    assert!(options.not_duplicates.insert(&pair.0, &pair.1));
    options.not_duplicates.write(collection.folder()).expect("write");
    assert_eq!(NotDuplicates::read(collection.folder()).expect("read"), options.not_duplicates);
    let report = by_similarity(&collection.view(), &options);
    assert_eq!((groups(&report), report.remembered), (vec![vec![1, 2]], 1));

    // The ends of a chain: the middle one joins one of them, they do not join each other.
    let ends = (hash(&collection, 0), hash(&collection, 2));
    options.not_duplicates = NotDuplicates::default();
    options.not_duplicates.insert(&ends.0, &ends.1);
    let report = by_similarity(&collection.view(), &options);
    assert_eq!(groups(&report), [[0, 1]]);

    // Another file at the same path is judged again.
    put(&mut collection, Path::new("/c/0002.png"), b"edited", (9, 9), at(10.0));
    collection.finish().expect("finish");
    let report = by_similarity(&collection.view(), &options);
    assert_eq!(groups(&report), [[0, 1, 2]]);
}

/// A picture of waves and boxes that only this number gives.
fn picture(seed: u32) -> RgbImage {
    let part = |n: u32| {
        let mut h = (seed * 977 + n + 1).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        h = h.wrapping_mul(2_246_822_519);
        h ^= h >> 13;
        f64::from(h) / f64::from(u32::MAX)
    };
    RgbImage::from_fn(240, 200, |x, y| {
        let (u, v) = (f64::from(x) / 240.0, f64::from(y) / 200.0);
        let mut value = 0.5;
        for n in 0..5 {
            let (a, b) = (part(n) * 30.0 - 15.0, part(n + 10) * 30.0 - 15.0);
            value += 0.13 * (a * u + b * v + 6.0 * part(n + 20)).sin();
        }
        for n in 0..25 {
            let (left, top) = (part(30 + n), part(60 + n));
            let (wide, high) = (0.05 + 0.1 * part(90 + n), 0.05 + 0.1 * part(120 + n));
            if u >= left && u < left + wide && v >= top && v < top + high {
                value = part(150 + n);
            }
        }
        let grey = (value.clamp(0.0, 1.0) * 255.0) as u8;
        Rgb([grey, grey / 2 + 40, 255 - grey])
    })
}

#[test]
fn pictures_are_told_apart_by_their_pixels() {
    let case = Case::new();
    let (one, other) = (picture(1), picture(2));
    let flipped = imageops::flip_horizontal(&one);
    let pictures = [
        ("one.png", &one),
        ("again.png", &one),
        ("pixels.bmp", &one),
        ("flipped.png", &flipped),
        ("other.png", &other),
    ];
    let collection = case.with_pictures("c", &pictures);
    let view = collection.view();
    // Every pair is a candidate.
    let options = DedupOptions::new(-1.0);
    let mut pixels = PixelHashes::open(collection.folder()).expect("open");
    let verifier = Verifier::of_pixels();
    let originals = Originals { pixels: Some(&mut pixels), verifier: Some(&verifier) };
    let report = run(&view, &options, originals);
    assert!(report.skipped.is_empty() && report.unseen == 0, "{:?}", report.skipped);
    assert_eq!(groups(&report), [[0, 1, 2, 3]]);
    assert_eq!(kept(&report), [2], "the largest file of as many pixels");
    let kind = |id: u64| {
        let found = report.dropped().find(|dropped| dropped.member.image.id.0 == id);
        found.map(|dropped| (dropped.kind, dropped.direct))
    };
    assert_eq!(kind(0), Some((Kind::SamePixels, true)));
    assert_eq!(kind(1), Some((Kind::SamePixels, true)), "as its equal");
    assert_eq!(kind(3), Some((Kind::SamePicture, true)));
    let different = report.pairs.iter().filter(|pair| pair.kind == Kind::SameSubject);
    assert!(different.clone().count() >= 3);
    assert!(different.clone().all(|pair| pair.b.image.id.0 == 4));
    assert!(report.pairs.iter().filter(|pair| pair.kind == Kind::SamePicture).all(|pair| {
        pair.evidence.is_some_and(|seen| seen.map.is_some() && seen.agreement > 0.8)
    }));
}

#[test]
fn pairs_whose_originals_are_gone_or_changed_stay_and_are_named() {
    let case = Case::new();
    let one = picture(1);
    let flipped = imageops::flip_horizontal(&one);
    let collection = case.with_pictures("c", &[("a.png", &one), ("b.png", &flipped)]);
    let verifier = Verifier::of_pixels();
    let options = DedupOptions::new(-1.0);
    let look = || {
        let originals = Originals { pixels: None, verifier: Some(&verifier) };
        run(&collection.view(), &options, originals)
    };
    assert_eq!(look().groups.len(), 1);
    std::fs::write(case.home.path().join("c-b.png"), b"something else").expect("write");
    let report = look();
    assert_eq!((report.groups.len(), report.unseen, report.skipped.len()), (0, 1, 1));
    assert!(report.skipped[0].reason.contains("changed since"), "{:?}", report.skipped);
    std::fs::remove_file(case.home.path().join("c-b.png")).expect("remove");
    let report = look();
    assert_eq!((report.groups.len(), report.unseen), (0, 1));
    assert!(report.skipped[0].reason.contains("cannot be read"), "{:?}", report.skipped);
}

#[test]
fn requests_that_make_no_sense_are_refused_and_small_ones_answered() {
    let case = Case::new();
    let collection = case.with_vectors("c", &[0.0, 1.0, 2.0].map(at), None);
    let view = collection.view();
    let options = DedupOptions::new(0.5);
    assert!(error(&view, &DedupOptions { k: 0, ..options.clone() }).contains("k is 0"));
    for threshold in [1.5, -1.01, f32::NAN, f32::INFINITY] {
        let refused = error(&view, &DedupOptions::new(threshold));
        assert!(refused.contains("between -1 and 1"), "{threshold}: {refused}");
    }
    let many = DedupOptions { k: 1_000_000, ..options.clone() };
    assert_eq!(groups(&by_similarity(&view, &many)), [[0, 1, 2]]);
    let none = DedupOptions { among: Some(RoaringBitmap::from_iter([1, 77])), ..options.clone() };
    let report = by_similarity(&view, &none);
    assert_eq!((report.images, report.groups.len()), (1, 0));

    let empty = case.create("empty", 2, None);
    let report = by_similarity(&empty.view(), &options);
    assert_eq!((report.images, report.groups.len()), (0, 0));

    let stop = AtomicBool::new(true);
    let stopped = dedup(&view, &options, Originals::default(), &|_| {}, &|_| {}, &stop);
    assert!(matches!(stopped, Err(IndexerError::Cancelled)));
    assert!(components(&[]).is_empty());
}

#[test]
fn too_few_neighbours_are_noticed() {
    let case = Case::new();
    let vectors: Vec<Vec<f32>> = (0..12).map(|i| at(i as f32 * 0.01)).collect();
    let collection = case.with_vectors("c", &vectors, None);
    let options = DedupOptions { k: 3, ..DedupOptions::new(0.99) };
    assert_eq!(by_similarity(&collection.view(), &options).truncated, 12);
    let options = DedupOptions { k: 11, ..options };
    assert_eq!(by_similarity(&collection.view(), &options).truncated, 0);
}
