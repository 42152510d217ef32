//! Work that the workers share besides tasks: stored cancel requests, and schedules that are due.
//!
//! A durable consumer hands each message to one worker at a time until one says that it is settled,
//! whoever died since. Pulls are bounded in time, so none can be forgotten.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, IntoConsumerConfig, pull};
use async_nats::{StatusCode, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::delivery::AckHandle;
use super::link::{Link, LinkState};
use super::{Bus, BusError};

/// How long a message stays with a worker that says nothing.
pub const ACK_WAIT: Duration = Duration::from_secs(15);
/// How long one pull waits.
const EXPIRES: Duration = Duration::from_secs(5);
/// Messages of one pull.
const BATCH: usize = 16;
/// Pause after the server could not be reached.
const PAUSE: Duration = Duration::from_secs(1);

/// Which messages are shared.
#[derive(Debug, Clone)]
pub struct ChoreSource {
    /// The stream they are in.
    pub stream: String,
    /// The durable consumer's name.
    pub consumer: &'static str,
    /// Their subjects.
    pub filter: String,
}

/// Messages that the workers share.
pub struct ChoreQueue {
    bus: Bus,
    link: watch::Receiver<Link>,
    source: ChoreSource,
    inbox: String,
    replies: async_nats::Subscriber,
    /// Pulls so far. Each has an inbox of its own, so that the end of an older one is not taken for its own.
    pulls: u64,
    left: usize,
    until: Instant,
}

/// A message that is to be settled.
#[derive(Debug, Clone)]
pub struct Chore {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// How often it was delivered, this time included.
    pub delivered: u32,
    /// How to say that it is settled, or to ask for it again.
    pub handle: AckHandle,
}

impl ChoreQueue {
    /// Makes the consumer if it is missing, and listens.
    ///
    /// # Errors
    /// The server refuses the consumer, or the connection is closed.
    pub async fn open(
        bus: &Bus,
        link: watch::Receiver<Link>,
        source: ChoreSource,
    ) -> Result<Self, BusError> {
        ensure_consumer(bus, &source).await?;
        let inbox = bus.client().new_inbox();
        let replies = bus.client().subscribe(format!("{inbox}.*")).await;
        let replies = replies.map_err(|error| BusError::Broken(error.to_string()))?;
        let until = Instant::now();
        Ok(Self { bus: bus.clone(), link, source, inbox, replies, pulls: 0, left: 0, until })
    }

    /// Returns the next message; `None` when the connection is closed. Cancel safe: a message stays
    /// in the subscription until it is taken, and a pull that is forgotten is made again.
    pub async fn next(&mut self) -> Option<Chore> {
        loop {
            if self.left == 0 || Instant::now() >= self.until {
                self.pull().await;
            }
            let message = match timeout_at(self.until, self.replies.next()).await {
                Ok(message) => message?,
                Err(_) => continue,
            };
            if message.status.is_some() {
                if *message.subject != *self.newest() {
                    continue;
                }
                // Expired, or nobody there now: either way this pull is over.
                self.left = 0;
                // An ordinary expiry comes near the end; anything else is a server that can't serve us now.
                if self.until.saturating_duration_since(Instant::now()) > PAUSE {
                    sleep(PAUSE).await;
                    if may_be_gone(&message) {
                        self.ensure_consumer().await;
                    }
                }
                continue;
            }
            self.left = self.left.saturating_sub(1);
            if let Some(chore) = read(&self.bus, message) {
                return Some(chore);
            }
        }
    }

    /// Makes the consumer again, if somebody has removed it, or its stream.
    async fn ensure_consumer(&self) {
        let consumer = self.source.consumer;
        if let Err(error) = ensure_consumer(&self.bus, &self.source).await {
            tracing::debug!(%error, consumer, "can't be made now; trying again");
        }
    }

    /// Where the newest pull is answered.
    fn newest(&self) -> String {
        format!("{}.{}", self.inbox, self.pulls)
    }

    /// Cancel safe: one that was begun counts as open, and is sent with the next request at the latest.
    async fn pull(&mut self) {
        // What is asked while the server is away would come to it all at once.
        while self.link.borrow_and_update().state != LinkState::Up {
            if self.link.changed().await.is_err() {
                break;
            }
        }
        self.pulls += 1;
        self.left = BATCH;
        // Later than the server's own end of the pull, so that two are never open for long.
        self.until = Instant::now() + EXPIRES + Duration::from_millis(500);
        let ask = serde_json::json!({ "batch": BATCH, "expires": EXPIRES.as_nanos() as u64 });
        let ChoreSource { stream, consumer, .. } = &self.source;
        if let Err(error) = self.bus.pull(stream, consumer, self.newest(), &ask, true).await {
            tracing::debug!(%error, consumer, "nothing is pulled now; trying again");
        }
    }
}

/// Whether the end of a pull can mean that there is no consumer: nobody listened, or it was removed.
fn may_be_gone(end: &async_nats::Message) -> bool {
    let is_removed = |text: &str| text.contains("Deleted");
    end.status == Some(StatusCode::NO_RESPONDERS)
        || end.description.as_deref().is_some_and(is_removed)
}

fn read(bus: &Bus, message: async_nats::Message) -> Option<Chore> {
    let message = jetstream::Message { message, context: bus.context().clone() };
    let info = message.info().ok()?;
    let micros = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).ok()?;
    let stored_at = Timestamp::from_microsecond(micros).ok()?;
    let handle = AckHandle::new(message.reply.as_ref()?.to_string());
    let delivered = u32::try_from(info.delivered).unwrap_or(u32::MAX);
    let (subject, payload) = (message.subject.to_string(), message.message.payload);
    Some(Chore { subject, payload, stored_at, delivered, handle })
}

async fn ensure_consumer(bus: &Bus, source: &ChoreSource) -> Result<(), BusError> {
    let ChoreSource { stream, consumer, filter } = source;
    let config = pull::Config {
        durable_name: Some((*consumer).to_owned()),
        name: Some((*consumer).to_owned()),
        filter_subject: filter.clone(),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: -1,
        max_waiting: 20_000,
        ..pull::Config::default()
    };
    // Without an action the call also succeeds when the same consumer is there.
    let ask = serde_json::json!({ "stream_name": stream, "config": config.into_consumer_config() });
    let what = format!("CONSUMER.CREATE.{stream}.{consumer}.{filter}");
    bus.api::<serde_json::Value>(&what, &ask).await.map(|_| ())
}
