//! The line before the model: one thread owns all computing, and takes pictures of many requests at
//! once.
//!
//! A picture that comes alone is computed at once. Only while others are announced, being decoded at
//! this moment, does the thread wait for them, a few milliseconds at most. When the line is full, more
//! are refused; pictures whose requests have gone are not computed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use engine::{Embedding, Pixels};
use tokio::sync::oneshot;

use crate::metrics::{Metrics, Stage};
use crate::models::Model;
use crate::problem::{Answer, Problem};

/// How the line is kept.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOptions {
    /// Pictures that may wait.
    pub max_queue: usize,
    /// Most pictures in one forward pass.
    pub batch: usize,
    /// Longest wait for pictures that are announced.
    pub gather: Duration,
}

/// The end of the line where pictures are handed in. Cheap to clone; the thread ends with the last.
#[derive(Clone)]
pub struct Device {
    sender: Sender<Job>,
    announced: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    max_queue: usize,
}

/// A picture on its way to the line.
pub struct Announced(Arc<AtomicUsize>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Job {
    model: Model,
    pixels: Pixels,
    since: Instant,
    reply: oneshot::Sender<Result<Embedding, String>>,
    _announced: Announced,
}

impl Device {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(options: DeviceOptions, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (sender, receiver) = crossbeam_channel::bounded(options.max_queue.max(1));
        let announced = Arc::<AtomicUsize>::default();
        // Threads of its own: those shared by the process may be busy with decoding for an index.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(rayon::current_num_threads())
            .thread_name(|number| format!("embed-{number}"))
            .build()
            .map_err(std::io::Error::other)?;
        let line = Line {
            receiver,
            pool,
            announced: Arc::clone(&announced),
            metrics: Arc::clone(&metrics),
            options,
            others: VecDeque::new(),
        };
        std::thread::Builder::new().name("embed".to_owned()).spawn(move || line.run())?;
        Ok(Self { sender, announced, metrics, max_queue: options.max_queue })
    }

    /// Says that a picture will come soon, so that a batch may wait for it.
    pub fn announce(&self) -> Announced {
        self.announced.fetch_add(1, Ordering::Relaxed);
        Announced(Arc::clone(&self.announced))
    }

    /// The embedding of a picture. Giving up this future takes it out of the line.
    ///
    /// # Errors
    /// `overloaded` when the line is full; an internal failure of the model.
    pub async fn embed(
        &self,
        model: &Model,
        pixels: Pixels,
        announced: Announced,
    ) -> Answer<Embedding> {
        let (reply, replied) = oneshot::channel();
        let model = Arc::clone(model);
        let job = Job { model, pixels, since: Instant::now(), reply, _announced: announced };
        match self.sender.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Problem::overloaded("pictures", self.max_queue));
            }
            Err(TrySendError::Disconnected(_)) => {
                return Err(Problem::internal("the thread of the model has ended"));
            }
        }
        match replied.await {
            Ok(Ok(embedding)) => Ok(embedding),
            Ok(Err(reason)) => Err(Problem::internal(reason)),
            Err(_) => Err(Problem::internal("the model gave no answer")),
        }
    }

    /// Pictures that wait.
    pub fn waiting(&self) -> usize {
        self.sender.len()
    }

    /// Where times are noted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// The thread's end.
struct Line {
    receiver: Receiver<Job>,
    pool: rayon::ThreadPool,
    announced: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    options: DeviceOptions,
    /// Taken from the line, and for another model than the batch at hand.
    others: VecDeque<Job>,
}

impl Line {
    fn run(mut self) {
        while let Some(first) = self.others.pop_front().or_else(|| self.receiver.recv().ok()) {
            let batch = self.gather(first);
            self.compute(batch);
        }
    }

    /// A batch for one model.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let deadline = Instant::now() + self.options.gather;
        let mut batch = vec![first];
        let kept = std::mem::take(&mut self.others);
        for job in kept {
            self.add(job, &mut batch);
        }
        while batch.len() < self.options.batch && self.others.len() < self.options.batch {
            let job = match self.receiver.try_recv() {
                Ok(job) => job,
                Err(_) if self.announced.load(Ordering::Relaxed) <= batch.len() => break,
                Err(_) => match self.receiver.recv_deadline(deadline) {
                    Ok(job) => job,
                    Err(_) => break,
                },
            };
            self.add(job, &mut batch);
        }
        batch
    }

    fn add(&mut self, job: Job, batch: &mut Vec<Job>) {
        let same = batch.first().is_some_and(|first| Arc::ptr_eq(&first.model, &job.model));
        match same && batch.len() < self.options.batch {
            true => batch.push(job),
            false => self.others.push_back(job),
        }
    }

    fn compute(&self, mut batch: Vec<Job>) {
        batch.retain(|job| {
            let gone = job.reply.is_closed();
            if gone {
                self.metrics.abandoned();
            }
            !gone
        });
        let Some(model) = batch.first().map(|job| Arc::clone(&job.model)) else { return };
        let mut pixels = Vec::with_capacity(batch.len());
        let mut replies = Vec::with_capacity(batch.len());
        for job in batch {
            self.metrics.stage(Stage::Queue, job.since.elapsed());
            pixels.push(job.pixels);
            replies.push((job.reply, job._announced));
        }
        let start = Instant::now();
        let outputs = self.embed(&model, &pixels).unwrap_or_else(|reason| {
            // One picture cannot take down the rest.
            tracing::warn!(%reason, pictures = pixels.len(), "a batch failed");
            let alone = |one: &Pixels| {
                let mut outputs = self.embed(&model, std::slice::from_ref(one)).ok()?;
                outputs.pop()
            };
            let failed = || Err("the model failed".to_owned());
            pixels.iter().map(|one| alone(one).unwrap_or_else(failed)).collect()
        });
        self.metrics.batch(pixels.len(), start.elapsed());
        for ((reply, _announced), output) in replies.into_iter().zip(outputs) {
            // Who has gone meanwhile does not want it.
            let _ = reply.send(output);
        }
    }

    fn embed(
        &self,
        model: &Model,
        pixels: &[Pixels],
    ) -> Result<Vec<Result<Embedding, String>>, String> {
        let compute = || self.pool.install(|| model.embed(pixels));
        let embeddings = catch_unwind(AssertUnwindSafe(compute))
            .map_err(|_| "the model panicked".to_owned())?
            .map_err(|error| error.to_string())?;
        match embeddings.len() == pixels.len() {
            true => Ok(embeddings.into_iter().map(Ok).collect()),
            false => Err("the model gave another number of embeddings".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
