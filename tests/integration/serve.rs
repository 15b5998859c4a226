//! `akin serve` as a process: a browser's and a program's view from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Akin;

/// Long enough for a busy machine; nothing waits so long that works.
const PATIENCE: Duration = Duration::from_secs(120);

struct Server {
    child: Child,
    /// Host and port.
    at: String,
    /// The rest of what it says, read all the time: a full pipe would stop it.
    stderr: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts the program; words are separated by spaces, `{}` stands for the test's folder.
    fn start(akin: &Akin, words: &str) -> Self {
        let folder = akin.folder.path().to_string_lossy().into_owned();
        let mut child = Command::new(env!("CARGO_BIN_EXE_akin"))
            .args(words.split_whitespace().map(|word| word.replace("{}", &folder)))
            .env_clear()
            .env("AKIN_HOME", akin.path("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let at = line.trim().strip_prefix("akin: listening on http://");
        let at = at.unwrap_or_else(|| panic!("the first line is {line}"));
        let at = at.split('/').next().expect("an address").to_owned();
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).expect("UTF-8");
            rest
        });
        Self { child, at, stderr: Some(rest) }
    }

    /// Sends a request; gives status and body.
    fn send(&self, head: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.at).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n",
            self.at,
            body.len()
        )
        .expect("send");
        stream.write_all(body).expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().expect("a status");
        (status, answer.split_off(end))
    }

    fn json(&self, head: &str) -> Value {
        let (status, body) = self.send(head, "text/plain", b"");
        assert_eq!(status, 200, "{head}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    fn search(&self, collection: &str, picture: &[u8]) -> (u16, Value) {
        let mut body =
            b"--x\r\ncontent-disposition: form-data; name=image; filename=a\r\n\r\n".to_vec();
        body.extend(picture);
        body.extend(b"\r\n--x--\r\n");
        let path = format!("POST /api/v1/collections/{collection}/search");
        let (status, body) = self.send(&path, "multipart/form-data; boundary=x", &body);
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Asks it to end as a service manager does; gives the exit code and the rest of stderr.
    #[cfg(unix)]
    fn end(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(status.success());
        let rest = self.stderr.take().expect("a thread").join().expect("read");
        (self.child.wait().expect("wait").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers in single precision, which is what they are of, however many digits they are written with.
fn single(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            (number.as_f64().expect("a number") as f32).into()
        }
        Value::Array(values) => values.iter().map(single).collect(),
        Value::Object(fields) => Value::Object(
            fields.iter().map(|(name, value)| (name.clone(), single(value))).collect(),
        ),
        value => value.clone(),
    }
}

#[cfg(unix)]
#[test]
fn it_indexes_answers_and_ends_well() {
    let akin = Akin::new();
    let folder = akin.pictures("photos", 8);
    let words = "serve --model {}/model --listen 127.0.0.1:0 --index {}/photos -c photos";
    let server = Server::start(&akin, words);
    let start = Instant::now();
    loop {
        let status = server.json("GET /api/v1/status");
        let collection = &status["collections"][0];
        assert_eq!(collection["name"], "photos");
        let idle = status["indexing"].as_array().is_some_and(Vec::is_empty);
        if collection["images"] == 8 && idle {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let picture = std::fs::read(folder.join("05.png")).expect("read");
    let (status, found) = server.search("photos", &picture);
    assert_eq!((status, found["hits"].as_array().map(Vec::len)), (200, Some(8)), "{found}");
    let path = found["hits"][0]["path"].as_str().expect("a path");
    assert!(path.ends_with("05.png"), "{path}");
    let original =
        format!("GET /api/v1/collections/photos/images/{}/original", found["hits"][0]["id"]);
    assert_eq!(server.send(&original, "text/plain", b""), (200, picture.clone()));
    assert_eq!(server.send("GET /readyz", "text/plain", b"").0, 200);

    // Other processes learn who has the collection.
    let refused = akin.run("collection compact photos");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("in use by process"), "{}", refused.stderr);

    let (code, rest) = server.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("/api/v1/collections/photos/search"), "{rest}");
    // The command line gives the same answer.
    let words =
        format!("search {} -c photos --model {{}}/model --json", folder.join("05.png").display());
    let same = akin.ok(&words).json();
    let mut hits = found["hits"].clone();
    for hit in hits.as_array_mut().expect("hits") {
        hit.as_object_mut().expect("a hit").remove("label");
    }
    assert_eq!(single(&hits), single(&same["hits"]));
}

#[test]
fn what_cannot_be_served_is_said_in_words() {
    let akin = Akin::new();
    akin.pictures("photos", 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = taken.local_addr().expect("address");
    for (words, code, message) in [
        (format!("serve --listen {taken}"), 1, "another program listens on"),
        ("serve --listen nowhere".to_owned(), 2, "--listen is `nowhere`"),
        ("serve --listen 127.0.0.1:0 -c none".to_owned(), 1, "there is no collection `none`"),
        ("serve --listen 127.0.0.1:0 --index {}/none".to_owned(), 1, "No such file"),
        ("serve --listen 127.0.0.1:0 --base-path a b".to_owned(), 2, "unexpected argument"),
        ("serve --listen 127.0.0.1:0 --base-path /a?b".to_owned(), 2, "--base-path is `/a?b`"),
        ("serve --listen 0.0.0.0:0".to_owned(), 2, "--insecure"),
        ("serve --listen 127.0.0.1:0 --tls-cert a".to_owned(), 2, "--tls-key"),
        ("serve --listen 127.0.0.1:0 --trusted-proxy x".to_owned(), 2, "--trusted-proxy is `x`"),
    ] {
        let run = akin.run(&words);
        assert_eq!(run.code, Some(code), "{words}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{words}: {}", run.stderr);
    }
}

#[cfg(unix)]
#[test]
fn what_changes_in_a_watched_folder_is_found() {
    let akin = Akin::new();
    let folder = akin.pictures("photos", 2);
    akin.pictures("more", 5);
    let words = "serve --model {}/model --listen 127.0.0.1:0 --index {}/photos --watch -q";
    let server = Server::start(&akin, words);
    let start = Instant::now();
    let mut copied = false;
    loop {
        let images = server.json("GET /api/v1/collections/default")["images"].clone();
        if images == 2 && !copied {
            std::fs::copy(akin.path("more/04.png"), folder.join("04.png")).expect("copy");
            copied = true;
        }
        if images == 3 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{images} images");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.end().0, Some(0));
}

/// One search on a connection of its own; `None` where the server takes no more, and what was
/// received otherwise.
fn search_once(at: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let head = format!(
        "POST /api/v1/collections/photos/search HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\
         content-type: multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    // Cut off in the middle, what came is looked at and found wanting.
    let _ = sent.and_then(|()| stream.read_to_end(&mut answer));
    (!answer.is_empty()).then_some(answer)
}

#[cfg(unix)]
#[test]
fn every_request_taken_is_answered_when_it_is_told_to_end() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let akin = Akin::new();
    let folder = akin.pictures("photos", 3);
    assert_eq!(akin.run("index {}/photos -c photos --model {}/model").code, Some(0));
    let server = Server::start(&akin, "serve --model {}/model --listen 127.0.0.1:0 -c photos");
    let mut body =
        b"--x\r\ncontent-disposition: form-data; name=image; filename=a\r\n\r\n".to_vec();
    body.extend(std::fs::read(folder.join("01.png")).expect("read"));
    body.extend(b"\r\n--x--\r\n");
    let (at, answered) = (server.at.clone(), AtomicUsize::new(0));
    let (whole, (code, log)) = std::thread::scope(|scope| {
        let client = || {
            let mut whole = 0;
            while let Some(answer) = search_once(&at, &body) {
                let text = String::from_utf8_lossy(&answer);
                let (head, json) = text.split_once("\r\n\r\n").expect("a whole head");
                assert!(head.starts_with("HTTP/1.1 200"), "{text}");
                let json: Value = serde_json::from_str(json).expect("a whole body");
                assert_eq!(json["hits"].as_array().map(Vec::len), Some(3));
                whole += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            whole
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        while answered.load(Ordering::Relaxed) < 40 {
            std::thread::yield_now();
        }
        let ended = server.end();
        let whole: usize = clients.into_iter().map(|client| client.join().expect("joined")).sum();
        (whole, ended)
    });
    assert_eq!(code, Some(0), "{log}");
    // The log has a line for every request that was taken.
    let taken = log.lines().filter(|line| line.contains("/photos/search")).count();
    assert_eq!(whole, taken, "{log}");
}
