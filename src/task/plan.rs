//! Task + runner → launch plan: everything that the executor needs to run one attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::isolation::{Feature, Unsupported};
use super::sandbox::Sandbox;
use super::tighten::RunnerIsolation;
use super::validate::Task;
use super::work::{ProcessMode, ProcessWork, Work};
use crate::wire::{Attempt, Compression, Kind, LaneId, Runtime, TaskId, WorkerId};

/// PATH of a task that gets none from its spec or its runner.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Working directory where neither the task nor the runner names one: it exists everywhere, and
/// nothing of the worker's can be found or left behind in it.
pub const DEFAULT_CWD: &str = "/";

/// Everything that the executor needs to run one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// What to execute.
    pub program: Program,
    /// The whole environment: nothing is inherited from the worker.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute. None: the task's private work directory, or [`DEFAULT_CWD`].
    pub cwd: Option<PathBuf>,
    /// What the processes may use and reach.
    pub sandbox: Sandbox,
    /// What the sandbox lacks because the host does, and why; for the outcome, not for the executor.
    pub missing: BTreeMap<Feature, String>,
    /// Run time limit. None: no limit.
    pub timeout: Option<Duration>,
    /// The polite signal's number.
    pub stop_signal: i32,
    /// Time between the polite signal and SIGKILL; zero kills at once.
    pub grace: Duration,
    /// Limits of the stored output.
    pub output: OutputLimits,
    /// Whether it is stored compressed where that pays.
    pub compression: Compression,
}

impl LaunchPlan {
    /// A plan of a program in a sandbox, with an empty environment and no limits besides.
    pub fn of(program: Program, sandbox: Sandbox) -> Self {
        let RunnerPolicy { grace, stop_signal, max_output_bytes, output_compression, .. } =
            RunnerPolicy::default();
        Self {
            program,
            env: Vec::new(),
            cwd: None,
            sandbox,
            missing: BTreeMap::new(),
            timeout: None,
            stop_signal,
            grace,
            output: OutputLimits { max_bytes: max_output_bytes },
            compression: output_compression,
        }
    }
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program and its arguments. A name without `/` is looked up in the plan's PATH.
    Command {
        /// The program.
        command: String,
        /// Its arguments, without the program's name.
        args: Vec<String>,
    },
    /// A script, put into a private file: `interpreter… <file> args…`.
    ScriptFile {
        /// The interpreter and its own arguments.
        interpreter: Vec<String>,
        /// The script's text.
        body: String,
        /// Arguments of the script.
        args: Vec<String>,
    },
    /// A script passed as one argument: `command flag <body> args…`.
    ScriptArgument {
        /// The interpreter.
        command: String,
        /// What stands before the script.
        flag: String,
        /// The script's text.
        body: String,
        /// Arguments of the script.
        args: Vec<String>,
    },
}

/// Limits of the stored output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes of each stream kept from its start. Past it the last [`TAIL_BYTES`] are kept.
    pub max_bytes: u64,
}

/// Bytes of each stream's end that are kept when it passes its cap.
pub const TAIL_BYTES: usize = 64 * 1024;

/// How a runner wants its tasks to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerPolicy {
    /// Variables of the worker that tasks get; the task's own values beat them.
    pub inherited: BTreeMap<String, String>,
    /// Variables that beat the task's.
    pub env: BTreeMap<String, String>,
    /// Working directory of tasks that name none, absolute. None: the private work directory, or
    /// [`DEFAULT_CWD`].
    pub cwd: Option<PathBuf>,
    /// The longest run time; also for tasks that name none. None: no limit.
    pub max_timeout: Option<Duration>,
    /// Grace period of tasks that name none.
    pub grace: Duration,
    /// The polite signal's number.
    pub stop_signal: i32,
    /// The largest output cap, in bytes of each stream; also for tasks that name none.
    pub max_output_bytes: u64,
    /// Whether the output of tasks that don't say is stored compressed.
    pub output_compression: Compression,
    /// The interpreters of scripts.
    pub interpreters: Interpreters,
    /// The isolation of its tasks on this host.
    pub isolation: RunnerIsolation,
}

impl Default for RunnerPolicy {
    /// No limits, nothing inherited, SIGTERM with five seconds of grace.
    fn default() -> Self {
        Self {
            inherited: BTreeMap::new(),
            env: BTreeMap::new(),
            cwd: None,
            max_timeout: None,
            grace: Duration::from_secs(5),
            stop_signal: 15,
            max_output_bytes: u64::MAX,
            output_compression: Compression::None,
            interpreters: Interpreters::default(),
            isolation: RunnerIsolation::default(),
        }
    }
}

