//! Fetching what strangers name: every address is checked before it is connected to, at every hop.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::Url;
use reqwest::blocking::{Client, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use reqwest::redirect::Policy;

use super::address::is_public;
use super::date::parse_http_date;
use super::robots;
use super::{chain, header};

/// Redirects followed for one picture.
const MAX_HOPS: usize = 10;
/// Hosts whose checked addresses are kept; when there are more, all are forgotten.
const MAX_HOSTS: usize = 4096;

/// Finds the addresses of a host.
#[derive(Clone, Default)]
pub struct Resolver(Option<Arc<Find>>);

type Find = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// One that asks `find` in place of the system.
    pub fn new(
        find: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(find)))
    }

    fn find(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        match &self.0 {
            Some(find) => find(host),
            None => Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()),
        }
    }
}

impl PartialEq for Resolver {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

impl Eq for Resolver {}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// How strangers' URLs are fetched.
#[derive(Clone, Debug)]
pub(crate) struct GuardOptions {
    pub(crate) connect_timeout: Duration,
    /// Longest wait for the next bytes.
    pub(crate) idle_timeout: Duration,
    /// Longest time for one request with its redirects and body.
    pub(crate) total_timeout: Duration,
    pub(crate) user_agent: String,
    pub(crate) ignore_robots: bool,
    pub(crate) allow_private: bool,
    /// Addresses that are connected to though they are not public.
    pub(crate) allowed: Vec<IpAddr>,
    /// Only what says that it is a picture, or does not say what it is; no passwords, and no ports
    /// of the system's other services.
    pub(crate) pictures_only: bool,
    pub(crate) resolver: Resolver,
}

/// A body that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) body: Vec<u8>,
    /// What the server says, in nanoseconds since 1970; 0 if nothing.
    pub(crate) last_modified_ns: i64,
}

/// Why there is no body, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FetchFailure {
    /// Trying again would give the same.
    Final(String),
    /// Nothing was asked: the URL, or what it redirects to, is none that is fetched.
    Refused(String),
    /// It has more bytes than allowed.
    TooLarge(String),
    /// Trying again may help, after this long if the server said so.
    Passing { reason: String, retry_after: Option<Duration> },
}

impl FetchFailure {
    fn last(reason: impl Into<String>) -> Self {
        Self::Final(reason.into())
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), retry_after: None }
    }

    /// In words.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Final(reason)
            | Self::Refused(reason)
            | Self::TooLarge(reason)
            | Self::Passing { reason, .. } => reason,
        }
    }
}

/// A client for strangers' URLs; one for all threads.
pub(crate) struct Guarded {
    client: Client,
    checked: Arc<Checked>,
    options: GuardOptions,
}

/// Addresses that have been checked, by host. The client connects to these and to nothing else, so
/// that a name cannot stand for another address when it is connected to.
#[derive(Default)]
struct Checked(Mutex<HashMap<String, Vec<SocketAddr>>>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = known.get(name.as_str()).cloned();
        Box::pin(std::future::ready(match addresses {
            Some(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
            None => Err("its address was not checked".into()),
        }))
    }
}

