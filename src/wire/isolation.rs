//! What a task asks of its isolation: never less than its runner gives.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a task is shut off from its host; docs/isolation.md has each preset's table.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Preset {
    /// Nothing but a session of its own and the kill of everything it leaves behind.
    #[default]
    None,
    /// What nearly every program can live with, also for a worker that isn't root.
    Standard,
    /// Namespaces, a read-only file system and no capabilities, for programs that aren't trusted.
    Strict,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        })
    }
}
