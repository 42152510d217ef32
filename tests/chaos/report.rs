//! The numbers of a run, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use runlane::wire::StatusEvent;
use serde::Serialize;

use crate::args::Options;
use crate::check::{Evidence, Tally};
use crate::overlap::{Cause, Window};
use crate::read::TaskLog;

/// The numbers of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    pub(crate) server_version: String,
    pub(crate) workers: usize,
    pub(crate) capacity: usize,
    pub(crate) lease_ms: u64,
    pub(crate) storm_seconds: f64,
    /// From the end of the storm until every task had its outcome and the queue was empty.
    pub(crate) quiet_seconds: f64,
    pub(crate) tasks: usize,
    pub(crate) accepted: usize,
    pub(crate) not_accepted: usize,
    pub(crate) canceled_requests: usize,
    pub(crate) followers: usize,
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Attempts that had a process.
    pub(crate) attempts: usize,
    pub(crate) retries: usize,
    pub(crate) requeued: usize,
    pub(crate) worker_losses: usize,
    pub(crate) ended_by_killed_supervisor: usize,
    pub(crate) output_bytes: u64,
    pub(crate) output_chunks: u64,
    pub(crate) compressed_chunks: u64,
    pub(crate) incomplete_streams: usize,
    pub(crate) late_chunks: usize,
    pub(crate) faults: BTreeMap<String, usize>,
    /// Two attempts of a task at once.
    pub(crate) overlaps: Windows,
    /// Processes of a task after its outcome.
    pub(crate) outlived: Windows,
    /// From a worker's SIGKILL to the next start of each task it had.
    pub(crate) recovery_after_worker_death: Times,
    /// Those that took longest: seconds, task, worker.
    pub(crate) slowest_recoveries: Vec<(f64, String, String)>,
    /// From a server's SIGKILL to the next start of any task.
    pub(crate) recovery_after_server_loss: Times,
    pub(crate) recovery_after_leader_loss: Times,
    pub(crate) violations: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Windows {
    /// While the worker of the older attempt was frozen.
    frozen: Times,
    /// After a server was lost that had not stored the last renewal.
    server_forgot: Times,
    /// Each of these is a violation.
    otherwise: Times,
}

/// Seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
            times.get(index).map_or(0.0, |time| (time * 1000.0).round() / 1000.0)
        };
        Self { count: times.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl Windows {
    fn of(windows: &[Window]) -> Self {
        let lengths = |cause: Cause| {
            let some = windows.iter().filter(|window| window.cause == cause);
            Times::of(some.map(|window| window.length).collect())
        };
        Self {
            frozen: lengths(Cause::Frozen),
            server_forgot: lengths(Cause::ServerForgot),
            otherwise: lengths(Cause::None),
        }
    }
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        server_version: String,
        evidence: &Evidence,
        tally: &Tally,
        not_accepted: usize,
        quiet_seconds: f64,
    ) -> Self {
        let violations = tally.violations.iter().map(|violation| match &violation.task {
            Some(task) => format!("{task}: {}", violation.problem),
            None => violation.problem.clone(),
        });
        let logs = &evidence.logs;
        let mut recoveries = worker_recoveries(evidence);
        recoveries.sort_by(|one, other| other.0.total_cmp(&one.0));
        let times = recoveries.iter().map(|(time, ..)| *time).collect();
        recoveries.truncate(5);
        Self {
            seed: options.seed,
            servers: options.servers,
            server_version,
            workers: options.workers,
            capacity: options.capacity,
            lease_ms: u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX),
            storm_seconds: options.storm.as_secs_f64(),
            quiet_seconds: (quiet_seconds * 10.0).round() / 10.0,
            tasks: evidence.plans.len(),
            accepted: evidence.accepted.len(),
            not_accepted,
            canceled_requests: logs.tasks.values().filter(|log| log.canceled().is_some()).count(),
            followers: evidence.followed.len(),
            outcomes: tally.phases.clone(),
            attempts: tally.attempts,
            retries: tally.retries,
            requeued: tally.requeues,
            worker_losses: tally.worker_losses,
            ended_by_killed_supervisor: tally.supervisor_killed,
            output_bytes: logs.output_bytes,
            output_chunks: logs.output_chunks,
            compressed_chunks: logs.compressed_chunks,
            incomplete_streams: tally.incomplete,
            late_chunks: tally.late_chunks,
            faults: evidence.timeline.counts(),
            overlaps: Windows::of(&tally.overlaps),
            outlived: Windows::of(&tally.outlived),
            recovery_after_worker_death: Times::of(times),
            slowest_recoveries: recoveries,
            recovery_after_server_loss: Times::of(server_recoveries(evidence, "server killed")),
            recovery_after_leader_loss: Times::of(server_recoveries(evidence, "leader killed")),
            violations: violations.collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let value = serde_json::to_value(self).expect("a report is plain JSON");
        for (name, value) in value.as_object().into_iter().flatten() {
            if name != "violations" {
                writeln!(text, "  {name:<28} {value}").expect("memory takes it");
            }
        }
        text
    }
}

/// Of every task that a killed worker had: the time until it was started again.
fn worker_recoveries(evidence: &Evidence) -> Vec<(f64, String, String)> {
    let events = evidence.timeline.events();
    let kills = events.iter().filter(|event| event.what == "worker killed");
    kills
        .flat_map(|kill| {
            let logs = evidence.logs.tasks.iter();
            logs.filter_map(|(id, log)| {
                Some((recovery(log, &kill.whom, kill.at)?, id.to_string(), kill.whom.clone()))
            })
            .collect::<Vec<_>>()
        })
        .collect()
}

fn recovery(log: &TaskLog, worker: &str, killed: f64) -> Option<f64> {
    let records: Vec<_> = log.status().collect();
    records.windows(2).find_map(|pair| match (pair[0].1, pair[1].1) {
        (StatusEvent::Started(had), StatusEvent::Started(_))
            if had.worker.as_str() == worker
                && pair[0].0.time < killed
                && pair[1].0.time > killed =>
        {
            Some(pair[1].0.time - killed)
        }
        _ => None,
    })
}

fn server_recoveries(evidence: &Evidence, what: &str) -> Vec<f64> {
    let mut starts: Vec<f64> = Vec::new();
    for log in evidence.logs.tasks.values() {
        let started = log.status().filter(|(_, event)| matches!(event, StatusEvent::Started(_)));
        starts.extend(started.map(|(record, _)| record.time));
    }
    starts.sort_by(f64::total_cmp);
    let events = evidence.timeline.events();
    let kills = events.iter().filter(|event| event.what == what);
    kills
        .filter_map(|kill| {
            starts.iter().find(|start| **start > kill.at).map(|start| start - kill.at)
        })
        .collect()
}
