//! Writing to the two standard streams. A reader that goes away is no panic.

use std::io;

use serde::Serialize;

use super::exit::{BROKEN_PIPE, FAILED, Failure};

/// Writes bytes to stdout at once.
pub(super) fn out(bytes: &[u8]) -> Result<(), Failure> {
    written(write_all(&mut io::stdout().lock(), bytes), "stdout")
}

/// Writes bytes to stderr at once.
pub(super) fn err(bytes: &[u8]) -> Result<(), Failure> {
    written(write_all(&mut io::stderr().lock(), bytes), "stderr")
}

/// Writes a line to stdout.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    out(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    line(text.map_err(|error| Failure::of(FAILED, &error))?)
}

/// Tells a failure that doesn't end the command; returns its exit code.
pub(super) fn failure(failure: Failure) -> u8 {
    note(failure.message.unwrap_or_default());
    failure.code
}

/// Tells a person something on stderr. Nobody may be there to read it, and that is no failure.
pub(super) fn note(text: impl AsRef<str>) {
    drop(err(format!("runlane: {}\n", text.as_ref()).as_bytes()));
}

fn write_all(stream: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

fn written(result: io::Result<()>, stream: &str) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(BROKEN_PIPE),
        _ => Failure::new(FAILED, format!("cannot write to {stream}: {error}")),
    })
}
