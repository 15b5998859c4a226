use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::testing::{Answered, Server, picture, png};

const SEARCH: &str = "/api/v1/collections/photos/search";
const COUNT: &str = "/api/v1/collections/photos/count";

fn ids(answer: &Value) -> Vec<u64> {
    let hits = answer["hits"].as_array().expect("hits");
    hits.iter().map(|hit| hit["id"].as_u64().expect("an id")).collect()
}

fn page(answer: &Answered) -> Value {
    assert_eq!(answer.status.as_u16(), 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[tokio::test]
async fn an_upload_finds_itself_and_is_answered_as_the_command_line_answers() {
    let server = Server::with_pictures(12);
    let file = png(5);
    let answer = page(&server.form(SEARCH, &[("image", Some("x.png"), &file)]).await);
    let names: BTreeSet<&str> =
        answer.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected =
        ["collection", "exact", "hits", "model", "next_cursor", "queries", "query", "took_ms"];
    assert_eq!(names, expected.into());
    assert_eq!((&answer["collection"], &answer["model"]), (&json!("photos"), &json!("thumbnail")));
    let hit = &answer["hits"][0];
    assert_eq!((&hit["id"], &hit["rank"], &hit["width"]), (&json!(5), &json!(1), &json!(120)));
    assert_eq!(hit["label"], "same picture");
    assert!(hit["path"].as_str().expect("a path").ends_with("05.png"));
    assert_eq!(ids(&answer).len(), 12);
    // The same by its id and by parts of a form.
    let by_id = page(&server.post(SEARCH, &json!({"id": 5})).await);
    assert_eq!(ids(&by_id), ids(&answer));
    let parts = [("id", None, &b"5"[..]), ("k", None, b"3"), ("payload", None, b"false")];
    let by_parts = page(&server.form(SEARCH, &parts).await);
    assert_eq!(ids(&by_parts), ids(&answer)[..3]);
    assert!(by_parts["hits"][0].get("payload").is_none() && by_parts.get("query").is_none());
}

#[tokio::test]
async fn a_token_searches_again_with_another_crop() {
    let server = Server::with_pictures(8);
    let file = png(20);
    let crop = json!({"x": 0.5, "y": 0, "width": 0.5, "height": 1});
    let request = json!({"crop": crop, "k": 8}).to_string();
    let parts = [("image", Some("x"), &file[..]), ("request", None, request.as_bytes())];
    let cropped = page(&server.form(SEARCH, &parts).await);
    let whole = page(&server.form(SEARCH, &[("image", Some("x"), &file)]).await);
    assert_ne!(cropped["hits"], whole["hits"]);
    let token = whole["query"].as_str().expect("a token");
    let again = page(&server.post(SEARCH, &json!({"query": token, "crop": crop, "k": 8})).await);
    assert_eq!((&again["hits"], &again["query"]), (&cropped["hits"], &whole["query"]));
    // Pixels of the right half, of 120 x 90.
    let pixels = json!({"x": 60, "y": 0, "width": 60, "height": 90});
    let body = json!({"positive": [{"query": token, "crop": pixels}], "k": 8});
    assert_eq!(page(&server.post(SEARCH, &body).await)["hits"], cropped["hits"]);
    let half = image::imageops::crop_imm(&picture(20), 60, 0, 60, 90).to_image();
    let mut cut = std::io::Cursor::new(Vec::new());
    half.write_to(&mut cut, image::ImageFormat::Png).expect("encodes");
    let cut = page(&server.form(SEARCH, &[("image", Some("x"), cut.get_ref())]).await);
    assert_eq!(cut["hits"], cropped["hits"]);

    let answer = server.post(SEARCH, &json!({"query": "0123"})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (410, "query_expired"));
    server.state.clock.advance(std::time::Duration::from_secs(601));
    let answer = server.post(SEARCH, &json!({"query": token})).await;
    assert_eq!(answer.code(), "query_expired");
}

#[tokio::test]
async fn a_part_of_an_image_of_the_collection_is_searched_with() {
    let server = Server::with_pictures(6);
    let crop = json!({"x": 0, "y": 0, "width": 60, "height": 90});
    let by_id = page(&server.post(SEARCH, &json!({"id": 3, "crop": crop})).await);
    let request = json!({"crop": crop}).to_string();
    let file = png(3);
    let parts = [("image", Some("x"), &file[..]), ("request", None, request.as_bytes())];
    let uploaded = page(&server.form(SEARCH, &parts).await);
    assert_eq!(by_id["hits"], uploaded["hits"]);
    // The file is not what was indexed any more.
    std::fs::write(server.path("pictures/03.png"), png(4)).expect("write");
    let answer = server.post(SEARCH, &json!({"id": 3, "crop": crop})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "changed"));
    assert!(server.post(SEARCH, &json!({"id": 3})).await.status.is_success());
}

#[tokio::test]
async fn several_examples_filters_and_pages() {
    let server = Server::with_pictures(30);
    let (a, b, c) = (png(1), png(2), png(3));
    let parts =
        [("image", Some("a"), &a[..]), ("negative", Some("c"), &c), ("image", Some("b"), &b)];
    let uploaded = page(&server.form(SEARCH, &parts).await);
    assert_eq!(uploaded["queries"].as_array().expect("tokens").len(), 3);
    let body = json!({"positive": [{"id": 1}, {"id": 2}], "negative": [{"id": 3}],
                      "include_examples": true});
    let by_id = page(&server.post(SEARCH, &body).await);
    // Stored vectors are rounded, uploaded ones are not.
    assert_eq!(ids(&by_id)[..2], ids(&uploaded)[..2]);
    let mut left_out = body.clone();
    left_out["include_examples"] = false.into();
    let left_out = ids(&page(&server.post(SEARCH, &left_out).await));
    assert!([1, 2, 3].iter().all(|id| !left_out.contains(id)));

    for filter in [json!("id < 20 and width = 120"), json!({"range": {"field": "id", "lt": 20}})] {
        let mut all = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let body = json!({"id": 0, "k": 7, "filter": filter, "cursor": cursor});
            let answer = page(&server.post(SEARCH, &body).await);
            all.extend(ids(&answer));
            cursor = answer["next_cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        let body = json!({"id": 0, "k": 100, "filter": filter});
        assert_eq!(all, ids(&page(&server.post(SEARCH, &body).await)));
        assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), (0..20).collect());
        let counted = server.post(COUNT, &json!({"filter": filter})).await.json();
        assert_eq!(counted, json!({"count": 20, "exact": true}));
    }
    let body = json!({"id": 0, "min_similarity": 0.5, "k": 100});
    let found = ids(&page(&server.post(SEARCH, &body).await)).len();
    assert!((1..30).contains(&found));
    let counted = server.post(COUNT, &json!({"id": 0, "min_similarity": 0.5})).await.json();
    assert_eq!(counted["count"], found);
    let all = server.post(COUNT, &json!({})).await.json();
    assert_eq!(all["count"], 30);
}

