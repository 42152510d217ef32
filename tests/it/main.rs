//! Integration tests: real processes, real nats-servers, the real binary.

mod along;
mod bench;
mod cgroup;
mod cli;
mod client;
mod compression;
mod config;
mod connect;
mod devserver;
mod docs;
mod e2e;
mod isolation;
mod later;
mod layering;
mod operators;
mod process;
mod pulls;
mod python_client;
mod schema;
mod slots;
mod solti;
mod specs;
mod support;
mod worker;
