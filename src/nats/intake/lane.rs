//! A lane as its intake knows it: its open pull, and what came of the last one.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{Bus, BusError};
use crate::wire::LaneId;

#[derive(Debug)]
pub(super) enum Pull {
    Idle,
    /// `denials`: how many the connection had heard of when the pull was sent.
    Waiting {
        number: u64,
        left: usize,
        heard: Instant,
        heartbeat: Duration,
        denials: u64,
    },
    Paused {
        until: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) pull: Pull,
    pub(super) hot: bool,
    /// The last pull that was answered in any way was denied.
    pub(super) denied: bool,
}

impl Lane {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.pull, Pull::Idle)
    }

    /// What may still come for an open pull.
    pub(super) fn asked(&self) -> usize {
        match self.pull {
            Pull::Waiting { left, .. } => left,
            Pull::Idle | Pull::Paused { .. } => 0,
        }
    }
}

/// Whether the server denied the pull. It says so beside all answers, so that a pull only falls silent.
pub(super) fn denied(bus: &Bus, lane: &LaneId, pull: &Pull) -> Option<BusError> {
    let Pull::Waiting { denials, .. } = pull else { return None };
    let subjects = bus.subjects();
    bus.denied_pull(&subjects.queue_stream(), &subjects.lane_consumer(lane), *denials)
}
