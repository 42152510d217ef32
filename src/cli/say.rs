//! Writing to the two standard streams. A reader that goes away is no panic.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use serde::Serialize;

use super::exit::{BROKEN_PIPE, FAILED, Failure};

/// Writes bytes to stdout at once.
pub(super) fn out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let done = stdout.flush().and_then(|()| Unbuffered(stdout.as_fd()).write_all(bytes));
    written(done, "stdout")
}

/// Writes bytes to stderr at once.
pub(super) fn err(bytes: &[u8]) -> Result<(), Failure> {
    written(io::stderr().lock().write_all(bytes), "stderr")
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

/// Standard output without the search for line ends and the second write that its buffer costs.
struct Unbuffered<'a>(BorrowedFd<'a>);

impl Write for Unbuffered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match nix::unistd::write(self.0, bytes) {
            // It was closed before we began: nobody is there to read, as with the buffer.
            Err(nix::errno::Errno::EBADF) => Ok(bytes.len()),
            written => Ok(written?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(result: io::Result<()>, stream: &str) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(BROKEN_PIPE),
        _ => Failure::new(FAILED, format!("cannot write to {stream}: {error}")),
    })
}
