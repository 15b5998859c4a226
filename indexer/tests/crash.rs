//! A process killed at random points, again and again: what it acknowledged is there, once, whole.

mod machine;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use indexer::{Collections, CreateOptions};
use machine::{Lot, Model, Result};

const HOME: &str = "AKIN_TEST_CRASH_HOME";
const SEED: &str = "AKIN_TEST_CRASH_SEED";
/// Kills of one collection, and collections: 208 in all.
const KILLS: u64 = 26;
const COLLECTIONS: u64 = 8;

/// The process that is killed: not a test of its own.
#[test]
fn victim() {
    let Ok(home) = std::env::var(HOME) else { return };
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).expect("a seed");
    work(Path::new(&home), seed).expect("only a kill ends this");
}

fn work(home: &Path, seed: u64) -> Result<()> {
    let collections = Collections::new(home);
    let options = CreateOptions { ann_from: Some(100), ..CreateOptions::default() };
    let mut collection = match collections.exists("c")? {
        true => collections.open("c")?,
        false => collections.create("c", &machine::identity(), options)?,
    };
    let mut model = Model::default();
    let done = machine::marked_step(&collection)?;
    while model.step < done {
        model.advance(seed);
    }
    let mut lot = Lot(seed ^ done.wrapping_mul(31) ^ u64::from(std::process::id()));
    loop {
        model.drive(seed, &mut collection)?;
        // The only way out of this process.
        let mut out = std::io::stdout().lock();
        writeln!(out, "step {}", model.step).and_then(|()| out.flush()).expect("a parent");
        drop(out);
        if lot.below(6) == 0 {
            collection.finish()?;
        }
    }
}

/// Starts a victim, kills it after a while, and gives the last step it acknowledged.
fn kill_one(home: &Path, seed: u64, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(HOME, home)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        for line in output.lines().map_while(std::result::Result::ok) {
            // The first line may share its own with the harness's words.
            let step = line.rsplit_once("step ").and_then(|(_, step)| step.parse().ok());
            last = step.unwrap_or(last);
        }
        last
    });
    std::thread::sleep(after);
    child.kill().expect("SIGKILL");
    let output = child.wait_with_output().expect("ended");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("panicked"), "{complaints}");
    reader.join().expect("read to the end")
}

#[test]
fn every_acknowledged_step_survives_kill_9_at_random_points() {
    let mut kills = 0;
    let mut steps = 0;
    for seed in 1..=COLLECTIONS {
        let home = tempfile::tempdir().expect("temporary folder");
        let mut lot = Lot(seed);
        let mut acknowledged = 0;
        for _ in 0..KILLS {
            let after = Duration::from_millis(10 + lot.below(240));
            acknowledged = kill_one(home.path(), seed, after).max(acknowledged);
            kills += 1;
            let collections = Collections::new(home.path());
            if !collections.exists("c").expect("a name") {
                assert_eq!(acknowledged, 0);
                continue;
            }
            let collection = collections.open("c").expect("opens after every kill");
            let step = machine::marked_step(&collection).expect("mark");
            assert!(
                (acknowledged..=acknowledged + 1).contains(&step),
                "seed {seed}: step {step} is there, {acknowledged} was acknowledged"
            );
            let mut model = Model::default();
            while model.step < step {
                model.advance(seed);
            }
            model.compare(&collection, 5).expect("compare");
            acknowledged = step;
        }
        steps += acknowledged;
    }
    println!("{kills} kills, {steps} steps, none lost");
    assert!(steps > COLLECTIONS, "the victims did hardly anything");
}
