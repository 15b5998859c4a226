//! Pictures by URL: what the server must never be made to ask.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::{Attack, SEARCH, Server, attack, png};

/// A server on an address that is allowed: redirects as its paths say. Counts what it is asked.
struct Own {
    base: String,
    asked: Arc<AtomicUsize>,
}

fn own(address: &str) -> Own {
    let listener = TcpListener::bind(address).expect("binds");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let (head, body) = match path.split_once("/to/") {
                Some((_, to)) => (format!("HTTP/1.1 302 X\r\nlocation: {to}\r\n"), Vec::new()),
                None => match path {
                    "/html" => (
                        "HTTP/1.1 200 X\r\ncontent-type: text/html\r\n".to_owned(),
                        b"<p>".to_vec(),
                    ),
                    "/large" => ("HTTP/1.1 200 X\r\n".to_owned(), vec![0; 40 << 20]),
                    "/text" => ("HTTP/1.1 200 X\r\n".to_owned(), b"no picture".to_vec()),
                    "/loop" => ("HTTP/1.1 302 X\r\nlocation: /loop\r\n".to_owned(), Vec::new()),
                    _ => ("HTTP/1.1 200 X\r\n".to_owned(), png(1)),
                },
            };
            let head = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    Own { base, asked }
}

fn search(server: &Server, url: &str) -> Vec<u8> {
    server.json(SEARCH, &serde_json::json!({"url": url}).to_string())
}

pub fn table(server: &Server) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for host in [
        "127.0.0.2",
        "127.1.1.1",
        "2130706434",
        "0x7f000002",
        "0x7f.0x0.0x0.0x2",
        "0177.0.0.2",
        "127.2",
        "0.0.0.0",
        "0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "[::127.0.0.2]",
        "[64:ff9b::127.0.0.2]",
        "[64:ff9b:1::1]",
        "[2002:7f00:2::]",
        "[2001::1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2001:db8::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "①②⑦.⓪.⓪.②",
        "127。0。0。2",
        "metadata.test",
        "both.test",
        "user:word@1.1.1.1",
        "127.0.0.2:80@1.1.1.1",
    ] {
        let url = format!("http://{host}/latest/meta-data/");
        attacks.push(attack(format!("URL {url}"), search(server, &url), &[403]));
    }
    for url in [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "ftp://1.1.1.1/x",
        "dict://1.1.1.1:11211/stat",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "jar:http://1.1.1.1!/x",
        "//1.1.1.1/x",
        "/etc/passwd",
        "",
        "http://",
        "http://1.1.1.1:22/",
        "http://1.1.1.1:25/",
        "http://1.1.1.1:99999/",
    ] {
        attacks.push(attack(format!("URL {url}"), search(server, url), &[400, 403]));
    }
    let long = format!("http://127.0.0.1/{}", "x".repeat(5000));
    attacks.push(attack("a long URL", search(server, &long), &[400]));
    let unknown = search(server, "http://nothing.test/");
    attacks.push(attack("a name of nobody", unknown, &[502]));
    let own = own("127.0.0.1:0");
    let base = &own.base;
    for (to, expected) in [
        ("http://169.254.169.254/latest/meta-data/", &[403][..]),
        ("http://127.0.0.2/", &[403]),
        ("http://[::1]/", &[403]),
        ("file:///etc/passwd", &[403]),
        ("http://metadata.test/", &[403]),
    ] {
        let url = format!("{base}/to/{to}");
        attacks.push(attack(format!("redirect to {to}"), search(server, &url), expected));
    }
    attacks.push(attack("an endless redirect", search(server, &format!("{base}/loop")), &[502]));
    attacks.push(attack("a page", search(server, &format!("{base}/html")), &[502]));
    attacks.push(attack("no picture", search(server, &format!("{base}/text")), &[400]));
    attacks.push(attack("40 MB", search(server, &format!("{base}/large")), &[413]));
    attacks.push(attack("a picture", search(server, &format!("{base}/picture")), &[200]));
    attacks
}

/// A name whose address changes between the check and the connection, and from one request to the
/// next: nobody at the second address is asked.
pub fn rebinding(server: &Server) {
    // What the name stands for once it has been checked.
    let hidden = own("127.0.0.2:0");
    let port = hidden.base.rsplit(':').next().expect("a port").to_owned();
    let url = format!("http://rebind.test:{port}/");
    let first = server.exchange(&search(server, &url));
    assert_eq!(first.status, 502, "the address that was checked leads nowhere: {first:?}");
    let second = server.exchange(&search(server, &url));
    assert_eq!(second.status, 403, "{second:?}");
    assert_eq!(second.json()["code"], "address_refused");
    assert_eq!(hidden.asked.load(Ordering::SeqCst), 0);
    server.is_alive().expect("alive");
}
