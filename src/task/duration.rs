//! Durations as people write them: `500ms`, `30s`, `10m`, `1h30m`, `7d`.

use std::fmt;
use std::time::Duration;

const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration; write it like 500ms, 30s, 10m, 1h30m or 7d")]
pub struct InvalidDuration {
    text: String,
}

/// Reads a duration: whole numbers with the units d, h, m, s and ms, from the largest to the
/// smallest, each at most once; `0` needs no unit.
///
/// # Errors
/// Any other text, and durations of more than `u64::MAX` milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let millis = if text == "0" { Some(0) } else { millis(text) };
    let invalid = || InvalidDuration { text: text.chars().take(64).collect() };
    millis.map(Duration::from_millis).ok_or_else(invalid)
}

fn millis(text: &str) -> Option<u64> {
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut total = 0_u64;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = &tail[..tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len())];
        // `find` goes on where the last unit was found, so units can only become smaller.
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*factor)?;
        total = total.checked_add(part)?;
        rest = &tail[unit.len()..];
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// Prints a duration in the form that [`parse_duration`] reads; less than a millisecond is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Human(
    /// The duration.
    pub Duration,
);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS.iter().filter(|(unit, _)| *unit != "ms") {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        if rest > 0 { write!(f, "{rest}ms") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in [
            "",
            "5",
            "s",
            "5x",
            "1.5s",
            "-1s",
            " 1s",
            "1s ",
            "1m1h",
            "1s1s",
            "1s500",
            "+1s",
            "99999999999999999999s",
            "999999999999999d",
            "10m ",
            "١s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&Human(duration).to_string()), Ok(duration));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,12}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&Human(duration).to_string()), Ok(duration));
            }
        }
    }
}
