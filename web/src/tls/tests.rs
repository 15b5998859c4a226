use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::guard::Limits;
use crate::guard::connections::Connections;

/// Made by `openssl req -x509 -days 36500 -subj "/CN=akin test" -addext
/// "subjectAltName=DNS:localhost,IP:127.0.0.1"`; keys of nothing but these tests.
fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/tls", name].iter().collect()
}

#[test]
fn wrong_files_are_named() {
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let error = |a: &PathBuf, b: &PathBuf| open(a, b).map(drop).expect_err("refused").to_string();
    let swapped = error(&key, &cert);
    assert!(swapped.contains("key.pem holds no certificate"), "{swapped}");
    let twice = error(&cert, &cert);
    assert!(twice.contains("cert.pem holds no private key"), "{twice}");
    let missing = error(&file("nothing.pem"), &key);
    assert!(missing.contains("cannot read") && missing.contains("nothing.pem"), "{missing}");
    let other = error(&cert, &file("other-key.pem"));
    assert!(other.contains("cannot be used with the key"), "{other}");
}

#[tokio::test]
async fn requests_are_answered_through_tls_and_plain_ones_are_not() {
    let tls = open(&file("cert.pem"), &file("key.pem")).expect("sound files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let routes = axum::Router::new().route("/", axum::routing::get(async || "here\n"));
    let connections = Connections { limits: Limits::default(), tls: Some(tls) };
    tokio::spawn(connections.serve(listener, routes, std::future::pending()));

    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(file("cert.pem")).expect("read");
    roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    // A server may end TLS without saying so.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.ends_with(b"here\n"), "{}", String::from_utf8_lossy(&answer));

    let mut plain = TcpStream::connect(address).await.expect("connects");
    plain.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("here"));
}
