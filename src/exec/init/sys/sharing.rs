//! A child process in this process's own memory, as posix_spawn(3) makes one: nothing is copied when it
//! starts, and nothing is torn down when it executes a program. But this process isn't suspended for
//! that time: it watches its worker.

use std::ffi::{CStr, CString, c_void};
use std::io::{self, PipeReader, PipeWriter};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{PANICKED, kill};

/// How long a child may take to see by itself that the worker is gone. One that is killed may have been
/// in the middle of a change of the memory.
const NOTICE: Duration = Duration::from_millis(100);

/// What a process looks at while a child has its memory.
pub(in crate::exec::init) struct Watched<'a> {
    /// The worker's socket, whose end asks the child to end.
    pub(in crate::exec::init) worker: BorrowedFd<'a>,
    /// Readable once a child has ended, or was stopped.
    pub(in crate::exec::init) ends: BorrowedFd<'a>,
    /// If there is one, this process sleeps on when the child has left its memory, until that child has ended
    /// or this is readable: then the program has the CPU to itself, which is all that most need.
    pub(in crate::exec::init) alarm: Option<BorrowedFd<'a>>,
}

/// Memory for the stack of a child.
pub(in crate::exec::init) struct Stack {
    base: NonNull<c_void>,
    bytes: usize,
}

impl Stack {
    /// Reserves so many bytes; they are used as the stack grows. An access below it ends the process.
    pub(in crate::exec::init) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses a place where nothing is.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        let base = NonNull::new(base).filter(|base| base.as_ptr() != libc::MAP_FAILED);
        let stack = Self { base: base.ok_or_else(io::Error::last_os_error)?, bytes };
        // SAFETY: the page is part of the mapping above, which nobody uses yet.
        Errno::result(unsafe { libc::mprotect(stack.base.as_ptr(), 4096, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// Where it begins: it grows downwards. Aligned as the ABIs ask for, since pages are.
    fn top(&self) -> *mut c_void {
        self.base.as_ptr().wrapping_byte_add(self.bytes)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; a child on it has left it, or `run` would not have returned.
        unsafe { libc::munmap(self.base.as_ptr(), self.bytes) };
    }
}

/// A child that has left this process's memory: it executes another program, or is dead.
pub(in crate::exec::init) struct Left {
    pub(in crate::exec::init) pid: i32,
    /// What the child has said can be read here, to the end.
    pub(in crate::exec::init) said: PipeReader,
    /// The worker closed its end in the meantime.
    pub(in crate::exec::init) worker_gone: bool,
}

/// Starts a child that shares this process's memory, but neither its descriptors nor its directory, and
/// returns when the child has left it, or some time later: see [`Watched::alarm`]. Until then this process does
/// nothing but wait for that, and for the end of the worker; then it gives the child a moment, and kills it.
///
/// The child gets a pipe that an execve closes, and what it says there is for the caller. **A child that
/// said nothing may have been killed while it changed the memory**, such as the heap: the caller's only
/// way on is [`execute`].
///
/// Only for a program with one thread, whose signals are all blocked.
///
/// # Errors
/// There is no process or descriptor left.
pub(in crate::exec::init) fn run<F: FnOnce(&PipeWriter) -> i32>(
    stack: &mut Stack,
    watched: &Watched<'_>,
    child: F,
) -> io::Result<Left> {
    let (said, writer) = io::pipe()?;
    let writer = writer.into_raw_fd();
    let mut run = Run { child: Some(child), writer };
    // SAFETY: `run` and the stack live in frames that stay until the child has left the memory, which is
    // what is waited for below. Two processes in one memory never run at once but for system calls that
    // this one makes on its own stack: poll, kill and close. Neither takes a lock, and both programs see
    // errno, which they share, changed by their own calls only: these succeed, or the child is dying.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        libc::clone(enter::<F>, stack.top(), flags, (&raw mut run).cast())
    };
    // SAFETY: the child has a descriptor table of its own, and the number is used nowhere else here.
    unsafe { libc::close(writer) };
    let pid = Errno::result(pid)?;
    let worker_gone = wait(pid, &said, watched);
    Ok(Left { pid, said, worker_gone })
}

struct Run<F> {
    child: Option<F>,
    writer: RawFd,
}

extern "C" fn enter<F: FnOnce(&PipeWriter) -> i32>(run: *mut c_void) -> libc::c_int {
    // SAFETY: `run` made it and waits until this process has left the memory; nobody else has it.
    let run = unsafe { &mut *run.cast::<Run<F>>() };
    // SAFETY: the number is open in this process's own table. It is never closed by a destructor.
    let writer = ManuallyDrop::new(unsafe { PipeWriter::from_raw_fd(run.writer) });
    let code = match run.child.take() {
        Some(child) => catch_unwind(AssertUnwindSafe(|| child(&writer))).unwrap_or(PANICKED),
        None => PANICKED,
    };
    leave(code)
}

/// Ends this process, and changes nothing of its memory any more.
pub(in crate::exec::init) fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and has no precondition.
    unsafe { libc::_exit(code) }
}

/// Waits until the pipe is closed: the kernel does that once the child has another memory, or none.
/// Returns whether the worker is gone.
fn wait(child: i32, said: &PipeReader, watched: &Watched<'_>) -> bool {
    let closed = |descriptor| PollFd::new(descriptor, PollFlags::empty());
    let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
    let ready = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(false);
    if let Some(alarm) = watched.alarm {
        let mut all = [readable(watched.ends), closed(watched.worker), readable(alarm)];
        // Whatever it was is found out below: also a child that was only stopped has this process signalled.
        poll(&mut all, PollTimeout::NONE).ok();
    }
    let mut worker_gone = false;
    let mut patience = PollTimeout::NONE;
    loop {
        // What is written to the pipe wakes nobody, only its end does: a process that woke beside a
        // child in the middle of execve would make the kernel move one of them to another CPU.
        let mut both = [closed(said.as_fd()), closed(watched.worker)];
        let count = if worker_gone { 1 } else { 2 };
        match poll(&mut both[..count], patience) {
            // It doesn't know of the end by itself, as in an execve from a dead network file system.
            Ok(0) => {
                kill(child, libc::SIGKILL);
                patience = PollTimeout::NONE;
            }
            Ok(_) if ready(&both[0]) => return worker_gone,
            Ok(_) if !worker_gone && ready(&both[1]) => {
                worker_gone = true;
                patience = PollTimeout::try_from(NOTICE).unwrap_or(PollTimeout::ZERO);
            }
            // The memory isn't ours alone, whatever the kernel lacks at the moment.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Strings in the form that execve takes, so that nothing has to be made for it at that time.
pub(in crate::exec::init) struct Strings {
    /// The pointers point into these.
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(in crate::exec::init) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]);
        Self { pointers: pointers.collect(), strings }
    }

    /// The length of the longest string, in bytes, without its final zero.
    pub(in crate::exec::init) fn longest(&self) -> usize {
        self.strings.iter().map(|string| string.as_bytes().len()).max().unwrap_or(0)
    }
}

/// Becomes another program. Returns only what failed, and touches no memory but errno.
pub(in crate::exec::init) fn execute(path: &CStr, args: &Strings, env: &Strings) -> Errno {
    // SAFETY: the strings live as long as their lists, which end with a null pointer each.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::last()
}

/// Puts a descriptor in the place of standard input, where an execve leaves it open.
pub(in crate::exec::init) fn as_stdin(descriptor: BorrowedFd<'_>) {
    // SAFETY: the numbers are open; nobody owns descriptor 0, which is /dev/null until then.
    unsafe { libc::dup2(descriptor.as_raw_fd(), 0) };
}
