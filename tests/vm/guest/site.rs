//! The product as its users have it: a real nats-server, `runlane worker` processes and the command line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::devserver::{DevServer, DevServerOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::tasks::{RUNLANE, until};

/// Who a process is started as, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) uid: u32,
    /// The cgroup's directory.
    pub(super) cgroup: &'a Path,
}

impl Start<'static> {
    /// As root, where the suite is.
    pub(super) fn plain() -> Self {
        Self { uid: 0, cgroup: Path::new("/sys/fs/cgroup/suite") }
    }
}

impl Start<'_> {
    /// The command of a program; without arguments yet.
    pub(super) fn command(self, program: &str) -> Command {
        let mut command = Command::new("/bin/vm");
        command.args(["__helper", "start", &self.uid.to_string()]).arg(self.cgroup).arg(program);
        command
    }
}

/// A server, and a directory for its workers' files.
pub(super) struct Site {
    server: DevServer,
    dir: TempDir,
}

impl Site {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // A worker of another user reads its configuration there.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).expect("it is ours");
        let options = DevServerOptions::new("/bin/nats-server", dir.path().join("nats"));
        let server = DevServer::start(options).await.expect("nats-server starts");
        Self { server, dir }
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// The binary, with nothing of the environment that could change what it does.
    fn runlane(&self, args: &[&str]) -> Command {
        let mut command = Command::new(RUNLANE);
        command.args(args).env_clear().env("PATH", "/bin").env("HOME", "/tmp");
        command.env("NATS_URL", self.server.url()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts a worker and waits until it takes tasks, or has ended.
    pub(super) async fn worker(&self, name: &str, config: &str, start: Start<'_>) -> Worker {
        let path = self.dir.path().join(format!("{name}.toml"));
        fs::write(&path, config).expect("the file is written");
        let log = self.dir.path().join(format!("{name}.log"));
        let mut command = start.command(RUNLANE);
        command.args(["worker", "--name", name, "--capacity", "4", "--config"]).arg(path);
        command
            .env_clear()
            .env("PATH", "/bin")
            .env("HOME", "/tmp")
            .env("NATS_URL", self.server.url());
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(File::create(&log).expect("the log is made"));
        let mut worker = Worker { child: command.spawn().expect("it can be started"), log };
        until("the worker serves or ends", || {
            worker.log().contains("serving a lane") || worker.has_ended()
        })
        .await;
        worker
    }

    /// Runs a shell script as a task, and returns its outcome.
    pub(super) async fn outcome(&self, script: &str) -> Value {
        let output = self.cli(&["run", "--json", "--", "sh", "-c", script]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().last().unwrap_or_else(|| panic!("{output:?}"));
        let last: Value = serde_json::from_str(line).expect("lines are JSON");
        assert!(last["outcome"].is_object(), "{last}");
        last["outcome"].clone()
    }

    /// Queues a shell script, and returns the task's id.
    pub(super) async fn submit(&self, script: &str) -> String {
        let output = self.cli(&["submit", "--", "sh", "-c", script]).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a verb to its end.
    pub(super) async fn cli(&self, args: &[&str]) -> Output {
        self.runlane(args).output().await.expect("the binary runs")
    }
}

/// A worker process; killed on drop.
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log is there")).into_owned()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    #[track_caller]
    pub(super) fn assert_serves(&mut self) {
        assert!(!self.has_ended(), "the worker has ended: {}", self.log());
    }

    pub(super) async fn end(mut self, signal: Signal) {
        let pid = self.child.id().expect("it runs").cast_signed();
        kill(Pid::from_raw(pid), signal).expect("it runs");
        self.child.wait().await.expect("it is our child");
    }
}
