//! Slots across a fleet: how many tasks run at once, which ones, and in what order.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runlane::client::Client;
use runlane::nats::Slots;
use runlane::wire::{Outcome, Phase, StatusEvent, StopReason, TaskId};
use runlane::worker::{Drain, Worker};

use crate::support::nats::TestServer;
use crate::support::worker::{Fleet, shell_spec};

/// A task's witness: lines `+id` and `-id` in one file, at its start and at its end.
fn witnessed(log: &Path, script: &str) -> String {
    let log = log.display();
    format!("echo +$RUNLANE_TASK_ID >> {log}; {script}; echo -$RUNLANE_TASK_ID >> {log}")
}

/// What ran: the most tasks at once, and the order of starts.
fn witnesses(log: &Path) -> (usize, Vec<String>) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let (mut now, mut most, mut starts) = (0_usize, 0, Vec::new());
    for line in text.lines() {
        if let Some(id) = line.strip_prefix('+') {
            now += 1;
            most = most.max(now);
            starts.push(id.to_owned());
        } else {
            now = now.checked_sub(1).expect("no end without a start");
        }
    }
    (most, starts)
}

fn in_slot(slot: &str, admission: &str, limit: u32) -> String {
    format!(r#""slot":"{slot}","admission":"{admission}","slotLimit":{limit},"#)
}

async fn three_workers(fleet: &Fleet, server: &TestServer, capacity: usize) -> [Worker; 3] {
    [
        fleet.worker(server, "w1", capacity).await,
        fleet.worker(server, "w2", capacity).await,
        fleet.worker(server, "w3", capacity).await,
    ]
}

async fn outcomes(fleet: &Fleet, ids: &[TaskId]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for id in ids {
        outcomes.push(fleet.outcome(id).await);
    }
    outcomes
}

/// Waits until a slot has as many holders and waiters.
async fn slot_has(fleet: &Fleet, slot: &str, holders: usize, waiters: usize) {
    let slots = Slots::new(fleet.bus.clone());
    let start = Instant::now();
    loop {
        let record = slots.read(slot).await.expect("the server answers").record;
        if (record.holders.len(), record.waiters.len()) == (holders, waiters) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{record:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn drop_if_running_runs_one_at_a_time_and_rejects_the_others() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("log");
    let _workers = three_workers(&fleet, &server, 4).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let spec = shell_spec(&witnessed(&log, "sleep 1"), &in_slot("a slot", "dropIfRunning", 1));
        ids.push(fleet.publish(&format!("t{n}"), spec).await);
    }
    let outcomes = outcomes(&fleet, &ids).await;
    let (most, starts) = witnesses(&log);
    assert_eq!((most, starts.len()), (1, 1));
    for outcome in &outcomes {
        if outcome.id.as_str() == starts[0] {
            assert_eq!(outcome.phase, Phase::Succeeded);
            continue;
        }
        assert_eq!((outcome.phase, outcome.attempt), (Phase::Rejected, None), "{outcome:?}");
        let error = outcome.error.as_ref().expect("it says why");
        assert_eq!(error.step, "admit");
        for part in ["\"a slot\"", &format!("task {}", starts[0]), "worker w"] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }
    fleet.queue_is_empty().await;
    slot_has(&fleet, "a slot", 0, 0).await;
    let spec = shell_spec("true", &in_slot("a slot", "dropIfRunning", 1));
    let later = fleet.publish("later", spec).await;
    assert_eq!(fleet.outcome(&later).await.phase, Phase::Succeeded);
}

#[tokio::test]
async fn queue_runs_all_one_at_a_time_in_the_order_of_their_submission() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("log");
    let mut ids = Vec::new();
    for n in 0..20 {
        let spec = shell_spec(&witnessed(&log, "sleep 0.05"), &in_slot("q", "queue", 1));
        ids.push(fleet.publish(&format!("t{n}"), spec).await);
    }
    let _workers = three_workers(&fleet, &server, 4).await;
    let outcomes = outcomes(&fleet, &ids).await;
    assert!(outcomes.iter().all(|outcome| outcome.phase == Phase::Succeeded));
    let (most, starts) = witnesses(&log);
    let expected: Vec<_> = ids.iter().map(TaskId::to_string).collect();
    assert_eq!((most, starts), (1, expected));
    assert_eq!(fleet.concurrency().await.0, 1);
    for id in &ids {
        assert_eq!(fleet.events(id).await.len(), 2, "{id}: started, finished");
    }
    slot_has(&fleet, "q", 0, 0).await;
}

#[tokio::test]
async fn a_freed_slot_is_taken_at_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _workers = three_workers(&fleet, &server, 4).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(
            fleet
                .publish(&format!("t{n}"), shell_spec("sleep 0.3", &in_slot("q", "queue", 1)))
                .await,
        );
    }
    let ran = outcomes(&fleet, &ids).await.into_iter();
    let mut spans: Vec<_> = ran.map(|o| (o.started_at.expect("it ran"), o.finished_at)).collect();
    spans.sort();
    let gap = |pair: &[(Timestamp, Timestamp)]| pair[1].0.duration_since(pair[0].1).as_millis();
    let mut gaps: Vec<_> = spans.windows(2).map(gap).collect();
    gaps.sort_unstable();
    // A slow machine may miss some; the poll alone would take up to a second for each.
    assert!(gaps[gaps.len() / 2] < 150, "milliseconds from end to start: {gaps:?}");
}

