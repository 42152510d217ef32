//! The Landlock domain.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::errno::Errno;
use runlane::task::{CAPABILITIES, FileRules, Landlock, Sandbox};

use super::{
    is_root, open_directory, plain_users_spawner, prints, python, refused, run_by, shell, spawner,
    succeeded,
};

/// Prints for each attempt on the process `argv[1]` what came of it.
const REACH_OUT: &str = r#"
import ctypes, errno, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
def trace():
    # PTRACE_SEIZE; the end of this process lets go.
    if libc.ptrace(0x4206, pid, None, None) == -1:
        raise OSError(ctypes.get_errno(), "")
def peek():
    class Range(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    mine = ctypes.create_string_buffer(1)
    to, other = Range(ctypes.addressof(mine), 1), Range(1, 1)
    # Address 1 is nobody's: EFAULT means that the right was there.
    if libc.process_vm_readv(pid, ctypes.byref(to), 1, ctypes.byref(other), 1, 0) == -1 and ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), "")
for name, attempt in [
    ("signal", lambda: os.kill(pid, signal.SIGCONT)),
    ("trace", trace),
    ("memory", peek),
    ("environ", lambda: open(f"/proc/{pid}/environ", "rb").read()),
    ("descriptor", lambda: os.readlink(f"/proc/{pid}/fd/0")),
    ("root", lambda: os.listdir(f"/proc/{pid}/root")),
]:
    try:
        attempt()
        print(name, "done")
    except OSError as error:
        print(name, "denied" if error.errno in (errno.EPERM, errno.EACCES) else error)
"#;

/// A process outside of every task, as the worker is.
struct Outsider(Child);

