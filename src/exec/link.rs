//! What the worker, the spawner, a task-init and its leader say to each other.
//!
//! | on | from → to | what |
//! |---|---|---|
//! | spawner's socket | worker → spawner | two bytes, [`VERSION`] and [`namespace_flags`], with a control socket |
//! | control socket | worker → task-init | one frame: [`Preparation`] |
//! | control socket | worker → leader | one frame: [`Orders`], with stdout and stderr |
//! | control socket | worker → leader | [`GO`], then or later: the program may be executed |
//! | control socket | worker → task-init | one byte per signal |
//! | control socket | task-init → worker | frames: [`Report`] |
//! | control socket | worker → task-init, leader | after the end: [`AGAIN`], for another task; alone, or with its orders |
//! | a pipe | leader → task-init | [`Setup`] |
//!
//! A frame is its length in four bytes, little endian, and JSON. A request is so short that it can't
//! arrive in part; a signal is one byte, its number, so that task-init needs no buffer for it. The
//! leader reads its orders itself, before it becomes the task's program: task-init touches the socket
//! only before and after that.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::Exit;
use crate::task::{
    CgroupLimits, Enclosure, Identity, Landlock, LaunchPlan, Namespaces, Program, Rlimit, Sandbox,
    Seccomp,
};

/// The first argument that turns `runlane` into the spawner.
pub(super) const ENTRY_ARGUMENT: &str = "__task-init";

/// The first argument that turns `runlane` into the end of a task-init.
pub(super) const AFTERMATH_ARGUMENT: &str = "__task-aftermath";

/// The first argument that turns `runlane` into the host's probe.
pub(super) const PROBE_ARGUMENT: &str = "__probe";

/// The version of what is described here. Worker and spawner are the same file, unless a path was given.
pub(super) const VERSION: u8 = 6;

/// Asks a task-init whose task has ended to prepare for another, the same way. No signal has this
/// number: those that came too late stand before it. The task-init leaves it to the leader to read, because
/// descriptors may come with it.
pub(super) const AGAIN: u8 = 0;

/// Lets a leader that has its orders execute the program.
pub(super) const GO: u8 = 1;

/// The largest frame that is read; orders have a few MiB.
pub(super) const MAX_FRAME: usize = 64 * 1024 * 1024;

/// Returns the namespaces that a task-init has to be born in, as a byte; its leader makes the others.
pub(super) fn namespace_flags(namespaces: Namespaces) -> u8 {
    u8::from(namespaces.user) | u8::from(namespaces.pid) << 1
}

/// The namespaces in a byte of [`namespace_flags`].
pub(super) fn namespaces_of(flags: u8) -> Namespaces {
    Namespaces { user: flags & 1 != 0, pid: flags & 2 != 0, ..Namespaces::default() }
}

/// What is done for a task before it is known. The same for every task of a runner, but for those that
/// ask for more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Preparation {
    pub(super) enclosure: Enclosure,
    pub(super) oom_score_adj: i32,
    pub(super) umask: u32,
    pub(super) nice: Option<i32>,
    /// What is left of the bounding set.
    pub(super) capabilities: Option<BTreeSet<String>>,
    pub(super) no_new_privs: bool,
    pub(super) landlock: Option<Landlock>,
    pub(super) seccomp: Option<Seccomp>,
}

impl Preparation {
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        Self {
            enclosure: sandbox.enclosure.clone(),
            oom_score_adj: sandbox.oom_score_adj,
            umask: sandbox.umask,
            nice: sandbox.nice,
            capabilities: sandbox.capabilities.clone(),
            no_new_privs: sandbox.no_new_privs,
            landlock: sandbox.landlock.clone(),
            seccomp: sandbox.seccomp,
        }
    }

    /// Whether it is [`Self::of`] a sandbox.
    pub(super) fn is_of(&self, sandbox: &Sandbox) -> bool {
        // Without `..`: a field that isn't compared would give a task what was prepared for another.
        let Self {
            enclosure,
            oom_score_adj,
            umask,
            nice,
            capabilities,
            no_new_privs,
            landlock,
            seccomp,
        } = self;
        *enclosure == sandbox.enclosure
            && *oom_score_adj == sandbox.oom_score_adj
            && *umask == sandbox.umask
            && *nice == sandbox.nice
            && *capabilities == sandbox.capabilities
            && *no_new_privs == sandbox.no_new_privs
            && *landlock == sandbox.landlock
            && *seccomp == sandbox.seccomp
    }
}

/// What a leader needs of a launch plan, besides the [`Preparation`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders<'a> {
    pub(super) program: Cow<'a, Program>,
    pub(super) env: Cow<'a, [(String, String)]>,
    pub(super) cwd: Option<Cow<'a, Path>>,
    pub(super) bounds: Bounds<'a>,
}

/// What one task may use and reach, where that isn't the same for every task of its runner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bounds<'a> {
    pub(super) cgroup: Option<Cow<'a, CgroupLimits>>,
    pub(super) rlimits: Cow<'a, BTreeMap<Rlimit, u64>>,
    pub(super) identity: Option<Cow<'a, Identity>>,
    pub(super) cwd_roots: Cow<'a, [PathBuf]>,
}

