//! Cancel requests as they are published. What is stored is read again at each start and renewal, so
//! one that passes unheard here is late, never lost.

use super::status_log::parse_cancel;
use super::{Bus, BusError, Subscription};
use crate::wire::subject::TaskSubject;
use crate::wire::{CancelRequest, Subjects, TaskId};

/// Listens to the cancel requests of all tasks.
pub struct Cancels {
    subjects: Subjects,
    subscription: Subscription,
}

impl Cancels {
    /// Subscribes.
    pub async fn listen(bus: &Bus) -> Result<Self, BusError> {
        let subjects = bus.subjects().clone();
        let subscription = bus.subscribe(subjects.cancel_all()).await?;
        Ok(Self { subjects, subscription })
    }

    /// Returns the next request; `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<(TaskId, CancelRequest)> {
        loop {
            let message = self.subscription.next().await?;
            if let Some((id, TaskSubject::Cancel)) = self.subjects.parse_task(&message.subject) {
                return Some((id, parse_cancel(&message.payload)));
            }
        }
    }
}
