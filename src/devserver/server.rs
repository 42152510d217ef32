//! Runs one nats-server on loopback with JetStream in a directory of ours.
//!
//! The server is in its own process group: Ctrl-C in the terminal reaches only us, and we drain
//! before we stop it. [`DevServer::stop`] ends it cleanly and a dropped [`DevServer`] kills it. If
//! we are killed with SIGKILL its [`Guard`] ends it, if it has one. While it lives on it holds the directory's
//! lock: its stdin is the lock file. So the next start on the same directory can't corrupt the store, and its
//! error names the process.
//!
//! It shares the machine with a worker and its tasks, and runs on half of the cores at a time, unless its
//! environment says otherwise.

use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::guard::{Guard, STOP_TIME};

/// Default payload limit, in bytes: a 2 MiB script in base64 fits.
pub const DEFAULT_MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// The variable of Go's runtime for how many cores it uses at a time. What one message sets going passes
/// through several of the server's threads, and to wake each takes longer than its work: see
/// docs/decisions.md.
const CORES: &str = "GOMAXPROCS";

/// Time for a start, with the recovery of a large store.
const START_TIME: Duration = Duration::from_secs(30);
/// For how long a directory that is in use is waited for: a guard may be ending the server of a killed one.
const LOCK_TIME: Duration = Duration::from_secs(2);

/// How to run the server.
#[derive(Debug, Clone)]
pub struct DevServerOptions {
    /// The binary, see [`find`](super::find()).
    pub binary: PathBuf,
    /// Directory for config, log and JetStream's store; made if missing. One server at a time.
    pub dir: PathBuf,
    /// Port on 127.0.0.1; none: a free one.
    pub port: Option<u16>,
    /// Payload limit in bytes.
    pub max_payload: usize,
    /// Whether JetStream runs.
    pub jetstream: bool,
    /// More lines of nats-server configuration, for example `authorization { … }`.
    pub extra_config: String,
    /// The `runlane` program, to guard the server. None: it lives on if this process is killed.
    pub guard: Option<PathBuf>,
}

impl DevServerOptions {
    /// Uses a free port, JetStream and [`DEFAULT_MAX_PAYLOAD`].
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            dir: dir.into(),
            port: None,
            max_payload: DEFAULT_MAX_PAYLOAD,
            jetstream: true,
            extra_config: String::new(),
            guard: None,
        }
    }
}

/// Why the server doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum DevServerError {
    /// The directory can't be used.
    #[error("the server directory {} can't be used", dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory's path can't stand in a configuration file.
    #[error("the server directory {} is not usable in a nats-server configuration: use a path without quotes, backslashes and control characters", dir.display())]
    DirName {
        /// The directory.
        dir: PathBuf,
    },
    /// Another server uses the directory.
    #[error("another nats-server{} uses {}; stop it first", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other server.
        pid: Option<u32>,
    },
    /// The process can't be started.
    #[error("{} can't be started", binary.display())]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server ended during its start.
    #[error("nats-server ended during its start ({status}): {log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not get ready.
    #[error("nats-server was not ready after {} s: {log}", START_TIME.as_secs())]
    NotReady {
        /// The last lines of its log.
        log: String,
    },
    /// A signal or a wait failed.
    #[error("nats-server can't be stopped")]
    Stop(#[source] std::io::Error),
}

/// A running nats-server. Dropping it kills the process.
#[derive(Debug)]
pub struct DevServer {
    options: DevServerOptions,
    port: u16,
    pid: u32,
    child: Child,
    /// Last, so that it finds the process dead when this is dropped.
    _guard: Option<Guard>,
}

impl DevServer {
    /// Starts a server and waits until it answers. Errors: see [`DevServerError`].
    pub async fn start(options: DevServerOptions) -> Result<Self, DevServerError> {
        let lock = prepare(&options).await?;
        let (child, pid) = spawn(&options, lock)?;
        let guard = options.guard.as_ref().and_then(|program| Guard::over(program, &child));
        let port = options.port.unwrap_or(0);
        let mut server = Self { port, pid, child, options, _guard: guard };
        server.port = server.ready().await?;
        tracing::debug!(pid, port = server.port, "nats-server is ready");
        Ok(server)
    }

    /// Returns the URL for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the file that the server logs to.
    pub fn log_file(&self) -> PathBuf {
        log_file(&self.options.dir)
    }

    /// Waits until the process ends by itself. Cancel safe.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Stops the server cleanly (SIGTERM); SIGKILL after 15 s. What is stored stays.
    pub async fn stop(mut self) -> Result<(), DevServerError> {
        self.end().await
    }

    /// Kills the server (SIGKILL), as a crash would. What is stored stays; [`Self::restart`] revives it.
    pub async fn kill(&mut self) -> Result<(), DevServerError> {
        self.child.kill().await.map_err(DevServerError::Stop)
    }