impl Guarded {
    pub(crate) fn new(options: GuardOptions) -> Result<Self, String> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let checked = Arc::new(Checked::default());
        let client = Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            // In the blocking client this bounds each wait, not the whole transfer.
            .timeout(options.idle_timeout)
            .redirect(Policy::none())
            // A proxy would connect for us, to addresses that nobody checks.
            .no_proxy()
            .dns_resolver(Arc::clone(&checked))
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Self { client, checked, options })
    }

    /// Fetches one URL, with its redirects. Ends early, as a passing failure, once `stop` is set.
    pub(crate) fn get(
        &self,
        url: &str,
        max_bytes: u64,
        stop: &AtomicBool,
    ) -> Result<Fetched, FetchFailure> {
        let deadline = Instant::now() + self.options.total_timeout;
        let mut url = Url::parse(url)
            .map_err(|error| FetchFailure::refused(format!("it is no URL: {error}")))?;
        for _ in 0..=MAX_HOPS {
            self.check(&url)?;
            self.check_time(deadline)?;
            let response = self
                .client
                .get(url.clone())
                .send()
                .map_err(|error| FetchFailure::passing(chain(&error)))?;
            if !response.status().is_redirection() {
                return self.receive(response, max_bytes, deadline, stop);
            }
            let location = header(response.headers(), LOCATION.as_str())
                .ok_or_else(|| FetchFailure::last("a redirect to nowhere"))?;
            url = url
                .join(&location)
                .map_err(|error| FetchFailure::last(format!("redirected to no URL: {error}")))?;
        }
        Err(FetchFailure::last(format!("more than {MAX_HOPS} redirects")))
    }

    /// Resolves the host once, and refuses addresses that are not public.
    fn check(&self, url: &Url) -> Result<(), FetchFailure> {
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(FetchFailure::refused(format!("`{scheme}` is not fetched, only http(s)")));
        }
        let host = url.host_str().ok_or_else(|| FetchFailure::refused("the URL has no host"))?;
        if self.options.pictures_only {
            check_authority(url)?;
        }
        // A literal never comes to the resolver; the URL parser has made decimal and hexadecimal
        // forms plain.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.check_address(address);
        }
        let addresses =
            self.options.resolver.find(host).map_err(|error| {
                FetchFailure::passing(format!("{host} has no address: {error}"))
            })?;
        if addresses.is_empty() {
            return Err(FetchFailure::passing(format!("{host} has no address")));
        }
        addresses.iter().try_for_each(|&address| self.check_address(address))?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
        let mut known = self.checked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_HOSTS {
            known.clear();
        }
        known.insert(host.to_owned(), addresses);
        Ok(())
    }

    fn check_address(&self, address: IpAddr) -> Result<(), FetchFailure> {
        let GuardOptions { allow_private, allowed, .. } = &self.options;
        if *allow_private || is_public(address) || allowed.contains(&address) {
            return Ok(());
        }
        Err(FetchFailure::refused(format!(
            "{address} is not a public address; allow such with --allow-private-addresses"
        )))
    }

    fn check_time(&self, deadline: Instant) -> Result<(), FetchFailure> {
        if Instant::now() < deadline {
            return Ok(());
        }
        let limit = self.options.total_timeout.as_secs_f64();
        Err(FetchFailure::passing(format!("it took more than {limit} s")))
    }

    fn receive(
        &self,
        mut response: Response,
        max_bytes: u64,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> Result<Fetched, FetchFailure> {
        check_status(&response)?;
        let headers = response.headers();
        let tags = headers.get_all("x-robots-tag").iter().filter_map(|tag| tag.to_str().ok());
        if !self.options.ignore_robots
            && let Some(directive) = robots::refusal(tags)
        {
            return Err(FetchFailure::last(format!(
                "its site asks not to use it (X-Robots-Tag: {directive})"
            )));
        }
        let too_large = |size: &dyn std::fmt::Display| {
            FetchFailure::TooLarge(format!("it has {size} bytes, the limit is {max_bytes}"))
        };
        if self.options.pictures_only {
            check_type(headers)?;
        }
        let announced: Option<u64> =
            header(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        if let Some(size) = announced.filter(|&size| size > max_bytes) {
            return Err(too_large(&size));
        }
        let modified = header(headers, LAST_MODIFIED.as_str());
        let last_modified_ns = modified
            .and_then(|date| parse_http_date(&date))
            .map_or(0, |seconds| seconds.saturating_mul(1_000_000_000));
        let mut body = Vec::new();
        let mut buffer = vec![0; 1 << 15];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(FetchFailure::passing("stopped"));
            }
            self.check_time(deadline)?;
            match response.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => body.extend(&buffer[..read]),
                Err(error) => return Err(FetchFailure::passing(chain(&error))),
            }
            if body.len() as u64 > max_bytes {
                return Err(too_large(&"more"));
            }
        }
        Ok(Fetched { body, last_modified_ns })
    }
}

/// Refuses passwords, which no picture needs and which hide where a URL leads, and ports below 1024
/// that belong to something else than the web.
fn check_authority(url: &Url) -> Result<(), FetchFailure> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchFailure::refused("a URL with a user name is not fetched"));
    }
    match url.port_or_known_default() {
        Some(port) if port < 1024 && port != 80 && port != 443 => {
            Err(FetchFailure::refused(format!("port {port} is not asked; 80, 443 and 1024 on are")))
        }
        _ => Ok(()),
    }
}

/// Refuses what says that it is no picture.
fn check_type(headers: &HeaderMap) -> Result<(), FetchFailure> {
    let Some(kind) = header(headers, CONTENT_TYPE.as_str()) else { return Ok(()) };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let unsaid =
        matches!(essence.as_str(), "" | "application/octet-stream" | "binary/octet-stream");
    if unsaid || (essence.starts_with("image/") && !essence.starts_with("image/svg")) {
        return Ok(());
    }
    Err(FetchFailure::last(format!("it is `{essence}`, which is no picture")))
}

fn check_status(response: &Response) -> Result<(), FetchFailure> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let reason = match status.canonical_reason() {
        Some(reason) => format!("the server answered {} ({reason})", status.as_u16()),
        None => format!("the server answered {}", status.as_u16()),
    };
    // Time-outs, too early, too many requests, and the server's own troubles.
    match status.as_u16() {
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            let retry_after = retry_after(response.headers());
            Err(FetchFailure::Passing { reason, retry_after })
        }
        _ => Err(FetchFailure::Final(reason)),
    }
}

/// `Retry-After`, which is a number of seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = header(headers, RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = parse_http_date(&value)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(u64::try_from(then).ok()?).saturating_sub(now))
}
