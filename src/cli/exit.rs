//! Exit codes: one table, documented in `--help`.

use std::error::Error;
use std::process::ExitCode;

use crate::client::{AgainError, CancelError, ControlError, SubmitError};
use crate::config::ConfigErrors;
use crate::nats::BusError;
use crate::nats::connect::ConnectError;
use crate::nats::context::ContextError;
use crate::nats::topology::TopologyError;
use crate::wire::{Outcome, Phase, StopReason};

/// Something of ours failed, and no other code fits.
pub(super) const FAILED: u8 = 1;
/// A worker ended before its tasks had; it handed them back.
pub(super) const HANDED_BACK: u8 = 3;
/// The command line is wrong (EX_USAGE of sysexits.h).
pub(super) const USAGE: u8 = 64;
/// A spec is invalid, or the task was rejected (EX_DATAERR).
pub(super) const INVALID: u8 = 65;
/// NATS can't be reached or used (EX_UNAVAILABLE).
pub(super) const UNAVAILABLE: u8 = 69;
/// The task was lost with its workers, or its time to start passed (EX_TEMPFAIL).
pub(super) const LOST: u8 = 75;
/// The configuration or the namespace's set-up is wrong (EX_CONFIG).
pub(super) const CONFIG: u8 = 78;
/// A time limit passed, as with timeout(1).
pub(super) const TIMEOUT: u8 = 124;
/// The program is there and could not be started, as with a shell.
pub(super) const CANNOT_EXECUTE: u8 = 126;
/// The program was not found, as with a shell.
pub(super) const NOT_FOUND: u8 = 127;
/// The task was canceled; also when Ctrl-C was pressed twice.
pub(super) const CANCELED: u8 = 130;
/// The reader of our output went away, as if by SIGPIPE.
pub(super) const BROKEN_PIPE: u8 = 141;

/// JetStream's code for a stream that isn't there.
pub(super) const NO_STREAM: u64 = 10_059;

/// Code and meaning, in the order of `--help`.
const TABLE: &[(&str, &str)] = &[
    ("0", "success"),
    ("N", "the task's own exit code, of its last attempt (run, exec, wait, submit --wait)"),
    ("128+N", "signal N ended the task"),
    ("124", "the task's time limit passed, or that of `runlane wait --timeout`"),
    ("126", "the task's program could not be started"),
    ("127", "the task's program was not found"),
    ("130", "the task was canceled, or Ctrl-C was pressed twice"),
    ("64", "the command line is wrong"),
    ("65", "the spec is invalid, or the task was rejected"),
    ("69", "NATS can't be reached or used"),
    ("75", "the task was lost with its workers, or expired before it started"),
    ("78", "the configuration is wrong, or the namespace is not set up"),
    ("1", "something else failed on our side"),
    ("3", "a worker ended, and had to hand back tasks that still ran"),
];

/// The table as it stands at the end of `--help`.
pub(super) fn epilog() -> String {
    let rows = TABLE.iter().map(|(code, meaning)| format!("  {code:<6} {meaning}"));
    let rows: Vec<String> = rows.collect();
    format!(
        "Exit codes:\n{}\n\nWith several tasks, the first one (as named) that did not succeed decides.",
        rows.join("\n")
    )
}

/// The exit code that tells how a task ended.
pub(super) fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome.phase {
        Phase::Succeeded => outcome.exit_code.map_or(0, low_byte),
        Phase::Failed | Phase::Exhausted => of_failure(outcome),
        Phase::Timeout => TIMEOUT,
        Phase::Canceled => CANCELED,
        Phase::Rejected => INVALID,
        Phase::Lost | Phase::Expired => LOST,
        // No outcome has these.
        Phase::Pending | Phase::Running => FAILED,
    }
}

