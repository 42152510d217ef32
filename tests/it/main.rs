//! Integration tests: real processes, real nats-servers, the real binary.

mod cli;
mod client;
mod config;
mod connect;
mod devserver;
mod e2e;
mod layering;
mod process;
mod schema;
mod solti;
mod specs;
mod support;
mod worker;
