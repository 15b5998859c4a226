//! What operators watch, in the text format of OpenMetrics, which Prometheus reads.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Media type of what [`Metrics::text`] gives.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of buckets in seconds, from what a cached answer takes to what nobody waits for.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper ends of buckets of pictures in a batch.
const PICTURES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

type Labels<const N: usize> = [(&'static str, String); N];
type Timed<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;
type Level<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

/// Where the time of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Fetching a picture that a request names by its URL.
    Fetch,
    /// File to pixels.
    Decode,
    /// Pixels to model input.
    Preprocess,
    /// Waiting for the model.
    Queue,
    /// One forward pass, of however many pictures.
    Forward,
    /// Choosing images, in the graph or among all.
    Ann,
    /// Comparing the chosen ones exactly.
    Rescore,
    /// Folding, and reading what is known of the results.
    Records,
}

impl Stage {
    /// As its label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Queue => "queue",
            Self::Forward => "forward",
            Self::Ann => "ann",
            Self::Rescore => "rescore",
            Self::Records => "records",
        }
    }
}

/// All that is counted and timed.
pub struct Metrics {
    registry: Registry,
    requests: Timed<3>,
    stages: Timed<1>,
    batches: Histogram,
    abandoned: Counter,
    queue: Level<1>,
    models: Level<3>,
    images: Level<1>,
    recall: Level<1>,
    resident: Gauge,
}

/// What is looked up when somebody asks, rather than kept up to date.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// What waits, by what it waits for.
    pub waiting: Vec<(&'static str, usize)>,
    /// Name, fingerprint and dimension of open models.
    pub models: Vec<(String, String, usize)>,
    /// Images by collection.
    pub images: Vec<(String, usize)>,
    /// Share of the nearest images that searches through the graph find, by collection.
    pub recall: Vec<(String, f64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("akin"),
            requests: Family::new_with_constructor(seconds),
            stages: Family::new_with_constructor(seconds),
            batches: Histogram::new(PICTURES),
            abandoned: Counter::default(),
            queue: Family::default(),
            models: Family::default(),
            images: Family::default(),
            recall: Family::default(),
            resident: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let about = "Time from the last byte of the request's head to the head of the answer";
        let requests = self.requests.clone();
        registry.register_with_unit("http_request", about, Unit::Seconds, requests);
        let about = "Time of requests by what it is spent on";
        registry.register_with_unit("stage", about, Unit::Seconds, self.stages.clone());
        registry.register("embed_batch", "Pictures in one forward pass", self.batches.clone());
        let about = "Pictures that were not embedded because their requests had gone";
        registry.register("embed_abandoned", about, self.abandoned.clone());
        registry.register("waiting", "What waits now", self.queue.clone());
        registry.register("model", "Open models; always 1", self.models.clone());
        registry.register("images", "Images of a collection", self.images.clone());
        let about = "Share of the ten nearest images that a search through the graph finds";
        registry.register("recall", about, self.recall.clone());
        let about = "Memory of the process";
        registry.register_with_unit("process_resident", about, Unit::Bytes, self.resident.clone());
    }

    /// Notes an answered request. `route` is the pattern of its path.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes time spent.
    pub fn stage(&self, stage: Stage, took: Duration) {
        let labels = [("stage", stage.as_str().to_owned())];
        self.stages.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Notes a forward pass.
    pub fn batch(&self, pictures: usize, took: Duration) {
        self.batches.observe(pictures as f64);
        self.stage(Stage::Forward, took);
    }

    /// Notes a picture that nobody waits for any more.
    pub fn abandoned(&self) {
        self.abandoned.inc();
    }

    /// Everything as text.
    pub fn text(&self, levels: &Levels) -> String {
        for family in [&self.queue, &self.images, &self.recall] {
            family.clear();
        }
        self.models.clear();
        for (what, count) in &levels.waiting {
            let labels = [("for", (*what).to_owned())];
            self.queue.get_or_create(&labels).set(*count as f64);
        }
        for (name, fingerprint, dim) in &levels.models {
            let fingerprint = ("fingerprint", fingerprint.clone());
            let labels = [("name", name.clone()), fingerprint, ("dim", dim.to_string())];
            self.models.get_or_create(&labels).set(1.0);
        }
        for (name, count) in &levels.images {
            let labels = [("collection", name.clone())];
            self.images.get_or_create(&labels).set(*count as f64);
        }
        for (name, recall) in &levels.recall {
            self.recall.get_or_create(&[("collection", name.clone())]).set(*recall);
        }
        self.resident.set(i64::try_from(resident_bytes()).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Memory of this process in bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.request("POST", "/api/v1/collections/{name}/search", 200, Duration::from_millis(7));
        metrics.stage(Stage::Decode, Duration::from_millis(30));
        metrics.batch(3, Duration::from_millis(20));
        metrics.abandoned();
        let levels = Levels {
            waiting: vec![("model", 4)],
            models: vec![("m".to_owned(), "f".to_owned(), 8)],
            images: vec![("gone".to_owned(), 1)],
            recall: Vec::new(),
        };
        metrics.text(&levels);
        let text = metrics.text(&Levels { images: vec![("a\"b".to_owned(), 5)], ..levels });
        for line in [
            "akin_http_request_seconds_bucket{le=\"0.01\",method=\"POST\",\
             route=\"/api/v1/collections/{name}/search\",status=\"200\"} 1",
            "akin_stage_seconds_count{stage=\"decode\"} 1",
            "akin_stage_seconds_count{stage=\"forward\"} 1",
            "akin_embed_batch_sum 3.0",
            "akin_embed_abandoned_total 1",
            "akin_waiting{for=\"model\"} 4.0",
            "akin_model{name=\"m\",fingerprint=\"f\",dim=\"8\"} 1.0",
            "akin_images{collection=\"a\\\"b\"} 5.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("\"gone\""), "a collection that is gone is still counted");
    }
}
