//! System calls that neither std nor nix wraps. With `capabilities`, `sharing` and `scheduling`, the only
//! place of the crate with `unsafe`.
#![allow(unsafe_code)]

pub(super) mod capabilities;
pub(super) mod scheduling;
pub(super) mod sharing;

use std::ffi::{CStr, CString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::process::{ExitStatus, Usage};
use crate::task::Namespaces;

/// The exit code of a forked process whose code panicked; 70 is EX_SOFTWARE of sysexits.h.
const PANICKED: i32 = 70;

/// A child that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChildEnd {
    pub(super) pid: i32,
    pub(super) status: ExitStatus,
    /// What it and those that it has waited for have used.
    pub(super) usage: Usage,
}

/// Which children are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Children {
    All,
    One(i32),
}

/// Forks a process that runs `child`, and never returns into the caller's code. Returns its id.
///
/// Only for a program with one thread: of several, the child would have one, and the others' locks.
pub(super) fn fork(child: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the program has one thread (`__task-init` starts none), so the child is a whole copy and
    // may run any code.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok(in_child(pid, child))
}

/// Forks as [`fork`] does, into new user and process id namespaces.
pub(super) fn fork_into(namespaces: Namespaces, child: impl FnOnce() -> i32) -> io::Result<i32> {
    let mut flags = libc::SIGCHLD;
    if namespaces.user {
        flags |= libc::CLONE_NEWUSER;
    }
    if namespaces.pid {
        flags |= libc::CLONE_NEWPID;
    }
    if flags == libc::SIGCHLD {
        return fork(child);
    }
    // SAFETY: as for `fork`: without CLONE_VM and with no stack of its own the child is a copy that goes
    // on here. What libc's fork does besides is for programs with several threads.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(in_child(i32::try_from(pid).unwrap_or(0), child))
}

/// Runs the child's code in the child, which leaves here, also after a panic: the parent's frames,
/// which the copy has too, are never entered again and their destructors don't run twice.
fn in_child(pid: i32, child: impl FnOnce() -> i32) -> i32 {
    if pid == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        // SAFETY: `_exit` takes any number and has no precondition.
        unsafe { libc::_exit(code) }
    }
    pid
}

/// Writes `0` to a `cgroup.procs` in a new process, which ends with that: tells whether a child of this
/// process can join the cgroup. Takes as long as the move does, some 20 ms.
pub(in crate::exec) fn join_in_child(procs: BorrowedFd<'_>) -> io::Result<()> {
    let descriptor = procs.as_raw_fd();
    // SAFETY: this process may have other threads, whose locks the child would have: it only calls write
    // and _exit and reads errno, which are async-signal-safe, and never returns.
    let pid = Errno::result(unsafe {
        match libc::fork() {
            0 => {
                let written = libc::write(descriptor, c"0".as_ptr().cast(), 1);
                libc::_exit(if written == 1 { 0 } else { Errno::last_raw() })
            }
            pid => pid,
        }
    })?;
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
            Ok(WaitStatus::Exited(_, errno)) => return Err(Errno::from_raw(errno).into()),
            Ok(_) => return Err(Errno::EINTR.into()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An extended attribute of a file, of at most 64 bytes.
///
/// # Errors
/// ENODATA when there is none that this process may see, ERANGE when it is longer.
pub(in crate::exec) fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0_u8; 64];
    // SAFETY: both strings end with a zero byte, and `value` is writable for the length that is given.
    let length = Errno::result(unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    })?;
    Ok(value[..length.cast_unsigned()].to_vec())
}

/// Takes the descriptor 0, which the worker put there, and leaves /dev/null in its place, so that
/// nothing can take it for standard input.
pub(super) fn take_stdin() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

/// Receives bytes, and the descriptors that came with them, at most two. 0 bytes: the other end has
/// closed.
///
/// # Errors
/// ENOBUFS when there was no room for all descriptors; those that came are then lost to this process.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut into = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut received = Vec::new();
    if message.bytes > 0 {
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                received.extend(descriptors.into_iter().map(|descriptor| {
                    // SAFETY: the kernel has opened it for this process in this call, and nobody
                    // else knows its number.
                    unsafe { OwnedFd::from_raw_fd(descriptor) }
                }));
            }
        }
    }
    Ok((message.bytes, received))
}

/// Closes every descriptor from 3 on, except those in `keep`. For a fresh process, whose other
/// descriptors belong to nobody, or to frames that it never returns to.
pub(super) fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep {
        if kept > first {
            close_range(first, kept - 1, 0)?;
        }
        first = first.max(kept + 1);
    }
    close_range(first, RawFd::MAX, 0)
}

/// Lets an execve close every descriptor from 3 on.
pub(super) fn close_on_exec() -> io::Result<()> {
    close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// The system call is Linux 5.9, its flag 5.11, and an old container runtime may forbid it.
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the numbers aren't pointers. The callers close only what no living frame owns, or set a
    // flag that matters at execve alone.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { close_each(first, last, flags) }
}

