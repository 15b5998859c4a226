use serde_json::{Value, json};

use crate::testing::{Server, index, over, picture};

/// A pool of 30, a test set with two of its pictures, and a run grown from two of its images.
async fn server() -> Server {
    let server = Server::with_pictures(30);
    let folder = server.path("test");
    std::fs::create_dir_all(&folder).expect("create");
    for number in [3, 4] {
        picture(number).save(folder.join(format!("{number}.png"))).expect("save");
    }
    index(&server.state.home, "test", &folder);
    let body = json!({
        "name": "grown",
        "pool": "photos",
        "seed": {"collection": "photos", "ids": [0, 1]},
        "exclude": [{"collection": "test"}],
        "method": "sample",
        "per_seed": 6,
        "self_threshold": 0.9999,
        "threshold": 0.9999,
    });
    let taken = server.post("/api/v1/runs", &body).await;
    assert_eq!(taken.status, 202, "{:?}", taken.json());
    let job = over(&server, &taken.json()["id"]).await;
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!((&job["run"], &job["result"]["pool"]), (&json!("grown"), &json!(30)));
    let again = server.post("/api/v1/runs", &body).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (409, "conflict"));
    server
}

#[tokio::test]
async fn a_run_accounts_for_every_image_is_reviewed_and_exported() {
    let server = server().await;
    let runs = server.get("/api/v1/runs").await.json();
    assert_eq!(
        (&runs["runs"][0]["name"], &runs["runs"][0]["state"]),
        (&json!("grown"), &json!("done"))
    );
    let run = server.get("/api/v1/runs/grown").await.json();
    let steps = run["accounting"].as_array().expect("steps");
    assert_eq!((steps.len(), &steps[0]["images_in"]), (3, &json!(30)));
    for step in steps {
        let dropped =
            step["images_in"].as_u64().expect("in") - step["images_out"].as_u64().expect("out");
        let rules = step["rules"].as_object().expect("rules").values();
        assert_eq!(rules.filter_map(Value::as_u64).sum::<u64>(), dropped, "{step}");
    }
    let images =
        async |query: &str| server.get(&format!("/api/v1/runs/grown/images?{query}")).await.json();
    let kept = images("kept=true").await;
    let count = kept["total"].as_u64().expect("a number");
    assert_eq!(
        (json!(count), kept["images"].as_array().expect("images").len() as u64),
        (run["kept"].clone(), count)
    );
    let leaks = images("rule=leak").await;
    assert_eq!(leaks["total"], 2, "{leaks}");
    assert!(leaks["images"][0]["reason"].as_str().expect("a sentence").contains("excluded image"));
    let all = images("limit=20").await;
    let rest =
        images(&format!("limit=20&cursor={}", all["next_cursor"].as_str().expect("more"))).await;
    assert_eq!((&all["total"], rest["images"].as_array().expect("images").len()), (&json!(30), 10));

    let leak = &leaks["images"][0]["id"];
    let why = server.get(&format!("/api/v1/runs/grown/images/{leak}/explain")).await.json();
    assert!(why["sentences"].as_array().expect("sentences").len() >= 3);
    assert_eq!(server.get("/api/v1/runs/grown/images/999/explain").await.status, 404);

    let review = async |body: Value| server.post("/api/v1/runs/grown/review", &body).await;
    let refused = review(json!({"action": "accept", "ids": [leak]})).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "conflict"));
    let one = &kept["images"][0]["id"];
    let rejected = review(json!({"action": "reject", "ids": [one]})).await.json();
    assert_eq!((&rejected["rejected"], &rejected["can_undo"]), (&json!(1), &json!(true)));
    assert_eq!(images("kept=true").await["total"], count - 1);
    assert_eq!(images("rule=rejected").await["images"][0]["decision"], "rejected");
    let undone = review(json!({"action": "undo"})).await.json();
    assert_eq!(
        (&undone["undone"], &undone["can_undo"], &undone["kept"]),
        (&json!(1), &json!(false), &json!(count))
    );
    let journal = server.get("/api/v1/runs/grown/review").await.json();
    assert_eq!(journal["batches"][0]["is_undone"], true);
    assert_eq!(review(json!({"action": "undo"})).await.status, 409);
    assert_eq!(review(json!({"action": "reject", "ids": []})).await.status, 400);

    let taken = server.post("/api/v1/runs/grown/export", &json!({"format": "jsonl"})).await;
    assert_eq!(taken.status, 202, "{:?}", taken.json());
    let job = over(&server, &taken.json()["id"]).await;
    assert_eq!((&job["state"], &job["result"]["images"]), (&json!("done"), &json!(count)), "{job}");
    assert_eq!(job["result"]["certificate"]["leaks"], 0);
    let folder =
        server.state.home.join("exports").join(job["result"]["name"].as_str().expect("name"));
    assert!(folder.join("manifest.jsonl").is_file() && folder.join("certificate.json").is_file());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = server().await;
    let sound = json!({"name": "x", "pool": "photos", "seed": {"collection": "photos"}});
    for (field, value, status) in [
        ("name", json!("../x"), 400),
        ("name", json!("a/b"), 400),
        ("name", json!(""), 400),
        ("pool", json!("nothing"), 404),
        ("pool", json!("../../etc"), 404),
        ("seed", json!({"collection": "../x"}), 404),
        ("seed", json!({"collection": "photos", "ids": []}), 400),
        ("seed", json!({"collection": "photos", "ids": [999]}), 404),
        ("exclude", json!([{"collection": "test", "ids": [1]}]), 400),
        ("threshold", json!(7), 400),
        ("per_seed", json!(0), 400),
        ("method", json!("magic"), 400),
        ("out", json!("/tmp"), 400),
    ] {
        let mut body = sound.clone();
        body[field] = value;
        let answer = server.post("/api/v1/runs", &body).await;
        assert_eq!(answer.status, status, "{body} {:?}", answer.json());
    }
    for path in [
        "/api/v1/runs/none",
        "/api/v1/runs/..%2fx",
        "/api/v1/runs/none/images",
        "/api/v1/runs/none/review",
    ] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    for query in ["rule=none", "limit=0", "cursor=x", "kept=perhaps"] {
        let answer = server.get(&format!("/api/v1/runs/grown/images?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let format = json!({"format": "exe"});
    assert_eq!(server.post("/api/v1/runs/grown/export", &format).await.status, 400);
}
