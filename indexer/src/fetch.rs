//! Downloads of many pictures at once, gentle to each host.
//!
//! Threads take URLs from queues, one for each host: never more at once from one host than allowed,
//! and none while the host has asked to wait. What fails in passing goes back to its queue.

mod queue;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use self::queue::{Queue, Task};
use crate::error::{IndexerError, Result};
pub use crate::http::Resolver;
use crate::http::{FetchFailure, Fetched, GuardOptions, Guarded};

/// The user agent unless another is set.
pub const USER_AGENT: &str = concat!("akin/", env!("CARGO_PKG_VERSION"), " (visual search)");

/// How often waiting looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// How pictures are downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Downloads at once, in all.
    pub downloads: usize,
    /// Downloads at once from one host.
    pub per_host: usize,
    /// Further tries of a download that failed in passing.
    pub retries: u32,
    /// Wait before the first further try; doubled each time, with up to half of it added by lot.
    pub backoff: Duration,
    /// Longest wait that a host may ask for; asking for more is a failure.
    pub longest_wait: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes.
    pub idle_timeout: Duration,
    /// Longest time for one try.
    pub total_timeout: Duration,
    /// What servers are told that we are.
    pub user_agent: String,
    /// Take pictures also where `X-Robots-Tag` asks not to.
    pub ignore_robots: bool,
    /// Connect also to addresses that are not on the public internet.
    pub allow_private: bool,
    /// Connect also to these.
    pub allowed: Vec<IpAddr>,
    /// Take only what says that it is a picture, or does not say what it is; from no URL with a
    /// password, and from no port of the system's other services.
    pub pictures_only: bool,
    /// Finds the addresses of hosts.
    pub resolver: Resolver,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            downloads: 16,
            per_host: 4,
            retries: 3,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
            user_agent: USER_AGENT.to_owned(),
            ignore_robots: false,
            allow_private: false,
            allowed: Vec::new(),
            pictures_only: false,
            resolver: Resolver::default(),
        }
    }
}

impl FetchOptions {
    fn client(&self) -> Result<Guarded> {
        let options = GuardOptions {
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            total_timeout: self.total_timeout,
            user_agent: self.user_agent.clone(),
            ignore_robots: self.ignore_robots,
            allow_private: self.allow_private,
            allowed: self.allowed.clone(),
            pictures_only: self.pictures_only,
            resolver: self.resolver.clone(),
        };
        Guarded::new(options).map_err(|reason| {
            IndexerError::InvalidRequest(format!("downloads cannot be set up: {reason}"))
        })
    }
}

/// Fetches one URL, without further tries: a picture that somebody names by hand.
///
/// # Errors
/// Why there is no content of at most `max_bytes`, in words.
pub fn fetch(url: &str, max_bytes: u64, options: &FetchOptions) -> Result<Vec<u8>, String> {
    once(&options.client().map_err(|error| error.to_string())?, url, max_bytes)
}

/// Fetches one URL with the default options and no further tries.
pub(crate) fn fetch_one(url: &str, max_bytes: u64) -> Result<Vec<u8>, String> {
    static CLIENT: OnceLock<Result<Guarded, String>> = OnceLock::new();
    let client = CLIENT
        .get_or_init(|| FetchOptions::default().client().map_err(|error| error.to_string()))
        .as_ref()
        .map_err(Clone::clone)?;
    once(client, url, max_bytes)
}

fn once(client: &Guarded, url: &str, max_bytes: u64) -> Result<Vec<u8>, String> {
    match client.get(url, max_bytes, &AtomicBool::new(false)) {
        Ok(fetched) => Ok(fetched.body),
        Err(failure) => Err(failure.reason()),
    }
}

/// Why a URL gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nothing was asked of anybody: the URL, or one it redirects to, is none that is fetched.
    #[error("{0}")]
    Refused(String),
    /// It has more bytes than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The other side did not give it.
    #[error("{0}")]
    Failed(String),
}

/// Fetches URLs one by one, without further tries, for a program that goes on; any number of threads
/// may use it.
#[derive(Clone)]
pub struct Client(Arc<Guarded>);

impl Client {
    /// A client with these options; those about many downloads have no effect.
    ///
    /// # Errors
    /// There is no TLS on this system.
    pub fn new(options: &FetchOptions) -> Result<Self> {
        Ok(Self(Arc::new(options.client()?)))
    }

