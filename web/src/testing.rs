//! A server without a network, for tests: collections of drawn pictures, and a model without weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use engine::testing::ThumbnailEmbedder;
use http_body_util::BodyExt;
use indexer::{Collections, CreateOptions, IngestOptions, Manifest};
use serde_json::Value;
use tower::ServiceExt;

use crate::clock::Clock;
use crate::models::{Model, ModelSource, NamedModel};
use crate::options::Options;
use crate::shelf::Which;
use crate::state::{AppState, Config};

/// A home of its own with the server over it.
pub struct Server {
    pub folder: tempfile::TempDir,
    pub state: AppState,
    pub app: Router,
}

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The code of a problem, whose form is checked.
    pub fn code(&self) -> String {
        let json = self.json();
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json", "{json}");
        assert_eq!(json["status"], self.status.as_u16(), "{json}");
        assert_eq!(json["request_id"], self.headers["x-request-id"].to_str().expect("text"));
        json["code"].as_str().expect("a code").to_owned()
    }
}

/// The model without weights, by whatever name.
pub struct TestModels(pub Model);

impl Default for TestModels {
    fn default() -> Self {
        Self(Arc::new(ThumbnailEmbedder::default()))
    }
}

impl ModelSource for TestModels {
    fn for_collection(&self, _: &Manifest) -> Result<Model, String> {
        Ok(Arc::clone(&self.0))
    }

    fn named(&self, name: Option<&str>) -> Result<NamedModel, String> {
        match name {
            None | Some("thumbnail") => {
                Ok(NamedModel { model: Arc::clone(&self.0), source: "thumbnail".to_owned() })
            }
            Some(name) => Err(format!("there is no model `{name}` here")),
        }
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

impl Server {
    /// With a collection `photos` of this many pictures, `00.png` and so on, ids from 0.
    pub fn with_pictures(count: u32) -> Self {
        Self::with_options(count, Options::default())
    }

    pub fn with_options(count: u32, options: Options) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let pictures = folder.path().join("pictures");
        std::fs::create_dir_all(&pictures).expect("create");
        for number in 0..count {
            picture(number).save(pictures.join(format!("{number:02}.png"))).expect("save");
        }
        index(&folder.path().join("home"), "photos", &pictures);
        Self::over(folder, options)
    }

    /// Over what is in the folder `home` of this folder.
    pub fn over(folder: tempfile::TempDir, options: Options) -> Self {
        Self::with_model(folder, options, TestModels::default().0)
    }

    /// Over what is there, with a model of the test's own.
    pub fn with_model(folder: tempfile::TempDir, options: Options, model: Model) -> Self {
        let home = folder.path().join("home");
        let state = AppState::open(Config {
            home,
            collections: Which::All,
            models: Box::new(TestModels(model)),
            options,
            clock: Clock::manual(),
        });
        let state = state.expect("opens");
        Self { folder, app: crate::app(state.clone()), state }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.app.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Answered {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answered {
        self.json("POST", path, body).await
    }

    /// Sends a form: names, file names and contents.
    pub async fn form(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answered {
        let mut body = Vec::new();
        for (name, file, content) in parts {
            let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
            body.extend(b"--limit\r\n");
            body.extend(
                format!("content-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
            );
            body.extend(*content);
            body.extend(b"\r\n");
        }
        body.extend(b"--limit--\r\n");
        let request =
            Request::post(path).header(CONTENT_TYPE, "multipart/form-data; boundary=limit");
        self.send(request.body(Body::from(body)).expect("a request")).await
    }
}

/// Waits for a job; what it is then.
pub async fn over(server: &Server, id: &Value) -> Value {
    let id = id.as_str().expect("an id");
    let mut watched = server.state.jobs.watch(id).expect("there");
    while !watched.job().is_over() {
        watched.changed().await;
    }
    server.get(&format!("/api/v1/jobs/{id}")).await.json()
}

/// Brings a collection up to date with a folder.
pub fn index(home: &Path, name: &str, folder: &Path) {
    let model = ThumbnailEmbedder::default();
    let collections = Collections::new(home);
    let mut collection = match collections.exists(name).expect("a name") {
        true => collections.open(name),
        false => {
            collections.create(name, engine::Embedder::identity(&model), CreateOptions::default())
        }
    }
    .expect("opens");
    let cancel = std::sync::atomic::AtomicBool::new(false);
    let sources = [folder.to_path_buf()];
    let options = IngestOptions::default();
    indexer::ingest(&mut collection, &model, &sources, options, &mut |_| {}, &cancel)
        .expect("indexed");
}

/// A picture of coloured squares, another for each number; 120 x 90.
pub fn picture(number: u32) -> image::RgbImage {
    image::RgbImage::from_fn(120, 90, |x, y| {
        let mut h = (x / 15 * 31 + y / 15 * 17 + number * 101).wrapping_mul(2_654_435_761);
        h ^= h >> 15;
        image::Rgb([h as u8, (h >> 8) as u8, (h >> 16) as u8])
    })
}

/// The picture as a PNG file.
pub fn png(number: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(number).write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}