#[tokio::test]
async fn near_duplicates_are_folded() {
    let server = Server::with_pictures(6);
    for number in 0..3 {
        let copy = server.path(&format!("pictures/copy{number}.png"));
        std::fs::copy(server.path("pictures/02.png"), copy).expect("copy");
    }
    let Server { folder, state, app } = server;
    drop((state, app));
    let home = folder.path().join("home");
    crate::testing::index(&home, "photos", &folder.path().join("pictures"));
    let server = Server::over(folder, crate::Options::default());
    let body = json!({"id": 2, "hide_duplicates": true});
    let answer = page(&server.post(SEARCH, &body).await);
    assert_eq!(ids(&answer).len(), 6);
    assert_eq!(answer["hits"][0]["duplicates"], json!([6, 7, 8]));
    let body = json!({"id": 2, "hide_duplicates": false});
    let answer = page(&server.post(SEARCH, &body).await);
    assert_eq!(ids(&answer).len(), 9);
    assert!(answer["hits"][0].get("duplicates").is_none());
}

#[tokio::test]
async fn a_batch_gives_each_its_own_outcome() {
    let server = Server::with_pictures(5);
    let path = "/api/v1/collections/photos/search/batch";
    let searches = json!([{"id": 1, "k": 2}, {"id": 77}, {"k": 3}, {"id": 4, "k": 1}]);
    let answer = server.post(path, &json!({"searches": searches})).await;
    let results = page(&answer)["results"].clone();
    assert_eq!(ids(&results[0])[0], 1);
    assert_eq!(results[1]["code"], "image_not_found");
    assert_eq!(results[2]["code"], "bad_request");
    assert_eq!(ids(&results[3]), [4]);
    for searches in [json!([]), json!(vec![json!({"id": 0}); 33])] {
        let answer = server.post(path, &json!({"searches": searches})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_request"));
    }
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_with_its_code() {
    let server = Server::with_pictures(3);
    let short = vec![0.5; 3];
    let zero = vec![0.0; 192];
    let huge = vec![1e39; 192];
    for (body, status, code) in [
        (json!({}), 400, "bad_request"),
        (json!([]), 400, "bad_request"),
        (json!({"id": -1}), 400, "bad_request"),
        (json!({"id": 1.5}), 400, "bad_request"),
        (json!({"id": 1, "top": 3}), 400, "bad_request"),
        (json!({"id": 1, "vector": short}), 400, "bad_request"),
        (json!({"id": 1, "k": 0}), 400, "bad_request"),
        (json!({"id": 1, "k": 1001}), 400, "bad_request"),
        (json!({"id": 1, "k": 5, "offset": 1, "cursor": "00"}), 400, "bad_request"),
        (json!({"id": 1, "cursor": "zz"}), 400, "bad_request"),
        (json!({"id": 1, "min_similarity": 7}), 400, "bad_request"),
        (json!({"id": 1, "diversity": -1}), 400, "bad_request"),
        (json!({"id": 99}), 404, "image_not_found"),
        (json!({"id": 18_446_744_073_709_551_615u64}), 404, "image_not_found"),
        (json!({"vector": short}), 400, "invalid_vector"),
        (json!({"vector": zero}), 400, "invalid_vector"),
        (json!({"vector": huge}), 400, "bad_request"),
        (json!({"vector": []}), 400, "invalid_vector"),
        (json!({"vector": ["a"]}), 400, "bad_request"),
        (json!({"id": 1, "filter": "width >"}), 400, "invalid_filter"),
        (json!({"id": 1, "filter": {"equals": 1}}), 400, "invalid_filter"),
        (json!({"id": 1, "crop": {"x": 0, "y": 0, "width": 2, "height": 2}}), 400, "invalid_crop"),
        (
            json!({"id": 1, "crop": {"x": 0, "y": 0, "width": 200, "height": 20}}),
            400,
            "invalid_crop",
        ),
        (json!({"id": 1, "crop": {"x": 0}}), 400, "bad_request"),
        (
            json!({"vector": zero, "crop": {"x": 0, "y": 0, "width": 1, "height": 1}}),
            400,
            "invalid_crop",
        ),
        (json!({"positive": [{"crop": null}]}), 400, "bad_request"),
        (json!({"negative": [{"id": 1}]}), 400, "bad_request"),
        (json!({"positive": vec![json!({"id": 1}); 101]}), 400, "bad_request"),
        (json!({"url": "file:///etc/passwd"}), 403, "address_refused"),
        (json!({"url": "http://169.254.169.254/latest"}), 403, "address_refused"),
    ] {
        let answer = server.post(SEARCH, &body).await;
        let got = (answer.status.as_u16(), answer.code());
        assert_eq!(got, (status, code.to_owned()), "{body}: {}", answer.json());
    }
    let answer = server.post("/api/v1/collections/none/search", &json!({"id": 1})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "collection_not_found"));
    for (parts, code) in [
        (&[("image", Some("x"), &b"not a picture"[..])][..], "not_an_image"),
        (&[("image", Some("x"), b"")], "not_an_image"),
        (&[("what", None, b"1")], "bad_request"),
        (&[("k", None, b"1"), ("k", None, b"2"), ("id", None, b"1")], "bad_request"),
        (&[("request", None, b"[]")], "bad_request"),
        (&[("request", None, b"{\"id\": 1}"), ("id", None, b"1")], "bad_request"),
        (&[("filter", None, b"\xff"), ("id", None, b"1")], "bad_request"),
    ] {
        let answer = server.form(SEARCH, parts).await;
        assert_eq!(answer.code(), code, "{parts:?}");
    }
}

#[tokio::test]
async fn limits_of_forms_are_kept() {
    let options = crate::Options {
        max_upload_bytes: 1000,
        max_parts: 3,
        max_json_bytes: 100,
        ..Default::default()
    };
    let server = Server::with_options(2, options);
    let large = vec![0; 1001];
    let answer = server.form(SEARCH, &[("image", Some("x"), &large)]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "image_too_large"));
    let part = ("image", Some("x"), &b"x"[..]);
    let answer = server.form(SEARCH, &[part; 4]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "too_many_parts"));
    let body = json!({"id": 1, "filter": "a".repeat(100)});
    let answer = server.post(SEARCH, &body).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));
}
