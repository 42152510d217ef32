//! Values that a process inherits: limits, umask, priorities.

use std::collections::BTreeSet;
use std::fs;

use nix::errno::Errno;
use runlane::exec::{Process, Signal};
use runlane::task::isolation::Preset;
use runlane::task::{Rlimit, Sandbox};

use super::{is_root, plain_users_spawner, preset, prints, refused, shell, status};
use crate::process::{line, spawner};
use crate::support::proc::until;

/// The name in /proc/self/limits, and a limit below what anyone inherits.
const LIMITS: [(Rlimit, &str, u64); 8] = [
    (Rlimit::As, "Max address space", 1 << 33),
    (Rlimit::Core, "Max core file size", 0),
    (Rlimit::Cpu, "Max cpu time", 1000),
    (Rlimit::Fsize, "Max file size", 1 << 20),
    (Rlimit::Memlock, "Max locked memory", 4096),
    (Rlimit::Nofile, "Max open files", 77),
    (Rlimit::Nproc, "Max processes", 555),
    (Rlimit::Stack, "Max stack size", 1 << 22),
];

/// Soft and hard limit in the text of a limits file.
fn limits(text: &str, name: &str) -> (String, String) {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the limit is listed");
    let mut values = line.split_whitespace().map(str::to_owned);
    let mut next = || values.next().expect("there are a soft and a hard limit");
    (next(), next())
}

#[tokio::test]
async fn limits_are_soft_and_hard_and_can_not_be_raised_back() {
    let mut sandbox = preset(Preset::Standard);
    sandbox.rlimits = LIMITS.map(|(limit, _, value)| (limit, value)).into();
    let script = "cat /proc/self/limits; ulimit -n 78 2>/dev/null && echo raised; \
                  ulimit -H -c 1 2>/dev/null && echo raised; true";
    let text = prints(&sandbox, script).await;
    for (limit, name, value) in LIMITS {
        let value = value.to_string();
        assert_eq!(limits(&text, name), (value.clone(), value), "{}", limit.as_str());
    }
    assert!(!text.contains("raised"), "{text}");
}

#[tokio::test]
async fn a_limit_above_the_inherited_hard_one_becomes_that() {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let (_, hard) = limits(&own, "Max open files");
    let rlimits = [(Rlimit::Nofile, u64::MAX)].into();
    let sandbox = Sandbox { rlimits, ..preset(Preset::Standard) };
    let text = prints(&sandbox, "cat /proc/self/limits").await;
    assert_eq!(limits(&text, "Max open files"), (hard.clone(), hard));
}

#[tokio::test]
async fn the_umask_is_the_sandboxs() {
    let sandbox = Sandbox { umask: 0o137, ..Sandbox::default() };
    assert_eq!(status(&sandbox).await("Umask"), "0137");
}

#[tokio::test]
async fn the_priority_is_absolute_and_else_the_workers() {
    let nice = |nice| Sandbox { nice, ..Sandbox::default() };
    let script = "cut -d' ' -f19 /proc/self/stat";
    assert_eq!(prints(&nice(Some(7)), script).await, "7\n");
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own = own.split(' ').nth(18).unwrap();
    assert_eq!(prints(&nice(None), script).await.trim_end(), own);
}

#[tokio::test]
async fn the_oom_score_is_the_sandboxs() {
    let sandbox = Sandbox { oom_score_adj: 321, ..Sandbox::default() };
    assert_eq!(prints(&sandbox, "cat /proc/self/oom_score_adj").await, "321\n");
}

#[tokio::test]
async fn a_long_tasks_supervisor_takes_its_own_oom_score_back_and_no_task_goes_without_its() {
    if !is_root("lowering an OOM score") {
        return;
    }
    let sandbox = Sandbox { oom_score_adj: 321, ..Sandbox::default() };
    let spawner = spawner().with_spares(1);
    let score_of = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut inits = BTreeSet::new();
    // A short task leaves its score to the next one; after a long one it is set again.
    for seconds in ["0", "0", "1000", "0"] {
        let script = format!("echo $PPID; cat /proc/self/oom_score_adj; sleep {seconds}");
        let (_mark, plan) = shell(&sandbox, &script);
        let mut launched = spawner.launch(&plan).await.unwrap();
        // By its own word: a short one may be gone before it is looked at.
        let init: i32 = line(&mut launched.stdout).await.parse().unwrap();
        inits.insert(init);
        assert_eq!(line(&mut launched.stdout).await, "321");
        if seconds == "1000" {
            until("it is the worker's", || score_of(init) == own).await;
            assert_eq!(score_of(launched.pid), "321\n");
            launched.process.signal(Signal::Kill).unwrap();
        }
        launched.process.wait().await.unwrap();
        drop(launched.stdout);
        assert!(spawner.keep(launched.process, &sandbox));
        spawner.prepare(&sandbox).await.unwrap();
    }
    assert_eq!(inits.len(), 1, "{inits:?}");
}

#[tokio::test]
async fn a_priority_or_a_sparing_that_may_not_be_given_fails_its_step() {
    if !is_root("what a plain user may not raise") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    let spared = Sandbox { oom_score_adj: -1, ..Sandbox::default() };
    let refusal = refused(&spawner, &spared).await;
    assert_eq!(refusal, ("oom_score_adj".to_owned(), Errno::EACCES as i32));
    let first = Sandbox { nice: Some(-20), ..Sandbox::default() };
    assert_eq!(refused(&spawner, &first).await, ("nice".to_owned(), Errno::EACCES as i32));
}