/// The interpreters of scripts: paths, or names that are looked up in the task's PATH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreters {
    /// Runs `bash` scripts.
    pub bash: String,
    /// Runs `python` scripts.
    pub python: String,
    /// Runs `node` scripts.
    pub node: String,
}

impl Default for Interpreters {
    fn default() -> Self {
        let [bash, python, node] = ["bash", "python3", "node"].map(str::to_owned);
        Self { bash, python, node }
    }
}

/// Which run of which task it is, for the task's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIdentity {
    /// The task.
    pub task: TaskId,
    /// The start.
    pub attempt: Attempt,
    /// `{runner}-{slot or lane}-{queueSeq}-{attempt}`.
    pub run_id: String,
    /// The lane it came from.
    pub lane: LaneId,
    /// The worker that runs it.
    pub worker: WorkerId,
}

/// A task can't be launched by a runner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The task is no process.
    #[error("a {kind} task can't be launched as a process")]
    NotAProcess {
        /// The task's kind.
        kind: Kind,
    },
    /// The task asks for isolation that this host can't give.
    #[error("isolation: {}", Unsupported::sentences(.missing).join("; "))]
    Isolation {
        /// Each missing feature; at least one.
        missing: Vec<Unsupported>,
    },
}

impl PlanError {
    /// The step's name in the outcome: `plan`, or the missing feature's.
    pub fn step(&self) -> &'static str {
        match self {
            Self::NotAProcess { .. } => "plan",
            Self::Isolation { missing } => {
                missing.first().map_or("plan", |missing| missing.feature.as_str())
            }
        }
    }
}

/// Makes the launch plan of one attempt. Of two limits the smaller one counts.
///
/// # Errors
/// The task is no process, or asks for isolation that the host can't give.
pub fn plan(
    task: &Task,
    runner: &RunnerPolicy,
    identity: &RunIdentity,
) -> Result<LaunchPlan, PlanError> {
    let process = match &task.work {
        Work::Process(process) => process,
        Work::Container(_) | Work::Wasm(_) => {
            return Err(PlanError::NotAProcess { kind: task.work.kind() });
        }
    };
    let resolved = runner.isolation.of_task(task.isolation.as_ref());
    let resolved = resolved.map_err(|missing| PlanError::Isolation { missing })?;
    let cwd = process.cwd.as_ref().or(runner.cwd.as_ref());
    let wanted = task.output.max_bytes.unwrap_or(u64::MAX);
    Ok(LaunchPlan {
        program: program(&process.mode, &runner.interpreters),
        env: environment(process, runner, identity),
        cwd: cwd.cloned(),
        sandbox: resolved.sandbox,
        missing: resolved.missing,
        timeout: task.timeout.into_iter().chain(runner.max_timeout).min(),
        stop_signal: runner.stop_signal,
        grace: task.grace.unwrap_or(runner.grace),
        output: OutputLimits { max_bytes: wanted.min(runner.max_output_bytes) },
        compression: task.output.compression.unwrap_or(runner.output_compression),
    })
}

fn program(mode: &ProcessMode, interpreters: &Interpreters) -> Program {
    let (runtime, body, args) = match mode {
        ProcessMode::Command { command, args } => {
            return Program::Command { command: command.clone(), args: args.clone() };
        }
        ProcessMode::Script { runtime, body, args } => (runtime, body.clone(), args.clone()),
    };
    let interpreter = match runtime {
        Runtime::Bash => &interpreters.bash,
        Runtime::Python => &interpreters.python,
        Runtime::Node => &interpreters.node,
        Runtime::Custom { command, flag } => {
            let (command, flag) = (command.clone(), flag.clone());
            return Program::ScriptArgument { command, flag, body, args };
        }
    };
    Program::ScriptFile { interpreter: vec![interpreter.clone()], body, args }
}

fn environment(
    process: &ProcessWork,
    runner: &RunnerPolicy,
    identity: &RunIdentity,
) -> Vec<(String, String)> {
    let own = [
        ("RUNLANE_TASK_ID", identity.task.to_string()),
        ("RUNLANE_ATTEMPT", identity.attempt.to_string()),
        ("RUNLANE_RUN_ID", identity.run_id.clone()),
        ("RUNLANE_LANE", identity.lane.to_string()),
        ("RUNLANE_WORKER", identity.worker.to_string()),
    ];
    // From the weakest to the strongest.
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    env.extend(runner.inherited.clone());
    env.extend(process.env.iter().cloned());
    env.extend(runner.env.clone());
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env.into_iter().collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
