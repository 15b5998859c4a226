//! The filter language: what is read, written and refused, and what it means for one record and for
//! a whole collection.

#[path = "support/filters.rs"]
mod filters;
#[path = "support/payloads.rs"]
mod payloads;
#[path = "support/vectors.rs"]
mod vectors;

use std::collections::BTreeSet;
use std::path::Path;

use engine::Embedding;
use indexer::filter::{Filter, FilterCache, MAX_DEPTH, MAX_TERMS, MAX_TEXT};
use indexer::{ContentHash, FileStamp, ImageId, Locator, Record};
use serde_json::{Value, json};

use filters::Lot;
use vectors::Home;

fn record(payload: Value) -> Record {
    Record {
        path: Locator::from(Path::new("/photos/2020/Trip to Rome/IMG 1.JPG")),
        sha256: ContentHash::of(b"a"),
        // 2024-05-01T12:00:00.5Z
        stamp: FileStamp { size: 5000, mtime_ns: 1_714_564_800_500_000_000 },
        width: 640,
        height: 480,
        warning: None,
        row: 3,
        payload: serde_json::from_value(payload).expect("an object"),
    }
}

fn parse(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn text_json_and_tree_say_the_same() {
    let mut lot = Lot(1);
    for _ in 0..5000 {
        let filter = filters::filter(&mut lot, 4);
        filter.check().unwrap_or_else(|error| panic!("{filter}: {error}"));
        let text = filter.to_string();
        assert_eq!(parse(&text), filter, "{text}");
        assert_eq!(parse(&text).to_string(), text);
        let json = serde_json::to_string(&filter).expect("JSON");
        let back: Filter = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
        assert_eq!(back, filter, "{json}");
    }
}

#[test]
fn what_a_filter_means() {
    let image = record(json!({
        "label": "dog", "n": 2, "big": 1e300, "flag": true, "none": null, "empty": [],
        "tags": ["x", "y", 7, null, ["deep"]], "one": "1", "width": "wide", "and": 1,
        "exif": {"lat": 41.9, "lens": {"name": "50mm"}}, "date": "2024-01-05",
        "list": [{"a": 1}, {"a": "b"}], "z": -0.0,
    }));
    for text in [
        r#"label = "dog""#,
        "label='dog'",
        r#"label != "cat""#,
        r#"label in ("cat", "dog")"#,
        "n = 2",
        "n = 2.0",
        "n=2e0",
        "n between 1 and 2",
        "1 < n <= 2",
        "n > 1.5 and n < 3",
        "n != \"2\"",
        "big >= 1e300",
        "flag = true",
        "FLAG != true",
        "not flag = false",
        "n < 3 AND flag = TRUE",
        r#"tags = "x""#,
        "tags = 7",
        r#"tags = "deep""#,
        r#"tags in (1, "y")"#,
        r#"tags prefix "de""#,
        r#"tags != "z""#,
        "exists tags",
        "not exists none",
        "not exists empty",
        "not exists gone",
        "gone != 1",
        "none != 1",
        "empty != 1",
        r#"one = "1""#,
        "not one = 1",
        "one != 1",
        "exif.lat > 41 and exif.lat < 42",
        r#"exif.lens.name prefix "50""#,
        "not exists exif",
        r#"date >= "2024-01-01" and date < "2025""#,
        "list.a = 1",
        r#"list.a = "b""#,
        "z = 0",
        "z = -0",
        // Built-in fields.
        "id = 12",
        "id in (1, 12)",
        "width = 640",
        "640 <= width < 641",
        "pixels = 307200",
        "height <= 480",
        r#"payload.width = "wide""#,
        "size between 1 and 1e6",
        "`and` = 1",
        r#"path prefix "/photos/2020/""#,
        r#"name = "IMG 1.JPG""#,
        r#"ext = "jpg""#,
        "exists ext",
        r#"mtime >= "2024-05-01" and mtime < "2024-05-02""#,
        "mtime = 1714564800.5",
        "mtime > 1714564800",
        r#"mtime < "2024-05-01T14:00:01+02:00""#,
        r#"1700000000 < mtime <= "2024-06-01""#,
        r#"sha256 prefix "ca978112ca1b""#,
        // Precedence.
        "n = 2 or n = 3 and n = 4",
        "not n = 3 and n = 2",
        "not (n = 2 and n = 3)",
        "not not n = 2",
    ] {
        assert!(parse(text).matches(ImageId(12), &image), "{text}");
    }
    for text in [
        "label = \"Dog\"",
        r#"label prefix "og""#,
        r#"label in ()"#,
        "label > 1",
        "label < 1",
        "n = \"2\"",
        r#"n > """#,
        "n != 2",
        "flag = 1",
        "flag = \"true\"",
        "one = 1",
        "exists none",
        "none = 1",
        r#"none in (1, "")"#,
        r#"gone prefix """#,
        "gone <= 5",
        r#"tags != "x""#,
        "exists exif",
        "exif.lat > 42",
        "width = 641",
        r#"ext = "JPG""#,
        r#"mtime < "2024-05-01T12:00:00Z""#,
        "(n = 2 or n = 3) and n = 4",
        "not n = 2 or n = 3",
        r#"id = 7"#,
        "n between 3 and 1",
        // Two conditions may be met by two elements; one range by one element only.
        "6 < n and n < 7",
        "7 < tags < 8",
    ] {
        let filter = Filter::parse(text);
        let Ok(filter) = filter else { continue };
        assert!(!filter.matches(ImageId(12), &image), "{text}");
    }
    // As above, but with two elements on both sides.
    let two = record(json!({"v": [1, 9]}));
    assert!(parse("v > 3 and v < 5").matches(ImageId(0), &two));
    assert!(!parse("3 < v < 5").matches(ImageId(0), &two));
}

#[test]
fn a_path_that_is_not_text_is_compared_by_bytes() {
    let mut image = record(json!({}));
    image.path = serde_json::from_value(json!(b"/p/\xff.PNG")).expect("bytes");
    assert!(parse(r#"path prefix "/p/" and ext = "png""#).matches(ImageId(0), &image));
    assert!(!parse(r#"name = "?.PNG""#).matches(ImageId(0), &image));
    for (path, ext) in [("/a/.hidden", None), ("/a.b/c", None), ("/a/b.tar.gz", Some("gz"))] {
        image.path = Locator::from(Path::new(path));
        let filter = ext.map_or("not exists ext".to_owned(), |ext| format!("ext = '{ext}'"));
        assert!(parse(&filter).matches(ImageId(0), &image), "{path}");
    }
}

#[test]
fn mistakes_are_explained_with_their_place() {
    for (text, position, words) in [
        ("", 1, "expected a condition, found the end"),
        ("   ", 4, "label = \"dog\""),
        ("label = dog", 9, "expected a text in quotes, a number, true or false, found `dog`"),
        ("label == 1", 8, "found `=`"),
        ("label", 6, "expected a comparison"),
        ("label \"dog\"", 7, "found `\"dog\"`"),
        ("a = 1 b = 2", 7, "expected `and`, `or` or the end, found `b`"),
        ("a = 1 and", 10, "expected a field, found the end"),
        ("(a = 1", 7, "expected `)`, found the end"),
        ("a = 1)", 6, "found `)`"),
        ("a = \"x", 5, "this \" is never closed"),
        ("é = 'x", 5, "this ' is never closed"),
        ("a in 1", 6, "expected `(`"),
        ("a in (1 2)", 9, "expected `,` or `)`"),
        ("a prefix 1", 10, "expected a text in quotes"),
        ("a between 1 or 2", 13, "expected `and`"),
        ("1 < a > 2", 7, "expected `<` or `<=`"),
        ("1 = a", 3, "640 <= width < 1024"),
        ("in = 1", 1, "backquotes"),
        ("a = 12a", 5, "a number is written like"),
        ("a = 1.2.3", 5, "a number is written like"),
        ("a = -", 5, "a number is written like"),
        ("a = NaN", 5, "found `NaN`"),
        ("a = 1e999", 5, "too large"),
        ("a = 'x\\y'", 7, "a backslash starts an escape"),
        ("a = '\\u{zz}'", 6, "\\u{e9}"),
        ("a = '\\u{d800}'", 6, "\\u{e9}"),
        ("a = 1 & b = 2", 7, "`&` has no meaning here"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        let place = format!("filter, position {position}: ");
        assert!(error.message.starts_with(&place), "{text}: {error}");
        assert!(error.message.contains(words), "{text}: {error}");
        assert!(error.at.is_some());
    }
    for (text, words) in [
        ("width = '640'", "`width` is a number"),
        ("path = 5", "`path` is a text"),
        ("width prefix '6'", "has no prefix"),
        ("mtime > 'yesterday'", "2024-05-01T12:00:00Z"),
        ("1 < a < 'b'", "types never mix"),
        ("a > true", "have no order"),
        ("`` = 1", "cannot be empty"),
        ("payload. = 1", "cannot be empty"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert!(error.message.contains(words), "{text}: {error}");
    }
    for (json, words) in [
        (json!({"eq": {"field": "a"}}), "missing field `value`"),
        (json!({"eq": {"field": "a", "value": 1, "x": 1}}), "unknown field `x`"),
        (json!({"equals": {"field": "a", "value": 1}}), "unknown variant `equals`"),
        (json!({"eq": {"field": "a", "value": [1]}}), "a value is a text, a number, true or false"),
        (json!({"range": {"field": "a"}}), "no end"),
        (json!({"range": {"field": "a", "gt": 1, "gte": 1}}), "both `gt` and `gte`"),
        (json!({"and": []}), "at least one condition"),
        (json!({"eq": {"field": "width", "value": "x"}}), "`width` is a number"),
    ] {
        let error = serde_json::from_value::<Filter>(json.clone()).expect_err("refused");
        assert!(error.to_string().contains(words), "{json}: {error}");
    }
}

#[test]
fn a_hostile_filter_is_refused_and_never_overflows() {
    let refused = |text: &str, words: &str| {
        let error = Filter::parse(text).expect_err("refused");
        assert!(error.message.contains(words), "{error}");
    };
    let deepest = format!("{}a = 1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    assert_eq!(parse(&deepest), parse("a = 1"));
    refused(&format!("({deepest})"), "write it flatter");
    refused(&"(".repeat(MAX_TEXT), "write it flatter");
    refused(&"not ".repeat(MAX_TEXT / 4), "write it flatter");
    refused(&"x".repeat(MAX_TEXT + 1), "the limit is 65536");
    refused(&format!("a = '{}", "\\".repeat(1000)), "never closed");

    let many = |count: usize| vec!["a=1"; count].join(" or ");
    assert!(Filter::parse(&many(MAX_TERMS)).is_ok());
    refused(&many(MAX_TERMS + 1), "more than 1000");
    let list = |count: usize| format!("a in ({})", vec!["1"; count].join(","));
    assert!(Filter::parse(&list(MAX_TERMS)).is_ok());
    refused(&list(MAX_TERMS + 1), "more than 1000");

    // The deepest filter survives the trip through JSON, within a request.
    let mut filter = parse("a in (1, 2)");
    for _ in 0..MAX_DEPTH {
        filter = Filter::And(vec![filter, parse("b = 1")]);
    }
    filter.check().expect("allowed");
    let json =
        serde_json::to_string(&json!({"filter": serde_json::to_value(&filter).expect("JSON")}));
    let back: Value = serde_json::from_str(&json.expect("JSON")).expect("JSON");
    assert_eq!(serde_json::from_value::<Filter>(back["filter"].clone()).expect("filter"), filter);
    assert_eq!(parse(&filter.to_string()), filter);
    assert!(Filter::Not(Box::new(filter)).check().is_err());
    let deep = format!("{}1{}", "{\"not\":".repeat(100_000), "}".repeat(100_000));
    assert!(serde_json::from_str::<Filter>(&deep).is_err());
}

#[test]
fn filters_over_a_collection_equal_the_plain_meaning() {
    let home = Home::new();
    let mut collection = home.create("c", 1 << 40);
    let mut lot = Lot(3);
    for number in 0..120 {
        let embedding = Embedding::normalised(vectors::vector(&mut lot)).expect("a direction");
        let image = vectors::image(number, payloads::payload(&mut lot));
        collection.put(image, &embedding).expect("put");
    }
    collection.commit().expect("commit");
    // Replaced, removed, given other payloads.
    for number in (0..120).step_by(7) {
        let embedding = Embedding::normalised(vectors::vector(&mut lot)).expect("a direction");
        let image = vectors::image(number, payloads::payload(&mut lot));
        collection.put(image, &embedding).expect("put");
    }
    for id in (0..120).step_by(11) {
        assert!(collection.remove(ImageId(id)).expect("remove"));
    }
    for id in (1..120).step_by(13).map(ImageId) {
        if let Some(record) = collection.record(id).expect("record") {
            collection.set_payload(id, record, payloads::payload(&mut lot)).expect("payload");
        }
    }
    collection.commit().expect("commit");

    let view = collection.view();
    let images: Vec<_> = view.images().collect::<Result<_, _>>().expect("records");
    assert_eq!(images.len(), view.len());
    let cache = FilterCache::default();
    let mut passing = 0;
    for round in 0..2000 {
        let filter = filters::filter(&mut lot, 3);
        let plain: BTreeSet<u32> = images
            .iter()
            .filter(|(id, record)| filter.matches(*id, record))
            .map(|(_, record)| record.row as u32)
            .collect();
        passing += usize::from(!plain.is_empty() && plain.len() < images.len());
        let rows = filter.rows(&view).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(rows.iter().collect::<BTreeSet<u32>>(), plain, "{filter}");
        for _ in 0..2 * usize::from(round % 10 == 0) {
            assert_eq!(*cache.rows(&filter, &view).expect("rows"), rows, "{filter}");
        }
    }
    assert!(passing > 700, "{passing} filters tell images apart");

    // The cache follows the collection.
    let filter = Filter::parse("id >= 0").expect("filter");
    assert_eq!(cache.rows(&filter, &view).expect("rows").len(), view.len() as u64);
    collection.remove(ImageId(1)).expect("remove");
    collection.commit().expect("commit");
    let newer = collection.view();
    assert_eq!(cache.rows(&filter, &newer).expect("rows").len(), view.len() as u64 - 1);
}

#[test]
fn values_of_a_field_are_counted_as_the_records_have_them() {
    let mut lot = Lot(5);
    let home = Home::new();
    let mut collection = home.create("c", 1 << 40);
    let mut ids = Vec::new();
    for number in 0..300 {
        let embedding = Embedding::normalised(vectors::vector(&mut lot)).expect("a direction");
        let image = vectors::image(number, payloads::payload(&mut lot));
        ids.push(collection.put(image, &embedding).expect("put"));
    }
    collection.commit().expect("commit");
    // Of some images another payload, and some gone.
    for id in ids.iter().step_by(7) {
        let record = collection.record(*id).expect("record").expect("an image");
        collection.set_payload(*id, record, payloads::payload(&mut lot)).expect("set");
    }
    for id in ids.iter().step_by(11) {
        assert!(collection.remove(*id).expect("remove"));
    }
    collection.commit().expect("commit");
    let view = collection.view();
    for field in view.payload_fields(100).expect("fields") {
        let mut counts: std::collections::BTreeMap<String, u64> = Default::default();
        for image in view.images() {
            let (_, record) = image.expect("an image");
            let values = indexer::scalars(&record.payload);
            let mut values: Vec<String> = values
                .into_iter()
                .filter(|(name, _)| *name == field)
                .map(|(_, value)| match value {
                    // -0 and 0 are one value.
                    indexer::Scalar::Number(number) => format!("Number({:?})", number + 0.0),
                    value => format!("{value:?}"),
                })
                .collect();
            values.sort();
            values.dedup();
            values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
        }
        let found = view.field_values(&field, usize::MAX, 1000).expect("values");
        assert_eq!(found.distinct, Some(counts.len()), "{field}");
        assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1), "{field}");
        for (value, count) in &found.top {
            assert_eq!(counts.get(&format!("{value:?}")), Some(count), "{field} {value:?}");
        }
        let few = view.field_values(&field, 1, 1).expect("values");
        assert!(few.top.len() <= 1 && (few.distinct.is_none() || counts.len() == 1), "{field}");
    }
}

#[test]
fn counting_agrees_with_searching() {
    use indexer::search::{Example, Scoring, SearchRequest, count_newest, search_newest};
    let mut lot = Lot(6);
    let home = Home::new();
    let mut collection = home.create("c", 1 << 40);
    for number in 0..400 {
        let embedding = Embedding::normalised(vectors::vector(&mut lot)).expect("a direction");
        let image = vectors::image(number, payloads::payload(&mut lot));
        collection.put(image, &embedding).expect("put");
    }
    collection.commit().expect("commit");
    let (reader, cache) = (collection.reader(), FilterCache::default());
    for round in 0..40 {
        let id = |lot: &mut Lot| Example::Id(ImageId(lot.below(400)));
        let request = SearchRequest {
            positive: vec![id(&mut lot), Example::Vector(vectors::vector(&mut lot))],
            negative: if round % 3 == 0 { vec![id(&mut lot)] } else { Vec::new() },
            scoring: if round % 2 == 0 { Scoring::Average } else { Scoring::Best },
            filter: (round % 4 < 2).then(|| filters::filter(&mut lot, 2)),
            min_similarity: Some(lot.below(100) as f32 / 100.0),
            include_examples: Some(round % 5 == 0),
            exclude: vec![ImageId(3), ImageId(5000)],
            k: 1000,
            ..SearchRequest::default()
        };
        // The same image on both sides is refused by both.
        let Ok(found) = search_newest(&reader, &request, None) else {
            assert!(count_newest(&reader, &request, Some(&cache)).is_err());
            continue;
        };
        let counted = count_newest(&reader, &request, Some(&cache)).expect("counts");
        assert_eq!(counted, found.hits.len() as u64, "{request:?}");
        let all = SearchRequest { positive: Vec::new(), negative: Vec::new(), ..request.clone() };
        let passing = match &request.filter {
            Some(filter) => filter.rows(&collection.view()).expect("rows").len(),
            None => 400,
        };
        let excluded = SearchRequest { exclude: Vec::new(), ..all.clone() };
        assert_eq!(count_newest(&reader, &excluded, None).expect("counts"), passing);
        let less = passing - count_newest(&reader, &all, None).expect("counts");
        assert!(less <= 1);
    }
}
