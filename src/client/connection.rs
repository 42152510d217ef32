//! The client's handle.

use crate::nats::{Bus, BusError, StatusEntry, StatusLog};
use crate::wire::TaskId;

/// Submits, follows, cancels and looks at tasks of one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    bus: Bus,
}

impl Client {
    /// Uses a connection.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Returns the connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Reads the last record of a task's chain from the leader.
    ///
    /// # Errors
    /// The server could not be asked.
    pub async fn last_record(&self, id: &TaskId) -> Result<Option<StatusEntry>, BusError> {
        self.log().last(id).await
    }

    pub(super) fn log(&self) -> StatusLog {
        StatusLog::new(self.bus.clone())
    }
}
