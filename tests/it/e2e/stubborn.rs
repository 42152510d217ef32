//! Tasks that don't want to end, or leave something behind.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use super::{DEADLINE, Site, args_of, code, err, marked, out, until};
use crate::support::proc::Mark;

#[tokio::test]
async fn a_task_that_ignores_sigterm_is_killed_after_its_grace() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let mark = Mark::new();
    let script = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let task = marked(&mark, script);
    let start = Instant::now();
    let output =
        site.cli(&args_of(&["run", "--timeout", "300ms", "--grace", "700ms", "--"], &task)).await;
    mark.assert_none_alive();
    assert_eq!((code(&output), &*out(&output)), (124, "up\n"), "{}", err(&output));
    assert!(start.elapsed() >= Duration::from_secs(1), "the grace period was cut short");
    let id = site.submit(&mark, script).await;
    until(|| "the task".to_owned(), || mark.alive().len() == 2).await;
    assert_eq!(code(&site.cli(&["cancel", &id, "--grace", "200ms"]).await), 0);
    mark.assert_none_alive();
    let outcome = &site.status(&id).await["outcome"];
    assert_eq!((&outcome["phase"], &outcome["signal"]), (&"canceled".into(), &9.into()));
}

#[tokio::test]
async fn a_daemon_that_holds_stdout_does_not_outlive_its_task() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let mark = Mark::new();
    // Forked twice, in a session of its own, deaf to SIGTERM, with the task's stdout and stderr.
    let script = "setsid sh -c 'sh -c \"trap \\\"\\\" TERM HUP; echo daemon; sleep 1000; :\" &' ; echo leader; sleep 0.3; exit 2";
    let start = Instant::now();
    let output = site.cli(&args_of(&["run", "--"], &marked(&mark, script))).await;
    mark.assert_none_alive();
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(out(&output).contains("leader\n") && out(&output).contains("daemon\n"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_lets_nobody_hear_a_second_outcome() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let client = site.server.connect().await.client;
    let mut outcomes = client.subscribe("runlane.task.*.outcome").await.expect("subscribed");
    client.flush().await.expect("the server answers");
    let id = site.submit(&Mark::new(), "exit 0").await;
    let first = tokio::time::timeout(DEADLINE, outcomes.next()).await.expect("in time");
    assert!(first.expect("subscribed").subject.contains(&id));
    assert_eq!(code(&site.cli(&["cancel", &id]).await), 0);
    let last = site.submit(&Mark::new(), "exit 0").await;
    let next = tokio::time::timeout(DEADLINE, outcomes.next()).await.expect("in time");
    let next = next.expect("subscribed").subject;
    assert!(next.contains(&last), "a second outcome: {next}");
}
