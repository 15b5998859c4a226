//! Pictures that a request names by URL. All that decides what may be asked of whom is in
//! `indexer::fetch`; here are the numbers, and the words for what went wrong.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use indexer::fetch::{Client, FetchError, FetchOptions, Resolver};
use tokio::sync::Semaphore;

use crate::problem::{Answer, Code, Problem};
use crate::request_id;

/// Characters of a URL.
const MAX_CHARS: usize = 2048;
/// Downloads at once; others wait.
const AT_ONCE: usize = 16;
/// Longest wait for one's turn.
const WAIT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(5);
const TOTAL: Duration = Duration::from_secs(15);

/// What may be asked of whom.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Connect also to addresses that are not on the public internet.
    pub allow_private: bool,
    /// Connect also to these.
    pub allowed: Vec<IpAddr>,
    /// Finds the addresses of hosts.
    pub resolver: Resolver,
}

/// Fetches pictures. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    client: Arc<OnceLock<indexer::Result<Client>>>,
    options: RemoteOptions,
    turns: Arc<Semaphore>,
    max_bytes: u64,
}

/// Ends a download whose request is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Remote {
    /// For pictures of at most `max_bytes`.
    pub fn new(options: RemoteOptions, max_bytes: u64) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { client: Arc::default(), options, turns, max_bytes }
    }

    /// The client, made when it is first needed, on a thread that may block.
    fn client(&self) -> Answer<&Client> {
        let client = self.client.get_or_init(|| {
            let RemoteOptions { allow_private, allowed, resolver } = self.options.clone();
            Client::new(&FetchOptions {
                connect_timeout: CONNECT,
                idle_timeout: IDLE,
                total_timeout: TOTAL,
                allow_private,
                allowed,
                resolver,
                pictures_only: true,
                // A person asks for one picture; no robot gathers them.
                ignore_robots: true,
                ..FetchOptions::default()
            })
        });
        client.as_ref().map_err(Problem::internal)
    }

    /// The bytes of a picture at a URL, whatever they are.
    ///
    /// # Errors
    /// `address_refused`, `remote_too_large`, `remote_failed`, or it is no URL that is taken.
    pub async fn get(&self, url: &str) -> Answer<Bytes> {
        let length = url.chars().count();
        if length > MAX_CHARS {
            let detail = format!("the URL has {length} characters, the limit is {MAX_CHARS}");
            return Err(Problem::new(Code::BadRequest, detail.clone()).field("url", detail));
        }
        let turn = tokio::time::timeout(WAIT, Arc::clone(&self.turns).acquire_owned());
        let Ok(turn) = turn.await else {
            return Err(Problem::overloaded("downloads", AT_ONCE));
        };
        let turn = turn.map_err(Problem::internal)?;
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&stop));
        let (remote, url) = (self.clone(), url.to_owned());
        // The turn goes along: a thread that waits for a slow name counts though its request is gone.
        let work = move || {
            let _turn = turn;
            remote.client()?.get(&url, remote.max_bytes, &stop).map_err(problem)
        };
        let got = tokio::task::spawn_blocking(request_id::carried(work)).await;
        got.map_err(Problem::internal)?.map(Bytes::from)
    }
}

/// The reasons name what the URL names, and nothing that only this machine knows: addresses that a
/// name has here, or how far a connection came, would make the server a map of its network.
fn problem(error: FetchError) -> Problem {
    match error {
        FetchError::Refused(reason) => {
            tracing::info!(%reason, "an address was refused");
            Problem::new(
                Code::AddressRefused,
                "pictures are only fetched from public addresses, not from this machine or a private \
                 network, and not by way of one: http or https, without a user name, at port 80, 443 or \
                 from 1024 on",
            )
            .remedy("save the picture and upload it")
        }
        FetchError::TooLarge(reason) => Problem::new(Code::RemoteTooLarge, reason),
        FetchError::Failed(reason) => {
            tracing::info!(%reason, "a picture was not fetched");
            // What a public server answered, anybody may know.
            let detail = match reason.starts_with("the server answered")
                || reason.starts_with("it ")
            {
                true => format!("the picture was not fetched: {reason}"),
                false => "the picture was not fetched: its server could not be reached".to_owned(),
            };
            Problem::new(Code::RemoteFailed, detail).remedy("save the picture and upload it")
        }
    }
}
