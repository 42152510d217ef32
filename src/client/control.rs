//! Speaks to one worker: drain, pause, resume.

use std::time::Duration;

use tokio::time::timeout;

use super::Client;
use crate::nats::BusError;
use crate::wire::{ControlReply, ControlRequest, TaskId, WorkerId};

/// Why a worker did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers by this name.
    #[error("no worker named {0} is there; `runlane workers` lists those that are")]
    NotThere(WorkerId),
    /// It answered that it can't.
    #[error("worker {worker}: {why}")]
    Refused {
        /// The worker.
        worker: WorkerId,
        /// In its words.
        why: String,
    },
    /// The server could not be asked.
    #[error("worker {worker} could not be asked")]
    Bus {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: BusError,
    },
}

impl Client {
    /// Asks one worker to do something, and returns its answer. It does it after it answered.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn control(
        &self,
        worker: &WorkerId,
        request: &ControlRequest,
    ) -> Result<ControlReply, ControlError> {
        let payload = serde_json::to_vec(request).expect("a request is plain JSON");
        let subject = self.bus().subjects().worker_control(worker);
        let failed = |source| ControlError::Bus { worker: worker.clone(), source };
        let answer = match self.bus().ask(subject, payload.into()).await {
            Err(BusError::NoStream { .. }) => return Err(ControlError::NotThere(worker.clone())),
            other => other.map_err(failed)?,
        };
        let reply: ControlReply = serde_json::from_slice(&answer).map_err(|error| {
            failed(BusError::Broken(format!("cannot read its answer: {error}")))
        })?;
        match reply.error {
            Some(why) => Err(ControlError::Refused { worker: worker.clone(), why }),
            None => Ok(reply),
        }
    }

    /// Asks a worker whether it deals with a task's message. No answer within `patience`, or nobody
    /// there, is a no.
    pub(crate) async fn holds(
        &self,
        worker: &WorkerId,
        task: &TaskId,
        queue_seq: u64,
        patience: Duration,
    ) -> bool {
        let request = ControlRequest::Holds { task: task.clone(), queue_seq };
        let answer = timeout(patience, self.control(worker, &request)).await;
        matches!(answer, Ok(Ok(ControlReply { holds: Some(true), .. })))
    }
}
