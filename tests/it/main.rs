//! Integration tests: real processes, real nats-servers, the real binary.

mod connect;
mod devserver;
mod process;
mod python_client;
mod support;
mod worker;
