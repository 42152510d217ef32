//! Publishing, compare-and-set, and reading, each with one clear meaning.
//!
//! * `publish` and `append` return when the stream has stored the message, never before.
//! * `read_last` asks the stream's leader, so it sees every confirmed write: decisions use it.
//! * `read_page` is a batched direct get, which a replica may answer late: viewers use it.
//! * An error that leaves open whether a write happened is [`BusError::Unclear`]: read, don't guess.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::along::{Along, Message};
use super::denials::Denials;
use super::error::BusError;
use super::message::{Headers, Incoming, Page, RawMessage, Stored, decode, incoming};
use super::request::REQUEST_TIMEOUT;
use crate::wire::Subjects;

/// Messages per direct-get request; the server caps a batch at 1024.
const PAGE_MESSAGES: usize = 256;
/// Payload bytes per direct-get request, the bound on what a page holds in memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A connection to one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: async_nats::Client,
    context: jetstream::Context,
    api_prefix: String,
    subjects: Subjects,
    along: Along,
    denials: Denials,
}

/// A compare-and-set's answer when it is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// Stored, with this sequence.
    Stored(u64),
    /// Somebody else wrote first.
    Conflict,
}

/// A plain subscription; ends when dropped.
pub struct Subscription {
    inner: async_nats::Subscriber,
}

impl Subscription {
    /// Returns the next message; `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.inner.next().await.map(incoming)
    }
}

impl Bus {
    /// Uses a connection to a server that is fit for runlane.
    pub fn over(connected: &super::Connected, subjects: Subjects) -> Self {
        let (client, context) = (connected.client.clone(), connected.jetstream.clone());
        let (api_prefix, denials) = (connected.api_prefix.clone(), connected.denials.clone());
        let along = Along::default();
        Self { inner: Arc::new(Inner { client, context, api_prefix, subjects, along, denials }) }
    }

    /// Returns the names in use.
    pub fn subjects(&self) -> &Subjects {
        &self.inner.subjects
    }

