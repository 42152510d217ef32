//! Writing to the two standard streams. A reader that goes away is no panic.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::exit::{BROKEN_PIPE, FAILED, Failure};
use crate::wire::Stream;

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

/// Writes bytes to a stream. The runtime goes on, and the connection with it, while their reader takes its
/// time.
pub(super) async fn patiently(stream: Stream, bytes: Bytes) -> Result<(), Failure> {
    let len = bytes.len();
    let write = move || match stream {
        Stream::Stdout => out(&bytes),
        Stream::Stderr => err(&bytes),
    };
    // Not for a few bytes: another thread takes longer to wake than they take to write.
    if len <= PIPE_BUF && has_room(stream) {
        return write();
    }
    let written = spawn_blocking(write).await;
    written.map_err(|error| Failure::of(FAILED, &error))?
}

/// Whether a stream takes [`PIPE_BUF`] bytes without waiting, see pipe(7).
fn has_room(stream: Stream) -> bool {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let stream = match stream {
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    let mut polled = [PollFd::new(stream, PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Writes a line to stdout.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    out(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    out(json_line(value)?.as_bytes())
}

/// Makes one line of JSON of a value.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::of(FAILED, &error))?;
    Ok(text + "\n")
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
