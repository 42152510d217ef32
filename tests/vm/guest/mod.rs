//! The suite as it runs in the machine.

mod bases;
mod group;
pub(crate) mod helper;
mod limits;
mod platform;
mod processes;
mod programs;
mod site;
mod tasks;
mod units;
mod workers;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::proc::pids;

/// How long a case may take.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// How long what a case has left may take to go.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// What cases need of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A kernel.
    Kernel,
    /// systemd as the first process, too.
    Systemd,
}

impl Tier {
    /// As in docs/testing.md and RUNLANE_TIERS.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::Kernel => "2",
            Self::Systemd => "3",
        }
    }

    pub(crate) fn has(self) -> &'static str {
        match self {
            Self::Kernel => "cgroup v2",
            Self::Systemd => "systemd",
        }
    }
}

/// One test.
pub(crate) struct Case {
    /// A sentence about behaviour, as the function's name.
    pub(crate) name: &'static str,
    pub(crate) tier: Tier,
    run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes cases of async functions.
macro_rules! cases {
    ($($tier:ident $module:ident: $($name:ident),+ $(,)?;)+) => {
        vec![$($(Case {
            name: stringify!($name),
            tier: Tier::$tier,
            run: || Box::pin($module::$name()),
        }),+),+]
    };
}

/// All cases, in the order in which they run.
pub(crate) fn cases() -> Vec<Case> {
    cases! {
        Kernel platform:
            the_kernel_kills_what_passes_memory_max,
            the_kernel_refuses_forks_past_pids_max,
            the_kernel_holds_cpu_max,
            cgroup_kill_ends_a_fork_bomb_without_a_limit;
        Kernel processes:
            a_setsid_daemon_ends_with_a_cancel,
            four_hundred_setsid_children_end_with_their_leader,
            pid_hoppers_end_with_a_cancel,
            a_fork_bomb_in_a_limited_worker_ends_with_a_cancel,
            a_killed_workers_tasks_end,
            negative_control_a_process_group_does_not_hold_pid_hoppers;
        Kernel bases:
            a_plain_user_has_limits_in_its_delegated_cgroup,
            what_is_not_delegated_is_not_taken_over,
            the_trees_root_is_not_taken_over,
            what_a_killed_process_has_left_in_its_base_goes_with_the_next;
        Kernel limits:
            a_task_over_memory_max_is_killed_as_a_whole,
            control_a_task_below_memory_max_lives,
            a_task_over_pids_max_gets_eagain,
            a_task_at_a_fifth_of_a_cpu_uses_a_fifth,
            every_limit_is_in_the_leafs_files,
            a_limit_without_its_controller_refuses_the_task,
            a_fork_bomb_at_its_limit_ends_with_a_cancel,
            a_fork_bomb_without_a_limit_ends_with_a_cancel,
            everyone_who_escapes_ends_in_a_leaf;
        Kernel workers:
            a_worker_runs_a_task_from_the_queue,
            an_outcome_says_that_the_task_was_killed_for_want_of_memory,
            a_plain_user_limits_tasks_in_its_delegated_cgroup,
            a_plain_user_without_delegation_is_refused_the_limit,
            the_root_of_the_tree_is_not_taken_over,
            what_a_killed_worker_has_left_is_removed_by_the_next;
        Systemd units:
            a_delegated_unit_of_a_plain_user_limits_its_tasks,
            a_unit_without_delegation_takes_nothing_over,
            stopping_the_workers_unit_leaves_nothing,
            a_worker_that_is_killed_in_its_unit_leaves_nothing,
            the_workers_unit_kills_a_task_for_want_of_memory;
    }
}

/// Runs cases by their numbers, as `3,4`, and says on the console how each went.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let nonce = std::env::var("VM_NONCE").unwrap_or_default();
    // Fork bombs are among the cases.
    let booted = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if nonce.is_empty() || !booted.contains(&nonce) {
        eprintln!("the cases run in their virtual machine only");
        return ExitCode::FAILURE;
    }
    let wanted: BTreeSet<usize> = args
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|number| number.parse().ok())
        .collect();
    std::panic::set_hook(Box::new(remember));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{nonce} kernel {} -", kernel.trim());
    let (mut passed, mut failed) = (0, 0);
    for (_, case) in cases().iter().enumerate().filter(|(number, _)| wanted.contains(number)) {
        let start = Instant::now();
        let result = attempt(case);
        let took = start.elapsed().as_millis();
        match result {
            Ok(()) => {
                passed += 1;
                println!("{nonce} case {} ok ({took} ms)", case.name);
            }
            Err(why) => {
                failed += 1;
                println!("{nonce} case {} FAILED after {took} ms: {why}", case.name);
            }
        }
    }
    println!("{nonce} verdict {passed} {failed}");
    ExitCode::SUCCESS
}

/// The last panic, in one line.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn remember(panic: &std::panic::PanicHookInfo<'_>) {
    let text = panic.to_string().replace('\n', " | ");
    if let Ok(mut last) = PANIC.lock() {
        *last = text;
    }
}

/// Runs a case. It has failed, too, if it leaves a process behind.
fn attempt(case: &Case) -> Result<(), String> {
    let before = others();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let future = async { tokio::time::timeout(CASE_LIMIT, (case.run)()).await };
    let result = match catch_unwind(AssertUnwindSafe(|| runtime.block_on(future))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("not done after {CASE_LIMIT:?}")),
        Err(_) => Err(PANIC.lock().map(|panic| panic.clone()).unwrap_or_default()),
    };
    runtime.shutdown_background();
    let left = left_over(&before);
    result.and_then(|()| if left.is_empty() { Ok(()) } else { Err(format!("left: {left}")) })
}

/// Waits until there are no more processes than before. Kills the rest, and returns what it was.
fn left_over(before: &BTreeSet<i32>) -> String {
    let start = Instant::now();
    loop {
        let left: Vec<_> = others().difference(before).copied().collect();
        if left.is_empty() {
            return String::new();
        }
        if start.elapsed() > QUIET_LIMIT {
            let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
            let names = left.iter().filter_map(|pid| name(pid).ok());
            let names = names.map(|name| name.trim().to_owned()).collect::<Vec<_>>().join(" ");
            left.iter().for_each(|pid| super::proc::kill(*pid));
            return names;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Every process but the kernel's threads and zombies, which have no command line.
fn others() -> BTreeSet<i32> {
    let has_one = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    pids().into_iter().filter(has_one).collect()
}
