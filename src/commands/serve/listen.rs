//! The address a server listens on.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use crate::outcome::{Failure, Outcome};

/// The address in words; names such as `localhost` are looked up.
pub fn address(text: &str) -> Outcome<SocketAddr> {
    let addresses = text.to_socket_addrs().map_err(|_| {
        Failure::Usage(format!(
            "--listen is `{text}`; it must be an address and a port, such as 127.0.0.1:7878 or \
             [::1]:7878"
        ))
    })?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    // Browsers try both of `localhost`; the older one is the one everybody has.
    addresses.sort_by_key(|address| address.is_ipv6());
    let first = addresses.into_iter().next();
    first.ok_or_else(|| Failure::Usage(format!("--listen is `{text}`, which has no address")))
}

/// Takes the address.
pub fn bind(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let port = address.port();
        let reason = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another program listens on {address}, perhaps another `akin serve`; end it, or \
                 choose another port: --listen {}:{}",
                address.ip(),
                if port == u16::MAX { 0 } else { port + 1 }
            ),
            ErrorKind::PermissionDenied if port < 1024 => format!(
                "this user may not listen on port {port}: ports below 1024 are for programs with \
                 that right; choose another, such as --listen {}:7878, and have a proxy in front",
                address.ip()
            ),
            ErrorKind::AddrNotAvailable => {
                format!("this machine has no address {}: {error}", address.ip())
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        Failure::Failed(reason)
    })
}

/// As it is written in a URL that works on this machine.
pub fn shown(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}
