//! A NATS micro service with one endpoint, discoverable by `nats micro ls`.

use std::collections::HashMap;

use async_nats::service::{Request, Service as NatsService, ServiceExt as _, endpoint::Endpoint};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Bus, BusError};

/// What a service says about itself.
pub struct ServiceInfo {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Where it is asked.
    pub subject: String,
    /// Facts about this instance.
    pub metadata: HashMap<String, String>,
}

/// A running instance; requests are shared among all instances. It ends when dropped.
pub struct Service {
    // Kept because it answers the discovery requests.
    _service: NatsService,
    endpoint: Endpoint,
}

/// One request.
pub struct ServiceRequest {
    request: Request,
}

impl Service {
    /// Starts an instance.
    ///
    /// # Errors
    /// The connection is closed, or the server can't be reached.
    pub async fn start(bus: &Bus, info: ServiceInfo) -> Result<Self, BusError> {
        let broken = |error: async_nats::Error| BusError::Broken(error.to_string());
        let service = bus
            .client()
            .service_builder()
            .description(info.description)
            .metadata(info.metadata)
            .start(info.name, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(broken)?;
        let endpoint = service.endpoint(info.subject).await.map_err(broken)?;
        Ok(Self { _service: service, endpoint })
    }

    /// Returns the next request; `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<ServiceRequest> {
        self.endpoint.next().await.map(|request| ServiceRequest { request })
    }
}

impl ServiceRequest {
    /// Returns what was sent.
    pub fn payload(&self) -> &[u8] {
        &self.request.message.payload
    }

    /// Answers.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn reply(self, payload: Bytes) -> Result<(), BusError> {
        let sent = self.request.respond(Ok(payload)).await;
        sent.map_err(|error| BusError::Broken(error.to_string()))
    }
}
