use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ETAG, IF_NONE_MATCH, RANGE};
use serde_json::{Value, json};

use crate::testing::{Answered, Server, png};

const IMAGES: &str = "/api/v1/collections/photos/images";

async fn get_with(server: &Server, path: &str, name: &str, value: &str) -> Answered {
    let request = Request::get(path).header(name, value).body(Body::empty());
    server.send(request.expect("a request")).await
}

fn ids(answer: &Value) -> Vec<u64> {
    let images = answer["images"].as_array().expect("images");
    images.iter().map(|image| image["id"].as_u64().expect("an id")).collect()
}

#[tokio::test]
async fn images_are_listed_in_pages_by_id() {
    let server = Server::with_pictures(25);
    for filter in
        ["", "&filter=width%3D120", "&filter=%7B%22exists%22%3A%7B%22field%22%3A%22id%22%7D%7D"]
    {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = server.get(&format!("{IMAGES}?limit=7{cursor}{filter}")).await.json();
            all.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(all, (0..25).collect::<Vec<_>>(), "{filter}");
    }
    let some = server.get(&format!("{IMAGES}?filter=id%20in%20(24,3,7)&limit=2")).await.json();
    assert_eq!(ids(&some), [3, 7]);
    assert_eq!(some["next_cursor"], "24");
    let item = server.get(&format!("{IMAGES}/3")).await.json();
    assert_eq!(some["images"][0], item);
    assert_eq!((&item["width"], &item["bytes"]), (&json!(120), &json!(png(3).len())));
    for (query, code) in [
        ("limit=0", "bad_request"),
        ("limit=1001", "bad_request"),
        ("limit=a", "bad_request"),
        ("cursor=x", "bad_request"),
        ("filter=%28", "invalid_filter"),
        ("filter=%7B", "invalid_filter"),
    ] {
        assert_eq!(server.get(&format!("{IMAGES}?{query}")).await.code(), code, "{query}");
    }
    assert_eq!(server.get(&format!("{IMAGES}/99")).await.code(), "image_not_found");
    for id in ["x", "-1", "1.5", "%2e%2e", "99999999999999999999999"] {
        assert_eq!(server.get(&format!("{IMAGES}/{id}")).await.code(), "bad_request", "{id}");
    }
}

#[tokio::test]
async fn originals_are_served_in_parts_and_only_as_indexed() {
    let server = Server::with_pictures(3);
    let (path, file) = (format!("{IMAGES}/1/original"), png(1));
    let answer = server.get(&path).await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &file));
    assert_eq!(answer.headers["content-type"], "image/png");
    let policy = answer.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("sandbox"), "{policy}");
    let tag = answer.headers[ETAG].to_str().expect("text").to_owned();
    let known = get_with(&server, &path, IF_NONE_MATCH.as_str(), &tag).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    let part = get_with(&server, &path, RANGE.as_str(), "bytes=10-19").await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &file[10..20]));
    assert_eq!(part.headers["content-range"], format!("bytes 10-19/{}", file.len()));
    let outside = get_with(&server, &path, RANGE.as_str(), "bytes=999999-").await;
    assert_eq!((outside.status.as_u16(), outside.code().as_str()), (416, "range_not_satisfiable"));
    assert_eq!(outside.headers["content-range"], format!("bytes */{}", file.len()));
    let request = Request::get(&path).header(RANGE, "bytes=0-1").header("if-range", "\"other\"");
    let whole = server.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &file));

    std::fs::write(server.path("pictures/01.png"), png(2)).expect("write");
    let answer = server.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "changed"));
    std::fs::remove_file(server.path("pictures/01.png")).expect("remove");
    let answer = server.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (410, "gone"));
}

#[tokio::test]
async fn thumbnails_are_made_once_and_outlive_their_files() {
    let server = Server::with_pictures(2);
    let path = format!("{IMAGES}/0/thumbnail?size=160");
    let answer = server.get(&path).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"image/jpeg".parse().expect("a type"))
    );
    let small = image::load_from_memory(&answer.body).expect("decodes");
    assert_eq!((small.width(), small.height()), (120, 90));
    let tag = answer.headers[ETAG].to_str().expect("text");
    let known = get_with(&server, &path, IF_NONE_MATCH.as_str(), tag).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    std::fs::remove_file(server.path("pictures/00.png")).expect("remove");
    assert_eq!(server.get(&path).await.body, answer.body);
    let other = server.get(&format!("{IMAGES}/0/thumbnail?size=640")).await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (410, "gone"));
    for size in ["0", "100", "x", "-160", "4294967296"] {
        let answer = server.get(&format!("{IMAGES}/1/thumbnail?size={size}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "bad_request"),
            "{size}"
        );
    }
}

