//! `runlane wait`: the ends of tasks.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout, timeout_at};

use super::exit::{self, Failure, NO_STREAM, TIMEOUT};
use super::global::GlobalArgs;
use super::{say, text};
use crate::client::Client;
use crate::nats::BusError;
use crate::task::parse_duration;
use crate::wire::{Outcome, Phase, TaskId};

/// Wait until tasks have ended, and print how
///
/// Exits with the code of the first task (as named) that did not succeed, else with 0. Tasks that are
/// not there yet are waited for.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// The tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    /// Give up after this time, such as 30s or 10m, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// How long it is asked whether the namespace is there; a server that is away is waited for as ever.
const SET_UP_PATIENCE: Duration = Duration::from_secs(2);

/// Where a person reads how a task ended. JSON always goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// On stdout.
    AsOutput,
    /// On stderr, because stdout is for something else.
    AsNotes,
}

pub(super) async fn run(global: &GlobalArgs, args: &WaitArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    // Tasks that are not there yet are waited for, but nobody makes the namespace meanwhile.
    let patience = args.timeout.map_or(SET_UP_PATIENCE, |timeout| timeout.min(SET_UP_PATIENCE));
    if let Some(id) = args.ids.first()
        && let Ok(Err(error)) = timeout(patience, client.last_record(id)).await
        && let BusError::Refused { code: NO_STREAM, .. } = error
    {
        return Err(error.into());
    }
    all(global, &client, &args.ids, args.timeout, Ends::AsOutput).await
}

/// Waits for tasks, prints each end as it comes, and returns the exit code of all.
pub(super) async fn all(
    global: &GlobalArgs,
    client: &Client,
    ids: &[TaskId],
    limit: Option<Duration>,
    ends: Ends,
) -> Result<u8, Failure> {
    // None also if the limit is too far away to be an instant: then there is none.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut waiter = client.wait(ids.iter().cloned()).await?;
    let mut codes = HashMap::new();
    loop {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, waiter.next()).await,
            None => Ok(waiter.next().await),
        };
        let Ok(next) = next else {
            let missing: Vec<String> = waiter.missing().map(ToString::to_string).collect();
            let message = format!("the time is over; not ended: {}", missing.join(", "));
            return Err(Failure::new(TIMEOUT, message));
        };
        let Some(outcome) = next? else { break };
        print(global, ends, &outcome)?;
        let decides = ids.len() == 1 || outcome.phase != Phase::Succeeded;
        codes.insert(outcome.id.clone(), if decides { exit::of_outcome(&outcome) } else { 0 });
    }
    let in_order = ids.iter().filter_map(|id| codes.get(id)).copied();
    Ok(in_order.into_iter().find(|code| *code != 0).unwrap_or(0))
}

fn print(global: &GlobalArgs, ends: Ends, outcome: &Outcome) -> Result<(), Failure> {
    if global.json {
        return say::json(outcome);
    }
    if global.quiet {
        return Ok(());
    }
    match ends {
        Ends::AsOutput => say::line(format!("{}  {}", outcome.id, text::ended(outcome))),
        Ends::AsNotes => {
            say::note(format!("task {} {}", outcome.id, text::ended(outcome)));
            Ok(())
        }
    }
}
