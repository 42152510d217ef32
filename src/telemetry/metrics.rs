//! Metrics: every name stands here, with its meaning and a typed function to record it.
//!
//! Without [`Metrics::install`] the functions do nothing, so library users pay nothing for them.
//! Labels have few values by construction: runner, outcome, stream, kind; never a task.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::wire::{Phase, Stream};

/// Tasks whose process was started, by runner.
pub const TASKS_STARTED: &str = "runlane_tasks_started_total";
/// Tasks that got their outcome here, by runner and outcome.
pub const TASKS_COMPLETED: &str = "runlane_tasks_completed_total";
/// Run time of an attempt in seconds, by runner and outcome.
pub const TASK_DURATION: &str = "runlane_task_duration_seconds";
/// Seconds from the publish of a task to its start.
pub const QUEUE_WAIT: &str = "runlane_queue_wait_seconds";
/// Seconds from the receipt of a delivery to its process's start.
pub const START_LATENCY: &str = "runlane_start_latency_seconds";
/// Tasks that run now.
pub const TASKS_RUNNING: &str = "runlane_tasks_running";
/// Tasks that may run at once.
pub const CAPACITY: &str = "runlane_capacity";
/// Lanes that the worker pulls from.
pub const LANES: &str = "runlane_lanes";
/// Attempts that ended in a retry, by runner.
pub const RETRIES: &str = "runlane_retries_total";
/// Errors of ours while running a task, by kind.
pub const RUNNER_ERRORS: &str = "runlane_runner_errors_total";
/// Output bytes stored, by stream.
pub const OUTPUT_BYTES: &str = "runlane_output_bytes_total";
/// Lease renewals, by result.
pub const LEASE_RENEWALS: &str = "runlane_lease_renewals_total";
/// Tasks whose lease was lost while they ran.
pub const LEASES_LOST: &str = "runlane_leases_lost_total";
/// Tasks stopped by a cancel.
pub const CANCELS: &str = "runlane_cancels_total";
/// 1 while connected to NATS, else 0.
pub const NATS_CONNECTED: &str = "runlane_nats_connected";
/// Connections to NATS after the first.
pub const NATS_RECONNECTS: &str = "runlane_nats_reconnects_total";
/// Pull requests that were given up as stalled and made anew.
pub const PULLS_REBUILT: &str = "runlane_pulls_rebuilt_total";
/// Lines of the log that nobody read in time.
pub const LOG_LINES_DROPPED: &str = "runlane_log_lines_dropped_total";
/// Always 1, with the version as a label.
pub const BUILD_INFO: &str = "runlane_build_info";

/// Run times: a short script to a day.
const DURATION_BUCKETS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];
/// Waits in the queue: an idle worker's milliseconds to a backlog's hours.
const WAIT_BUCKETS: [f64; 13] =
    [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0];
/// Start latency: the worker's own work and the sandbox's set-up.
const LATENCY_BUCKETS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How a lease renewal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Confirmed, and the task is still ours.
    Renewed,
    /// Not confirmed in time; tried again.
    Failed,
    /// The status chain says that the task is not ours any more.
    Fenced,
}

impl Renewal {
    fn label(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Failed => "failed",
            Self::Fenced => "fenced",
        }
    }
}

/// Why metrics could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetricsError {
    /// The host program has its own recorder; our metrics go there.
    #[error("this process already has a metrics recorder: {reason}")]
    Recorder {
        /// What the recorder's set-up said.
        reason: String,
    },
}

impl From<BuildError> for MetricsError {
    fn from(error: BuildError) -> Self {
        Self::Recorder { reason: error.to_string() }
    }
}

/// A handle on the process's metrics. Whoever installs it must call [`Metrics::upkeep`] every few
/// seconds (the health server does): histograms keep their raw samples until then.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the process's recorder, or returns the handle of the one that was installed here
    /// before. Errors: another library's recorder is in place.
    pub fn install() -> Result<Self, MetricsError> {
        static INSTALLED: OnceLock<Result<Metrics, MetricsError>> = OnceLock::new();
        INSTALLED.get_or_init(Self::install_first).clone()
    }

    fn install_first() -> Result<Self, MetricsError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(TASK_DURATION.into()), &DURATION_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(QUEUE_WAIT.into()), &WAIT_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(START_LATENCY.into()), &LATENCY_BUCKETS)?
            .install_recorder()?;
        describe();
        start_at_zero();
        Ok(Self { handle })
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds the histograms' raw samples into their buckets.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    describe_counter!(TASKS_STARTED, "Tasks whose process was started");
    describe_counter!(TASKS_COMPLETED, "Tasks that got their outcome from this worker");
    describe_histogram!(TASK_DURATION, Unit::Seconds, "Run time of the last attempt");
    describe_histogram!(QUEUE_WAIT, Unit::Seconds, "From the publish of a task to its start");
    describe_histogram!(
        START_LATENCY,
        Unit::Seconds,
        "From the receipt of a task to its process's start"
    );
    describe_gauge!(TASKS_RUNNING, "Tasks that run now");
    describe_gauge!(CAPACITY, "Tasks that may run at once");
    describe_gauge!(LANES, "Lanes that this worker pulls from");
    describe_counter!(RETRIES, "Attempts that ended in a retry");
    describe_counter!(RUNNER_ERRORS, "Errors of the worker itself while running a task");
    describe_counter!(OUTPUT_BYTES, Unit::Bytes, "Bytes of output stored, before compression");
    describe_counter!(LEASE_RENEWALS, "Lease renewals by result");
    describe_counter!(LEASES_LOST, "Tasks whose lease was lost while they ran");
    describe_counter!(CANCELS, "Tasks stopped by a cancel");
    describe_gauge!(NATS_CONNECTED, "1 while connected to NATS");
    describe_counter!(NATS_RECONNECTS, "Connections to NATS after the first");
    describe_counter!(PULLS_REBUILT, "Pull requests given up as stalled and made anew");
    describe_counter!(LOG_LINES_DROPPED, "Lines of the log that nobody read in time");
    describe_gauge!(BUILD_INFO, "Always 1; the version is a label");
}