    /// Ends the server if it runs, and starts it again on the same port with the same store.
    pub async fn restart(&mut self) -> Result<(), DevServerError> {
        self.end().await?;
        let options = DevServerOptions { port: Some(self.port), ..self.options.clone() };
        *self = Self::start(options).await?;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), DevServerError> {
        if self.child.try_wait().map_err(DevServerError::Stop)?.is_some() {
            return Ok(());
        }
        // Not reaped yet (the line above), so the id is still this process's.
        kill(pid_of(self.pid), Signal::SIGTERM)
            .map_err(|errno| DevServerError::Stop(errno.into()))?;
        match timeout(STOP_TIME, self.child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(DevServerError::Stop),
            Err(_) => {
                tracing::warn!(pid = self.pid, "nats-server did not stop in time; killing it");
                self.kill().await
            }
        }
    }

    /// Waits for the ports file, then for the INFO line; returns the port.
    async fn ready(&mut self) -> Result<u16, DevServerError> {
        let deadline = Instant::now() + START_TIME;
        loop {
            if let Some(status) = self.child.try_wait().map_err(DevServerError::Stop)? {
                let log = self.last_log_lines();
                return Err(DevServerError::Exited { status, log });
            }
            if let Some(port) = read_port(&self.options.dir, self.pid)
                && matches!(timeout_at(deadline, greets(port)).await, Ok(true))
            {
                return Ok(port);
            }
            if Instant::now() >= deadline {
                let log = self.last_log_lines();
                return Err(DevServerError::NotReady { log });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn last_log_lines(&self) -> String {
        self.last_lines().read()
    }

    /// Returns what reads the end of its log, also after the server's end.
    pub fn last_lines(&self) -> LastLines {
        LastLines::of(self.log_file())
    }
}

/// The end of a log.
#[derive(Debug, Clone)]
pub struct LastLines(PathBuf);

impl LastLines {
    /// That of a file.
    pub fn of(file: PathBuf) -> Self {
        Self(file)
    }

    /// Reads the last lines, as one.
    pub fn read(&self) -> String {
        let bytes = std::fs::read(&self.0).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

/// Makes the directory, takes its lock, and writes the configuration.
async fn prepare(options: &DevServerOptions) -> Result<File, DevServerError> {
    let dir = &options.dir;
    let failed = |source| DevServerError::Dir { dir: dir.clone(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(dir.join("lock"))
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_TIME;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(pid_file(dir)).ok();
                return Err(DevServerError::InUse {
                    dir: dir.clone(),
                    pid: pid.and_then(|pid| pid.trim().parse().ok()),
                });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    // The lock is ours, so a ports file here is a dead server's, and its id may come again.
    for stale in ports_files(dir) {
        std::fs::remove_file(stale).map_err(failed)?;
    }
    std::fs::write(config_file(dir), config(options)?).map_err(failed)?;
    Ok(lock)
}

fn config(options: &DevServerOptions) -> Result<String, DevServerError> {
    let dir = options
        .dir
        .to_str()
        .filter(|dir| !dir.chars().any(|c| matches!(c, '"' | '\\') || c.is_control()));
    let dir = dir.ok_or_else(|| DevServerError::DirName { dir: options.dir.clone() })?;
    // -1: the server takes a free port and writes it to the ports file.
    let port = options.port.map_or(-1, i32::from);
    let max_payload = options.max_payload;
    let jetstream = if options.jetstream {
        format!("jetstream {{ store_dir: \"{dir}/store\" }}\n")
    } else {
        String::new()
    };
    let extra = &options.extra_config;
    Ok(format!(
        "host: \"127.0.0.1\"\nport: {port}\nmax_payload: {max_payload}\nping_interval: \"20s\"\n\
         pid_file: \"{dir}/nats-server.pid\"\nports_file_dir: \"{dir}\"\nlog_file: \"{dir}/nats-server.log\"\n\
         {jetstream}{extra}\n"
    ))
}

fn spawn(options: &DevServerOptions, lock: File) -> Result<(Child, u32), DevServerError> {
    let failed = |source| DevServerError::Spawn { binary: options.binary.clone(), source };
    // What the server says before it has read its configuration (or a Go panic) goes to its log too.
    let log =
        File::options().create(true).append(true).open(log_file(&options.dir)).map_err(failed)?;
    let mut command = Command::new(&options.binary);
    if std::env::var_os(CORES).is_none() {
        command.env(CORES, half_the_cores().to_string());
    }
    let child = command
        .arg("--config")
        .arg(config_file(&options.dir))
        .stdin(Stdio::from(lock))
        .stdout(Stdio::from(log.try_clone().map_err(failed)?))
        .stderr(Stdio::from(log))
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pid = child.id().expect("a child that was not waited for has an id");
    Ok((child, pid))
}

fn half_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.div_ceil(2)
}

/// Says whether a NATS server greets on the port.
async fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line).await;
    read.is_ok() && line.starts_with("INFO ")
}

/// Reads the client port from `<name>_<pid>.ports`; none while the file is missing or half written.
fn read_port(dir: &Path, pid: u32) -> Option<u16> {
    #[derive(serde::Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ending = format!("_{pid}.ports");
    let file = ports_files(dir)
        .into_iter()
        .find(|path| path.to_str().is_some_and(|path| path.ends_with(&ending)))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports.nats.iter().find_map(|url| url.rsplit(':').next()?.parse().ok())
}

fn ports_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "ports"))
        .collect()
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("Linux process ids fit in i32"))
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("nats-server.conf")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("nats-server.log")
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("nats-server.pid")
}
