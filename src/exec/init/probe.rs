//! `runlane __probe`: tries what a sandbox needs, and prints what came of it.
//!
//! A program of its own, because the worker has threads and must not run code between fork and exec.
//! Each try is a process of its own, so that none changes what the next one finds.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use super::super::host::{Failure, Findings, Namespaces};
use super::sandbox::{StepError, landlock, seccomp};
use super::sys;
use crate::task::{Landlock, Seccomp};

/// Tries everything and prints the findings as JSON.
pub(super) fn run() -> io::Result<()> {
    let namespaces = |before: Try| Namespaces {
        mount: attempt(|| before().and_then(|()| mounts())),
        pid: attempt(|| before().and_then(|()| pids())),
        ipc_uts: attempt(|| {
            before().and_then(|()| new(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS))
        }),
        network: attempt(|| before().and_then(|()| new(CloneFlags::CLONE_NEWNET))),
    };
    let findings = Findings {
        landlock_abi: sys::landlock_abi().map_err(|error| error.raw_os_error().unwrap_or(0)),
        landlock: attempt(domain),
        seccomp: attempt(filter),
        identity: attempt(identity),
        user: attempt(user),
        plain: namespaces(|| Ok(())),
        within_user: namespaces(user),
    };
    serde_json::to_writer(io::stdout(), &findings)?;
    Ok(())
}

/// A try. Its process ends after it.
type Try = fn() -> Result<(), Failure>;

fn attempt(what: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let broken = |error: io::Error| failure("try", error.raw_os_error().unwrap_or(0));
    let (mut reader, writer) = io::pipe().map_err(broken)?;
    let mut what = Some(what);
    let child = sys::fork(|| {
        let found = what.take().map(|what| what());
        i32::from(serde_json::to_writer(&writer, &found).is_err())
    });
    let child = child.map_err(broken)?;
    drop(writer);
    let mut found = Vec::new();
    let read = reader.read_to_end(&mut found);
    waitpid(Pid::from_raw(child), None).map_err(|errno| broken(errno.into()))?;
    read.map_err(broken)?;
    // A try that was killed says nothing.
    let found: Option<Result<(), Failure>> = serde_json::from_slice(&found).unwrap_or(None);
    found.unwrap_or_else(|| Err(failure("killed", Errno::EINTR as i32)))
}

fn failure(what: &str, errno: i32) -> Failure {
    Failure { what: what.to_owned(), errno }
}

fn about(what: &str) -> impl Fn(Errno) -> Failure {
    move |errno| failure(what, errno as i32)
}

fn about_step(what: &str) -> impl Fn(StepError) -> Failure {
    move |error| failure(what, error.errno as i32)
}

fn domain() -> Result<(), Failure> {
    prctl::set_no_new_privs().map_err(about("no_new_privs"))?;
    landlock::apply(&Landlock::default(), None).map_err(about_step("landlock"))
}

fn filter() -> Result<(), Failure> {
    prctl::set_no_new_privs().map_err(about("no_new_privs"))?;
    seccomp::apply(Seccomp::Standard).map_err(|error| about_step("seccomp")(error.into()))
}

fn identity() -> Result<(), Failure> {
    const NOBODY: u32 = 65534;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(about("setgroups"))?;
    setresgid(gid, gid, gid).map_err(about("setresgid"))?;
    setresuid(uid, uid, uid).map_err(about("setresuid"))
}

/// A user namespace with the same ids inside.
fn user() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    new(CloneFlags::CLONE_NEWUSER)?;
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ];
    for (path, text) in maps {
        fs::write(path, text).map_err(|error| failure(path, error.raw_os_error().unwrap_or(0)))?;
    }
    Ok(())
}

fn new(namespaces: CloneFlags) -> Result<(), Failure> {
    unshare(namespaces).map_err(about("unshare"))
}

fn mounts() -> Result<(), Failure> {
    own_mounts(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), flags, None::<&str>).map_err(about("tmpfs"))?;
    sys::make_read_only(Path::new("/")).map_err(|error| about_step("mount_setattr")(error.into()))
}

/// A new /proc can only be mounted by a process inside, so the first one there tries it.
fn pids() -> Result<(), Failure> {
    own_mounts(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    attempt(|| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).map_err(about("proc"))
    })
}

fn own_mounts(namespaces: CloneFlags) -> Result<(), Failure> {
    new(namespaces)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(about("private mounts"))
}
