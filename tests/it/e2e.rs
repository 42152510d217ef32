//! The product as its users have it: `runlane worker` processes, a real nats-server, and the command line.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::nats::TestServer;
use crate::support::proc::{MARK, Mark};

mod bulk;
mod death;
mod drain;
mod front;
mod isolation;
mod outage;
mod rights;
mod secrets;
mod streams;
mod stubborn;

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(60);

/// The lease of the workers that are killed or frozen.
const LEASE: Duration = Duration::from_secs(2);

/// Workers hold tasks for [`LEASE`].
const SHORT_LEASE: &str = "[worker]\nlease = \"2s\"\n";

/// A server, and a directory for everything that its workers and clients need.
pub(crate) struct Site {
    pub(crate) server: TestServer,
    dir: TempDir,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with_server_config("").await
    }

    async fn with_server_config(more: &str) -> Self {
        let server = TestServer::start_with(more).await;
        Self { server, dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("the file is written");
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    /// The binary, with nothing of the environment that could change what it does.
    fn runlane(&self) -> Command {
        self.runlane_by(env!("CARGO_BIN_EXE_runlane"))
    }

    /// The same by way of another program, which gets the environment.
    fn runlane_by(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").expect("the tests have a PATH");
        command.env_clear().env("PATH", path).env("NATS_URL", self.server.url());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs a verb to its end.
    async fn cli(&self, args: &[impl AsRef<OsStr>]) -> Output {
        ended(self.spawn(args)).await
    }

    /// Runs a verb that must succeed, and returns what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args).await;
        assert_eq!(code(&output), 0, "{args:?}: {}", err(&output));
        out(&output)
    }

    pub(crate) fn spawn(&self, args: &[impl AsRef<OsStr>]) -> Child {
        self.runlane().args(args).spawn().expect("the binary runs")
    }

    /// Starts a worker process and waits until it takes tasks. `config` may be empty.
    async fn worker(&self, name: &str, config: &str) -> WorkerProcess {
        self.worker_with(name, config, |_| {}).await
    }

    async fn worker_with(
        &self,
        name: &str,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> WorkerProcess {
        let config = self.write(&format!("{name}.toml"), config);
        let log = self.path(&format!("{name}.log"));
        let mut command = self.runlane();
        command.args(["worker", "--name", name, "--capacity", "4", "--config", &config]);
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("the log is made"));
        change(&mut command);
        let child = command.spawn().expect("the binary runs");
        let worker = WorkerProcess { child, log };
        worker.logged("serving a lane").await;
        worker
    }

    /// Queues a shell command with marked processes, and returns its id.
    async fn submit(&self, mark: &Mark, script: &str) -> String {
        let id = self.ok(&args_of(&["submit", "--"], &marked(mark, script))).await;
        id.trim().to_owned()
    }

    async fn status(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json", id]).await).expect("JSON")
    }

    /// The events of a task's chain, oldest first.
    async fn events(&self, id: &str) -> Vec<Value> {
        let status = self.status(id).await;
        let records = status["records"].as_array().expect("a report has records").clone();
        records.into_iter().map(|record| record["event"].clone()).collect()
    }

    /// The types of the events of a task's chain.
    async fn chain(&self, id: &str) -> Vec<String> {
        let text = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
        self.events(id).await.iter().map(text).collect()
    }

    /// Waits for a task's end and returns the exit code that tells it.
    pub(crate) async fn wait(&self, id: &str) -> i32 {
        code(&self.cli(&["wait", "--timeout", "50s", id]).await)
    }
}

/// A worker process; killed on drop.
pub(crate) struct WorkerProcess {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
}

impl WorkerProcess {
    pub(crate) fn pid(&self) -> i32 {
        let pid = self.child.id().expect("the worker has not ended");
        pid.try_into().expect("a process id")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the worker is there");
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log is there")).into_owned()
    }

    /// Waits for a line of the log.
    pub(crate) async fn logged(&self, text: &str) {
        let what = || format!("{text:?} in the log, which is\n{}", self.log());
        until(what, || self.log().contains(text)).await;
    }

    /// Waits for the end of the process and returns its exit code.
    async fn ended(mut self) -> (i32, String) {
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status = status.expect("the worker ends").expect("it can be waited for");
        let code = status.code().unwrap_or_else(|| panic!("{status}:\n{}", self.log()));
        (code, self.log())
    }

    /// The most memory that it ever had, in KiB.
    fn peak_memory(&self) -> u64 {
        peak_memory(self.pid())
    }
}

/// VmHWM of a process, in KiB.
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// A shell command whose processes carry the mark, the shell too.
fn marked(mark: &Mark, script: &str) -> Vec<String> {
    ["env", &format!("{MARK}={}", mark.0), "sh", "-c", script].map(str::to_owned).to_vec()
}

fn args_of<'a>(first: &[&'a str], then: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(then.iter().map(String::as_str)).collect()
}

async fn ended(child: Child) -> Output {
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    output.expect("it ends in time").expect("it can be waited for")
}

async fn until(what: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {}", what());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_exists(path: &Path) {
    until(|| path.display().to_string(), || path.exists()).await;
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, err(output)))
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
