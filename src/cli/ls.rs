//! `runlane ls`: the newest tasks.

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::table::Table;
use super::{say, text};
use crate::client::{ListFilter, Listed};
use crate::wire::{LaneId, Phase};

/// List the newest tasks, by their last change
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only those in this phase
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    phase: Option<Phase>,

    /// Only those of this lane (see `runlane lanes`)
    #[arg(long, value_name = "LANE")]
    lane: Option<LaneId>,

    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Every phase that a task can be in.
const PHASES: [Phase; 10] = [
    Phase::Pending,
    Phase::Running,
    Phase::Succeeded,
    Phase::Failed,
    Phase::Timeout,
    Phase::Canceled,
    Phase::Exhausted,
    Phase::Rejected,
    Phase::Lost,
    Phase::Expired,
];

fn phase(text: &str) -> Result<Phase, String> {
    let names = PHASES.map(Phase::as_str).join(", ");
    let found = PHASES.into_iter().find(|phase| phase.as_str() == text);
    found.ok_or_else(|| format!("use one of {names}"))
}

pub(super) async fn run(global: &GlobalArgs, args: &LsArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let filter = ListFilter { phase: args.phase, lane: args.lane.clone(), limit: args.limit };
    let listing = client.list(&filter).await?;
    if global.json {
        listing.tasks.iter().try_for_each(say::json)?;
    } else if listing.tasks.is_empty() {
        global.note("no such tasks");
    } else {
        say::out(render(&listing.tasks).as_bytes())?;
    }
    if listing.gave_up {
        global.note("older records were not looked at; some older tasks may be missing here");
    }
    Ok(0)
}

fn render(tasks: &[Listed]) -> String {
    let mut table = Table::new(["ID", "PHASE", "SINCE", "EXIT", "ATTEMPT", "LANE", "WORKER"]);
    for task in tasks {
        table.row([
            task.id.to_string(),
            task.phase.to_string(),
            text::ago(task.since),
            text::end(task.exit_code, task.signal),
            text::opt(task.attempt),
            text::opt(task.lane.as_ref()),
            text::opt(task.worker.as_ref()),
        ]);
    }
    table.render()
}
