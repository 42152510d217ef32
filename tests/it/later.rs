//! Tasks that were published to the queue before their time.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use runlane::client::Client;
use runlane::nats::Headers;
use runlane::wire::{LaneId, Phase, TaskSpec, Timer};

use crate::support::nats::TestServer;
use crate::support::worker::{Fleet, shell_spec};

#[tokio::test]
async fn a_queued_task_that_may_not_start_yet_is_put_off_until_then() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let not_before = Timestamp::now() + Duration::from_secs(2);
    let more = format!("\"notBefore\":\"{not_before}\",");
    let id = fleet.publish("later", shell_spec("exit 0", &more)).await;
    fleet.queue_is_empty().await;
    assert!(fleet.events(&id).await.is_empty() && Timestamp::now() < not_before);
    let started = fleet.outcome(&id).await.started_at.expect("it ran");
    assert!(started >= not_before, "{started}, not before {not_before}");
    assert_eq!(fleet.events(&id).await.len(), 2);
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_schedule_that_is_due_before_the_put_off_message_is_removed_loses_nothing() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let spec = shell_spec("exit 0", "");
    let id = fleet.publish("early", spec.clone()).await;
    // By hand what a worker does that puts a task off; its ack is late.
    let subjects = fleet.bus.subjects();
    let jetstream = server.connect().await.jetstream;
    let lane = subjects.lane_consumer(&LaneId::default_lane());
    let consumer = jetstream.get_consumer_from_stream(lane, subjects.queue_stream()).await;
    let consumer: PullConsumer = consumer.expect("the default lane is there");
    let pulled = consumer.fetch().max_messages(1).messages().await.expect("the server answers");
    let message = pulled.boxed().next().await.expect("it waits").expect("it comes");
    let _worker = fleet.worker(&server, "w1", 2).await;
    let due = subjects.due(&id, Timer::Start);
    fleet.bus.publish(due, Headers::default(), spec.into()).await.expect("stored");
    tokio::time::sleep(Duration::from_millis(500)).await;
    message.ack().await.expect("it is removed");
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    assert_eq!(fleet.events(&id).await.len(), 2);
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn consumers_that_somebody_removes_are_made_again() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let jetstream = server.jetstream().await;
    for (stream, consumer) in
        [("RUNLANE_TASKS", "cancels"), ("RUNLANE_SCHEDULE", "due"), ("RUNLANE_QUEUE", "default")]
    {
        // The worker makes the first two when it starts, beside all else.
        let removed = async {
            while jetstream.delete_consumer_from_stream(consumer, stream).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), removed).await.expect("it is there");
    }
    let not_before = Timestamp::now() + Duration::from_secs(1);
    let more = format!("\"notBefore\":\"{not_before}\",");
    let later = fleet.publish("later", shell_spec("exit 0", &more)).await;
    assert_eq!(fleet.outcome(&later).await.phase, Phase::Succeeded);
    // Nobody but the shared consumer brings a cancel of a task that waits.
    let more = format!("\"notBefore\":\"{}\",", Timestamp::now() + Duration::from_secs(600));
    let canceled = fleet.publish("canceled", shell_spec("exit 0", &more)).await;
    fleet.queue_is_empty().await;
    fleet.cancel(&canceled, "").await;
    assert_eq!(fleet.outcome(&canceled).await.phase, Phase::Canceled);
}

#[tokio::test]
async fn times_that_the_servers_clock_does_not_reach_are_not_overdue() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let spec = |more: &str| serde_json::from_str(&shell_spec("exit 0", more)).expect("a spec");
    let late = "9000-01-01T00:00:00Z";
    // Without a worker that could take it.
    let more =
        format!(r#""startBy":"{late}","runnerSelector":{{"matchLabels":{{"os":"plan9"}}}},"#);
    let waits = client.submit(spec(&more)).await.expect("it is queued").task.id;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let sleeps = client.submit(spec(&format!("\"notBefore\":\"{late}\","))).await;
    let sleeps = sleeps.expect("it is kept").task.id;
    // One that a client has asked for nevertheless is put off once, not again and again.
    let foreign =
        fleet.publish("foreign", shell_spec("exit 0", &format!("\"notBefore\":\"{late}\","))).await;
    fleet.queue_has(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in [&waits, &sleeps, &foreign] {
        assert!(fleet.events(id).await.is_empty(), "{id}");
    }
    fleet.queue_has(1).await;
    let stream =
        server.jetstream().await.get_stream("RUNLANE_SCHEDULE").await.expect("it is there");
    let state = &stream.cached_info().state;
    assert_eq!(state.messages, 3, "two starts and one end");
    assert!(state.last_sequence < 6, "{} schedules were stored", state.last_sequence);
}

#[tokio::test]
async fn timers_of_an_earlier_task_leave_its_successor_alone() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let subjects = fleet.bus.subjects();
    let due = async |id, timer, payload: &str| {
        let subject = subjects.due(id, timer);
        let payload = payload.to_owned().into();
        fleet.bus.publish(subject, Headers::default(), payload).await.expect("stored")
    };
    // It runs; the timers are those of a task that had its id before.
    let goes_on = tempfile::NamedTempFile::new().expect("a file");
    let script = format!("while [ -e {} ]; do sleep 0.05; done", goes_on.path().display());
    let id = fleet.shell("again", &script).await;
    while fleet.events(&id).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    due(&id, Timer::Purge, "").await;
    due(&id, Timer::Purge, r#"{"finishedSeq":1}"#).await;
    due(&id, Timer::Expire, "").await;
    fleet.nothing_is_due().await;
    drop(goes_on);
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    assert_eq!(fleet.events(&id).await.len(), 2, "one attempt");
    // It has ended, and they still are another's.
    due(&id, Timer::Purge, r#"{"finishedSeq":1}"#).await;
    let waits = fleet
        .publish("waits", shell_spec("exit 0", r#""notBefore":"2100-01-01T00:00:00Z","#))
        .await;
    fleet.queue_is_empty().await;
    due(&waits, Timer::Expire, "").await;
    fleet.nothing_is_due().await;
    assert_eq!(fleet.events(&id).await.len(), 2);
    assert!(fleet.events(&waits).await.is_empty());
    // One for this end is obeyed.
    let seq = fleet.log.last(&id).await.expect("it answers").expect("it has ended").seq;
    due(&id, Timer::Purge, &format!(r#"{{"finishedSeq":{seq}}}"#)).await;
    fleet.nothing_is_due().await;
    assert!(fleet.events(&id).await.is_empty());
}

#[tokio::test]
async fn a_burst_of_timers_leaves_the_next_one_in_time() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let _workers = (fleet.worker(&server, "w1", 4).await, fleet.worker(&server, "w2", 4).await);
    let in_a_second = async || {
        let mut spec = TaskSpec::command("true", []);
        spec.delay = Some(1_000);
        client.submit(spec).await.expect("it is kept").task.id
    };
    for _ in 0..2 {
        let ids: Vec<_> =
            stream::iter(0..600).map(|_| in_a_second()).buffer_unordered(600).collect().await;
        for id in &ids {
            assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
        }
    }
    for _ in 0..3 {
        let begun = Instant::now();
        let id = in_a_second().await;
        fleet.outcome(&id).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
