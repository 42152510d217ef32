//! Whose death ends a task, and whose doesn't.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use runlane::exec::{ExitStatus, Launched, Process, Signal, Spawner, Word};
use runlane::task::LaunchPlan;

use super::{Mark, line, sh, spawner};
use crate::isolation::is_root;
use crate::support::proc::{MARK, children, is_alive, kill, parent, until};

/// A leader with a child in its group and a daemon outside of it.
const TREE: &str = "setsid -f sleep 1000; sleep 1000 & echo ready; wait";

async fn launch(mark: &Mark) -> Launched {
    let mut launched = spawner().launch(&sh(mark, TREE)).await.expect("sh can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    launched
}

#[tokio::test]
async fn dropping_the_process_ends_the_whole_task() {
    let mark = Mark::new();
    let launched = launch(&mark).await;
    drop(launched.process);
    mark.gone().await;
}

#[tokio::test]
async fn dropping_a_launch_at_any_moment_leaves_nothing() {
    let mark = Mark::new();
    let spawner = spawner();
    let plan = sh(&mark, TREE);
    for step in 0..60 {
        let moment = Duration::from_micros(step * 50);
        // Whether it was launched already does not matter: both are dropped.
        tokio::time::timeout(moment, spawner.launch(&plan)).await.ok();
    }
    mark.gone().await;
}

#[tokio::test]
async fn no_zombie_stays_and_the_spawner_ends_with_its_last_handle() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(0);
    let mut launched = spawner.launch(&sh(&mark, "sleep 1000")).await.expect("sh can be launched");
    let task_init = parent(launched.pid);
    let spawner_pid = parent(task_init);
    launched.process.signal(Signal::Kill).expect("it runs");
    launched.process.wait().await.expect("its end is known");
    assert!(is_alive(task_init), "it could have another task");
    drop(launched.process);
    until("the task-init is reaped", || children(spawner_pid).is_empty()).await;
    assert!(is_alive(spawner_pid));
    drop(spawner);
    until("the spawner is gone", || !is_alive(spawner_pid)).await;
}

#[tokio::test]
async fn a_task_init_has_one_task_after_the_other_and_tells_them_apart() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    let mut inits = BTreeSet::new();
    // The first one's memory, time and late signals are not the second's.
    let large = "head -c 60M /dev/zero | tail -c 50M | wc -c; exit 3";
    // The second is prepared for at once, the third when it is there.
    for (script, code, at_once) in [(large, 3, true), ("exit 4", 4, false), ("exit 5", 5, true)] {
        let plan = sh(&mark, &format!("echo $PPID; {script}"));
        let Launched { mut process, mut stdout, .. } =
            spawner.launch(&plan).await.expect("sh can be launched");
        inits.insert(line(&mut stdout).await);
        let exit = process.wait().await.expect("its end is known");
        drop(stdout);
        assert_eq!(exit.status, ExitStatus::Exited(code));
        assert_eq!(exit.usage.max_rss_bytes > 40 << 20, code == 3, "{exit:?}");
        process.signal(Signal::Polite(15)).expect("it listens");
        assert!(spawner.keep(process, &plan.sandbox) && spawner.has_spare(&plan.sandbox));
        if at_once {
            spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
        }
    }
    assert_eq!(inits.len(), 1, "{inits:?}");
}

#[tokio::test]
async fn spares_of_a_busy_time_end_when_it_is_over() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    let plan = sh(&mark, "read x");
    let first = spawner.launch(&sh(&mark, "sleep 1000")).await.expect("sh can be launched");
    let spares = || spares(parent(parent(first.pid)), first.pid).len();
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(spawner.launch(&plan).await.expect("sh can be launched"));
    }
    for mut task in busy {
        task.process.wait().await.expect("its end is known");
        assert!(spawner.keep(task.process, &plan.sandbox));
        spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    }
    spawner.trim();
    until("they are kept for the next tasks", || spares() == 4).await;
    // One task now and then takes one of them, and it is the same one.
    for _ in 0..3 {
        let mut task = spawner.launch(&plan).await.expect("sh can be launched");
        task.process.wait().await.expect("its end is known");
        assert!(spawner.keep(task.process, &plan.sandbox));
        spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    }
    assert_eq!(spares(), 4);
    spawner.trim();
    until("one is left", || spares() == 1).await;
}

