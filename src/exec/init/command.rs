//! From a leader's orders to what execve takes; the script's file; and what to say when a step failed.
//!
//! A script goes into a file of mode 0600 in the task's [`Scratch`] directory, of mode 0700, which is
//! removed after the task's end. Not a memfd: it would have to stay open in every process of the task, node resolves
//! its main file's real path, which a memfd has not, and Python puts the script's directory first in
//! its module path, which would be /proc/self/fd.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::super::link::SetupFailure;
use super::child::EXEC;
use super::enclosure::Scratch;
use super::sys::sharing::Strings;
use crate::task::Program;
use crate::task::plan::DEFAULT_CWD;

/// Where a program is looked for when the plan's environment has no PATH; execvp(3)'s default.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The longest argument that Linux takes, without its final zero: MAX_ARG_STRLEN of execve(2).
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Characters of a failure's message that are told, from its begin and from its end. As JSON, where one may
/// take six bytes, it has to fit into the one page that the smallest pipe has: its reader waits for the
/// end of who writes it.
const HEAD: usize = 400;
const TAIL: usize = 200;

/// What is executed, in the form that the child's steps take.
pub(super) struct Command {
    /// The paths that are tried, in this order.
    pub(super) candidates: Vec<CString>,
    pub(super) args: Strings,
    pub(super) env: Strings,
    pub(super) cwd: PathBuf,
    cwd_is_private: bool,
    program: String,
    path: String,
}

impl Command {
    pub(super) fn new(
        program: Cow<'_, Program>,
        env: Cow<'_, [(String, String)]>,
        cwd: Option<Cow<'_, Path>>,
        scratch: &Scratch,
    ) -> Result<Self, SetupFailure> {
        let argv = argv(program.into_owned(), scratch)?;
        let program = argv.first().cloned().unwrap_or_default();
        let path = env.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str()).to_owned();
        let work_dir = scratch.work_dir();
        let env = environment(env.into_owned(), work_dir.as_deref());
        Ok(Self {
            candidates: strings(candidates(&program, &path))?,
            args: Strings::new(strings(argv)?),
            env: Strings::new(strings(env)?),
            cwd_is_private: cwd.is_none() && work_dir.is_some(),
            cwd: cwd.map(Cow::into_owned).or(work_dir).unwrap_or_else(|| DEFAULT_CWD.into()),
            program,
            path,
        })
    }

    /// Whether the working directory is the task's own.
    pub(super) fn cwd_is_private(&self) -> bool {
        self.cwd_is_private
    }

    /// What the worker is told about a failed step. A program that is a directory gets EISDIR in
    /// place of execve's EACCES.
    pub(super) fn failure(&self, step: &str, errno: Errno) -> SetupFailure {
        match step {
            EXEC => self.exec_failure(errno),
            "chdir" => {
                failure(step, errno, format!("cannot enter {:?}: {}", self.cwd, reason(errno)))
            }
            _ => failure(step, errno, reason(errno)),
        }
    }

    fn exec_failure(&self, errno: Errno) -> SetupFailure {
        let file = self.program.contains('/').then(|| self.cwd.join(&self.program));
        let longest = self.args.longest();
        let (errno, why) = match (errno, file) {
            (Errno::ENOENT, None) => (errno, format!("not found in PATH {}", self.path)),
            (Errno::ENOENT, Some(file)) if file.exists() => {
                (errno, "the interpreter that its first line names was not found".to_owned())
            }
            (Errno::EACCES, Some(file)) if file.is_dir() => (Errno::EISDIR, reason(Errno::EISDIR)),
            (Errno::ENOEXEC, _) => (
                errno,
                "not in an executable format; a script needs a first line like #!/bin/sh"
                    .to_owned(),
            ),
            (Errno::E2BIG, _) if longest > MAX_ARGUMENT => (
                errno,
                format!("an argument has {longest} bytes, and Linux takes at most {MAX_ARGUMENT}"),
            ),
            (errno, _) => (errno, reason(errno)),
        };
        failure(EXEC, errno, format!("cannot run {:?}: {why}", self.program))
    }
}