fn close_each(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // Collected first: reading the directory has a descriptor of its own.
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.collect::<Result<_, _>>()?;
    let numbers = names.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for descriptor in numbers.filter(|number| (first..=last).contains(number)) {
        // SAFETY: as in `close_range`. EBADF for the directory's own descriptor changes nothing.
        unsafe {
            if flags & libc::CLOSE_RANGE_CLOEXEC == 0 {
                libc::close(descriptor);
            } else {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    Ok(())
}

/// Gives every signal its default action.
pub(super) fn reset_signals() {
    // The kernel's struct sigaction, all zero: SIG_DFL, no flags, an empty mask. Not libc's function: it
    // refuses 32 and 33, which glibc keeps for its threads, and which a parent may have ignored.
    let default = [0_u64; 8];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `default` is longer than the struct, which is at most four words. SIG_DFL installs no
        // handler, so no code of ours can run in one. EINVAL for SIGKILL and SIGSTOP: nobody changes these.
        unsafe {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>())
        };
    }
}

/// Unblocks every signal.
pub(super) fn unblock_signals() -> io::Result<()> {
    // SAFETY: `sigset_t` is plain data that sigemptyset fills before sigprocmask reads it.
    let done = unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    Errno::result(done)?;
    Ok(())
}

/// Looks at a child that has ended, without reaping it. None: none of them has.
///
/// # Errors
/// ECHILD when there is no such child.
pub(super) fn peek(children: Children) -> io::Result<Option<ChildEnd>> {
    waitid(children, libc::WNOWAIT)
}

/// Reaps a child if it has ended.
pub(super) fn reap(pid: i32) -> io::Result<Option<ChildEnd>> {
    waitid(Children::One(pid), 0)
}

/// std and nix know no real-time signals in a child's status; a task may die of one. And libc's function
/// has no place for what the child has used.
fn waitid(children: Children, flags: libc::c_int) -> io::Result<Option<ChildEnd>> {
    let (kind, id) = match children {
        Children::All => (libc::P_ALL, 0),
        Children::One(pid) => (libc::P_PID, pid.cast_unsigned()),
    };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    let flags = flags | libc::WEXITED | libc::WNOHANG;
    // SAFETY: `info` and `used` are writable, of the types that the kernel fills, and live through the
    // call.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_waitid, kind, id, info.as_mut_ptr(), flags, used.as_mut_ptr())
    })?;
    // SAFETY: all zero is a valid siginfo_t, and waitid has filled it for SIGCHLD if it found a child,
    // which makes pid and status its readable fields; it leaves the pid at 0 if it found none. All zero
    // is a valid rusage too.
    let (pid, code, status, used) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_code, info.si_status(), used.assume_init())
    };
    let status = match code {
        libc::CLD_EXITED => ExitStatus::Exited(status),
        _ => ExitStatus::Signaled(status),
    };
    Ok((pid != 0).then_some(ChildEnd { pid, status, usage: usage(&used) }))
}

fn usage(used: &libc::rusage) -> Usage {
    let time = |time: libc::timeval| {
        let micros = TimeVal::from(time).num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Usage {
        user: time(used.ru_utime),
        system: time(used.ru_stime),
        // In KiB, says getrusage(2).
        max_rss_bytes: u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// Sends a signal by number to a process, or with a negative id to a group.
///
/// It fails when nobody is left, or for a number that is no signal; neither needs an answer.
pub(super) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes any two numbers.
    unsafe { libc::kill(pid, signal) };
}

/// What is changed of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MountAttribute {
    ReadOnly,
    Writable,
}

/// Makes a mount and all those below it read-only, or a mount alone writable: those below it may be
/// read-only for reasons of the host. Linux 5.12.
pub(super) fn set_mounts(path: &Path, attribute: MountAttribute) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let read_only = libc::MOUNT_ATTR_RDONLY;
    let (attr_set, attr_clr, flags) = match attribute {
        MountAttribute::ReadOnly => (read_only, 0, libc::AT_RECURSIVE),
        MountAttribute::Writable => (0, read_only, 0),
    };
    let attributes = libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 };
    // SAFETY: path and attributes live through the call, which writes to neither and is told the size of
    // the struct.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Switches the loopback interface of a new network namespace on.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of an ifreq, which lives through the call.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })?;
    Ok(())
}

/// The kernel's Landlock ABI, 1 or more.
///
/// # Errors
/// ENOSYS: it has no Landlock; EOPNOTSUPP: it was not enabled at boot.
pub(super) fn landlock_abi() -> io::Result<i32> {
    const VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no pointer and makes no descriptor.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    Ok(i32::try_from(Errno::result(abi)?).unwrap_or(i32::MAX))
}

/// Installs a system call filter.
pub(super) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from a slice that is that long, and writes none.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    Errno::result(done)?;
    Ok(())
}

/// Whether two processes use the same memory. None: that isn't told of others' processes.
pub(super) fn share_memory(one: i32, other: i32) -> Option<bool> {
    // Of linux/kcmp.h.
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) };
    (order >= 0).then_some(order == 0)
}
