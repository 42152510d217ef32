//! What a leader says to its task-init through a pipe that execve closes.
//!
//! ```text
//! R pid at         ready; execve follows, in the process with this id (four bytes, little endian), at this time
//!                  (eight bytes, microseconds since 1970)
//! R pid at F frame execve failed
//! F frame          the enclosure, or a step, failed
//! U                no program is wanted any more
//! nothing, or F    killed on the way
//! ```
//!
//! The leader runs in task-init's memory. After a word it changes nothing of that until it executes the
//! program or ends; `F` says that it does again, for the failure's text. So the memory is whole for
//! whoever reads a whole word here, and can't be trusted otherwise.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::ops::Range;

use super::super::link::{Setup, Start, encode, read_frame};
use super::sys::sharing::leave;

const READY: u8 = b'R';
const FAILING: u8 = b'F';
const UNWANTED: u8 = b'U';

/// The leader's end of the pipe. If task-init can't read what is said here, it is dead, and so is the
/// leader soon.
pub(super) struct Word<'a>(pub(super) &'a PipeWriter);

impl Word<'_> {
    /// Says that execve follows.
    pub(super) fn ready(&self, Start { pid, at_us }: Start) {
        // One write, and nothing of it on the heap.
        let mut word = [READY; 1 + 4 + 8];
        word[1..5].copy_from_slice(&pid.to_le_bytes());
        word[5..].copy_from_slice(&at_us.to_le_bytes());
        self.write(&word);
    }

    /// Says that execve failed, and that the reason follows.
    pub(super) fn failing(&self) {
        self.write(&[FAILING]);
    }

    /// Says what failed, after [`Self::failing`], and ends the process.
    pub(super) fn failed(&self, failure: &Setup) -> ! {
        let frame = encode(failure).unwrap_or_default();
        self.write(&frame);
        leave(1)
    }

    /// Says that no program is wanted any more, and ends the process.
    pub(super) fn unwanted(&self) -> ! {
        self.write(&[UNWANTED]);
        leave(0)
    }

    fn write(&self, bytes: &[u8]) {
        let mut pipe = self.0;
        pipe.write_all(bytes).ok();
    }
}

/// What a leader said last, when its end of the pipe is closed. None: it was killed on the way, and the
/// memory can't be trusted; nothing was changed in it here.
pub(super) fn last(pipe: &mut PipeReader) -> Option<Setup> {
    let pipe = &mut Closed { pipe, buffer: [0; 64], unread: 0..0, is_at_end: false };
    let mut ready = None;
    loop {
        let mut mark = [0];
        match pipe.read(&mut mark) {
            Ok(1) => {}
            _ => return ready,
        }
        match mark[0] {
            READY => {
                let (mut pid, mut at) = ([0; 4], [0; 8]);
                pipe.read_exact(&mut pid).ok()?;
                pipe.read_exact(&mut at).ok()?;
                let (pid, at_us) = (i32::from_le_bytes(pid), i64::from_le_bytes(at));
                ready = Some(Setup::Ready(Start { pid, at_us }));
            }
            UNWANTED => return Some(Setup::Unwanted),
            // A frame is written at once. So its first byte says that it is whole.
            _ => return failure(pipe),
        }
    }
}

/// A pipe that nobody writes to any more, so that a read which doesn't fill the buffer was the last one.
struct Closed<'a> {
    pipe: &'a mut PipeReader,
    /// On the stack. Most words fit into it.
    buffer: [u8; 64],
    unread: Range<usize>,
    is_at_end: bool,
}

impl Read for Closed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && !self.is_at_end {
            let length = self.pipe.read(&mut self.buffer)?;
            self.unread = 0..length;
            self.is_at_end = length < self.buffer.len();
        }
        let length = into.len().min(self.unread.len());
        let end = self.unread.start + length;
        into[..length].copy_from_slice(&self.buffer[self.unread.start..end]);
        self.unread.start = end;
        Ok(length)
    }
}

fn failure(pipe: &mut Closed<'_>) -> Option<Setup> {
    let mut first = [0];
    match pipe.read(&mut first) {
        Ok(1) => read_frame((&first[..]).chain(pipe)).ok().flatten(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::exec::init::command;

    fn heard(say: impl FnOnce(&Word<'_>)) -> Option<Setup> {
        let (mut reader, writer) = std::io::pipe().expect("there are descriptors");
        say(&Word(&writer));
        drop(writer);
        last(&mut reader)
    }

    #[test]
    fn a_done_setup_a_failed_one_and_a_death_differ() {
        let failed = || Setup::Failed(command::failure("exec", Errno::ENOENT, "no".to_owned()));
        let frame = encode(&failed()).expect("it is JSON");
        let start = Start { pid: 7, at_us: -9 };
        assert_eq!(heard(|_| ()), None);
        assert_eq!(heard(|word| word.ready(start)), Some(Setup::Ready(start)));
        assert_eq!(heard(|word| word.failing()), None);
        let exec_failed = |word: &Word<'_>| {
            word.ready(start);
            word.failing();
            word.write(&frame);
        };
        assert_eq!(heard(exec_failed), Some(failed()));
        let killed_while_failing = |word: &Word<'_>| {
            word.ready(start);
            word.failing();
        };
        assert_eq!(heard(killed_while_failing), None);
        let step_failed = |word: &Word<'_>| {
            word.failing();
            word.write(&frame);
        };
        assert_eq!(heard(step_failed), Some(failed()));
        assert_eq!(heard(|word| word.write(&[UNWANTED])), Some(Setup::Unwanted));
    }
}
