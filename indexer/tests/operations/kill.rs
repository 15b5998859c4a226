//! A process killed in the middle of each operation, again and again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indexer::{Collections, Progress, ReindexOptions, RestoreOptions};

use crate::reindex::{Other, indexed};
use crate::{Case, State, state};

const HOME: &str = "AKIN_TEST_KILL_HOME";
const DOING: &str = "AKIN_TEST_KILL_DOING";
const KILLS: u64 = 25;

/// The process that is killed: not a test of its own.
#[test]
fn victim() {
    let (Ok(home), Ok(doing)) = (std::env::var(HOME), std::env::var(DOING)) else { return };
    let collections = Collections::new(Path::new(&home));
    let file = Path::new(&home).join("c.akin");
    let cancel = AtomicBool::new(false);
    loop {
        let mut on_step = |_| {};
        let progress = &mut Progress::new(&mut on_step, &cancel);
        match doing.as_str() {
            "compact" => drop(collections.compact("c", true, progress).expect("compact")),
            "snapshot" => drop(collections.snapshot("c", &file, true, progress).expect("snapshot")),
            "restore" => {
                let options = RestoreOptions { name: None, replace: true };
                collections.restore(&file, &options, progress).expect("restore");
            }
            "repair" => drop(collections.check("c", true, progress).expect("check")),
            "delete" => {
                if collections.exists("c").expect("exists") {
                    collections.delete("c").expect("delete");
                }
                collections.restore(&file, &RestoreOptions::default(), progress).expect("restore");
            }
            _ => {
                let now = collections.manifest("c").expect("manifest").model.weights_sha256;
                let model = Other::new(if now.starts_with('1') { '2' } else { '1' });
                collections
                    .reindex("c", &model, &ReindexOptions::default(), progress)
                    .expect("reindex");
            }
        }
    }
}

/// Kills the operation after a time that differs from turn to turn, and says what is there then.
fn kill_again_and_again(case: &Case, doing: &str, check: &mut dyn FnMut(u64)) {
    for turn in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["kill::victim", "--exact", "--nocapture", "--test-threads=1"])
            .env(HOME, case.home.path())
            .env(DOING, doing)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(20 + turn * 37 % 311));
        child.kill().expect("SIGKILL");
        let output = child.wait_with_output().expect("ended");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(!complaints.contains("panicked"), "{complaints}");
        check(turn);
    }
}

fn assert_is(case: &Case, expected: &State) {
    assert_eq!(state(&case.open()), *expected);
    case.assert_sound("c");
}

#[test]
fn killed_compactions_repairs_and_restores_leave_all_of_it() {
    for doing in ["compact", "repair", "restore"] {
        let case = Case::new();
        let expected = state(&case.open());
        case.snapshot();
        kill_again_and_again(&case, doing, &mut |_| assert_is(&case, &expected));
    }
}

#[test]
fn killed_snapshots_leave_a_whole_one() {
    let case = Case::new();
    let expected = state(&case.open());
    let file = case.snapshot();
    kill_again_and_again(&case, "snapshot", &mut |_| {
        assert_is(&case, &expected);
        case.restore(&file, Some("d"), true).expect("a whole snapshot");
        assert_eq!(state(&case.collections().open("d").expect("open")), expected);
    });
}

#[test]
fn killed_deletions_leave_all_or_nothing() {
    let case = Case::new();
    let expected = state(&case.open());
    case.snapshot();
    let (mut there, mut gone) = (0, 0);
    kill_again_and_again(&case, "delete", &mut |_| {
        match case.collections().exists("c").expect("exists") {
            true => {
                there += 1;
                assert_is(&case, &expected);
            }
            false => gone += 1,
        }
        assert!(case.collections().list().expect("list").len() <= 1);
    });
    assert_eq!(there + gone, KILLS);
}

#[test]
fn killed_reindexes_leave_one_model_and_get_done() {
    let case = indexed(60);
    let ids: Vec<_> =
        state(&case.open()).0.into_iter().map(|(id, record, _)| (id, record)).collect();
    let mut models = std::collections::BTreeSet::new();
    kill_again_and_again(&case, "reindex", &mut |_| {
        let collection = case.open();
        let (images, failures) = state(&collection);
        let now: Vec<_> = images.into_iter().map(|(id, record, _)| (id, record)).collect();
        assert_eq!(now, ids);
        assert_eq!(failures.len(), 1);
        models.insert(collection.manifest().model.weights_sha256.clone());
        drop(collection);
        let report = case.with(|progress| case.collections().check("c", false, progress));
        let report = report.expect("check");
        assert!(report.is_sound(), "{report:#?}");
    });
    let model = Other::new('3');
    let options = ReindexOptions { restart: true, ..Default::default() };
    let report = case.with(|progress| case.collections().reindex("c", &model, &options, progress));
    assert_eq!(report.expect("reindex").embedded, 60);
    case.assert_sound("c");
}
