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
        text.push_str(", out of memory");
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
