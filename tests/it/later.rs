//! Tasks that were published to the queue before their time.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use runlane::nats::Headers;
use runlane::wire::{LaneId, Phase, Timer};

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
