use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::options::Options;
use crate::testing::{Server, over, picture};

#[tokio::test]
async fn folders_below_a_root_are_indexed_while_searches_go_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root = folder.path().canonicalize().expect("canonical");
    std::fs::create_dir_all(root.join("new")).expect("create");
    for number in 50..55 {
        picture(number).save(root.join(format!("new/{number}.png"))).expect("save");
    }
    std::fs::write(root.join("new/broken.jpg"), b"\xff\xd8\xff\xe0 cut").expect("write");
    let server =
        Server::with_options(3, Options { roots: vec![root.clone()], ..Options::default() });
    let outside = json!({"sources": [server.path("pictures")]});
    let refused = server.post("/api/v1/collections/photos/index", &outside).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"));
    let body = json!({"sources": [root.join("new")]});
    let taken = server.post("/api/v1/collections/photos/index", &body).await;
    assert_eq!(taken.status, 202, "{:?}", taken.json());
    let found = server.post("/api/v1/collections/photos/search", &json!({"id": 0})).await;
    assert_eq!(found.status, 200);
    let job = over(&server, &taken.json()["id"]).await;
    assert_eq!((&job["state"], &job["kind"]), (&json!("done"), &json!("index")), "{job}");
    assert_eq!((&job["result"]["added"], &job["failed_count"]), (&json!(5), &json!(1)));
    assert!(job["failed_items"][0]["path"].as_str().expect("path").ends_with("broken.jpg"));
    assert_eq!((&job["progress"]["done"], &job["progress"]["total"]), (&json!(6), &json!(6)));
    let all = server.get("/api/v1/jobs").await.json();
    assert_eq!(all["jobs"].as_array().expect("jobs").len(), 1);
    let images = server.get("/api/v1/collections/photos").await.json();
    assert_eq!(images["images"], 8);
}

#[tokio::test]
async fn a_job_is_watched_to_its_end() {
    let server = Server::with_pictures(2);
    let taken = server.post("/api/v1/collections/photos/snapshot", &json!({})).await;
    assert_eq!(taken.status, 202, "{:?}", taken.json());
    let job = taken.json();
    let path = format!("/api/v1/jobs/{}/events", job["id"].as_str().expect("id"));
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = server.app.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = tokio::time::timeout(Duration::from_secs(60), response.into_body().collect());
    let events = events.await.expect("it ends").expect("a body").to_bytes();
    let events = String::from_utf8_lossy(&events);
    assert!(events.contains("event: end\n"), "{events}");
    let last = events.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    let last: Value = serde_json::from_str(last.expect("data")).expect("JSON");
    assert_eq!((&last["state"], &last["result"]["images"]), (&json!("done"), &json!(2)));
    let file = last["result"]["file"].as_str().expect("a file");
    assert!(server.state.home.join("snapshots").join(file).is_file());
    let nothing = server.get("/api/v1/jobs/nothing/events").await;
    assert_eq!(nothing.code(), "not_found");
    let late = server
        .json("DELETE", &format!("/api/v1/jobs/{}", last["id"].as_str().expect("id")), &json!({}))
        .await;
    assert_eq!((late.status.as_u16(), late.code().as_str()), (409, "conflict"));
}

#[tokio::test]
async fn a_collection_is_compacted_while_it_is_searched() {
    let server = Server::with_pictures(9);
    let path = "/api/v1/collections/photos";
    for id in [2, 5] {
        let gone = server.json("DELETE", &format!("{path}/images/{id}"), &json!(null)).await;
        assert_eq!(gone.status, 204);
    }
    let asked = json!({"id": 3, "k": 20, "filter": "width = 120"});
    let before = server.post(&format!("{path}/search"), &asked).await.json();
    let taken = server.post(&format!("{path}/compact"), &json!(null)).await;
    assert_eq!((taken.status.as_u16(), &taken.json()["kind"]), (202, &json!("compact")));
    let job = over(&server, &taken.json()["id"]).await;
    let result = &job["result"];
    assert_eq!((&job["state"], &result["rewritten"]), (&json!("done"), &json!(true)), "{job}");
    assert_eq!((&result["images"], &result["dead_rows"]), (&json!(7), &json!(2)));
    let stats = server.get(&format!("{path}/stats")).await.json();
    assert_eq!((&stats["rows"], &stats["images"]), (&json!(7), &json!(7)), "{stats}");
    // Rows are others, ids and what filters find are not.
    let after = server.post(&format!("{path}/search"), &asked).await.json();
    assert_eq!(after["hits"], before["hits"]);
    let file = crate::testing::png(60);
    let added = server.form(&format!("{path}/images"), &[("image", None, &file[..])]).await;
    assert_eq!((added.status.as_u16(), &added.json()["id"]), (201, &json!(9)));
    let again = server.post(&format!("{path}/compact"), &json!(null)).await.json();
    assert_eq!(over(&server, &again["id"]).await["result"]["rewritten"], false);
    let missing = server.post("/api/v1/collections/none/compact", &json!(null)).await;
    assert_eq!(missing.code(), "collection_not_found");
}
