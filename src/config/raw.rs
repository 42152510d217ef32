//! What somebody wrote: the TOML file, or flags and environment variables in its shape.
//!
//! Every key is optional, unknown keys are refused, and nothing is checked yet. Durations are texts
//! such as `30s`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::sandbox::RawSandbox;
use super::secret::Secret;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// First token of every subject.
    pub namespace: Option<String>,
    /// `[nats]`
    pub nats: RawNats,
    /// `[worker]`
    pub worker: RawWorker,
    /// `[[runner]]`
    pub runner: Vec<RawRunner>,
    /// `[streams]`
    pub streams: RawStreams,
    /// `[metrics]`
    pub metrics: RawMetrics,
    /// `[log]`
    pub log: RawLog,
}

/// How to reach NATS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNats {
    /// URLs; a text may hold several, separated by commas. A URL may hold a password.
    pub servers: Option<Vec<Secret>>,
    /// Name of a context of the NATS command line tool.
    pub context: Option<String>,
    /// Credentials file.
    pub creds: Option<PathBuf>,
    /// File with an nkey seed.
    pub nkey: Option<PathBuf>,
    /// User name.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<Secret>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Token.
    pub token: Option<Secret>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Prefix of reply subjects.
    pub inbox_prefix: Option<String>,
    /// `[nats.tls]`
    pub tls: RawTls,
}

/// TLS of the connection to NATS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// File with the certificates of authorities to trust, besides the system's.
    pub ca: Option<PathBuf>,
    /// File with the client's certificate.
    pub cert: Option<PathBuf>,
    /// File with the client's key.
    pub key: Option<PathBuf>,
    /// Refuse a server without TLS.
    pub required: Option<bool>,
    /// Begin with TLS, before the server says anything.
    pub first: Option<bool>,
}

/// The worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorker {
    /// Its id.
    pub name: Option<String>,
    /// Tasks that run at once.
    pub capacity: Option<u32>,
    /// Labels of all its runners.
    pub labels: BTreeMap<String, String>,
    /// How long it holds a task without a renewal.
    pub lease: Option<String>,
    /// How long a shutdown waits for running tasks.
    pub drain_timeout: Option<String>,
    /// The most lanes it serves.
    pub max_lanes: Option<u32>,
    /// Whether it creates streams and buckets.
    pub manage_streams: Option<bool>,
    /// Where it keeps the ends of tasks that could not be stored.
    pub state_dir: Option<PathBuf>,
    /// `auto`, `none`, or the directory in which task cgroups are made.
    pub cgroup: Option<String>,
    /// Where private work directories are made.
    pub work_root: Option<PathBuf>,
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRunner {
    /// Its name.
    pub name: Option<String>,
    /// The kind of task.
    pub kind: Option<String>,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Variables that beat the task's.
    pub env: BTreeMap<String, String>,
    /// Variables of the worker that tasks get.
    pub inherit_env: Option<RawInherit>,
    /// Working directory of tasks that name none.
    pub cwd: Option<PathBuf>,
    /// The longest run time.
    pub max_timeout: Option<String>,
    /// Grace period of tasks that name none.
    pub grace: Option<String>,
    /// Name of the polite signal.
    pub stop_signal: Option<String>,
    /// The largest output cap.
    pub max_output_bytes: Option<RawSize>,
    /// `none` or `lz4`.
    pub output_compression: Option<String>,
    /// `[runner.interpreters]`
    pub interpreters: RawInterpreters,
    /// `[runner.log]`
    pub log: Option<RawRunnerLog>,
    /// The preset of its isolation.
    pub isolation: Option<String>,
    /// `[runner.sandbox]`
    pub sandbox: RawSandbox,
}

/// `"none"`, `"all"`, or a list of names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"none\", \"all\" or a list of names")]
pub enum RawInherit {
    /// A word.
    Word(String),
    /// Names.
    List(Vec<String>),
}

/// A number of bytes, or a text such as `"64MiB"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes or a text such as \"64MiB\"")]
pub enum RawSize {
    /// Bytes.
    Bytes(u64),
    /// A number with its unit.
    Text(String),
}

/// Interpreters of scripts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInterpreters {
    /// Of `bash` scripts.
    pub bash: Option<String>,
    /// Of `python` scripts.
    pub python: Option<String>,
    /// Of `node` scripts.
    pub node: Option<String>,
}

/// Output lines in the worker's log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRunnerLog {
    /// The longest line.
    pub max_line_bytes: Option<RawSize>,
}

/// How streams are created.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStreams {
    /// Copies of each stream.
    pub replicas: Option<u8>,
    /// `file` or `memory`.
    pub storage: Option<String>,
    /// How long status chains and outcomes are kept.
    pub tasks_max_age: Option<String>,
    /// How long output is kept.
    pub output_max_age: Option<String>,
    /// Limit of all output.
    pub output_max_bytes: Option<RawSize>,
    /// Limit of all waiting tasks.
    pub queue_max_bytes: Option<RawSize>,
}

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// Address and port.
    pub listen: Option<String>,
}

/// The worker's own log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// What is logged.
    pub filter: Option<String>,
    /// `text` or `json`.
    pub format: Option<String>,
}