/// What a step's failure is told as. Of a long message, which has a stranger's path or name in it, the middle is
/// left out.
pub(super) fn failure(step: &str, errno: Errno, message: String) -> SetupFailure {
    SetupFailure { step: step.to_owned(), errno: errno as i32, message: shortened(message) }
}

fn shortened(message: String) -> String {
    let left_out = message.chars().count().saturating_sub(HEAD + TAIL);
    if left_out == 0 {
        return message;
    }
    let head: String = message.chars().take(HEAD).collect();
    let tail: String = message.chars().skip(HEAD + left_out).collect();
    format!("{head} … ({left_out} characters) … {tail}")
}

fn reason(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

/// The plan's variables, and for a task with a work directory its home, if the plan names no other.
fn environment(mut env: Vec<(String, String)>, work_dir: Option<&Path>) -> Vec<String> {
    if let Some(work_dir) = work_dir
        && !env.iter().any(|(name, _)| name == "HOME")
    {
        env.push(("HOME".to_owned(), work_dir.to_string_lossy().into_owned()));
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn argv(program: Program, scratch: &Scratch) -> Result<Vec<String>, SetupFailure> {
    match program {
        Program::Command { command, args } => Ok(prepend([command], args)),
        Program::ScriptArgument { command, flag, body, args } => {
            Ok(prepend([command, flag, body], args))
        }
        Program::ScriptFile { interpreter, body, args } => {
            let file = script(&body, scratch).map_err(|error| script_failure(&error, scratch))?;
            Ok(prepend(interpreter.into_iter().chain([file]), args))
        }
    }
}

fn prepend(first: impl IntoIterator<Item = String>, args: Vec<String>) -> Vec<String> {
    first.into_iter().chain(args).collect()
}

fn script(body: &str, scratch: &Scratch) -> io::Result<String> {
    scratch.make()?;
    let path = scratch.script();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(body.as_bytes())?;
    Ok(path.into_os_string().into_string().map_err(|_| Errno::EILSEQ)?)
}

fn script_failure(error: &io::Error, scratch: &Scratch) -> SetupFailure {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let place = scratch.path().parent().unwrap_or(scratch.path());
    failure("script", errno, format!("cannot write the script below {place:?}: {}", reason(errno)))
}

fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    // An empty entry of PATH is the working directory; an empty name is nowhere.
    let directories = path.split(':').filter(|_| !program.is_empty());
    let join = |directory: &str| Path::new(directory).join(program).to_string_lossy().into_owned();
    directories.map(join).collect()
}

fn strings(values: impl IntoIterator<Item = String>) -> Result<Vec<CString>, SetupFailure> {
    let strings = values.into_iter().map(CString::new).collect::<Result<_, _>>();
    strings.map_err(|error| {
        let position = error.nul_position();
        failure(
            EXEC,
            Errno::EINVAL,
            format!("a zero byte at offset {position} of an argument or variable"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::link::{Setup, encode};
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_each_directory_of_path_and_a_path_is_not() {
        assert_eq!(candidates("sh", "/a:/b"), ["/a/sh", "/b/sh"]);
        assert_eq!(candidates("sh", "/a::b"), ["/a/sh", "sh", "b/sh"]);
        assert_eq!(candidates("./sh", "/a"), ["./sh"]);
        assert!(candidates("", "/a").is_empty());
    }

    #[test]
    fn a_failure_fits_into_the_smallest_pipe_and_names_begin_and_end() {
        for long in ["x".repeat(1 << 20), "\u{1}".repeat(70_000), "é\"\\".repeat(30_000)] {
            let message = format!("cannot run {long}: no such file");
            let told = failure(EXEC, Errno::ENOENT, message.clone());
            assert!(told.message.starts_with("cannot run "), "{}", told.message);
            assert!(told.message.ends_with(": no such file"), "{}", told.message);
            let frame = encode(&Setup::Failed(told)).expect("JSON");
            assert!(frame.len() < 4096, "{}", frame.len());
        }
        let short = failure(EXEC, Errno::ENOENT, "cannot run it".to_owned());
        assert_eq!(short.message, "cannot run it");
    }
}
