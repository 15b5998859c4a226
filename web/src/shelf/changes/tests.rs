use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::decode::Decoded;
use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, Embedding, ModelIdentity, Pixels};
use futures_util::future::join_all;
use indexer::{Collections, CreateOptions, ImageId, Progress};
use serde_json::{Value, json};

use crate::jobs::JobState;
use crate::options::Options;
use crate::shelf::Served;
use crate::testing::{Server, TestModels, index, over, picture, png};

const IMAGES: &str = "/api/v1/collections/photos/images";
/// Width of the picture that is not prepared before the test says so.
const HELD_WIDTH: u32 = 33;

/// The model without weights, which holds one picture back: the job that reads it cannot end.
struct Holding {
    model: ThumbnailEmbedder,
    reached: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Embedder for Holding {
    fn identity(&self) -> &ModelIdentity {
        self.model.identity()
    }

    fn embed(&self, batch: &[Pixels]) -> engine::Result<Vec<Embedding>> {
        self.model.embed(batch)
    }

    fn prepare_decoded(&self, decoded: &Decoded) -> engine::Result<Pixels> {
        if decoded.image.width() == HELD_WIDTH {
            self.reached.lock().expect("lock").send(()).expect("told");
            let _ = self.go_on.lock().expect("lock").recv();
        }
        self.model.prepare_decoded(decoded)
    }
}

/// Ids and the names of files, which must be there once.
fn all(server: &Value) -> BTreeMap<String, u64> {
    let images = server["images"].as_array().expect("images");
    let name = |path: &Value| path.as_str().expect("path").rsplit('/').next().map(str::to_owned);
    let named: BTreeMap<String, u64> = images
        .iter()
        .map(|image| (name(&image["path"]).expect("name"), image["id"].as_u64().expect("id")))
        .collect();
    assert_eq!(named.len(), images.len(), "a file is there twice");
    assert_eq!(named.values().collect::<BTreeSet<_>>().len(), images.len(), "an id is there twice");
    named
}

async fn add(server: &Server, number: u32) -> u64 {
    let payload = format!(r#"{{"number": {number}}}"#);
    let parts = [("image", Some("x"), &png(number)[..]), ("payload", None, payload.as_bytes())];
    let answer = server.form(IMAGES, &parts).await;
    let item = answer.json();
    assert_eq!(answer.status.as_u16(), 201, "{item}");
    // Durable and to be found as soon as it is answered.
    let got = server.get(&format!("{IMAGES}/{}", item["id"])).await;
    assert_eq!((got.status.as_u16(), &got.json()["sha256"]), (200, &item["sha256"]));
    item["id"].as_u64().expect("id")
}

async fn patch(server: &Server, id: u64, body: &Value) {
    let answer = server.json("PATCH", &format!("{IMAGES}/{id}/payload"), body).await;
    assert_eq!(answer.status.as_u16(), 200, "{:?}", answer.json());
}

async fn remove(server: &Server, id: u64) {
    let answer = server.json("DELETE", &format!("{IMAGES}/{id}"), &Value::Null).await;
    assert_eq!(answer.status.as_u16(), 204, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_writes_are_made_while_a_job_indexes() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let pictures = folder.path().join("pictures");
    std::fs::create_dir_all(&pictures).expect("create");
    for number in 0..6 {
        picture(number).save(pictures.join(format!("{number:03}.png"))).expect("save");
    }
    index(&folder.path().join("home"), "photos", &pictures);
    for number in 6..240 {
        picture(number).save(pictures.join(format!("{number:03}.png"))).expect("save");
    }
    // Behind a few batches, and with some after it.
    let held = image::RgbImage::from_pixel(HELD_WIDTH, 40, image::Rgb([9, 9, 9]));
    held.save(pictures.join("160-held.png")).expect("save");
    let (reached, reaches) = channel();
    let (go_on, goes_on) = channel();
    let model = Holding {
        model: ThumbnailEmbedder::default(),
        reached: Mutex::new(reached),
        go_on: Mutex::new(goes_on),
    };
    let server = Server::with_model(folder, Options::default(), Arc::new(model));
    let served = server.state.shelf.find("photos").expect("served");
    let job = server.state.index(Arc::clone(&served), vec![pictures.clone()]).expect("taken");
    tokio::task::spawn_blocking(move || reaches.recv().expect("reached")).await.expect("joined");

    // The job is at work and cannot end: all of these are made all the same.
    let running = || server.state.jobs.find(&job.id).expect("there").state;
    let added = join_all((1000..1012).map(|number| add(&server, number))).await;
    let changes = [json!({"mine": 1}), json!({"mine": 2})];
    tokio::join!(
        patch(&server, 0, &changes[0]),
        patch(&server, added[0], &changes[1]),
        remove(&server, 1),
        remove(&server, added[1]),
    );
    assert_eq!(running(), JobState::Running);
    let missing = server.json("DELETE", &format!("{IMAGES}/1"), &Value::Null).await;
    assert_eq!(missing.code(), "image_not_found");
    go_on.send(()).expect("goes on");
    // And while it goes on to its end.
    let mut number = 2000;
    while !server.state.jobs.find(&job.id).expect("there").is_over() && number < 2200 {
        let id = add(&server, number).await;
        patch(&server, id, &json!({"late": true})).await;
        number += 1;
    }
    let job = over(&server, &json!(job.id)).await;
    assert_eq!((&job["state"], &job["result"]["added"]), (&json!("done"), &json!(235)), "{job}");

    let late = number as usize - 2000;
    let images = server.get(&format!("{IMAGES}?limit=1000")).await.json();
    let named = all(&images);
    assert_eq!(named.len(), 6 + 235 + 12 - 2 + late);
    assert!(!named.contains_key("001.png") && named.contains_key("160-held.png"));
    let payload = |id: u64| {
        let found = images["images"].as_array().expect("images").iter().find(|i| i["id"] == id);
        found.expect("image")["payload"].clone()
    };
    assert_eq!(payload(0)["mine"], 1);
    assert_eq!(payload(added[0]), json!({"number": 1000, "mine": 2}));
    let found = server.get(&format!("{IMAGES}?filter=late%3Dtrue&limit=1000")).await.json();
    assert_eq!(found["images"].as_array().expect("images").len(), late);
    let file = png(1005);
    let form = [("image", None, &file[..])];
    let like = server.form("/api/v1/collections/photos/search", &form);
    assert_eq!(like.await.json()["hits"][0]["id"], added[5]);

    let Server { folder, state, app } = server;
    drop((state, app, served));
    let (cancel, mut nothing) = (AtomicBool::new(false), |_| {});
    let collections = Collections::new(&folder.path().join("home"));
    let report = collections.check("photos", false, &mut Progress::new(&mut nothing, &cancel));
    assert!(report.as_ref().is_ok_and(|report| report.is_sound()), "{report:?}");
}

/// Somebody who has the writer and makes no changes of others.
async fn hold(served: &Arc<Served>) -> crate::shelf::Writer {
    let served = Arc::clone(served);
    tokio::task::spawn_blocking(move || served.write_blocking()).await.expect("joined")
}

async fn until_waiting(served: &Served, count: usize) {
    while served.line.waiting.lock().expect("lock").len() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn changes_that_waited_together_are_one_commit() {
    let server = Server::with_pictures(12);
    let served = server.state.shelf.find("photos").expect("served");
    let writer = hold(&served).await;
    let before = served.view().sequence();
    let change = json!({"a": 1});
    let changes = join_all((0..12).map(|id| patch(&server, id, &change)));
    let release = async {
        until_waiting(&served, 12).await;
        drop(writer);
    };
    tokio::join!(changes, release);
    assert_eq!(served.view().sequence(), before + 1);
    let changed = server.get(&format!("{IMAGES}?filter=a%3D1")).await.json();
    assert_eq!(changed["images"].as_array().expect("images").len(), 12);
}

#[tokio::test]
async fn who_gives_up_has_changed_nothing() {
    let server = Server::with_pictures(2);
    let served = server.state.shelf.find("photos").expect("served");
    let writer = hold(&served).await;
    {
        // Not over HTTP, where writes go on to their end.
        let gone = server.state.remove_image(&served, 0);
        tokio::select! {
            _ = gone => panic!("nobody has made it"),
            () = until_waiting(&served, 1) => {}
        }
    }
    drop(writer);
    remove(&server, 1).await;
    let images = server.get(IMAGES).await.json();
    assert_eq!(images["images"].as_array().expect("images").len(), 1);
    assert_eq!(images["images"][0]["id"], 0);
    assert!(served.line.waiting.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn an_upload_removed_and_sent_again_keeps_its_file() {
    let server = Server::with_pictures(1);
    let served = server.state.shelf.find("photos").expect("served");
    let id = add(&server, 70).await;
    let writer = hold(&served).await;
    let again = async {
        until_waiting(&served, 1).await;
        add(&server, 70).await
    };
    let release = async {
        until_waiting(&served, 2).await;
        drop(writer);
    };
    let ((), second, ()) = tokio::join!(remove(&server, id), again, release);
    assert_ne!(second, id);
    let original = server.get(&format!("{IMAGES}/{second}/original")).await;
    assert_eq!((original.status.as_u16(), original.body), (200, png(70)));
}

#[tokio::test]
async fn graphs_are_saved_in_the_background_and_when_the_server_ends() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (home, pictures) = (folder.path().join("home"), folder.path().join("pictures"));
    std::fs::create_dir_all(&pictures).expect("create");
    for number in 0..40 {
        picture(number).save(pictures.join(format!("{number:03}.png"))).expect("save");
    }
    let model = ThumbnailEmbedder::default();
    let options = CreateOptions { ann_from: Some(10), ..CreateOptions::default() };
    let created = Collections::new(&home).create("photos", model.identity(), options);
    drop(created.expect("created"));
    index(&home, "photos", &pictures);
    let mut folder = folder;
    // What a start would have to add to the graphs, after the server ended so.
    for (end, is_left) in [("killed", true), ("background", false), ("ended", false)] {
        let model = TestModels::default().0;
        let server = Server::with_model(folder, Options::default(), model);
        let served = server.state.shelf.find("photos").expect("served");
        assert!(served.view().is_approximate());
        let number = 100 + end.len() as u32;
        let id = add(&server, number).await;
        assert!(served.lacks_derivation() && !served.is_derivation_due(), "not with each change");
        match end {
            "background" => served.derive().expect("derived"),
            "ended" => server.state.save_graphs(Duration::from_secs(60)).await,
            _ => {}
        }
        let file = png(number);
        let form = [("image", None, &file[..]), ("k", None, b"1")];
        let found = server.form("/api/v1/collections/photos/search", &form);
        assert_eq!(found.await.json()["hits"][0]["id"], id, "{end}");
        let Server { folder: kept, state, app } = server;
        drop((state, app, served));
        let collection = Collections::new(&home).open("photos").expect("opens");
        assert_eq!(collection.is_derived_stale(), is_left, "{end}");
        assert!(collection.record(ImageId(id)).expect("catalog").is_some());
        drop(collection);
        folder = kept;
    }
}
