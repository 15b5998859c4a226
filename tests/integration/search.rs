//! `akin search` with everything it can be asked, and `akin eval recall`.

use serde_json::Value;

use crate::support::{Akin, Run, file_name};

fn indexed(pictures: u32) -> Akin {
    let akin = Akin::new();
    akin.pictures("pictures", pictures);
    akin.ok("index {}/pictures -c c --model {}/model");
    akin
}

fn hits(run: &Run) -> Vec<(u64, String)> {
    let json = run.json();
    let hit = |hit: &Value| {
        let name = file_name(hit["path"].as_str().expect("path")).to_owned();
        (hit["id"].as_u64().expect("id"), name)
    };
    json["hits"].as_array().expect("hits").iter().map(hit).collect()
}

fn names(run: &Run) -> Vec<String> {
    hits(run).into_iter().map(|hit| hit.1).collect()
}

#[test]
fn ids_and_vectors_need_no_model() {
    let akin = indexed(12);
    let by_picture = akin.ok("search {}/pictures/05.png -c c -k 12 --json");
    let all = hits(&by_picture);
    assert_eq!((all.len(), all[0].1.as_str()), (12, "05.png"));
    assert_eq!(by_picture.json()["exact"], true);
    assert_eq!(by_picture.json()["next_cursor"], Value::Null);

    akin.ok("embed {}/pictures/05.png --model {}/model --out {}/v.npy");
    let array = std::fs::read(akin.path("v.npy")).expect("read");
    let values: Vec<f32> =
        array[128..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let json = serde_json::to_vec(&values).expect("JSON");
    std::fs::write(akin.path("v.json"), json).expect("write");

    std::fs::remove_dir_all(akin.path("model")).expect("remove");
    let id = all[0].0;
    for words in [
        format!("search --id {id} -c c -k 12 --json"),
        "search --vector {}/v.npy -c c -k 12 --json".to_owned(),
        "search --vector {}/v.json -c c -k 12 --json".to_owned(),
    ] {
        let run = akin.ok(&words);
        assert_eq!(hits(&run)[0], all[0], "{words}");
        assert_eq!(hits(&run).len(), 12);
        let similarity = run.json()["hits"][0]["similarity"].as_f64().expect("similarity");
        assert!((similarity - 1.0).abs() <= 1e-4, "{words}: {similarity}");
        assert_eq!(run.json()["took_ms"]["embed"], 0.0);
    }
    // An example is not its own answer; what is unwanted is no answer either.
    let like = akin.ok(&format!("search --more-like {id} -c c -k 12 --json"));
    assert_eq!(hits(&like), all[1..]);
    let (second, third) = (all[1].0, all[2].0);
    let without = akin.ok(&format!(
        "search --more-like {id} --more-like {second} --without {third} -c c -k 12 --json"
    ));
    assert_eq!(hits(&without).len(), 9);
    let shown = akin.ok(&format!(
        "search --more-like {id} --without {third} --scoring best --include-examples -c c -k 12 --json"
    ));
    assert_eq!(hits(&shown)[0].0, id);
    assert!(!hits(&shown).iter().any(|hit| hit.0 == third));
    let excluded = akin.ok(&format!("search --id {id} --exclude {second} -c c -k 12 --json"));
    assert_eq!(hits(&excluded)[1], all[2]);
    // A picture does need it.
    assert_eq!(akin.run("search {}/pictures/05.png -c c").code, Some(1));
}

#[test]
fn filters_pages_and_duplicates() {
    let akin = indexed(12);
    // A copy under another name.
    std::fs::copy(akin.path("pictures/05.png"), akin.path("pictures/copy.png")).expect("copy");
    akin.ok("index {}/pictures -c c");
    let search = |more: &str| akin.ok(&format!("search {{}}/pictures/05.png -c c --json {more}"));
    let all = names(&search("-k 13"));
    assert_eq!(all.len(), 13);

    let two = names(&search(r#"--filter name="03.png"or(name='07.png')"#));
    assert_eq!(two.len(), 2);
    assert!(two.contains(&"03.png".to_owned()) && two.contains(&"07.png".to_owned()));
    assert_eq!(names(&search("--filter not(width=120)")).len(), 0);
    assert_eq!(names(&search("-k 20 --filter height>=90")).len(), 13);
    assert_eq!(names(&search("--min-similarity -1")).len(), 10);
    let most = search("-k 13").json()["hits"][5]["similarity"].as_f64().expect("similarity");
    assert_eq!(names(&search(&format!("-k 13 --min-similarity {most}"))), all[..6]);

    assert_eq!(names(&search("-k 4 --offset 3")), all[3..7]);
    let mut paged = Vec::new();
    let mut more = String::new();
    loop {
        let page = search(&format!("-k 5 {more}"));
        assert_eq!(page.json()["hits"][0]["rank"], paged.len() + 1);
        paged.extend(names(&page));
        match page.json()["next_cursor"].as_str() {
            Some(cursor) => more = format!("--cursor {cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, all);

    let folded = search("-k 13 --hide-duplicates=0.9995").json();
    assert_eq!(folded["hits"][0]["duplicates"].as_array().expect("list").len(), 1);
    assert_eq!(folded["hits"].as_array().expect("hits").len(), 12);
    assert!(names(&search("-k 13 --hide-duplicates")).len() <= 12);
    let varied = names(&search("-k 13 --diversity 0.9"));
    assert_eq!(varied.len(), 13);
    assert_ne!(varied, all);
    let lines = akin.ok("search {}/pictures/05.png -c c -k 1 --hide-duplicates=0.9995");
    assert!(lines.stdout.contains("(and 1 near-duplicate)"), "{}", lines.stdout);
}

#[test]
fn a_part_of_a_picture_is_searched_with() {
    let akin = indexed(6);
    let picture = image::open(akin.path("pictures/02.png")).expect("open");
    picture.crop_imm(30, 15, 60, 45).save(akin.path("part.png")).expect("save");
    let part = akin.ok("search {}/part.png -c c -k 6 --json").json();
    for crop in ["30,15,60,45", "0.25,0.1667,0.5,0.5"] {
        let words = format!("search {{}}/pictures/02.png --crop {crop} -c c -k 6 --json");
        assert_eq!(akin.ok(&words).json()["hits"], part["hits"], "{crop}");
    }
    let whole = akin.ok("search {}/pictures/02.png -c c -k 6 --json").json();
    assert_ne!(whole["hits"], part["hits"]);
}

#[test]
fn a_picture_is_fetched_by_its_address() {
    let akin = indexed(6);
    let picture = std::fs::read(akin.path("pictures/04.png")).expect("read");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap_or(0);
            let found = request[..read].starts_with(b"GET /04.png ");
            let (status, body) =
                if found { ("200 OK", &picture[..]) } else { ("404 No", &b""[..]) };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            // The program may have gone away.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    let words = format!("search http://{address}/04.png -c c --json");
    let refused = akin.run(&words);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is not a public address"), "{}", refused.stderr);
    let found = akin.ok(&format!("{words} --allow-private-addresses"));
    assert_eq!(names(&found)[0], "04.png");
    let gone = akin.run(&format!("search http://{address}/5.png -c c --allow-private-addresses"));
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("404"), "{}", gone.stderr);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_sentence() {
    let akin = indexed(3);
    std::fs::write(akin.path("v.json"), "[1, 2]").expect("write");
    std::fs::write(akin.path("zero.json"), format!("{:?}", [0.0; 32])).expect("write");
    for (words, code, message) in [
        ("search -c c", 2, "there is nothing to search with"),
        ("search --without 1 -c c", 2, "there is nothing to search with"),
        ("search --id 99 -c c", 1, "no image 99 in collection `c`"),
        ("search --id x -c c", 2, "invalid value"),
        ("search --more-like gone.jpg -c c", 1, "gone.jpg: it cannot be read"),
        ("search --vector {}/v.json -c c", 1, "has 2 values, the collection's have 32"),
        ("search --vector {}/zero.json -c c", 1, "its length is zero"),
        ("search --vector {}/model/config.json -c c", 1, "no list of numbers"),
        ("search --id 1 --filter label=dog -c c", 2, "position 7: expected a text in quotes"),
        ("search --id 1 --min-similarity 2 -c c", 1, "from -1 to 1"),
        ("search --id 1 --diversity 1.1 -c c", 1, "from 0 to 1"),
        ("search --id 1 --hide-duplicates=nan -c c", 1, "hide_duplicates is NaN"),
        ("search --id 1 -k 10001 -c c", 1, "the limit is 10000"),
        ("search --id 1 --cursor 00ff -c c", 1, "this is no cursor"),
        ("search --id 1 --cursor 00ff --offset 1 -c c", 2, "cannot be used with"),
        ("search --id 1 --crop 0,0,20,20 -c c", 2, "required arguments were not provided"),
        ("search {}/pictures/00.png --crop 0,0,0.5,0.5 -c c", 2, "all four with a point"),
        ("search {}/pictures/00.png --crop 0,0,0,20 -c c", 1, "the crop is empty"),
        ("search {}/pictures/00.png --crop 100,0,40,40 -c c", 1, "the picture is 120 x 90"),
        ("search {}/pictures/00.png --crop 0,0,8,8 -c c", 1, "at least 16 x 16"),
        ("eval recall -c other", 1, "no collection `other`"),
        ("eval recall -c c --queries 0", 2, "at least 1"),
    ] {
        let run = akin.run(words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{words}: {}", run.stdout);
        if code == 1 {
            assert_eq!(run.stderr.lines().count(), 1, "{words}: {}", run.stderr);
        }
    }
}

#[test]
fn recall_of_a_small_collection_is_one() {
    let akin = indexed(8);
    let report = akin.ok("eval recall -c c -k 3 --json").json();
    assert_eq!(report["queries"], 8);
    assert_eq!(report["recall"], 1.0);
    assert_eq!(report["approximate"], false);
    assert!(report["interval_95"]["low"].as_f64().expect("low") < 1.0);
    assert!(akin.ok("eval recall -c c").stdout.contains("recall"));
}