impl<'a> Orders<'a> {
    pub(super) fn of(plan: &'a LaunchPlan) -> Self {
        let Sandbox { cgroup, rlimits, identity, cwd_roots, .. } = &plan.sandbox;
        Self {
            program: Cow::Borrowed(&plan.program),
            env: Cow::Borrowed(&plan.env),
            cwd: plan.cwd.as_deref().map(Cow::Borrowed),
            bounds: Bounds {
                cgroup: (*cgroup != CgroupLimits::default()).then_some(Cow::Borrowed(cgroup)),
                rlimits: Cow::Borrowed(rlimits),
                identity: identity.as_ref().map(Cow::Borrowed),
                cwd_roots: Cow::Borrowed(cwd_roots),
            },
        }
    }
}

/// What a task-init tells its worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The enclosure could not be made; no plan was looked at.
    NotEnclosed(SetupFailure),
    /// The leader executes the program: told some milliseconds later, unless its end is by then.
    Started(Start),
    /// The leader could not be set up; nothing of the task is left.
    SetupFailed(SetupFailure),
    /// The leader has ended, and so many of its descendants could not be killed (normally none). Its start,
    /// if that was not told before.
    Ended { start: Option<Start>, exit: Exit, survivors: u32 },
}

/// The execution of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// The leader's process id, as the worker's namespace has it.
    pub(super) pid: i32,
    /// When, in microseconds since 1970.
    pub(super) at_us: i64,
}

/// What the leader tells its task-init before it becomes the task's program; see
/// [`super::init`]'s `word` for its form.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Setup {
    /// The enclosure could not be made.
    NotEnclosed(SetupFailure),
    /// All steps are done and execve follows, in this process.
    Ready(Start),
    /// A step failed; also execve, after `Ready`.
    Failed(SetupFailure),
    /// The worker closed its end before the program was executed.
    Unwanted,
}

/// A step of the child's setup that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetupFailure {
    /// The step's name, as it stands in the outcome.
    pub(super) step: String,
    /// The system's error number.
    pub(super) errno: i32,
    /// What happened to which path, with the system's reason.
    pub(super) message: String,
}

/// Writes a value as a frame.
pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    // Most have less.
    let mut frame = Vec::with_capacity(1024);
    frame.extend([0; 4]);
    serde_json::to_writer(&mut frame, value)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| too_long(frame.len()))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Reads one frame and waits for it. None: the other end closed before the frame was whole.
pub(super) fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if !read_or_end(&mut from, &mut length)? {
        return Ok(None);
    }
    let mut body = vec![0; checked_length(length)?];
    if !read_or_end(&mut from, &mut body)? {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Takes the first frame off a buffer. None: it isn't whole yet.
pub(super) fn take_frame<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = checked_length(*length)?;
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let value = serde_json::from_slice(body)?;
    buffer.drain(..4 + length);
    Ok(Some(value))
}

fn checked_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME { Err(too_long(length)) } else { Ok(length) }
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes is too long"))
}

fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preparation_is_that_of_a_sandbox_which_differs_in_nothing_that_it_has() {
        let plain = Sandbox::default();
        let changes: [fn(&mut Sandbox); 8] = [
            |sandbox| sandbox.enclosure.namespaces.network ^= true,
            |sandbox| sandbox.oom_score_adj += 1,
            |sandbox| sandbox.umask ^= 0o007,
            |sandbox| sandbox.nice = Some(3),
            |sandbox| sandbox.capabilities = Some(BTreeSet::from(["CAP_KILL".to_owned()])),
            |sandbox| sandbox.no_new_privs ^= true,
            |sandbox| sandbox.landlock = Some(Landlock::default()),
            |sandbox| sandbox.seccomp = Some(Seccomp::Standard),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut other = plain.clone();
            change(&mut other);
            let (of_plain, of_other) = (Preparation::of(&plain), Preparation::of(&other));
            assert_ne!(of_plain, of_other, "change {at}");
            assert!(of_plain.is_of(&plain) && of_other.is_of(&other), "change {at}");
            assert!(!of_plain.is_of(&other) && !of_other.is_of(&plain), "change {at}");
        }
    }

    #[test]
    fn a_frame_that_arrives_byte_by_byte_is_taken_once_and_whole() {
        let started = |pid| Report::Started(Start { pid, at_us: 1 });
        let mut bytes = encode(&started(17)).expect("a report is JSON");
        bytes.extend(encode(&started(18)).expect("a report is JSON"));
        let mut buffer = Vec::new();
        let mut taken = Vec::new();
        for byte in bytes {
            buffer.push(byte);
            taken.extend(take_frame::<Report>(&mut buffer).expect("the bytes are frames"));
        }
        assert_eq!(taken, [started(17), started(18)]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_cut_by_the_end_of_the_stream_is_no_frame() {
        let report = Report::Started(Start { pid: 17, at_us: 1 });
        let bytes = encode(&report).expect("a report is JSON");
        for cut in 0..bytes.len() {
            let read = read_frame::<Report>(&bytes[..cut]).expect("an early end is no error");
            assert_eq!(read, None, "cut at {cut}");
        }
        assert!(read_frame::<Report>(&bytes[..]).expect("the bytes are a frame").is_some());
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_it_is_read() {
        let mut buffer = u32::MAX.to_le_bytes().to_vec();
        assert!(take_frame::<Report>(&mut buffer).is_err());
    }
}
