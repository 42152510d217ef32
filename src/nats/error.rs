//! Why a request to the server did not do what it should, and whether it may later.

use std::time::Duration;

use super::denials::Denied;

/// Pause before something that was denied is tried again.
const DENIED_PAUSE: Duration = Duration::from_secs(5);

/// Why a request to the server did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No answer came: the write may have happened or not.
    #[error("no answer from NATS within {0:.1?}")]
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
    /// The user may not do that.
    #[error(
        "the NATS server doesn't allow this user to {0}; deploy/nats/users.conf has what each sort of user needs"
    )]
    Denied(Denied),
    /// The connection is closed for good, or the answer makes no sense.
    #[error("{0}")]
    Broken(String),
}

impl BusError {
    /// Whether the same request may succeed later: the server is away, starting, or changing leaders, or
    /// an operator gives the user that right.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unclear(_) | Self::NoStream { .. } | Self::Denied(_) => true,
            // 10008 no leader/not available, 10009 timeouts, 10023 resources, 10077 store failed,
            // 10167 too many requests, 10210/10211 in-flight limits.
            Self::Refused { code, .. } => {
                matches!(code, 10_008 | 10_009 | 10_023 | 10_077 | 10_167 | 10_210 | 10_211)
            }
            Self::TooLarge { .. } | Self::Broken(_) => false,
        }
    }

    /// Whether the server said that the user may not do that: whoever waits for an answer is told at once.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// How long to wait before the same request, if it is `usual` while the server is away: a denial comes
    /// at once, and goes on until somebody does something about it.
    pub fn pause(&self, usual: Duration) -> Duration {
        if self.is_denied() { usual.max(DENIED_PAUSE) } else { usual }
    }
}
