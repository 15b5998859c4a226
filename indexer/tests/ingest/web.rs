//! A web server on 127.0.0.1 that answers as its paths say.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::png;

/// A running server. Paths: `/ok/N.png`, `/status/CODE`, `/busy/N` (429 twice, then the picture),
/// `/later` (429, in an hour), `/slow`, `/large`, `/lies` (more than announced), `/robots/TAG`,
/// `/html`, `/to/URL`, `/loop`, `/cut`.
#[derive(Clone)]
pub struct Web {
    pub base: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    agents: Vec<String>,
    running: usize,
    most_running: usize,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let web = Self { base, state: Arc::default() };
        let served = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = served.clone();
                std::thread::spawn(move || web.answer(&stream));
            }
        });
        web
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Paths asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().expect("lock").requests.clone()
    }

    pub fn agents(&self) -> Vec<String> {
        self.state.lock().expect("lock").agents.clone()
    }

    /// Most requests that were being answered at one time.
    pub fn most_at_once(&self) -> usize {
        self.state.lock().expect("lock").most_running
    }

    fn answer(&self, stream: &TcpStream) {
        let Ok(reader) = stream.try_clone() else { return };
        let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let times = {
            let mut state = self.state.lock().expect("lock");
            let agent = headers.iter().find_map(|line| line.strip_prefix("user-agent: "));
            state.agents.extend(agent.map(str::to_owned));
            state.requests.push(path.clone());
            state.running += 1;
            state.most_running = state.most_running.max(state.running);
            state.requests.iter().filter(|other| **other == path).count()
        };
        std::thread::sleep(Duration::from_millis(20));
        // Before the answer: after it the client may be back sooner than we are here.
        self.state.lock().expect("lock").running -= 1;
        // The client may hang up.
        let _ = respond(stream, &path, times);
    }
}

fn respond(stream: &TcpStream, path: &str, times: usize) -> std::io::Result<()> {
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let number = || rest.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    match first {
        "ok" => {
            let modified = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
            send(stream, 200, modified, &png(number()))
        }
        "status" => send(stream, rest.parse().unwrap_or(500), "", b"no"),
        "busy" if times <= 2 => send(stream, 429, "retry-after: 0\r\n", b""),
        "busy" => send(stream, 200, "", &png(number())),
        "later" => send(stream, 429, "retry-after: 3600\r\n", b""),
        "slow" => {
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n")?;
            for _ in 0..100 {
                stream.write_all(&[0; 10])?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        "large" => send(stream, 200, "", &vec![7; 3_000_000]),
        "lies" => {
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")?;
            stream.write_all(&vec![7; 3_000_000])
        }
        "robots" => {
            send(stream, 200, &format!("X-Robots-Tag: {}\r\n", rest.replace('_', " ")), &png(1))
        }
        "html" => send(stream, 200, "content-type: text/html\r\n", b"<html><p>no</p></html>"),
        "to" => send(stream, 302, &format!("location: {rest}\r\n"), b""),
        "loop" => send(stream, 302, "location: /loop\r\n", b""),
        "cut" => {
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\nonly this")
        }
        _ => send(stream, 404, "", b"no"),
    }
}

fn send(mut stream: &TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
