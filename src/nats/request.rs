//! One request and its answer: that of the server, or of the client library, or a denial.

use std::time::Duration;

use async_nats::{Message, Request, RequestErrorKind, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::Bus;
use super::denials::{Denied, SinceNow};
use super::error::BusError;
use super::message::{Headers, Page, direct_message};

/// How long one request may take before its result counts as unclear.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Bus {
    /// Sends what waits for company, and this with it; returns the answer's payload.
    pub(super) async fn request_at_once(
        &self,
        subject: String,
        headers: Option<Headers>,
        payload: Bytes,
    ) -> Result<Bytes, BusError> {
        // The library's own queue is full when the server was away for long.
        let left = timeout(REQUEST_TIMEOUT, self.along().leave(self.client())).await;
        left.map_err(|_| BusError::Unclear(REQUEST_TIMEOUT))?;
        let mut request = Request::new().payload(payload.clone()).timeout(Some(REQUEST_TIMEOUT));
        if let Some(Headers(headers)) = headers {
            request = request.headers(headers);
        }
        // Not sent: a write that nobody hears of would look as if it had not been done.
        if let Some(denied) = self.denials().of_answers() {
            return Err(BusError::Denied(denied));
        }
        let (begun, mut denials) = (Instant::now(), self.denials().since_now());
        // Cancel safe: an answer that nobody waits for is dropped by the library.
        let reply = tokio::select! {
            biased;
            reply = self.client().send_request(subject.clone(), request) => reply,
            // Its own time begins when the library has room for it.
            () = sleep(REQUEST_TIMEOUT * 2) => return Err(BusError::Unclear(begun.elapsed())),
            denied = denials.request_to(&subject) => return Err(match denied {
                Denied::Publish(_) => BusError::Denied(denied),
                // It is the answer that can't come: the request may have been obeyed.
                Denied::Subscribe(_) => BusError::Unclear(begun.elapsed()),
            }),
        };
        reply.map(|message| message.payload).map_err(|error| {
            use RequestErrorKind as Kind;
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

    /// Reads messages by a direct get.
    pub(super) async fn direct_get(
        &self,
        stream: &str,
        ask: &impl Serialize,
    ) -> Result<Page, BusError> {
        let mut denials = self.denials().since_now();
        let inbox = self.client().new_inbox();
        let subscribed = self.client().subscribe(inbox.clone()).await;
        let mut replies = subscribed.map_err(|error| BusError::Broken(error.to_string()))?;
        let subject = format!("{}.DIRECT.GET.{stream}", self.api_prefix());
        let payload = serde_json::to_vec(ask).map_err(|e| BusError::Broken(e.to_string()))?;
        let sent = self.client().publish_with_reply(subject.clone(), inbox, payload.into()).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))?;
        let mut page = Page::default();
        loop {
            let reply = answer(&mut replies, &mut denials, &subject).await?;
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

/// The next message of an answer.
async fn answer(
    replies: &mut Subscriber,
    denials: &mut SinceNow,
    subject: &str,
) -> Result<Message, BusError> {
    // Cancel safe: messages stay in the subscription.
    let reply = tokio::select! {
        biased;
        reply = timeout(REQUEST_TIMEOUT, replies.next()) => reply,
        denied = denials.request_to(subject) => return Err(BusError::Denied(denied)),
    };
    reply.ok().flatten().ok_or(BusError::Unclear(REQUEST_TIMEOUT))
}
