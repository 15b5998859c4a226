//! Tables of URLs, and servers that do not do as one would like.

use std::time::Duration;

use indexer::fetch::FetchOptions;
use indexer::metadata::Metadata;
use indexer::source::{SourceOptions, UrlOptions};
use indexer::{IngestOptions, IngestReport, Locator};
use serde_json::json;

use crate::support::Case;
use crate::web::Web;

fn quick() -> SourceOptions {
    let fetch = FetchOptions {
        allow_private: true,
        backoff: Duration::from_millis(5),
        total_timeout: Duration::from_millis(700),
        ..FetchOptions::default()
    };
    SourceOptions { fetch, ..SourceOptions::default() }
}

fn run(case: &mut Case, table: &str, text: &str, options: &SourceOptions) -> IngestReport {
    let table = case.write(table, text.as_bytes());
    let mut sources = case.open(&[table], options);
    case.run(&mut sources, &Metadata::none(), IngestOptions::default()).expect("ingest")
}

fn reason(report: &IngestReport, end: &str) -> String {
    let found = report.skipped.iter().find(|skipped| skipped.path.to_string_lossy().ends_with(end));
    found.map(|skipped| skipped.reason.clone()).unwrap_or_else(|| panic!("{end}: {report:?}"))
}

#[test]
fn columns_become_payload_and_what_is_known_is_not_fetched_again() {
    let mut case = Case::new();
    let web = Web::start();
    let url = |path: &str| web.url(path);
    let text = format!(
        "id,url,caption\n1,{},\"a, b\"\n2,{},\n3,{},c\n",
        url("/ok/1.png"),
        url("/ok/2.png"),
        url("/to//ok/3.png")
    );
    let report = run(&mut case, "t.csv", &text, &quick());
    assert_eq!((report.added, report.skipped.len()), (3, 0), "{report:?}");
    let first = Locator::Text(url("/ok/1.png"));
    assert!(case.looks_like(&first, 1));
    assert!(case.looks_like(&Locator::Text(url("/to//ok/3.png")), 3));
    let (_, record) = case.image_at(&first).expect("image");
    assert_eq!(record.stamp.mtime_ns, 784_111_777_000_000_000);
    assert_eq!(
        serde_json::to_value(&record.payload).expect("JSON"),
        json!({"id": 1, "caption": "a, b"})
    );
    let asked = web.requests().len();
    assert!(web.agents().iter().all(|agent| agent.starts_with("akin/")), "{:?}", web.agents());

    let changed = text.replace("3,", "33,");
    let options = SourceOptions {
        urls: UrlOptions { column: Some("url".into()), payload_columns: Some(vec!["id".into()]) },
        ..quick()
    };
    let report = run(&mut case, "t.csv", &changed, &options);
    assert_eq!((report.unchanged, report.payload_updated), (3, 1), "{report:?}");
    assert_eq!(web.requests().len(), asked, "nothing is asked again");
    let third = case.payload(&Locator::Text(url("/to//ok/3.png")));
    assert_eq!(third.get("id"), Some(&json!(33)));
}

