//! A task message that the server handed to us, and the four answers to it.
//!
//! Answers go by message, not by delivery: a stale worker's ack would delete the message and its nak
//! would run the task again, so only the task's status chain says who may answer. Whoever lost the
//! task sends nothing.

use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use jiff::Timestamp;

use super::{Bus, BusError};
use crate::wire::{LaneId, TaskId};

/// A delivered task message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The task, by the subject's last token.
    pub id: TaskId,
    /// The lane it came from.
    pub lane: LaneId,
    /// The spec as sent.
    pub payload: Bytes,
    /// The message's sequence in the queue stream.
    pub queue_seq: u64,
    /// How often the message was delivered, this time included. Not the attempt.
    pub delivered: u64,
    /// How many messages still waited in the lane.
    pub pending: u64,
    /// When the message was stored.
    pub published: Timestamp,
    /// When it reached us.
    pub received: Timestamp,
    /// How to answer it.
    pub handle: AckHandle,
}

/// Answers a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckHandle {
    reply: String,
}

/// A message that is not a task: its subject has no valid id.
#[derive(Debug, Clone)]
pub struct Stray {
    /// Its subject.
    pub subject: String,
    /// The lane it came from, if the subject has a valid one.
    pub lane: Option<LaneId>,
    /// How many messages still waited in the lane.
    pub pending: u64,
    /// How to answer it.
    pub handle: AckHandle,
}

impl AckHandle {
    pub(crate) fn new(reply: String) -> Self {
        Self { reply }
    }

    /// Takes the message out of the queue. Nobody waits for an answer: if the ack is lost, the message is
    /// redelivered after its lease, and whoever gets it finds the finished record and acks again. So it
    /// goes with the worker's next request.
    pub fn ack(&self, bus: &Bus) {
        bus.send_along(self.reply.clone(), Bytes::from_static(b"+ACK"));
    }

    /// Asks for redelivery after a delay that the server keeps.
    pub async fn nak(&self, bus: &Bus, delay: Duration) -> Result<(), BusError> {
        let answer = if delay.is_zero() {
            Bytes::from_static(b"-NAK")
        } else {
            format!("-NAK {{\"delay\":{}}}", delay.as_nanos()).into()
        };
        bus.ask(self.reply.clone(), answer).await.map(|_| ())
    }

    /// Extends our hold on the message, confirmed. The answer says nothing about who owns the task.
    pub async fn in_progress(&self, bus: &Bus) -> Result<(), BusError> {
        bus.ask(self.reply.clone(), Bytes::from_static(b"+WPI")).await.map(|_| ())
    }

    /// Takes a message that can never be a task out of the queue; the server announces why.
    pub async fn term(&self, bus: &Bus, reason: &str) -> Result<(), BusError> {
        bus.ask(self.reply.clone(), format!("+TERM {reason}").into()).await.map(|_| ())
    }
}

/// Reads a message that came from a pull.
pub(super) fn read(bus: &Bus, message: async_nats::Message) -> Option<Result<Delivery, Stray>> {
    let message = jetstream::Message { message, context: bus.context().clone() };
    let info = message.info().ok()?;
    let (queue_seq, pending) = (info.stream_sequence, info.pending);
    let delivered = u64::try_from(info.delivered).unwrap_or(1);
    let published = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).ok();
    let published = published.and_then(|us| Timestamp::from_microsecond(us).ok());
    let handle = AckHandle::new(message.reply.as_ref()?.to_string());
    let subject = message.subject.to_string();
    let Some((lane, id)) = bus.subjects().parse_queue(&subject) else {
        let lane = bus.subjects().lane_of_queued(&subject);
        return Some(Err(Stray { subject, lane, pending, handle }));
    };
    let payload = message.message.payload;
    let published = published.unwrap_or_default();
    let received = Timestamp::now();
    Some(Ok(Delivery {
        id,
        lane,
        payload,
        queue_seq,
        delivered,
        pending,
        published,
        received,
        handle,
    }))
}
