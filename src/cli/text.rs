//! Small texts for people.

use std::time::Duration;

use jiff::Timestamp;

use crate::task::Human;
use crate::wire::Outcome;

/// How long ago something was, to the unit that matters: `12s`, `3m`, `5h`, `2d`.
pub(super) fn ago(then: Timestamp) -> String {
    let age = Duration::try_from(Timestamp::now().duration_since(then)).unwrap_or_default();
    coarse(age)
}

/// A duration to the unit that matters.
pub(super) fn coarse(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long a process ran.
pub(super) fn run_time(outcome: &Outcome) -> Option<String> {
    let ran = outcome.finished_at.duration_since(outcome.started_at?);
    Some(Human(Duration::try_from(ran).unwrap_or_default()).to_string())
}

/// Names, or that there are none.
pub(super) fn or_nobody(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// Labels as `k=v,k=v`.
pub(super) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let labels: Vec<String> =
        labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

/// Something that may not be there.
pub(super) fn opt(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// How a process ended: `0`, `signal 9`, or nothing.
pub(super) fn end(exit_code: Option<i32>, signal: Option<i32>) -> String {
    match (exit_code, signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => code.to_string(),
        (None, None) => String::new(),
    }
}

/// How a task ended, in a sentence without its id.
pub(super) fn ended(outcome: &Outcome) -> String {
    let mut text = outcome.phase.to_string();
    if let Some(attempt) = outcome.attempt.filter(|attempt| attempt.0 > 1) {
        text.push_str(&format!(" at attempt {attempt}"));
    }
    match (outcome.exit_code, outcome.signal) {
        (_, Some(signal)) => text.push_str(&format!(", signal {signal}")),
        (Some(code), None) => text.push_str(&format!(", exit code {code}")),
        (None, None) => {}
    }
    if outcome.oom_killed {
        text.push_str(", killed: out of memory");
        if let Some(limit) = outcome.memory_max_bytes {
            text.push_str(&format!(" (memory.max {})", size(limit)));
        }
    }
    if let Some(cause) = &outcome.cause {
        let by = cause.by.as_ref().map(|by| format!("by {by}"));
        let told: Vec<_> = by.into_iter().chain(cause.message.clone()).collect();
        if !told.is_empty() {
            text.push_str(&format!(" ({})", told.join(": ")));
        }
    }
    if let Some(error) = &outcome.error {
        let named = error.message.starts_with(&format!("{}:", error.step));
        let step = if named { String::new() } else { format!("{}: ", error.step) };
        text.push_str(&format!(": {step}{}", error.message));
        for problem in &error.problems {
            text.push_str(&format!("\n  {problem}"));
        }
    }
    text
}

/// Bytes in the largest unit that gives a whole number, as in a configuration.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units.iter().find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    whole.map_or_else(|| format!("{bytes}B"), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

/// Who we are, for a cancel request.
pub(super) fn me() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let user = user.unwrap_or_else(|_| format!("uid {}", nix::unistd::getuid()));
    host.map_or(user.clone(), |host| format!("{user}@{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ErrorDetail, Phase, Problem};

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, text) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(coarse(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_size_is_as_short_as_it_can_be_exactly() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (64 << 20, "64MiB"),
            (3 << 29, "1536MiB"),
            (1 << 40, "1TiB"),
            ((1 << 20) + 1, "1048577B"),
        ] {
            assert_eq!(size(bytes), text);
            assert_eq!(crate::task::parse_size(text), Some(bytes));
        }
    }

    #[test]
    fn a_kill_for_want_of_memory_names_the_limit() {
        let id = "a".parse().expect("an id");
        let mut outcome = Outcome::without_run(id, Phase::Failed, Timestamp::UNIX_EPOCH);
        (outcome.signal, outcome.oom_killed) = (Some(9), true);
        assert_eq!(ended(&outcome), "failed, signal 9, killed: out of memory");
        outcome.memory_max_bytes = Some(64 << 20);
        assert_eq!(ended(&outcome), "failed, signal 9, killed: out of memory (memory.max 64MiB)");
    }

    #[test]
    fn a_rejection_names_every_problem() {
        let id = "a".parse().expect("an id");
        let mut outcome = Outcome::without_run(id, Phase::Rejected, Timestamp::UNIX_EPOCH);
        outcome.error = Some(ErrorDetail {
            step: "validate".to_owned(),
            message: "2 problems".to_owned(),
            problems: vec![Problem::new("$.a", "is bad"), Problem::new("$.b", "too")],
        });
        assert_eq!(ended(&outcome), "rejected: validate: 2 problems\n  $.a: is bad\n  $.b: too");
    }
}
