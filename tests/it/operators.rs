//! What operators and submitters ask besides running: pause, drain, later, again, away with it.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use runlane::client::{
    AgainError, CancelOptions, Canceled, Client, ControlError, ListFilter, SubmitError, UnknownTask,
};
use runlane::nats::topology::{self, TopologySettings};
use runlane::nats::{Bus, BusError};
use runlane::wire::{
    CancelRequest, ControlRequest, Phase, Stream, Subjects, TaskSpec, WorkerState,
};

use crate::support::nats::TestServer;
use crate::support::worker::Fleet;

#[tokio::test]
async fn a_paused_worker_takes_nothing_until_it_is_resumed_and_can_be_drained_by_request() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut worker = fleet.worker(&server, "w1", 2).await;
    let client = Client::new(fleet.bus.clone());
    let name = "w1".parse().expect("a valid name");
    let reply = client.control(&name, &ControlRequest::Pause {}).await.expect("it answers");
    assert_eq!(reply.state, WorkerState::Paused);
    let id = fleet.shell("later", "exit 0").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fleet.events(&id).await, []);
    client.control(&name, &ControlRequest::Resume {}).await.expect("it answers");
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    let drain = ControlRequest::Drain { deadline_ms: Some(0) };
    let reply = client.control(&name, &drain).await.expect("it answers");
    assert_eq!(reply.state, WorkerState::Draining);
    worker.ended().await.expect("it ends cleanly");
    // The server learns a moment later that nobody listens any more.
    let gone = loop {
        match client.control(&name, &ControlRequest::Pause {}).await {
            Err(ControlError::Bus { source: BusError::Unclear(_), .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(gone, Err(ControlError::NotThere(_))), "{gone:?}");
}

#[tokio::test]
async fn a_delayed_task_waits_at_the_server_and_can_be_canceled_there() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let delayed = |delay: u64| TaskSpec { delay: Some(delay), ..TaskSpec::command("true", []) };
    let pending = ListFilter { phase: Some(Phase::Pending), lane: None, limit: 10 };
    // No worker is there when it is submitted.
    let soon = client.submit(delayed(700)).await.expect("scheduled").task.id;
    let never = client.submit(delayed(3_600_000)).await.expect("scheduled").task.id;
    let listed = client.list(&pending).await.expect("it can be read").tasks;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let submitted = Instant::now();
    let _worker = fleet.worker(&server, "w1", 2).await;
    assert_eq!(fleet.outcome(&soon).await.phase, Phase::Succeeded);
    assert!(submitted.elapsed() > Duration::from_millis(500), "{:?}", submitted.elapsed());
    let options = CancelOptions {
        request: CancelRequest::default(),
        wait: Duration::from_secs(5),
        unknown: UnknownTask::Refuse,
    };
    let canceled = client.cancel(&never, &options).await.expect("it is known");
    assert!(matches!(canceled, Canceled::Ended(_)), "{canceled:?}");
    assert_eq!(fleet.outcome(&never).await.phase, Phase::Canceled);
}

#[tokio::test]
async fn a_task_that_is_not_started_in_time_expires() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let spec = TaskSpec {
        start_by: Some(Timestamp::now() + SignedDuration::from_millis(300)),
        runner_selector: Some("gpu=none-has-it".parse().expect("a selector")),
        ..TaskSpec::command("true", [])
    };
    let id = client.submit(spec).await.expect("queued").task.id;
    let _worker = fleet.worker(&server, "w1", 2).await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Expired);
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_task_expires_for_those_who_ask_though_there_is_no_worker() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let start_by = Some(Timestamp::now() + SignedDuration::from_millis(200));
    let spec = TaskSpec { start_by, ..TaskSpec::command("true", []) };
    let id = client.submit(spec).await.expect("queued").task.id;
    let mut waiter = client.wait([id.clone()]).await.expect("it listens");
    let outcome = waiter.next().await.expect("it is told").expect("one outcome");
    assert_eq!((outcome.id, outcome.phase), (id, Phase::Expired));
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_finished_task_can_be_run_again_and_be_removed() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let _worker = fleet.worker(&server, "w1", 2).await;
    let old = fleet.shell("old", "echo again; exit 4").await;
    fleet.outcome(&old).await;
    let new = client.retry(&old, None).await.expect("it has ended").task.id;
    assert_eq!(fleet.outcome(&new).await.exit_code, Some(4));
    assert_eq!(fleet.output(&new, Stream::Stdout).await, b"again\n");
    client.purge(&old).await.expect("it has ended");
    assert_eq!(fleet.events(&old).await, []);
    assert!(fleet.output(&old, Stream::Stdout).await.is_empty());
    let gone = client.retry(&old, None).await;
    assert!(matches!(gone, Err(AgainError::Unknown(_))), "{gone:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_clearly_and_loses_nothing() {
    let server = TestServer::start().await;
    let bus = Bus::over(&server.connect().await, Subjects::default());
    let small =
        TopologySettings { queue_max_bytes: Some(16 * 1024), ..TopologySettings::default() };
    topology::ensure(&bus, &small).await.expect("the streams are made");
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let spec = || TaskSpec::command("true", ["x".repeat(1024)]);
    let mut accepted = Vec::new();
    let refused = loop {
        match client.submit(spec()).await {
            Ok(submission) => accepted.push(submission.task.id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 100, "the queue takes more than it may");
    };
    assert!(matches!(refused, SubmitError::Full { .. }), "{refused:?}");
    let _worker = fleet.worker(&server, "w1", 4).await;
    for id in &accepted {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
    }
    fleet.queue_is_empty().await;
    client.submit(spec()).await.expect("there is room again");
}
