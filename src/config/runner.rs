//! A runner's configuration, and the policy that launch plans are made by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::raw::{RawInherit, RawInterpreters, RawRunner, RawRunnerLog};
use super::report::Report;
use super::sandbox::{self, Surroundings};
use crate::task::{
    Identity, Interpreters, IsolationPolicy, Labels, RUNNER_NAME_LABEL, RunnerIsolation,
    RunnerPolicy, UserIds,
};
use crate::wire::{Compression, Kind};

const DEFAULT_GRACE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
/// No cap: whoever has no configuration has no limits.
const DEFAULT_OUTPUT: u64 = u64::MAX;
const DEFAULT_LINE: usize = 4096;

/// A runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerConfig {
    /// Its name; unique in the worker, one subject token.
    pub name: String,
    /// The kind of task it runs.
    pub kind: Kind,
    /// Its own labels; they beat the worker's.
    pub labels: Labels,
    /// Variables that beat the task's.
    pub env: BTreeMap<String, String>,
    /// Variables of the worker that tasks get.
    pub inherit_env: InheritEnv,
    /// Working directory of tasks that name none, absolute.
    pub cwd: Option<PathBuf>,
    /// The longest run time. None: no limit.
    pub max_timeout: Option<Duration>,
    /// Grace period of tasks that name none.
    pub grace: Duration,
    /// The polite signal.
    pub stop_signal: Signal,
    /// The largest output cap, in bytes of each stream.
    pub max_output_bytes: u64,
    /// Whether the output of tasks that don't say is stored compressed.
    pub output_compression: Compression,
    /// Interpreters of scripts.
    pub interpreters: Interpreters,
    /// Output lines in the worker's log. None: they aren't logged.
    pub log: Option<LineLog>,
    /// The isolation of its tasks, on a host that lacks nothing.
    pub isolation: IsolationPolicy,
}

/// Which variables of the worker tasks get. Never those that start with `NATS_` or `RUNLANE_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InheritEnv {
    /// None.
    None,
    /// All others.
    All,
    /// Those with these names.
    List(Vec<String>),
}

impl InheritEnv {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => !is_ours(name),
            // A resolved list has none of ours; one that was built by hand may.
            Self::List(names) => !is_ours(name) && names.iter().any(|listed| listed == name),
        }
    }
}

/// Where the worker's own credentials are: no task gets these.
fn is_ours(name: &str) -> bool {
    name.starts_with("NATS_") || name.starts_with("RUNLANE_")
}

/// Output lines in the worker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLog {
    /// The longest line, in bytes; a longer one is cut.
    pub max_line_bytes: usize,
}

