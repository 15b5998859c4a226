//! Searches over vectors: rankings, pages, refusals, and filters over a whole collection.

#[path = "support/filters.rs"]
mod filters;
#[path = "support/vectors.rs"]
mod vectors;

use std::collections::BTreeSet;

use engine::Embedding;
use indexer::filter::Filter;
use indexer::search::{
    DIVERSITY_POOL, Example, MAX_K, Scoring, SearchRequest, SearchResponse, search, search_newest,
};
use indexer::{Collection, ImageId, IndexerError, Payload, View, eval};
use serde_json::json;

use filters::Lot;
use vectors::{DIM, Home};

fn filled(home: &Home, count: usize, ann_from: u64) -> Collection {
    let mut collection = home.create("c", ann_from);
    let mut lot = Lot(7);
    let mut drawn: Vec<Vec<f32>> = Vec::new();
    for number in 0..count {
        // Every fifth is an exact copy of an earlier one: ties.
        let vector = match number % 5 {
            4 => lot.pick(&drawn),
            _ => vectors::vector(&mut lot),
        };
        put(&mut collection, number, &vector);
        drawn.push(vector);
    }
    collection.finish().expect("finish");
    collection
}

/// Adds an image, or replaces the one of that number.
fn put(collection: &mut Collection, number: usize, vector: &[f32]) -> ImageId {
    let embedding = Embedding::normalised(vector.to_vec()).expect("a direction");
    collection.put(vectors::image(number, Payload::new()), &embedding).expect("put")
}

fn ids(response: &SearchResponse) -> Vec<u64> {
    response.hits.iter().map(|hit| hit.id.0).collect()
}

