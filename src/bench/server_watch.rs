//! Notices soon that the bench's own nats-server has ended: nothing that is waited for would come.

use std::time::Duration;

use tokio::time::sleep;

use super::proc::is_alive;
use super::{BenchError, Site};
use crate::devserver::LastLines;

/// How often it looks: nothing that a figure could show.
const LOOK: Duration = Duration::from_millis(250);

/// Watches a server; independent of the site that has started it, which reaps it.
pub struct ServerWatch {
    server: Option<(u32, LastLines)>,
}

impl Site {
    /// Watches the site's own server, if it has one.
    pub fn watch_server(&self) -> ServerWatch {
        let server = self.own_server().map(|server| (server.pid(), server.last_lines()));
        ServerWatch { server }
    }
}

impl ServerWatch {
    /// What is to be said if the server has ended.
    pub fn has_ended(&self) -> Option<BenchError> {
        let (pid, log) = self.server.as_ref()?;
        (!is_alive(*pid)).then(|| BenchError::ServerEnded { log: log.read() })
    }

    /// Returns that when it has. Cancel safe.
    pub async fn ended(&self) -> BenchError {
        loop {
            if let Some(ended) = self.has_ended() {
                return ended;
            }
            sleep(LOOK).await;
        }
    }
}
