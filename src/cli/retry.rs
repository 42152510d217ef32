//! `runlane retry`: run finished tasks again.

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::say;
use crate::wire::TaskId;

/// Run finished tasks again, as new tasks, and print the new ids
///
/// The new task has the old one's spec and names it in `retryOf`. A task that never started has no
/// kept spec: submit it anew.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The finished tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,
}

pub(super) async fn run(global: &GlobalArgs, args: &RetryArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let mut code = 0;
    for id in &args.ids {
        match client.retry(id, None).await {
            Ok(submission) if global.json => say::json(&submission.task)?,
            Ok(submission) => say::line(submission.task.id.as_str())?,
            Err(error) => code = say::failure(error.into()),
        }
    }
    Ok(code)
}
