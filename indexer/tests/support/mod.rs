//! A model hub on 127.0.0.1 that misbehaves as told.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What the hub does with one GET of the weights; the last one is repeated.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Serve what is asked for, ranges too.
    Serve,
    /// Close the connection after so many bytes of body.
    CutAfter(usize),
    /// Ignore ranges: always all of it, with status 200.
    NoRanges,
    /// Send a few bytes at a time.
    Drip,
    /// Send half, then nothing, and keep the connection open.
    Stall,
    /// Answer with an error status.
    Status(u16),
    /// Answer 429 with `Retry-After: 0`.
    TooMany,
    /// Redirect to another host, which serves it.
    Redirect,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[derive(Clone)]
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

struct State {
    weights: Vec<u8>,
    announced_sha256: String,
    commit: String,
    script: VecDeque<Behaviour>,
    heads: VecDeque<u16>,
    requests: Vec<Request>,
    cdn: Option<String>,
}

pub const CONFIG: &[u8] = br#"{"num_attention_heads": 6}"#;

impl Hub {
    /// A hub with these weights, which treats the GETs of them by the script.
    pub fn start(weights: &[u8], script: &[Behaviour]) -> Self {
        let state = State {
            weights: weights.to_vec(),
            announced_sha256: format!("{:x}", Sha256::digest(weights)),
            commit: "c0ffee".repeat(6) + "c0ff",
            script: script.iter().copied().collect(),
            heads: VecDeque::new(),
            requests: Vec::new(),
            cdn: None,
        };
        let state = Arc::new(Mutex::new(state));
        let endpoint = listen(Arc::clone(&state), false);
        // Another port is another host to a browser and to us.
        let cdn = listen(Arc::clone(&state), true);
        state.lock().expect("lock").cdn = Some(cdn);
        Self { endpoint, state }
    }

    /// Announces this hash instead of the right one.
    pub fn announce(&self, sha256: &str) {
        self.state.lock().expect("lock").announced_sha256 = sha256.to_owned();
    }

    /// Answers the next HEAD requests with these statuses.
    pub fn fail_heads(&self, statuses: &[u16]) {
        self.state.lock().expect("lock").heads.extend(statuses);
    }

    /// Replaces what happens to coming GETs of the weights.
    pub fn script(&self, script: &[Behaviour]) {
        self.state.lock().expect("lock").script = script.iter().copied().collect();
    }

    /// Another commit, with other weights.
    pub fn publish(&self, weights: &[u8]) {
        let mut state = self.state.lock().expect("lock");
        state.weights = weights.to_vec();
        state.announced_sha256 = format!("{:x}", Sha256::digest(weights));
        state.commit = "0ddba1".repeat(6) + "0ddb";
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("lock").requests.clone()
    }

    /// GETs of the weights so far, at either host.
    pub fn downloads(&self) -> Vec<Request> {
        let is_download = |request: &Request| {
            request.method == "GET" && request.path.ends_with("model.safetensors")
        };
        self.requests().into_iter().filter(is_download).collect()
    }
}

fn listen(state: Arc<Mutex<State>>, is_cdn: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                let _ = answer(stream, &state, is_cdn);
            });
        }
    });
    format!("http://{address}")
}

fn answer(stream: TcpStream, state: &Mutex<State>, is_cdn: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let request = Request { method, path, headers };

    let mut state = state.lock().expect("lock");
    state.requests.push(request.clone());
    let commit = format!("x-repo-commit: {}\r\n", state.commit);
    if request.path.ends_with("config.json") {
        let blob = Sha1::new_with_prefix(format!("blob {}\0", CONFIG.len()));
        let etag = format!("etag: \"{:x}\"\r\n", blob.chain_update(CONFIG).finalize());
        let body: &[u8] = if request.method == "HEAD" { b"" } else { CONFIG };
        return respond(&stream, 200, CONFIG.len(), &(commit + &etag), body);
    }
    let etag = format!("\"{}\"", state.announced_sha256);
    if request.method == "HEAD" {
        if let Some(status) = state.heads.pop_front() {
            return respond(&stream, status, 0, "", b"");
        }
        let size = state.weights.len();
        let linked = format!("x-linked-etag: {etag}\r\nx-linked-size: {size}\r\n");
        let location = format!("location: {}/blob\r\n", state.cdn.clone().unwrap_or_default());
        return respond(&stream, 302, 0, &(commit + &linked + &location), b"");
    }
    let behaviour = match state.script.len() {
        0 => Behaviour::Serve,
        1 => state.script[0],
        _ => state.script.pop_front().unwrap_or(Behaviour::Serve),
    };
    let weights = state.weights.clone();
    let location =
        format!("location: {}{}\r\n", state.cdn.clone().unwrap_or_default(), request.path);
    drop(state);

    let start = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let start = start.filter(|_| request.header("if-range").is_none_or(|known| known == etag));
    let (status, start) = match start {
        Some(start) if !matches!(behaviour, Behaviour::NoRanges) => (206, start),
        _ => (200, 0),
    };
    let body = &weights[start.min(weights.len())..];
    let range = format!("content-range: bytes {start}-{}/{}\r\n", weights.len() - 1, weights.len());
    let extra = if status == 206 { range } else { String::new() };
    match behaviour {
        Behaviour::Redirect if !is_cdn => respond(&stream, 302, 0, &location, b""),
        Behaviour::Serve | Behaviour::NoRanges | Behaviour::Redirect => {
            respond(&stream, status, body.len(), &extra, body)
        }
        Behaviour::CutAfter(bytes) => {
            respond(&stream, status, body.len(), &extra, &body[..bytes.min(body.len())])
        }
        Behaviour::Drip => {
            respond(&stream, status, body.len(), &extra, b"")?;
            body.chunks(body.len().div_ceil(10)).try_for_each(|piece| {
                std::thread::sleep(Duration::from_millis(60));
                (&stream).write_all(piece)
            })
        }
        Behaviour::Stall => {
            respond(&stream, status, body.len(), &extra, &body[..body.len() / 2])?;
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        }
        Behaviour::Status(status) => respond(&stream, status, 0, "", b""),
        Behaviour::TooMany => respond(&stream, 429, 0, "retry-after: 0\r\n", b""),
    }
}

fn respond(
    mut stream: &TcpStream,
    status: u16,
    length: usize,
    headers: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
