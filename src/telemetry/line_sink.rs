//! Where log lines go: a file, a terminal, or a pipe or socket whose reader may pause or be gone.
//!
//! ```text
//! room, now or soon ─► written (after a note, if lines were dropped before it)
//! no room           ─► dropped and counted
//! ```
//!
//! Whoever logs can be the thread that renews leases. So lines wait for their reader for [`PATIENCE`] at
//! most, and for a tenth of the time in the long run, and writing never fails: a worker outlives its log.
//! What another process writes into the same pipe in the moment between our look and our write can still
//! hold it up.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use serde_json::json;

use super::LogFormat;
use super::metrics;

/// How long lines wait for their reader without a break.
const PATIENCE: Duration = Duration::from_millis(100);
/// Part of the time that comes back as patience, until there is as much of it again.
const SHARE: u32 = 10;
/// What a pipe that is said to have room takes at once: Linux' `PIPE_BUF`.
const AT_ONCE: usize = 4096;

/// Writes lines, each in one call, as the logger does.
pub(super) struct LineSink<F> {
    to: F,
    format: LogFormat,
    /// Lines that were dropped, or cut, since one was written.
    dropped: u64,
    /// The last line has no end.
    is_torn: bool,
    /// How long lines could still wait at that time.
    patience: (Duration, Instant),
}

impl<F: AsFd> LineSink<F> {
    pub(super) fn new(to: F, format: LogFormat) -> Self {
        Self { to, format, dropped: 0, is_torn: false, patience: (PATIENCE, Instant::now()) }
    }

    fn line(&mut self, line: &[u8]) {
        let has_way = self.dropped == 0 || self.say_what_is_missing();
        if !has_way || !self.put(line) {
            self.dropped += 1;
            metrics::log_line_dropped();
        }
    }

    fn say_what_is_missing(&mut self) -> bool {
        let torn = if self.is_torn { "\n" } else { "" };
        let note = format!("{torn}{}\n", note(self.format, self.dropped));
        let is_said = self.put(note.as_bytes());
        if is_said {
            self.dropped = 0;
        }
        is_said
    }

    /// Writes all of it; false if its end is missing.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let mut left = bytes;
        while !left.is_empty() {
            if !self.has_room() {
                break;
            }
            match write(&self.to, &left[..left.len().min(AT_ONCE)]) {
                Ok(written) => left = &left[written..],
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        let is_begun = left.len() < bytes.len();
        if is_begun {
            self.is_torn = !left.is_empty();
        }
        left.is_empty()
    }

    /// Whether something can be written now, or soon.
    fn has_room(&mut self) -> bool {
        if self.is_ready(Duration::ZERO) {
            return true;
        }
        // Who has read nothing since then isn't waited for.
        if self.dropped > 0 {
            return false;
        }
        let (left, since) = self.patience;
        let begin = Instant::now();
        let patience = PATIENCE.min(left + (begin - since) / SHARE);
        let is_ready = self.is_ready(patience);
        let end = Instant::now();
        self.patience = (patience.saturating_sub(end - begin), end);
        is_ready
    }

    /// An error counts as ready: it is the write that says which.
    fn is_ready(&self, patience: Duration) -> bool {
        let mut watched = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        // A signal ends the wait.
        let ready = poll(&mut watched, patience).or_else(|_| poll(&mut watched, PollTimeout::ZERO));
        ready.is_ok_and(|ready| ready > 0)
    }
}

/// What is said in place of lines that nobody read, shaped as the logger's own lines are.
fn note(format: LogFormat, dropped: u64) -> String {
    let (at, target) = (Timestamp::now(), module_path!());
    let text = "lines of the log were dropped: nobody read them in time";
    match format {
        LogFormat::Text => format!("{at:.6}  WARN {target}: {text} dropped={dropped}"),
        LogFormat::Json => {
            let at = format!("{at:.6}");
            json!({"timestamp": at, "level": "WARN", "message": text, "dropped": dropped, "target": target})
                .to_string()
        }
    }
}

impl<F: AsFd> io::Write for LineSink<F> {
    /// Never fails: the logger would say so on stderr, and panic if that fails, too.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read as _, Write as _};

    use super::*;

    fn sink(format: LogFormat) -> (PipeReader, LineSink<PipeWriter>) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (reader, LineSink::new(writer, format))
    }

    /// Writes numbered lines until one is dropped; returns how many were written.
    fn fill(sink: &mut LineSink<PipeWriter>) -> usize {
        let mut written = 0;
        loop {
            sink.write_all(format!("{written:0>99}\n").as_bytes()).expect("it never fails");
            if sink.dropped > 0 {
                return written;
            }
            written += 1;
        }
    }

    fn lines(mut reader: PipeReader, sink: LineSink<PipeWriter>) -> Vec<String> {
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_reader_that_pauses_costs_lines_and_no_time_and_is_told_how_many() {
        let (mut reader, mut sink) = sink(LogFormat::Text);
        let start = Instant::now();
        let written = fill(&mut sink);
        for _ in 0..10_000 {
            sink.write_all(b"nobody reads this\n").expect("it never fails");
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let mut read = vec![0; written * 100];
        reader.read_exact(&mut read).expect("what was written is there");
        sink.write_all(b"again\n").expect("it never fails");
        let rest = lines(reader, sink);
        let [note, again] = rest.as_slice() else { panic!("{rest:?}") };
        assert!(note.contains("WARN") && note.ends_with("dropped=10001"), "{note}");
        assert_eq!(again, "again");
        let read = String::from_utf8(read).expect("UTF-8");
        let numbers = read.lines().map(|line| line.parse::<usize>().expect("a number"));
        assert!(numbers.eq(0..written), "lines are whole and in order");
    }

    #[test]
    fn a_line_that_was_cut_ends_before_the_note() {
        let (mut reader, mut sink) = sink(LogFormat::Json);
        let long = "x".repeat(1 << 20) + "\n";
        sink.write_all(long.as_bytes()).expect("it never fails");
        let mut begun = vec![0; 1 << 16];
        reader.read_exact(&mut begun).expect("its begin is there");
        assert!(begun.iter().all(|byte| *byte == b'x'));
        sink.write_all(b"{}\n").expect("it never fails");
        let rest = lines(reader, sink);
        let [end, note, again] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!((end.as_str(), again.as_str()), ("", "{}"));
        let note: serde_json::Value = serde_json::from_str(note).expect("JSON");
        assert_eq!((&note["level"], &note["dropped"]), (&json!("WARN"), &json!(1)));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error_and_not_waited_for() {
        let (reader, mut sink) = sink(LogFormat::Text);
        drop(reader);
        let start = Instant::now();
        for _ in 0..100 {
            sink.write_all(b"to nobody\n").expect("it never fails");
        }
        assert_eq!(sink.dropped, 100);
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }

    #[test]
    fn lines_wait_a_moment_for_a_reader_that_is_slow() {
        let (mut reader, mut sink) = sink(LogFormat::Text);
        let written = fill(&mut sink);
        sink = LineSink::new(sink.to, LogFormat::Text);
        let reading = std::thread::spawn(move || {
            let mut half = vec![0; written * 50];
            reader.read_exact(&mut half).expect("what was written is there");
            reader
        });
        sink.write_all(b"it waited\n").expect("it never fails");
        let reader = reading.join().expect("it reads");
        assert_eq!(lines(reader, sink).last().map(String::as_str), Some("it waited"));
    }
}