#[tokio::test]
async fn replace_ends_with_the_newest() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _workers = three_workers(&fleet, &server, 4).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let spec = shell_spec("sleep 4", &in_slot("r", "replace", 1));
        ids.push(fleet.publish(&format!("t{n}"), spec).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let outcomes = outcomes(&fleet, &ids).await;
    let (newest, others) = outcomes.split_last().expect("twenty");
    assert_eq!(newest.phase, Phase::Succeeded, "{newest:?}");
    for outcome in others {
        let cause = outcome.cause.as_ref().expect("it was stopped");
        assert_eq!(
            (outcome.phase, cause.reason),
            (Phase::Canceled, StopReason::Replaced),
            "{outcome:?}"
        );
        let message = cause.message.as_deref().expect("it says by whom");
        assert!(message.starts_with("replaced by t"), "{message}");
    }
    let (most, starts) = fleet.concurrency().await;
    assert_eq!((most, starts.last().map(String::as_str)), (1, Some("t19")));
    fleet.queue_is_empty().await;
    slot_has(&fleet, "r", 0, 0).await;
}

#[tokio::test]
async fn a_slot_limit_of_three_lets_three_run_at_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("log");
    let _workers = three_workers(&fleet, &server, 4).await;
    let mut ids = Vec::new();
    for n in 0..12 {
        let spec = shell_spec(&witnessed(&log, "sleep 0.4"), &in_slot("l", "queue", 3));
        ids.push(fleet.publish(&format!("t{n}"), spec).await);
    }
    let outcomes = outcomes(&fleet, &ids).await;
    assert!(outcomes.iter().all(|outcome| outcome.phase == Phase::Succeeded));
    let (most, starts) = witnesses(&log);
    assert_eq!((most, starts.len()), (3, 12));
    assert_eq!(fleet.concurrency().await.0, 3);
}

