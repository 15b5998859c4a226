//! Decisions of people over a run's result.

use crate::world::{World, class, sample, stem};
use indexer::curate::config::Retrieve;
use indexer::curate::{Rule, Run, Step, Verdict};

#[test]
fn decisions_of_review_are_replayed_and_taken_back() {
    let world = World::new();
    world.run("run", &sample()).expect("curates");
    let folder = world.path("run");
    let mut run = Run::open(&folder).expect("open");
    let kept: Vec<String> =
        run.rows().iter().filter(|row| row.kept).map(|row| row.id.to_string()).collect();
    let before = std::fs::read(folder.join("manifest.jsonl")).expect("manifest");
    run.decide(&[(Verdict::Reject, kept[0].clone()), (Verdict::Reject, kept[1].clone())])
        .expect("rejects");
    // Of a class without seeds: more neighbours will not find it either.
    let far = run.rows().iter().rfind(|row| row.rule == Rule::NotRetrieved).expect("one").clone();
    run.decide(&[(Verdict::Accept, far.path.to_string())]).expect("accepts");
    assert_eq!((run.info().accepted, run.info().rejected), (1, 2));
    assert_eq!(run.info().kept, kept.len() - 2 + 1);
    let row = run.find(&kept[0]).expect("in the ledger");
    assert_eq!((row.kept, row.rule, row.step.as_str()), (false, Rule::Rejected, "review"));
    drop(run);

    // More neighbours of more seeds: what was rejected does not come back through another.
    let mut wider = sample();
    wider.steps[2] = Step::Retrieve(Retrieve { k: 25, ..Retrieve::default() });
    let info = world.run("run", &wider).expect("curates again");
    assert_eq!((info.accepted, info.rejected), (1, 2));
    let run = Run::open(&folder).expect("open");
    assert!(!run.find(&kept[0]).expect("there").kept && !run.find(&kept[1]).expect("there").kept);
    assert!(run.find(&far.id.to_string()).expect("there").kept);
    drop(run);
    world.run("run", &sample()).expect("as at first");

    let mut run = Run::open(&folder).expect("open");
    assert_eq!(run.undo().expect("undo"), 1);
    assert_eq!(run.undo().expect("undo"), 2);
    assert!(run.undo().is_err(), "nothing is left to take back");
    assert_eq!(std::fs::read(folder.join("manifest.jsonl")).expect("manifest"), before);
}

#[test]
fn a_leak_cannot_be_accepted_nor_a_copy_of_one() {
    let world = World::new();
    world.run("run", &sample()).expect("curates");
    let mut run = Run::open(&world.path("run")).expect("open");
    let leak = run.rows().iter().find(|row| row.rule == Rule::Leak).expect("one").clone();
    let fine = run.rows().iter().find(|row| row.kept).expect("one").id.to_string();
    let decisions = [(Verdict::Reject, fine.clone()), (Verdict::Accept, leak.id.to_string())];
    let error = run.decide(&decisions).expect_err("refused").to_string();
    assert!(error.contains("cannot be accepted") && error.contains("excluded image"), "{error}");
    assert!(run.find(&fine).expect("there").kept, "nothing of the batch is noted");
    assert!(!world.path("run/review.jsonl").exists());
    drop(run);

    // What was accepted, and is a leak only since a set grew, is out.
    let mut run = Run::open(&world.path("run")).expect("open");
    let far = run.rows().iter().find(|row| row.rule == Rule::NotRetrieved).expect("one").clone();
    run.decide(&[(Verdict::Accept, far.id.to_string())]).expect("accepts");
    drop(run);
    world.add("tests", class(&far), &stem(&far.path));
    let info = world.run("run", &sample()).expect("curates");
    assert_eq!(info.accepted, 0);
    let run = Run::open(&world.path("run")).expect("open");
    assert_eq!(run.find(&far.id.to_string()).expect("there").rule, Rule::Leak);
}

#[test]
fn a_torn_line_of_the_journal_is_cut_off_and_a_damaged_one_is_named() {
    let world = World::new();
    world.run("run", &sample()).expect("curates");
    let folder = world.path("run");
    let journal = folder.join("review.jsonl");
    let mut run = Run::open(&folder).expect("open");
    let kept: Vec<String> =
        run.rows().iter().filter(|row| row.kept).map(|row| row.id.to_string()).collect();
    run.decide(&[(Verdict::Reject, kept[0].clone())]).expect("rejects");
    drop(run);
    let whole = std::fs::read(&journal).expect("read");
    std::fs::write(&journal, [&whole[..], &whole[..20]].concat()).expect("write");
    let mut run = Run::open(&folder).expect("a torn line is no decision");
    assert_eq!(run.info().rejected, 1);
    run.decide(&[(Verdict::Reject, kept[1].clone())]).expect("rejects");
    assert_eq!(run.info().rejected, 2);
    drop(run);
    let two = std::fs::read(&journal).expect("read");
    assert_eq!(two.iter().filter(|&&byte| byte == b'\n').count(), 2);
    for at in (0..whole.len() - 1).step_by(7) {
        let mut damaged = two.clone();
        damaged[at] ^= 2;
        std::fs::write(&journal, damaged).expect("write");
        let error = Run::open(&folder).expect_err("damage").to_string();
        assert!(error.contains("line 1 fails its checksum"), "byte {at}: {error}");
    }
    // A process that ended between the decision and the manifest.
    std::fs::write(&journal, &whole).expect("write");
    assert_eq!(Run::open(&folder).expect("open").info().rejected, 1);
}
