//! The worker's end of a socket to the spawner or to a task-init.
//!
//! It is watched for what comes, and not for room: the kernel would say that there is some each time the
//! other end reads, and wake the worker for each order, word and signal that was taken. On a busy host that
//! worker then waits in line behind the very program that its word has started.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Room for what comes: most reports have a fifth of it.
const ROOM: usize = 1024;

/// The worker's end of a socket to the spawner or to a task-init.
///
/// tokio's own socket is watched for both. Its reading end of a pipe is watched for what comes only, and
/// does nothing that a socket has not.
#[derive(Debug)]
pub(super) struct Control(pipe::Receiver);

impl Control {
    /// A socket and its other end.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self(pipe::Receiver::from_owned_fd_unchecked(ours.into())?), theirs.into()))
    }

    /// Never waits: a byte fits into the socket's buffer, or task-init has hung for 200,000 of them.
    pub(super) fn send_byte(&self, byte: u8) -> io::Result<()> {
        send(self.0.as_raw_fd(), &[byte], MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Sends all bytes, with descriptors beside the first. Not cancel safe: only closing the socket undoes
    /// a part of it.
    pub(super) async fn send_all(
        &self,
        mut bytes: &[u8],
        with: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let numbers: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let mut rights = if numbers.is_empty() { &[] } else { &rights[..] };
        while !bytes.is_empty() {
            let (socket, part) = (self.0.as_raw_fd(), [IoSlice::new(bytes)]);
            match sendmsg::<()>(socket, &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(sent) => (bytes, rights) = (&bytes[sent..], &[]),
                Err(Errno::EAGAIN) => self.room().await?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits until there is room for more: seldom, for what is larger than the socket's buffer.
    async fn room(&self) -> io::Result<()> {
        let other = self.0.as_fd().try_clone_to_owned()?;
        pipe::Sender::from_owned_fd_unchecked(other)?.writable().await
    }

    /// Waits for bytes and appends them to a buffer. Returns how many; 0: the other end is closed. Cancel
    /// safe.
    pub(super) async fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.reserve(ROOM);
        self.0.read_buf(into).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::libc::{EPOLLIN, EPOLLOUT};

    use super::*;

    /// What a descriptor of this process is watched for, as the kernel lists it.
    fn watched_for(descriptor: RawFd) -> Vec<u32> {
        let mut events = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fdinfo").expect("there is a /proc") {
            let path = entry.expect("it can be listed").path();
            // Of the other descriptors, some may be closed by now.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let watched = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
            let mut words = watched.map(|line| line.split_whitespace().collect::<Vec<_>>());
            let found = words.find(|words| words[0] == descriptor.to_string());
            events.extend(found.map(|words| u32::from_str_radix(words[2], 16).expect("a number")));
        }
        events
    }

    #[tokio::test]
    async fn it_is_not_watched_for_room_which_each_read_of_the_other_end_makes() {
        let (control, _other) = Control::pair().expect("there are descriptors");
        let events = watched_for(control.0.as_raw_fd());
        let only_in =
            |events: &u32| events & (EPOLLIN | EPOLLOUT).cast_unsigned() == EPOLLIN.cast_unsigned();
        // Twice, where the runtime has two descriptors of its list.
        assert!(!events.is_empty() && events.iter().all(only_in), "{events:x?}");
    }

    #[tokio::test]
    async fn more_than_the_sockets_buffer_is_sent_whole_as_it_is_read() {
        let (control, other) = Control::pair().expect("there are descriptors");
        let bytes: Vec<u8> =
            (0..4 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
        let read = std::thread::spawn(move || {
            let mut read = Vec::new();
            UnixStream::from(other).read_to_end(&mut read).map(|_| read)
        });
        control.send_all(&bytes, &[]).await.expect("it is read");
        drop(control);
        assert!(read.join().expect("it reads").expect("it reads all") == bytes);
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_comes_before_it() {
        let (mut control, other) = Control::pair().expect("there are descriptors");
        UnixStream::from(other).write_all(b"all").expect("there is room");
        let mut received = Vec::new();
        while control.receive(&mut received).await.expect("it can be read") > 0 {}
        assert_eq!(received, b"all");
    }
}
