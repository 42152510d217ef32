//! Cgroups of a real kernel (tier 1): root, and a cgroup2 tree that can be written. It may have no
//! controllers, as on hosts with both versions.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use runlane::exec::cgroup::{Base, CgroupSetting, Leaf};

use crate::support::proc::{DEADLINE, MARK, Mark};

mod base;
mod controllers;
mod leaf;

/// A cgroup of its own for each test, killed and removed with everything below at its end.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// None, and a line that says so: there is no tree that can be written.
    #[expect(clippy::print_stderr, reason = "a skip is loud")]
    pub(crate) fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let made = mount.ok_or("no cgroup2 file system is mounted".to_owned()).and_then(|line| {
            let point = line.split(' ').nth(4).expect("a mount has a point");
            let path = Path::new(point).join(format!("test-{}", uuid::Uuid::now_v7().simple()));
            fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Self(path))
        });
        made.map_err(|why| eprintln!("SKIPPED tier 1: cgroups: {why}")).ok()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.kill"), "1").ok();
        let start = Instant::now();
        while remove(&self.0).is_err() && start.elapsed() < DEADLINE {
            nix::poll::poll(&mut [], 1_u8).ok();
        }
    }
}

fn remove(cgroup: &Path) -> std::io::Result<()> {
    children(cgroup).iter().try_for_each(|child| remove(child))?;
    fs::remove_dir(cgroup)
}

/// The cgroups in a cgroup.
pub(crate) fn children(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Where a leaf is.
fn path_of(tree: &Tree, leaf: &Leaf) -> PathBuf {
    tree.path().join(leaf.name())
}

/// A shell in a cgroup, in a process group of its own. Its output's first line has come.
fn sh(cgroup: &Path, mark: &Mark, script: &str) -> (Child, String) {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh")
        .args(["-c", r#"echo 0 >"$0/cgroup.procs" && eval "$1""#])
        .args([cgroup.as_os_str(), script.as_ref()])
        .env(MARK, &mark.0)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("sh can be started");
    let mut output = BufReader::new(shell.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the pipe can be read");
    (shell, line.trim_end().to_owned())
}

/// How a child ends, within the deadline: a test of an end must not hang without it.
fn end_of(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return status;
        }
        assert!(start.elapsed() < DEADLINE, "{} has not ended", child.id());
        nix::poll::poll(&mut [], 1_u8).ok();
    }
}

/// What a helper does: `join:DIRECTORY`, `directory:DIRECTORY`, `auto`, or `auto` followed by another
/// program (`again`) or by the loss of its base (`dropped`).
const HELPER: &str = "RUNLANE_TEST_CGROUP";

/// This test binary again, as a worker that opens a base and puts a process into a leaf.
struct Helper {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(what: &str) -> Self {
        Self::spawn(Command::new(std::env::current_exe().expect("the tests have a file")), what)
    }

    /// Starts it in a cgroup, with a program before it such as `setpriv`.
    fn start_in(cgroup: &Path, before: &[&str], what: &str) -> Self {
        let mut command = Command::new("sh");
        // By descriptor: another user may not reach the file by its path.
        let enter = r#"echo 0 >"$1/cgroup.procs" && exec 7<"$2" && shift 2 && exec "$@""#;
        command.args(["-c", enter, "sh"]).arg(cgroup);
        command.arg(std::env::current_exe().expect("the tests have a file"));
        command.args(before).arg("/proc/self/fd/7");
        Self::spawn(command, what)
    }

    fn spawn(mut command: Command, what: &str) -> Self {
        let mut process = command
            .args(["--exact", "cgroup::helper", "--ignored", "--nocapture"])
            .env(HELPER, what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests can be started again");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, output }
    }

    /// The rest of the next line that has the word.
    fn said(&mut self, word: &str) -> String {
        let mut heard = Vec::new();
        for line in self.output.by_ref().lines().map_while(Result::ok) {
            if let Some((_, text)) = line.split_once(word) {
                return text.to_owned();
            }
            heard.push(line);
            if heard.last().is_some_and(|line| line == "that is all") {
                break;
            }
        }
        panic!("the helper has not said {word:?}, but {heard:?}");
    }

    /// The process in its leaf, and the leaf.
    fn inhabitant(&mut self) -> (i32, PathBuf) {
        let pid = self.said("pid ").parse().expect("a process id");
        (pid, self.said("leaf ").into())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
#[ignore = "not a test: the worker that the tests of cgroups start"]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn helper() {
    let Ok(what) = std::env::var(HELPER) else {
        return;
    };
    let own_cgroup = || fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    if let Some(directory) = what.strip_prefix("join:") {
        let leaf = Leaf::create(Path::new(directory)).expect("a leaf can be made");
        leaf.join().expect("it can be joined");
        println!("\nname {}\ncgroup {}", leaf.name(), own_cgroup().replace('\n', " "));
        return;
    }
    let setting = match what.strip_prefix("directory:") {
        Some(directory) => CgroupSetting::Directory(directory.into()),
        None => CgroupSetting::Auto,
    };
    let base = match Base::open(&setting) {
        Ok(base) => base,
        Err(error) => return println!("\nrefused {error}"),
    };
    let leaf = Leaf::create(base.leaves()).expect("a leaf can be made");
    let path = base.leaves().join(leaf.name());
    let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep can be started");
    fs::write(path.join("cgroup.procs"), child.id().to_string()).expect("it can be put there");
    // In the middle of its execve it has our descriptors still, and the base's lock among them.
    let sleeps = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
        stat.contains("(sleep) S")
    };
    while !sleeps() {
        std::thread::yield_now();
    }
    let controllers: Vec<&str> = base.controllers().iter().copied().collect();
    println!("\ncontrollers {}", controllers.join(" "));
    let own = own_cgroup();
    let own = own.lines().find(|line| line.starts_with("0::")).expect("it has a cgroup");
    println!("own {own}\npid {}\nleaf {}", child.id(), path.display());
    if what == "again" {
        use std::os::unix::process::CommandExt;
        let mut again = Command::new("/proc/self/exe");
        again.args(["--exact", "cgroup::helper", "--ignored", "--nocapture"]);
        panic!("{}", again.env(HELPER, "auto").exec());
    }
    if what == "dropped" {
        drop(base);
        println!("\ndropped it");
    }
    // Nothing follows until the test ends it.
    println!("\nthat is all");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the pipe can be read");
    child.kill().expect("it runs");
    child.wait().expect("it is a child");
}
