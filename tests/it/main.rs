//! Integration tests: real processes, real nats-servers, the real binary.

mod config;
mod connect;
mod devserver;
mod layering;
mod process;
mod schema;
mod slots;
mod solti;
mod specs;
mod support;
mod worker;
