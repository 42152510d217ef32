//! A `runlane worker` process of the bench's own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::BenchError;
use super::proc::{children_named, is_alive};
use crate::devserver::{Guard, LastLines};
use crate::exec::THIS_PROGRAM;
use crate::wire::WorkerId;

/// The name that a spawner gives itself.
const SPAWNER: &str = "runlane-spawner";
/// How long a worker may take to end by itself, before it is asked again and then killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the rest of a worker's processes may take to end after it.
const SPAWNER_TIME: Duration = Duration::from_secs(5);

/// How workers are started.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program; its `worker` verb is used.
    pub program: PathBuf,
    /// Arguments after `worker`, such as a configuration file.
    pub args: Vec<OsString>,
    /// Variables that are set or, without a value, removed.
    pub env: Vec<(OsString, Option<OsString>)>,
}

/// A worker process. Dropping it kills it; its tasks die with it.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pub(super) name: WorkerId,
    pub(super) pid: u32,
    child: Child,
    log: PathBuf,
    /// Ends it if this program is killed.
    _guard: Option<Guard>,
}

impl WorkerProcess {
    /// Starts a worker with so many places; its log goes into `dir`.
    pub(super) fn start(
        command: &WorkerCommand,
        dir: &Path,
        name: WorkerId,
        capacity: usize,
    ) -> Result<Self, BenchError> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(BenchError::Spawn)?;
        let mut process = Command::new(&command.program);
        process.args(["worker", "--name", name.as_str(), "--capacity", &capacity.to_string()]);
        process.args(&command.args);
        for (key, value) in &command.env {
            match value {
                Some(value) => process.env(key, value),
                None => process.env_remove(key),
            };
        }
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        // Ctrl-C reaches only us: it is ended by us, after what it works for.
        let child = process.process_group(0).kill_on_drop(true).spawn();
        let child = child.map_err(BenchError::Spawn)?;
        let pid = child.id().expect("a child that was not waited for has an id");
        let guard = Guard::over(Path::new(THIS_PROGRAM), &child);
        Ok(Self { name, pid, child, log, _guard: guard })
    }

    /// Its spawner, once it has one.
    pub(super) fn spawner(&self) -> Option<u32> {
        children_named(self.pid, SPAWNER).first().copied()
    }

    /// Whether it has ended by itself, which no worker of ours should.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().map_err(BenchError::Spawn)? {
            Some(status) => Err(self.failed(format!("ended by itself ({status})"))),
            None => Ok(()),
        }
    }

    /// An error with the end of the log.
    pub(super) fn failed(&self, what: String) -> BenchError {
        BenchError::Worker { what, log: LastLines::of(self.log.clone()).read() }
    }

    /// Ends it: politely, urgently, and by force. Returns when its spawner is gone too.
    pub(super) async fn stop(self) {
        self.end(&[PATIENCE, PATIENCE]).await;
    }

    /// Ends it by force, for want of a server that it could tell anything.
    pub(super) async fn kill(self) {
        self.end(&[]).await;
    }

    /// Asks it to end, and waits, as often as there are times to wait; then kills it.
    async fn end(mut self, waits: &[Duration]) {
        let spawner = self.spawner();
        for &wait in waits {
            // Not reaped, so the id is still its own.
            if self.child.id().is_some() {
                kill(pid(self.pid), Signal::SIGTERM).ok();
            }
            if timeout(wait, self.child.wait()).await.is_ok() {
                break;
            }
        }
        // Does nothing if it has ended.
        self.child.kill().await.ok();
        let deadline = Instant::now() + SPAWNER_TIME;
        while spawner.is_some_and(is_alive) && Instant::now() < deadline {
            sleep(Duration::from_millis(2)).await;
        }
    }
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("Linux process ids fit in i32"))
}
