//! Tasks that don't want to end, or leave something behind.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::{DEADLINE, Site, WorkerProcess, args_of, code, err, marked, out, until};
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

/// A program that can't be executed as long as it is open for writing (ETXTBSY).
fn busy_program(site: &Site) -> (String, File) {
    let path = site.write("program", "");
    fs::copy("/bin/true", &path).expect("there is a /bin/true");
    let writer = File::options().append(true).open(&path).expect("it can be written");
    (path, writer)
}

#[tokio::test]
async fn a_task_that_could_not_be_started_for_now_is_no_failure_until_that_goes_on() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let (program, writer) = busy_program(&site);
    let backoff = "{\"first\":\"50ms\",\"max\":\"50ms\"}";
    let again =
        site.write("again", format!("{{\"command\":[\"{program}\"],\"backoff\":{backoff}}}"));
    let id = site.ok(&["submit", &again]).await.trim().to_owned();
    assert_eq!(site.wait(&id).await, 126);
    let chain = site.events(&id).await;
    let retries: Vec<_> = chain.iter().filter(|event| event["type"] == "retrying").collect();
    let losses: Vec<_> = retries.iter().map(|event| event["workerLosses"].as_u64()).collect();
    assert_eq!(losses, [Some(1), Some(2), Some(3)], "{chain:?}");
    assert!(
        retries
            .iter()
            .all(|event| event["failures"] == 0 && event["ended"]["error"]["step"] == "exec")
    );
    let outcome = &site.status(&id).await["outcome"];
    assert_eq!((&outcome["phase"], &outcome["attempt"]), (&"failed".into(), &4.into()));
    // One that may lose no worker ends with the first try.
    let id = site.ok(&["submit", "--max-worker-losses", "0", "--", &program]).await;
    assert_eq!(site.wait(id.trim()).await, 126);
    assert_eq!(site.chain(id.trim()).await, ["started", "finished"]);
    drop(writer);
    let id = site.ok(&["submit", &again]).await.trim().to_owned();
    assert_eq!(site.wait(&id).await, 0);
}

/// Sets how many files a worker may have open from now on.
fn limit_open_files(worker: &WorkerProcess, current: Option<u64>) {
    let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
    let pid = rustix::process::Pid::from_raw(worker.pid());
    prlimit(pid, Resource::Nofile, limit).expect("it is ours");
}

#[tokio::test]
async fn a_worker_whose_host_starts_nothing_leaves_tasks_to_others_and_comes_back() {
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    // No pipes can be made: all lower numbers are in use.
    limit_open_files(&worker, Some(4));
    let backoff = "{\"first\":\"10m\",\"max\":\"10m\",\"jitter\":\"none\"}";
    let spec = format!("{{\"command\":[\"true\"],\"backoff\":{backoff}}}\n");
    let specs = site.write("specs", spec.repeat(60));
    site.ok(&["submit", &specs]).await;
    let count = |text: &str| worker.log().matches(text).count();
    let rested = || count("this host can't start tasks: none is taken for a while") == 2;
    until(|| format!("the second rest in\n{}", worker.log()), rested).await;
    assert!(site.ok(&["workers"]).await.contains(" resting "));
    let why = "take none now: w is resting because its host could not start tasks";
    assert!(site.ok(&["lanes"]).await.contains(why));
    limit_open_files(&worker, getrlimit(Resource::Nofile).maximum);
    // Those that were under way with the third that failed, and one after each rest.
    let tried = || count("task will be retried");
    let done = || tried() + count("phase=succeeded") == 60;
    until(|| format!("the others in\n{}", worker.log()), done).await;
    assert!(tried() < 20, "{} of 60", tried());
    assert!(site.ok(&["workers"]).await.contains(" ready "));
}

#[tokio::test]
async fn tasks_that_can_not_be_started_by_their_own_fault_keep_nobody_from_the_others() {
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    let (program, _writer) = busy_program(&site);
    let specs = site.write("specs", format!("{{\"command\":[\"{program}\"]}}\n").repeat(20));
    site.ok(&["submit", &specs]).await;
    until(
        || "their retries".to_owned(),
        || worker.log().matches("task will be retried").count() >= 20,
    )
    .await;
    assert_eq!(code(&site.cli(&["run", "--", "true"]).await), 0);
    assert!(!worker.log().contains("can't start tasks"), "{}", worker.log());
}