#[tokio::test]
async fn a_dead_worker_s_slot_is_free_within_about_a_lease() {
    let lease = Duration::from_secs(2);
    let server = TestServer::start().await;
    let fleet = Fleet::with_lease(&server, lease).await;
    let first = fleet.worker(&server, "w1", 2).await;
    let more = format!(r#"{}"onWorkerLost":"fail","#, in_slot("d", "queue", 1));
    let doomed = fleet.publish("doomed", shell_spec("echo up; sleep 600", &more)).await;
    fleet.first_output(&doomed).await;
    let _second = fleet.worker(&server, "w2", 2).await;
    let heir = fleet.publish("heir", shell_spec("true", &in_slot("d", "queue", 1))).await;
    slot_has(&fleet, "d", 1, 1).await;
    let start = Instant::now();
    drop(first);
    assert_eq!(fleet.outcome(&heir).await.phase, Phase::Succeeded);
    assert!(start.elapsed() < 3 * lease, "{:?}", start.elapsed());
    assert_eq!(fleet.outcome(&doomed).await.phase, Phase::Lost);
    slot_has(&fleet, "d", 0, 0).await;
}

#[tokio::test]
async fn a_task_that_lost_its_worker_takes_over_its_own_hold() {
    let server = TestServer::start().await;
    let fleet = Fleet::with_lease(&server, Duration::from_secs(2)).await;
    let first = fleet.worker(&server, "w1", 2).await;
    let script = "if [ $RUNLANE_ATTEMPT = 1 ]; then echo up; sleep 600; fi";
    let moved = fleet.publish("moved", shell_spec(script, &in_slot("d", "dropIfRunning", 1))).await;
    fleet.first_output(&moved).await;
    drop(first);
    let _second = fleet.worker(&server, "w2", 2).await;
    let stranger =
        fleet.publish("stranger", shell_spec("true", &in_slot("d", "dropIfRunning", 1))).await;
    assert_eq!(fleet.outcome(&stranger).await.phase, Phase::Rejected);
    let outcome = fleet.outcome(&moved).await;
    assert_eq!((outcome.phase, outcome.attempt.map(|a| a.0)), (Phase::Succeeded, Some(2)));
    slot_has(&fleet, "d", 0, 0).await;
}

#[tokio::test]
async fn a_slot_is_held_between_retries() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let more = format!(
        r#"{}"restart":{{"type":"onFailure"}},"maxRetries":1,"backoff":{{"jitter":"none","firstMs":1500}},"#,
        in_slot("b", "dropIfRunning", 1)
    );
    let flaky = fleet.publish("flaky", shell_spec("[ $RUNLANE_ATTEMPT = 2 ]", &more)).await;
    let start = Instant::now();
    while !matches!(fleet.events(&flaky).await.last(), Some(StatusEvent::Retrying(_))) {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = fleet.publish("other", shell_spec("true", &in_slot("b", "dropIfRunning", 1))).await;
    assert_eq!(fleet.outcome(&other).await.phase, Phase::Rejected);
    assert_eq!(fleet.outcome(&flaky).await.phase, Phase::Succeeded);
}

#[tokio::test]
async fn waiting_tasks_take_no_capacity_and_a_cancel_ends_one_without_a_start() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let holder_s = fleet.worker(&server, "w1", 1).await;
    let holder =
        fleet.publish("holder", shell_spec("echo up; sleep 600", &in_slot("w", "queue", 1))).await;
    fleet.first_output(&holder).await;
    let _small = fleet.worker(&server, "w2", 1).await;
    let mut waiting = Vec::new();
    for n in 0..5 {
        let spec = shell_spec("true", &in_slot("w", "queue", 1));
        waiting.push(fleet.publish(&format!("waits{n}"), spec).await);
    }
    slot_has(&fleet, "w", 1, 5).await;
    for n in 0..3 {
        let id = fleet.shell(&format!("free{n}"), "true").await;
        assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    }
    fleet.cancel(&waiting[2], r#"{"reason":"enough"}"#).await;
    let outcome = fleet.outcome(&waiting[2]).await;
    let cause = outcome.cause.expect("it was stopped");
    assert_eq!((outcome.phase, cause.reason), (Phase::Canceled, StopReason::Canceled));
    assert_eq!((outcome.attempt, cause.message.as_deref()), (None, Some("enough")));
    assert_eq!(fleet.events(&waiting[2]).await.len(), 1, "finished, and no start");
    slot_has(&fleet, "w", 1, 4).await;
    fleet.cancel(&holder, "").await;
    for id in waiting.iter().filter(|id| id.as_str() != "waits2") {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
    }
    fleet.queue_is_empty().await;
    drop(holder_s);
}

#[tokio::test]
async fn a_draining_worker_hands_its_waiting_tasks_back_at_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _other = fleet.worker(&server, "w1", 1).await;
    let holder =
        fleet.publish("holder", shell_spec("echo up; sleep 600", &in_slot("w", "queue", 1))).await;
    fleet.first_output(&holder).await;
    let mut drained = fleet.worker(&server, "w2", 1).await;
    let waits = fleet.publish("waits", shell_spec("true", &in_slot("w", "queue", 1))).await;
    slot_has(&fleet, "w", 1, 1).await;
    drained.drain(Drain::Wait);
    let report = drained.ended().await.expect("it ends cleanly");
    assert_eq!(report.requeued, 1);
    let _third = fleet.worker(&server, "w3", 1).await;
    fleet.cancel(&holder, "").await;
    assert_eq!(fleet.outcome(&waits).await.phase, Phase::Succeeded);
    assert_eq!(fleet.events(&waits).await.len(), 2, "it was never started before");
}

