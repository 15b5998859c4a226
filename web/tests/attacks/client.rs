//! A client without manners, and the server's process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine::Embedder;
use engine::testing::ThumbnailEmbedder;
use indexer::{Collections, CreateOptions, IngestOptions};
use web::keys::{self, Role};

use crate::server::HOME;

/// One line of the table.
pub struct Attack {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Statuses that are right; 0 is a connection closed without an answer.
    pub expected: &'static [u16],
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(key, _)| key == name);
        let line = self.head.lines().find(|line| of(line))?;
        Some(line.split_once(": ")?.1.trim())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Nothing of the machine is in the answer, and a browser would do nothing with it.
    pub fn is_harmless(&self) -> Result<(), String> {
        let body = String::from_utf8_lossy(&self.body);
        for secret in ["root:x:", "\"sha256\": \"", "panicked at", "/src/", "RUST_BACKTRACE"] {
            if body.contains(secret) {
                return Err(format!("the answer has `{secret}`"));
            }
        }
        if self
            .head
            .lines()
            .any(|line| line.starts_with("injected") || line.starts_with("set-cookie"))
        {
            return Err(format!("injected: {}", self.head));
        }
        if self.head.contains("access-control-allow-origin") {
            return Err("another site may read the answer".to_owned());
        }
        let has_body = self.status >= 200 && self.header("x-request-id").is_some();
        if has_body && self.header("x-content-type-options") != Some("nosniff") {
            return Err(format!("a header is missing: {}", self.head));
        }
        if self.status >= 500 && ![502, 503].contains(&self.status) {
            return Err(format!("{} is a failure: {body}", self.status));
        }
        Ok(())
    }
}

pub struct Server {
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
    /// Keys for read, write and admin, if there are any.
    pub keys: Vec<String>,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input ends with this process; no reason to wait for that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server over eight pictures.
    pub fn start(with_keys: bool) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let home = folder.path().join("home");
        let pictures = home.join("roots/pictures");
        std::fs::create_dir_all(&pictures).expect("create");
        for number in 0..8 {
            std::fs::write(pictures.join(format!("{number}.png")), png(number)).expect("write");
        }
        let model = ThumbnailEmbedder::default();
        let collections = Collections::new(&home);
        let mut collection = collections
            .create("photos", model.identity(), CreateOptions::default())
            .expect("created");
        let cancel = std::sync::atomic::AtomicBool::new(false);
        let options = IngestOptions::default();
        indexer::ingest(&mut collection, &model, &[pictures], options, &mut |_| {}, &cancel)
            .expect("indexed");
        drop(collection);
        let roles = [Role::Read, Role::Write, Role::Admin];
        let keys = match with_keys {
            true => roles.map(|role| keys::create(&home, "", role).expect("a key").1).into(),
            false => Vec::new(),
        };
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["server::serve", "--exact", "--ignored", "--nocapture"])
            .env(HOME, &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        let address = address.expect("it listens");
        // Somebody must take what it says, or it would wait.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { folder, address, keys, child };
        server.is_alive().expect("alive");
        server
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A request with the headers that every request has.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n").into_bytes();
        let mut line =
            |name: &str, value: &str| bytes.extend(format!("{name}: {value}\r\n").bytes());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            line("host", &self.host());
        }
        if !body.is_empty() {
            line("content-length", &body.len().to_string());
        }
        headers.iter().for_each(|(name, value)| line(name, value));
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }

    pub fn get(&self, target: &str) -> Vec<u8> {
        self.request("GET", target, &[], b"")
    }

    pub fn json(&self, target: &str, body: &str) -> Vec<u8> {
        self.request("POST", target, &[("content-type", "application/json")], body.as_bytes())
    }

    /// A form with one file.
    pub fn upload(&self, target: &str, file: &[u8]) -> Vec<u8> {
        let mut body = b"--limit\r\ncontent-disposition: form-data; name=\"image\"; \
                         filename=\"../../../etc/passwd\"\r\ncontent-type: text/html\r\n\r\n"
            .to_vec();
        body.extend(file);
        body.extend(b"\r\n--limit--\r\n");
        self.request("POST", target, &[FORM], &body)
    }

    pub fn send(&self, attack: &Attack) -> Reply {
        self.exchange(&attack.bytes)
    }

    /// Sends bytes, and reads until the server is done.
    pub fn exchange(&self, bytes: &[u8]) -> Reply {
        self.converse(|stream| stream.write_all(bytes))
    }

    /// Writes and reads at the same time, so that an early answer is seen.
    pub fn converse(
        &self,
        write: impl FnOnce(&mut TcpStream) -> std::io::Result<()> + Send,
    ) -> Reply {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut writing = stream.try_clone().expect("cloned");
        let mut answer = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The server may have hung up.
                let _ = write(&mut writing);
            });
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                answer.extend(&buffer[..read]);
            }
            // Whoever still writes need not go on.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Reply { status, head, body: answer.split_off(end) }
    }

    /// Whether a search is answered.
    pub fn is_alive(&self) -> Result<(), String> {
        let mut headers = vec![("content-type", "application/json")];
        let key = self.keys.first().map(|key| format!("Bearer {key}"));
        if let Some(key) = &key {
            headers.push(("authorization", key));
        }
        let body = br#"{"id": 0, "k": 2}"#;
        let reply = self.exchange(&self.request("POST", SEARCH, &headers, body));
        match reply.status {
            200 => Ok(()),
            status => Err(format!("{status}: {}", String::from_utf8_lossy(&reply.body))),
        }
    }

    /// Bytes of memory that the server holds.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }
}

pub const SEARCH: &str = "/api/v1/collections/photos/search";
pub const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=limit");

pub fn attack(name: impl Into<String>, bytes: Vec<u8>, expected: &'static [u16]) -> Attack {
    Attack { name: name.into(), bytes, expected }
}

/// A picture of coloured squares, another for each number.
pub fn picture(number: u32) -> image::RgbImage {
    image::RgbImage::from_fn(120, 90, |x, y| {
        let mut h = (x / 15 * 31 + y / 15 * 17 + number * 101).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        image::Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
    })
}

pub fn png(number: u32) -> Vec<u8> {
    encoded(number, image::ImageFormat::Png)
}

pub fn encoded(number: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(number).write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}
