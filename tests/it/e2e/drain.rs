//! Ending a worker with signals.

use std::fs;

use nix::sys::signal::Signal;

use super::{Site, until, until_exists};
use crate::support::proc::Mark;

#[tokio::test]
async fn sigterm_lets_running_tasks_end_and_takes_no_new_ones() {
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    let mark = Mark::new();
    let (up, go) = (site.path("up"), site.path("go"));
    let script = format!(
        "touch {}; while ! [ -e {} ]; do sleep 0.02; done; exit 5",
        up.display(),
        go.display()
    );
    let running = site.submit(&mark, &script).await;
    until_exists(&up).await;
    worker.signal(Signal::SIGTERM);
    worker.logged("the worker ends").await;
    let waiting = site.submit(&mark, "exit 6").await;
    fs::write(&go, "").expect("the file is written");
    let (code, log) = worker.ended().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(site.wait(&running).await, 5);
    assert_eq!(site.status(&waiting).await["phase"], "pending", "{log}");
    mark.assert_none_alive();
    let _next = site.worker("next", "").await;
    assert_eq!(site.wait(&waiting).await, 6);
}

#[tokio::test]
async fn a_second_sigterm_hands_tasks_back_to_be_run_at_once() {
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    let mark = Mark::new();
    let script = "[ $RUNLANE_ATTEMPT = 2 ] && exit 5; setsid sleep 1000 & sleep 1000";
    let id = site.submit(&mark, script).await;
    until(|| "its processes".to_owned(), || mark.alive().len() == 3).await;
    worker.signal(Signal::SIGTERM);
    worker.logged("how=Wait").await;
    worker.signal(Signal::SIGTERM);
    let (code, log) = worker.ended().await;
    assert_eq!(code, 3, "tasks were handed back: {log}");
    mark.assert_none_alive();
    assert_eq!(site.status(&id).await["phase"], "pending", "{log}");
    // Long before its lease of 30 seconds would be over.
    let start = std::time::Instant::now();
    let _next = site.worker("next", "").await;
    assert_eq!(site.wait(&id).await, 5);
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
    assert_eq!(site.chain(&id).await, ["started", "requeued", "started", "finished"]);
}
