//! Publishing, compare-and-set, and reading, each with one clear meaning.
//!
//! * `publish` and `append` return when the stream has stored the message, never before.
//! * `read_last` asks the stream's leader, so it sees every confirmed write: decisions use it.
//! * `read_page` is a batched direct get, which a replica may answer late: viewers use it.
//! * An error that leaves open whether a write happened is [`BusError::Unclear`]: read, don't guess.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Request, StatusCode, jetstream};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::Subjects;

/// How long one request may take before its result counts as unclear.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
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
}

/// Why a request to the server did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No answer came: the write may have happened or not.
    #[error("no answer from NATS within {}s", .0.as_secs())]
    Unclear(Duration),
    /// Nobody serves the subject: the stream is missing, or JetStream has no leader now.
    #[error("no stream answers on {subject}; has `runlane init` been run, and is JetStream ready?")]
    NoStream {
        /// The subject that was asked.
        subject: String,
    },
    /// The server refused the request.
    #[error("the server refused: {text} (error {code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// Its description.
        text: String,
    },
    /// The message is larger than the server takes.
    #[error("the message has {size} bytes; the server's max_payload is {limit}")]
    TooLarge {
        /// Payload and headers, in bytes.
        size: usize,
        /// The server's `max_payload`, in bytes.
        limit: usize,
    },
    /// The connection is closed for good, or the answer makes no sense.
    #[error("{0}")]
    Broken(String),
}

impl BusError {
    /// Whether the same request may succeed later: the server is away, starting, or changing leaders.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unclear(_) | Self::NoStream { .. } => true,
            // 10008 no leader/not available, 10009 timeouts, 10023 resources, 10077 store failed,
            // 10167 too many requests, 10210/10211 in-flight limits.
            Self::Refused { code, .. } => {
                matches!(code, 10_008 | 10_009 | 10_023 | 10_077 | 10_167 | 10_210 | 10_211)
            }
            Self::TooLarge { .. } | Self::Broken(_) => false,
        }
    }
}

/// A compare-and-set's answer when it is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// Stored, with this sequence.
    Stored(u64),
    /// Somebody else wrote first.
    Conflict,
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its sequence in its stream.
    pub seq: u64,
    /// When the server stored it.
    pub time: Timestamp,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// A message as it passes by on a subscription.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its subject.
    pub subject: String,
    /// Where an answer is expected, if one is.
    pub reply: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// Headers of a message.
#[derive(Debug, Clone, Default)]
pub struct Headers(HeaderMap);

impl Headers {
    /// When a schedule is due (ADR-51).
    pub const SCHEDULE: &str = "Nats-Schedule";
    /// Where it goes then (ADR-51).
    pub const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";

    /// Adds a header.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // a call with a number or a text reads better
    pub fn with(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.0.insert(name, value.to_string().as_str());
        self
    }

    /// Returns a header's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Returns a header's value as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Some messages of a stream, in stream order.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Stored>,
    /// Whether nothing that was stored when the page was read follows it.
    pub end: bool,
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

fn incoming(message: async_nats::Message) -> Incoming {
    Incoming {
        subject: message.subject.to_string(),
        reply: message.reply.map(|reply| reply.to_string()),
        headers: Headers(message.headers.unwrap_or_default()),
        payload: message.payload,
    }
}

impl Bus {
    /// Uses a connection to a server that is fit for runlane.
    pub fn over(connected: &super::Connected, subjects: Subjects) -> Self {
        let (client, context) = (connected.client.clone(), connected.jetstream.clone());
        Self::new(client, context, connected.api_prefix.clone(), subjects)
    }

    /// Wraps a connection. `api_prefix` is `$JS.API`, or `$JS.<domain>.API`.
    pub fn new(
        client: async_nats::Client,
        context: jetstream::Context,
        api_prefix: String,
        subjects: Subjects,
    ) -> Self {
        Self { inner: Arc::new(Inner { client, context, api_prefix, subjects }) }
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
        #[derive(Deserialize)]
        struct PubAck {
            seq: u64,
        }
        let reply = self.request(subject, Some(headers), payload).await?;
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
        let headers = headers
            .with(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE.as_ref(), expected);
        match self.publish(subject, headers, payload).await {
            Ok(seq) => Ok(Cas::Stored(seq)),
            // 10071: refused by the leader. 10164: lost against a write that is still in flight.
            Err(BusError::Refused { code: 10_071 | 10_164, .. }) => Ok(Cas::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Publishes without a confirmation: for answers and for acks whose loss a redelivery repairs.
    pub async fn send(&self, subject: String, payload: Bytes) -> Result<(), BusError> {
        let sent = self.inner.client.publish(subject, payload).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))
    }

    /// Asks and returns the answer's payload.
    pub async fn ask(&self, subject: String, payload: Bytes) -> Result<Bytes, BusError> {
        self.request(subject, None, payload).await
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

    /// Listens to a subject without a consumer.
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, BusError> {
        let inner = self.inner.client.subscribe(subject).await;
        let inner = inner.map_err(|error| BusError::Broken(error.to_string()))?;
        // The server must know the subscription before the caller reads history.
        self.flush().await?;
        Ok(Subscription { inner })
    }

    /// Returns when the server has answered, and so has dealt with all that was sent before: a
    /// subscription is then known to whoever publishes on another connection.
    pub async fn round_trip(&self) -> Result<(), BusError> {
        self.api::<serde_json::Value>("INFO", &serde_json::json!({})).await.map(|_| ())
    }

    /// Hands everything that was sent before to the socket.
    pub async fn flush(&self) -> Result<(), BusError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.inner.client.flush()).await {
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
        decode(&self.request(subject, None, payload.into()).await?)
    }

    /// Asks for a pull; the answers go to `inbox`.
    pub(crate) async fn pull(
        &self,
        stream: &str,
        consumer: &str,
        inbox: String,
        ask: &impl Serialize,
    ) -> Result<(), BusError> {
        let payload = serde_json::to_vec(ask).map_err(|e| BusError::Broken(e.to_string()))?;
        let subject = format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", self.inner.api_prefix);
        let sent = self.inner.client.publish_with_reply(subject, inbox, payload.into()).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))
    }