#[test]
fn failures_say_why_and_are_tried_again_only_when_asked() {
    let mut case = Case::new();
    let web = Web::start();
    let paths = [
        "/status/404",
        "/status/503",
        "/busy/5",
        "/later",
        "/slow",
        "/large",
        "/lies",
        "/html",
        "/loop",
        "/cut",
        "/to/ftp://a.org/x",
        "/robots/noai",
        "/robots/akin:_noindex",
        "/robots/otherbot:_noai",
    ];
    let text: String = paths.iter().map(|path| web.url(path) + "\n").collect();
    let text = text + "http://127.0.0.1:1/refused\n";
    let table = case.write("t.txt", text.as_bytes());
    let ingest = |case: &mut Case, options: IngestOptions| {
        let mut sources = case.open(std::slice::from_ref(&table), &quick());
        case.run(&mut sources, &Metadata::none(), options).expect("ingest")
    };
    let report = ingest(&mut case, IngestOptions::default());
    assert_eq!(report.added, 2, "busy, and robots that are not about us: {report:?}");
    for (end, part) in [
        ("/status/404", "answered 404"),
        ("/status/503", "answered 503 (Service Unavailable) (tried 4 times)"),
        ("/later", "asks to wait 3600 s"),
        ("/slow", "took more than 0.7 s"),
        ("/large", "it has 3000000 bytes, the limit is"),
        ("/lies", "it has more bytes, the limit is"),
        ("/loop", "redirects"),
        ("/cut", "tried 4 times"),
        ("ftp://a.org/x", "`ftp` is not fetched"),
        ("/robots/noai", "X-Robots-Tag: noai"),
        ("/robots/akin:_noindex", "X-Robots-Tag: noindex"),
        ("/refused", "refused"),
    ] {
        assert!(
            reason(&report, end).to_lowercase().contains(&part.to_lowercase()),
            "{end}: {}",
            reason(&report, end)
        );
    }
    assert_eq!(report.not_pictures, 1, "the page");
    let asked = web.requests().len();
    let again = ingest(&mut case, IngestOptions::default());
    assert_eq!((again.unchanged, again.skipped.len()), (2, report.skipped.len()));
    assert_eq!(web.requests().len(), asked);
    let retry = IngestOptions { retry_failed: true, ..IngestOptions::default() };
    ingest(&mut case, retry);
    assert!(web.requests().len() > asked);
}

#[test]
fn private_addresses_are_refused_also_behind_names_and_redirects() {
    let mut case = Case::new();
    let web = Web::start();
    let port = web.base.rsplit(':').next().expect("port").to_owned();
    let text = format!(
        "{}\nhttp://localhost:{port}/ok/1.png\nhttp://2130706433:{port}/ok/1.png\n\
         http://[::1]:{port}/ok/1.png\nhttp://[::ffff:127.0.0.1]:{port}/ok/1.png\n\
         http://169.254.169.254/latest\nhttp://0x7f.1:{port}/ok/1.png\n",
        web.url("/ok/1.png")
    );
    let options = SourceOptions::default();
    let report = run(&mut case, "t.txt", &text, &options);
    assert_eq!((report.added, report.skipped.len()), (0, 7), "{report:?}");
    for skipped in &report.skipped {
        assert!(skipped.reason.contains("is not a public address"), "{skipped:?}");
    }
    assert!(web.requests().is_empty(), "nothing was even connected to");
}

#[test]
fn no_host_is_asked_for_more_at_once_than_its_share() {
    let mut case = Case::new();
    let web = Web::start();
    let text: String = (0..40).map(|n| web.url(&format!("/ok/{n}.png")) + "\n").collect();
    let mut options = quick();
    options.fetch.per_host = 3;
    options.fetch.user_agent = "Other/1.0".to_owned();
    let report = run(&mut case, "t.txt", &text, &options);
    assert_eq!(report.added, 40, "{report:?}");
    assert!(web.most_at_once() <= 3, "{}", web.most_at_once());
    assert!(web.agents().iter().all(|agent| agent == "Other/1.0"));
}

#[test]
fn bad_tables_are_errors_that_name_what_is_there() {
    let case = Case::new();
    let open = |name: &str, text: &str, options: &SourceOptions| {
        let table = case.write(name, text.as_bytes());
        indexer::source::open(&[table], options).err().map(|error| error.to_string())
    };
    let error = open("t.csv", "link,n\nhttp://a,1\n", &quick()).expect("no url column");
    assert!(error.contains("no column `url`; there are: link, n"), "{error}");
    let urls = UrlOptions { column: Some("link".into()), payload_columns: Some(vec!["x".into()]) };
    let options = SourceOptions { urls, ..quick() };
    let error = open("t.csv", "link,n\nhttp://a,1\n", &options).expect("no payload column");
    assert!(error.contains("no column `x`"), "{error}");
    assert!(open("t.parquet", "words", &quick()).expect("no Parquet").contains("Parquet"));
}