fn of_failure(outcome: &Outcome) -> u8 {
    let timed_out = outcome.cause.as_ref().is_some_and(|c| c.reason == StopReason::Timeout);
    match (outcome.exit_code, outcome.signal, &outcome.error) {
        _ if timed_out => TIMEOUT,
        (Some(code), _, _) => low_byte(code).max(1),
        (None, Some(signal), _) => u8::try_from(128 + signal).unwrap_or(FAILED),
        (None, None, Some(error)) if is_not_found(&error.step, &error.message) => NOT_FOUND,
        (None, None, Some(_)) => CANNOT_EXECUTE,
        (None, None, None) => FAILED,
    }
}

/// Whether the program itself was not found. The outcome has no error number, so this goes by the
/// wording that the executor gives ENOENT.
pub(super) fn is_not_found(step: &str, message: &str) -> bool {
    let found = ["not found in path", "no such file or directory"];
    let message = message.to_ascii_lowercase();
    step == "exec" && found.iter().any(|wording| message.contains(wording))
}

/// An exit status has 8 bits (wait(2)).
fn low_byte(code: i32) -> u8 {
    code.to_le_bytes()[0]
}

/// Why a verb ended without doing its work: a code and a sentence. No sentence: all is said already.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: Option<String>,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    /// A code whose reason was already told.
    pub(super) fn silent(code: u8) -> Self {
        Self { code, message: None }
    }

    /// The error and its sources, in one line.
    pub(super) fn of(code: u8, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code)
    }
}

/// An error and its sources, each once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

