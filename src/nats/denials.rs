//! What this connection's user may not do, as the server says it.
//!
//! The server doesn't answer a request that it denies. It names the subject on the connection, beside all
//! answers. Here that becomes the request's own end, so that nobody waits for an answer in vain.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

/// How many denials are remembered; a request looks for its own as soon as there is one more.
const REMEMBERED: usize = 256;

/// Something that the server doesn't let this connection's user do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// To publish to this subject.
    Publish(Arc<str>),
    /// To subscribe to this subject.
    Subscribe(Arc<str>),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(subject) => write!(f, "publish to {subject}"),
            Self::Subscribe(subject) => write!(f, "subscribe to {subject}"),
        }
    }
}

impl Denied {
    /// Reads what the server says of a violation; None: it speaks of something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (_, what) = text.split_once("Permissions Violation for ")?;
        let (kind, rest) = what.split_once(" to \"")?;
        let (subject, _) = rest.split_once('"')?;
        match kind {
            "Publish" => Some(Self::Publish(subject.into())),
            "Subscription" => Some(Self::Subscribe(subject.into())),
            _ => None,
        }
    }
}

/// The denials of one connection. Cheap to clone; the clones share them.
#[derive(Debug, Clone)]
pub struct Denials {
    heard: Arc<watch::Sender<Heard>>,
    /// What the subjects begin with that answers come to.
    inbox: Arc<str>,
}

#[derive(Debug, Default)]
struct Heard {
    count: u64,
    /// The newest last, each with its number.
    last: VecDeque<(u64, Denied)>,
    /// No answer can come: the subscription for them was denied, which is said only once.
    answers: Option<Denied>,
}

impl Heard {
    fn of_publish(&self, subject: &str, since: u64) -> Option<Denied> {
        let newer = self.last.iter().rev().take_while(|(number, _)| *number > since);
        let mut publishes = newer.map(|(_, denied)| denied);
        publishes.find(|denied| matches!(denied, Denied::Publish(s) if **s == *subject)).cloned()
    }
}

impl Default for Denials {
    fn default() -> Self {
        Self::new("_INBOX")
    }
}

impl Denials {
    pub(super) fn new(inbox_prefix: &str) -> Self {
        let (heard, _) = watch::channel(Heard::default());
        Self { heard: Arc::new(heard), inbox: format!("{inbox_prefix}.").into() }
    }

    pub(super) fn add(&self, denied: Denied) {
        self.heard.send_modify(|heard| {
            // The library's own subscription has a name for each answer; others have one of their own.
            if let Denied::Subscribe(subject) = &denied
                && subject.starts_with(&*self.inbox)
                && subject.ends_with(".*")
            {
                heard.answers = Some(denied.clone());
            }
            heard.count += 1;
            if heard.last.len() == REMEMBERED {
                heard.last.pop_front();
            }
            heard.last.push_back((heard.count, denied));
        });
    }

    /// A new connection: it subscribes again, and may do other things.
    pub(super) fn forget(&self) {
        self.heard.send_modify(|heard| heard.answers = None);
    }

    /// Why no request can be answered, if none can.
    pub(super) fn of_answers(&self) -> Option<Denied> {
        self.heard.borrow().answers.clone()
    }

    /// How many there were so far.
    pub(super) fn count(&self) -> u64 {
        self.heard.borrow().count
    }

    /// Whether publishing to the subject was denied since there were so many.
    pub(super) fn of_publish(&self, subject: &str, since: u64) -> Option<Denied> {
        self.heard.borrow().of_publish(subject, since)
    }

    /// What is denied from now on. To be made before the request is sent.
    pub(super) fn since_now(&self) -> SinceNow {
        let receiver = self.heard.subscribe();
        let since = receiver.borrow().count;
        SinceNow { receiver, since }
    }
}

/// The denials from some moment on.
#[derive(Debug)]
pub(super) struct SinceNow {
    receiver: watch::Receiver<Heard>,
    since: u64,
}

impl SinceNow {
    /// Returns when a request to the subject is denied, or its answer; never, if neither is. Cancel safe.
    pub(super) async fn request_to(&mut self, subject: &str) -> Denied {
        let since = self.since;
        let ours =
            |heard: &Heard| heard.answers.clone().or_else(|| heard.of_publish(subject, since));
        let heard = self.receiver.wait_for(|heard| ours(heard).is_some()).await;
        let denied = heard.ok().and_then(|heard| ours(&heard));
        match denied {
            Some(denied) => denied,
            // The connection is gone for good, and the request knows it.
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn publish(subject: &str) -> Denied {
        Denied::Publish(subject.into())
    }

    #[test]
    fn what_the_server_says_is_read() {
        let said = r#"nats: Permissions Violation for Publish to "a.b""#;
        assert_eq!(Denied::parse(said), Some(publish("a.b")));
        let said = r#"Permissions Violation for Subscription to "_INBOX.x.*" using queue "q""#;
        assert_eq!(Denied::parse(said), Some(Denied::Subscribe("_INBOX.x.*".into())));
        for other in ["Permissions Violation for Publish with Reply of \"r\"", "slow consumer", ""]
        {
            assert_eq!(Denied::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_request_hears_of_its_own_subject_from_its_begin_on() {
        let denials = Denials::default();
        denials.add(publish("a"));
        let mut a = denials.since_now();
        assert_eq!(a.request_to("a").now_or_never(), None, "that was an earlier one");
        denials.add(publish("b"));
        assert_eq!(a.request_to("a").now_or_never(), None);
        denials.add(publish("a"));
        denials.add(publish("b"));
        assert_eq!(a.request_to("a").now_or_never(), Some(publish("a")));
        // However many were denied since, the newest are there.
        let mut last = denials.since_now();
        (0..500).for_each(|n| denials.add(publish(&n.to_string())));
        assert_eq!(last.request_to("499").now_or_never(), Some(publish("499")));
    }

    #[test]
    fn without_answers_every_request_is_denied_until_the_next_connection() {
        let denials = Denials::new("_INBOX_me");
        denials.add(Denied::Subscribe("_INBOX.x.*".into()));
        assert_eq!(denials.since_now().request_to("a").now_or_never(), None, "not ours");
        let ours = Denied::Subscribe("_INBOX_me.x.*".into());
        denials.add(ours.clone());
        assert_eq!(denials.since_now().request_to("a").now_or_never(), Some(ours.clone()));
        assert_eq!(denials.since_now().request_to("b").now_or_never(), Some(ours));
        denials.forget();
        assert_eq!(denials.since_now().request_to("a").now_or_never(), None);
    }
}
