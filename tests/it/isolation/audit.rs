//! The audit: a program that runs as a task of a real worker tries what isolation is to prevent, and
//! gets what the table in docs/isolation.md says, no more and no less.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::geteuid;
use runlane::exec::probe;
use runlane::task::isolation::{Feature, IsolationPolicy, Preset};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{AS_NOBODY, NOBODY, PYTHON, is_root, launcher, skipped, told};
use crate::cgroup::Tree;
use crate::docs::table;
use crate::e2e::{Site, WorkerProcess};
use crate::support::proc::{MARK, Mark, children, is_alive, until};

const PROGRAM: &str = concat!(include_str!("audit_base.py"), "\n\n", include_str!("audit.py"));

/// Who a worker and its tasks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Both root.
    Root,
    /// The worker root, its tasks another user.
    User,
    /// The worker root, each task another user of its own.
    Pool,
    /// Both the same user, who isn't root.
    Plain,
}

/// The columns of the table.
const COLUMNS: [(Preset, Who); 8] = [
    (Preset::None, Who::Root),
    (Preset::None, Who::Plain),
    (Preset::Standard, Who::Root),
    (Preset::Standard, Who::User),
    (Preset::Standard, Who::Plain),
    (Preset::Strict, Who::Root),
    (Preset::Strict, Who::User),
    (Preset::Strict, Who::Plain),
];

#[tokio::test]
async fn none_of_root() {
    audit(Preset::None, Who::Root).await;
}

#[tokio::test]
async fn none_of_a_plain_user() {
    audit(Preset::None, Who::Plain).await;
}

#[tokio::test]
async fn standard_of_root() {
    audit(Preset::Standard, Who::Root).await;
}

#[tokio::test]
async fn standard_as_another_user() {
    audit(Preset::Standard, Who::User).await;
}

#[tokio::test]
async fn standard_as_a_user_for_each_task() {
    audit(Preset::Standard, Who::Pool).await;
}

#[tokio::test]
async fn standard_of_a_plain_user() {
    audit(Preset::Standard, Who::Plain).await;
}

#[tokio::test]
async fn strict_of_root() {
    audit(Preset::Strict, Who::Root).await;
}

#[tokio::test]
async fn strict_as_another_user() {
    audit(Preset::Strict, Who::User).await;
}

#[tokio::test]
async fn strict_of_a_plain_user() {
    audit(Preset::Strict, Who::Plain).await;
}

