//! What a task runs: the `kind` of a spec, checked.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::limits::env_name_problem;
use super::path::{Path, quoted};
use super::problems::Problems;
use crate::wire::task_spec::MAX_SCRIPT_BYTES;
use crate::wire::{
    CommandMode, ContainerSpec, EnvVar, Kind, Runtime, ScriptMode, SubprocessMode, SubprocessSpec,
    TaskKind, WasmSpec,
};

/// What a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A process on the worker's host.
    Process(ProcessWork),
    /// A container.
    Container(ContainerSpec),
    /// A WASI module.
    Wasm(WasmSpec),
}

impl Work {
    /// Returns the kind of runner that it needs.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Process(_) => Kind::Subprocess,
            Self::Container(_) => Kind::Container,
            Self::Wasm(_) => Kind::Wasm,
        }
    }
}

/// A process on the worker's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessWork {
    /// What to execute.
    pub mode: ProcessMode,
    /// Environment variables, in order; a later one replaces an earlier one.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute. None: the runner's.
    pub cwd: Option<PathBuf>,
    /// Whether a non-zero exit code makes the attempt fail.
    pub fail_on_non_zero: bool,
}

/// What a process executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessMode {
    /// A program and its arguments.
    Command {
        /// A path, or a name that is looked up in PATH.
        command: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// A script.
    Script {
        /// Its interpreter.
        runtime: Runtime,
        /// Its text; not empty, at most 2 MiB.
        body: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// Checks a kind; `None` only if a problem was added.
pub(super) fn check(kind: TaskKind, problems: &mut Problems) -> Option<Work> {
    let root = Path::Root;
    let path = root.field("kind");
    match kind {
        TaskKind::Subprocess(spec) => {
            process(spec, &path.field("subprocess"), problems).map(Work::Process)
        }
        TaskKind::Container(spec) => {
            container(&spec, &path.field("container"), problems);
            Some(Work::Container(spec))
        }
        TaskKind::Wasm(spec) => {
            let path = path.field("wasm");
            program(&spec.module, &path.field("module"), problems);
            arguments(&spec.args, &path.field("args"), problems);
            environment(&spec.env, &path.field("env"), problems);
            Some(Work::Wasm(spec))
        }
    }
}

fn process(spec: SubprocessSpec, path: &Path<'_>, problems: &mut Problems) -> Option<ProcessWork> {
    environment(&spec.env, &path.field("env"), problems);
    if let Some(cwd) = &spec.cwd {
        directory(cwd, &path.field("cwd"), problems);
    }
    let mode = path.field("mode");
    let mode = match spec.mode {
        SubprocessMode::Command(command) => {
            Some(check_command(command, &mode.field("command"), problems))
        }
        SubprocessMode::Script(script) => check_script(script, &mode.field("script"), problems),
    };
    Some(ProcessWork {
        mode: mode?,
        env: spec.env.into_iter().map(|var| (var.key, var.value)).collect(),
        cwd: spec.cwd.map(PathBuf::from),
        fail_on_non_zero: spec.fail_on_non_zero,
    })
}

fn check_command(mode: CommandMode, path: &Path<'_>, problems: &mut Problems) -> ProcessMode {
    program(&mode.command, &path.field("command"), problems);
    arguments(&mode.args, &path.field("args"), problems);
    ProcessMode::Command { command: mode.command, args: mode.args }
}

fn check_script(mode: ScriptMode, path: &Path<'_>, problems: &mut Problems) -> Option<ProcessMode> {
    arguments(&mode.args, &path.field("args"), problems);
    if let Runtime::Custom { command, flag } = &mode.runtime {
        let runtime = path.field("runtime");
        let custom = runtime.field("custom");
        program(command, &custom.field("command"), problems);
        program(flag, &custom.field("flag"), problems);
    }
    let body = match script_body(&mode.body) {
        Ok(body) => body,
        Err(why) => {
            problems.add(path.field("body"), why);
            return None;
        }
    };
    if matches!(mode.runtime, Runtime::Custom { .. }) {
        no_nul(&body, &path.field("body"), problems);
    }
    Some(ProcessMode::Script { runtime: mode.runtime, body, args: mode.args })
}

fn script_body(base64: &str) -> Result<String, String> {
    // Checked before decoding: nobody makes us allocate for a script that is too large anyway.
    let longest = MAX_SCRIPT_BYTES.div_ceil(3) * 4;
    if base64.len() > longest {
        let found = base64.len();
        return Err(format!(
            "has {found} bytes of base64; a script has at most {MAX_SCRIPT_BYTES} bytes, \
             {longest} in base64"
        ));
    }
    let bytes = STANDARD.decode(base64).map_err(|error| {
        let error = error.to_string().to_lowercase();
        format!("is not base64 (standard alphabet, padded): {}", error.trim_end_matches('.'))
    })?;
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.len() > MAX_SCRIPT_BYTES {
        let found = bytes.len();
        return Err(format!("has {found} bytes; a script has at most {MAX_SCRIPT_BYTES}"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("is not UTF-8 text: byte {at} of the script begins no character")
    })
}

fn container(spec: &ContainerSpec, path: &Path<'_>, problems: &mut Problems) {
    program(&spec.image, &path.field("image"), problems);
    if let Some(command) = &spec.command {
        arguments(command, &path.field("command"), problems);
    }
    arguments(&spec.args, &path.field("args"), problems);
    environment(&spec.env, &path.field("env"), problems);
}

fn program(text: &str, path: &Path<'_>, problems: &mut Problems) {
    if text.trim().is_empty() {
        problems.add(path, "is empty");
    }
    no_nul(text, path, problems);
}

fn arguments(args: &[String], path: &Path<'_>, problems: &mut Problems) {
    for (at, arg) in args.iter().enumerate() {
        no_nul(arg, &path.index(at), problems);
    }
}

fn environment(env: &[EnvVar], path: &Path<'_>, problems: &mut Problems) {
    for (at, var) in env.iter().enumerate() {
        let place = path.index(at);
        if let Some(why) = env_name_problem(&var.key) {
            problems.add(place.field("key"), format!("{} {why}", quoted(&var.key)));
        }
        no_nul(&var.value, &place.field("value"), problems);
    }
}

fn directory(cwd: &str, path: &Path<'_>, problems: &mut Problems) {
    if !cwd.starts_with('/') {
        problems.add(path, format!("{} is not absolute; start it with `/`", quoted(cwd)));
    }
    no_nul(cwd, path, problems);
}

// The kernel takes texts that end with the first NUL.
fn no_nul(text: &str, path: &Path<'_>, problems: &mut Problems) {
    if let Some(at) = text.find('\0') {
        problems.add(path, format!("has a NUL at byte {at}"));
    }
}
