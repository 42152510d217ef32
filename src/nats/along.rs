//! Messages that nobody waits for travel with one that somebody does: alone, each would cost a write, and
//! would wake the server.
//!
//! ```text
//! send_along ─► waiting ─┬─► before the next request of this connection
//!                        └─► after 5 ms, if there is none (`run`)
//! ```
//!
//! They go in the order in which they came, and before any request that is made after them. A request may
//! wait for another one, too ([`Bus::company`]); and each lets others run before it is sent, but for those
//! that such a one has brought about ([`Bus::append_at_once`]), which leave in the same write.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::{Client, PublishError, Subject};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::{sleep, timeout};

use super::{Bus, BusError};

/// How long a message waits for company.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a request does; the runtime's clock makes it up to twice as long.
const SHORT_PATIENCE: Duration = Duration::from_millis(1);
/// After how long a full queue is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A message that nobody waits for.
pub(super) struct Message {
    pub(super) subject: Subject,
    pub(super) reply: Option<Subject>,
    pub(super) payload: Bytes,
}

impl Message {
    async fn send(&self, client: &Client) -> Result<(), PublishError> {
        let (to, payload) = (self.subject.clone(), self.payload.clone());
        match self.reply.clone() {
            Some(reply) => client.publish_with_reply(to, reply, payload).await,
            None => client.publish(to, payload).await,
        }
    }
}

/// What waits.
#[derive(Default)]
pub(super) struct Along {
    waiting: Mutex<VecDeque<Message>>,
    added: Notify,
    leaving: Notify,
    /// Whether many tasks share the connection, as in a worker.
    is_shared: AtomicBool,
}

impl Along {
    pub(super) fn add(&self, message: Message) {
        self.lock().push_back(message);
        self.added.notify_one();
    }

    /// Hands what waits to the client library. Cancel safe: what it has not taken goes on waiting.
    pub(super) async fn leave(&self, client: &Client) {
        // These run before the connection does, and so are in the same write.
        self.leaving.notify_waiters();
        while !self.hand_over(client) {
            sleep(FULL_PAUSE).await;
        }
    }

    /// False: the library's own queue is full, which it is when the server was away for long.
    ///
    /// Nothing is awaited under the lock, so that a request that finds none waiting comes after all that did.
    /// And nobody stands in line for an asynchronous one: the runtime gives that to whoever is next, also to
    /// a future that has used up its task's budget or isn't polled, and all requests would wait for it.
    fn hand_over(&self, client: &Client) -> bool {
        let mut waiting = self.lock();
        while let Some(message) = waiting.front() {
            // It waits for room in the queue only, once it isn't bound by the budget of the task.
            let Some(sent) = unconstrained(message.send(client)).now_or_never() else {
                return false;
            };
            if let Err(error) = sent {
                let subject = &message.subject;
                tracing::warn!(%subject, %error, "a message that nobody waits for was not sent");
            }
            waiting.pop_front();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
