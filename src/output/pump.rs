//! Pipes → chunks in a bounded channel: the backpressure between a program and whoever stores its output.
//!
//! * A full sink stops the reading; the pipe fills, and the program blocks in its write.
//! * A closed sink doesn't stop the task: the pipes are drained, and the totals say what was not delivered.
//! * Once all processes of the task are dead, what they wrote is in the pipe. If something else still
//!   holds a pipe open, reading ends after [`PumpSettings::idle_after_exit`] without a byte,
//!   [`PumpSettings::wait_after_exit`] of waiting in total, or [`PumpSettings::bytes_after_exit`] more
//!   bytes, and that stream reports `eof: false`. Waiting for the sink is not waiting for the pipe.
//!
//! Memory per task: two read buffers, two pending chunks, two tails ([`TAIL_BYTES`]), one read's worth
//! of ready chunks, and the sink's capacity times `chunk_max`. With the defaults and a sink of 2 that
//! is at most 1.5 MiB, and 0.4 MiB more while the pipes are grown, besides the two pipes in the kernel.
//! A task that writes less than can be stored has the read buffers and what it wrote within 5 ms; the
//! buffers have 4 KiB each until one read fills them.
//!
//! [`TAIL_BYTES`]: crate::task::plan::TAIL_BYTES

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::chunk::{Chunk, Chunker, ChunkerSettings, StreamTally};
use super::lines::LineLog;
use super::pipe::{Pipe, PipeEnd};
use crate::wire::{Stream, StreamTotals};

/// How the pump reads and when it gives up on a pipe that somebody else holds open.
#[derive(Debug, Clone, Copy)]
pub struct PumpSettings {
    /// How bytes are put together to chunks.
    pub chunks: ChunkerSettings,
    /// Time without a readable byte after the last process's end.
    pub idle_after_exit: Duration,
    /// Total time of waiting for bytes after the last process's end.
    pub wait_after_exit: Duration,
    /// Bytes of each stream that are read after the last process's end: the pipe's capacity.
    pub bytes_after_exit: u64,
}

impl PumpSettings {
    /// Uses the default limits after the exit: 2 s idle, 10 s waiting, 1 MiB (the largest pipe that an
    /// unprivileged process can ask for, see pipe(7)).
    pub fn new(chunks: ChunkerSettings) -> Self {
        Self {
            chunks,
            idle_after_exit: Duration::from_secs(2),
            wait_after_exit: Duration::from_secs(10),
            bytes_after_exit: 1024 * 1024,
        }
    }
}

/// What was read and delivered of both streams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PumpTotals {
    /// Standard output.
    pub stdout: PumpedStream,
    /// Standard error.
    pub stderr: PumpedStream,
}

impl PumpTotals {
    /// Returns one stream's part.
    pub fn stream(&self, stream: Stream) -> &PumpedStream {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

/// What was read and delivered of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PumpedStream {
    /// What was read, kept and left out by the cap.
    pub tally: StreamTally,
    /// Bytes that the sink took; less than the kept ones if it was closed.
    pub delivered_bytes: u64,
    /// Chunks that the sink took.
    pub delivered_chunks: u64,
    /// The stream was read to its end; `false` if something held the pipe open, or a read failed.
    pub eof: bool,
    /// The error that ended the reading.
    pub read_error: Option<String>,
}

impl PumpedStream {
    /// Builds the wire form from what the sink's reader stored of what was delivered.
    pub fn stored(&self, stored_bytes: u64, stored_chunks: u64) -> StreamTotals {
        self.tally.stored(stored_bytes, stored_chunks, self.eof)
    }
}

/// Reads both pipes to their ends and delivers chunks to `sink`. `leader_gone` is sent (or dropped)
/// when all processes of the task are dead. Returns when nothing more will come; never fails.
pub async fn pump(
    stdout: impl PipeEnd,
    stderr: impl PipeEnd,
    settings: PumpSettings,
    mut leader_gone: impl Future<Output = Result<(), oneshot::error::RecvError>> + Unpin,
    sink: mpsc::Sender<Chunk>,
    lines: Option<LineLog>,
) -> PumpTotals {
    let mut stdout = Pipe::new(stdout);
    let mut stderr = Pipe::new(stderr);
    let mut pump = Pump::new(settings, sink, lines);
    while pump.stdout.open || pump.stderr.open {
        let waiting_since = Instant::now();
        let coalesced = pump.chunker.deadline().map(Instant::from_std);
        let give_up = pump.exit.as_ref().map(|exit| exit.deadline(waiting_since));
        // Cancel safe: a read that is dropped has taken nothing, a oneshot and a sleep keep their state.
        let event = tokio::select! {
            read = stdout.read(), if pump.stdout.open => Event::Read(Stream::Stdout, read),
            read = stderr.read(), if pump.stderr.open => Event::Read(Stream::Stderr, read),
            () = at(coalesced), if coalesced.is_some() => Event::Coalesced,
            _ = &mut leader_gone, if pump.exit.is_none() => Event::Exited,
            () = at(give_up), if give_up.is_some() => Event::GiveUp,
        };
        pump.count_waiting(waiting_since.elapsed());
        match event {
            Event::Read(Stream::Stdout, read) => pump.read(Stream::Stdout, read, &stdout.buffer),
            Event::Read(Stream::Stderr, read) => pump.read(Stream::Stderr, read, &stderr.buffer),
            Event::Coalesced => pump.chunker.tick(now()),
            Event::Exited => {
                pump.exit = Some(Exit::new(settings));
                pump.read_what_is_there(Stream::Stdout, &mut stdout).await;
                pump.read_what_is_there(Stream::Stderr, &mut stderr).await;
            }
            Event::GiveUp => pump.give_up(),
        }
        pump.deliver().await;
    }
    pump.finish()
}

enum Event {
    Read(Stream, std::io::Result<usize>),
    Coalesced,
    Exited,
    GiveUp,
}

struct Pump {
    chunker: Chunker,
    sink: Option<mpsc::Sender<Chunk>>,
    lines: Option<LineLog>,
    stdout: Progress,
    stderr: Progress,
    exit: Option<Exit>,
}

struct Progress {
    open: bool,
    bytes_after_exit: u64,
    report: PumpedStream,
}

/// The time that is left after the last process's end.
struct Exit {
    settings: PumpSettings,
    waited: Duration,
}

impl Exit {
    fn new(settings: PumpSettings) -> Self {
        Self { settings, waited: Duration::ZERO }
    }

