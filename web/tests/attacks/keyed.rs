//! Attacks on a server with keys.

use web::keys;

use crate::client::{Attack, SEARCH, Server, attack, png};

const JSON: (&str, &str) = ("content-type", "application/json");

fn with(
    server: &Server,
    authorization: &[&str],
    method: &str,
    target: &str,
    body: &str,
) -> Vec<u8> {
    let mut headers = vec![JSON];
    headers.extend(authorization.iter().map(|value| ("authorization", *value)));
    server.request(method, target, &headers, body.as_bytes())
}

pub fn table(server: &Server) -> Vec<Attack> {
    let [read, write, admin] = [0, 1, 2].map(|number| format!("Bearer {}", server.keys[number]));
    let search =
        |authorization: &[&str]| with(server, authorization, "POST", SEARCH, "{\"id\": 0}");
    let id = server.keys[2].split('_').nth(1).expect("an id").to_owned();
    let last = if read.ends_with('0') { '1' } else { '0' };
    let mut attacks = vec![
        attack("its own key", search(&[&read]), &[200]),
        attack("no key", search(&[]), &[401]),
        attack("an empty key", search(&["Bearer "]), &[401]),
        attack("no secret", search(&[&format!("Bearer akin_{id}_")]), &[401]),
        attack(
            "a secret of zeros",
            search(&[&format!("Bearer akin_{id}_{}", "0".repeat(64))]),
            &[401],
        ),
        attack(
            "another's secret",
            search(&[&format!("Bearer akin_{id}_{}", read.rsplit('_').next().expect("a secret"))]),
            &[401],
        ),
        attack("one digit wrong", search(&[&format!("{}{last}", &read[..read.len() - 1])]), &[401]),
        attack("one digit more", search(&[&format!("{read}0")]), &[401]),
        attack("capitals", search(&[&format!("Bearer {}", read[7..].to_uppercase())]), &[401]),
        attack("another scheme", search(&[&format!("Basic {}", &read[7..])]), &[401]),
        attack("no scheme", search(&[&read[7..]]), &[401]),
        attack("two keys", search(&[&read, &admin]), &[401]),
        attack("a long key", search(&[&format!("Bearer akin_{}", "a".repeat(20_000))]), &[401]),
        attack("a path", search(&["Bearer ../../keys.json"]), &[401]),
        attack("a pattern", search(&["Bearer akin_%_%"]), &[401]),
        attack(
            "the hash as the key",
            search(&[&format!("Bearer {}", stored_hash(server))]),
            &[401],
        ),
        attack(
            "a key in the address",
            with(server, &[], "POST", &format!("{SEARCH}?key={}", server.keys[2]), "{\"id\": 0}"),
            &[401],
        ),
        attack(
            "a key in a cookie",
            server.request(
                "POST",
                SEARCH,
                &[JSON, ("cookie", &format!("key={}", server.keys[2]))],
                b"{\"id\": 0}",
            ),
            &[401],
        ),
        attack(
            "an address that is trusted elsewhere",
            server.request(
                "POST",
                SEARCH,
                &[JSON, ("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")],
                b"{\"id\": 0}",
            ),
            &[401],
        ),
        attack("the page needs none", server.get("/livez"), &[200]),
        attack("the list of files", server.get("/keys.json"), &[404]),
    ];
    // What each needs more than the holder has.
    for (name, method, target, body) in [
        ("read adds", "POST", "/api/v1/collections/photos/images", "{}"),
        ("read removes", "DELETE", "/api/v1/collections/photos/images/0", ""),
        ("read changes", "PATCH", "/api/v1/collections/photos/images/0/payload", "{}"),
        ("read indexes", "POST", "/api/v1/collections/photos/index", "{\"sources\": []}"),
        ("read looks for duplicates", "POST", "/api/v1/collections/photos/dedup", "{}"),
        ("read curates", "POST", "/api/v1/runs", "{}"),
        ("read reviews", "POST", "/api/v1/runs/x/review", "{}"),
        ("read exports", "POST", "/api/v1/runs/x/export", "{}"),
        ("read stops a job", "DELETE", "/api/v1/jobs/x", ""),
        ("read decides", "POST", "/api/v1/collections/photos/dedup/000000000000/decisions", "{}"),
        ("read applies", "POST", "/api/v1/collections/photos/dedup/000000000000/apply", "{}"),
        ("read creates", "POST", "/api/v1/collections", "{\"name\": \"x\"}"),
        ("read snapshots", "POST", "/api/v1/collections/photos/snapshot", "{}"),
        (
            "read overrides the method",
            "POST",
            "/api/v1/collections/photos/images/0?_method=DELETE",
            "{}",
        ),
    ] {
        attacks.push(attack(name, with(server, &[&read], method, target, body), &[403]));
        attacks.push(attack(
            format!("{name}, without a key"),
            with(server, &[], method, target, body),
            &[401],
        ));
    }
    for (name, target, body) in [
        ("write creates", "/api/v1/collections", "{\"name\": \"x\"}"),
        ("write snapshots", "/api/v1/collections/photos/snapshot", "{}"),
    ] {
        attacks.push(attack(name, with(server, &[&write], "POST", target, body), &[403]));
    }
    for target in [
        "/metrics",
        "/api/v1/status",
        "/api/v1/collections",
        "/api/v1/collections/photos/images/0/original",
        "/api/v1/collections/photos/images/0/thumbnail",
        "/api/v1/jobs",
        "/api/v1/runs",
        "/api/v1/nothing",
        "/api/v1/",
        "/api/v1",
    ] {
        attacks.push(attack(format!("{target} without a key"), server.get(target), &[401]));
    }
    for target in [
        "//api/v1/status",
        "/./api/v1/status",
        "/API/v1/status",
        "/%61pi/v1/status",
        "/api//v1/status",
        "/ui/../api/v1/status",
    ] {
        attacks.push(attack(format!("{target} without a key"), server.get(target), &[401, 404]));
    }
    // Keys take the place of origins, but not of sense.
    let cross = [JSON, ("authorization", read.as_str()), ("origin", "http://evil.example")];
    attacks.push(attack(
        "another site with a key",
        server.request("POST", SEARCH, &cross, b"{\"id\": 0}"),
        &[403],
    ));
    let add = server.request(
        "POST",
        "/api/v1/collections/photos/images",
        &[
            ("authorization", &write),
            ("content-type", "multipart/form-data; boundary=limit"),
            ("idempotency-key", "a\tb"),
        ],
        &png(0),
    );
    attacks.push(attack("an odd idempotency key", add, &[400]));
    attacks
}

fn stored_hash(server: &Server) -> String {
    let text = std::fs::read_to_string(server.folder.path().join("home/keys.json")).expect("keys");
    let keys: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    keys["keys"][0]["sha256"].as_str().expect("a hash").to_owned()
}

/// A key that is revoked is refused by the next request, and revoking all opens nothing.
pub fn revoked(server: &Server) {
    let home = server.folder.path().join("home");
    let search = |key: &str| {
        let bytes = with(server, &[&format!("Bearer {key}")], "POST", SEARCH, "{\"id\": 0}");
        server.exchange(&bytes).status
    };
    for key in &server.keys {
        assert_eq!(search(key), 200);
        keys::revoke(&home, key).expect("revoked");
        assert_eq!(search(key), 401);
    }
    assert_eq!(server.exchange(&server.json(SEARCH, "{\"id\": 0}")).status, 401);
    std::fs::remove_file(home.join("keys.json")).expect("removed");
    assert_eq!(server.exchange(&server.json(SEARCH, "{\"id\": 0}")).status, 401);
}
