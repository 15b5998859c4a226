//! What every request passes before a handler sees it, in this order: where it comes from, whose it
//! is, how often that caller asks, what the caller may do, the body, a turn.

pub mod access;
pub mod body;
pub mod client;
pub mod connections;
pub mod headers;
pub mod limits;
pub mod origin;
pub mod queue;
pub mod rate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;

use self::access::Access;
use self::client::Client;
pub use self::limits::Limits;
use self::origin::{Foreign, Hosts};
use self::queue::{Budget, Queue};
use self::rate::{Caller, Rates};
use crate::idempotency::{self, Answers};
use crate::keys::{Keys, Role, Verdict};
use crate::problem::{Answer, Code, Problem};
use crate::tls::Tls;

/// What the operator decided about access.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Limits of requests and connections.
    pub limits: Limits,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<IpNet>,
    /// Names, beside those of this machine, that requests may be for and that pages may come from.
    pub allowed_hosts: Vec<String>,
    /// Let everybody in who reaches the address, though there are no keys.
    pub is_insecure: bool,
    /// Encrypts connections, if set.
    pub tls: Option<Tls>,
}

/// The guard of one server.
pub struct Guard {
    settings: Settings,
    /// Path before all others; empty, or with a slash in front and none behind.
    base_path: String,
    keys: Keys,
    rates: Rates,
    queue: Queue,
    bodies: Arc<Budget>,
    answers: Answers,
}

/// Who makes a request; for handlers.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What the caller may do.
    pub role: Role,
    /// Whom limits go by.
    pub caller: Caller,
}

impl Guard {
    /// A guard of what lies below a base path, that knows these keys.
    pub fn new(settings: Settings, base_path: &str, keys: Keys) -> Arc<Self> {
        let Limits { rate, burst, in_flight, waiting, wait, bodies_bytes, .. } = settings.limits;
        Arc::new(Self {
            rates: Rates::new(rate, burst),
            queue: Queue::new(in_flight, waiting, wait),
            bodies: Arc::new(Budget::new(bodies_bytes)),
            answers: Answers::default(),
            base_path: base_path.to_owned(),
            settings,
            keys,
        })
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Puts the guard before all routes.
    pub fn protect(self: &Arc<Self>, routes: Router) -> Router {
        routes
            .layer(from_fn_with_state(Arc::clone(self), pass))
            .layer(from_fn_with_state(Arc::clone(self), finish))
    }

    /// Refuses to start where anybody could come in.
    ///
    /// # Errors
    /// The address can be reached from other machines, there are no keys, and nobody said that this
    /// is meant.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), String> {
        let is_safe = address.ip().is_loopback() || self.keys.are_required();
        if is_safe || self.settings.is_insecure {
            return Ok(());
        }
        Err(format!(
            "{address} can be reached from other machines, and there are no keys: make one with \
             `akin key create`, listen on 127.0.0.1, or let everybody in with --insecure"
        ))
    }

    /// The path behind the base path; `None` for what lies elsewhere.
    fn path<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let rest = request.uri().path().strip_prefix(self.base_path.as_str())?;
        if rest.is_empty() {
            return Some("/");
        }
        rest.starts_with('/').then_some(rest)
    }

    /// Where the request comes from and goes to.
    fn check_place(&self, request: &Request, client: Client, access: Access) -> Answer<()> {
        let headers = request.headers();
        let has_keys = self.keys.are_required();
        let hosts = match (has_keys, self.settings.is_insecure) {
            (true, _) => Hosts::Any,
            (false, false) => Hosts::Loopback,
            (false, true) => Hosts::Addresses,
        };
        if !has_keys && !self.settings.is_insecure && !client.is_local {
            return Err(Problem::new(
                Code::Forbidden,
                "without keys, only programs on the server's own machine are answered, and not \
                 through a proxy",
            )
            .remedy("make a key with `akin key create`"));
        }
        let allowed = &self.settings.allowed_hosts;
        let host = origin::host(request.uri(), headers).map_err(foreign)?;
        origin::check_host(host, hosts, allowed).map_err(foreign)?;
        // A proxy that is believed may have put its own name in place of the one asked for.
        let forwarded = headers.get("x-forwarded-host").and_then(|host| host.to_str().ok());
        let host = forwarded.filter(|_| client.through_trusted).unwrap_or(host);
        let is_page = access == Access::Open;
        origin::check_origin(request.method(), headers, host, allowed, is_page).map_err(foreign)
    }

    /// Whose request it is, and what that caller may do.
    fn identify(&self, request: &Request, client: Client) -> Answer<Option<Granted>> {
        let at = Caller::at(client.address);
        if !self.keys.are_required() {
            return Ok(Some(Granted { role: Role::Admin, caller: at }));
        }
        let mut given = request.headers().get_all(AUTHORIZATION).into_iter();
        let (first, more) = (given.next(), given.next());
        let Some(header) = first else { return Ok(None) };
        let text = header.to_str().ok().filter(|_| more.is_none());
        let key = text.and_then(|text| text.split_once(' '));
        let key = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match key.map(|(_, key)| self.keys.check(key.trim())) {
            Some(Verdict::Known(info)) => {
                Ok(Some(Granted { role: info.role, caller: Caller::Key(info.id.clone()) }))
            }
            Some(Verdict::Revoked) => Err(no_key("the key has been revoked")),
            Some(Verdict::Unknown) => Err(no_key("the key is not known here")),
            None => Err(no_key("the header Authorization is not of the form `Bearer akin_...`")),
        }
    }

    fn check_rate(&self, caller: &Caller) -> Answer<()> {
        self.rates.take(caller, Instant::now()).map_err(|wait| {
            let rate = self.settings.limits.rate;
            let detail = format!("this caller asks more than {rate} times a second");
            Problem::new(Code::RateLimited, detail).remedy("ask less often").retry_after(wait)
        })
    }
}

