//! What a leader says to its task-init through a pipe that execve closes.
//!
//! ```text
//! R pid            ready; execve follows, in the process with this id (four bytes, little endian)
//! R pid F frame    execve failed
//! F frame          the enclosure, or a step, failed
//! U                no program is wanted any more
//! nothing, or F    killed on the way
//! ```
//!
//! The leader runs in task-init's memory. After a word it changes nothing of that until it executes the
//! program or ends; `F` says that it does again, for the failure's text. So the memory is whole for
//! whoever reads a whole word here, and can't be trusted otherwise.

use std::io::{PipeReader, PipeWriter, Read, Write};

use super::super::link::{Setup, encode, read_frame};
use super::sys::sharing::leave;

const READY: u8 = b'R';
const FAILING: u8 = b'F';
const UNWANTED: u8 = b'U';

/// The leader's end of the pipe. If task-init can't read what is said here, it is dead, and so is the
/// leader soon.
pub(super) struct Word<'a>(pub(super) &'a PipeWriter);

impl Word<'_> {
    /// Says that execve follows.
    pub(super) fn ready(&self, pid: i32) {
        let [a, b, c, d] = pid.to_le_bytes();
        self.write(&[READY, a, b, c, d]);
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
    let mut ready = None;
    loop {
        let mut mark = [0];
        match pipe.read(&mut mark) {
            Ok(1) => {}
            _ => return ready,
        }
        match mark[0] {
            READY => {
                let mut pid = [0; 4];
                pipe.read_exact(&mut pid).ok()?;
                ready = Some(Setup::Ready { pid: i32::from_le_bytes(pid) });
            }
            UNWANTED => return Some(Setup::Unwanted),
            // A frame is written at once. So its first byte says that it is whole.
            _ => return failure(pipe),
        }
    }
}

fn failure(pipe: &mut PipeReader) -> Option<Setup> {
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
        assert_eq!(heard(|_| ()), None);
        assert_eq!(heard(|word| word.ready(7)), Some(Setup::Ready { pid: 7 }));
        assert_eq!(heard(|word| word.failing()), None);
        let exec_failed = |word: &Word<'_>| {
            word.ready(7);
            word.failing();
            word.write(&frame);
        };
        assert_eq!(heard(exec_failed), Some(failed()));
        let killed_while_failing = |word: &Word<'_>| {
            word.ready(7);
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
