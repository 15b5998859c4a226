//! Clients that take their time.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{FORM, SEARCH, Server};

/// The server is told to wait a second; this is far more.
const PAUSE: Duration = Duration::from_millis(2500);

pub fn heads_and_bodies(server: &Server) {
    let host = server.host();
    let (name, value) = FORM;
    // Byte by byte: every byte comes in time, the head as a whole does not.
    let head = server.converse(|stream| {
        for byte in format!("GET /livez HTTP/1.1\r\nhost: {host}\r\nx: {}", "y".repeat(100)).bytes()
        {
            stream.write_all(&[byte])?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    assert!([0, 408].contains(&head.status), "{head:?}");
    let start = format!(
        "POST {SEARCH} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{name}: {value}\r\ncontent-length: 1000000\r\n\r\n"
    );
    let silent = server.converse(|stream| {
        stream.write_all(start.as_bytes())?;
        stream.write_all(b"--limit\r\n")?;
        std::thread::sleep(PAUSE);
        Ok(())
    });
    assert_eq!((silent.status, silent.json()["code"].as_str()), (408, Some("slow_request")));
    let dripping = server.converse(|stream| {
        stream.write_all(start.as_bytes())?;
        for _ in 0..100 {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    assert_eq!((dripping.status, dripping.json()["code"].as_str()), (408, Some("slow_request")));
    server.is_alive().expect("alive");
}

/// More slow clients than are worked on at once: searches are answered beside them.
pub fn many_at_once(server: &Server) {
    let start = format!(
        "POST {SEARCH} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000000\r\n\r\n{{",
        server.host()
    );
    let clients: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("connects");
            stream.write_all(start.as_bytes()).expect("written");
            stream
        })
        .collect();
    for _ in 0..20 {
        server.is_alive().expect("alive beside slow clients");
    }
    drop(clients);
    server.is_alive().expect("alive");
}
