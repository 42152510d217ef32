//! `runlane workers`: who is there.

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::table::Table;
use super::{say, text};
use crate::wire::{WorkerPresence, WorkerState};

/// List the live workers: places in use, labels, version, what their hosts offer
///
/// A worker that died vanishes from the list after a few seconds.
#[derive(Debug, Args)]
pub(super) struct WorkersArgs {}

pub(super) async fn run(global: &GlobalArgs, _: &WorkersArgs) -> Result<u8, Failure> {
    let list = global.client().await?.workers().await?;
    if global.json {
        list.workers.iter().try_for_each(say::json)?;
    } else if list.workers.is_empty() {
        global.note("no worker is there; start one with `runlane worker`");
    } else {
        say::out(render(&list.workers).as_bytes())?;
    }
    if !list.unreadable.is_empty() {
        let names = list.unreadable.join(", ");
        global.note(format!("the records of {names} are of another version of runlane"));
    }
    Ok(0)
}

fn render(workers: &[WorkerPresence]) -> String {
    let mut table =
        Table::new(["WORKER", "STATE", "USED", "UP", "VERSION", "LABELS", "RUNNERS", "HOST"]);
    for worker in workers {
        let state = match worker.state {
            WorkerState::Ready => "ready",
            WorkerState::Paused => "paused",
            WorkerState::Draining => "draining",
        };
        let runners: Vec<&str> = worker.runners.iter().map(|runner| &*runner.name).collect();
        table.row([
            worker.worker.to_string(),
            state.to_owned(),
            format!("{}/{}", worker.running, worker.capacity),
            text::ago(worker.started_at),
            worker.version.clone(),
            text::labels(&worker.labels),
            runners.join(","),
            text::labels(&worker.features),
        ]);
    }
    table.render()
}
