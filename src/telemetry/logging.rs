//! Log set-up: everything goes to stderr, so that stdout stays for a command's result.

use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::line_sink::LineSink;

/// The environment variable that holds the filter.
pub const FILTER_VARIABLE: &str = "RUNLANE_LOG";

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people; colours only on a terminal and without `NO_COLOR`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter can't be read.
    #[error(
        "the log filter {text:?} is not valid, for example use \"info\" or \"runlane=debug,warn\""
    )]
    Filter {
        /// The filter as given.
        text: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process already has a logger.
    #[error("logging is already set up in this process")]
    AlreadySet(#[source] TryInitError),
}

/// Installs the process's logger with a filter in `tracing_subscriber`'s directive syntax, or
/// `config::DEFAULT_FILTER`. Errors: an invalid filter, or a second logger.
pub fn init(filter: Option<&str>, format: LogFormat) -> Result<(), LoggingError> {
    let filter = parse_filter(filter.unwrap_or(crate::config::DEFAULT_FILTER))?;
    let lines = Mutex::new(LineSink::new(std::io::stderr(), format));
    let builder = Subscriber::builder().with_env_filter(filter).with_writer(lines);
    match format {
        LogFormat::Text => builder.with_ansi(color()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).finish().try_init(),
    }
    .map_err(LoggingError::AlreadySet)
}

fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|source| LoggingError::Filter { text: text.to_owned(), source })
}

/// `NO_COLOR` counts if it is set and not empty (no-color.org).
fn color() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_is_valid_and_a_wrong_one_is_named() {
        parse_filter(crate::config::DEFAULT_FILTER).expect("valid");
        let error = parse_filter("runlane=loud").expect_err("not a level");
        assert!(error.to_string().contains("runlane=loud"), "{error}");
    }

    #[test]
    fn a_second_set_up_is_an_error_and_not_a_panic() {
        // Another test may have been first.
        let first = init(Some("off"), LogFormat::Text);
        let second = init(Some("off"), LogFormat::Json);
        assert!(matches!(second, Err(LoggingError::AlreadySet(_))), "{first:?} {second:?}");
    }
}
