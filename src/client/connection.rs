//! The client's handle.

use crate::nats::{Bus, StatusLog};

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

    pub(super) fn log(&self) -> StatusLog {
        StatusLog::new(self.bus.clone())
    }
}
