//! `runlane workers`: who is there.

use std::collections::BTreeMap;

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::table::Table;
use super::{say, text};
use crate::wire::{RunnerPresence, WorkerPresence};

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
        let runner = |runner: &RunnerPresence| format!("{} ({})", runner.name, runner.isolation);
        let runners: Vec<String> = worker.runners.iter().map(runner).collect();
        table.row([
            worker.worker.to_string(),
            worker.state.as_str().to_owned(),
            format!("{}/{}", worker.running, worker.capacity),
            text::ago(worker.started_at),
            worker.version.clone(),
            text::labels(&worker.labels),
            runners.join(", "),
            host(&worker.features),
        ]);
    }
    table.render()
}

/// What a host offers, in short: what it lacks. `runlane workers --json` and `runlane check` say why.
fn host(features: &BTreeMap<String, String>) -> String {
    let lacks = |what: &str| what.starts_with("no:");
    let facts = features.iter().filter(|(_, what)| *what != "yes" && !lacks(what));
    let mut text = text::labels(facts);
    let missing: Vec<&str> =
        features.iter().filter(|(_, what)| lacks(what)).map(|(feature, _)| &**feature).collect();
    if !missing.is_empty() {
        text.push_str(&format!(" without {}", missing.join(",")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_by_what_it_lacks() {
        let features = |pairs: &[(&str, &str)]| {
            let owned = |(name, what): &(&str, &str)| ((*name).to_owned(), (*what).to_owned());
            host(&pairs.iter().map(owned).collect())
        };
        assert_eq!(features(&[("kernel", "6.18"), ("landlock", "yes")]), "kernel=6.18");
        let lacking =
            [("kernel", "6.1"), ("landlock.scope", "no: Linux 6.12"), ("seccomp", "no: x")];
        assert_eq!(features(&lacking), "kernel=6.1 without landlock.scope,seccomp");
    }
}