/// A counter that shows up with its first event makes `rate()` miss that event.
fn start_at_zero() {
    for name in [LEASES_LOST, CANCELS, NATS_RECONNECTS, PULLS_REBUILT, LOG_LINES_DROPPED] {
        counter!(name).absolute(0);
    }
    for stream in Stream::ALL {
        counter!(OUTPUT_BYTES, "stream" => stream.token()).absolute(0);
    }
    for result in [Renewal::Renewed, Renewal::Failed, Renewal::Fenced] {
        counter!(LEASE_RENEWALS, "result" => result.label()).absolute(0);
    }
    for name in [TASKS_RUNNING, CAPACITY, LANES, NATS_CONNECTED] {
        gauge!(name).set(0.0);
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Counts a started task, its wait in the queue, and the time from its receipt.
pub fn task_started(runner: &str, queue_wait: Duration, start_latency: Duration) {
    counter!(TASKS_STARTED, "runner" => runner.to_owned()).increment(1);
    histogram!(QUEUE_WAIT).record(queue_wait.as_secs_f64());
    histogram!(START_LATENCY).record(start_latency.as_secs_f64());
}

/// Counts a task's outcome; `run_time` is absent if no process was started. A task without a runner
/// (rejected before routing) counts for runner `none`.
pub fn task_completed(runner: Option<&str>, outcome: Phase, run_time: Option<Duration>) {
    let runner = runner.unwrap_or("none").to_owned();
    let outcome = outcome.as_str();
    counter!(TASKS_COMPLETED, "runner" => runner.clone(), "outcome" => outcome).increment(1);
    if let Some(run_time) = run_time {
        histogram!(TASK_DURATION, "runner" => runner, "outcome" => outcome)
            .record(run_time.as_secs_f64());
    }
}

/// Sets the number of tasks that run now.
pub fn tasks_running(count: usize) {
    gauge!(TASKS_RUNNING).set(count as f64);
}

/// Sets the number of tasks that may run at once.
pub fn capacity(count: usize) {
    gauge!(CAPACITY).set(count as f64);
}

/// Sets the number of lanes that the worker pulls from.
pub fn lanes(count: usize) {
    gauge!(LANES).set(count as f64);
}

/// Counts an attempt that ended in a retry.
pub fn retried(runner: &str) {
    counter!(RETRIES, "runner" => runner.to_owned()).increment(1);
}

/// Counts an error of ours; `kind` is a step's constant name.
pub fn runner_error(kind: &'static str) {
    counter!(RUNNER_ERRORS, "kind" => kind).increment(1);
}

/// Counts output bytes that were stored.
pub fn output_bytes(stream: Stream, bytes: u64) {
    counter!(OUTPUT_BYTES, "stream" => stream.token()).increment(bytes);
}

/// Counts a lease renewal.
pub fn lease_renewal(result: Renewal) {
    counter!(LEASE_RENEWALS, "result" => result.label()).increment(1);
}

/// Counts a task whose lease was lost while it ran.
pub fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

/// Counts a task stopped by a cancel.
pub fn canceled() {
    counter!(CANCELS).increment(1);
}

/// Sets whether the connection to NATS is up.
pub fn nats_connected(up: bool) {
    gauge!(NATS_CONNECTED).set(if up { 1.0 } else { 0.0 });
}

/// Counts a connection to NATS after the first.
pub fn nats_reconnected() {
    counter!(NATS_RECONNECTS).increment(1);
}

/// Counts a pull request that was given up as stalled.
pub fn pull_rebuilt() {
    counter!(PULLS_REBUILT).increment(1);
}

/// Counts a line of the log that was not written.
pub fn log_line_dropped() {
    counter!(LOG_LINES_DROPPED).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_install_gets_the_same_recorder_and_values_are_rendered() {
        let first = Metrics::install().expect("no other recorder in this test binary");
        let second = Metrics::install().expect("the same again");
        task_started("gpu", Duration::from_millis(30), Duration::from_millis(3));
        task_completed(Some("gpu"), Phase::Succeeded, Some(Duration::from_secs(2)));
        task_completed(None, Phase::Rejected, None);
        second.upkeep();
        let text = first.render();
        for line in [
            r#"runlane_tasks_started_total{runner="gpu"} 1"#,
            r#"runlane_tasks_completed_total{runner="gpu",outcome="succeeded"} 1"#,
            r#"runlane_tasks_completed_total{runner="none",outcome="rejected"} 1"#,
            r#"runlane_task_duration_seconds_bucket{runner="gpu",outcome="succeeded",le="5"} 1"#,
            r#"runlane_task_duration_seconds_bucket{runner="gpu",outcome="succeeded",le="1"} 0"#,
            r#"runlane_queue_wait_seconds_bucket{le="0.1"} 1"#,
            "runlane_leases_lost_total 0",
            "# TYPE runlane_start_latency_seconds histogram",
            "# HELP runlane_capacity Tasks that may run at once",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
