//! What the worker says about itself: logs, metrics, and an HTTP port for both probes and scrapes.

pub mod health;
mod line_sink;
pub mod logging;
pub mod metrics;

pub use health::{HealthServer, Readiness};
pub use logging::{LogFormat, LoggingError};
pub use metrics::{Metrics, MetricsError};
