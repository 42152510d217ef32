//! The only module that imports `async_nats`. It moves bytes and keeps the protocol's promises about
//! order; it decides nothing about tasks.
//!
//! `bus` is what all others stand on: confirmed publish, compare-and-set, leader reads, direct reads.
//! `along` lets messages that nobody waits for travel with others.
//! `topology` makes streams, buckets and lanes. `intake` pulls tasks, `delivery` answers them,
//! `status_log` keeps a task's chain, `publisher` stores output, `chunk` is how that looks on the wire, `slots` keeps who has a slot, `cancel` hears cancel requests as they
//! pass, `chores` brings every stored one (and schedules that are due), `presence` says who is there, and `service` answers
//! requests. `connect` opens a connection from `settings` or a `context` of the nats
//! CLI; `link` says how it is, `denials` what its user may not do, and `version` what the server must be. `request` is
//! one question and its answer.

pub mod along;
pub mod bus;
pub mod cancel;
pub mod chores;
mod chunk;
pub mod connect;
pub mod context;
pub mod delivery;
pub mod denials;
pub mod error;
pub(crate) mod guards;
pub mod intake;
pub mod link;
pub mod message;
pub mod presence;
pub mod publisher;
mod request;
pub mod service;
pub mod settings;
pub mod slots;
pub mod status_log;
pub mod topology;
pub mod version;

pub use bus::{Bus, Cas, Subscription};
pub use cancel::Cancels;
pub use chores::{Chore, ChoreQueue, ChoreSource};
pub use chunk::{ChunkError, PublishedChunk};
pub use connect::{ConnectError, Connected, connect};
pub use delivery::{AckHandle, Delivery, Stray};
pub use denials::Denied;
pub use error::BusError;
pub use intake::{Intake, IntakeInputs, PullHealth, Pulled, Room};
pub use link::{Link, LinkState};
pub use message::{Headers, Incoming, Page, Stored};
pub use publisher::{Hold, OutputPublisher, StoredOutput, StoredStream};
pub use settings::ConnectSettings;
pub use slots::{SlotChanges, SlotEntry, Slots};
pub use status_log::{Append, Kept, StatusEntry, StatusLog};
