//! The model store against a hub on this machine, in good and bad weather.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indexer::model_store::{HttpOptions, ModelStore, ModelStoreError, PullOptions, Pulled};
use support::Behaviour::{CutAfter, Drip, NoRanges, Redirect, Serve, Stall, Status, TooMany};
use support::{Behaviour, CONFIG, Hub};

/// 200 kB that are not the same anywhere.
fn weights() -> Vec<u8> {
    (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

struct Case {
    home: tempfile::TempDir,
    hub: Hub,
    options: PullOptions,
}

impl Case {
    fn new(script: &[Behaviour]) -> Self {
        let hub = Hub::start(&weights(), script);
        let options = PullOptions {
            endpoint: hub.endpoint.clone(),
            backoff: Duration::from_millis(5),
            attempts: 3,
            http: HttpOptions {
                idle_timeout: Duration::from_millis(400),
                ..HttpOptions::default()
            },
            ..PullOptions::default()
        };
        Self { home: tempfile::tempdir().expect("temporary folder"), hub, options }
    }

    fn store(&self) -> ModelStore {
        ModelStore::new(self.home.path())
    }

    fn pull(&self) -> Result<Pulled, ModelStoreError> {
        self.store().pull("vits14", &self.options, &mut |_| {}, &AtomicBool::new(false))
    }

    /// The message of a pull that must fail.
    fn pull_error(&self) -> String {
        self.pull().err().map(|error| error.to_string()).expect("the pull must fail")
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join("models/vits14").join(name)
    }

    fn assert_complete(&self) {
        assert_eq!(std::fs::read(self.file("model.safetensors")).expect("weights"), weights());
        assert_eq!(std::fs::read(self.file("config.json")).expect("config"), CONFIG);
        assert!(!self.file("model.safetensors.part").exists());
        self.store().verify("vits14").expect("intact");
    }
}

#[test]
fn a_pull_follows_the_redirect_checks_records_and_is_not_repeated() {
    let mut case = Case::new(&[Redirect]);
    case.options.token = Some("secret".to_owned());
    let pulled = case.pull().expect("pull");
    case.assert_complete();
    assert!(!pulled.was_here);
    assert_eq!(pulled.record.commit.len(), 40);
    assert_eq!(pulled.record.files[1].announced, pulled.record.files[1].sha256);

    // The hub sees the token, the host it redirects to does not.
    let tokens: Vec<_> =
        case.hub.downloads().iter().map(|r| r.header("authorization").map(str::to_owned)).collect();
    assert_eq!(tokens, [Some("Bearer secret".to_owned()), None]);

    let requests = case.hub.requests().len();
    assert!(case.pull().expect("pull again").was_here);
    assert_eq!(case.hub.requests().len(), requests, "nothing may be asked again");
    for name in ["vits14", "dinov2_vits14", "facebook/dinov2-small"] {
        assert_eq!(case.store().resolve(name).expect(name), pulled.weights);
    }
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let case = Case::new(&[CutAfter(80_000), CutAfter(50_000), Serve]);
    case.pull().expect("pull");
    case.assert_complete();
    let ranges: Vec<_> =
        case.hub.downloads().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    let from = |bytes: usize| Some(format!("bytes={bytes}-"));
    assert_eq!(ranges, [None, from(80_000), from(130_000)]);
}

#[test]
fn a_part_left_by_an_earlier_process_is_resumed() {
    let case = Case::new(&[CutAfter(70_000), Status(500)]);
    let message = case.pull_error();
    assert!(message.contains("answered 500"), "{message}");
    assert_eq!(std::fs::read(case.file("model.safetensors.part")).expect("part").len(), 70_000);

    case.hub.script(&[Serve]);
    case.pull().expect("pull");
    case.assert_complete();
    let last = case.hub.downloads().pop().expect("a download");
    assert_eq!(last.header("range"), Some("bytes=70000-"));
}

#[test]
fn a_part_of_another_version_is_not_resumed() {
    let case = Case::new(&[CutAfter(70_000), Status(500)]);
    case.pull_error();
    let newer: Vec<u8> = weights().into_iter().map(|byte| byte ^ 0x55).collect();
    case.hub.publish(&newer);
    case.hub.script(&[Serve]);
    case.pull().expect("pull");
    assert_eq!(std::fs::read(case.file("model.safetensors")).expect("weights"), newer);
    assert_eq!(case.hub.downloads().pop().expect("a download").header("range"), None);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let case = Case::new(&[CutAfter(80_000), NoRanges]);
    case.pull().expect("pull");
    case.assert_complete();
}

#[test]
fn passing_trouble_is_waited_out() {
    let case = Case::new(&[Status(500), TooMany, Serve]);
    case.hub.fail_heads(&[503]);
    case.pull().expect("pull");
    case.assert_complete();
}

#[test]
fn a_wrong_hash_is_refused_and_removed() {
    let case = Case::new(&[Serve]);
    let announced = "ab".repeat(32);
    case.hub.announce(&announced);
    let message = case.pull_error();
    assert!(message.contains("SHA-256") && message.contains(&announced), "{message}");
    assert!(!case.file("model.safetensors").exists());
    assert!(!case.file("model.safetensors.part").exists());
}

#[test]
fn lasting_errors_are_not_retried() {
    for (status, advice) in [(404, "no such file"), (401, "HF_TOKEN"), (403, "HF_TOKEN")] {
        let case = Case::new(&[Status(status)]);
        let message = case.pull_error();
        assert!(message.contains(&status.to_string()) && message.contains(advice), "{message}");
        assert_eq!(case.hub.downloads().len(), 1, "{status}");
    }
    let case = Case::new(&[Serve]);
    case.hub.fail_heads(&[404]);
    assert!(case.pull_error().contains("--revision"));
}

#[test]
fn a_slow_server_is_fine_and_a_silent_one_is_not() {
    let case = Case::new(&[Drip]);
    let start = Instant::now();
    case.pull().expect("pull");
    case.assert_complete();
    assert!(start.elapsed() > case.options.http.idle_timeout, "slower than the idle timeout");

    let case = Case::new(&[Stall, Status(500)]);
    let mut case = case;
    case.options.attempts = 1;
    let message = case.pull_error();
    assert!(message.contains("cannot fetch") && message.contains("is kept"), "{message}");
    assert_eq!(std::fs::read(case.file("model.safetensors.part")).expect("part").len(), 100_000);
}

#[test]
fn without_a_network_it_says_what_to_put_where() {
    let mut case = Case::new(&[Serve]);
    case.options.offline = true;
    let message = case.pull_error();
    let target = case.file("model.safetensors");
    assert!(message.contains("/facebook/dinov2-small/resolve/main/model.safetensors"), "{message}");
    assert!(message.contains(&*target.to_string_lossy()), "{message}");
    assert!(case.hub.requests().is_empty());
    let message = case.store().resolve("vits14").err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("akin model pull vits14"), "{message}");

    case.options.offline = false;
    case.options.endpoint = "http://127.0.0.1:9".to_owned();
    let message = case.pull_error();
    assert!(message.contains("refused") && message.contains("HTTPS_PROXY"), "{message}");

    case.options.endpoint = case.hub.endpoint.clone();
    case.options.http.proxy = Some("http://127.0.0.1:9".to_owned());
    let message = case.pull_error();
    assert!(message.contains("through the proxy http://127.0.0.1:9"), "{message}");

    case.options.http.no_proxy = Some("127.0.0.1".to_owned());
    case.pull().expect("the proxy is bypassed");
}

#[test]
fn damage_is_noticed_and_mended_by_force() {
    let mut case = Case::new(&[Serve]);
    case.pull().expect("pull");
    let path = case.file("model.safetensors");
    let verify = || case.store().verify("vits14").err().map(|e| e.to_string()).unwrap_or_default();

    let mut bytes = weights();
    bytes[1000] ^= 1;
    std::fs::write(&path, &bytes).expect("write");
    assert!(verify().contains("SHA-256"), "{}", verify());
    std::fs::write(&path, &bytes[..1000]).expect("write");
    assert!(verify().contains("size 1000"), "{}", verify());
    std::fs::remove_file(&path).expect("remove");
    assert!(verify().contains("cannot read"), "{}", verify());

    case.options.force = true;
    case.pull().expect("pull");
    case.assert_complete();
}

#[test]
fn another_hash_for_the_same_commit_is_refused() {
    let mut case = Case::new(&[Serve]);
    case.pull().expect("pull");
    case.hub.announce(&"cd".repeat(32));
    case.options.force = true;
    let message = case.pull_error();
    assert!(message.contains("a commit never changes"), "{message}");
    assert_eq!(std::fs::read(case.file("model.safetensors")).expect("weights"), weights());
}

#[test]
fn stopping_keeps_what_has_arrived() {
    let case = Case::new(&[Drip]);
    let cancel = AtomicBool::new(false);
    let mut stop_halfway = |progress: indexer::model_store::PullProgress<'_>| {
        if progress.file == "model.safetensors" && progress.done > progress.total / 3 {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let outcome = case.store().pull("vits14", &case.options, &mut stop_halfway, &cancel);
    assert!(matches!(outcome, Err(ModelStoreError::Cancelled)), "{outcome:?}");
    let part = std::fs::read(case.file("model.safetensors.part")).expect("part");
    assert!(part.len() > 60_000 && part.len() < 200_000, "{}", part.len());
    assert_eq!(part, weights()[..part.len()]);
    case.pull().expect("pull");
    case.assert_complete();
}

#[test]
fn two_pulls_of_one_model_do_not_meet() {
    let case = Case::new(&[Serve]);
    std::fs::create_dir_all(case.file("")).expect("create");
    let lock = std::fs::File::create(case.file("lock")).expect("lock file");
    lock.lock().expect("lock");
    assert!(case.pull_error().contains("another process"));
    drop(lock);
    case.pull().expect("pull");
}

#[test]
fn names_and_paths_are_told_apart() {
    let case = Case::new(&[]);
    let message = |name: &str| {
        case.store().resolve(name).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(message("vitx14").contains("known are vits14"), "{}", message("vitx14"));
    assert!(message("../../etc/passwd2").contains("no such weights file"));
    assert!(message("gone.safetensors").contains("no such weights file"));
    let file = case.home.path().join("own.safetensors");
    std::fs::write(&file, "x").expect("write");
    assert_eq!(case.store().resolve(&file.to_string_lossy()).expect("path"), Path::new(&file));
    assert!(matches!(
        case.store().pull("../evil", &case.options, &mut |_| {}, &AtomicBool::new(false)),
        Err(ModelStoreError::UnknownModel { .. })
    ));
}
