use indexer::dedup::DedupReport;
use serde_json::{Value, json};

use crate::reports::{GroupKind, Report, StoredGroup, StoredMember};
use crate::testing::{Server, over, picture};

/// Four pictures, and a copy of the first two.
async fn server() -> (Server, String) {
    let server = Server::with_pictures(4);
    let pictures = server.path("pictures");
    for number in 0..2 {
        picture(number).save(pictures.join(format!("copy-{number}.bmp"))).expect("save");
    }
    let served = server.state.shelf.find("photos").expect("served");
    let job = server.state.index(served, vec![pictures]).expect("taken");
    over(&server, &json!(job.id)).await;
    let asked = json!({"threshold": 0.99, "verify": false});
    let taken = server.post("/api/v1/collections/photos/dedup", &asked).await;
    assert_eq!(taken.status, 202, "{:?}", taken.json());
    let job = over(&server, &taken.json()["id"]).await;
    assert_eq!(job["state"], "done", "{job}");
    let report = job["result"]["report"].as_str().expect("a report").to_owned();
    (server, report)
}

fn at(report: &str, rest: &str) -> String {
    format!("/api/v1/collections/photos/dedup/{report}{rest}")
}

#[tokio::test]
async fn duplicates_are_decided_about_and_taken_out_of_the_collection() {
    let (server, report) = server().await;
    let shown = server.get(&at(&report, "")).await.json();
    assert_eq!((&shown["totals"]["groups"], &shown["totals"]["pending"]), (&json!(2), &json!(2)));
    let groups = shown["groups"].as_array().expect("groups");
    let (keep, other) = (&groups[0]["members"][0], &groups[0]["members"][1]);
    assert_eq!((&groups[0]["keep"], &groups[0]["decided"]), (&keep["id"], &json!("pending")));
    assert_eq!((&other["to"], &other["kind"]), (&keep["id"], &json!("similar")));
    assert!(other["thumbnail"].as_str().expect("an address").starts_with("/api/v1/"));

    let decide = |body: Value| {
        let (server, path) = (&server, at(&report, "/decisions"));
        async move { server.post(&path, &body).await }
    };
    // Nothing is decided: nothing would go.
    let none = server.post(&at(&report, "/apply"), &json!({"dry_run": true})).await.json();
    assert_eq!(none["would_remove"], json!([]));
    let kept = decide(json!({"group": 0, "action": "keep"})).await.json();
    assert_eq!((&kept["decided"], &kept["remove"]), (&json!("kept"), &json!([other["id"]])));
    let undone = decide(json!({"group": 0, "action": "undo"})).await.json();
    assert_eq!((&undone["decided"], &undone["remove"]), (&json!("pending"), &json!([])));
    assert_eq!(decide(json!({"group": 0, "action": "undo"})).await.status, 409);
    // The other one stays.
    let swapped = json!({"group": 0, "action": "keep", "keep": [other["id"]]});
    assert_eq!(decide(swapped).await.json()["remove"], json!([keep["id"]]));
    let would = server.post(&at(&report, "/apply"), &json!({"dry_run": true})).await.json();
    assert_eq!(would["would_remove"], json!([keep["id"]]));
    assert_eq!(server.get("/api/v1/collections/photos").await.json()["images"], 6);
    let done = server.post(&at(&report, "/apply"), &json!({"dry_run": false})).await.json();
    assert_eq!(done["removed"], 1);
    assert_eq!(server.get("/api/v1/collections/photos").await.json()["images"], 5);
    assert!(std::path::Path::new(keep["path"].as_str().expect("a path")).is_file(), "no file goes");
    let shown = server.get(&at(&report, "")).await.json();
    assert_eq!(shown["groups"][0]["decided"], "removed");
    let gone = shown["groups"][0]["members"].as_array().expect("members");
    assert!(gone.iter().any(|member| member["id"] == keep["id"] && member["gone"] == true));
    assert_eq!(decide(json!({"group": 0, "action": "undo"})).await.status, 409);
}