#[tokio::test]
async fn a_leader_that_is_killed_while_it_waits_costs_no_task_and_leaves_nothing() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut plan = sh(&mark, "exit 4");
    plan.sandbox.enclosure.work_root = Some(root.path().to_owned());
    kill_a_waiting_leader(&spawner, &mark, &plan, root.path()).await;
    let mut launched = spawner.launch(&plan).await.expect("another does it");
    let exit = launched.process.wait().await.expect("its end is known");
    assert_eq!(exit.status, ExitStatus::Exited(4));
}

#[tokio::test]
async fn who_ends_a_task_without_capabilities_has_them_still() {
    if !is_root("task-init's capabilities") {
        return;
    }
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    // Root gets in by a capability only.
    let root = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::chown(root.path(), Some(65_534), None).expect("root may do that");
    let mut plan = sh(&mark, "true");
    plan.sandbox.enclosure.work_root = Some(root.path().to_owned());
    plan.sandbox.capabilities = Some(BTreeSet::new());
    plan.sandbox.no_new_privs = true;
    kill_a_waiting_leader(&spawner, &mark, &plan, root.path()).await;
}

/// Kills the leader of a spare for a plan, and waits until nothing of it is left in the work root.
async fn kill_a_waiting_leader(spawner: &Spawner, mark: &Mark, plan: &LaunchPlan, root: &Path) {
    let entries = || std::fs::read_dir(root).expect("it is there").count();
    let first = spawner.launch(&sh(mark, "sleep 1000")).await.expect("sh can be launched");
    spawner.prepare(&plan.sandbox).await.expect("the spawner starts");
    until("a spare has its directory", || entries() == 1).await;
    let init = spares(parent(parent(first.pid)), first.pid)[0];
    until("its leader is there", || children(init).len() == 1).await;
    kill(children(init)[0]);
    until("what it had is removed", || entries() == 0).await;
}

/// The task-inits that wait for a task, beside that of the leader.
fn spares(spawner: i32, leader: i32) -> Vec<i32> {
    children(spawner).into_iter().filter(|init| *init != parent(leader)).collect()
}

#[tokio::test]
async fn spares_wait_for_the_next_tasks_and_end_with_the_last_handle() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(2);
    let plan = sh(&mark, "sleep 1000");
    let first = spawner.launch(&plan).await.expect("sh can be launched");
    let spawner_pid = parent(parent(first.pid));
    spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    let spares = || spares(spawner_pid, first.pid);
    until("two task-inits wait, with a leader each", || {
        spares().len() == 2 && spares().iter().all(|init| children(*init).len() == 1)
    })
    .await;
    let leaders: Vec<i32> = spares().iter().flat_map(|init| children(*init)).collect();
    let second = spawner.launch(&plan).await.expect("sh can be launched");
    assert!(leaders.contains(&second.pid), "the task's process was there before the task");
    drop(first.process);
    drop(second.process);
    drop(spawner);
    until("the spawner is gone, and so are its spares", || !is_alive(spawner_pid)).await;
    mark.gone().await;
}

#[tokio::test]
async fn a_spare_that_died_while_it_waited_costs_no_task() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(2);
    let plan = sh(&mark, "sleep 1000");
    let first = spawner.launch(&plan).await.expect("sh can be launched");
    let spawner_pid = parent(parent(first.pid));
    spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    let spares = || spares(spawner_pid, first.pid);
    until("the spares are there", || spares().iter().flat_map(|init| children(*init)).count() == 2)
        .await;
    // A leader of one, and the task-init of the other.
    let dead = spares();
    let leaders: Vec<i32> = dead.iter().flat_map(|init| children(*init)).collect();
    kill(leaders[0]);
    kill(dead[1]);
    // A leader outlives its task-init by a moment, in which it still holds the socket.
    until("all are gone", || dead.iter().chain(&leaders).all(|pid| !is_alive(*pid))).await;
    for _ in 0..3 {
        let launched = spawner.launch(&plan).await.expect("another is forked");
        drop(launched.process);
    }
    drop(first.process);
    mark.gone().await;
}