    fn deadline(&self, now: Instant) -> Instant {
        let total = self.settings.wait_after_exit.saturating_sub(self.waited);
        now + total.min(self.settings.idle_after_exit)
    }
}

impl Pump {
    fn new(settings: PumpSettings, sink: mpsc::Sender<Chunk>, lines: Option<LineLog>) -> Self {
        let progress =
            || Progress { open: true, bytes_after_exit: 0, report: PumpedStream::default() };
        Self {
            chunker: Chunker::new(settings.chunks),
            sink: Some(sink),
            lines,
            stdout: progress(),
            stderr: progress(),
            exit: None,
        }
    }

    fn progress(&mut self, stream: Stream) -> &mut Progress {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn count_waiting(&mut self, waited: Duration) {
        if let Some(exit) = &mut self.exit {
            exit.waited += waited;
        }
    }

    fn read(&mut self, stream: Stream, read: std::io::Result<usize>, buffer: &[u8]) {
        match read {
            Ok(0) => {
                self.progress(stream).report.eof = true;
                self.close(stream);
            }
            Ok(len) => self.take(stream, &buffer[..len]),
            Err(error) => {
                self.progress(stream).report.read_error = Some(error.to_string());
                self.close(stream);
            }
        }
    }

    /// Reads without waiting: nobody writes any more, and most pipes are empty and at their end.
    async fn read_what_is_there<R: PipeEnd>(&mut self, stream: Stream, pipe: &mut Pipe<R>) {
        while self.progress(stream).open
            && let Some(read) = pipe.read_now()
        {
            self.read(stream, read, &pipe.buffer);
            self.deliver().await;
        }
    }

    fn take(&mut self, stream: Stream, data: &[u8]) {
        self.chunker.push(stream, data, now());
        if let Some(lines) = &mut self.lines {
            lines.push(stream, data);
        }
        let Some(exit) = &mut self.exit else { return };
        let limit = exit.settings.bytes_after_exit;
        let progress = self.progress(stream);
        progress.bytes_after_exit += data.len() as u64;
        if progress.bytes_after_exit > limit {
            self.close(stream);
        }
    }

    fn give_up(&mut self) {
        for stream in Stream::ALL {
            if self.progress(stream).open {
                self.close(stream);
            }
        }
    }

    fn close(&mut self, stream: Stream) {
        self.progress(stream).open = false;
        self.chunker.close(stream, now());
    }

    /// Delivers what is ready. Waits while the sink is full: that is the backpressure.
    async fn deliver(&mut self) {
        while let Some(chunk) = self.chunker.pop() {
            let Some(sink) = &self.sink else { continue };
            let (stream, len) = (chunk.stream, chunk.data.len() as u64);
            if sink.send(chunk).await.is_ok() {
                let report = &mut self.progress(stream).report;
                report.delivered_bytes += len;
                report.delivered_chunks += 1;
            } else {
                tracing::debug!("output sink closed; draining the pipes");
                self.sink = None;
            }
        }
    }

    fn finish(mut self) -> PumpTotals {
        if let Some(lines) = self.lines.take() {
            lines.finish();
        }
        self.stdout.report.tally = self.chunker.tally(Stream::Stdout);
        self.stderr.report.tally = self.chunker.tally(Stream::Stderr);
        PumpTotals { stdout: self.stdout.report, stderr: self.stderr.report }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The clock of tokio, so that the tests' paused time holds here too.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests;
