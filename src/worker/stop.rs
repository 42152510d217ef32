//! Why a run is to be stopped, in the executor's terms.

use std::time::Duration;

use crate::exec::Stop;
use crate::wire::{CancelRequest, Cause, StopReason};

/// A stop on somebody's wish, or because a newer task takes the slot.
pub(super) fn canceled(request: CancelRequest) -> Stop {
    let reason = match request.replaced_by {
        Some(_) => StopReason::Replaced,
        None => StopReason::Canceled,
    };
    Stop {
        reason,
        grace: request.grace_ms.map(Duration::from_millis),
        by: request.by,
        message: request.reason,
    }
}

/// A stop because the worker shuts down.
pub(super) fn draining(grace: Option<Duration>) -> Stop {
    Stop { reason: StopReason::Draining, grace, by: None, message: None }
}

/// The stop as it stands in an outcome.
pub(super) fn cause(stop: &Stop) -> Cause {
    Cause { reason: stop.reason, by: stop.by.clone(), message: stop.message.clone() }
}
