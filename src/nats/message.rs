//! Messages as they are stored and as they pass by, and how the server's answers are read.

use async_nats::HeaderMap;
use base64::Engine as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::BusError;

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
pub struct Headers(pub(super) HeaderMap);

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
pub(super) fn incoming(message: async_nats::Message) -> Incoming {
    Incoming {
        subject: message.subject.to_string(),
        reply: message.reply.map(|reply| reply.to_string()),
        headers: Headers(message.headers.unwrap_or_default()),
        payload: message.payload,
    }
}
/// JetStream's answers: the value asked for, or an error.
pub(super) fn decode<T: DeserializeOwned>(reply: &Bytes) -> Result<T, BusError> {
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
    // Nearly none has one, and a reading of it in vain costs as much as that of the value.
    if memchr::memmem::find(reply, b"\"error\"").is_some()
        && let Ok(Failure { error }) = serde_json::from_slice::<Failure>(reply)
    {
        return Err(BusError::Refused { code: error.err_code, text: error.description });
    }
    serde_json::from_slice(reply)
        .map_err(|error| BusError::Broken(format!("cannot read the server's answer: {error}")))
}

#[derive(Deserialize)]
pub(super) struct RawMessage {
    pub(super) message: RawStored,
}

#[derive(Deserialize)]
pub(super) struct RawStored {
    subject: String,
    pub(super) seq: u64,
    #[serde(default)]
    data: String,
    time: Timestamp,
}

impl RawStored {
    // Headers are left out: no decision of ours reads one.
    pub(super) fn stored(self) -> Result<Stored, BusError> {
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

pub(super) fn direct_message(reply: async_nats::Message) -> Result<Stored, BusError> {
    let headers = Headers(reply.headers.unwrap_or_default());
    let missing = |name: &str| BusError::Broken(format!("a direct get's answer has no {name}"));
    let subject = headers.get("Nats-Subject").ok_or_else(|| missing("Nats-Subject"))?.to_owned();
    let seq = headers.number("Nats-Sequence").ok_or_else(|| missing("Nats-Sequence"))?;
    let time = headers.get("Nats-Time-Stamp").and_then(|text| text.parse().ok());
    let time = time.ok_or_else(|| missing("Nats-Time-Stamp"))?;
    Ok(Stored { subject, seq, time, headers, payload: reply.payload })
}