/// Everything before the handler.
async fn pass(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    match admit(&guard, &mut request).await {
        Ok(admitted) => work(&guard, admitted, request, next).await,
        Err(problem) => {
            let needs_key = problem.code == Code::MissingKey;
            let mut response = problem.into_response();
            if needs_key {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

/// A request that may be worked on, as far as the guard keeps hold of it.
struct Admitted {
    caller: Caller,
    body: axum::body::Bytes,
    is_write: bool,
    /// Given back when the answer is there.
    _room: queue::Taken,
}

async fn admit(guard: &Guard, request: &mut Request) -> Answer<Admitted> {
    let limits = &guard.settings.limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.target_bytes {
        let limit = limits.target_bytes;
        let detail = format!("the address has {target} bytes, the limit is {limit}");
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    // Every connection has its address set; a request without one was made within this process.
    let client = match peer {
        Some(peer) => Client::of(peer, request.headers(), &guard.settings.trusted_proxies),
        None => Client::WITHIN,
    };
    let path = guard.path(request).unwrap_or("/");
    let access = access::needed(request.method(), path);
    let is_write = access::writes(request.method(), path);
    let at = Caller::at(client.address);
    let place = match peer {
        Some(_) => guard.check_place(request, client, access),
        None => Ok(()),
    };
    let granted = place.and_then(|()| guard.identify(request, client));
    // Refusals count as well, or keys could be tried without an end.
    let granted = match granted {
        Ok(Some(granted)) => granted,
        Ok(None) => Granted { role: Role::Read, caller: at.clone() },
        Err(problem) => {
            guard.check_rate(&at)?;
            return Err(problem);
        }
    };
    // The operator's own machine is trusted with its own time.
    if guard.keys.are_required() || !client.is_local {
        guard.check_rate(&granted.caller)?;
    }
    let is_anonymous = guard.keys.are_required() && matches!(granted.caller, Caller::Address(_));
    match access {
        Access::Open => {}
        Access::Role(_) if is_anonymous => return Err(no_key("this needs a key")),
        Access::Role(needed) if granted.role < needed => {
            let detail = format!("this key is for role {}, this needs {needed}", granted.role);
            return Err(Problem::new(Code::Forbidden, detail)
                .remedy(format!("use a key made with `akin key create --role {needed}`")));
        }
        Access::Role(_) => {}
    }
    let given = std::mem::take(request.body_mut());
    let (body, room) = body::receive(given, request.headers(), limits, &guard.bodies).await?;
    *request.body_mut() = Body::from(body.clone());
    let caller = granted.caller.clone();
    request.extensions_mut().insert(granted);
    Ok(Admitted { caller, body, is_write, _room: room })
}

/// The handler, in its turn and in time.
async fn work(guard: &Guard, admitted: Admitted, request: Request, next: Next) -> Response {
    let limits = &guard.settings.limits;
    let turn = match guard.queue.turn().await {
        Ok(turn) => turn,
        Err(queue::Overloaded) => {
            return Problem::overloaded("requests", limits.waiting).into_response();
        }
    };
    let answer = async {
        match admitted.is_write {
            true => {
                let Admitted { caller, body, .. } = &admitted;
                idempotency::once(&guard.answers, caller, body, request, next).await
            }
            false => next.run(request).await,
        }
    };
    let answer = tokio::time::timeout(limits.work, answer).await;
    drop(turn);
    answer.unwrap_or_else(|_| {
        let detail = format!("the answer took more than {} s", limits.work.as_secs());
        Problem::new(Code::Timeout, detail)
            .remedy("ask for less at once, or try again later")
            .retry_after(Duration::from_secs(5))
            .into_response()
    })
}

/// Headers of every answer.
async fn finish(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let is_page = guard.path(&request).is_some_and(|path| !path.starts_with("/api/"));
    let mut response = next.run(request).await;
    headers::secure(response.headers_mut(), is_page);
    response
}

fn no_key(detail: &str) -> Problem {
    Problem::new(Code::MissingKey, detail)
        .remedy("send `Authorization: Bearer akin_...`; keys are made with `akin key create`")
}

fn foreign(foreign: Foreign) -> Problem {
    match foreign {
        Foreign::NoHost(detail) => Problem::new(Code::BadRequest, detail),
        Foreign::Host(host) => {
            let detail = format!("this server is not called `{host}`");
            Problem::new(Code::Forbidden, detail)
                .remedy("use its address, make a key, or allow the name with --allow-host")
        }
        Foreign::Origin(origin) => {
            let detail = format!("a page of {origin} asks, and is none of this server");
            Problem::new(Code::Forbidden, detail)
                .remedy("if it is to be trusted, allow its name with --allow-host")
        }
    }
}

#[cfg(test)]
mod tests;
