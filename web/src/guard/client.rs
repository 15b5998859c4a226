//! Who a request comes from: the address of the connection, unless that is a proxy that the operator
//! trusts to say for whom it asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// What proxies add. A request with any of these did not come straight from a client.
const BY_PROXIES: [&str; 5] = [FORWARDED, X_FORWARDED_FOR, "x-forwarded-host", "x-real-ip", "via"];
/// Addresses of a chain that are looked at.
const MAX_HOPS: usize = 16;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that limits go by: the client's, or that of the last proxy that can be believed.
    pub address: IpAddr,
    /// Whether a program on this machine asks, and no proxy for somebody else.
    pub is_local: bool,
    /// Whether the connection is that of a trusted proxy.
    pub through_trusted: bool,
}

impl Client {
    /// This process itself.
    pub const WITHIN: Self =
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_local: true, through_trusted: false };

    /// Reads a request's headers as far as they can be believed.
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = plain(peer.ip());
        let through_trusted = is_trusted(peer, trusted);
        let is_forwarded = BY_PROXIES.iter().any(|name| headers.contains_key(*name));
        let address = match through_trusted {
            true => behind(peer, headers, trusted),
            false => peer,
        };
        Self { address, is_local: peer.is_loopback() && !is_forwarded, through_trusted }
    }
}

/// The client that trusted proxies name. Every proxy adds the address it was asked from at the
/// right, so the chain is read from there, up to the first address that is no trusted proxy's: what
/// is left of it may be anybody's invention.
fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let chain = |name: &str, read: fn(&str) -> Option<IpAddr>| {
        let mut found = None;
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        let elements: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
        for element in elements.iter().rev().take(MAX_HOPS) {
            let Some(address) = read(element.trim()) else { break };
            found = Some(address);
            if !is_trusted(address, trusted) {
                break;
            }
        }
        found
    };
    match (chain(X_FORWARDED_FOR, address_of), chain(FORWARDED, forwarded_for)) {
        (Some(one), None) | (None, Some(one)) => one,
        (Some(a), Some(b)) if a == b => a,
        // A proxy writes one of the two and passes on what a client wrote in the other. Which is
        // which cannot be told, so neither is believed.
        _ => peer,
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// `for=` of one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    address_of(value.trim_matches('"'))
}

/// An address with or without a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(bare, _)| bare);
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(plain)
}

/// An IPv4 address that came through an IPv6 socket is an IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> Client {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1/32"].map(|net| net.parse().expect("a net")).into();
        Client::of(peer.parse().expect("an address"), &map, &trusted)
    }

    #[test]
    fn headers_count_only_from_trusted_proxies_and_from_the_right() {
        let xff = "x-forwarded-for";
        for (peer, headers, expected) in [
            ("9.9.9.9:1", vec![(xff, "1.2.3.4")], "9.9.9.9"),
            ("10.0.0.1:1", vec![(xff, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1:1", vec![(xff, "6.6.6.6, 1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1:1", vec![(xff, "6.6.6.6, 1.2.3.4, 10.0.0.7")], "1.2.3.4"),
            ("10.0.0.1:1", vec![(xff, "6.6.6.6"), (xff, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1:1", vec![(xff, "1.2.3.4, nonsense")], "10.0.0.1"),
            ("10.0.0.1:1", vec![(xff, "1.2.3.4, 10.0.0.7, x, 10.0.0.8")], "10.0.0.8"),
            ("10.0.0.1:1", vec![(xff, "[2001:db8::1]:44")], "2001:db8::1"),
            (
                "10.0.0.1:1",
                vec![("forwarded", "for=6.6.6.6, For=\"1.2.3.4:8\";proto=http")],
                "1.2.3.4",
            ),
            ("10.0.0.1:1", vec![("forwarded", "for=\"[2001:db8::1]\"")], "2001:db8::1"),
            ("10.0.0.1:1", vec![("forwarded", "for=6.6.6.6"), (xff, "1.2.3.4")], "10.0.0.1"),
            ("10.0.0.1:1", vec![("forwarded", "for=1.2.3.4"), (xff, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1:1", vec![], "10.0.0.1"),
            ("[::ffff:9.9.9.9]:1", vec![(xff, "1.2.3.4")], "9.9.9.9"),
        ] {
            let expected: IpAddr = expected.parse().expect("an address");
            assert_eq!(client(peer, &headers).address, expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn only_a_bare_request_from_this_machine_is_local() {
        assert!(client("127.0.0.1:1", &[]).is_local && client("[::1]:1", &[]).is_local);
        assert!(client("[::ffff:127.0.0.1]:1", &[]).is_local);
        assert!(!client("10.0.0.1:1", &[]).is_local);
        for name in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
            assert!(!client("127.0.0.1:1", &[(name, "127.0.0.1")]).is_local, "{name}");
        }
    }
}