    /// Returns the client library's connection, for modules of `nats/`.
    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.inner.client
    }

    /// Returns the client library's JetStream context, for modules of `nats/`.
    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.inner.context
    }

    pub(super) fn api_prefix(&self) -> &str {
        &self.inner.api_prefix
    }

    pub(super) fn denials(&self) -> &Denials {
        &self.inner.denials
    }

    /// Returns the largest message that the server takes, in bytes, headers included.
    pub fn max_payload(&self) -> usize {
        self.inner.client.server_info().max_payload
    }

    /// Publishes and waits until the stream has stored it; returns its sequence.
    pub async fn publish(
        &self,
        subject: String,
        headers: Headers,
        payload: Bytes,
    ) -> Result<u64, BusError> {
        self.after_others().await;
        self.publish_at_once(subject, headers, payload).await
    }

    async fn publish_at_once(
        &self,
        subject: String,
        headers: Headers,
        payload: Bytes,
    ) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct PubAck {
            seq: u64,
        }
        let reply = self.request_at_once(subject, Some(headers), payload).await?;
        decode::<PubAck>(&reply).map(|ack| ack.seq)
    }

    /// Publishes if `expected` is the sequence of the last message on exactly this subject (0: none).
    pub async fn append(
        &self,
        subject: String,
        expected: u64,
        payload: Bytes,
    ) -> Result<Cas, BusError> {
        self.append_with(subject, expected, Headers::default(), payload).await
    }

    /// Like `append`, with more headers.
    pub async fn append_with(
        &self,
        subject: String,
        expected: u64,
        headers: Headers,
        payload: Bytes,
    ) -> Result<Cas, BusError> {
        self.after_others().await;
        self.append_at_once(subject, expected, headers, payload).await
    }

    /// The same, without letting others run before: for what a request that is about to leave has brought
    /// about, and what would come too late for its write otherwise.
    pub async fn append_at_once(
        &self,
        subject: String,
        expected: u64,
        headers: Headers,
        payload: Bytes,
    ) -> Result<Cas, BusError> {
        let headers = headers
            .with(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE.as_ref(), expected);
        match self.publish_at_once(subject, headers, payload).await {
            Ok(seq) => Ok(Cas::Stored(seq)),
            // 10071: refused by the leader. 10164: lost against a write that is still in flight.
            Err(BusError::Refused { code: 10_071 | 10_164, .. }) => Ok(Cas::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Publishes without a confirmation: for answers.
    pub async fn send(&self, subject: String, payload: Bytes) -> Result<(), BusError> {
        let sent = self.inner.client.publish(subject, payload).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))
    }

    /// Publishes without a confirmation, before the next request or soon after: for acks whose loss a
    /// redelivery repairs, and for messages that a later one confirms (see [`Bus::connections`]). Needs
    /// [`super::along::run`] where no request may follow.
    pub fn send_along(&self, subject: String, payload: Bytes) {
        self.inner.along.add(Message { subject: subject.into(), reply: None, payload });
    }

    /// Returns when another request is about to be made, or in a millisecond or two: one that is made then
    /// costs no write of its own. For a request that is in no hurry.
    pub async fn company(&self) {
        self.inner.along.company().await;
    }

    /// Lets everything run that is ready; what it sends at once comes before what is sent after this.
    pub async fn after_others(&self) {
        self.inner.along.after_others().await;
    }

    /// What waits for the next request.
    pub(super) fn along(&self) -> &Along {
        &self.inner.along
    }

    /// Whether the connection is up, as far as the library knows.
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Counts the connections that were made so far. While the number stays, a single server has stored
    /// what was sent before anything that it has confirmed in the same stream.
    pub fn connections(&self) -> u64 {
        self.inner.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Asks and returns the answer's payload.
    pub async fn ask(&self, subject: String, payload: Bytes) -> Result<Bytes, BusError> {
        self.request(subject, payload).await
    }

    /// Reads the last message of a subject, or of a wildcard, from the stream's leader.
    pub async fn read_last(&self, stream: &str, subject: &str) -> Result<Option<Stored>, BusError> {
        let ask = serde_json::json!({ "last_by_subj": subject });
        match self.api::<RawMessage>(&format!("STREAM.MSG.GET.{stream}"), &ask).await {
            Ok(raw) => raw.message.stored().map(Some),
            // 10037: no message found.
            Err(BusError::Refused { code: 10_037, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the sequence of the first message of a subject filter from sequence `from` on, from the
    /// stream's leader.
    pub async fn first_from(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<u64>, BusError> {
        let ask = serde_json::json!({ "seq": from.max(1), "next_by_subj": filter });
        match self.api::<RawMessage>(&format!("STREAM.MSG.GET.{stream}"), &ask).await {
            Ok(raw) => Ok(Some(raw.message.seq)),
            // 10037: no message found.
            Err(BusError::Refused { code: 10_037, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads messages of a subject filter from sequence `from` on. A replica may answer: what was
    /// stored a moment ago may be missing, so only viewers use it.
    pub async fn read_page(&self, stream: &str, filter: &str, from: u64) -> Result<Page, BusError> {
        let ask = serde_json::json!({
            "seq": from.max(1), "next_by_subj": filter, "batch": PAGE_MESSAGES, "max_bytes": PAGE_BYTES,
        });
        self.direct_get(stream, &ask).await
    }

    /// Reads the last message of each subject below the filters, at most 1024 in all.
    pub async fn read_last_of_each(
        &self,
        stream: &str,
        filters: &[String],
    ) -> Result<Page, BusError> {
        let ask = serde_json::json!({ "multi_last": filters, "batch": 1024 });
        self.direct_get(stream, &ask).await
    }

    /// Listens to a subject without a consumer; what it sends to the server is under way.
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, BusError> {
        let subscription = self.subscribe_along(subject).await?;
        self.flush().await?;
        Ok(subscription)
    }

    /// The same, sent together with this connection's next request. The server deals with it first, so
    /// what the request leads to is heard, and what it reads is older than what is heard.
    pub async fn subscribe_along(&self, subject: String) -> Result<Subscription, BusError> {
        let inner = self.inner.client.subscribe(subject).await;
        let inner = inner.map_err(|error| BusError::Broken(error.to_string()))?;
        Ok(Subscription { inner })
    }

    /// Returns when the server has answered, and so has dealt with all that was sent before: a
    /// subscription is then known to whoever publishes on another connection.
    pub async fn round_trip(&self) -> Result<(), BusError> {
        self.api::<serde_json::Value>("INFO", &serde_json::json!({})).await.map(|_| ())
    }

    /// Hands everything that was sent before to the socket.
    pub async fn flush(&self) -> Result<(), BusError> {
        self.inner.along.leave(&self.inner.client).await;
        match timeout(REQUEST_TIMEOUT, self.inner.client.flush()).await {
            Ok(done) => done.map_err(|error| BusError::Broken(error.to_string())),
            Err(_) => Err(BusError::Unclear(REQUEST_TIMEOUT)),
        }
    }

    /// Removes all messages below a filter; returns how many there were.
    pub async fn purge(&self, stream: &str, filter: &str) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let ask = serde_json::json!({ "filter": filter });
        let reply: Purged = self.api(&format!("STREAM.PURGE.{stream}"), &ask).await?;
        Ok(reply.purged)
    }

    /// Calls JetStream's API; `what` is the subject below the prefix.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        what: &str,
        ask: &impl Serialize,
    ) -> Result<T, BusError> {
        let payload = serde_json::to_vec(ask).map_err(|e| BusError::Broken(e.to_string()))?;
        let subject = format!("{}.{what}", self.inner.api_prefix);
        decode(&self.request(subject, payload.into()).await?)
    }

    /// Asks for a pull, at once or along with the next request; the answers go to `inbox`.
    pub(crate) async fn pull(
        &self,
        stream: &str,
        consumer: &str,
        inbox: String,
        ask: &impl Serialize,
        is_urgent: bool,
    ) -> Result<(), BusError> {
        let payload = serde_json::to_vec(ask).map_err(|e| BusError::Broken(e.to_string()))?;
        let subject = self.pull_subject(stream, consumer);
        let reply = Some(inbox.into());
        let message = Message { subject: subject.into(), reply, payload: payload.into() };
        self.inner.along.add(message);
        if is_urgent {
            self.after_others().await;
            self.inner.along.leave(&self.inner.client).await;
        }
        Ok(())
    }

    /// Why a consumer can't be pulled from, if the server said so since there were so many denials.
    pub(super) fn denied_pull(&self, stream: &str, consumer: &str, since: u64) -> Option<BusError> {
        let denials = self.denials();
        let heard_more = denials.count() > since;
        let denied =
            heard_more.then(|| denials.of_publish(&self.pull_subject(stream, consumer), since));
        denied.flatten().map(BusError::Denied)
    }

    fn pull_subject(&self, stream: &str, consumer: &str) -> String {
        format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", self.inner.api_prefix)
    }

    async fn request(&self, subject: String, payload: Bytes) -> Result<Bytes, BusError> {
        self.after_others().await;
        self.request_at_once(subject, None, payload).await
    }
}