    /// The content of a URL, of at most `max_bytes`. Ends early, as a failure, once `stop` is set.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self, url: &str, max_bytes: u64, stop: &AtomicBool) -> Result<Vec<u8>, FetchError> {
        match self.0.get(url, max_bytes, stop) {
            Ok(fetched) => Ok(fetched.body),
            Err(FetchFailure::Refused(reason)) => Err(FetchError::Refused(reason)),
            Err(FetchFailure::TooLarge(reason)) => Err(FetchError::TooLarge(reason)),
            Err(failure) => Err(FetchError::Failed(failure.reason())),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Sets up downloads.
pub(crate) struct Fetcher {
    client: Arc<Guarded>,
    options: FetchOptions,
}

/// The outcome of one download: which one, and its content or why there is none.
pub(crate) type Download = (usize, Result<Fetched, String>);

impl Fetcher {
    pub(crate) fn new(options: &FetchOptions) -> Result<Self> {
        Ok(Self { client: Arc::new(options.client()?), options: options.clone() })
    }

    /// Starts downloading; outcomes come as they are ready, numbered as the URLs are.
    pub(crate) fn start(
        &self,
        urls: impl IntoIterator<Item = String>,
        max_bytes: u64,
    ) -> Downloads {
        let queue = Queue::new(self.options.per_host.max(1));
        for (number, url) in urls.into_iter().enumerate() {
            queue.push(Task { number, url, tries: 0 });
        }
        let shared = Arc::new(Shared {
            client: Arc::clone(&self.client),
            options: self.options.clone(),
            max_bytes,
            queue,
            stop: AtomicBool::new(false),
        });
        // Bounded, so that contents do not pile up before a slow reader.
        let (sender, receiver) = crossbeam_channel::bounded(4);
        for _ in 0..self.options.downloads.max(1) {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            std::thread::spawn(move || shared.work(&sender));
        }
        Downloads { shared, receiver }
    }
}

/// Downloads in progress; dropping it ends them.
pub(crate) struct Downloads {
    shared: Arc<Shared>,
    receiver: Receiver<Download>,
}

impl Downloads {
    /// The next outcome; `None` when all are done or `cancel` is set.
    pub(crate) fn next(&self, cancel: &AtomicBool) -> Option<Download> {
        loop {
            match self.receiver.recv_timeout(LOOK) {
                Ok(download) => return Some(download),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// An outcome that is ready now.
    pub(crate) fn ready(&self) -> Option<Download> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Shared {
    client: Arc<Guarded>,
    options: FetchOptions,
    max_bytes: u64,
    queue: Queue,
    stop: AtomicBool,
}

impl Shared {
    fn work(&self, sender: &Sender<Download>) {
        while let Some(mut task) = self.queue.take(&self.stop, LOOK) {
            let outcome = self.client.get(&task.url, self.max_bytes, &self.stop);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = match outcome {
                Err(FetchFailure::Passing { reason, retry_after }) => {
                    match self.again(&mut task, reason, retry_after) {
                        None => continue,
                        Some(reason) => Err(reason),
                    }
                }
                Err(failure) => Err(failure.reason()),
                Ok(fetched) => Ok(fetched),
            };
            self.queue.done(&task.url);
            if sender.send((task.number, outcome)).is_err() {
                return;
            }
        }
    }

    /// Puts a download back, or says why it has failed for good.
    fn again(
        &self,
        task: &mut Task,
        reason: String,
        retry_after: Option<Duration>,
    ) -> Option<String> {
        if task.tries >= self.options.retries {
            return Some(match task.tries {
                0 => reason,
                tries => format!("{reason} (tried {} times)", tries + 1),
            });
        }
        if let Some(wait) = retry_after.filter(|&wait| wait > self.options.longest_wait) {
            let wait = wait.as_secs();
            return Some(format!("{reason}, and asks to wait {wait} s; try again later"));
        }
        let backoff = self.options.backoff.saturating_mul(1 << task.tries.min(10));
        task.tries += 1;
        let jitter = backoff.mul_f64(0.5 * queue::lot(&task.url, task.tries));
        let wait = retry_after.unwrap_or_default().max(backoff + jitter);
        self.queue.put_back(task.clone(), wait, retry_after.is_some());
        None
    }
}
