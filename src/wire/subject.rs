//! Every subject, stream and bucket name is built and parsed here, and nowhere else.
//!
//! ```text
//! runlane.submit                       a micro service: the easy way in
//! runlane.queue.<lane>.<id>            RUNLANE_QUEUE   canonical TaskSpec: the bulk way in
//! runlane.task.<id>.status             RUNLANE_TASKS   lifecycle events, one compare-and-set chain
//! runlane.task.<id>.cancel             RUNLANE_TASKS   cancel requests
//! runlane.task.<id>.outcome            RUNLANE_TASKS   exactly one message
//! runlane.output.<id>.stdout|.stderr   RUNLANE_OUTPUT  raw bytes
//! runlane.spec.<id>                    RUNLANE_TASKS   the spec of a task that was started
//! runlane.schedule.<id>.<timer>        RUNLANE_SCHEDULE kept by the server until it is due …
//! runlane.due.<id>.<timer>             RUNLANE_SCHEDULE … and then moved here
//! ```

use serde::{Deserialize, Serialize};

use super::ids::{LaneId, Namespace, TaskId, WorkerId};
use super::output::Stream;

/// Builds and parses the names of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subjects {
    namespace: Namespace,
}

impl Subjects {
    /// Names things in `namespace`.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The request subject of the submit service.
    pub fn submit(&self) -> String {
        self.join(["submit"])
    }

    /// Where a task waits.
    pub fn queue(&self, lane: &LaneId, id: &TaskId) -> String {
        self.join(["queue", lane.as_str(), id.as_str()])
    }

    /// Filter: all tasks that wait in a lane.
    pub fn queue_lane(&self, lane: &LaneId) -> String {
        self.join(["queue", lane.as_str(), "*"])
    }

    /// Filter: one task, in whatever lane it waits.
    pub fn queue_task(&self, id: &TaskId) -> String {
        self.join(["queue", "*", id.as_str()])
    }

    /// Filter: everything that waits.
    pub fn queue_all(&self) -> String {
        self.join(["queue", "*", "*"])
    }

    /// A task's compare-and-set chain.
    pub fn status(&self, id: &TaskId) -> String {
        self.join(["task", id.as_str(), "status"])
    }

    /// A task's cancel requests.
    pub fn cancel(&self, id: &TaskId) -> String {
        self.join(["task", id.as_str(), "cancel"])
    }

    /// A task's outcome.
    pub fn outcome(&self, id: &TaskId) -> String {
        self.join(["task", id.as_str(), "outcome"])
    }

    /// Filter: status, cancel and outcome of one task.
    pub fn task(&self, id: &TaskId) -> String {
        self.join(["task", id.as_str(), "*"])
    }

    /// Filter: the status chains of all tasks.
    pub fn status_all(&self) -> String {
        self.join(["task", "*", "status"])
    }

    /// Filter: the cancel requests of all tasks.
    pub fn cancel_all(&self) -> String {
        self.join(["task", "*", "cancel"])
    }

    /// Filter: the outcomes of all tasks.
    pub fn outcome_all(&self) -> String {
        self.join(["task", "*", "outcome"])
    }

    /// One output stream of a task.
    pub fn output(&self, id: &TaskId, stream: Stream) -> String {
        self.join(["output", id.as_str(), stream.token()])
    }

    /// Filter: both output streams of a task.
    pub fn output_task(&self, id: &TaskId) -> String {
        self.join(["output", id.as_str(), "*"])
    }

    /// Filter: all output.
    pub fn output_all(&self) -> String {
        self.join(["output", "*", "*"])
    }

    /// The spec of a task that was started, kept for those who want to run it again.
    pub fn spec(&self, id: &TaskId) -> String {
        self.join(["spec", id.as_str()])
    }

    /// Filter: all kept specs.
    pub fn spec_all(&self) -> String {
        self.join(["spec", "*"])
    }

    /// What the server does later: kept here until it is due.
    pub fn schedule(&self, id: &TaskId, timer: Timer) -> String {
        self.join(["schedule", id.as_str(), timer.token()])
    }

    /// Filter: all schedules of a task.
    pub fn schedule_task(&self, id: &TaskId) -> String {
        self.join(["schedule", id.as_str(), "*"])
    }

    /// Filter: a delayed task, before and after it is due.
    pub fn start_timers(&self, id: &TaskId) -> String {
        self.join(["*", id.as_str(), Timer::Start.token()])
    }

    /// Filter: all schedules.
    pub fn schedule_all(&self) -> String {
        self.join(["schedule", "*", "*"])
    }

    /// Filter: the schedules of all delayed tasks.
    pub fn schedule_starts(&self) -> String {
        self.join(["schedule", "*", Timer::Start.token()])
    }

    /// Takes the schedule subject of a delayed task apart; `None` if it isn't one of this namespace.
    pub fn parse_schedule_start(&self, subject: &str) -> Option<TaskId> {
        let (id, timer) = self.strip(subject, "schedule")?.split_once('.')?;
        (Timer::from_token(timer)? == Timer::Start).then(|| id.parse().ok())?
    }

    /// What is due.
    pub fn due(&self, id: &TaskId, timer: Timer) -> String {
        self.join(["due", id.as_str(), timer.token()])
    }

    /// Filter: everything that is due.
    pub fn due_all(&self) -> String {
        self.join(["due", "*", "*"])
    }

    /// The stream of schedules.
    pub fn schedule_stream(&self) -> String {
        self.upper("SCHEDULE")
    }

