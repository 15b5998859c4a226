//! What strangers' URLs may lead to.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use indexer::fetch::{Client, FetchError, FetchOptions, Resolver};

use crate::web::Web;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn get(options: FetchOptions, url: &str) -> Result<usize, FetchError> {
    let client = Client::new(&options).expect("a client");
    client.get(url, 1 << 20, &AtomicBool::new(false)).map(|body| body.len())
}

/// A client that may ask the test's own server, and nobody else here.
fn options() -> FetchOptions {
    FetchOptions { allowed: vec![LOCAL], pictures_only: true, ..FetchOptions::default() }
}

#[test]
fn addresses_in_any_writing_are_refused() {
    let web = Web::start();
    let port = web.base.rsplit(':').next().expect("a port").to_owned();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "①②⑦.⓪.⓪.①",
        "10.0.0.1",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "user:word@8.8.8.8",
    ] {
        let options = FetchOptions { pictures_only: true, ..FetchOptions::default() };
        let got = get(options, &format!("http://{host}:{port}/ok/1.png"));
        assert!(matches!(got, Err(FetchError::Refused(_))), "{host}: {got:?}");
    }
    for url in
        ["file:///etc/passwd", "gopher://a/", "ftp://8.8.8.8/a", "http://8.8.8.8:25/", "//a", ""]
    {
        let got = get(options(), url);
        assert!(matches!(got, Err(FetchError::Refused(_))), "{url}: {got:?}");
    }
    assert_eq!(web.requests(), [""; 0], "nobody was asked");
    assert!(get(options(), &web.url("/ok/1.png")).is_ok());
}

#[test]
fn every_redirect_is_checked() {
    let web = Web::start();
    for to in
        ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.2/", "file:///etc/passwd"]
    {
        let got = get(options(), &web.url(&format!("/to/{to}")));
        assert!(matches!(got, Err(FetchError::Refused(_))), "{to}: {got:?}");
    }
    let near = web.url("/ok/1.png");
    assert!(get(options(), &web.url(&format!("/to/{near}"))).is_ok());
}

#[test]
fn a_name_that_changes_its_address_is_connected_where_it_was_checked() {
    let web = Web::start();
    let port = web.base.rsplit(':').next().expect("a port").to_owned();
    // The first answer is harmless, all later ones lead here.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolver = Resolver::new(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        // 192.0.2.1 is in no network; it is let through the check by hand.
        Ok(vec![if first { "192.0.2.1" } else { "127.0.0.1" }.parse().expect("an address")])
    });
    let options = FetchOptions {
        resolver,
        allowed: vec!["192.0.2.1".parse().expect("an address")],
        connect_timeout: std::time::Duration::from_millis(300),
        ..FetchOptions::default()
    };
    let client = Client::new(&options).expect("a client");
    let url = format!("http://pictures.test:{port}/ok/1.png");
    let stop = AtomicBool::new(false);
    let first = client.get(&url, 1 << 20, &stop);
    assert!(matches!(first, Err(FetchError::Failed(_))), "{first:?}");
    let second = client.get(&url, 1 << 20, &stop);
    assert!(matches!(second, Err(FetchError::Refused(_))), "{second:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2, "once for each request");
    assert_eq!(web.requests(), [""; 0]);
}

#[test]
fn one_bad_address_among_several_is_enough() {
    let resolver = Resolver::new(|_| {
        Ok(vec!["93.184.215.14".parse().expect("address"), "10.0.0.1".parse().expect("address")])
    });
    let got = get(FetchOptions { resolver, ..FetchOptions::default() }, "http://pictures.test/");
    assert!(matches!(got, Err(FetchError::Refused(_))), "{got:?}");
}

#[test]
fn only_pictures_and_no_more_than_allowed() {
    let web = Web::start();
    let html = get(options(), &web.url("/html"));
    assert!(matches!(html, Err(FetchError::Failed(_))), "{html:?}");
    let client = Client::new(&options()).expect("a client");
    for path in ["/ok/1.png", "/large"] {
        let large = client.get(&web.url(path), 10, &AtomicBool::new(false));
        assert!(matches!(large, Err(FetchError::TooLarge(_))), "{path}: {large:?}");
    }
    let gone = get(options(), &web.url("/status/404"));
    assert!(matches!(gone, Err(FetchError::Failed(_))), "{gone:?}");
}
