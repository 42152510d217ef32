//! Integration tests: real processes, real nats-servers, the real binary.

mod connect;
mod devserver;
mod support;
