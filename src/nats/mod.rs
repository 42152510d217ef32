//! The only module that imports `async_nats`.

pub mod connect;
pub mod context;
pub mod link;
pub mod settings;
pub mod version;
