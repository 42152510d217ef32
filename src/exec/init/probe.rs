//! `runlane __probe`: tries what a sandbox needs, and prints what came of it.
//!
//! A program of its own, because the worker has threads and must not run code between fork and exec.
//! Each try is a process of its own, so that none changes what the next one finds.

use std::fs;
use std::io::{self, PipeReader, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use super::super::host::{Failure, Findings, Namespaces, Settings};
use super::sandbox::landlock::Domain;
use super::sandbox::{StepError, seccomp};
use super::sys::{self, MountAttribute};
use crate::task::{Landlock, Seccomp};

/// Tries everything and prints the findings as JSON.
pub(super) fn run() -> io::Result<()> {
    // All at once: the end of a namespace takes the kernel some 20 ms.
    let [domain, filter, identity, user] =
        [domain as Try, filter, identity, user].map(Attempt::start);
    let [plain, within_user] = [|| Ok(()), self::user as Try].map(start_namespaces);
    let findings = Findings {
        settings: Settings::read(),
        landlock_abi: sys::landlock_abi().map_err(|error| error.raw_os_error().unwrap_or(0)),
        landlock: finish(domain),
        seccomp: finish(filter),
        identity: finish(identity),
        user: finish(user),
        plain: finish_namespaces(plain),
        within_user: finish_namespaces(within_user),
    };
    serde_json::to_writer(io::stdout(), &findings)?;
    Ok(())
}

type Tried = Result<(), Failure>;
type Try = fn() -> Tried;

fn start_namespaces(before: Try) -> [io::Result<Attempt>; 4] {
    let tries: [Try; 4] = [
        mounts,
        pids,
        || new(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS),
        || new(CloneFlags::CLONE_NEWNET),
    ];
    tries.map(|what| Attempt::start(|| before().and_then(|()| what())))
}

fn finish_namespaces(attempts: [io::Result<Attempt>; 4]) -> Namespaces {
    let [mount, pid, ipc_uts, network] = attempts.map(finish);
    Namespaces { mount, pid, ipc_uts, network }
}

/// A try in a process of its own, which ends after it.
struct Attempt {
    process: i32,
    found: PipeReader,
}

impl Attempt {
    fn start(what: impl FnOnce() -> Tried) -> io::Result<Self> {
        let (found, writer) = io::pipe()?;
        let process = sys::fork(|| i32::from(serde_json::to_writer(&writer, &what()).is_err()))?;
        Ok(Self { process, found })
    }

    fn finish(mut self) -> io::Result<Tried> {
        let mut found = Vec::new();
        let read = self.found.read_to_end(&mut found);
        waitpid(Pid::from_raw(self.process), None)?;
        read?;
        // A try that was killed says nothing.
        let killed = || Err(failure("killed", Errno::EINTR as i32));
        Ok(serde_json::from_slice(&found).unwrap_or_else(|_| killed()))
    }
}

fn finish(attempt: io::Result<Attempt>) -> Tried {
    let tried = attempt.and_then(Attempt::finish);
    tried.unwrap_or_else(|error| Err(failure("try", error.raw_os_error().unwrap_or(0))))
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

fn domain() -> Tried {
    prctl::set_no_new_privs().map_err(about("no_new_privs"))?;
    let domain = Domain::make(&Landlock::default(), None);
    domain.and_then(Domain::enter).map_err(about_step("landlock"))
}

fn filter() -> Tried {
    prctl::set_no_new_privs().map_err(about("no_new_privs"))?;
    seccomp::apply(Seccomp::Standard).map_err(|error| about_step("seccomp")(error.into()))
}

fn identity() -> Tried {
    const NOBODY: u32 = 65534;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(about("setgroups"))?;
    setresgid(gid, gid, gid).map_err(about("setresgid"))?;
    setresuid(uid, uid, uid).map_err(about("setresuid"))
}

/// A user namespace with the same ids inside.
fn user() -> Tried {
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

fn new(namespaces: CloneFlags) -> Tried {
    unshare(namespaces).map_err(about("unshare"))
}

fn mounts() -> Tried {
    own_mounts(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), flags, None::<&str>).map_err(about("tmpfs"))?;
    sys::set_mounts(Path::new("/"), MountAttribute::ReadOnly)
        .map_err(|error| about_step("mount_setattr")(error.into()))
}

/// A new /proc can only be mounted by a process inside, so the first one there tries it.
fn pids() -> Tried {
    own_mounts(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    finish(Attempt::start(|| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).map_err(about("proc"))
    }))
}

fn own_mounts(namespaces: CloneFlags) -> Tried {
    new(namespaces)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(about("private mounts"))
}
