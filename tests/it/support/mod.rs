//! What several test files need.

pub(crate) mod nats;
pub(crate) mod proc;
