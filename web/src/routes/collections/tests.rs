use serde_json::{Value, json};

use crate::testing::{Server, png};

#[tokio::test]
async fn collections_are_made_listed_and_described() {
    let server = Server::with_pictures(5);
    let list = server.get("/api/v1/collections").await.json();
    assert_eq!(list["collections"][0]["name"], "photos");
    let answer =
        server.post("/api/v1/collections", &json!({"name": "new", "precision": "f32"})).await;
    assert_eq!(answer.status.as_u16(), 201);
    let made = answer.json();
    assert_eq!(
        (&made["images"], &made["model"], &made["servable"]),
        (&json!(0), &json!("thumbnail"), &json!(true))
    );
    let list = server.get("/api/v1/collections").await.json();
    let names: Vec<&Value> =
        list["collections"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["new", "photos"]);
    let stats = server.get("/api/v1/collections/new/stats").await.json();
    assert_eq!((&stats["precision"], &stats["search"]), (&json!("f32"), &json!("exact")));
    assert!(stats["bytes"]["total"].as_u64().expect("bytes") > 0);

    for (body, status, code) in [
        (json!({"name": "photos"}), 409, "collection_exists"),
        (json!({"name": "../photos"}), 400, "bad_request"),
        (json!({"name": ""}), 400, "bad_request"),
        (json!({"name": ".hidden"}), 400, "bad_request"),
        (json!({"name": "a", "model": "/etc/passwd"}), 400, "bad_request"),
        (json!({"name": "a", "model": "unknown"}), 404, "not_found"),
        (json!({"name": "a", "precision": "f8"}), 400, "bad_request"),
        (json!({}), 400, "bad_request"),
    ] {
        let answer = server.post("/api/v1/collections", &body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{body}");
    }
    for name in ["none", "..", "%2e%2e", "..%2f..", "a%00", "a%20b"] {
        let answer = server.get(&format!("/api/v1/collections/{name}")).await;
        assert_eq!(answer.status.as_u16(), 404, "{name}");
    }
}

#[tokio::test]
async fn fields_of_payloads_come_with_their_most_frequent_values() {
    let server = Server::with_pictures(4);
    for (id, payload) in [
        (0, json!({"label": "cat", "n": 3, "seen": true})),
        (1, json!({"label": "cat", "n": 2.5, "seen": true})),
        (2, json!({"label": "dog", "tags": ["a", "b"]})),
    ] {
        let path = format!("/api/v1/collections/photos/images/{id}/payload");
        assert_eq!(server.json("PATCH", &path, &payload).await.status.as_u16(), 200);
    }
    let collection = server.get("/api/v1/collections/photos").await.json();
    assert!(collection["bytes"].as_u64().expect("bytes") > 0);
    assert_eq!(
        collection["payload_fields"],
        json!([
            {"name": "label", "kind": "text", "distinct": 2,
             "top": [{"value": "cat", "count": 2}, {"value": "dog", "count": 1}]},
            {"name": "n", "kind": "number", "distinct": 2,
             "top": [{"value": 2.5, "count": 1}, {"value": 3, "count": 1}]},
            {"name": "seen", "kind": "bool", "distinct": 1, "top": [{"value": true, "count": 2}]},
            {"name": "tags", "kind": "text", "distinct": 2,
             "top": [{"value": "a", "count": 1}, {"value": "b", "count": 1}]},
        ])
    );
}

#[tokio::test]
async fn a_collection_that_comes_later_is_served_too() {
    let server = Server::with_pictures(2);
    crate::testing::index(&server.path("home"), "later", &server.path("pictures"));
    let list = server.get("/api/v1/collections").await.json();
    assert_eq!(list["collections"][0]["name"], "later");
    assert_eq!(list["collections"][0]["images"], 2);
    let file = png(1);
    let path = "/api/v1/collections/later/search";
    let found = server.form(path, &[("image", Some("x"), &file)]).await.json();
    assert_eq!(found["hits"][0]["id"], 1);
}
