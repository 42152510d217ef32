//! Integration tests: real processes, real nats-servers, the real binary.

mod cli;
mod client;
mod connect;
mod devserver;
mod process;
mod support;
mod worker;
