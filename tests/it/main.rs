//! Tests of the whole crate from the outside.

mod config;
mod layering;
mod schema;
mod solti;
mod specs;