#[tokio::test]
async fn the_spawners_death_ends_no_task_and_the_next_launch_starts_another() {
    let mark = Mark::new();
    let spawner = spawner();
    let plan = sh(&mark, "sleep 1000");
    let mut first = spawner.launch(&plan).await.expect("sh can be launched");
    let old = parent(parent(first.pid));
    kill(old);
    until("the spawner is dead", || !is_alive(old)).await;
    let mut second = spawner.launch(&plan).await.expect("a new spawner is started");
    assert_ne!(parent(parent(second.pid)), old);
    assert!(is_alive(first.pid));
    for launched in [&mut first, &mut second] {
        launched.process.signal(Signal::Kill).expect("it runs");
        assert_eq!(
            launched.process.wait().await.expect("its end is known").status,
            ExitStatus::Signaled(9)
        );
    }
    mark.assert_none_alive();
}

#[tokio::test]
async fn a_service_managers_and_a_terminals_signals_do_not_end_spawner_or_task_init() {
    let mark = Mark::new();
    let mut launched = launch(&mark).await;
    let task_init = parent(launched.pid);
    for pid in [task_init, parent(task_init)] {
        for signal in
            [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT, nix::sys::signal::SIGHUP]
        {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is alive");
        }
    }
    launched.process.signal(Signal::Polite(15)).expect("it runs");
    // It is task-init that says how its leader ended.
    assert_eq!(
        launched.process.wait().await.expect("its end is known").status,
        ExitStatus::Signaled(15)
    );
    mark.assert_none_alive();
}

/// How a helper worker starts its task.
const HELPER: &str = "RUNLANE_TEST_HELPER";

/// The mark of that task.
const HELPER_MARK: &str = "RUNLANE_TEST_HELPER_MARK";

/// This test binary again, as a worker that starts a task, says so and waits.
struct Helper {
    worker: Child,
    _output: BufReader<ChildStdout>,
}

