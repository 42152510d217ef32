//! The client library against a real nats-server; the worker's side is played by hand.

mod cancel;
mod follow;
mod hand;
mod look;
mod submit;