#[tokio::test]
async fn what_is_no_duplicate_is_not_found_again_until_that_is_taken_back() {
    let (server, report) = server().await;
    let decisions = at(&report, "/decisions");
    let decided =
        server.post(&decisions, &json!({"group": 1, "action": "not_duplicate"})).await.json();
    assert_eq!(decided["decided"], "not_duplicate");
    let asked = json!({"threshold": 0.99, "verify": false});
    let groups = async || {
        let taken = server.post("/api/v1/collections/photos/dedup", &asked).await.json();
        over(&server, &taken["id"]).await["result"]["groups"].clone()
    };
    assert_eq!(groups().await, 1);
    server.post(&decisions, &json!({"group": 1, "action": "undo"})).await;
    assert_eq!(groups().await, 2);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (server, report) = server().await;
    let decisions = at(&report, "/decisions");
    for body in [
        json!({"group": 9, "action": "keep"}),
        json!({"group": 0, "action": "removed"}),
        json!({"group": 0, "action": "keep", "keep": [999]}),
        json!({"group": 0, "action": "destroy"}),
        json!({"group": -1, "action": "keep"}),
        json!({"group": 0, "action": "keep", "extra": 1}),
    ] {
        assert_eq!(server.post(&decisions, &body).await.status, 400, "{body}");
    }
    let shown = server.get(&at(&report, "")).await.json();
    let ids: Vec<&Value> = shown["groups"][0]["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|m| &m["id"])
        .collect();
    for body in [
        json!({"group": 0, "action": "keep", "remove": ids}),
        json!({"group": 0, "action": "keep", "keep": [ids[0]], "remove": [ids[0]]}),
    ] {
        assert_eq!(server.post(&decisions, &body).await.status, 400, "{body}");
    }
    for path in [at("000000000000", ""), at("..%2f..%2fkeys.json", ""), at("x", "")] {
        assert_eq!(server.get(&path).await.status, 404, "{path}");
    }
    for query in [
        "?cursor=x",
        "?limit=0",
        "?limit=201",
        "?kind=none",
        "?kind=similar,",
        "?kind=similar,no",
        "?cursor=-1",
    ] {
        assert_eq!(server.get(&at(&report, query)).await.status, 400, "{query}");
    }
    let one = server.get(&at(&report, "?limit=1")).await.json();
    let next = one["next_cursor"].as_str().expect("more");
    let two = server.get(&at(&report, &format!("?limit=1&cursor={next}"))).await.json();
    assert_eq!((&two["groups"][0]["id"], &two["next_cursor"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn kinds_are_left_out_and_pages_go_on_without_them() {
    let server = Server::with_pictures(4);
    let member = |id: u64, kind: GroupKind| StoredMember {
        id,
        sha256: format!("{id:064}"),
        path: format!("/{id}.png"),
        width: 1,
        height: 1,
        bytes: 1,
        similarity: 0.9,
        kind,
    };
    let mut report = Report::new("photos", 0.5, true, &DedupReport::default());
    // Groups 0, 4, 8 are equal files, 1, 5, 9 edited, and so on.
    for number in 0..12 {
        let kind = GroupKind::ALL[number % 4];
        let members = vec![member(0, kind), member(1, kind)];
        report.groups.push(StoredGroup { kind, members });
    }
    let report = server.state.reports.keep(&report).expect("kept");
    for (kinds, expected) in [
        ("", (0..12).collect::<Vec<u64>>()),
        ("same_file,edited,similar", (0..12).filter(|n| n % 4 != 3).collect()),
        ("edited", vec![1, 5, 9]),
        ("same_subject,same_file", vec![0, 3, 4, 7, 8, 11]),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = format!("?limit=2&kind={kinds}&cursor={cursor}");
            let page = server.get(&at(&report, &query)).await.json();
            let groups = page["groups"].as_array().expect("groups");
            assert!((1..=2).contains(&groups.len()), "no page is empty: {page}");
            seen.extend(groups.iter().map(|group| group["id"].as_u64().expect("id")));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{kinds}");
    }
    // Groups keep their numbers, so that decisions are about the same one whatever is left out.
    let decision = json!({"group": 9, "action": "keep", "keep": [1]});
    assert_eq!(
        server.post(&at(&report, "/decisions"), &decision).await.json()["remove"],
        json!([0])
    );
    let page = server.get(&at(&report, "?kind=edited&limit=1&cursor=6")).await.json();
    assert_eq!(
        (&page["groups"][0]["id"], &page["groups"][0]["decided"]),
        (&json!(9), &json!("kept"))
    );
    let totals = &page["totals"];
    assert_eq!((&totals["groups"], &totals["pending"]), (&json!(12), &json!(11)));
    assert_eq!(totals["by_kind"]["edited"], 3);
    assert_eq!(
        totals["pending_by_kind"],
        json!({"same_file": 3, "edited": 2, "similar": 3, "same_subject": 3})
    );
}