impl Helper {
    async fn start(mark: &Mark, how: &str) -> Self {
        let mut worker = Command::new(std::env::current_exe().expect("the tests have a file"))
            .args(["--exact", "process::lifetime::helper_worker"])
            .args(["--ignored", "--nocapture"])
            .env(HELPER, how)
            .env(HELPER_MARK, &mark.0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests can be started again");
        let mut output = BufReader::new(worker.stdout.take().expect("it is piped"));
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let said = lines.any(|line| line.ends_with("task is running"));
        let helper = Self { worker, _output: output };
        assert!(said, "the helper ended before its task was running");
        // In the moment of its execve a process has no environment to be found by.
        until("leader, child and daemon run", || mark.alive().len() == 3).await;
        helper
    }

    /// Kills it as nothing can be caught, and leaves it to be reaped.
    fn kill(&mut self) {
        self.worker.kill().expect("it runs");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.worker.kill().ok();
        self.worker.wait().ok();
    }
}

#[tokio::test]
#[ignore = "not a test: the worker that the tests below kill"]
async fn helper_worker() {
    let Ok(how) = std::env::var(HELPER) else {
        return;
    };
    let mark = Mark(std::env::var(HELPER_MARK).expect("it comes with the other"));
    let _task: Box<dyn std::any::Any> = if how == "runlane" {
        Box::new(launch(&mark).await)
    } else {
        let mut plain = Command::new("sh");
        plain.args(["-c", TREE]).env(MARK, &mark.0).process_group(0);
        Box::new(plain.spawn().expect("sh can be started"))
    };
    writeln!(std::io::stdout(), "task is running").expect("the test listens");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_tasks_with_it_in_a_tenth_of_a_second() {
    let mut fastest = Duration::MAX;
    // A busy machine may be late once.
    for _ in 0..3 {
        let mark = Mark::new();
        let mut helper = Helper::start(&mark, "runlane").await;
        let leader = mark.alive().into_iter().min().expect("there are three");
        let spawner = parent(parent(leader));
        helper.kill();
        fastest = fastest.min(mark.gone().await);
        until("its spawner is gone", || !is_alive(spawner)).await;
    }
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test]
async fn negative_control_without_task_init_a_killed_worker_leaves_its_tasks() {
    let mark = Mark::new();
    let helper = Helper::start(&mark, "plain").await;
    drop(helper);
    assert_eq!(mark.alive().len(), 3);
    mark.clean_up();
    mark.gone().await;
}

#[tokio::test]
async fn a_work_directory_is_another_tasks_only_if_nobody_has_touched_it() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut places = Vec::new();
    let touches = ["touch x", "touch x; rm x", "chmod 755 .", "mkdir ../y"];
    // Each to a directory that was made just now, and to one that is older than a clock's ticks.
    let older = "sleep 0.2";
    let touches: Vec<&str> =
        touches.iter().flat_map(|touch| ["", *touch, older, *touch, ""]).collect();
    for touch in &touches {
        let mut plan = sh(&mark, &format!("pwd; ls -A; stat -c %a .; {touch}"));
        plan.sandbox.enclosure.work_root = Some(root.path().to_owned());
        plan.cwd = None;
        let mut launched = spawner.launch(&plan).await.expect("sh can be launched");
        places.push(line(&mut launched.stdout).await);
        assert_eq!(line(&mut launched.stdout).await, "700", "nothing is in it: {places:?}");
        launched.process.wait().await.expect("its end is known");
        assert!(spawner.keep(launched.process, &plan.sandbox));
        spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    }
    for (at, touch) in touches.iter().enumerate().take(touches.len() - 1) {
        let is_same = places[at] == places[at + 1];
        assert_eq!(is_same, ["", older].contains(touch), "{at}, {touch:?}: {places:?}");
    }
    drop(spawner);
    let entries = || std::fs::read_dir(root.path()).expect("it is there").count();
    until("the last one is removed", || entries() == 0).await;
}

#[tokio::test]
async fn an_armed_task_executes_nothing_until_the_word_and_never_if_it_is_dropped() {
    let mark = Mark::new();
    let spawner = spawner().with_spares(1);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (dropped, launched) = (directory.path().join("a"), directory.path().join("b"));
    let plan = |file: &std::path::Path| sh(&mark, &format!("echo x > {}; exit 3", file.display()));
    assert!(spawner.arm(&plan(&dropped)).await.is_none(), "nothing waits");
    spawner.prepare(&plan(&dropped).sandbox).await.expect("the spawner starts");
    drop(spawner.arm(&plan(&dropped)).await.expect("a spare waits"));
    spawner.prepare(&plan(&launched).sandbox).await.expect("the spawner lives");
    let armed = spawner.arm(&plan(&launched)).await.expect("a spare waits");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let word = Word::default();
    assert!(!launched.exists() && !dropped.exists() && !word.is_given());
    let mut task =
        spawner.launch_armed(Some(armed), &plan(&launched), &word, drop).await.expect("it starts");
    assert!(word.is_given());
    let exit = task.process.wait().await.expect("its end is known");
    assert_eq!(exit.status, ExitStatus::Exited(3));
    assert!(launched.exists() && !dropped.exists());
    // A setup that fails is told as that of a launch is.
    let mut bad = plan(&launched);
    bad.cwd = Some(directory.path().join("missing"));
    spawner.prepare(&bad.sandbox).await.expect("the spawner lives");
    let armed = spawner.arm(&bad).await.expect("a spare waits");
    let error = spawner
        .launch_armed(Some(armed), &bad, &Word::default(), drop)
        .await
        .expect_err("there is no directory");
    assert_eq!(error.step(), "chdir");
}

#[tokio::test]
async fn the_start_of_a_short_program_is_reported_with_its_end_and_that_of_a_long_one_before() {
    let mark = Mark::new();
    let spawner = spawner();
    let mut tries = 0;
    // On a busy host one may take longer than it is waited for.
    loop {
        let launched = spawner.launch(&sh(&mark, "exit 7")).await.expect("sh can be launched");
        let Launched { mut process, started_at, .. } = launched;
        let with_its_end = process.has_ended();
        let exit = process.wait().await.expect("its end is known");
        assert_eq!(exit.status, ExitStatus::Exited(7));
        assert!(started_at <= jiff::Timestamp::now());
        if with_its_end {
            break;
        }
        tries += 1;
        assert!(tries < 200, "a shell takes less than 5 ms once in so many times");
    }
    for _ in 0..3 {
        let launched = spawner.launch(&sh(&mark, "exec sleep 1000")).await;
        let Launched { mut process, .. } = launched.expect("sh can be launched");
        assert!(!process.has_ended());
        process.signal(Signal::Kill).expect("it is there");
        let exit = process.wait().await.expect("its end is known");
        assert_eq!(exit.status, ExitStatus::Signaled(9));
        // The next one is its task-init's, too.
        assert!(spawner.keep(process, &sh(&mark, "").sandbox));
    }
    mark.gone().await;
}
