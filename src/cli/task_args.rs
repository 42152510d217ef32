//! The flags that describe a task, shared by `run`, `submit` and `exec`.
//!
//! Flags become the same short form that people write in files, so one parser checks both.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::exit::{Failure, INVALID, USAGE};
use super::isolation_args::IsolationArgs;
use super::more_args::MoreArgs;
use crate::config::parse_size;
use crate::task::parse_submission;
use crate::wire::task_spec::MAX_SCRIPT_BYTES;
use crate::wire::{Compression, OutputSpec, Problem, TaskId, TaskKind, TaskSpec};

/// What to run, where it may run, and what to do when it ends.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Task")]
pub(super) struct TaskArgs {
    /// The task's id, 1 to 128 of A-Z a-z 0-9 _ -; submitting it again does nothing. Without it a new
    /// one is made
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<TaskId>,

    /// Concurrency slot: of the tasks with the same slot one runs at a time
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,

    /// Time limit of each attempt, such as 30s, 10m or 1h30m
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,

    /// Set a variable for the task; without =VALUE it gets the value it has here. Can be repeated
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Working directory on the worker, absolute
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Labels that the runner must have, such as 'os=linux,gpu in (a,b),!spot'
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Label of the task itself, for people and programs; `runlane status` shows it. Can be repeated
    #[arg(long, short = 'l', value_name = "NAME=VALUE")]
    label: Vec<String>,

    /// When to run the task again after it has ended
    #[arg(long, value_enum, value_name = "WHEN")]
    restart: Option<RestartArg>,

    /// How many failed attempts may be followed by another one [default: 3]
    #[arg(long, value_name = "N")]
    max_retries: Option<u32>,

    /// Time between the polite signal and SIGKILL [default: the runner's, 5s]
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,

    /// Run this script instead of a command; the arguments after -- are the script's
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<PathBuf>,

    /// Interpreter of the script [default: by the file's name or first line, else bash]
    #[arg(long, value_enum, requires = "script", value_name = "NAME")]
    runtime: Option<RuntimeArg>,

    /// How much of each output stream is kept, such as 10MiB; past it the middle is left out
    #[arg(long, value_name = "SIZE")]
    output_max: Option<String>,

    /// Store bulk output compressed, where that saves much; readers other than runlane must know of it
    /// [default: as the runner is configured]
    #[arg(long, value_enum, value_name = "NAME")]
    output_compression: Option<CompressionArg>,

    #[command(flatten)]
    pub(super) isolation: IsolationArgs,

    #[command(flatten)]
    more: MoreArgs,
}

/// When a task runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RestartArg {
    /// One attempt only
    Never,
    /// After a failure or a timeout, up to --max-retries times
    OnFailure,
    /// After a success as well, until it is canceled
    Always,
}

/// The interpreter of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuntimeArg {
    /// bash
    Bash,
    /// python3
    Python,
    /// node
    Node,
}

/// The form of stored output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionArg {
    /// The bytes as they are
    None,
    /// Chunks from 64 KiB that shrink to a third or less are stored as LZ4 blocks
    Lz4,
}

impl TaskArgs {
    /// Makes the spec of the command after `--`, or of the script.
    pub(super) fn spec(&self, command: &[String]) -> Result<TaskSpec, Failure> {
        let mut short = self.fields()?;
        match &self.script {
            Some(path) => {
                let text = read_script(path)?;
                let runtime = self.runtime.unwrap_or_else(|| guess(path, &text));
                short.insert("script".to_owned(), json!(text));
                short.insert("runtime".to_owned(), json!(runtime.name()));
                short.insert("args".to_owned(), json!(command));
            }
            None if command.is_empty() => {
                let message = "nothing to run; give a command after --, or --script FILE";
                return Err(Failure::new(USAGE, message));
            }
            None => drop(short.insert("command".to_owned(), json!(command))),
        }
        parse(&Value::Object(short))
    }

