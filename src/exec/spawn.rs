//! From a launch plan to a running process, by way of the spawner.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::link::{ENTRY_ARGUMENT, Report, SetupFailure, VERSION};
use super::process::{ProcessError, TaskProcess};
use crate::task::LaunchPlan;

/// Launches tasks by way of one spawner process, which is started with the first launch, and again
/// after it died. Cheap to clone; the clones share the spawner.
///
/// Running tasks don't depend on it: each has a socket of its own, and ends with its [`TaskProcess`].
#[derive(Debug, Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    /// Held for the time of a spawn at most, never over an await.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: Arc<UnixStream>,
    /// Tokio's list of orphans reaps it after it is dropped. Dropping the socket is what ends it.
    _child: Child,
}

/// A task whose leader executes the plan's program.
#[derive(Debug)]
pub struct Launched {
    /// The leader's process id, which is also its group's and its session's.
    pub pid: i32,
    /// When the program was executed.
    pub started_at: Timestamp,
    /// The reading end of standard output. Its end comes when the last process that holds the other
    /// end is gone.
    pub stdout: pipe::Receiver,
    /// The reading end of standard error.
    pub stderr: pipe::Receiver,
    /// The task; dropping it kills it.
    pub process: TaskProcess,
}

/// Why a task could not be launched. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Pipes or sockets could not be made.
    #[error("{}: cannot make pipes", self.step())]
    Pipes(#[source] io::Error),
    /// The spawner could not be started, or reached.
    #[error("{}: cannot reach {}", self.step(), program.display())]
    Spawner {
        /// The spawner's program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spawner or the task-init died before it could say how the launch went.
    #[error("{}: ended before the task was started", self.step())]
    Interrupted(#[source] ProcessError),
    /// A step of the task's setup failed.
    #[error("{step}: {message}")]
    Setup {
        /// The step's name: `script`, `fork`, `setsid`, `chdir`, `stdio`, `exec`, …
        step: String,
        /// The system's error number.
        errno: i32,
        /// What happened to which path, with the system's reason.
        message: String,
    },
}

impl LaunchError {
    /// The name of the step that failed, for the outcome.
    pub fn step(&self) -> &str {
        match self {
            Self::Pipes(_) => "pipe",
            Self::Spawner { .. } | Self::Interrupted(_) => "spawner",
            Self::Setup { step, .. } => step,
        }
    }

    /// Whether the same plan would fail again here: not found, permission, not a directory, is a
    /// directory, bad executable format, argument list too long, read-only file system, invalid
    /// input, name too long, too many symbolic links. Everything else may pass, and so may any failure
    /// to write a script's file, which is the host's and not the task's.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Pipes(_) | Self::Spawner { .. } | Self::Interrupted(_) => false,
            Self::Setup { step, errno, .. } => {
                step != "script" && is_permanent(Errno::from_raw(*errno))
            }
        }
    }
}

fn is_permanent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT
            | Errno::EACCES
            | Errno::EPERM
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOEXEC
            | Errno::E2BIG
            | Errno::EROFS
            | Errno::EINVAL
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
    )
}

impl From<SetupFailure> for LaunchError {
    fn from(SetupFailure { step, errno, message }: SetupFailure) -> Self {
        Self::Setup { step, errno, message }
    }
}

impl Spawner {
    /// Makes spawners of this program's own file, so that they can't be out of step with it.
    ///
    /// Only for programs whose `main` calls [`super::init::maybe_run`].
    pub fn of_this_program() -> Self {
        // Also after the file was replaced or removed, unlike what `current_exe` returns.
        Self::of_program(Path::new("/proc/self/exe"))
    }

    /// Makes spawners of another program, by its absolute path; its `main` calls
    /// [`super::init::maybe_run`].
    pub fn of_program(program: &Path) -> Self {
        let program = program.to_owned();
        Self { shared: Arc::new(Shared { program, running: Mutex::new(None) }) }
    }

