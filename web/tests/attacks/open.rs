//! Attacks on a server without keys, from its own machine: what a page of another site could make a
//! browser send, and what any program can.

use crate::client::{Attack, FORM, SEARCH, Server, attack, encoded, png};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Not there, not allowed, or no sense; never found.
const REFUSED: &[u16] = &[400, 403, 404, 405];

/// Paths that lead out of where they belong, in every writing, in every parameter.
pub fn paths(server: &Server) -> Vec<Attack> {
    let mut attacks = Vec::new();
    let up = [
        "../../../../etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%252e%252e%252fetc%252fpasswd",
        "..%5c..%5cetc%5cpasswd",
        "..%00",
        "photos%00.png",
        "%2fetc%2fpasswd",
        "..;/..;/etc/passwd",
        "%c0%ae%c0%ae%c0%af",
        "~root",
        ".",
        "..",
        "keys.json",
        "%0d%0ainjected:%20yes",
    ];
    for place in up {
        for target in [
            format!("/{place}"),
            format!("/ui/{place}"),
            format!("/api/v1/{place}"),
            format!("/api/v1/collections/{place}"),
            format!("/api/v1/collections/{place}/stats"),
            format!("/api/v1/collections/{place}/images/0/original"),
            format!("/api/v1/collections/photos/images/{place}"),
            format!("/api/v1/collections/photos/images/{place}/original"),
            format!("/api/v1/collections/photos/images/0/thumbnail?size={place}"),
            format!("/api/v1/collections/photos/images?cursor={place}"),
            format!("/api/v1/collections/photos/dedup/{place}"),
            format!("/api/v1/runs/{place}"),
            format!("/api/v1/runs/{place}/images"),
            format!("/api/v1/jobs/{place}"),
            format!("/api/v1/jobs/{place}/events"),
        ] {
            // `.` names the folder above in some of these, which is no secret.
            let expected: &[u16] = match place {
                "." | ".." => &[200, 400, 403, 404, 405],
                _ => REFUSED,
            };
            attacks.push(attack(format!("path {target}"), server.get(&target), expected));
        }
    }
    for source in [
        "/etc/passwd",
        "../../etc",
        "/proc/self/environ",
        "file:///etc/passwd",
        "roots/../../..",
        "http://169.254.169.254/",
        "",
    ] {
        let body = serde_json::json!({"sources": [source]}).to_string();
        let bytes = server.json("/api/v1/collections/photos/index", &body);
        attacks.push(attack(format!("source {source}"), bytes, &[403]));
        let outside = server.folder.path().join("home").join(source);
        let body = serde_json::json!({"sources": [outside]}).to_string();
        let bytes = server.json("/api/v1/collections/photos/index", &body);
        attacks.push(attack(format!("source {}", outside.display()), bytes, &[403]));
    }
    for name in
        ["../x", "a/b", "..", ".hidden", "a\\b", "a\u{0}b", "", "\u{202e}x", &"x".repeat(65)]
    {
        let body = serde_json::json!({"name": name}).to_string();
        let bytes = server.json("/api/v1/collections", &body);
        attacks.push(attack(format!("collection {name:?}"), bytes, &[400]));
        let run =
            serde_json::json!({"name": name, "pool": "photos", "seed": {"collection": "photos"}});
        let bytes = server.json("/api/v1/runs", &run.to_string());
        attacks.push(attack(format!("run {name:?}"), bytes, &[400]));
        let body = serde_json::json!({"name": "new", "model": format!("/etc/{name}")}).to_string();
        let bytes = server.json("/api/v1/collections", &body);
        attacks.push(attack(format!("model {name:?}"), bytes, &[400]));
    }
    attacks
}

