//! Who is there: the workers bucket.

use super::{Client, bucket};
use crate::nats::BusError;
use crate::wire::WorkerPresence;

/// The live workers of a namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerList {
    /// Their records, by name.
    pub workers: Vec<WorkerPresence>,
    /// Names of those whose records this version can't read.
    pub unreadable: Vec<String>,
}

impl Client {
    /// Lists the live workers. A worker that died vanishes from the list after a few seconds.
    ///
    /// # Errors
    /// The bucket can't be read.
    pub async fn workers(&self) -> Result<WorkerList, BusError> {
        let bucket = bucket::read(self.bus(), &self.bus().subjects().workers_bucket()).await?;
        let workers = bucket.records.into_values().collect();
        Ok(WorkerList { workers, unreadable: bucket.unreadable })
    }
}
