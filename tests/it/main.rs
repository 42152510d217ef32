//! The integration tests: real processes, real sockets.

mod process;
mod support;
