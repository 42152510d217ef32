//! A launch plan: everything that the executor needs to run one attempt, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that the executor needs to run one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// What to execute.
    pub program: Program,
    /// The whole environment: nothing is inherited from the worker.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// The limits that the child is put under.
    pub sandbox: Sandbox,
    /// Run time limit. None: no limit.
    pub timeout: Option<Duration>,
    /// The polite signal's number.
    pub stop_signal: i32,
    /// Time between the polite signal and SIGKILL; zero kills at once.
    pub grace: Duration,
    /// Limits of the stored output.
    pub output: OutputLimits,
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

/// The limits that the child is put under. Empty today: the seam for rlimits, cgroups, capabilities,
/// identity, namespaces, landlock and seccomp.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sandbox {}

/// Limits of the stored output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLimits {
    /// Bytes of each stream kept from its start. Past it the last [`TAIL_BYTES`] are kept.
    pub max_bytes: u64,
}

/// Bytes of each stream's end that are kept when it passes its cap.
pub const TAIL_BYTES: usize = 64 * 1024;
