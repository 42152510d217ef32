//! `runlane purge`: remove what is kept of finished tasks.

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::say;
use crate::wire::TaskId;

/// Remove all that is kept of finished tasks: records, outcome, spec and output
///
/// Streams remove it by themselves after their retention time; this is for what should go sooner. The
/// id can be used again afterwards.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The finished tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,
}

pub(super) async fn run(global: &GlobalArgs, args: &PurgeArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let mut code = 0;
    for id in &args.ids {
        match client.purge(id).await {
            Ok(()) if global.json => say::json(&serde_json::json!({ "id": id, "purged": true }))?,
            Ok(()) => {}
            Err(error) => code = say::failure(error.into()),
        }
    }
    Ok(code)
}
