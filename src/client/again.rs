//! After a task's end: run it again as a new task, or remove what is kept of it.

use super::{Client, Submission, SubmitError};
use crate::nats::{BusError, StatusEntry};
use crate::task;
use crate::wire::{Problem, StatusEvent, TaskId};

/// Why a finished task could not be run again, or removed.
#[derive(Debug, thiserror::Error)]
pub enum AgainError {
    /// It has no records.
    #[error("task {0} is unknown: it has no records; they may have expired")]
    Unknown(TaskId),
    /// It has not ended.
    #[error("task {0} has not ended; cancel it first, or wait for it")]
    NotFinished(TaskId),
    /// Its spec was not kept: it never started, or the spec could not be stored then.
    #[error("the spec of task {0} is not kept: it was never started; submit it anew")]
    NoSpec(TaskId),
    /// Its spec was written by another version.
    #[error("the kept spec of task {id} is not valid here: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadSpec {
        /// The task.
        id: TaskId,
        /// Every problem.
        problems: Vec<Problem>,
    },
    /// The new task could not be queued.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The server could not be asked.
    #[error("task {id} could not be looked up")]
    Bus {
        /// The task.
        id: TaskId,
        /// Why.
        #[source]
        source: BusError,
    },
}

impl Client {
    /// Runs a finished task again, as a new task that names the old one in `retryOf`. Times that the
    /// old one set for its start are left out.
    ///
    /// # Errors
    /// See [`AgainError`].
    pub async fn retry(
        &self,
        id: &TaskId,
        new_id: Option<TaskId>,
    ) -> Result<Submission, AgainError> {
        self.require_finished(id).await?;
        let subjects = self.bus().subjects();
        let kept = self.bus().read_last(&subjects.tasks_stream(), &subjects.spec(id)).await;
        let kept = kept.map_err(|source| AgainError::Bus { id: id.clone(), source })?;
        let kept = kept.ok_or_else(|| AgainError::NoSpec(id.clone()))?;
        let spec = task::decode(&kept.payload);
        let mut spec = spec.map_err(|problems| AgainError::BadSpec { id: id.clone(), problems })?;
        spec.id = new_id;
        spec.retry_of = Some(id.clone());
        (spec.delay, spec.not_before, spec.start_by) = (None, None, None);
        Ok(self.submit(spec).await?)
    }

    /// Removes everything that is kept of a finished task: records, outcome, spec, output.
    ///
    /// # Errors
    /// See [`AgainError`].
    pub async fn purge(&self, id: &TaskId) -> Result<(), AgainError> {
        self.require_finished(id).await?;
        self.forget(id).await.map_err(|source| AgainError::Bus { id: id.clone(), source })
    }

    async fn require_finished(&self, id: &TaskId) -> Result<(), AgainError> {
        let failed = |source| AgainError::Bus { id: id.clone(), source };
        let queued = self.queued(id).await.map_err(failed)?;
        match self.last_record(id).await.map_err(failed)? {
            Some(StatusEntry { event: StatusEvent::Finished(_), .. }) => Ok(()),
            None if queued.is_none() => Err(AgainError::Unknown(id.clone())),
            Some(_) | None => Err(AgainError::NotFinished(id.clone())),
        }
    }
}
