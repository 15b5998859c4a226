use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use super::*;

fn jobs() -> Jobs {
    Jobs::start(Clock::default()).expect("a thread")
}

async fn over(jobs: &Jobs, id: &str) -> Job {
    let mut watched = jobs.watch(id).expect("there");
    while !watched.job().is_over() {
        watched.changed().await;
    }
    watched.job()
}

#[tokio::test]
async fn jobs_are_done_one_after_the_other_and_tell_how_far_they_are() {
    let jobs = jobs();
    let (say, heard) = mpsc::channel();
    let second = say.clone();
    let a = jobs.submit(Kind::Index, "photos", None, move |context| {
        context.stage("reading", Some(4));
        context.advance(3);
        let _ = say.send("a");
        Ok(json!({"added": 3}))
    });
    let b = jobs.submit(Kind::Dedup, "photos", None, move |_| {
        let _ = second.send("b");
        Ok(json!(null))
    });
    let (a, b) = (a.expect("taken"), b.expect("taken"));
    assert!(a.id.starts_with("index-") && b.id.starts_with("dedup-"));
    let a = over(&jobs, &a.id).await;
    assert_eq!((a.state, a.progress.done, a.progress.total), (JobState::Done, 3, Some(4)));
    assert_eq!((a.result, a.progress.message.as_str()), (Some(json!({"added": 3})), "reading"));
    assert_eq!(over(&jobs, &b.id).await.state, JobState::Done);
    assert_eq!([heard.recv(), heard.recv()], [Ok("a"), Ok("b")]);
    let order: Vec<String> = jobs.list().into_iter().map(|job| job.id).collect();
    assert_eq!(order, [b.id, a.id], "newest first");
}

#[tokio::test]
async fn one_at_work_is_asked_to_stop_and_one_that_waits_is_not_begun() {
    let jobs = jobs();
    let first = jobs.submit(Kind::Index, "photos", None, |context| {
        while !context.cancel().load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Ended::Cancelled)
    });
    let first = first.expect("taken").id;
    let second = jobs.submit(Kind::Index, "photos", None, |_| panic!("it was cancelled"));
    let second = second.expect("taken").id;
    assert_eq!(jobs.active(Kind::Index).len(), 2);
    assert_eq!(jobs.cancel(&second).expect("waits").state, JobState::Cancelled);
    jobs.cancel(&first).expect("runs");
    assert_eq!(over(&jobs, &first).await.state, JobState::Cancelled);
    let again = jobs.cancel(&first).expect_err("over");
    assert_eq!(again.code, Code::Conflict);
    assert_eq!(jobs.find("nothing").expect_err("unknown").code, Code::NotFound);
}

#[tokio::test]
async fn what_fails_or_panics_says_so_and_the_next_is_done() {
    let jobs = jobs();
    let fails = |_: &Context| Err(Problem::new(Code::BadRequest, "no").into());
    let failed = jobs.submit(Kind::Index, "photos", None, fails).expect("taken");
    let panics = jobs.submit(Kind::Index, "photos", None, |_| panic!("on purpose")).expect("taken");
    let done = jobs.submit(Kind::Index, "photos", None, |_| Ok(json!(1))).expect("taken");
    for (id, code) in [(failed.id, "bad_request"), (panics.id, "internal")] {
        let job = over(&jobs, &id).await;
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(job.problem.expect("a problem")["code"], code);
    }
    assert_eq!(over(&jobs, &done.id).await.state, JobState::Done);
}

#[tokio::test]
async fn the_line_is_bounded_and_ends_with_the_server() {
    let jobs = jobs();
    let mut taken = 0;
    let full = loop {
        let waits = |context: &Context| {
            while !context.cancel().load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Ended::Cancelled)
        };
        match jobs.submit(Kind::Index, "photos", None, waits) {
            Ok(_) => taken += 1,
            Err(problem) => break problem,
        }
    };
    assert_eq!(full.code, Code::Overloaded);
    assert!(taken == MOST_QUEUED || taken == MOST_QUEUED + 1, "{taken}");
    jobs.end(Duration::from_secs(60)).await;
    assert!(jobs.list().iter().all(|job| job.state == JobState::Cancelled));
    let late = jobs.submit(Kind::Index, "photos", None, |_| Ok(json!(null)));
    assert_eq!(late.expect_err("ending").code, Code::Draining);
}

#[tokio::test]
async fn failed_items_are_listed_up_to_a_number_and_counted_beyond() {
    let jobs = jobs();
    let job = jobs.submit(Kind::Index, "photos", None, |context| {
        for number in 0..MOST_ITEMS + 5 {
            let (path, reason) = (format!("/{number}").into(), "bad".to_owned());
            context.failed(&indexer::pipeline::Skipped { path, reason, not_a_picture: false });
        }
        Ok(json!(null))
    });
    let job = over(&jobs, &job.expect("taken").id).await;
    assert_eq!((job.failed_items.len(), job.failed_count), (MOST_ITEMS, MOST_ITEMS as u64 + 5));
}
