//! Messages that nobody waits for travel with one that somebody does: alone, each would cost a write, and
//! would wake the server.
//!
//! ```text
//! send_along ─► waiting ─┬─► before the next request of this connection
//!                        └─► after 5 ms, if there is none (`run`)
//! ```
//!
//! They go in the order in which they came, and before any request that is made after them. A request may
//! wait for another one, too ([`Bus::company`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_nats::{Client, Subject};
use bytes::Bytes;
use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

use super::{Bus, BusError};

/// How long a message waits for company.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a request does; the runtime's clock makes it up to twice as long.
const SHORT_PATIENCE: Duration = Duration::from_millis(1);

/// A message that nobody waits for.
pub(super) struct Message {
    pub(super) subject: Subject,
    pub(super) reply: Option<Subject>,
    pub(super) payload: Bytes,
}

/// What waits.
#[derive(Default)]
pub(super) struct Along {
    // Held while they are sent: a request that finds none here comes after those.
    waiting: Mutex<VecDeque<Message>>,
    /// How many wait, or are being sent. Who finds none takes no lock: of many requests that one task makes
    /// at once, and polls by turns, one that isn't polled would keep the others from it.
    count: AtomicUsize,
    added: Notify,
    leaving: Notify,
    /// Whether many tasks share the connection, as in a worker.
    is_shared: AtomicBool,
}

impl Along {
    pub(super) async fn add(&self, message: Message) {
        let mut waiting = self.waiting.lock().await;
        waiting.push_back(message);
        self.count.fetch_add(1, Ordering::AcqRel);
        drop(waiting);
        self.added.notify_one();
    }

    /// Hands what waits to the client library. Cancel safe: what it has not taken goes on waiting.
    pub(super) async fn leave(&self, client: &Client) {
        // These run before the connection does, and so are in the same write.
        self.leaving.notify_waiters();
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock().await;
        while let Some(Message { subject, reply, payload }) = waiting.front() {
            let (to, payload) = (subject.clone(), payload.clone());
            let sent = match reply.clone() {
                Some(reply) => client.publish_with_reply(to, reply, payload).await,
                None => client.publish(to, payload).await,
            };
            if let Err(error) = sent {
                tracing::warn!(%subject, %error, "a message that nobody waits for was not sent");
            }
            waiting.pop_front();
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Lets everything run that is ready, which may have something to send, too: it comes into the same
    /// write. Where one after the other is sent, what was sent before would leave alone instead.
    pub(super) async fn after_others(&self) {
        if self.is_shared.load(Ordering::Relaxed) {
            after_others().await;
        }
    }

    /// Waits for a request, but not for long.
    pub(super) async fn company(&self) {
        timeout(SHORT_PATIENCE, self.leaving.notified()).await.ok();
    }
}

/// Unlike tokio's `yield_now`, which wakes those that yield in reverse, this keeps their order.
async fn after_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Sends what nothing else takes along, for a connection that many tasks share. Ends when its future is
/// dropped.
pub async fn run(bus: Bus) -> Result<(), BusError> {
    bus.along().is_shared.store(true, Ordering::Relaxed);
    loop {
        bus.along().added.notified().await;
        sleep(PATIENCE).await;
        bus.along().leave(bus.client()).await;
    }
}
