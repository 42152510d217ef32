//! What several tests share.

pub(crate) mod nats;
pub(crate) mod proc;
pub(crate) mod worker;