fn run(view: &View, request: &SearchRequest) -> SearchResponse {
    search(view, request, None).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(view: &View, request: &SearchRequest) -> String {
    search(view, request, None).expect_err("refused").to_string()
}

/// All pages of a list by cursors, with pages of changing size, at least `least`.
fn pages(view: &View, request: &SearchRequest, least: usize) -> Vec<u64> {
    let mut all = Vec::new();
    let mut request = request.clone();
    for page in 0.. {
        request.k = least + page % 4;
        let response = run(view, &request);
        let ranks: Vec<usize> = response.hits.iter().map(|hit| hit.rank).collect();
        assert_eq!(ranks, (all.len() + 1..=all.len() + ranks.len()).collect::<Vec<_>>());
        all.extend(ids(&response));
        match response.next_cursor {
            Some(cursor) => {
                assert_eq!(response.hits.len(), request.k);
                request.cursor = Some(cursor);
            }
            None => break,
        }
    }
    all
}

/// Every image with its stored vector, by id.
fn stored(view: &View) -> Vec<(ImageId, Vec<f32>)> {
    let image = |row: u32| {
        let id = view.id_of(row).expect("id");
        (id, view.vector(row, id).expect("vector"))
    };
    let mut images: Vec<_> = view.alive().iter().map(image).collect();
    images.sort_by_key(|image| image.0);
    images
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn an_image_finds_itself_and_then_the_nearest() {
    let home = Home::new();
    let collection = filled(&home, 200, 1 << 40);
    let view = collection.view();
    for (id, vector) in stored(&view).iter().step_by(17) {
        let plain = SearchRequest::near(vector.clone(), 9);
        let response = run(&view, &plain);
        assert!((response.hits[0].similarity - 1.0).abs() <= 1e-4);
        assert!(response.hits.iter().any(|hit| hit.id == *id));
        assert!(response.exact);
        let nearest = view.nearest_exact(vector, 200, None).expect("nearest");
        let expected: Vec<u64> = nearest.iter().map(|near| near.id.0).collect();
        assert_eq!(ids(&run(&view, &SearchRequest { k: 500, ..plain.clone() })), expected);
        let best = &response.hits[0];
        assert_eq!(best.percentile, view.manifest().percentile(best.similarity));

        // By id it is the same list; as an example among others it is left out.
        let by_id = SearchRequest { positive: vec![Example::Id(*id)], k: 9, ..plain.clone() };
        let same: BTreeSet<u64> = ids(&run(&view, &by_id)).into_iter().collect();
        assert!(same.contains(&id.0));
        let others = SearchRequest { include_examples: Some(false), ..by_id.clone() };
        assert!(!ids(&run(&view, &others)).contains(&id.0));
        let two = vec![Example::Id(*id), Example::Id(ImageId(id.0 ^ 1))];
        let two = SearchRequest { positive: two, k: 500, ..by_id };
        assert_eq!(run(&view, &two).hits.len(), 198);
        let two = SearchRequest { include_examples: Some(true), ..two };
        assert_eq!(run(&view, &two).hits.len(), 200);
    }
    let request = SearchRequest::near(vec![3.0; DIM], 4);
    let newest = search_newest(&collection.reader(), &request, None).expect("search");
    assert_eq!(newest, run(&view, &request));
}

#[test]
fn several_examples_are_scored_as_documented() {
    let home = Home::new();
    let view = filled(&home, 200, 1 << 40).view();
    let images = stored(&view);
    let vector = |id: usize| images[id].1.clone();
    let (positive, negative) = ([3usize, 60, 111], [20usize, 77]);
    let examples = |ids: &[usize]| ids.iter().map(|id| Example::Id(ImageId(*id as u64))).collect();
    let request = SearchRequest {
        positive: examples(&positive),
        negative: examples(&negative),
        k: 500,
        include_examples: Some(true),
        ..SearchRequest::default()
    };
    let unit = |id: usize| Embedding::normalised(vector(id)).expect("unit").as_slice().to_vec();

    let mean = |ids: &[usize], i: usize| {
        ids.iter().map(|id| f64::from(unit(*id)[i])).sum::<f64>() / ids.len() as f64
    };
    let query: Vec<f64> = (0..DIM).map(|i| 2.0 * mean(&positive, i) - mean(&negative, i)).collect();
    let norm = query.iter().map(|x| x * x).sum::<f64>().sqrt();
    let query: Vec<f32> = query.iter().map(|x| (x / norm) as f32).collect();
    let average = run(&view, &request);
    assert_eq!(average.hits.len(), 200);
    for hit in &average.hits {
        let expected = dot(&query, &vector(hit.id.0 as usize));
        assert!((f64::from(hit.similarity) - expected).abs() < 1e-5);
    }
    assert!(average.hits.is_sorted_by(|a, b| {
        a.similarity > b.similarity || (a.similarity == b.similarity && a.id < b.id)
    }));

    let best = run(&view, &SearchRequest { scoring: Scoring::Best, ..request });
    let greatest = |ids: &[usize], id: usize| {
        let each = ids.iter().map(|example| dot(&unit(*example), &vector(id)));
        each.fold(f64::NEG_INFINITY, f64::max)
    };
    let mut expected = BTreeSet::new();
    for id in 0..images.len() {
        // Closer calls than rounding decide nothing here.
        let (near, far) = (greatest(&positive, id), greatest(&negative, id));
        assert!((near - far).abs() > 1e-6 || near == far);
        if near > far {
            expected.insert(id as u64);
        }
    }
    assert!(expected.len() > 20 && expected.len() < 190, "{}", expected.len());
    assert_eq!(ids(&best).into_iter().collect::<BTreeSet<_>>(), expected);
    for hit in &best.hits {
        let expected = greatest(&positive, hit.id.0 as usize);
        assert!((f64::from(hit.similarity) - expected).abs() < 1e-5);
    }
}

/// Every way to make a list that pages are cut from.
fn lists(view: &View) -> Vec<(&'static str, SearchRequest)> {
    let near = SearchRequest::near(stored(view)[42].1.clone(), 10);
    let filter = Filter::parse("path prefix '/p' and width > 5").expect("filter");
    let pair = |a, b| vec![Example::Id(ImageId(a)), Example::Id(ImageId(b))];
    vec![
        ("plain", near.clone()),
        ("filtered", SearchRequest { filter: Some(filter), ..near.clone() }),
        ("similar", SearchRequest { min_similarity: Some(0.5), ..near.clone() }),
        (
            "best",
            SearchRequest {
                positive: pair(1, 50),
                negative: pair(3, 9),
                scoring: Scoring::Best,
                ..near.clone()
            },
        ),
        ("excluded", SearchRequest { exclude: (0..90).map(ImageId).collect(), ..near.clone() }),
        ("distinct", SearchRequest { hide_duplicates: Some(0.9), ..near.clone() }),
        ("diverse", SearchRequest { diversity: Some(0.4), ..near.clone() }),
        ("both", SearchRequest { diversity: Some(0.7), hide_duplicates: Some(0.9), ..near }),
    ]
}

#[test]
fn pages_cover_the_list_once() {
    let home = Home::new();
    let view = filled(&home, 200, 1 << 40).view();
    for (name, request) in lists(&view) {
        let whole = ids(&run(&view, &SearchRequest { k: 400, ..request.clone() }));
        assert!(whole.len() > 5, "{name}: {}", whole.len());
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len(), "{name}");
        assert_eq!(pages(&view, &request, 3), whole, "{name}");
        for start in [0, 1, 7] {
            let page = SearchRequest { offset: start, k: 4, ..request.clone() };
            let page = run(&view, &page);
            assert_eq!(ids(&page), whole[start..whole.len().min(start + 4)], "{name} {start}");
            if let Some(cursor) = page.next_cursor {
                let next = SearchRequest { cursor: Some(cursor), ..request.clone() };
                assert_eq!(ids(&run(&view, &next))[0], whole[start + 4], "{name} {start}");
            }
        }
    }
}

#[test]
fn equal_similarities_are_ordered_by_id_whatever_their_rows() {
    let home = Home::new();
    let mut collection = home.create("c", 1 << 40);
    let same: Vec<f32> = (0..DIM).map(|i| i as f32).collect();
    for number in 0..40 {
        put(&mut collection, number, &same);
    }
    collection.commit().expect("commit");
    // Replaced images have later rows.
    for number in [3, 1, 2, 0] {
        put(&mut collection, number, &same);
    }
    collection.finish().expect("finish");
    let view = collection.view();
    let request = SearchRequest::near(same, 10);
    assert_eq!(ids(&run(&view, &SearchRequest { k: 3, ..request.clone() })), [0, 1, 2]);
    assert_eq!(pages(&view, &request, 3), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_list_goes_on_in_a_changed_collection_without_repeating() {
    let home = Home::new();
    let mut collection = filled(&home, 200, 1 << 40);
    let first_view = collection.view();
    let mut started = Vec::new();
    for (name, request) in lists(&first_view) {
        // A filter on what changes would rightly give other images.
        let page = run(&first_view, &request);
        assert_eq!(page.hits.len(), 10, "{name}");
        started.push((name, request, ids(&page), page.next_cursor.expect(name)));
    }
    let mut lot = Lot(99);
    let examples = [1, 3, 9, 50];
    let mut gone = BTreeSet::new();
    let mut changed = BTreeSet::new();
    for number in 0..200u64 {
        match (number % 6, examples.contains(&number)) {
            (0, false) => {
                collection.remove(ImageId(number)).expect("remove");
                gone.insert(number);
            }
            (1, false) => {
                let vector = vectors::vector(&mut lot);
                assert_eq!(put(&mut collection, number as usize, &vector).0, number);
                changed.insert(number);
            }
            _ => {}
        }
    }
    for number in 200..260 {
        put(&mut collection, number, &vectors::vector(&mut lot));
    }
    collection.finish().expect("finish");
    let view = collection.view();
    for (name, request, given, cursor) in started {
        let rest = SearchRequest { cursor: Some(cursor), ..request.clone() };
        let mut seen = given;
        let mut page = run(&view, &rest);
        loop {
            seen.extend(ids(&page));
            let Some(cursor) = page.next_cursor else { break };
            page = run(&view, &SearchRequest { cursor: Some(cursor), ..request.clone() });
        }
        let distinct: BTreeSet<u64> = seen.iter().copied().collect();
        assert_eq!(distinct.len(), seen.len(), "{name} repeats");
        assert!(seen.iter().all(|id| *id < 200), "{name} has new images");
        if name == "plain" {
            let stayed = (0..200).filter(|id| !gone.contains(id) && !changed.contains(id));
            assert!(stayed.into_iter().all(|id| distinct.contains(&id)), "{name} skips");
        }
    }
}

#[test]
fn a_cursor_of_something_else_is_refused() {
    let home = Home::new();
    let view = filled(&home, 200, 1 << 40).view();
    let vector = stored(&view)[5].1.clone();
    let request = SearchRequest::near(vector.clone(), 10);
    let cursor = run(&view, &request).next_cursor.expect("more");
    let with = |request: SearchRequest| SearchRequest { cursor: Some(cursor.clone()), ..request };
    assert_eq!(run(&view, &with(request.clone())).hits[0].rank, 11);

    for other in [
        SearchRequest::near(stored(&view)[6].1.clone(), 10),
        SearchRequest { filter: Filter::parse("id > 3").ok(), ..request.clone() },
        SearchRequest { min_similarity: Some(0.1), ..request.clone() },
        SearchRequest { hide_duplicates: Some(0.9), ..request.clone() },
        SearchRequest { diversity: Some(0.5), ..request.clone() },
        SearchRequest { exclude: vec![ImageId(1)], ..request.clone() },
        SearchRequest {
            scoring: Scoring::Best,
            negative: vec![Example::Id(ImageId(9))],
            ..request.clone()
        },
    ] {
        assert!(refusal(&view, &with(other)).contains("belongs to another search"));
    }
    let mut elsewhere = home.create("d", 1 << 40);
    for number in 0..30 {
        put(&mut elsewhere, number, &vectors::vector(&mut Lot(number as u64)));
    }
    for number in 30..40 {
        put(&mut elsewhere, number, &vector);
        elsewhere.commit().expect("commit");
    }
    elsewhere.finish().expect("finish");
    let message = refusal(&elsewhere.view(), &with(request.clone()));
    assert!(message.contains("belongs to another search"), "{message}");

    let flipped = cursor.replacen(|c: char| c.is_ascii_digit(), "f", 1);
    for bad in ["", "x", "00", &cursor[..cursor.len() - 2], &flipped, &"0".repeat(1 << 20), "é"] {
        let request = SearchRequest { cursor: Some(bad.to_owned()), ..request.clone() };
        assert!(refusal(&view, &request).contains("this is no cursor"), "{bad}");
    }
    let both = SearchRequest { offset: 3, ..with(request) };
    assert!(refusal(&view, &both).contains("offset and cursor"));
}

#[test]
fn near_duplicates_are_folded_and_named() {
    let home = Home::new();
    let view = filled(&home, 200, 1 << 40).view();
    let images = stored(&view);
    let request = SearchRequest::near(images[42].1.clone(), 500);
    let ranked = run(&view, &request);
    let folded = run(&view, &SearchRequest { hide_duplicates: Some(0.93), ..request.clone() });
    // The rule, by hand.
    let mut shown: Vec<(u64, Vec<u64>)> = Vec::new();
    for hit in &ranked.hits {
        let vector = |id: u64| images[id as usize].1.as_slice();
        let home = shown.iter_mut().find(|shown| dot(vector(shown.0), vector(hit.id.0)) >= 0.93);
        match home {
            Some(home) => home.1.push(hit.id.0),
            None => shown.push((hit.id.0, Vec::new())),
        }
    }
    let found: Vec<(u64, Vec<u64>)> = folded
        .hits
        .iter()
        .map(|hit| {
            let duplicates = hit.duplicates.as_deref().expect("asked for");
            (hit.id.0, duplicates.iter().map(|id| id.0).collect())
        })
        .collect();
    assert!(shown.len() < 190 && shown.len() > 10, "{}", shown.len());
    assert_eq!(found, shown);
    assert!(ranked.hits[0].duplicates.is_none());
    let json = serde_json::to_value(&folded.hits[0]).expect("JSON");
    assert_eq!(json["duplicates"], json!(shown[0].1));
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let home = Home::new();
    let mut collection = filled(&home, 30, 1 << 40);
    collection.remove(ImageId(3)).expect("remove");
    collection.commit().expect("commit");
    let view = collection.view();
    let near = |vector| SearchRequest::near(vector, 5);
    let good = near(vec![1.0; DIM]);
    let id = |id| vec![Example::Id(ImageId(id))];
    for (request, reason) in [
        (SearchRequest::default(), "nothing to search with"),
        (SearchRequest { negative: id(1), ..SearchRequest::default() }, "nothing to search with"),
        (SearchRequest { k: 0, ..good.clone() }, "k is 0"),
        (SearchRequest { k: MAX_K + 1, ..good.clone() }, "the limit is 10000"),
        (SearchRequest { offset: usize::MAX, ..good.clone() }, "narrow the search with a filter"),
        (near(vec![]), "0 values"),
        (near(vec![1.0; DIM + 1]), "17 values, the collection's have 16"),
        (near(vec![0.0; DIM]), "its length is zero"),
        (near(vec![f32::NAN; DIM]), "NaN"),
        (near([vec![f32::INFINITY], vec![1.0; DIM - 1]].concat()), "inf"),
        (SearchRequest { positive: id(3), ..good.clone() }, "no image 3 in collection `c`"),
        (SearchRequest { positive: id(99), ..good.clone() }, "no image 99"),
        (SearchRequest { negative: id(99), ..good.clone() }, "no image 99"),
        (SearchRequest { positive: id(1), negative: id(1), ..good.clone() }, "wanted and unwanted"),
        (
            SearchRequest {
                positive: vec![Example::Vector(vec![1.0; DIM]), Example::Vector(vec![-1.0; DIM])],
                ..good.clone()
            },
            "cancel each other out",
        ),
        (
            SearchRequest { positive: vec![good.positive[0].clone(); 101], ..good.clone() },
            "limit is 100",
        ),
        (SearchRequest { min_similarity: Some(1.5), ..good.clone() }, "from -1 to 1"),
        (SearchRequest { min_similarity: Some(f32::NAN), ..good.clone() }, "min_similarity is NaN"),
        (SearchRequest { diversity: Some(-0.1), ..good.clone() }, "from 0 to 1"),
        (SearchRequest { hide_duplicates: Some(2.0), ..good.clone() }, "hide_duplicates is 2"),
        (SearchRequest { diversity: Some(0.5), k: 501, ..good.clone() }, "turn diversity off"),
        (
            SearchRequest { hide_duplicates: Some(0.9), offset: 999, k: 2, ..good.clone() },
            "show near-duplicates",
        ),
        (
            SearchRequest { filter: Some(Filter::And(vec![])), ..good.clone() },
            "at least one condition",
        ),
    ] {
        let message = refusal(&view, &request);
        assert!(message.contains(reason), "{request:?}: {message}");
    }
    let empty = home.create("empty", 1 << 40);
    assert!(run(&empty.view(), &good).hits.is_empty());
    let none = SearchRequest { filter: Filter::parse("id in ()").ok(), ..good };
    assert_eq!(
        run(&view, &none),
        SearchResponse { hits: vec![], next_cursor: None, exact: true, sequence: view.sequence() }
    );
}

#[test]
fn a_large_collection_is_searched_through_its_graph() {
    let home = Home::new();
    let view = filled(&home, 1500, 500).view();
    assert!(view.is_approximate());
    let request = SearchRequest::near(stored(&view)[42].1.clone(), 10);
    let first = run(&view, &request);
    assert!(!first.exact);
    let exact = run(&view, &SearchRequest { exact: true, ..request.clone() });
    assert!(exact.exact);
    assert!((first.hits[0].similarity - 1.0).abs() < 1e-4);
    let found = ids(&first).iter().filter(|id| ids(&exact).contains(id)).count();
    assert!(found >= 8, "{found} of 10");
    for (name, request) in lists(&view) {
        let all = pages(&view, &request, 60);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{name} repeats");
        if name == "diverse" {
            assert_eq!(all.len(), DIVERSITY_POOL);
        }
    }
}

#[test]
fn recall_is_measured_against_exact_search() {
    let home = Home::new();
    let small = filled(&home, 100, 1 << 40).view();
    let report = eval::recall(&small, 1000, 10, 1).expect("report");
    assert_eq!((report.queries, report.recall, report.approximate), (100, 1.0, false));
    assert!(report.low > 0.95 && report.high == 1.0 && report.imperfect == 0);

    let home = Home::new();
    let large = filled(&home, 1500, 500).view();
    let report = eval::recall(&large, 200, 10, 1).expect("report");
    assert_eq!(report, eval::recall(&large, 200, 10, 1).expect("report"));
    assert!(report.approximate && report.queries == 200);
    assert!(report.recall >= 0.95, "{report:?}");
    assert!(report.low <= report.recall && report.recall <= report.high);
    assert!(report.worst_recall <= report.recall);
    assert_eq!(report.imperfect == 0, report.worst_recall == 1.0);

    let empty = home.create("empty", 1 << 40).view();
    let error = eval::recall(&empty, 10, 10, 0).expect_err("refused");
    assert!(matches!(error, IndexerError::InvalidRequest(_)));
    assert!(eval::recall(&small, 0, 10, 0).is_err() && eval::recall(&small, 10, 0, 0).is_err());
}