/// Compares what a task can do with what is documented.
async fn audit(preset: Preset, who: Who) {
    let what = format!("the audit of {preset}, {who:?}");
    if (who != Who::Plain && !is_root(&what)) || !offered(preset, who, &what) {
        return;
    }
    let host = Host::new(preset, who);
    let bare = host.bare().await;
    let seen = host.audited().await;
    let like = if who == Who::Pool { Who::User } else { who };
    let column = COLUMNS.iter().position(|column| *column == (preset, like)).expect("it is one");
    let rows = table("docs/isolation.md", "## What a task can do").into_iter();
    let mut documented: BTreeMap<_, _> =
        rows.map(|row| (row[0].clone(), row[column + 1].clone())).collect();
    if who == Who::Pool {
        // The page says so below the table.
        documented.insert("read in another task's work directory".to_owned(), "no".to_owned());
    }
    let mut wrong: Vec<_> = documented
        .keys()
        .filter(|name| !seen.contains_key(*name))
        .map(|name| format!("{name}: was not tried"))
        .collect();
    for (name, (answer, detail)) in &seen {
        let documented = documented.get(name).map_or("nothing", String::as_str);
        if documented == answer {
            continue;
        }
        let by_host = bare.get(name).is_some_and(|(bare, _)| bare == answer);
        if answer == "-" && name.contains("cgroup") && host.cgroup.is_none() {
            skipped(1, &format!("{what}: {name}"), "no cgroup can be made here");
        } else if by_host && (documented == "yes" || preset == Preset::None) {
            // It was tried: the host itself doesn't let anybody do it.
            told(&format!("this host differs: {what}: {name}: `{answer}` without runlane too"));
        } else {
            wrong.push(format!("{name}: {documented} is documented, seen is {answer} {detail}"));
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// Whether this host has all that the table is about, except cgroups. If not, says so.
fn offered(preset: Preset, who: Who, what: &str) -> bool {
    let (_directory, program) = launcher(before(who));
    let cgroup = Some(PathBuf::from("/"));
    let found = probe(&program, cgroup, BTreeMap::new()).expect("the probe runs").host;
    let wanted = IsolationPolicy::preset(preset, None).wanted();
    let missing = wanted.into_iter().filter(|feature| !Feature::CGROUP.contains(feature));
    let missing: Vec<_> = missing.filter_map(|feature| found.lacks(feature)).collect();
    missing.iter().for_each(|why| skipped(1, what, why));
    missing.is_empty()
}

/// The command that makes the worker who it is.
fn before(who: Who) -> &'static str {
    if who == Who::Plain && geteuid().is_root() { AS_NOBODY } else { "env" }
}

type Answers = BTreeMap<String, (String, String)>;

/// What attempts are made at, but for the worker.
struct Host {
    preset: Preset,
    who: Who,
    name: String,
    directory: TempDir,
    /// Moved and owned so that the worker can use it.
    cgroup: Option<Tree>,
    abstract_socket: UnixListener,
    _socket: UnixListener,
    port: TcpListener,
}

/// A directory that isn't below /tmp, which may be private: beside the tests, or where root can.
fn seen_by_all() -> TempDir {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let hidden = beside.starts_with("/tmp") || beside.starts_with("/var/tmp");
    let place = if hidden { Path::new("/var/lib") } else { beside };
    TempDir::with_prefix_in("audit-", place).expect("it can be made outside of /tmp")
}

impl Host {
    fn new(preset: Preset, who: Who) -> Self {
        let name = format!("audit-{}", uuid::Uuid::now_v7().simple());
        let directory = seen_by_all();
        let at = |name: &str| directory.path().join(name);
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        };
        fs::write(at("secret"), "x").expect("there is room");
        fs::create_dir(at("state")).expect("there is room");
        let socket = UnixListener::bind(at("socket")).expect("there is room");
        fs::copy("/usr/bin/id", at("setuid")).expect("it is installed");
        let modes = [
            ("", 0o755),
            ("secret", 0o600),
            ("state", 0o700),
            ("socket", 0o777),
            ("setuid", 0o4755),
        ];
        modes.iter().for_each(|(name, bits)| mode(&at(name), *bits));
        let cgroup = geteuid().is_root().then(Tree::new).flatten();
        if before(who) == AS_NOBODY {
            let own = |path: &Path| chown(path, Some(NOBODY), Some(NOBODY)).expect("we are root");
            ["", "secret", "state"].iter().for_each(|name| own(&at(name)));
            if let Some(tree) = &cgroup {
                let files = ["", "cgroup.procs", "cgroup.subtree_control"];
                files.iter().for_each(|file| own(&tree.path().join(file)));
            }
        }
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        Self {
            preset,
            who,
            directory,
            cgroup,
            abstract_socket: UnixListener::bind_addr(&address).expect("the name is free"),
            _socket: socket,
            port: TcpListener::bind(("127.0.0.1", 0)).expect("a port is free"),
            name,
        }
    }

    fn at(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("it is text").to_owned()
    }

    /// Paths that an attempt makes; they are looked for from outside.
    fn left(&self) -> [(&'static str, PathBuf); 2] {
        let below = |directory: &str| Path::new(directory).join(&self.name);
        [
            ("leave a file in the host's /tmp", below("/tmp")),
            ("leave a file in the host's /dev/shm", below("/dev/shm")),
        ]
    }

    /// What the program is told. `worker`, `spawner` and `other` are processes.
    fn arguments(&self, [worker, spawner, other]: [i32; 3], other_file: Option<&Path>) -> Value {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/{worker}/{name}"));
            text.expect("the worker is there")
        };
        let bounding = read("status");
        let bounding = bounding.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let bounding = bounding.expect("the kernel tells").trim();
        let oom_score_adj: i32 = read("oom_score_adj").trim().parse().expect("a number");
        let name = self.abstract_socket.local_addr().expect("it is bound");
        let name = name.as_abstract_name().expect("it is abstract");
        let tree = self.cgroup.as_ref().map(Tree::path);
        json!({
            "worker": worker,
            "spawner": spawner,
            "other": other,
            "other_file": other_file,
            "name": self.name,
            "secret": self.at("secret"),
            "state": self.at("state"),
            "socket": self.at("socket"),
            "setuid": self.at("setuid"),
            "abstract": std::str::from_utf8(name).expect("it is text"),
            "port": self.port.local_addr().expect("it is bound").port(),
            "cgroup": tree,
            "cgroup_root": tree.and_then(Path::parent),
            // Made by the worker, and so its own.
            "cgroup_workers": tree.and_then(|tree| crate::cgroup::children(tree).pop()),
            "capabilities": u64::from_str_radix(bounding, 16).expect("hexadecimal"),
            "oom_score_adj": oom_score_adj,
            "work_dir": false,
            "leave": [],
            "kill_all": false,
        })
    }

    /// What the program prints without runlane, as the worker's user.
    async fn bare(&self) -> Answers {
        let own = std::process::id().cast_signed();
        let arguments = self.arguments([own; 3], None).to_string();
        let mut words = before(self.who).split(' ');
        let mut command = Command::new(words.next().expect("it has a word"));
        command.args(words).args([PYTHON, "-c", PROGRAM, &arguments]).stdin(Stdio::null());
        command.current_dir("/");
        let output = command.output().await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers(&String::from_utf8_lossy(&output.stdout))
    }

    /// What the program prints as a task, and what is seen from outside.
    async fn audited(&self) -> Answers {
        let site = Site::new().await;
        let worker = self.worker(&site).await;
        let pid = worker.pid();
        let (other_mark, other, other_file) = self.other_task(&site).await;
        let [spawner] = children(pid)[..] else { panic!("the worker has one child") };
        let mut arguments = self.arguments([pid, spawner, other], other_file.as_deref());
        arguments["leave"] = self.left().map(|(_, path)| json!(path)).to_vec().into();
        arguments["work_dir"] = (self.preset != Preset::None).into();
        arguments["kill_all"] = (self.preset == Preset::Strict).into();
        let mark = Mark::new();
        let arguments = arguments.to_string();
        let id = submit(&site, &mark, &[PYTHON, "-c", PROGRAM, &arguments]).await;
        let code = site.wait(&id).await;
        let printed = site.ok(&["logs", &id]).await;
        assert_eq!(code, 0, "{printed}\n{}", site.ok(&["status", &id]).await);
        let mut seen = answers(&printed);
        let yes_or_no = |yes: bool| (if yes { "yes" } else { "no" }.to_owned(), String::new());
        for (name, path) in self.left() {
            seen.insert(name.to_owned(), yes_or_no(path.exists()));
            fs::remove_file(path).ok();
        }
        let daemon = yes_or_no(!mark.alive().is_empty());
        seen.insert("leave a daemon that outlives it".to_owned(), daemon);
        let all_alive = [pid, spawner, other].into_iter().all(is_alive);
        assert!(all_alive, "the worker, its helper and the other task live");
        let tried = printed.lines().any(|line| line == "killed");
        let tried = if tried { "no" } else { "-" }.to_owned();
        seen.insert(
            "kill every process that it may (`kill -9 -1`)".to_owned(),
            (tried, String::new()),
        );
        drop(worker);
        other_mark.gone().await;
        seen
    }

    async fn worker(&self, site: &Site) -> WorkerProcess {
        let cgroup = self.cgroup.as_ref().map(|tree| tree.path().display().to_string());
        let user = match self.who {
            Who::Root | Who::Plain => String::new(),
            Who::User => format!("sandbox.user = {NOBODY}"),
            Who::Pool => "sandbox.uid_pool = \"3000000000-3000000003\"".to_owned(),
        };
        let config = format!(
            "[worker]\ncgroup = {:?}\nstate_dir = {:?}\nwork_root = {:?}\n\
             [[runner]]\nname = \"r\"\nisolation = \"{}\"\n{user}\n",
            cgroup.as_deref().unwrap_or("none"),
            self.at("state"),
            self.at("work"),
            self.preset,
        );
        let path = self.at("worker.toml");
        fs::write(&path, config).expect("there is room");
        // Who isn't root can't move itself into the tree.
        let join = "sh -c 'test -z \"$0\" || echo 0 >\"$0/cgroup.procs\"; exec \"$@\"'";
        let join = format!("{join} '{}' {}", cgroup.unwrap_or_default(), before(self.who));
        let (_directory, program) = launcher(&join);
        let log = PathBuf::from(self.at("log"));
        let search = std::env::var_os("PATH").expect("the tests have a PATH");
        let mut command = Command::new(program);
        command.env_clear().env("PATH", search).env("NATS_URL", site.server.url());
        command.args(["worker", "--name", "w", "--capacity", "4", "--config", &path]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("there is room")).kill_on_drop(true);
        let child = command.spawn().expect("the binary runs");
        let worker = WorkerProcess { child, log };
        worker.logged("serving a lane").await;
        worker
    }

    /// A task that goes on, its process, and a file in its work directory.
    async fn other_task(&self, site: &Site) -> (Mark, i32, Option<PathBuf>) {
        let mark = Mark::new();
        let script = if self.preset == Preset::None {
            "exec sleep 600"
        } else {
            "echo x >other && exec sleep 600"
        };
        submit(site, &mark, &["sh", "-c", script]).await;
        let is_sleep = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        let process = || mark.alive().into_iter().find(is_sleep);
        until("the other task sleeps", || process().is_some()).await;
        let process = process().expect("it sleeps");
        let file = (self.preset != Preset::None)
            .then(|| find(Path::new(&self.at("work")), "other").expect("it has a work directory"));
        (mark, process, file)
    }
}

/// Queues a command whose processes carry the mark, and returns its id.
async fn submit(site: &Site, mark: &Mark, command: &[&str]) -> String {
    let mark = format!("{MARK}={}", mark.0);
    let command = [&["env", &mark], command].concat();
    let spec = json!({ "command": command }).to_string();
    let id = site.ok(&["submit", &site.write("spec.json", spec)]).await;
    id.trim().to_owned()
}

/// A file of this name at any depth.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// By attempt what came of it: `yes`, `no` or a value, and the rest of the line.
fn answers(printed: &str) -> Answers {
    let lines = printed.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, answer)| {
            let verdict = ["yes", "no"]
                .into_iter()
                .find(|verdict| answer == *verdict || answer.starts_with(&format!("{verdict} ")));
            let (answer, detail) = answer.split_at(verdict.map_or(answer.len(), str::len));
            (name.to_owned(), (answer.to_owned(), detail.trim().to_owned()))
        })
        .collect()
}
