//! Requests to other machines. Only this module names reqwest.

mod address;
mod date;
mod guarded;
mod robots;

use std::io::Read;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, IF_RANGE, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy, StatusCode, Url};

pub use self::guarded::Resolver;
pub(crate) use self::guarded::{FetchFailure, Fetched, GuardOptions, Guarded};

/// How to reach the network.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes; a slow server that keeps sending is fine.
    pub idle_timeout: Duration,
    /// Proxy for all requests, such as `http://proxy:3128`.
    pub proxy: Option<String>,
    /// Hosts reached without the proxy, comma-separated.
    pub no_proxy: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            proxy: None,
            no_proxy: None,
        }
    }
}

/// Why a request gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpFailure {
    /// No answer: refused, unknown host, cut, timed out. In words.
    Network(String),
    /// An answer with an error status, and after how long to ask again if it said so.
    Status { code: u16, retry_after: Option<Duration> },
}

/// What the hub says about a file without sending it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) commit: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) size: Option<u64>,
}

/// A body being received.
pub(crate) struct Download {
    response: Response,
    /// First byte of the file in this body: 0, or where the range asked for starts.
    pub(crate) start: u64,
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.response.read(buffer)
    }
}

pub(crate) struct Http {
    /// Follows redirects; credentials are dropped when the host changes.
    follow: Client,
    /// Shows redirects, whose headers carry the hashes.
    stay: Client,
    proxy: Option<String>,
}

impl Http {
    pub(crate) fn new(options: &HttpOptions) -> Result<Self, String> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |redirects: Policy| {
            let mut builder = Client::builder()
                .user_agent(concat!("akin/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(options.connect_timeout)
                // In the blocking client this bounds each wait, not the whole transfer.
                .timeout(options.idle_timeout)
                .redirect(redirects)
                .no_proxy();
            if let Some(proxy) = &options.proxy {
                let bypass = options.no_proxy.as_deref().and_then(NoProxy::from_string);
                let proxy = Proxy::all(proxy).map_err(|error| chain(&error))?;
                builder = builder.proxy(proxy.no_proxy(bypass));
            }
            builder.build().map_err(|error| chain(&error))
        };
        Ok(Self {
            follow: client(Policy::limited(10))?,
            stay: client(Policy::none())?,
            proxy: options.proxy.clone(),
        })
    }

    /// Asks for a file's commit, hash and size, following redirects only within the host.
    pub(crate) fn head(&self, url: &str, token: Option<&str>) -> Result<RemoteFile, HttpFailure> {
        let mut file = RemoteFile::default();
        let mut url =
            Url::parse(url).map_err(|error| HttpFailure::Network(format!("{url}: {error}")))?;
        for _ in 0..5 {
            let response = self.send(self.stay.head(url.clone()), token)?;
            let headers = response.headers();
            let text = |name: &str| header(headers, name);
            file.commit = file.commit.or_else(|| text("x-repo-commit"));
            file.etag = file.etag.or_else(|| text("x-linked-etag"));
            file.size = file.size.or_else(|| text("x-linked-size")?.parse().ok());
            let next = header(headers, LOCATION.as_str()).and_then(|to| url.join(&to).ok());
            match next.filter(|_| response.status().is_redirection()) {
                Some(next) if next.origin() == url.origin() => url = next,
                Some(_) => break,
                None => {
                    file.etag = file.etag.or_else(|| text("etag"));
                    file.size = file.size.or_else(|| text("content-length")?.parse().ok());
                    break;
                }
            }
        }
        file.etag =
            file.etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        Ok(file)
    }

    /// Fetches a file, from byte `start` on if the server still has the one named by `etag`.
    pub(crate) fn get(
        &self,
        url: &str,
        token: Option<&str>,
        start: u64,
        etag: Option<&str>,
    ) -> Result<Download, HttpFailure> {
        let mut request = self.follow.get(url);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
            if let Some(etag) = etag {
                request = request.header(IF_RANGE, format!("\"{etag}\""));
            }
        }
        let response = self.send(request, token)?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(response.headers(), CONTENT_RANGE.as_str());
                let first = range.as_deref().and_then(|range| {
                    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
                });
                first.filter(|&first: &u64| first == start).ok_or_else(|| {
                    HttpFailure::Network(format!("asked for bytes from {start}, got {range:?}"))
                })?
            }
            _ => 0,
        };
        Ok(Download { response, start })
    }

    fn send(&self, request: RequestBuilder, token: Option<&str>) -> Result<Response, HttpFailure> {
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let response = request.send().map_err(|error| {
            let through = self.proxy.as_ref().map(|proxy| format!(" (through the proxy {proxy})"));
            HttpFailure::Network(format!("{}{}", chain(&error), through.unwrap_or_default()))
        })?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let retry_after = header(response.headers(), "retry-after");
            let seconds = retry_after.and_then(|seconds| seconds.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Err(HttpFailure::Status { code: status.as_u16(), retry_after });
        }
        Ok(response)
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The innermost cause says what happened; the outer ones only that something did.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