impl Outsider {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep runs"))
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

/// Without capabilities: from Linux 6.17 on CAP_PERFMON reads a stranger's environment, whatever the
/// security modules say.
fn domain(landlock: Landlock) -> Sandbox {
    let capabilities = Some(BTreeSet::new());
    Sandbox { landlock: Some(landlock), no_new_privs: true, capabilities, ..Sandbox::default() }
}

fn scoped() -> Sandbox {
    domain(Landlock { signal_scope: true, ..Landlock::default() })
}

fn files(files: FileRules) -> Sandbox {
    domain(Landlock { files: Some(files), ..Landlock::default() })
}

const ATTEMPTS: [&str; 6] = ["signal", "trace", "memory", "environ", "descriptor", "root"];

#[tokio::test]
async fn a_process_outside_can_not_be_reached_though_it_is_the_same_users() {
    let outsider = Outsider::start();
    let pid = outsider.0.id().to_string();
    // From Linux 6.15 on CAP_PERFMON, or CAP_SYS_ADMIN, reads environments whatever Landlock says.
    let capabilities = CAPABILITIES.iter().map(|name| (*name).to_owned());
    let capabilities =
        capabilities.filter(|name| !["CAP_PERFMON", "CAP_SYS_ADMIN"].contains(&name.as_str()));
    let capabilities: Option<BTreeSet<_>> = Some(capabilities.collect());
    let with =
        |sandbox| Sandbox { capabilities: capabilities.clone(), no_new_privs: true, ..sandbox };
    let all = |what: &str| ATTEMPTS.map(|name| format!("{name} {what}\n")).concat();
    assert_eq!(python(&with(scoped()), REACH_OUT, &[&pid]).await, all("denied"));
    // The control: nothing else forbids it.
    assert_eq!(python(&with(Sandbox::default()), REACH_OUT, &[&pid]).await, all("done"));
    // Without the scope signals alone get out.
    let unscoped = python(&with(domain(Landlock::default())), REACH_OUT, &[&pid]).await;
    assert_eq!(unscoped, all("denied").replace("signal denied", "signal done"));
}

#[tokio::test]
async fn a_plain_users_task_can_not_reach_its_own_supervisors() {
    if !is_root("a plain user's task") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    // The leader's parent is its task-init, whose parent is the spawner.
    let script = "p=$PPID; for i in 1 2; do kill -9 $p 2>/dev/null && echo killed; \
                  cat /proc/$p/environ 2>/dev/null && echo read; \
                  p=$(sed 's/.*) //' /proc/$p/stat | cut -d' ' -f2); done; sleep 0.1; echo lives";
    let (mark, plan) = shell(&scoped(), script);
    assert_eq!(succeeded(run_by(&spawner, &mark, &plan).await), "lives\n");
}

#[tokio::test]
async fn inside_of_the_domain_everything_goes_on_to_work() {
    let (_directory, path) = open_directory();
    let script = format!(
        "cd {}; mkdir a b; echo 1 >a/f; mv a/f b/g; ln b/g a/h; mv b c; cat a/h c/g; \
         sleep 1000 & kill $!; wait $!; echo $?; tr '\\0' '\\n' </proc/$$/environ | grep -c PATH",
        path.display()
    );
    assert_eq!(prints(&scoped(), &script).await, "1\n1\n143\n1\n");
}

#[tokio::test]
async fn abstract_sockets_outside_can_not_be_reached_where_that_is_asked() {
    let name = format!("runlane-test-{}", uuid::Uuid::now_v7());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let script = "import socket, sys\ntry:\n \
                  socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1]); print('connected')\n\
                  except PermissionError: print('denied')";
    let closed = domain(Landlock { abstract_unix_scope: true, ..Landlock::default() });
    assert_eq!(python(&closed, script, &[&name]).await, "denied\n");
    assert_eq!(python(&scoped(), script, &[&name]).await, "connected\n");
}

/// Two directories with a file `f` each, and rules that allow reading everywhere and writing in the
/// second.
fn places() -> (tempfile::TempDir, PathBuf, FileRules) {
    let (directory, path) = open_directory();
    for place in ["closed", "open"] {
        fs::create_dir(path.join(place)).expect("there is room");
        fs::write(path.join(place).join("f"), "old").expect("there is room");
    }
    let rules = FileRules {
        read_only: vec!["/".into()],
        read_write: vec![path.join("open")],
        optional: vec!["/dev/null".into(), "/no/such/path".into()],
    };
    (directory, path, rules)
}

#[tokio::test]
async fn only_what_is_writable_can_be_changed() {
    let (_directory, path, rules) = places();
    let script = format!(
        "cd {}; exec 2>/dev/null; for p in closed open; do cat $p/f; \
         echo $p write $(echo new >$p/f && echo done) append $(echo new >>$p/f && echo done) \
         truncate $(truncate -s 0 $p/f && echo done) make $(touch $p/g && echo done) \
         directory $(mkdir $p/d && echo done) link $(ln -s f $p/l && echo done) \
         fifo $(mkfifo $p/p && echo done) rename $(mv $p/f $p/h && echo done); done",
        path.display()
    );
    let nothing = "oldclosed write append truncate make directory link fifo rename\n";
    let all = "oldopen write done append done truncate done make done directory done link done \
               fifo done rename done\n";
    assert_eq!(prints(&files(rules), &script).await, format!("{nothing}{all}"));
}

#[tokio::test]
async fn what_is_not_listed_can_not_even_be_read() {
    let (_directory, path, rules) = places();
    let system = ["/usr", "/bin", "/lib", "/lib64", "/etc"].map(PathBuf::from);
    let read_only = system.into_iter().filter(|path| path.exists()).collect();
    let script = format!(
        "cd /; exec 2>/dev/null; cat {0}/closed/f || echo denied; cat {0}/open/f",
        path.display()
    );
    assert_eq!(prints(&files(FileRules { read_only, ..rules }), &script).await, "denied\nold");
}

#[tokio::test]
async fn a_path_that_is_named_and_missing_fails_the_step() {
    let missing = [Path::new("/no/such/path").to_owned()];
    let read_only = FileRules { read_only: missing.to_vec(), ..FileRules::default() };
    let read_write = FileRules { read_write: missing.to_vec(), ..FileRules::default() };
    for rules in [read_only, read_write] {
        let refusal = refused(&spawner(), &files(rules)).await;
        assert_eq!(refusal, ("landlock".to_owned(), Errno::ENOENT as i32));
    }
}

#[tokio::test]
async fn a_domain_never_sets_no_new_privs_by_itself() {
    if !is_root("a domain without no_new_privs") {
        return;
    }
    let sandbox = Sandbox { no_new_privs: false, capabilities: None, ..scoped() };
    let privileges = prints(&sandbox, "grep NoNewPrivs /proc/self/status").await;
    assert_eq!(privileges, "NoNewPrivs:\t0\n");
    let (_directory, spawner) = plain_users_spawner();
    let refusal = refused(&spawner, &sandbox).await;
    assert_eq!(refusal, ("landlock".to_owned(), Errno::EPERM as i32));
}

#[tokio::test]
async fn nothing_in_sys_can_be_opened_for_writing_where_that_is_asked() {
    let Some(tree) = crate::cgroup::Tree::new() else { return };
    let file = tree.path().join("cgroup.max.descendants");
    let (_directory, path) = open_directory();
    let script = format!(
        "(echo 7 > {}) 2>/dev/null && echo limit; echo x > {}/f && mkdir {1}/d && mv {1}/f {1}/d && \
         echo x > /dev/null && echo rest",
        file.display(),
        path.display()
    );
    let shut = domain(Landlock { sys_read_only: true, ..Landlock::default() });
    assert_eq!(prints(&shut, &script).await, "rest\n");
    std::fs::remove_dir_all(path.join("d")).expect("the task made it");
    assert_eq!(prints(&domain(Landlock::default()), &script).await, "limit\nrest\n");
}
