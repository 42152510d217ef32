//! Workers that die or freeze: their processes end, and their tasks go on elsewhere.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{LEASE, SHORT_LEASE, Site, code, ended, err, marked, until};
use crate::support::proc::Mark;

/// What a busy machine may add to a lease.
const SLACK: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_killed_workers_processes_die_at_once_and_its_task_is_elsewhere_within_a_lease() {
    let site = Site::new().await;
    let mut worker = site.worker("w1", SHORT_LEASE).await;
    let mark = Mark::new();
    let script = "echo attempt $RUNLANE_ATTEMPT; [ $RUNLANE_ATTEMPT = 3 ] && exit 4;
        setsid sh -c 'sleep 1000; :' & sleep 1000; :";
    let follower =
        site.spawn(&super::args_of(&["run", "--id", "hit", "--"], &marked(&mark, script)));
    let mut deaths = Vec::new();
    let mut gone = Vec::new();
    for next in ["w2", "w3"] {
        until(|| "five processes".to_owned(), || mark.alive().len() == 4).await;
        let heir = site.worker(next, SHORT_LEASE).await;
        deaths.push(Timestamp::now());
        let start = Instant::now();
        worker.signal(Signal::SIGKILL);
        until(|| "their death".to_owned(), || mark.alive().is_empty()).await;
        gone.push(start.elapsed());
        worker = heir;
    }
    let output = ended(follower).await;
    assert_eq!(code(&output), 4, "{}", err(&output));
    assert_eq!(output.stdout, b"attempt 1\nattempt 2\nattempt 3\n");
    // The better of two: a machine that does other things may stop us for longer than that.
    let fastest = gone.iter().min().expect("two deaths");
    assert!(*fastest < Duration::from_millis(100), "the processes lived on for {gone:?}");
    let events = site.events("hit").await;
    for (death, start) in deaths.iter().zip(&events[1..]) {
        let late = at(start).duration_since(*death).unsigned_abs();
        assert!(late < LEASE + SLACK, "in other hands after {late:?}");
    }
    assert_eq!(site.chain("hit").await, ["started", "started", "started", "finished"]);
    mark.assert_none_alive();
}

fn at(event: &Value) -> Timestamp {
    event["at"].as_str().expect("a time").parse().expect("a timestamp")
}

#[tokio::test]
async fn a_worker_that_wakes_after_its_leases_is_refused_and_ends_what_it_ran() {
    let site = Site::new().await;
    let frozen = site.worker("frozen", SHORT_LEASE).await;
    let (ends, stays) = (Mark::new(), Mark::new());
    let release = site.path("release");
    // The first attempt of one ends while its worker is frozen; that of the other lives on.
    let script = format!(
        "[ $RUNLANE_ATTEMPT = 2 ] && exit 0; while ! [ -e {} ]; do sleep 0.05; done; exit 3",
        release.display()
    );
    let finished = site.submit(&ends, &script).await;
    let running = site.submit(&stays, "[ $RUNLANE_ATTEMPT = 2 ] || sleep 1000; :").await;
    until(|| "both".to_owned(), || !ends.alive().is_empty() && stays.alive().len() == 2).await;
    let _other = site.worker("other", SHORT_LEASE).await;
    frozen.signal(Signal::SIGSTOP);
    let start = Instant::now();
    std::fs::write(&release, "").expect("the file is written");
    for id in [&finished, &running] {
        assert_eq!(site.wait(id).await, 0, "the other worker has it");
    }
    assert!(!stays.alive().is_empty(), "nobody can end it while its worker is frozen");
    until(|| "two leases".to_owned(), || start.elapsed() > 2 * LEASE + SLACK).await;
    frozen.signal(Signal::SIGCONT);
    stays.gone().await;
    frozen.logged(&format!("task={finished}")).await;
    frozen.logged("lease lost; stopping the task here").await;
    let refused = || frozen.log().matches("a result was dropped").count();
    until(|| format!("two refusals in\n{}", frozen.log()), || refused() == 2).await;
    for id in [&finished, &running] {
        assert_eq!(site.chain(id).await, ["started", "started", "finished"], "{}", frozen.log());
        let outcome = &site.status(id).await["outcome"];
        assert_eq!((&outcome["worker"], &outcome["attempt"]), (&"other".into(), &2.into()));
    }
    // It is fit for new tasks.
    drop(_other);
    let output = site.cli(&["run", "--", "echo", "again"]).await;
    assert_eq!((code(&output), &*output.stdout), (0, &b"again\n"[..]), "{}", frozen.log());
}