    /// Takes a `due` subject apart; `None` if it isn't one of this namespace.
    pub fn parse_due(&self, subject: &str) -> Option<(TaskId, Timer)> {
        let rest = self.strip(subject, "due")?;
        let (id, timer) = rest.split_once('.')?;
        Some((id.parse().ok()?, Timer::from_token(timer)?))
    }

    /// Where an operator speaks to one worker.
    pub fn worker_control(&self, worker: &WorkerId) -> String {
        self.join(["worker", worker.as_str()])
    }

    /// The stream of waiting tasks.
    pub fn queue_stream(&self) -> String {
        self.upper("QUEUE")
    }

    /// The stream of status chains, cancel requests and outcomes.
    pub fn tasks_stream(&self) -> String {
        self.upper("TASKS")
    }

    /// The stream of output chunks.
    pub fn output_stream(&self) -> String {
        self.upper("OUTPUT")
    }

    /// The bucket of lanes and their selectors.
    pub fn lanes_bucket(&self) -> String {
        self.upper("LANES")
    }

    /// The bucket of live workers.
    pub fn workers_bucket(&self) -> String {
        self.upper("WORKERS")
    }

    /// The bucket of slots: who has them and who waits.
    pub fn slots_bucket(&self) -> String {
        self.upper("SLOTS")
    }

    /// The durable consumer of a lane.
    pub fn lane_consumer(&self, lane: &LaneId) -> String {
        lane.to_string()
    }

    /// Takes a queue subject apart; `None` if it isn't one of this namespace.
    pub fn parse_queue(&self, subject: &str) -> Option<(LaneId, TaskId)> {
        let rest = self.strip(subject, "queue")?;
        let (lane, id) = rest.split_once('.')?;
        Some((lane.parse().ok()?, id.parse().ok()?))
    }

    /// The lane of a queue subject, also of one with a bad id.
    pub fn lane_of_queued(&self, subject: &str) -> Option<LaneId> {
        self.strip(subject, "queue")?.split('.').next()?.parse().ok()
    }

    /// Takes a `task` subject apart; `None` if it isn't one of this namespace.
    pub fn parse_task(&self, subject: &str) -> Option<(TaskId, TaskSubject)> {
        let rest = self.strip(subject, "task")?;
        let (id, what) = rest.split_once('.')?;
        let what = match what {
            "status" => TaskSubject::Status,
            "cancel" => TaskSubject::Cancel,
            "outcome" => TaskSubject::Outcome,
            _ => return None,
        };
        Some((id.parse().ok()?, what))
    }

    /// Takes an output subject apart; `None` if it isn't one of this namespace.
    pub fn parse_output(&self, subject: &str) -> Option<(TaskId, Stream)> {
        let rest = self.strip(subject, "output")?;
        let (id, stream) = rest.split_once('.')?;
        Some((id.parse().ok()?, Stream::from_token(stream)?))
    }

    fn strip<'a>(&self, subject: &'a str, family: &str) -> Option<&'a str> {
        subject
            .strip_prefix(self.namespace.as_str())?
            .strip_prefix('.')?
            .strip_prefix(family)?
            .strip_prefix('.')
    }

    // One allocation of the right size; `format!` guesses, and grows.
    fn join<const N: usize>(&self, tokens: [&str; N]) -> String {
        let length =
            self.namespace.as_str().len() + N + tokens.iter().map(|t| t.len()).sum::<usize>();
        let mut subject = String::with_capacity(length);
        subject.push_str(self.namespace.as_str());
        for token in tokens {
            subject.push('.');
            subject.push_str(token);
        }
        subject
    }

    fn upper(&self, what: &str) -> String {
        format!("{}_{what}", self.namespace.as_str().to_ascii_uppercase())
    }
}

/// What the server's clock is asked to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A task's start.
    Start,
    /// The end of a task's wait for its start.
    Expire,
    /// The end of its results.
    Purge,
}

impl Timer {
    const ALL: [Self; 3] = [Self::Start, Self::Expire, Self::Purge];

    fn token(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Expire => "expire",
            Self::Purge => "purge",
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timer| timer.token() == token)
    }
}

/// The payload of a [`Timer::Purge`]. One that is empty, or of another form, says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgeTimer {
    /// The sequence of the finished record whose task's results are over: the id may be another task's by
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_seq: Option<u64>,
}

/// What a subject below `task.<id>` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskSubject {
    /// The compare-and-set chain.
    Status,
    /// Cancel requests.
    Cancel,
    /// The one outcome.
    Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        text.parse().expect("a valid id")
    }

    #[test]
    fn what_is_built_can_be_parsed() {
        let s = Subjects::default();
        let lane = LaneId::default_lane();
        assert_eq!(s.parse_queue(&s.queue(&lane, &id("a"))), Some((lane, id("a"))));
        assert_eq!(s.parse_task(&s.cancel(&id("a"))), Some((id("a"), TaskSubject::Cancel)));
        assert_eq!(
            s.parse_output(&s.output(&id("a"), Stream::Stderr)),
            Some((id("a"), Stream::Stderr))
        );
    }

    #[test]
    fn strangers_subjects_are_not_parsed() {
        let s = Subjects::default();
        for subject in ["", "runlane", "other.queue.a.b", "runlane.queue.a", "runlane.queue.a.b.c"]
        {
            assert_eq!(s.parse_queue(subject), None, "{subject}");
        }
        assert_eq!(s.parse_task("runlane.task.a.unknown"), None);
        assert_eq!(s.parse_output("runlane.output.a.stdin"), None);
    }
}
