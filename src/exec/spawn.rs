//! From a launch plan to a running process, by way of the spawner.

mod spares;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::errno::Errno;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use self::spares::Spares;
pub(super) use self::spares::{KEPT_PER_CORE, KINDS};
use super::armed::{self, Armed, Failure, Output, TakeOutput, Word};
use super::control::Control;
use super::launch_error::LaunchError;
use super::link::{ENTRY_ARGUMENT, Preparation, Start, VERSION, namespace_flags};
use super::process::TaskProcess;
use super::uid_pool::{UidLease, UidPools};
use crate::task::{Identity, LaunchPlan, Sandbox, UserIds};

/// This program's own file, also after it was replaced or removed, unlike what `current_exe` returns.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Launches tasks by way of one spawner process, which is started with the first launch, and again
/// after it died. Cheap to clone; the clones share the spawner.
///
/// *Spares*, which [`Spawner::prepare`] makes, wait for the next launches in a sandbox: a task-init and
/// a leader that are forked, and in their cgroup and namespaces, already.
///
/// Running tasks don't depend on the spawner: each has a socket of its own, and ends with its
/// [`TaskProcess`].
#[derive(Debug, Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    /// How many files a task may have open, if that isn't this process's own soft limit.
    open_files: Option<u64>,
    /// Held for the time of a spawn at most, never over an await.
    running: Mutex<Option<Running>>,
    spares: Spares,
    uids: UidPools,
}

#[derive(Debug)]
struct Running {
    socket: Arc<Control>,
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

/// The same without its output, which was taken before.
#[derive(Debug)]
pub struct Executed {
    /// The leader's process id, which is also its group's and its session's.
    pub pid: i32,
    /// When the program was executed.
    pub started_at: Timestamp,
    /// The task; dropping it kills it.
    pub process: TaskProcess,
}

impl Executed {
    pub(super) fn new(Start { pid, at_us }: Start, process: TaskProcess) -> Self {
        let started_at = Timestamp::from_microsecond(at_us).unwrap_or_else(|_| Timestamp::now());
        Self { pid, started_at, process }
    }
}

impl Spawner {
    /// Makes spawners of this program's own file, so that they can't be out of step with it.
    ///
    /// Only for programs whose `main` calls [`super::init::maybe_run`].
    pub fn of_this_program() -> Self {
        Self::of_program(Path::new(THIS_PROGRAM))
    }

    /// Makes spawners of another program, by its absolute path; its `main` calls
    /// [`super::init::maybe_run`].
    pub fn of_program(program: &Path) -> Self {
        let program = program.to_owned();
        Self { shared: Arc::new(Shared::new(program)) }
    }

    /// Sets how many spares wait for the next tasks of each kind of sandbox; 0 forks for each task.
    #[must_use]
    pub fn with_spares(self, spares: usize) -> Self {
        let (program, open_files) = (self.shared.program.clone(), self.shared.open_files);
        let spares = Spares::with(spares);
        Self { shared: Arc::new(Shared { spares, open_files, ..Shared::new(program) }) }
    }

    /// Sets how many files a process of a task may have open, unless its plan says otherwise; a task can
    /// raise that to this process's hard limit.
    #[must_use]
    pub fn with_open_files(self, limit: u64) -> Self {
        let program = self.shared.program.clone();
        let spares = Spares::with(self.shared.spares.enough);
        let open_files = Some(limit);
        Self { shared: Arc::new(Shared { spares, open_files, ..Shared::new(program) }) }
    }

    /// Makes the spares of a sandbox, up to their number, so that its next tasks find some. Needs a
    /// tokio runtime. It returns before they are ready, and their forks take as much CPU time as a
    /// launch without them: a good time is when a task runs, or none.
    ///
    /// # Errors
    /// The spawner can't be started or reached. Whether the enclosure can be made is known at the
    /// launch.
    pub async fn prepare(&self, sandbox: &Sandbox) -> Result<(), LaunchError> {
        let spares = &self.shared.spares;
        for _ in spares.get_ready(sandbox)..spares.enough {
            let mut process = self.start_init(&Preparation::of(sandbox)).await?;
            process.get_ready();
            spares.add(process, sandbox);
        }
        Ok(())
    }