impl RunnerConfig {
    /// Makes the policy that launch plans are made by. `environment` is the worker's, `isolation` that
    /// of the configuration on the worker's host.
    pub fn policy(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
        isolation: RunnerIsolation,
    ) -> RunnerPolicy {
        let taken = environment.into_iter().filter(|(name, _)| self.inherit_env.takes(name));
        RunnerPolicy {
            inherited: taken.collect(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            max_timeout: self.max_timeout,
            grace: self.grace,
            stop_signal: self.stop_signal as i32,
            max_output_bytes: self.max_output_bytes,
            output_compression: self.output_compression,
            interpreters: self.interpreters.clone(),
            isolation,
        }
    }
}

pub(super) fn resolve_all(
    raw: Vec<RawRunner>,
    capacity: usize,
    work_root: &Path,
    report: &mut Report,
) -> Vec<RunnerConfig> {
    let raw = if raw.is_empty() { vec![RawRunner::unconfigured()] } else { raw };
    let mut runners: Vec<RunnerConfig> = Vec::new();
    for (at, raw) in raw.into_iter().enumerate() {
        let path = format!("runner[{at}]");
        let around = Surroundings { work_root, capacity, cwd: raw.cwd.clone() };
        let runner = resolve(raw, &around, &path, report);
        if !runner.name.is_empty() && runners.iter().any(|other| other.name == runner.name) {
            let name = &runner.name;
            report
                .add(format!("{path}.name"), format!("{name:?} is the name of an earlier runner"));
        }
        if let Some(other) = runners.iter().find(|other| share_some_users(&runner, other)) {
            let why = format!("has a part of runner {:?}'s", other.name);
            let remedy = "give both the same range, or ranges without a common user";
            report.add(format!("{path}.sandbox.uid_pool"), format!("{why}; {remedy}"));
        }
        runners.push(runner);
    }
    runners
}

/// Whether a task of one runner could get the user of a running task of the other: the same range is
/// handed out as one.
fn share_some_users(one: &RunnerConfig, other: &RunnerConfig) -> bool {
    let users = |runner: &RunnerConfig| match &runner.isolation.sandbox.identity {
        Some(Identity { user: UserIds::Pool { first, count }, .. }) => {
            Some(*first..first.saturating_add(*count))
        }
        Some(_) | None => None,
    };
    match (users(one), users(other)) {
        (Some(one), Some(other)) => one != other && one.start < other.end && other.start < one.end,
        _ => false,
    }
}

fn resolve(
    raw: RawRunner,
    around: &Surroundings<'_>,
    path: &str,
    report: &mut Report,
) -> RunnerConfig {
    let at = |name: &str| format!("{path}.{name}");
    report.labels(&at("labels"), &raw.labels);
    if raw.labels.contains_key(RUNNER_NAME_LABEL) {
        report.add(at("labels.runner-name"), "is set by the worker; remove it");
    }
    report.env_names(&at("env"), raw.env.keys());
    for (name, value) in raw.env.iter().filter(|(_, value)| value.contains('\0')) {
        report.add(at(&format!("env.{name}")), format!("has a NUL in its {} bytes", value.len()));
    }
    let any = Duration::ZERO..=LONGEST;
    let grace = report.duration_in(&at("grace"), raw.grace.as_deref(), DEFAULT_GRACE, &any);
    let max_timeout = report.duration(&at("max_timeout"), raw.max_timeout.as_deref());
    if max_timeout.is_some_and(|limit| limit.is_zero()) {
        report.add(at("max_timeout"), "is 0; leave it out for no limit");
    }
    let output = report.size(&at("max_output_bytes"), raw.max_output_bytes.as_ref());
    RunnerConfig {
        name: name(raw.name, &at("name"), report),
        kind: kind(raw.kind.as_deref(), &at("kind"), report),
        labels: raw.labels,
        env: raw.env,
        inherit_env: inherit(raw.inherit_env, &at("inherit_env"), report),
        cwd: report.absolute(&at("cwd"), raw.cwd),
        max_timeout: max_timeout.map(|limit| limit.min(LONGEST)),
        grace,
        stop_signal: signal(raw.stop_signal.as_deref(), &at("stop_signal"), report),
        max_output_bytes: output.unwrap_or(DEFAULT_OUTPUT),
        output_compression: compression(raw.output_compression, &at("output_compression"), report),
        interpreters: interpreters(raw.interpreters, &at("interpreters"), report),
        log: raw.log.map(|log| line_log(&log, &at("log.max_line_bytes"), report)),
        isolation: sandbox::resolve(raw.isolation.as_deref(), raw.sandbox, around, path, report),
    }
}

fn name(name: Option<String>, path: &str, report: &mut Report) -> String {
    let name = name.unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() {
        report.add(path, "is missing; each runner needs a name");
    } else if name.len() > 64 || !name.chars().all(allowed) {
        report.add(path, "use 1 to 64 of the characters A-Z a-z 0-9 _ -");
    }
    name
}

fn kind(kind: Option<&str>, path: &str, report: &mut Report) -> Kind {
    match kind {
        None | Some("subprocess") => {}
        Some(kind @ ("container" | "wasm")) => {
            report.add(path, format!("{kind} tasks can't be run by this version; use subprocess"));
        }
        Some(other) => report.add(path, format!("{other:?} is unknown; use subprocess")),
    }
    Kind::Subprocess
}

fn compression(name: Option<String>, path: &str, report: &mut Report) -> Compression {
    let Some(name) = name else { return Compression::default() };
    Compression::from_name(&name).unwrap_or_else(|| {
        report.add(path, format!("{name:?} is unknown; use none or lz4"));
        Compression::default()
    })
}

fn inherit(raw: Option<RawInherit>, path: &str, report: &mut Report) -> InheritEnv {
    let names = match raw {
        None => return InheritEnv::None,
        Some(RawInherit::Word(word)) if word == "none" => return InheritEnv::None,
        Some(RawInherit::Word(word)) if word == "all" => return InheritEnv::All,
        Some(RawInherit::Word(word)) => {
            let remedy = "use \"none\", \"all\" or a list of names";
            report.add(path, format!("{word:?} is unknown; {remedy}"));
            return InheritEnv::None;
        }
        Some(RawInherit::List(names)) => names,
    };
    for name in names.iter().filter(|name| is_ours(name)) {
        report.add(path, format!("{name} may hold the worker's own credentials; remove it"));
    }
    InheritEnv::List(names)
}

fn signal(name: Option<&str>, path: &str, report: &mut Report) -> Signal {
    let Some(name) = name else {
        return Signal::SIGTERM;
    };
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    match Signal::from_str(&full) {
        Ok(Signal::SIGKILL) => report.add(path, "SIGKILL is not polite; use grace = \"0s\""),
        Ok(signal @ (Signal::SIGSTOP | Signal::SIGCONT)) => {
            report
                .add(path, format!("{signal} ends no process; use one such as SIGTERM or SIGINT"));
        }
        Ok(signal) => return signal,
        Err(_) => report.add(path, format!("{name:?} is not a signal; use one such as SIGTERM")),
    }
    Signal::SIGTERM
}

fn interpreters(raw: RawInterpreters, path: &str, report: &mut Report) -> Interpreters {
    let default = Interpreters::default();
    let mut one = |name: &str, given: Option<String>, default: String| {
        let interpreter = given.unwrap_or(default);
        if interpreter.trim().is_empty() || interpreter.contains('\0') {
            report.add(format!("{path}.{name}"), "is no program; leave it out for the default");
        }
        interpreter
    };
    Interpreters {
        bash: one("bash", raw.bash, default.bash),
        python: one("python", raw.python, default.python),
        node: one("node", raw.node, default.node),
    }
}

fn line_log(raw: &RawRunnerLog, path: &str, report: &mut Report) -> LineLog {
    let size = report.size(path, raw.max_line_bytes.as_ref());
    let max_line_bytes = size.map_or(Some(DEFAULT_LINE), |size| size.try_into().ok());
    match max_line_bytes.filter(|size| (16..=1 << 20).contains(size)) {
        Some(max_line_bytes) => LineLog { max_line_bytes },
        None => {
            report.add(path, "is out of range; use 16 to 1MiB");
            LineLog { max_line_bytes: DEFAULT_LINE }
        }
    }
}
