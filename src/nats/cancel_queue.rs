//! Stored cancel requests, handed to one worker at a time until one says that the task has ended.
//!
//! A durable consumer shared by all workers: a cancel ends in an outcome though its canceller went
//! away, and though the task's own worker is dead. Pulls are bounded in time, so none can be forgotten.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, IntoConsumerConfig, pull};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};

use super::bus::{Bus, BusError};
use super::delivery::AckHandle;
use super::status_log::parse_cancel;
use crate::wire::subject::TaskSubject;
use crate::wire::{CancelRequest, TaskId};

/// The consumer's name.
const CONSUMER: &str = "cancels";
/// How long a request stays with a worker that says nothing.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// How long one pull waits.
const EXPIRES: Duration = Duration::from_secs(5);
/// Requests of one pull.
const BATCH: usize = 16;
/// Pause after the server could not be reached.
const PAUSE: Duration = Duration::from_secs(1);

/// Stored cancel requests.
pub struct CancelQueue {
    bus: Bus,
    inbox: String,
    replies: async_nats::Subscriber,
    left: usize,
    until: Instant,
}

/// A stored cancel request.
#[derive(Debug, Clone)]
pub struct StoredCancel {
    /// The task that is to end.
    pub id: TaskId,
    /// What was asked.
    pub request: CancelRequest,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// How to say that it is settled, or to ask for it again.
    pub handle: AckHandle,
}

impl CancelQueue {
    /// Makes the consumer if it is missing, and listens.
    ///
    /// # Errors
    /// The server refuses the consumer, or the connection is closed.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        ensure_consumer(bus).await?;
        let inbox = bus.client().new_inbox();
        let replies = bus.client().subscribe(inbox.clone()).await;
        let replies = replies.map_err(|error| BusError::Broken(error.to_string()))?;
        Ok(Self { bus: bus.clone(), inbox, replies, left: 0, until: Instant::now() })
    }

    /// Returns the next request; `None` when the connection is closed. Cancel safe: a message stays
    /// in the subscription until it is taken, and a pull that is forgotten is made again.
    pub async fn next(&mut self) -> Option<StoredCancel> {
        loop {
            if self.left == 0 || Instant::now() >= self.until {
                self.pull().await;
            }
            let message = match timeout_at(self.until, self.replies.next()).await {
                Ok(message) => message?,
                Err(_) => continue,
            };
            if message.status.is_some() {
                // Expired, or nobody there now: either way this pull is over.
                self.left = 0;
                sleep_if_early(self.until).await;
                continue;
            }
            self.left -= 1;
            if let Some(stored) = read(&self.bus, message) {
                return Some(stored);
            }
        }
    }

    async fn pull(&mut self) {
        let ask = serde_json::json!({ "batch": BATCH, "expires": EXPIRES.as_nanos() as u64 });
        let stream = self.bus.subjects().tasks_stream();
        if let Err(error) = self.bus.pull(&stream, CONSUMER, self.inbox.clone(), &ask).await {
            tracing::debug!(%error, "cancel requests are not pulled now; trying again");
        }
        self.left = BATCH;
        // Later than the server's own end of the pull, so that two are never open for long.
        self.until = Instant::now() + EXPIRES + Duration::from_millis(500);
    }
}

async fn sleep_if_early(until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    // An ordinary expiry comes near the end; anything else is a server that can't serve us now.
    if left > PAUSE {
        sleep(PAUSE).await;
    }
}

fn read(bus: &Bus, message: async_nats::Message) -> Option<StoredCancel> {
    let message = jetstream::Message { message, context: bus.context().clone() };
    let info = message.info().ok()?;
    let micros = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).ok()?;
    let stored_at = Timestamp::from_microsecond(micros).ok()?;
    let handle = AckHandle::new(message.reply.as_ref()?.to_string());
    let (id, what) = bus.subjects().parse_task(&message.subject)?;
    (what == TaskSubject::Cancel).then(|| StoredCancel {
        id,
        request: parse_cancel(&message.payload),
        stored_at,
        handle,
    })
}

async fn ensure_consumer(bus: &Bus) -> Result<(), BusError> {
    let subjects = bus.subjects();
    let stream = subjects.tasks_stream();
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        name: Some(CONSUMER.to_owned()),
        filter_subject: subjects.cancel_all(),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: -1,
        max_waiting: 20_000,
        ..pull::Config::default()
    };
    // Without an action the call also succeeds when the same consumer is there.
    let ask = serde_json::json!({
        "stream_name": stream, "config": config.into_consumer_config(),
    });
    let what = format!("CONSUMER.CREATE.{stream}.{CONSUMER}.{}", subjects.cancel_all());
    bus.api::<serde_json::Value>(&what, &ask).await.map(|_| ())
}
