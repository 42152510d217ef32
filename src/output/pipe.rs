//! The reading end of a task's pipe. A task that keeps its pipe full gets a larger one.
//!
//! A pipe of 64 KiB that is full wakes the writer and the reader for every 64 KiB. After four full reads
//! in a row it is made 256 KiB large, and read in steps of that. At most 64 of a process are at a time,
//! because the kernel limits what all pipes of a user hold (`pipe-user-pages-soft`, 64 MiB) and makes new
//! ones tiny beyond that, see pipe(7).

use std::io;

use bytes::BufMut as _;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Size of the first read buffer, in bytes. Most tasks write less; one that fills it gets a larger one.
const FIRST_READ: usize = 4 * 1024;
/// Size of a read buffer, in bytes: what a pipe holds by default.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// Size of a pipe that a task keeps full, and of its read buffer, in bytes.
pub(super) const GROWN_BYTES: usize = 256 * 1024;
/// Full reads in a row after which a pipe is grown.
const FULL_READS: u32 = 4;
/// Pipes of this process that are grown at a time.
const GROWN_PIPES: usize = 64;

static GROWN: Semaphore = Semaphore::const_new(GROWN_PIPES);

/// Something to read that may be a pipe.
pub trait PipeEnd: AsyncRead + Unpin {
    /// Makes the pipe so many bytes large; says whether it is.
    fn grow(&self, bytes: usize) -> bool;

    /// Appends what is there, as far as the buffer has room, and doesn't ask the runtime whether something is.
    fn read_now(&self, _into: &mut Vec<u8>) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl PipeEnd for pipe::Receiver {
    fn grow(&self, bytes: usize) -> bool {
        // EPERM past the user's limits: then it stays as it is.
        let size = i32::try_from(bytes).expect("a pipe's size is small");
        fcntl(self, FcntlArg::F_SETPIPE_SZ(size)).is_ok()
    }

    fn read_now(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::read(self, rustix::buffer::spare_capacity(into))?)
    }
}

impl<R: PipeEnd> PipeEnd for &mut R {
    fn grow(&self, bytes: usize) -> bool {
        (**self).grow(bytes)
    }

    fn read_now(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        (**self).read_now(into)
    }
}

/// A pipe and its read buffer.
pub(super) struct Pipe<R> {
    reader: R,
    pub(super) buffer: Vec<u8>,
    /// How much is read at once.
    step: usize,
    full_reads: u32,
    grown: Option<SemaphorePermit<'static>>,
}

impl<R: PipeEnd> Pipe<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), step: FIRST_READ, full_reads: 0, grown: None }
    }

    /// Reads into the buffer; returns how much. Cancel safe.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        self.buffer.clear();
        self.buffer.reserve(self.step);
        let len = self.reader.read_buf(&mut (&mut self.buffer).limit(self.step)).await?;
        if len < self.step {
            self.full_reads = 0;
        } else if self.step < READ_BUFFER {
            self.step = READ_BUFFER;
        } else {
            self.full_reads += 1;
        }
        if self.full_reads == FULL_READS && self.grown.is_none() {
            self.grow();
        }
        Ok(len)
    }

    /// The same with what is there now. None: the runtime knows when there is more.
    pub(super) fn read_now(&mut self) -> Option<io::Result<usize>> {
        self.buffer.clear();
        self.buffer.reserve(self.step);
        let read = self.reader.read_now(&mut self.buffer);
        let is_to_wait = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        };
        (!read.as_ref().is_err_and(is_to_wait)).then_some(read)
    }

    fn grow(&mut self) {
        // Others have grown: the next row of full reads asks again.
        self.full_reads = 0;
        let Ok(permit) = GROWN.try_acquire() else { return };
        if self.reader.grow(GROWN_BYTES) {
            self.grown = Some(permit);
            self.step = GROWN_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::OwnedFd;

    use super::*;

    fn capacity(pipe: &Pipe<pipe::Receiver>) -> usize {
        let size = fcntl(&pipe.reader, FcntlArg::F_GETPIPE_SZ).expect("a pipe");
        usize::try_from(size).expect("no negative size")
    }

    /// Lets a program write so much as fast as it can, and reads it.
    async fn read_all(bytes: usize) -> (Pipe<pipe::Receiver>, Vec<u8>) {
        let (sender, receiver) = pipe::pipe().expect("a pipe");
        let fd: OwnedFd = sender.into_blocking_fd().expect("a blocking end");
        let mut file = std::fs::File::from(fd);
        let data: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let writer = std::thread::spawn(move || file.write_all(&data));
        let mut pipe = Pipe::new(receiver);
        let mut all = Vec::new();
        loop {
            match pipe.read().await.expect("readable") {
                0 => break,
                len => all.extend_from_slice(&pipe.buffer[..len]),
            }
            // The writer fills the pipe meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        writer.join().expect("no panic").expect("all is read");
        (pipe, all)
    }

    #[tokio::test]
    async fn a_pipe_that_is_kept_full_grows_and_keeps_every_byte() {
        let (pipe, all) = read_all(3_000_000).await;
        assert_eq!(capacity(&pipe), GROWN_BYTES);
        assert_eq!(pipe.step, GROWN_BYTES);
        assert!(all.len() == 3_000_000);
        assert!(all.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at % 251));
    }

    #[tokio::test]
    async fn a_pipe_that_has_little_stays_as_it_is() {
        let (pipe, all) = read_all(150_000).await;
        assert_eq!((capacity(&pipe), all.len()), (READ_BUFFER, 150_000));
        assert!(pipe.grown.is_none());
    }

    #[tokio::test]
    async fn a_read_buffer_is_small_until_it_is_filled() {
        for (bytes, buffer) in [(0, FIRST_READ), (100, FIRST_READ), (50_000, READ_BUFFER)] {
            let (pipe, all) = read_all(bytes).await;
            assert_eq!((pipe.buffer.capacity(), all.len()), (buffer, bytes));
        }
    }
}