#[tokio::test]
async fn an_image_is_added_searched_changed_and_removed() {
    let server = Server::with_pictures(3);
    let file = png(42);
    let parts = [
        ("image", Some("../../evil.php"), &file[..]),
        ("payload", None, br#"{"label": "new"}"#),
        ("name", None, b"holiday.png"),
    ];
    let answer = server.form(IMAGES, &parts).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", String::from_utf8_lossy(&answer.body));
    let item = answer.json();
    assert_eq!(item["payload"], json!({"label": "new", "name": "holiday.png"}));
    assert_eq!(answer.headers["location"], format!("{IMAGES}/{}", item["id"]));
    let folder = server.path("home/uploads/photos");
    let kept: Vec<_> = std::fs::read_dir(&folder).expect("list").collect();
    assert_eq!(kept.len(), 1);
    let path = kept[0].as_ref().expect("an entry").path();
    assert_eq!(std::fs::read(&path).expect("read"), file);
    let name = path.file_name().expect("a name").to_str().expect("text");
    assert_eq!(name, format!("{}.png", item["sha256"].as_str().expect("a hash")));

    let found =
        server.form("/api/v1/collections/photos/search", &[("image", Some("x"), &file)]).await;
    assert_eq!(found.json()["hits"][0]["id"], item["id"]);
    // The same file is the same image.
    let again = server
        .form(IMAGES, &[("image", Some("b"), &file), ("payload", None, br#"{"n": 1}"#)])
        .await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &item["id"]));
    assert_eq!(again.json()["payload"], json!({"label": "new", "name": "holiday.png", "n": 1}));

    let id = item["id"].as_u64().expect("an id");
    let patch = json!({"label": null, "deep": {"a": 1, "b": null}});
    let patched = server.json("PATCH", &format!("{IMAGES}/{id}/payload"), &patch).await;
    let expected = json!({"name": "holiday.png", "n": 1, "deep": {"a": 1}});
    assert_eq!(patched.json()["payload"], expected);
    let filtered = server.get(&format!("{IMAGES}?filter=deep.a%3D1")).await.json();
    assert_eq!(ids(&filtered), [id]);
    let removed = server.json("DELETE", &format!("{IMAGES}/{id}"), &json!(null)).await;
    assert_eq!((removed.status.as_u16(), removed.body.len()), (204, 0));
    assert!(!path.exists());
    assert_eq!(server.get(&format!("{IMAGES}/{id}")).await.code(), "image_not_found");
    // The file of an image that was indexed in its place stays there.
    let removed = server.json("DELETE", &format!("{IMAGES}/0"), &json!(null)).await;
    assert_eq!(removed.status.as_u16(), 204);
    assert!(server.path("pictures/00.png").exists());
}

#[tokio::test]
async fn what_cannot_be_added_or_changed_leaves_nothing_behind() {
    let server = Server::with_pictures(1);
    let file = png(9);
    let large = json!({"a": "x".repeat(70_000)}).to_string();
    for (parts, status, code) in [
        (&[("image", Some("x"), &b"<html>"[..])][..], 400, "not_an_image"),
        (&[("image", Some("x"), &file[..100])], 400, "not_an_image"),
        (&[("payload", None, b"{}")], 400, "bad_request"),
        (&[("image", Some("x"), &file), ("image", Some("y"), &file)], 400, "bad_request"),
        (&[("image", Some("x"), &file), ("payload", None, b"[1]")], 400, "bad_request"),
        (&[("image", Some("x"), &file), ("path", None, b"/etc")], 400, "bad_request"),
        (
            &[("image", Some("x"), &file), ("payload", None, large.as_bytes())],
            413,
            "body_too_large",
        ),
    ] {
        let answer = server.form(IMAGES, parts).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
    }
    assert!(!server.path("home/uploads").exists());
    let answer = server.post(IMAGES, &json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"));
    for (body, code) in [
        (json!([1]), "bad_request"),
        (json!(1), "bad_request"),
        (json!({"a": "x".repeat(70_000)}), "body_too_large"),
    ] {
        let answer = server.json("PATCH", &format!("{IMAGES}/0/payload"), &body).await;
        assert_eq!(answer.code(), code);
    }
    let answer = server.json("PATCH", &format!("{IMAGES}/7/payload"), &json!({})).await;
    assert_eq!(answer.code(), "image_not_found");
    let answer = server.json("DELETE", &format!("{IMAGES}/7"), &json!(null)).await;
    assert_eq!(answer.code(), "image_not_found");
    let request = Request::patch(format!("{IMAGES}/0/payload")).body(Body::from("{}"));
    let answer = server.send(request.expect("a request")).await;
    assert_eq!(answer.code(), "unsupported_media_type");
}

#[tokio::test]
async fn searches_go_on_while_a_writer_is_at_work() {
    let server = Server::with_pictures(2);
    let served = server.state.collection("photos").await.expect("served");
    let held = std::sync::Arc::clone(&served);
    let writer = tokio::task::spawn_blocking(move || held.write_blocking()).await.expect("joined");
    let file = png(50);
    let found =
        server.form("/api/v1/collections/photos/search", &[("image", Some("x"), &file)]).await;
    assert_eq!(found.status.as_u16(), 200);
    let answer = server.form(IMAGES, &[("image", Some("x"), &file)]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "busy"));
    assert!(answer.headers.contains_key("retry-after"));
    drop(writer);
    let answer = server.form(IMAGES, &[("image", Some("x"), &file)]).await;
    assert_eq!(answer.status.as_u16(), 201);
}
