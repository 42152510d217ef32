//! Output → lines in the worker's own log (target `runlane::task`).
//!
//! A line longer than the limit is cut, and the event says how many bytes were left out; the lines
//! around it stay whole. Memory: at most the limit per stream.

use std::borrow::Cow;

use crate::wire::{Attempt, Stream, TaskId};

/// Default length limit of a logged line, in bytes.
pub const DEFAULT_LINE_MAX: usize = 8 * 1024;

/// Logs both streams of one attempt line by line: stdout as info, stderr as warn.
#[derive(Debug)]
pub struct LineLog {
    task: TaskId,
    attempt: Attempt,
    stdout: LineSplitter,
    stderr: LineSplitter,
}

impl LineLog {
    /// Starts a log of an attempt's output; longer lines are cut to `line_max` bytes.
    pub fn new(task: TaskId, attempt: Attempt, line_max: usize) -> Self {
        Self {
            task,
            attempt,
            stdout: LineSplitter::new(line_max),
            stderr: LineSplitter::new(line_max),
        }
    }

    /// Takes bytes of a stream in the order read and logs each line that they complete.
    pub fn push(&mut self, stream: Stream, data: &[u8]) {
        let (task, attempt) = (&self.task, self.attempt);
        let splitter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        splitter.push(data, |line| log(task, attempt, stream, &line));
    }

    /// Logs what the streams hold after their last newline.
    pub fn finish(mut self) {
        let (task, attempt) = (&self.task, self.attempt);
        self.stdout.finish(|line| log(task, attempt, Stream::Stdout, &line));
        self.stderr.finish(|line| log(task, attempt, Stream::Stderr, &line));
    }
}

fn log(task: &TaskId, attempt: Attempt, stream: Stream, line: &Line<'_>) {
    let (task, attempt) = (task.as_str(), attempt.0);
    let text = line.text.as_ref();
    // The text is a string field, which the formatter escapes: a task can't steer the operator's terminal.
    match (stream, line.omitted_bytes) {
        (Stream::Stdout, 0) => {
            tracing::info!(target: "runlane::task", task, attempt, stream = "stdout", line = text, "output");
        }
        (Stream::Stdout, omitted_bytes) => {
            tracing::info!(target: "runlane::task", task, attempt, stream = "stdout", line = text, omitted_bytes, "output");
        }
        (Stream::Stderr, 0) => {
            tracing::warn!(target: "runlane::task", task, attempt, stream = "stderr", line = text, "output");
        }
        (Stream::Stderr, omitted_bytes) => {
            tracing::warn!(target: "runlane::task", task, attempt, stream = "stderr", line = text, omitted_bytes, "output");
        }
    }
}

/// One line without its end (`\n` or `\r\n`).
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    text: Cow<'a, str>,
    /// Bytes cut off its end.
    omitted_bytes: u64,
}

#[derive(Debug)]
struct LineSplitter {
    max: usize,
    kept: Vec<u8>,
    omitted: u64,
    last: u8,
}

impl LineSplitter {
    fn new(max: usize) -> Self {
        Self { max, kept: Vec::new(), omitted: 0, last: 0 }
    }

