//! One cgroup directory by its descriptor, so that mounts made later don't matter.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::parse;

/// How long a cgroup without `cgroup.kill` is killed process by process.
const KILL_EACH_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take until a killed cgroup that is removed has no process.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);

/// The most levels that are removed below a cgroup; a task may have made some of its own.
const DEPTH: usize = 64;

/// When events are first looked at without a report; each time after that is twice as long.
const FIRST_LOOK: Duration = Duration::from_micros(100);

/// A wait that would be longer than this is ended by a report alone; by then 12.7 ms have passed.
const LAST_LOOK: Duration = Duration::from_millis(12);

/// A cgroup.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        open(path, directory(), Mode::empty()).map(Self)
    }

    /// Makes a child cgroup.
    ///
    /// # Errors
    /// EEXIST, among others.
    pub(super) fn make(&self, name: &str, mode: Mode) -> Result<Self, Errno> {
        self.make_unopened(name, mode)?;
        self.child(name)
    }

    /// The same, for one that others may remove at once.
    pub(super) fn make_unopened(&self, name: &str, mode: Mode) -> Result<(), Errno> {
        mkdirat(&self.0, name, mode)
    }

    pub(super) fn child(&self, name: &str) -> Result<Self, Errno> {
        openat(&self.0, name, directory(), Mode::empty()).map(Self)
    }

    /// The names of the child cgroups.
    pub(super) fn children(&self) -> Result<Vec<String>, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = nix::dir::Dir::openat(&self.0, c".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type() == Some(Type::Directory) && name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(super) fn file(&self, name: &str, flags: OFlag) -> Result<File, Errno> {
        openat(&self.0, name, flags | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
    }

    /// A file's text.
    pub(super) fn read(&self, name: &str) -> Result<String, Errno> {
        let mut text = String::new();
        self.file(name, OFlag::O_RDONLY)?.read_to_string(&mut text).map_err(errno)?;
        Ok(text)
    }

    /// Writes in one go: the kernel takes each write as a whole value.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Errno> {
        let length = self.file(name, OFlag::O_WRONLY)?.write(text.as_bytes()).map_err(errno)?;
        if length == text.len() { Ok(()) } else { Err(Errno::EIO) }
    }

    /// The processes in it, not those of its children. 0 is one that has no number in this process's
    /// pid namespace.
    pub(super) fn processes(&self) -> Result<Vec<i32>, Errno> {
        Ok(self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process in it and below.
    pub(super) fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(Errno::ENOENT) => self.kill_each(),
            done => Ok(done?),
        }
    }

    /// For kernels before 5.14: frozen processes don't fork, and SIGKILL reaches them.
    pub(super) fn kill_each(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_EACH_LIMIT;
        let frozen = match self.write("cgroup.freeze", "1") {
            Ok(()) => self.wait_for("frozen", 1, KILL_EACH_LIMIT / 5).map(drop),
            // Before 5.2 it can't be frozen: whoever forks faster than this loop wins.
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let mut killed = frozen.and_then(|()| self.signal_each(DEPTH).map_err(io::Error::from));
        // Again for one that wasn't frozen in time.
        while killed.is_ok() && !self.wait_empty(Duration::from_millis(20))? {
            if Instant::now() > deadline {
                killed = Err(Errno::ETIMEDOUT.into());
                break;
            }
            killed = self.signal_each(DEPTH).map_err(io::Error::from);
        }
        match self.write("cgroup.freeze", "0") {
            Ok(()) | Err(Errno::ENOENT) => killed,
            Err(error) => killed.and(Err(error.into())),
        }
    }

    fn signal_each(&self, depth: usize) -> Result<(), Errno> {
        // 0 would be this process's own group.
        for pid in self.processes()?.into_iter().filter(|pid| *pid > 0) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        let below = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
        self.children()?.iter().try_for_each(|name| self.child(name)?.signal_each(below))
    }

    /// Waits until neither it nor a cgroup below it has a process. False: not within the limit.
    pub(super) fn wait_empty(&self, limit: Duration) -> io::Result<bool> {
        self.wait_for("populated", 0, limit)
    }

    /// Waits until a key of `cgroup.events` has a value. The kernel reports a change of the file as
    /// POLLPRI to those who have read it before, but not a second one within 10 ms of the first (see
    /// CGROUP_FILE_NOTIFY_MIN_INTV of its cgroup.c): in that time it is also looked at unasked, a few
    /// times, ever less often.
    fn wait_for(&self, key: &str, wanted: u64, limit: Duration) -> io::Result<bool> {
        let events = self.file("cgroup.events", OFlag::O_RDONLY)?;
        let deadline = Instant::now() + limit;
        let mut look_again = FIRST_LOOK;
        loop {
            let mut text = [0; 256];
            let length = events.read_at(&mut text, 0)?;
            let text = String::from_utf8_lossy(&text[..length]);
            if parse::value(&text, key) == Some(wanted) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let wait = if look_again < LAST_LOOK { left.min(look_again) } else { left };
            look_again *= 2;
            let mut change = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            match ppoll(&mut change, Some(TimeSpec::from_duration(wait)), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes a child cgroup, and if it isn't empty, all that is in it and below.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self.remove_empty(name) {
            Err(Errno::EBUSY) => {}
            done => return Ok(done?),
        }
        let child = match self.child(name) {
            Err(Errno::ENOENT) => return Ok(()),
            opened => opened?,
        };
        child.kill()?;
        if !child.wait_empty(EMPTY_LIMIT)? {
            return Err(Errno::EBUSY.into());
        }
        child.remove_below(DEPTH)?;
        Ok(self.remove_empty(name)?)
    }

    /// Removes the empty cgroups below it, the deepest first.
    fn remove_below(&self, depth: usize) -> Result<(), Errno> {
        let below = depth.checked_sub(1).ok_or(Errno::ELOOP)?;
        for name in self.children()? {
            self.child(&name)?.remove_below(below)?;
            self.remove_empty(&name)?;
        }
        Ok(())
    }

    pub(super) fn remove_empty(&self, name: &str) -> Result<(), Errno> {
        match unlinkat(&self.0, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            done => done,
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn directory() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
#[path = "dir_tests.rs"]
mod tests;
