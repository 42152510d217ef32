//! Cgroups that cases make by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A cgroup of a case; removed when dropped.
pub(super) struct Group(pub(super) PathBuf);

impl Group {
    pub(super) fn new(name: &str, limits: &[(&str, &str)]) -> Self {
        let path = PathBuf::from("/sys/fs/cgroup").join(name);
        fs::create_dir(&path).expect("a cgroup can be made");
        for (file, value) in limits {
            fs::write(path.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        Self(path)
    }

    /// Runs a script in it.
    pub(super) async fn run(&self, script: &str) -> Output {
        self.command(script).output().await.expect("sh can be run")
    }

    /// The command that runs a script in it.
    pub(super) fn command(&self, script: &str) -> Command {
        let script = format!("echo $$ >{}/cgroup.procs; {script}", self.0.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        fs::write(self.0.join("cgroup.kill"), "1").expect("it can be killed");
    }

    /// How many processes are in it, zombies too.
    pub(super) fn population(&self) -> u64 {
        self.number("pids.current", "")
    }

    /// Whether nothing but zombies is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.number("cgroup.events", "populated ") == 0
    }

    /// The number after a word of one of its files.
    pub(super) fn number(&self, file: &str, word: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).expect("the file can be read");
        let value = text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {word} in {text}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A case that has left processes in it says so itself.
        fs::write(self.0.join("cgroup.kill"), "1").ok();
        remove(&self.0);
    }
}

/// Removes a cgroup and those in it, whose processes are dying.
fn remove(directory: &Path) {
    subgroups(directory).iter().for_each(|group| remove(group));
    for _ in 0..1000 {
        if fs::remove_dir(directory).is_ok() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The cgroups in a cgroup.
pub(super) fn subgroups(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the cgroup can be read");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.is_dir()).collect()
}