#[tokio::test]
async fn a_slot_whose_holder_was_purged_is_free_again() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let worker = fleet.worker(&server, "w1", 1).await;
    let holder =
        fleet.publish("holder", shell_spec("echo up; sleep 600", &in_slot("p", "queue", 1))).await;
    fleet.first_output(&holder).await;
    drop(worker);
    let subjects = fleet.bus.subjects();
    let queued = subjects.queue_task(&holder);
    fleet.bus.purge(&subjects.queue_stream(), &queued).await.expect("purged");
    let bucket = runlane::nats::topology::kv_stream(&subjects.workers_bucket());
    // As if its worker had been silent for as long as a presence record lasts.
    fleet.bus.purge(&bucket, ">").await.expect("purged");
    let _second = fleet.worker(&server, "w2", 1).await;
    let id = fleet.publish("next", shell_spec("true", &in_slot("p", "dropIfRunning", 1))).await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
}

#[tokio::test]
async fn more_tasks_than_waiting_places_all_run_and_others_with_them() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(
            fleet
                .publish(&format!("t{n}"), shell_spec("sleep 0.05", &in_slot("q", "queue", 1)))
                .await,
        );
    }
    let _worker = fleet.worker(&server, "w1", 2).await;
    ids.push(fleet.shell("plain", "true").await);
    let outcomes = outcomes(&fleet, &ids).await;
    assert!(outcomes.iter().all(|outcome| outcome.phase == Phase::Succeeded));
    fleet.queue_is_empty().await;
    slot_has(&fleet, "q", 0, 0).await;
}

#[tokio::test]
async fn a_slot_does_not_stand_empty_because_its_next_task_waits_at_a_full_worker() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _first = fleet.worker(&server, "w1", 1).await;
    let holder =
        fleet.publish("holder", shell_spec("echo up; sleep 600", &in_slot("f", "queue", 1))).await;
    fleet.first_output(&holder).await;
    let _full = fleet.worker(&server, "w2", 1).await;
    let waits = fleet.publish("waits", shell_spec("true", &in_slot("f", "queue", 1))).await;
    slot_has(&fleet, "f", 1, 1).await;
    let long = fleet.shell("long", "echo up; sleep 600").await;
    fleet.first_output(&long).await;
    fleet.cancel(&holder, "").await;
    let start = Instant::now();
    let outcome = fleet.outcome(&waits).await;
    assert_eq!(outcome.worker.expect("it ran").as_str(), "w1");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn waiting_outlives_a_server_restart() {
    let mut server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("log");
    let _workers = three_workers(&fleet, &server, 2).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let spec = shell_spec(&witnessed(&log, "sleep 0.5"), &in_slot("q", "queue", 1));
        ids.push(fleet.publish(&format!("t{n}"), spec).await);
    }
    slot_has(&fleet, "q", 1, 5).await;
    server.kill().await;
    server.restart().await;
    for id in &ids {
        assert_eq!(fleet.patient_outcome(id).await.phase, Phase::Succeeded, "{id}");
        assert_eq!(fleet.events(id).await.len(), 2, "{id} ran once");
    }
    let (most, starts) = witnesses(&log);
    assert_eq!((most, starts.len()), (1, 6));
    slot_has(&fleet, "q", 0, 0).await;
}

#[tokio::test]
async fn a_published_task_whose_time_passes_while_it_waits_for_its_slot_ends_then() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let holder =
        fleet.publish("holder", shell_spec("echo up; sleep 600", &in_slot("w", "queue", 1))).await;
    fleet.first_output(&holder).await;
    let start_by = Timestamp::now() + Duration::from_secs(4);
    let more = format!("{}\"startBy\":\"{start_by}\",", in_slot("w", "queue", 1));
    let waits = fleet.publish("waits", shell_spec("true", &more)).await;
    // This one has a timer of the server's, too, which may be faster than its worker.
    let spec = serde_json::from_str(&shell_spec("true", &more)).expect("a spec");
    let submitted = Client::new(fleet.bus.clone()).submit(spec).await.expect("queued").task.id;
    slot_has(&fleet, "w", 1, 2).await;
    assert_eq!(fleet.outcome(&submitted).await.phase, Phase::Expired);
    let outcome = fleet.outcome(&waits).await;
    assert_eq!((outcome.phase, outcome.attempt), (Phase::Expired, None));
    let late = outcome.finished_at.duration_since(start_by);
    assert!((0..10_000).contains(&late.as_millis()), "{late}");
    slot_has(&fleet, "w", 1, 0).await;
    fleet.cancel(&holder, "").await;
    fleet.queue_is_empty().await;
}
