//! The file, then `RawConfig` → [`Config`].

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::nats::{self, NatsConfig};
use super::places;
use super::raw::{RawConfig, RawLog};
use super::report::Report;
use super::streams::{self, StreamsConfig};
use super::worker::{self, WorkerConfig};
use crate::task::Labels;
use crate::wire::{InvalidId, Namespace, Problem};

/// A complete configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// First token of every subject.
    pub namespace: Namespace,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// How streams are created.
    pub streams: StreamsConfig,
    /// Where metrics and health are served. None: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The worker's own log.
    pub log: LogConfig,
}

/// What is logged if nothing else is said. The NATS client is silent because its events are logged by us.
pub const DEFAULT_FILTER: &str = "info,async_nats=off";

/// The worker's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged, in the syntax of `RUST_LOG`.
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What defaults depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub hostname: String,
    /// Cores that the worker may use.
    pub cores: NonZeroUsize,
    /// Where private work directories are made, absolute.
    pub work_root: PathBuf,
}

impl Host {
    /// Looks at the host that the program runs on.
    pub fn here() -> Self {
        let user = Uid::effective();
        let home = User::from_uid(user).ok().flatten().map(|user| user.dir);
        let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            hostname: hostname.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            work_root: places::work_root(
                |name| env::var_os(name),
                user.as_raw(),
                home,
                &env::temp_dir(),
            ),
        }
    }

    pub(super) fn labels(&self) -> Labels {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let labels = [("os", os), ("arch", arch), ("hostname", &self.hostname)];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}

/// A configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file can't be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a type that isn't known.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong there. The line itself is not shown: it may hold a secret.
        message: String,
    },
    /// Values are wrong.
    #[error("the configuration has {} problem(s){}", problems.len(), Listed(problems))]
    Invalid {
        /// All of them, each with its key.
        problems: Vec<Problem>,
    },
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Loads a configuration: `overrides` (flags and environment) over the file over the defaults.
    ///
    /// # Errors
    /// The file can't be read, or isn't a configuration; or every wrong value.
    pub fn load(file: Option<&Path>, overrides: RawConfig) -> Result<Self, ConfigErrors> {
        let raw = match file {
            Some(path) => overrides.over(RawConfig::read(path)?),
            None => overrides,
        };
        Self::resolve(raw, &Host::here()).map_err(|problems| ConfigErrors::Invalid { problems })
    }

    /// Completes and checks what was written.
    ///
    /// # Errors
    /// Every problem, with paths such as `runner[1].name`.
    pub fn resolve(raw: RawConfig, host: &Host) -> Result<Self, Vec<Problem>> {
        let mut report = Report::default();
        let config = Self {
            namespace: namespace(raw.namespace, &mut report),
            nats: nats::resolve(raw.nats, &mut report),
            worker: worker::resolve(raw.worker, raw.runner, host, &mut report),
            streams: streams::resolve(&raw.streams, &mut report),
            metrics: raw.metrics.listen.and_then(|listen| address(&listen, &mut report)),
            log: log(raw.log, &mut report),
        };
        let problems = report.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

impl RawConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read, or has the wrong form; the first such place.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let source = fs::read_to_string(path);
        let text = source.map_err(|source| ConfigErrors::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = &text.as_bytes()[..at];
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
            ConfigErrors::Syntax {
                path: path.into(),
                line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
                column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
                message: error.message().to_owned(),
            }
        })
    }
}

fn namespace(name: Option<String>, report: &mut Report) -> Namespace {
    let Some(name) = name else {
        return Namespace::default();
    };
    let parsed = name.parse().map_err(|error: InvalidId| report.add("namespace", error));
    parsed.unwrap_or_default()
}

fn address(listen: &str, report: &mut Report) -> Option<SocketAddr> {
    let address = listen.parse().ok();
    if address.is_none() {
        let remedy = "write it like 127.0.0.1:9464 or [::]:9464";
        report.add("metrics.listen", format!("{listen:?} is not an address with a port; {remedy}"));
    }
    address
}

fn log(raw: RawLog, report: &mut Report) -> LogConfig {
    let format = match raw.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            report.add("log.format", format!("{other:?} is unknown; use text or json"));
            LogFormat::Text
        }
    };
    let filter = raw.filter.unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        report.add("log.filter", format!("{filter:?} is not a filter: {error}"));
    }
    LogConfig { filter, format }
}
