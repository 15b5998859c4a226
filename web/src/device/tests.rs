use std::sync::Mutex;

use engine::testing::ThumbnailEmbedder;
use engine::{Embedder, EngineError, ModelIdentity};

use super::*;
use crate::problem::Code;

/// Notes the sizes of batches, waits until it is let go, and fails for batches of a kind.
struct Watched {
    inner: ThumbnailEmbedder,
    batches: Mutex<Vec<usize>>,
    gate: Mutex<std::sync::mpsc::Receiver<()>>,
    fails_above: usize,
    panics: bool,
}

impl Embedder for Watched {
    fn identity(&self) -> &ModelIdentity {
        self.inner.identity()
    }

    fn embed(&self, batch: &[Pixels]) -> engine::Result<Vec<Embedding>> {
        self.batches.lock().expect("lock").push(batch.len());
        let _ = self.gate.lock().expect("lock").recv();
        assert!(!self.panics, "on purpose");
        if batch.len() > self.fails_above {
            return Err(EngineError::NoSuchLayer { layer: 1, depth: 0 });
        }
        self.inner.embed(batch)
    }
}

fn watched(fails_above: usize, panics: bool) -> (Arc<Watched>, std::sync::mpsc::Sender<()>) {
    let (gate, opened) = std::sync::mpsc::channel();
    let inner = ThumbnailEmbedder::default();
    let (batches, opened) = (Mutex::default(), Mutex::new(opened));
    (Arc::new(Watched { inner, batches, gate: opened, fails_above, panics }), gate)
}

fn device(max_queue: usize) -> Device {
    let options = DeviceOptions { max_queue, batch: 4, gather: Duration::from_millis(1) };
    Device::start(options, Arc::default()).expect("starts")
}

fn pixels(model: &Model, number: u32) -> Pixels {
    model.prepare(&crate::testing::picture(number)).expect("prepares")
}

/// Hands in pictures, in order, and waits until they are in the line.
async fn hand_in(
    device: &Device,
    model: &Model,
    numbers: std::ops::Range<u32>,
) -> Vec<tokio::task::JoinHandle<Answer<Embedding>>> {
    let mut tasks = Vec::new();
    for number in numbers {
        let (device, model) = (device.clone(), Arc::clone(model));
        let pixels = pixels(&model, number);
        let before = device.announced.load(Ordering::Relaxed);
        tasks.push(tokio::spawn({
            let device = device.clone();
            async move { device.embed(&model, pixels, device.announce()).await }
        }));
        while device.announced.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    tasks
}

#[tokio::test]
async fn what_waits_is_computed_together_and_each_gets_its_own() {
    let (watched, gate) = watched(usize::MAX, false);
    let model: Model = watched.clone();
    let device = device(100);
    let first = hand_in(&device, &model, 0..1).await;
    while watched.batches.lock().expect("lock").is_empty() {
        tokio::task::yield_now().await;
    }
    let others = hand_in(&device, &model, 1..10).await;
    for _ in 0..4 {
        gate.send(()).expect("send");
    }
    for (number, task) in first.into_iter().chain(others).enumerate() {
        let got = task.await.expect("joined").expect("an embedding");
        let alone = watched.inner.embed(&[pixels(&model, number as u32)]).expect("embeds");
        assert_eq!(got, alone[0], "{number}");
    }
    assert_eq!(*watched.batches.lock().expect("lock"), [1, 4, 4, 1]);
}

#[tokio::test]
async fn a_full_line_refuses_and_who_gives_up_is_not_computed() {
    let (watched, gate) = watched(usize::MAX, false);
    let model: Model = watched.clone();
    let device = device(3);
    let first = hand_in(&device, &model, 0..1).await;
    while watched.batches.lock().expect("lock").is_empty() {
        tokio::task::yield_now().await;
    }
    let waiting = hand_in(&device, &model, 1..4).await;
    let refused = device.embed(&model, pixels(&model, 9), device.announce()).await;
    let refused = refused.expect_err("refused");
    assert_eq!(refused.code, Code::Overloaded);
    assert!(refused.retry_after.is_some());
    for task in waiting.iter().take(2) {
        task.abort();
    }
    for (number, task) in waiting.into_iter().enumerate() {
        if number < 2 {
            assert!(task.await.is_err());
        } else {
            gate.send(()).expect("send");
            gate.send(()).expect("send");
            assert!(task.await.expect("joined").is_ok());
        }
    }
    for task in first {
        assert!(task.await.expect("joined").is_ok());
    }
    // The two that gave up were in no batch.
    assert_eq!(*watched.batches.lock().expect("lock"), [1, 1]);
}

#[tokio::test]
async fn a_batch_that_fails_is_computed_one_by_one() {
    let (watched, gate) = watched(1, false);
    let model: Model = watched.clone();
    let device = device(100);
    drop(gate);
    let tasks = hand_in(&device, &model, 0..6).await;
    for task in tasks {
        assert!(task.await.expect("joined").is_ok());
    }
}

#[tokio::test]
async fn a_panic_of_a_model_is_a_problem_and_the_next_is_answered() {
    let (watched, gate) = watched(usize::MAX, true);
    drop(gate);
    let model: Model = watched;
    let device = device(100);
    let failed = device.embed(&model, pixels(&model, 0), device.announce()).await;
    assert_eq!(failed.expect_err("fails").code, Code::Internal);
    let sound: Model = Arc::new(ThumbnailEmbedder::default());
    assert!(device.embed(&sound, pixels(&sound, 0), device.announce()).await.is_ok());
}