    /// Makes a spare of the process of a task that has ended, which is cheaper than a new one; of any other
    /// it makes nothing. Returns whether there is a spare.
    ///
    /// It prepares for its task with [`Spawner::prepare`], or else when that is there: a later start, but a
    /// message and two wake-ups less.
    pub fn keep(&self, process: TaskProcess, sandbox: &Sandbox) -> bool {
        self.shared.spares.keep(process, sandbox)
    }

    /// Whether the next task in a sandbox finds a spare.
    pub fn has_spare(&self, sandbox: &Sandbox) -> bool {
        self.shared.spares.has(sandbox)
    }

    /// Ends the spares that no task has taken since the last trim, but for those of
    /// [`Spawner::prepare`]. To be called now and then.
    pub fn trim(&self) {
        self.shared.spares.trim();
    }

    /// Launches a task, and returns when its program was executed, and has either ended or run for some
    /// milliseconds. Needs a tokio runtime.
    ///
    /// Dropping the future kills what was started. It has no time limit of its own: executing a
    /// file on a dead network file system hangs, and only dropping the future ends that.
    ///
    /// # Errors
    /// With the step that failed; see [`LaunchError::is_permanent`].
    pub async fn launch(&self, plan: &LaunchPlan) -> Result<Launched, LaunchError> {
        let mut taken = None;
        let mut take = |output| taken = Some(output);
        let Executed { pid, started_at, process } =
            self.launch_at(plan, &Word::default(), &mut take).await?;
        let Output { stdout, stderr, .. } = taken.expect("it is handed over before the report");
        Ok(Launched { pid, started_at, stdout, stderr, process })
    }

    async fn launch_at(
        &self,
        plan: &LaunchPlan,
        word: &Word,
        take_output: TakeOutput<'_>,
    ) -> Result<Executed, LaunchError> {
        let Some((mut lease, plan)) = self.with_own_uid(plan)? else {
            return self.launch_as_is(plan, word, take_output).await;
        };
        let mut executed = self.launch_as_is(&plan, word, take_output).await;
        match &mut executed {
            Ok(executed) => executed.process.hold(lease),
            Err(LaunchError::Setup { .. }) => lease.task_is_gone(),
            Err(_) => {}
        }
        executed
    }

    /// Takes a user id for a task that is to have one of its own. None: it isn't.
    fn with_own_uid(
        &self,
        plan: &LaunchPlan,
    ) -> Result<Option<(UidLease, LaunchPlan)>, LaunchError> {
        let Some(Identity { user: ids @ UserIds::Pool { count, .. }, .. }) = plan.sandbox.identity
        else {
            return Ok(None);
        };
        let Some(lease) = self.shared.uids.take(ids) else {
            let message = format!("all {count} user ids of the pool are in use");
            return Err(LaunchError::Setup {
                step: "identity".to_owned(),
                errno: Errno::EAGAIN as i32,
                message,
            });
        };
        let mut plan = plan.clone();
        if let Some(identity) = &mut plan.sandbox.identity {
            identity.user = UserIds::One(lease.uid());
        }
        Ok(Some((lease, plan)))
    }

    async fn launch_as_is(
        &self,
        plan: &LaunchPlan,
        word: &Word,
        take_output: TakeOutput<'_>,
    ) -> Result<Executed, LaunchError> {
        let spare = self.shared.spares.take(&plan.sandbox);
        let new = async || self.start_init(&Preparation::of(&plan.sandbox)).await;
        let executed = match spare {
            // A spare may have failed or died while it waited. No plan was looked at then.
            Some(spare) => match armed::start(spare, plan, word, take_output).await {
                Err(Failure::NotEnclosed(_)) if word.may_be_given_again() => {
                    armed::start(new().await?, plan, word, take_output).await
                }
                other => other,
            },
            None => armed::start(new().await?, plan, word, take_output).await,
        };
        executed.map_err(Failure::into_error)
    }