    fn push(&mut self, mut data: &[u8], mut emit: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', data) {
            self.keep(&data[..end]);
            self.end_line(&mut emit);
            data = &data[end + 1..];
        }
        self.keep(data);
    }

    fn finish(&mut self, mut emit: impl FnMut(Line<'_>)) {
        if !self.kept.is_empty() || self.omitted > 0 {
            self.end_line(&mut emit);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let (kept, cut) = part.split_at(part.len().min(self.max - self.kept.len()));
        self.kept.extend_from_slice(kept);
        self.omitted += cut.len() as u64;
        self.last = part.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self, emit: &mut impl FnMut(Line<'_>)) {
        if self.last == b'\r' {
            // The carriage return is the last byte: it was cut off, or stands at the end of what is kept.
            if self.omitted > 0 {
                self.omitted -= 1;
            } else {
                self.kept.pop();
            }
        }
        if self.omitted > 0 {
            let whole = whole_chars(&self.kept);
            self.omitted += (self.kept.len() - whole) as u64;
            self.kept.truncate(whole);
        }
        // Most lines are UTF-8, which is seen in fewer steps than it is mended.
        let text = std::str::from_utf8(&self.kept)
            .map_or_else(|_| String::from_utf8_lossy(&self.kept), Cow::Borrowed);
        emit(Line { text, omitted_bytes: self.omitted });
        self.kept.clear();
        self.omitted = 0;
        self.last = 0;
    }
}

/// Length of `bytes` without a character that the cut left unfinished at its end.
fn whole_chars(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so only the last three can be an unfinished one.
    let from = bytes.len().saturating_sub(3);
    (from..bytes.len())
        .find(|at| {
            std::str::from_utf8(&bytes[*at..])
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(max: usize, parts: &[&[u8]]) -> Vec<(String, u64)> {
        let mut splitter = LineSplitter::new(max);
        let mut lines = Vec::new();
        for part in parts {
            splitter.push(part, |line| lines.push((line.text.into_owned(), line.omitted_bytes)));
            assert!(splitter.kept.len() <= max);
        }
        splitter.finish(|line| lines.push((line.text.into_owned(), line.omitted_bytes)));
        lines
    }

    fn line(text: &str, omitted: u64) -> (String, u64) {
        (text.to_owned(), omitted)
    }

    #[test]
    fn a_long_line_is_cut_and_its_neighbours_stay_whole() {
        let lines = split(4, &[b"ab\n123456", b"78", b"9\ncd\nef\n"]);
        assert_eq!(lines, [line("ab", 0), line("1234", 5), line("cd", 0), line("ef", 0)]);
    }

    #[test]
    fn line_ends_and_odd_bytes() {
        assert_eq!(split(9, &[b"a\r", b"\nb\r\n\r\n\n"]), ["a", "b", "", ""].map(|t| line(t, 0)));
        assert_eq!(split(9, &[b"no newline"]), [line("no newlin", 1)]);
        assert_eq!(split(2, &[b"ab\r\n"]), [line("ab", 0)]);
        assert_eq!(split(9, &[b"a\xffb\n"]), [line("a\u{fffd}b", 0)]);
        assert_eq!(split(4, &["abc\u{20ac}d\n".as_bytes()]), [line("abc", 4)]);
        assert_eq!(split(9, &[b"a\rb\n"]), [line("a\rb", 0)]);
        assert_eq!(split(9, &[b"", b""]), []);
    }

    /// Where a test's log goes.
    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic while locked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            let bytes = self.0.lock().expect("no panic while locked");
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    fn log_of(json: bool) -> String {
        let written = Written::default();
        let writer = written.clone();
        let builder =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let dispatch: tracing::Dispatch = if json {
            builder.json().flatten_event(true).finish().into()
        } else {
            builder.finish().into()
        };
        tracing::dispatcher::with_default(&dispatch, || {
            let task = "build-42".parse().expect("an id");
            let mut log = LineLog::new(task, Attempt(3), 8);
            log.push(Stream::Stdout, b"out\x1b[2J\n");
            log.push(Stream::Stderr, b"0123456789\nlast");
            log.finish();
        });
        written.text()
    }

    #[test]
    fn events_carry_task_attempt_stream_and_what_was_cut() {
        let log = log_of(true);
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let field = |at: usize, name: &str| lines[at][name].clone();
        assert_eq!(lines.len(), 3, "{log}");
        for at in 0..3 {
            assert_eq!(field(at, "target"), "runlane::task");
            assert_eq!((field(at, "task"), field(at, "attempt")), ("build-42".into(), 3.into()));
        }
        assert_eq!((field(0, "level"), field(0, "stream")), ("INFO".into(), "stdout".into()));
        assert_eq!((field(1, "level"), field(1, "stream")), ("WARN".into(), "stderr".into()));
        assert_eq!((field(1, "line"), field(1, "omitted_bytes")), ("01234567".into(), 2.into()));
        assert_eq!(
            (field(2, "line"), field(2, "omitted_bytes")),
            ("last".into(), serde_json::Value::Null)
        );
    }

    #[test]
    fn a_task_cannot_send_control_sequences_to_the_operators_terminal() {
        let log = log_of(false);
        assert!(log.contains("out") && !log.contains('\u{1b}'), "{log:?}");
    }

    proptest! {
        #[test]
        fn no_line_is_lost_wherever_the_reads_are_cut(
            lines in prop::collection::vec("[a-z]{0,12}", 0..12),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut parts, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (part, later) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = later;
            }
            let expected: Vec<_> = lines.iter()
                .map(|l| line(&l[..l.len().min(5)], l.len().saturating_sub(5) as u64))
                .collect();
            prop_assert_eq!(split(5, &parts), expected);
        }
    }
}