    /// Lays the flags over a spec from a file.
    pub(super) fn apply(&self, spec: &mut TaskSpec) -> Result<(), Failure> {
        let mut short = self.fields()?;
        if short.is_empty() {
            return Ok(());
        }
        // Only what the flags say is taken from it.
        short.insert("command".to_owned(), json!(["true"]));
        let flags = parse(&Value::Object(short))?;
        self.more.apply(spec, &flags);
        IsolationArgs::apply(spec, &flags);
        spec.id = flags.id.or(spec.id.take());
        spec.slot = flags.slot.or(spec.slot.take());
        spec.timeout = flags.timeout.or(spec.timeout);
        spec.grace_ms = flags.grace_ms.or(spec.grace_ms);
        spec.output = output(flags.output, spec.output);
        spec.runner_selector = flags.runner_selector.or(spec.runner_selector.take());
        spec.labels.extend(flags.labels);
        if self.restart.is_some() {
            spec.restart = flags.restart;
        }
        if self.max_retries.is_some() {
            spec.max_retries = flags.max_retries;
        }
        if let (TaskKind::Subprocess(process), TaskKind::Subprocess(flags)) =
            (&mut spec.kind, flags.kind)
        {
            process.env.extend(flags.env);
            process.cwd = flags.cwd.or(process.cwd.take());
        }
        Ok(())
    }

    fn fields(&self) -> Result<Map<String, Value>, Failure> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("id", self.id.as_ref().map(|id| json!(id)));
        set("slot", self.slot.as_ref().map(|slot| json!(slot)));
        set("timeout", self.timeout.as_ref().map(|time| json!(time)));
        set("grace", self.grace.as_ref().map(|time| json!(time)));
        set("cwd", self.cwd.as_ref().map(|dir| json!(dir)));
        set("selector", self.selector.as_ref().map(|selector| json!(selector)));
        set("restart", self.restart.map(|restart| json!(restart.name())));
        set("maxRetries", self.max_retries.map(|retries| json!(retries)));
        set("env", (!self.env.is_empty()).then(|| variables(&self.env)).transpose()?);
        set("labels", (!self.label.is_empty()).then(|| labels(&self.label)).transpose()?);
        set("output", self.output()?);
        self.more.add(&mut fields);
        self.isolation.add(&mut fields);
        Ok(fields)
    }

    fn output(&self) -> Result<Option<Value>, Failure> {
        let max = self.output_max.as_ref().map(|size| {
            parse_size(size).ok_or_else(|| {
                let message = format!("--output-max {size:?} is not a size; write it like 10MiB");
                Failure::new(USAGE, message)
            })
        });
        let (max, compression) = (max.transpose()?, self.output_compression);
        let name = compression.map(|compression| Compression::from(compression).to_string());
        let fields = json!({ "maxBytes": max, "compression": name });
        Ok((max.is_some() || compression.is_some()).then_some(fields))
    }
}

/// Lays what the flags say over what a file does.
fn output(flags: Option<OutputSpec>, file: Option<OutputSpec>) -> Option<OutputSpec> {
    let (Some(flags), Some(file)) = (flags, file) else { return flags.or(file) };
    Some(OutputSpec {
        max_bytes: flags.max_bytes.or(file.max_bytes),
        compression: flags.compression.or(file.compression),
    })
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Self::None,
            CompressionArg::Lz4 => Self::Lz4,
        }
    }
}

impl RestartArg {
    fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "onFailure",
            Self::Always => "always",
        }
    }
}

impl RuntimeArg {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

fn parse(short: &Value) -> Result<TaskSpec, Failure> {
    parse_submission(short.to_string().as_bytes()).map_err(|problems| {
        Failure::new(INVALID, format!("the task is invalid{}", list(&problems)))
    })
}

/// Problems, one a line below a sentence.
pub(super) fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn variables(pairs: &[String]) -> Result<Value, Failure> {
    let mut variables = Map::new();
    for pair in pairs {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (pair.as_str(), from_here(pair)?),
        };
        variables.insert(name.to_owned(), json!(value));
    }
    Ok(Value::Object(variables))
}

fn from_here(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|error| {
        Failure::new(USAGE, format!("--env {name}: {error}; write --env {name}=VALUE to set it"))
    })
}

