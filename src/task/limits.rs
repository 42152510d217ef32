//! Rules that several documents share.

use std::time::Duration;

use super::sandbox::Rlimit;

/// The longest slot, label or label value, in bytes.
pub const NAME_BYTES: usize = 256;

/// Longer durations are taken for this one: a hundred years. A clock can add it without overflow.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The smallest memory limit, in bytes: below it the kernel kills a program before it has begun.
pub const MIN_MEMORY_BYTES: u64 = 1024 * 1024;

/// The smallest value of a limit with which programs still start, in the limit's unit.
pub fn least_rlimit(rlimit: Rlimit) -> u64 {
    match rlimit {
        Rlimit::As => 1024 * 1024,
        // exec(2) needs a quarter of it for the arguments, and at least this much at all.
        Rlimit::Stack => 128 * 1024,
        Rlimit::Nofile => 16,
        Rlimit::Cpu | Rlimit::Nproc => 1,
        Rlimit::Core | Rlimit::Fsize | Rlimit::Memlock => 0,
    }
}

/// Whether a text can be a slot, label or label value: at most [`NAME_BYTES`] bytes, no control
/// characters.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES && !text.chars().any(char::is_control)
}

/// Whether a text is a name of an environment variable: a letter or `_`, then letters, digits, `_`.
pub fn is_env_name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(word) && text.starts_with(|c: char| word(c) && !c.is_ascii_digit())
}

/// What is wrong with a name of an environment variable that a person sets, if anything.
pub fn env_name_problem(name: &str) -> Option<&'static str> {
    if !is_env_name(name) {
        Some("is not a name; use a letter or `_`, then letters, digits and `_`")
    } else if name.starts_with("RUNLANE_") {
        Some("is reserved: names that start with RUNLANE_ are set by the worker")
    } else {
        None
    }
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis).min(FOR_EVER)
}