/// Bodies that are not what they say, or too much of it.
pub fn bodies(server: &Server) -> Vec<Attack> {
    let post =
        |headers: &[(&str, &str)], body: &[u8]| server.request("POST", SEARCH, headers, body);
    let parts = |count: usize| {
        let part = "--limit\r\ncontent-disposition: form-data; name=\"k\"\r\n\r\n1\r\n";
        [part.repeat(count).into_bytes(), b"--limit--\r\n".to_vec()].concat()
    };
    let images = |count: usize| {
        let part =
            "--limit\r\ncontent-disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n\r\n";
        [part.repeat(count).into_bytes(), b"--limit--\r\n".to_vec()].concat()
    };
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let head = format!(
        "--limit\r\ncontent-disposition: form-data; name=\"image\"\r\nx: {}\r\n\r\n\r\n--limit--\r\n",
        "y".repeat(1 << 20)
    );
    vec![
        attack("no content type", post(&[], b"{\"id\": 0}"), &[415]),
        attack("text", post(&[("content-type", "text/plain")], b"{\"id\": 0}"), &[415]),
        attack("XML", post(&[("content-type", "application/xml")], b"<id>0</id>"), &[415]),
        attack("a form of a page", post(&[("content-type", "application/x-www-form-urlencoded")], b"id=0"), &[415]),
        attack("a picture as it is", post(&[("content-type", "image/png")], &png(0)), &[415]),
        attack("JSON that is a form", post(&[JSON], &parts(1)), &[400]),
        attack("a form that is JSON", post(&[FORM], b"{\"id\": 0}"), &[400]),
        attack("a form without its boundary", post(&[("content-type", "multipart/form-data")], &parts(1)), &[400]),
        attack("a form with a long boundary", post(&[("content-type", &format!("multipart/form-data; boundary={}", "b".repeat(5000)))], &parts(1)), &[400]),
        attack("10,000 parts", post(&[FORM], &parts(10_000)), &[400, 413]),
        attack("10,000 files", post(&[FORM], &images(10_000)), &[413]),
        attack("a part with a long head", post(&[FORM], head.as_bytes()), &[400, 413]),
        attack("an endless form", post(&[FORM], b"--limit\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nx"), &[400]),
        attack("cut JSON", post(&[JSON], b"{\"id\": "), &[400]),
        attack("JSON that is deep", post(&[JSON], deep("[", "]", 100_000).as_bytes()), &[400]),
        attack("JSON that is long", post(&[JSON], format!("{{\"filter\": \"{}\"}}", "x".repeat(9 << 20)).as_bytes()), &[413]),
        attack("JSON with a NUL", post(&[JSON], b"{\"id\": 0}\0"), &[400]),
        attack("JSON that is not UTF-8", post(&[JSON], b"{\"filter\": \"\xff\xfe\"}"), &[400]),
        attack("a batch of 33", server.json("/api/v1/collections/photos/search/batch", &format!("{{\"searches\": [{}]}}", vec!["{\"id\": 0}"; 33].join(","))), &[400]),
        attack("a batch of none", server.json("/api/v1/collections/photos/search/batch", "{\"searches\": []}"), &[400]),
        attack("HTML", server.upload(SEARCH, b"<html><script>alert(1)</script></html>"), &[400]),
        attack("SVG", server.upload(SEARCH, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"), &[400]),
        attack("SVG with an entity", server.upload(SEARCH, b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>"), &[400]),
        attack("ImageMagick's language", server.upload(SEARCH, b"push graphic-context\nimage over 0,0 0,0 '|id'\npop graphic-context"), &[400]),
        attack("a PDF", server.upload(SEARCH, b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj"), &[400]),
        attack("a zip", server.upload(SEARCH, b"PK\x03\x04\x14\0\0\0\0\0"), &[400]),
        attack("a JPEG with a script behind it", server.upload(SEARCH, &[encoded(0, image::ImageFormat::Jpeg), b"<script>alert(1)</script>".to_vec()].concat()), &[200]),
        attack("a picture of another name", server.upload(SEARCH, &png(1)), &[200]),
    ]
}

/// Searches whose numbers and texts mean harm.
pub fn searches(server: &Server) -> Vec<Attack> {
    let mut attacks = Vec::new();
    let ones = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    let zeros = format!("[{}]", vec!["0"; 192].join(","));
    let huge = format!("[{}]", vec!["1e30"; 192].join(","));
    let not = "not ".repeat(50_000);
    let parentheses = format!("{}a = 1{}", "(".repeat(50_000), ")".repeat(50_000));
    let many = vec!["a = 1"; 50_000].join(" or ");
    let long = format!("a = \\\"{}\\\"", "x".repeat(2 << 20));
    let tree = format!(
        "{}{{\"eq\": {{\"field\": \"a\", \"value\": 1}}}}{}",
        "{\"not\": ".repeat(100),
        "}".repeat(100)
    );
    for (name, body) in [
        ("a vector of NaN", format!("{{\"vector\": [{}]}}", vec!["NaN"; 192].join(","))),
        ("a vector of infinities", format!("{{\"vector\": [{}]}}", vec!["1e999"; 192].join(","))),
        ("a vector beyond f32", format!("{{\"vector\": [{}]}}", vec!["1e300"; 192].join(","))),
        ("a vector of nulls", format!("{{\"vector\": [{}]}}", vec!["null"; 192].join(","))),
        ("a vector of zeros", format!("{{\"vector\": {zeros}}}")),
        ("a vector too long", format!("{{\"vector\": {}}}", ones(193))),
        ("a vector far too long", format!("{{\"vector\": {}}}", ones(1_000_000))),
        ("an empty vector", "{\"vector\": []}".to_owned()),
        ("k of 0", "{\"id\": 0, \"k\": 0}".to_owned()),
        ("k of 2^63", "{\"id\": 0, \"k\": 9223372036854775807}".to_owned()),
        ("k of 1001", "{\"id\": 0, \"k\": 1001}".to_owned()),
        ("k of -1", "{\"id\": 0, \"k\": -1}".to_owned()),
        ("k of 1e400", "{\"id\": 0, \"k\": 1e400}".to_owned()),
        ("an offset of -1", "{\"id\": 0, \"offset\": -1}".to_owned()),
        ("a forged cursor", "{\"id\": 0, \"cursor\": \"AAAA\"}".to_owned()),
        ("a cursor of bytes", "{\"id\": 0, \"cursor\": \"////////////////\"}".to_owned()),
        ("a long cursor", format!("{{\"id\": 0, \"cursor\": \"{}\"}}", "A".repeat(100_000))),
        ("a forged query", "{\"query\": \"00000000000000000000000000000000\"}".to_owned()),
        ("a query of a path", "{\"query\": \"../../etc/passwd\"}".to_owned()),
        ("an unknown field", "{\"id\": 0, \"exec\": \"id\"}".to_owned()),
        ("two examples", "{\"id\": 0, \"vector\": [1]}".to_owned()),
        ("no example", "{}".to_owned()),
        ("an id of text", "{\"id\": \"0; drop table\"}".to_owned()),
        ("an id of -1", "{\"id\": -1}".to_owned()),
        ("a filter of parentheses", format!("{{\"id\": 0, \"filter\": \"{parentheses}\"}}")),
        ("a filter of nots", format!("{{\"id\": 0, \"filter\": \"{not}a = 1\"}}")),
        ("a filter of ors", format!("{{\"id\": 0, \"filter\": \"{many}\"}}")),
        ("a long filter", format!("{{\"id\": 0, \"filter\": \"{long}\"}}")),
        ("a deep filter", format!("{{\"id\": 0, \"filter\": {tree}}}")),
        ("a filter of nothing", "{\"id\": 0, \"filter\": {\"exec\": 1}}".to_owned()),
        ("a crop of NaN", "{\"id\": 0, \"crop\": {\"x\": NaN, \"y\": 0, \"width\": 1, \"height\": 1}}".to_owned()),
        ("a crop outside", "{\"url\": \"http://127.0.0.1:1/\", \"crop\": {\"x\": -5, \"y\": 0, \"width\": 1, \"height\": 1}}".to_owned()),
        ("a similarity of 1e400", "{\"id\": 0, \"min_similarity\": 1e400}".to_owned()),
        ("a similarity of 7", "{\"id\": 0, \"min_similarity\": 7}".to_owned()),
        ("diversity of -1", "{\"id\": 0, \"diversity\": -1}".to_owned()),
        ("duplicates from 9", "{\"id\": 0, \"hide_duplicates\": 9}".to_owned()),
        ("100,000 positives", format!("{{\"positive\": [{}]}}", vec!["{\"id\": 0}"; 100_000].join(","))),
    ] {
        let expected: &[u16] = &[400, 404, 410, 413];
        attacks.push(attack(format!("search for {name}"), server.json(SEARCH, &body), expected));
    }
    // Too large to mean anything, and harmless.
    let far = "{\"id\": 0, \"offset\": 18446744073709551615}";
    attacks.push(attack("search from 2^64 - 1", server.json(SEARCH, far), &[200, 400]));
    let body = format!("{{\"vector\": {huge}}}");
    attacks.push(attack("search for large numbers", server.json(SEARCH, &body), &[200, 400]));
    for field in ["__proto__", "a'; drop table x; --", "../../x", "\\u0000", "${jndi:ldap://x}"] {
        let body = format!(
            "{{\"id\": 0, \"filter\": {{\"eq\": {{\"field\": \"{field}\", \"value\": 1}}}}}}"
        );
        attacks.push(attack(format!("filter on {field}"), server.json(SEARCH, &body), &[200, 400]));
    }
    for query in
        ["limit=0", "limit=18446744073709551616", "cursor=-1", "filter=((", "limit=1&limit=2"]
    {
        let target = format!("/api/v1/collections/photos/images?{query}");
        attacks.push(attack(target.clone(), server.get(&target), &[400]));
    }
    attacks
}

/// Where a request comes from and whom it is for.
pub fn origins(server: &Server) -> Vec<Attack> {
    let post = |headers: &[(&str, &str)]| {
        let headers = [&[JSON], headers].concat();
        server.request("POST", SEARCH, &headers, b"{\"id\": 0}")
    };
    let host = server.host();
    let port = server.address.port();
    let own = format!("http://{host}");
    let mut attacks = vec![
        attack(
            "its own page",
            post(&[("origin", &own), ("sec-fetch-site", "same-origin")]),
            &[200],
        ),
        attack("its own page on another port", post(&[("origin", "http://127.0.0.1:1")]), &[403]),
        attack("another site", post(&[("origin", "http://evil.example")]), &[403]),
        attack("no site at all", post(&[("origin", "null")]), &[403]),
        attack("a file", post(&[("origin", "file://")]), &[403]),
        attack(
            "another site, as the browser says",
            post(&[("sec-fetch-site", "cross-site")]),
            &[403],
        ),
        attack("a neighbour site", post(&[("sec-fetch-site", "same-site")]), &[403]),
        attack(
            "a form sent by another site",
            post(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
            &[403],
        ),
        attack("through a proxy", post(&[("x-forwarded-for", "127.0.0.1")]), &[403]),
        attack("through a proxy, by the standard", post(&[("forwarded", "for=127.0.0.1")]), &[403]),
        attack(
            "a thumbnail in another site's page",
            server.request(
                "GET",
                "/api/v1/collections/photos/images/0/thumbnail",
                &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
                b"",
            ),
            &[403],
        ),
        attack(
            "a link to the page",
            server.request(
                "GET",
                "/",
                &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
                b"",
            ),
            &[200, 404],
        ),
        attack(
            "a preflight",
            server.request(
                "OPTIONS",
                SEARCH,
                &[("origin", "http://evil.example"), ("access-control-request-method", "POST")],
                b"",
            ),
            &[403, 405],
        ),
        attack(
            "removal by another site",
            server.request(
                "DELETE",
                "/api/v1/collections/photos/images/0",
                &[("origin", "http://evil.example")],
                b"",
            ),
            &[403],
        ),
    ];
    for name in [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        "10.0.0.1".to_owned(),
        "169.254.169.254".to_owned(),
        "2130706433".to_owned(),
        "[::ffff:10.0.0.1]".to_owned(),
        "user@evil.example".to_owned(),
    ] {
        attacks.push(attack(format!("host {name}"), post(&[("host", &name)]), &[400, 403]));
        let page = server.request("GET", "/", &[("host", &name)], b"");
        attacks.push(attack(format!("page of host {name}"), page, &[400, 403]));
    }
    let loopback = format!("localhost:{port}");
    attacks.push(attack("host localhost", post(&[("host", &loopback)]), &[200]));
    attacks
}

/// Heads that break rules.
pub fn heads(server: &Server) -> Vec<Attack> {
    let host = server.host();
    let raw = |text: String| text.into_bytes();
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let mut attacks = vec![
        attack(
            "no host",
            raw("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned()),
            &[400],
        ),
        attack(
            "two hosts",
            raw(format!(
                "GET /livez HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "another host in the target",
            raw(format!(
                "GET http://evil.example/livez HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "a line break in a header",
            raw(format!(
                "GET /livez HTTP/1.1\r\nhost: {host}\r\nx: a\nb\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "a folded header",
            raw(format!(
                "GET /livez HTTP/1.1\r\nhost: {host}\r\nx: a\r\n b\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "a NUL in a header",
            raw(format!(
                "GET /livez HTTP/1.1\r\nhost: {host}\r\nx: a\0b\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "a space before the colon",
            raw(format!("GET /livez HTTP/1.1\r\nhost : {host}\r\nconnection: close\r\n\r\n")),
            &[400],
        ),
        attack(
            "200 headers",
            raw(format!("GET /livez HTTP/1.1\r\nhost: {host}\r\n{many}connection: close\r\n\r\n")),
            &[431],
        ),
        attack(
            "a long header",
            raw(format!(
                "GET /livez HTTP/1.1\r\nhost: {host}\r\nx: {}\r\nconnection: close\r\n\r\n",
                "y".repeat(64 << 10)
            )),
            &[431],
        ),
        attack("a long target", server.get(&format!("/livez?{}", "x".repeat(20_000))), &[400, 414]),
        attack(
            "two lengths",
            raw(format!(
                "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ncontent-length: 6\r\nconnection: close\r\n\r\n{{\"id\""
            )),
            &[400],
        ),
        attack(
            "a length that is none",
            raw(format!(
                "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: -1\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "a length beyond all numbers",
            raw(format!(
                "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 99999999999999999999999\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack(
            "chunks that are none",
            raw(format!(
                "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n"
            )),
            &[400],
        ),
        attack(
            "an unknown encoding",
            raw(format!(
                "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: gzip\r\nconnection: close\r\n\r\n"
            )),
            &[400],
        ),
        attack("HTTP/0.9", raw("GET /livez\r\n\r\n".to_owned()), &[400, 0]),
        attack(
            "HTTP/2 without asking",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[400, 505, 0],
        ),
        attack("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), &[400, 0]),
        attack("noise", (0..=255).cycle().take(5000).collect(), &[400, 0]),
        attack("TRACE", server.request("TRACE", "/livez", &[], b""), &[405]),
        attack(
            "CONNECT",
            raw(format!(
                "CONNECT evil.example:443 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            )),
            &[400, 404, 405],
        ),
        attack("a method of its own", server.request("BREW", "/livez", &[], b""), &[405]),
        attack(
            "an upgrade",
            server.request(
                "GET",
                "/livez",
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
                b"",
            ),
            &[200],
        ),
    ];
    for id in ["a b", "<script>", "x\u{7f}y", &"i".repeat(1000), "a, b"] {
        // A request's id is only taken over when it is plain.
        let bytes = server.request("GET", "/livez", &[("x-request-id", id)], b"");
        attacks.push(attack(format!("request id {id:.20}"), bytes, &[200, 400]));
    }
    attacks
}

/// Pictures that are also something else are kept as pictures, and served as nothing else.
pub fn polyglots(server: &Server) {
    let script = b"<html><script>alert(1)</script></html>".to_vec();
    let jpeg = [encoded(20, image::ImageFormat::Jpeg), script.clone()].concat();
    let gif =
        [encoded(21, image::ImageFormat::Gif), b"/*<svg onload=alert(1)>*/".to_vec()].concat();
    for (file, kind) in [(jpeg, "image/jpeg"), (gif, "image/gif")] {
        let added = server.exchange(&server.upload("/api/v1/collections/photos/images", &file));
        assert_eq!(added.status, 201, "{kind}: {added:?}");
        let item = added.json();
        let path = item["path"].as_str().expect("a path");
        let home = server.folder.path().join("home").canonicalize().expect("canonical");
        assert!(
            std::path::Path::new(path).starts_with(home),
            "the name given leads nowhere: {path}"
        );
        for address in ["original", "thumbnail"] {
            let reply = server.exchange(&server.get(item[address].as_str().expect("an address")));
            assert_eq!(reply.status, 200, "{kind} {address}: {reply:?}");
            let served = reply.header("content-type").expect("a type").to_owned();
            match address {
                "original" => assert_eq!(served, kind),
                _ => assert!(served.starts_with("image/"), "{served}"),
            }
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            let policy = reply.header("content-security-policy").expect("a policy");
            assert!(
                policy.contains("sandbox") && policy.contains("default-src 'none'"),
                "{policy}"
            );
        }
    }
    server.is_alive().expect("alive");
}
