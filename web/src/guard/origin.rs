//! Whether a browser may be asking on behalf of another site.
//!
//! Without keys, every page that a browser on this machine shows could ask us: directly (a
//! cross-site request), or by giving its own name our address (DNS rebinding). The first is told by
//! `Origin` and `Sec-Fetch-Site`, which pages cannot forge, the second by `Host`.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};

/// Names a request may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any: callers have keys, which other sites do not know.
    Any,
    /// Names of this machine.
    Loopback,
    /// Names of this machine and bare addresses, which DNS cannot point elsewhere.
    Addresses,
}

/// What is wrong with where a request says it goes, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It does not say, or says several things.
    NoHost(String),
    /// It is for another name.
    Host(String),
    /// It is from another site's page.
    Origin(String),
}

/// The one host of a request, without checking whose.
///
/// # Errors
/// There is none, or more than one.
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Foreign> {
    let mut hosts = headers.get_all(HOST).into_iter();
    let (first, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Foreign::NoHost("it has more than one Host header".to_owned()));
    }
    let text = first.and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Foreign::NoHost("it has no Host header".to_owned()))?;
    match uri.authority().map(|authority| authority.as_str()) {
        Some(authority) if authority != text => {
            Err(Foreign::NoHost("its target and its Host header differ".to_owned()))
        }
        _ => Ok(text),
    }
}

/// Refuses hosts that are not ours.
///
/// # Errors
/// Which it is.
pub fn check_host(host: &str, hosts: Hosts, allowed: &[String]) -> Result<(), Foreign> {
    let name = name_of(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let is_ours = match hosts {
        Hosts::Any => true,
        Hosts::Loopback => address.is_some_and(|a| a.is_loopback()),
        Hosts::Addresses => address.is_some(),
    };
    if is_ours || is_localhost(name) || is_allowed(name, allowed) {
        return Ok(());
    }
    Err(Foreign::Host(printable(host)))
}

/// Refuses what pages of other sites ask for. `is_page` says that it is for something that other
/// sites may link to.
///
/// # Errors
/// Which site it is, as far as it says.
pub fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    host: &str,
    allowed: &[String],
    is_page: bool,
) -> Result<(), Foreign> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_read = *method == Method::GET || *method == Method::HEAD;
    if let Some(origin) = text(ORIGIN.as_str()) {
        // `null` stands for anything from a sandboxed frame to a file on disk.
        let of = origin.split_once("://").map(|(_, authority)| authority);
        let is_own = of.is_some_and(|authority| {
            authority.eq_ignore_ascii_case(host) || is_allowed(name_of(authority), allowed)
        });
        if !is_own {
            return Err(Foreign::Origin(printable(origin)));
        }
    }
    match text("sec-fetch-site") {
        // `none`: the person typed the address or opened a bookmark.
        None | Some("same-origin" | "none") => Ok(()),
        // A link to the page from elsewhere, or an address with an API's answer opened as a page.
        Some(_) if is_read && text("sec-fetch-mode") == Some("navigate") && is_page => Ok(()),
        Some(_) if is_allowed_origin(text(ORIGIN.as_str()), allowed) => Ok(()),
        Some(_) => Err(Foreign::Origin("another site".to_owned())),
    }
}

fn is_allowed_origin(origin: Option<&str>, allowed: &[String]) -> bool {
    let authority = origin.and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, authority)| is_allowed(name_of(authority), allowed))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// RFC 6761 gives these names to this machine; resolvers do not ask the net for them.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn is_allowed(name: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn other_names_are_refused_without_keys() {
        let allowed = ["akin.example".to_owned()];
        for (host, loopback, addresses) in [
            ("localhost:7878", true, true),
            ("LOCALHOST", true, true),
            ("akin.localhost.:80", true, true),
            ("127.0.0.1:7878", true, true),
            ("127.8.8.8", true, true),
            ("[::1]:7878", true, true),
            ("192.168.1.5:7878", false, true),
            ("[2001:db8::1]", false, true),
            ("akin.example:443", true, true),
            ("evil.example:7878", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("127.0.0.1@evil.example", false, false),
            ("2130706433", false, false),
            ("", false, false),
        ] {
            let check = |hosts| check_host(host, hosts, &allowed).is_ok();
            assert_eq!(check(Hosts::Loopback), loopback, "{host}");
            assert_eq!(check(Hosts::Addresses), addresses, "{host}");
            assert!(check(Hosts::Any), "{host}");
        }
    }

    #[test]
    fn a_request_is_for_one_host() {
        let of = |uri: &str, pairs: &[(&'static str, &str)]| {
            let uri: Uri = uri.parse().expect("a URI");
            host(&uri, &headers(pairs)).map(str::to_owned)
        };
        assert_eq!(of("/x", &[("host", "a")]), Ok("a".to_owned()));
        assert_eq!(of("http://a/x", &[("host", "a")]), Ok("a".to_owned()));
        assert!(of("/x", &[]).is_err());
        assert!(of("/x", &[("host", "a"), ("host", "b")]).is_err());
        assert!(of("http://b/x", &[("host", "a")]).is_err());
    }

    #[test]
    fn pages_of_other_sites_may_link_and_nothing_else() {
        let allowed = ["front.example".to_owned()];
        let (get, post) = (Method::GET, Method::POST);
        for (method, pairs, page, api) in [
            (&get, vec![], true, true),
            (&post, vec![], true, true),
            (&post, vec![("origin", "http://127.0.0.1:1")], true, true),
            (&post, vec![("origin", "http://127.0.0.1:2")], false, false),
            (&post, vec![("origin", "http://evil.example")], false, false),
            (&post, vec![("origin", "null")], false, false),
            (&post, vec![("origin", "https://front.example")], true, true),
            (&get, vec![("sec-fetch-site", "same-origin")], true, true),
            (&get, vec![("sec-fetch-site", "none")], true, true),
            (&get, vec![("sec-fetch-site", "cross-site")], false, false),
            (&get, vec![("sec-fetch-site", "same-site")], false, false),
            (
                &get,
                vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
                true,
                false,
            ),
            (
                &post,
                vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
                false,
                false,
            ),
        ] {
            let check = |is_page| {
                check_origin(method, &headers(&pairs), "127.0.0.1:1", &allowed, is_page).is_ok()
            };
            assert_eq!((check(true), check(false)), (page, api), "{method} {pairs:?}");
        }
    }
}