    /// Launches a task, and returns when its program is executed. Needs a tokio runtime.
    ///
    /// Dropping the future kills what was started. It has no time limit of its own: executing a
    /// file on a dead network file system hangs, and only dropping the future ends that.
    ///
    /// # Errors
    /// With the step that failed; see [`LaunchError::is_permanent`].
    pub async fn launch(&self, plan: &LaunchPlan) -> Result<Launched, LaunchError> {
        let (ours, theirs) = ends().map_err(LaunchError::Pipes)?;
        self.hand_over(&theirs).await?;
        drop(theirs);
        let mut process = ours.process;
        // If it fails, the other end has closed and the report, or its absence, says why.
        let sent = process.send_plan(plan).await;
        match process.report().await.map_err(LaunchError::Interrupted)? {
            Report::Started { pid } => {
                let started_at = Timestamp::now();
                Ok(Launched { pid, started_at, stdout: ours.stdout, stderr: ours.stderr, process })
            }
            Report::SetupFailed(failure) => Err(failure.into()),
            Report::Ended { .. } => {
                let error = sent.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into());
                Err(LaunchError::Interrupted(ProcessError::Control(error)))
            }
        }
    }

    /// Hands the other ends to the spawner; once more to a new one if the first has died.
    async fn hand_over(&self, theirs: &Theirs) -> Result<(), LaunchError> {
        let fail = |source| LaunchError::Spawner { program: self.shared.program.clone(), source };
        let socket = self.socket(None).map_err(fail)?;
        if send(&socket, theirs).await.is_ok() {
            return Ok(());
        }
        let socket = self.socket(Some(&socket)).map_err(fail)?;
        send(&socket, theirs).await.map_err(fail)
    }

    /// The socket of the running spawner, or of a new one if there is none but the dead one.
    fn socket(&self, dead: Option<&Arc<UnixStream>>) -> io::Result<Arc<UnixStream>> {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running
            && dead.is_none_or(|dead| !Arc::ptr_eq(dead, &running.socket))
        {
            return Ok(Arc::clone(&running.socket));
        }
        let new = Running::start(&self.shared.program)?;
        let socket = Arc::clone(&new.socket);
        *running = Some(new);
        Ok(socket)
    }
}

impl Running {
    fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(ours)?);
        let child = Command::new(program)
            .arg0("runlane")
            .arg(ENTRY_ARGUMENT)
            // A task may read the environment of its parents: the worker's credentials stay here.
            .env_clear()
            .env("TMPDIR", std::path::absolute(std::env::temp_dir())?)
            .current_dir("/")
            // Out of the terminal's foreground group: Ctrl-C is the worker's to handle.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket, _child: child })
    }
}

/// What the worker keeps of a new task's descriptors.
struct Ours {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    process: TaskProcess,
}

/// What its task-init gets.
struct Theirs {
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn ends() -> io::Result<(Ours, Theirs)> {
    let (control, theirs) = StdUnixStream::pair()?;
    control.set_nonblocking(true)?;
    let (stdout, their_stdout) = io::pipe()?;
    let (stderr, their_stderr) = io::pipe()?;
    let ours = Ours {
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        process: TaskProcess::new(UnixStream::from_std(control)?),
    };
    let theirs =
        Theirs { control: theirs.into(), stdout: their_stdout.into(), stderr: their_stderr.into() };
    Ok((ours, theirs))
}

/// Sends a request. Cancel safe: it is one byte, sent or not.
async fn send(socket: &UnixStream, theirs: &Theirs) -> io::Result<()> {
    let descriptors = [&theirs.control, &theirs.stdout, &theirs.stderr].map(AsRawFd::as_raw_fd);
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let request = [IoSlice::new(&[VERSION])];
    let once =
        || sendmsg::<()>(socket.as_raw_fd(), &request, &rights, MsgFlags::MSG_NOSIGNAL, None);
    socket.async_io(Interest::WRITABLE, || Ok(once()?)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(step: &str, errno: Errno) -> LaunchError {
        LaunchError::Setup { step: step.to_owned(), errno: errno as i32, message: String::new() }
    }

    #[test]
    fn errors_of_the_plan_are_permanent_and_those_of_the_host_pass() {
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOTDIR, Errno::EISDIR, Errno::ENOEXEC] {
            assert!(setup("exec", errno).is_permanent(), "{errno}");
        }
        for errno in [Errno::E2BIG, Errno::EROFS, Errno::EINVAL, Errno::ENAMETOOLONG, Errno::ELOOP]
        {
            assert!(setup("chdir", errno).is_permanent(), "{errno}");
        }
        for errno in
            [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::EIO, Errno::EINTR]
        {
            assert!(!setup("exec", errno).is_permanent(), "{errno}");
        }
        assert!(!setup("script", Errno::EROFS).is_permanent());
    }
}