    async fn request(
        &self,
        subject: String,
        headers: Option<Headers>,
        payload: Bytes,
    ) -> Result<Bytes, BusError> {
        let mut request = Request::new().payload(payload.clone()).timeout(Some(REQUEST_TIMEOUT));
        if let Some(Headers(headers)) = headers {
            request = request.headers(headers);
        }
        let reply = self.inner.client.send_request(subject.clone(), request).await;
        reply.map(|message| message.payload).map_err(|error| {
            use async_nats::RequestErrorKind as Kind;
            match error.kind() {
                Kind::TimedOut => BusError::Unclear(REQUEST_TIMEOUT),
                Kind::NoResponders => BusError::NoStream { subject },
                Kind::MaxPayloadExceeded => {
                    BusError::TooLarge { size: payload.len(), limit: self.max_payload() }
                }
                Kind::InvalidSubject | Kind::Other => BusError::Broken(error.to_string()),
            }
        })
    }

    async fn direct_get(&self, stream: &str, ask: &impl Serialize) -> Result<Page, BusError> {
        let inbox = self.inner.client.new_inbox();
        let subscribed = self.inner.client.subscribe(inbox.clone()).await;
        let mut replies = subscribed.map_err(|error| BusError::Broken(error.to_string()))?;
        let subject = format!("{}.DIRECT.GET.{stream}", self.inner.api_prefix);
        let payload = serde_json::to_vec(ask).map_err(|e| BusError::Broken(e.to_string()))?;
        let sent = self.inner.client.publish_with_reply(subject, inbox, payload.into()).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))?;
        let mut page = Page::default();
        loop {
            let reply = tokio::time::timeout(REQUEST_TIMEOUT, replies.next()).await;
            let Ok(Some(reply)) = reply else { return Err(BusError::Unclear(REQUEST_TIMEOUT)) };
            match reply.status {
                Some(StatusCode::NOT_FOUND) => {
                    page.end = true;
                    return Ok(page);
                }
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(BusError::NoStream { subject: stream.to_owned() });
                }
                // 204: the end of the batch.
                Some(status) if status.as_u16() == 204 => {
                    let headers = Headers(reply.headers.unwrap_or_default());
                    page.end = headers.number("Nats-Num-Pending") == Some(0);
                    return Ok(page);
                }
                Some(status) => {
                    let text = reply.description.map(|text| text.to_string()).unwrap_or_default();
                    return Err(BusError::Refused { code: u64::from(status.as_u16()), text });
                }
                None => page.messages.push(direct_message(reply)?),
            }
        }
    }
}

/// JetStream's answers: the value asked for, or an error.
fn decode<T: DeserializeOwned>(reply: &Bytes) -> Result<T, BusError> {
    #[derive(Deserialize)]
    struct Failure {
        error: ApiError,
    }
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    if let Ok(Failure { error }) = serde_json::from_slice::<Failure>(reply) {
        return Err(BusError::Refused { code: error.err_code, text: error.description });
    }
    serde_json::from_slice(reply)
        .map_err(|error| BusError::Broken(format!("cannot read the server's answer: {error}")))
}

#[derive(Deserialize)]
struct RawMessage {
    message: RawStored,
}

#[derive(Deserialize)]
struct RawStored {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    time: Timestamp,
}

impl RawStored {
    // Headers are left out: no decision of ours reads one.
    fn stored(self) -> Result<Stored, BusError> {
        let payload = base64::engine::general_purpose::STANDARD
            .decode(&self.data)
            .map_err(|error| BusError::Broken(format!("cannot read a stored message: {error}")))?;
        Ok(Stored {
            subject: self.subject,
            seq: self.seq,
            time: self.time,
            headers: Headers::default(),
            payload: payload.into(),
        })
    }
}

fn direct_message(reply: async_nats::Message) -> Result<Stored, BusError> {
    let headers = Headers(reply.headers.unwrap_or_default());
    let missing = |name: &str| BusError::Broken(format!("a direct get's answer has no {name}"));
    let subject = headers.get("Nats-Subject").ok_or_else(|| missing("Nats-Subject"))?.to_owned();
    let seq = headers.number("Nats-Sequence").ok_or_else(|| missing("Nats-Sequence"))?;
    let time = headers.get("Nats-Time-Stamp").and_then(|text| text.parse().ok());
    let time = time.ok_or_else(|| missing("Nats-Time-Stamp"))?;
    Ok(Stored { subject, seq, time, headers, payload: reply.payload })
}