fn labels(pairs: &[String]) -> Result<Value, Failure> {
    let pair = |pair: &String| {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Failure::new(USAGE, format!("--label {pair:?} has no value; write it as NAME=VALUE"))
        })?;
        Ok((name.to_owned(), json!(value)))
    };
    pairs.iter().map(pair).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn read_script(path: &Path) -> Result<String, Failure> {
    let fail = |why: String| {
        Failure::new(INVALID, format!("cannot read the script {}: {why}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    // Said here, because the limit of the whole spec would be met first and says nothing of a script.
    if bytes.len() > MAX_SCRIPT_BYTES {
        let found = bytes.len();
        return Err(fail(format!("it has {found} bytes; a script has at most {MAX_SCRIPT_BYTES}")));
    }
    String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8 text".to_owned()))
}

fn guess(path: &Path, text: &str) -> RuntimeArg {
    let shebang = text.lines().next().filter(|line| line.starts_with("#!")).unwrap_or_default();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("py") => RuntimeArg::Python,
        Some("js" | "mjs" | "cjs") => RuntimeArg::Node,
        Some("sh" | "bash") => RuntimeArg::Bash,
        Some(_) | None if shebang.contains("python") => RuntimeArg::Python,
        Some(_) | None if shebang.contains("node") => RuntimeArg::Node,
        Some(_) | None => RuntimeArg::Bash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EnvVar, SubprocessMode};

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn flags_make_the_spec_that_a_file_would() {
        let args = TaskArgs {
            timeout: Some("10m".to_owned()),
            env: strings(&["A=1=2"]),
            label: strings(&["team=ci"]),
            restart: Some(RestartArg::OnFailure),
            output_max: Some("1MiB".to_owned()),
            output_compression: Some(CompressionArg::Lz4),
            ..TaskArgs::default()
        };
        let spec = args.spec(&strings(&["echo", "hi"])).expect("a valid spec");
        assert_eq!(spec.timeout, Some(600_000));
        assert_eq!(spec.labels["team"], "ci");
        let output =
            OutputSpec { max_bytes: Some(1024 * 1024), compression: Some(Compression::Lz4) };
        assert_eq!(spec.output, Some(output));
        let TaskKind::Subprocess(process) = spec.kind else { panic!("a subprocess") };
        assert_eq!(process.env, [EnvVar { key: "A".to_owned(), value: "1=2".to_owned() }]);
        assert!(matches!(process.mode, SubprocessMode::Command(mode) if mode.args == ["hi"]));
    }

    #[test]
    fn flags_beat_a_files_spec_only_where_they_say_something() {
        let mut spec = TaskSpec { max_retries: 9, ..TaskSpec::command("a", []) };
        spec.slot = Some("kept".to_owned());
        spec.output = Some(OutputSpec { max_bytes: Some(7), compression: None });
        let args = TaskArgs {
            timeout: Some("1s".to_owned()),
            output_compression: Some(CompressionArg::Lz4),
            ..TaskArgs::default()
        };
        args.apply(&mut spec).expect("valid flags");
        let output = OutputSpec { max_bytes: Some(7), compression: Some(Compression::Lz4) };
        assert_eq!(spec.output, Some(output));
        assert_eq!(
            (spec.timeout, spec.max_retries, spec.slot.as_deref()),
            (Some(1_000), 9, Some("kept"))
        );
    }

    #[test]
    fn every_problem_of_the_flags_is_told() {
        let args = TaskArgs {
            timeout: Some("soon".to_owned()),
            cwd: Some("here".to_owned()),
            ..TaskArgs::default()
        };
        let failure = args.spec(&strings(&["true"])).expect_err("invalid");
        let message = failure.message.expect("a sentence");
        assert_eq!(failure.code, INVALID);
        assert!(message.contains("timeout") && message.contains("cwd"), "{message}");
    }

    #[test]
    fn a_scripts_interpreter_is_guessed_by_name_then_by_its_first_line() {
        for (path, text, runtime) in [
            ("a.py", "", RuntimeArg::Python),
            ("a.mjs", "", RuntimeArg::Node),
            ("a.sh", "#!/usr/bin/python3\n", RuntimeArg::Bash),
            ("a", "#!/usr/bin/env python3\n", RuntimeArg::Python),
            ("a", "# python\n", RuntimeArg::Bash),
        ] {
            assert_eq!(guess(Path::new(path), text), runtime, "{path} {text}");
        }
    }
}
