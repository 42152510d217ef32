//! Flags of a task that are needed now and then: times, slots, and what follows a failure.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::task::parse_duration;
use crate::wire::TaskSpec;

/// Times, slots, and what follows a failure.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Task, less often")]
pub(super) struct MoreArgs {
    /// What to do when the slot is taken [default: drop-if-running]
    #[arg(long, value_enum, requires = "slot", value_name = "WHAT")]
    admission: Option<AdmissionArg>,

    /// How many tasks of the slot may run at once, by this task's count [default: 1]
    #[arg(long, requires = "slot", value_name = "N")]
    slot_limit: Option<u32>,

    /// Don't start before this time has passed, such as 10m
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,

    /// Don't start before this moment (RFC 3339), such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = time)]
    not_before: Option<Timestamp>,

    /// End as expired if not started by then: a moment (RFC 3339), or a time from now such as 1h
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    start_by: Option<Timestamp>,

    /// How long the records and the output are kept after the end, at least 1m [default: as long as
    /// their streams keep them]
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,

    /// Never retry after this exit code. Can be repeated
    #[arg(long, value_name = "CODE")]
    no_retry_exit_code: Vec<i32>,

    /// What to do when the worker that runs the task is lost [default: rerun]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_worker_lost: Option<LostArg>,

    /// How many workers may be lost while they run the task, or unable to start it, before it ends
    /// [default: 3]
    #[arg(long, value_name = "N")]
    max_worker_losses: Option<u32>,
}

/// What to do when a slot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AdmissionArg {
    /// Reject the new task
    DropIfRunning,
    /// Cancel the running task, then start the new one
    Replace,
    /// Wait until the slot is free
    Queue,
}

/// What to do when a worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LostArg {
    /// Run the task again elsewhere: at least once
    Rerun,
    /// End the task as lost: at most once
    Fail,
}

impl MoreArgs {
    /// Adds what was said to the fields of a short spec.
    pub(super) fn add(&self, fields: &mut Map<String, Value>) {
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("admission", self.admission.map(|admission| json!(admission.name())));
        set("slotLimit", self.slot_limit.map(|limit| json!(limit)));
        set("delay", self.delay.as_ref().map(|delay| json!(delay)));
        set("notBefore", self.not_before.map(|at| json!(at)));
        set("startBy", self.start_by.map(|at| json!(at)));
        set("ttl", self.ttl.as_ref().map(|ttl| json!(ttl)));
        let codes = &self.no_retry_exit_code;
        set("noRetryExitCodes", (!codes.is_empty()).then(|| json!(codes)));
        set("onWorkerLost", self.on_worker_lost.map(|what| json!(what.name())));
        set("maxWorkerLosses", self.max_worker_losses.map(|losses| json!(losses)));
    }

    /// Lays what was said over a spec from a file; `flags` is the spec that `add` led to.
    pub(super) fn apply(&self, spec: &mut TaskSpec, flags: &TaskSpec) {
        if self.admission.is_some() {
            spec.admission = flags.admission;
        }
        if self.slot_limit.is_some() {
            spec.slot_limit = flags.slot_limit;
        }
        spec.delay = flags.delay.or(spec.delay);
        spec.not_before = flags.not_before.or(spec.not_before);
        spec.start_by = flags.start_by.or(spec.start_by);
        spec.ttl = flags.ttl.or(spec.ttl);
        spec.no_retry_exit_codes.extend(&flags.no_retry_exit_codes);
        if self.on_worker_lost.is_some() {
            spec.on_worker_lost = flags.on_worker_lost;
        }
        if self.max_worker_losses.is_some() {
            spec.max_worker_losses = flags.max_worker_losses;
        }
    }
}

impl AdmissionArg {
    fn name(self) -> &'static str {
        match self {
            Self::DropIfRunning => "dropIfRunning",
            Self::Replace => "replace",
            Self::Queue => "queue",
        }
    }
}

impl LostArg {
    fn name(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Fail => "fail",
        }
    }
}

/// A moment.
fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "write a time before 9999-12-30T22:00:00Z as in RFC 3339, like 2030-01-31T12:00:00Z"
            .to_owned()
    })
}

/// A moment, or a time from now.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let from_now: Duration = parse_duration(text).map_err(|_| {
        "write a moment like 2030-01-31T12:00:00Z, or a time from now like 10m".to_owned()
    })?;
    let too_far = || "is later than 9999-12-30T22:00:00Z".to_owned();
    let from_now = SignedDuration::try_from(from_now).map_err(|_| too_far())?;
    Timestamp::now().checked_add(from_now).map_err(|_| too_far())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_of_day_or_a_time_from_now() {
        assert_eq!(moment("2030-01-31T12:00:00Z").map(|at| at.as_second()), Ok(1_896_091_200));
        let soon = moment("10m").expect("a time from now").duration_since(Timestamp::now());
        assert!((590..=600).contains(&soon.as_secs()), "{soon}");
        assert!(moment("tomorrow").is_err() && moment("9000000d").is_err());
        assert_eq!(time("2030-01-31T12:00:00Z").map(|at| at.as_second()), Ok(1_896_091_200));
        assert!(time("yesterday").expect_err("no time").contains("RFC 3339"));
    }
}
