//! The only module that imports `async_nats`. It moves bytes and keeps the protocol's promises about
//! order; it decides nothing about tasks.
//!
//! `bus` is what all others stand on: confirmed publish, compare-and-set, leader reads, direct reads.

pub mod bus;
pub mod status_log;
pub mod topology;

pub use bus::{Bus, BusError, Headers, Incoming, Page, Stored, Subscription};
pub use status_log::{Append, StatusEntry, StatusLog};