fn bus_code(error: &BusError) -> u8 {
    match error {
        BusError::Unclear(_) | BusError::Denied(_) | BusError::Broken(_) => UNAVAILABLE,
        // Both say that a stream isn't there, by two ways of asking.
        BusError::NoStream { .. } | BusError::Refused { code: NO_STREAM, .. } => CONFIG,
        BusError::Refused { .. } => FAILED,
        BusError::TooLarge { .. } => INVALID,
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        match &error {
            BusError::Refused { code: NO_STREAM, .. } => Self::new(
                CONFIG,
                "the namespace is not set up on this server; run `runlane init`, or check --namespace",
            ),
            _ => Self::of(bus_code(&error), &error),
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let code = match &error {
            SubmitError::TooLarge { .. } => INVALID,
            SubmitError::Full { .. } => UNAVAILABLE,
            SubmitError::NotSetUp(_) => CONFIG,
            SubmitError::Lane(
                TopologyError::LookUp { source, .. } | TopologyError::Create { source, .. },
            ) => bus_code(source),
            SubmitError::Lane(
                TopologyError::Incompatible { .. } | TopologyError::LaneTaken { .. },
            ) => FAILED,
            SubmitError::Bus(error) => bus_code(error),
        };
        Self::of(code, &error)
    }
}

impl From<CancelError> for Failure {
    fn from(error: CancelError) -> Self {
        let code = match &error {
            CancelError::Unknown(_) => FAILED,
            CancelError::Bus {
                source: source @ BusError::Refused { code: NO_STREAM, .. }, ..
            } => {
                return source.clone().into();
            }
            CancelError::Bus { source, .. } => bus_code(source),
        };
        Self::of(code, &error)
    }
}

impl From<AgainError> for Failure {
    fn from(error: AgainError) -> Self {
        let code = match error {
            AgainError::Submit(error) => return error.into(),
            AgainError::Unknown(_) | AgainError::NotFinished(_) | AgainError::NoSpec(_) => FAILED,
            AgainError::BadSpec { .. } => INVALID,
            AgainError::Bus {
                source: source @ BusError::Refused { code: NO_STREAM, .. }, ..
            } => {
                return source.into();
            }
            AgainError::Bus { ref source, .. } => bus_code(source),
        };
        Self::of(code, &error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::NotThere(_) | ControlError::Refused { .. } => FAILED,
            ControlError::Bus { source, .. } => bus_code(source),
        };
        Self::of(code, &error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::Url { .. } | ConnectError::File { .. } => CONFIG,
            ConnectError::Unreachable { .. }
            | ConnectError::TimedOut { .. }
            | ConnectError::Unauthorized { .. }
            | ConnectError::Tls { .. }
            | ConnectError::TooOld { .. }
            | ConnectError::NoJetStream { .. }
            | ConnectError::NoAnswer { .. }
            | ConnectError::Denied { .. } => UNAVAILABLE,
        };
        Self::of(code, &error)
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self::of(CONFIG, &error)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(error: ConfigErrors) -> Self {
        Self::of(CONFIG, &error)
    }
}

impl From<TopologyError> for Failure {
    fn from(error: TopologyError) -> Self {
        let code = match &error {
            TopologyError::Incompatible { .. } | TopologyError::LaneTaken { .. } => CONFIG,
            TopologyError::Create { source, .. } | TopologyError::LookUp { source, .. } => {
                bus_code(source)
            }
        };
        Self::of(code, &error)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::wire::{Cause, ErrorDetail};

    fn outcome(phase: Phase) -> Outcome {
        let id = "a".parse().expect("an id");
        Outcome::without_run(id, phase, Timestamp::UNIX_EPOCH)
    }

    fn exited(phase: Phase, code: i32) -> Outcome {
        Outcome { exit_code: Some(code), ..outcome(phase) }
    }

    fn failed_at(step: &str, message: &str) -> Outcome {
        let (step, message) = (step.to_owned(), message.to_owned());
        let error = Some(ErrorDetail { step, message, problems: Vec::new() });
        Outcome { error, ..outcome(Phase::Failed) }
    }

    fn exhausted_by_timeouts() -> Outcome {
        let cause = Some(Cause { reason: StopReason::Timeout, by: None, message: None });
        Outcome { cause, signal: Some(15), ..outcome(Phase::Exhausted) }
    }

    #[test]
    fn an_outcomes_exit_code_is_that_of_the_table() {
        for (outcome, code) in [
            (exited(Phase::Succeeded, 0), 0),
            // `failOnNonZero: false`
            (exited(Phase::Succeeded, 3), 3),
            (exited(Phase::Failed, 7), 7),
            (exited(Phase::Exhausted, 9), 9),
            // The low byte is 0, and still it failed.
            (exited(Phase::Failed, 256), 1),
            (Outcome { signal: Some(9), ..outcome(Phase::Failed) }, 137),
            (exhausted_by_timeouts(), 124),
            (failed_at("exec", "exec: cannot run \"nosuch\": not found in PATH /bin"), 127),
            (failed_at("exec", "exec: cannot run \"/no/such\": no such file or directory"), 127),
            (failed_at("exec", "exec: cannot run \"/etc\": permission denied"), 126),
            (failed_at("chdir", "chdir: cannot enter \"/x\": no such file or directory"), 126),
            (outcome(Phase::Timeout), 124),
            (outcome(Phase::Canceled), 130),
            (outcome(Phase::Rejected), 65),
            (outcome(Phase::Lost), 75),
            (outcome(Phase::Expired), 75),
        ] {
            assert_eq!(of_outcome(&outcome), code, "{outcome:?}");
        }
    }

    #[test]
    fn every_code_is_in_the_table() {
        let documented = |code: u8| {
            let code = code.to_string();
            TABLE.iter().any(|(documented, _)| *documented == code)
        };
        for code in [
            FAILED,
            USAGE,
            INVALID,
            UNAVAILABLE,
            LOST,
            CONFIG,
            TIMEOUT,
            CANNOT_EXECUTE,
            NOT_FOUND,
            CANCELED,
        ] {
            assert!(documented(code), "{code}");
        }
    }

    #[test]
    fn a_source_is_told_once() {
        let source = BusError::Broken("closed".to_owned());
        let error = CancelError::Bus { id: "a".parse().expect("an id"), source };
        assert_eq!(chain(&error), "task a could not be canceled: closed");
    }
}
