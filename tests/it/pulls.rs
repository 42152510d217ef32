//! What a worker asks the queue for: no more than it can run, and a little ahead while tasks are short.

use std::time::{Duration, Instant};

use bytes::Bytes;
use runlane::nats::Kept;
use runlane::wire::{Phase, TaskId};

use crate::support::nats::TestServer;
use crate::support::worker::Fleet;

/// Short tasks, enough of them that the next is taken to be short too.
const SHORT: u64 = 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the default lane's tasks were delivered.
async fn deliveries(server: &TestServer, fleet: &Fleet) -> u64 {
    let jetstream = server.connect().await.jetstream;
    let stream = jetstream.get_stream_no_info(fleet.bus.subjects().queue_stream()).await;
    let info = stream.expect("a stream's name").consumer_info("default").await;
    info.expect("the lane is there").delivered.consumer_sequence
}

#[tokio::test]
async fn tasks_of_a_backlog_are_delivered_once_each() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(fleet.shell(&format!("t{n}"), "sleep 0.03").await);
    }
    let _worker = fleet.worker(&server, "w1", 2).await;
    for id in &ids {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
    }
    assert_eq!(deliveries(&server, &fleet).await, 20);
}

#[tokio::test]
async fn what_was_fetched_ahead_of_a_long_task_is_handed_back_for_another_worker() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _busy = fleet.worker(&server, "w1", 1).await;
    for n in 0..SHORT {
        let id = fleet.publish(&format!("short{n}"), spec("/bin/true")).await;
        fleet.outcome(&id).await;
    }
    let long = fleet.shell("long", "echo up; sleep 5").await;
    let after = fleet.publish("after", spec("/bin/true")).await;
    fleet.first_output(&long).await;
    let start = Instant::now();
    let _free = fleet.worker(&server, "w2", 1).await;
    let outcome = fleet.outcome(&after).await;
    assert_eq!(outcome.worker.expect("it ran").as_str(), "w2");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // Each once, but the last one: to the busy worker first.
    assert_eq!(deliveries(&server, &fleet).await, SHORT + 2 + 1);
}

#[tokio::test]
async fn a_spec_whose_connection_was_lost_is_sent_again() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _watch = tokio::task::spawn(fleet.log.clone().watch_replicas());
    let id: TaskId = "t".parse().expect("a valid id");
    let spec = Bytes::from_static(b"{}");
    let stored = async || {
        let subjects = fleet.bus.subjects();
        let last = fleet.bus.read_last(&subjects.tasks_stream(), &subjects.spec(&id)).await;
        last.expect("the server answers").is_some()
    };
    // Until the replicas are counted, each one is confirmed.
    let start = Instant::now();
    let mut sent = Kept::Confirmed;
    while sent == Kept::Confirmed || !stored().await {
        assert!(start.elapsed() < DEADLINE, "the one replica is not counted");
        sent = fleet.log.keep_spec(&id, &spec).await.expect("sent");
    }
    let subjects = fleet.bus.subjects();
    fleet.bus.purge(&subjects.tasks_stream(), &subjects.spec(&id)).await.expect("purged");
    fleet.log.kept(&id, &spec, sent).await.expect("nothing to do");
    assert!(!stored().await, "the connection is the same");
    let Kept::SentOn(connection) = sent else { panic!("one replica: {sent:?}") };
    fleet.log.kept(&id, &spec, Kept::SentOn(connection + 1)).await.expect("sent again");
    assert!(stored().await);
}

fn spec(program: &str) -> String {
    format!(r#"{{"kind":{{"subprocess":{{"mode":{{"command":{{"command":"{program}"}}}}}}}}}}"#)
}