    /// Has a spare do all of a task's setup but the last step, so that the rest of the launch takes less
    /// time. None: there is no spare, or the task needs a user id of its own. Dropping it ends what was
    /// set up.
    pub async fn arm(&self, plan: &LaunchPlan) -> Option<Armed> {
        let identity = plan.sandbox.identity.as_ref();
        if identity.is_some_and(|identity| matches!(identity.user, UserIds::Pool { .. })) {
            return None;
        }
        let spare = self.shared.spares.take(&plan.sandbox);
        armed::arm(spare?, plan, None).await.ok()
    }

    /// Launches a task that may have been set up before. As [`Spawner::launch`] of the same plan, but that its
    /// output is handed to `take_output` as soon as there may be some; if a try fails before the program is
    /// executed, that of the next one follows. `word` says meanwhile whether the program may have begun.
    ///
    /// # Errors
    /// As there.
    pub async fn launch_armed(
        &self,
        armed: Option<Armed>,
        plan: &LaunchPlan,
        word: &Word,
        mut take_output: impl FnMut(Output) + Send,
    ) -> Result<Executed, LaunchError> {
        let take = &mut take_output;
        let Some(armed) = armed else { return self.launch_at(plan, word, take).await };
        match armed.launch(word, take).await {
            Err(Failure::NotEnclosed(_)) if word.may_be_given_again() => {
                self.launch_at(plan, word, take).await
            }
            other => other.map_err(Failure::into_error),
        }
    }

    /// Has a task-init and a leader made, without waiting for them.
    async fn start_init(&self, preparation: &Preparation) -> Result<TaskProcess, LaunchError> {
        let (ours, theirs) = Control::pair().map_err(LaunchError::Pipes)?;
        self.hand_over(namespace_flags(preparation.enclosure.namespaces), &theirs).await?;
        drop(theirs);
        let is_reusable = namespace_flags(preparation.enclosure.namespaces) == 0;
        let process = TaskProcess::new(ours, is_reusable);
        // If it fails, the other end has closed, and whoever reads the first report learns why.
        process.send(preparation).await.ok();
        Ok(process)
    }

    /// Hands the other end to the spawner; once more to a new one if the first has died.
    async fn hand_over(&self, flags: u8, theirs: &OwnedFd) -> Result<(), LaunchError> {
        let fail = |source| LaunchError::Spawner { program: self.shared.program.clone(), source };
        let (request, theirs) = ([VERSION, flags], [theirs.as_fd()]);
        let socket = self.socket(None).map_err(fail)?;
        if socket.send_all(&request, &theirs).await.is_ok() {
            return Ok(());
        }
        let socket = self.socket(Some(&socket)).map_err(fail)?;
        socket.send_all(&request, &theirs).await.map_err(fail)
    }

    /// The socket of the running spawner, or of a new one if there is none but the dead one.
    fn socket(&self, dead: Option<&Arc<Control>>) -> io::Result<Arc<Control>> {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running
            && dead.is_none_or(|dead| !Arc::ptr_eq(dead, &running.socket))
        {
            return Ok(Arc::clone(&running.socket));
        }
        let new = Running::start(&self.shared.program, self.shared.open_files)?;
        let socket = Arc::clone(&new.socket);
        *running = Some(new);
        Ok(socket)
    }
}

impl Shared {
    fn new(program: PathBuf) -> Self {
        let (open_files, running) = (None, Mutex::default());
        let (spares, uids) = (Spares::default(), UidPools::default());
        Self { program, open_files, running, spares, uids }
    }
}

impl Running {
    fn start(program: &Path, open_files: Option<u64>) -> io::Result<Self> {
        let (ours, theirs) = Control::pair()?;
        let child = Command::new(program)
            .arg0("runlane")
            .arg(ENTRY_ARGUMENT)
            .args(open_files.map(|limit| limit.to_string()))
            // A task may read the environment of its parents: the worker's credentials stay here.
            .env_clear()
            .env("TMPDIR", std::path::absolute(std::env::temp_dir())?)
            .current_dir("/")
            // Out of the terminal's foreground group: Ctrl-C is the worker's to handle.
            .process_group(0)
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket: Arc::new(ours), _child: child })
    }
}
