//! `runlane lanes`: what waits, and who can take it.

use clap::Args;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::table::Table;
use super::{say, waiting as wait_reason};
use crate::client::LaneReport;

/// List the lanes (queues by kind and labels): what waits and runs, and how many workers can take it
///
/// For a lane with waiting tasks that no worker can take, it says which label each worker lacks.
#[derive(Debug, Args)]
pub(super) struct LanesArgs {}

pub(super) async fn run(global: &GlobalArgs, _: &LanesArgs) -> Result<u8, Failure> {
    let lanes = global.client().await?.lanes().await?;
    if global.json {
        lanes.iter().try_for_each(say::json)?;
        return Ok(0);
    }
    say::out(render(&lanes).as_bytes())?;
    Ok(0)
}

fn render(lanes: &[LaneReport]) -> String {
    let mut table = Table::new(["LANE", "WAITING", "RUNNING", "WORKERS", "KIND", "SELECTOR"]);
    for lane in lanes {
        table.row([
            lane.lane.to_string(),
            lane.waiting.to_string(),
            lane.running.to_string(),
            lane.workers.len().to_string(),
            lane.record.kind.to_string(),
            lane.record.selector.to_string(),
        ]);
    }
    let mut text = table.render();
    for lane in lanes.iter().filter(|lane| lane.is_stuck()) {
        text.push_str(&format!("\n! {}: {}\n", lane.lane, wait_reason::why_waiting(lane)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{UnavailableWorker, WorkerMismatch};
    use crate::wire::{Kind, LaneRecord, WorkerState};

    #[test]
    fn workers_that_take_nothing_now_are_named_with_their_state() {
        let worker = |name: &str| name.parse().expect("a worker");
        let mut report = LaneReport {
            lane: "default".parse().expect("a lane"),
            record: LaneRecord {
                kind: Kind::Subprocess,
                selector: crate::wire::Selector::default(),
            },
            waiting: 3,
            running: 2,
            workers: Vec::new(),
            unavailable: vec![
                UnavailableWorker { worker: worker("w1"), state: WorkerState::Paused },
                UnavailableWorker { worker: worker("w2"), state: WorkerState::Resting },
            ],
            mismatches: Vec::new(),
        };
        let why = "w1 is paused, w2 is resting because its host could not start tasks";
        let text = render(std::slice::from_ref(&report));
        assert!(
            text.contains(&format!(
                "! default: waiting: the workers that could take the task take none now: {why}\n"
            )),
            "{text}"
        );
        report.workers.push(worker("w3"));
        assert_eq!(
            wait_reason::why_waiting(&report),
            format!(
                "waiting for a free place: 1 worker(s) can take the task, 2 task(s) of its lane run or wait for a retry; {why}"
            )
        );
        assert!(!render(&[report]).contains('!'), "somebody takes them");
    }

    #[test]
    fn a_lane_that_nobody_serves_stands_out_with_the_reason() {
        let selector = "gpu=h200".parse().expect("a selector");
        let report = LaneReport {
            lane: "abc".parse().expect("a lane"),
            record: LaneRecord::new(Kind::Subprocess, &selector),
            waiting: 3,
            running: 0,
            workers: Vec::new(),
            unavailable: Vec::new(),
            mismatches: vec![WorkerMismatch {
                worker: "w1".parse().expect("a worker"),
                lacks: vec!["gpu=h200 (has none)".to_owned()],
            }],
        };
        let text = render(&[report]);
        assert!(
            text.starts_with("LANE  WAITING  RUNNING  WORKERS  KIND        SELECTOR\n"),
            "{text}"
        );
        assert!(
            text.contains("\nabc   3        0        0        subprocess  gpu=h200\n"),
            "{text}"
        );
        assert!(text.contains("! abc: waiting: no worker can take"), "{text}");
        assert!(text.contains("\n  w1 lacks gpu=h200 (has none)"), "{text}");
    }
}
