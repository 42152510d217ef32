//! `runlane bench` end to end, with tiny numbers: figures that can be true, and nothing left behind.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::nats::{TestServer, binary};
use crate::support::proc::{DEADLINE, children, is_alive, until};

/// The binary with a directory for what it makes, and nothing else of the environment.
async fn bench(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
    let path = std::env::var_os("PATH").expect("the tests have a PATH");
    command.env_clear().env("PATH", path).env("TMPDIR", dir).env("HOME", dir);
    command.env("RUNLANE_NATS_SERVER", binary().await);
    command.arg("bench").args(args).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs one scenario in one round and returns its report.
async fn report(args: &[&str]) -> Value {
    let dir = directory();
    let more = ["--quick", "--rounds", "1", "--json", "-"];
    let args: Vec<&str> = args.iter().copied().chain(more).collect();
    let output = bench(dir.path(), &args).await.output().await.expect("it runs");
    assert!(output.status.success(), "{args:?}: {}", err(&output));
    assert_clean(dir.path());
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["format"], 1);
    assert_documented(&report);
    report
}

/// Every field of a report is in the one of docs/performance.md, at its place.
#[track_caller]
fn assert_documented(report: &Value) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let blocks = page.split("```json").skip(1).filter_map(|rest| rest.split("```").next());
    let documented = blocks.filter_map(|block| serde_json::from_str::<Value>(block).ok());
    let documented = documented.into_iter().find(|block| block["format"] == 1).expect("a report");
    assert_in(report, &documented, "");
}

#[track_caller]
fn assert_in(value: &Value, documented: &Value, place: &str) {
    match value {
        Value::Object(fields) => {
            // A figure's own fields are described once.
            let is_figure = fields.contains_key("median");
            for (name, field) in fields.iter().filter(|_| !is_figure) {
                let place = format!("{place}.{name}");
                assert!(documented.get(name).is_some(), "{place} is not documented");
                assert_in(field, &documented[name], &place);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| assert_in(item, &documented[0], place));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// No directory of the bench is left, and no file but the worker's own places.
#[track_caller]
fn assert_clean(dir: &Path) {
    let entries = std::fs::read_dir(dir).expect("the directory is there").flatten();
    let names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let left: Vec<&String> =
        names.iter().filter(|name| name.starts_with("runlane-bench-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A figure's median, which lies between its smallest and its largest value.
#[track_caller]
fn median(value: &Value) -> f64 {
    let part = |name: &str| value[name].as_f64().unwrap_or_else(|| panic!("{name}: {value}"));
    let (min, median, max) = (part("min"), part("median"), part("max"));
    assert!(min <= median && median <= max && value["rounds"][0].is_f64(), "{value}");
    median
}

#[tokio::test]
async fn limits_are_those_of_a_machine_and_the_report_says_which() {
    let report = report(&["limits"]).await;
    let limits = &report["limits"];
    assert!(median(&limits["spawnsPerSecond"]) > 10.0);
    let (p50, p99) = (median(&limits["idleSpawnP50Ms"]), median(&limits["idleSpawnP99Ms"]));
    assert!(p50 > 0.05 && p50 <= p99, "{p50} {p99}");
    assert!(median(&limits["spawnCpuMs"]) > 0.05);
    assert!(median(&limits["pipeMegabytesPerSecond"]) > 10.0);
    assert!(median(&limits["natsRoundTripP50Ms"]) > 0.005);
    let facts = &report["facts"];
    assert_eq!(facts["runlaneVersion"], env!("CARGO_PKG_VERSION"));
    assert!(facts["natsServerVersion"].as_str().is_some_and(|version| version.starts_with("2.")));
    assert!(facts["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
    assert!(!facts["machine"]["kernel"].as_str().unwrap_or_default().is_empty());
}

#[tokio::test]
async fn tasks_per_second_are_below_the_limit_and_their_cpu_time_is_all_accounted_for() {
    let report = report(&["throughput", "--tasks", "40", "--concurrency", "2"]).await;
    assert_eq!(
        (&report["facts"]["storage"], &report["facts"]["isolation"]),
        (&"file".into(), &"standard".into())
    );
    let measured = &report["throughput"][0];
    assert_eq!((measured["concurrency"].as_u64(), measured["tasks"].as_u64()), (Some(2), Some(40)));
    let rate = median(&measured["tasksPerSecond"]);
    let of_limit = median(&measured["ofLimit"]);
    let limit = median(&measured["limitSpawnsPerSecond"]);
    assert!(rate > 1.0 && of_limit > 0.0 && of_limit < 1.0, "{measured}");
    assert!((rate / limit - of_limit).abs() < 1e-6, "{measured}");
    let cpu = &measured["cpuMsPerTask"];
    let parts = ["worker", "supervisorsAndTasks", "natsServer", "client"];
    let sum: f64 = parts.iter().map(|part| median(&cpu[part])).sum();
    assert!((sum - median(&cpu["total"])).abs() < 1e-6, "{cpu}");
    for part in parts {
        assert!(median(&cpu[part]) > 0.0, "{part}: {cpu}");
    }
}

#[tokio::test]
async fn a_task_takes_longer_than_a_bare_spawn() {
    let report = report(&["latency", "--tasks", "5"]).await;
    let latency = &report["latency"];
    let ratio = median(&latency["outcomeP50Ms"]) / median(&latency["spawnP50Ms"]);
    assert!(ratio > 1.0, "{latency}");
    assert!((median(&latency["timesSpawn"]["outcomeP50"]) - ratio).abs() < 1e-6, "{latency}");
    assert!(median(&latency["firstByteP50Ms"]) < median(&latency["followedOutcomeP50Ms"]) + 50.0);
    assert!(median(&latency["outcomeP50Ms"]) <= median(&latency["outcomeMaxMs"]));
}

#[tokio::test]
async fn output_is_compared_and_cancel_and_submit_are_measured() {
    let (output, cancel, submit) = tokio::join!(
        report(&["output", "--megabytes", "3"]),
        report(&["cancel", "--tasks", "2"]),
        report(&["submit", "--count", "500"]),
    );
    assert_eq!(output["output"]["byteIdentical"], true);
    assert_eq!(output["output"]["bytes"], 3_000_000);
    assert!(median(&output["output"]["linesMegabytesPerSecond"]) > 0.1);
    let compressed = &output["output"]["compressed"];
    assert!(median(&compressed["zerosMegabytesPerSecond"]) > 0.1);
    assert!(median(&compressed["cpuMsPerMegabyte"]["worker"]) > 0.0);
    assert!(median(&cancel["cancel"]["deadP50Ms"]) > 0.05);
    assert!(median(&cancel["cancel"]["daemonsDeadP50Ms"]) > 0.05);
    assert!(median(&submit["submit"]["specsPerSecond"]) > 10.0);
    assert_eq!(submit["submit"]["count"], 500);
}

#[tokio::test]
async fn an_idle_worker_has_memory_and_each_task_adds_some() {
    let report = report(&["idle", "--tasks", "4", "--lanes", "3"]).await;
    let idle = &report["idle"];
    let worker = median(&idle["workerPssMegabytes"]);
    assert!(worker > 1.0 && median(&idle["spawnerPssMegabytes"]) < worker, "{idle}");
    assert!(median(&idle["cpuPercentManyLanes"]) < 100.0, "{idle}");
}

#[tokio::test]
async fn curves_have_every_size_and_a_picture() {
    let plots = directory();
    let of = "lanes,queued,finished,workers,running,followers,chunks";
    let dir = plots.path().to_str().expect("a UTF-8 path");
    let mut args = vec!["growth", "--tiny", "--of", of, "--plots", dir];
    args.extend(["--json", "-"]);
    let home = directory();
    let output = bench(home.path(), &args).await.output().await.expect("it runs");
    assert!(output.status.success(), "{}", err(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_documented(&report);
    let curves = report["growth"].as_array().expect("curves");
    let names: Vec<&str> = curves.iter().filter_map(|curve| curve["name"].as_str()).collect();
    assert_eq!(names.join(","), of);
    for curve in curves {
        let sizes = curve["sizes"].as_array().expect("sizes").len();
        assert!(sizes >= 2, "{curve}");
        for series in curve["series"].as_array().expect("series") {
            assert_eq!(series["values"].as_array().map(Vec::len), Some(sizes), "{series}");
        }
    }
    for name in names {
        let svg = std::fs::read_to_string(plots.path().join(format!("{name}.svg")));
        assert!(svg.expect("a picture").ends_with("</svg>\n"), "{name}");
    }
}

/// What a process calls itself.
fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Starts a bench that takes long, and waits until its worker and its tasks run. Returns the processes
/// that are its.
async fn busy(command: &mut Command) -> (Child, Vec<i32>) {
    let child = command.spawn().expect("it runs");
    let pid = i32::try_from(child.id().expect("it runs")).expect("a process id");
    let is_spawner = |pid: &i32| name(*pid) == "runlane-spawner\n";
    let of_worker = || children(pid).into_iter().find(|it| children(*it).iter().any(is_spawner));
    let start = Instant::now();
    while of_worker().is_none() {
        assert!(start.elapsed() < DEADLINE * 6, "the worker has no spawner");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worker = of_worker().expect("it was there");
    let mut all = children(pid);
    all.extend(children(worker));
    (child, all)
}

/// Signals it, and waits for its end and for that of all its processes.
async fn interrupt(child: Child, signal: Signal, processes: &[i32]) {
    let pid = i32::try_from(child.id().expect("it runs")).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it runs");
    let start = Instant::now();
    let output = tokio::time::timeout(DEADLINE * 6, child.wait_with_output()).await;
    let output = output.expect("it ends").expect("it can be waited for");
    assert_eq!(output.status.code(), Some(130), "{:?}: {}", start.elapsed(), err(&output));
    // What was killed as it ended may take a moment to die.
    until("its processes are gone", || !processes.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn an_interrupted_bench_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = directory();
        let args = ["throughput", "--rounds", "1000", "--quick"];
        let (child, processes) = busy(&mut bench(dir.path(), &args).await).await;
        assert!(processes.len() >= 3, "server, worker and spawner: {processes:?}");
        interrupt(child, signal, &processes).await;
        assert_clean(dir.path());
    }
}

#[tokio::test]
async fn a_killed_bench_leaves_no_process() {
    let dir = directory();
    let args = ["throughput", "--rounds", "1000", "--quick"];
    let (mut child, processes) = busy(&mut bench(dir.path(), &args).await).await;
    let guards = || processes.iter().filter(|pid| name(**pid) == "runlane-guard\n").count();
    until("the server and the worker have a guard each", || guards() == 2).await;
    // SIGKILL.
    child.kill().await.expect("it runs");
    until("its processes are gone", || !processes.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn a_bench_whose_server_dies_says_so_at_once_and_leaves_nothing() {
    let dir = directory();
    let args = ["throughput", "--rounds", "1000", "--quick"];
    let (child, processes) = busy(&mut bench(dir.path(), &args).await).await;
    let is_server = |pid: &&i32| name(**pid).starts_with("nats-server");
    let server = processes.iter().find(is_server).expect("it has a server");
    kill(Pid::from_raw(*server), Signal::SIGKILL).expect("it runs");
    // Much sooner than the time after which missing outcomes are an error, or a worker is not waited for.
    let output = tokio::time::timeout(Duration::from_secs(5), child.wait_with_output()).await;
    let output = output.expect("it ends").expect("it can be waited for");
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
    assert!(err(&output).contains("nats-server has ended in the middle"), "{}", err(&output));
    until("its processes are gone", || !processes.iter().any(|pid| is_alive(*pid))).await;
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_server_that_is_there_gets_its_streams_removed() {
    let server = TestServer::start().await;
    let url = server.url();
    let place = ["--against", "server", "--server", &url];
    let dir = directory();
    let args = [&["latency", "--tasks", "2", "--rounds", "1"][..], &place].concat();
    let output = bench(dir.path(), &args).await.output().await.expect("it runs");
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(streams(&server).await, 0);
    // And when it is interrupted, too.
    let args = [&["throughput", "--rounds", "1000", "--quick"][..], &place].concat();
    let (child, processes) = busy(&mut bench(dir.path(), &args).await).await;
    assert!(streams(&server).await > 0, "it works on this server");
    interrupt(child, Signal::SIGTERM, &processes).await;
    assert_eq!(streams(&server).await, 0);
    assert_clean(dir.path());
}

async fn streams(server: &TestServer) -> usize {
    let account = server.jetstream().await.query_account().await.expect("the server answers");
    account.streams
}

#[tokio::test]
async fn workers_that_are_there_run_the_tasks_and_the_records_are_removed() {
    let server = TestServer::start().await;
    let url = server.url();
    let dir = directory();
    let runlane = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir.path());
        command.args(args).args(["--server", &url]).kill_on_drop(true).stdin(Stdio::null());
        command
    };
    let mut worker = runlane(&["worker", "--label", "bench=yes", "--capacity", "2"]);
    let mut worker = worker.stderr(Stdio::null()).spawn().expect("it runs");
    let init = runlane(&["init"]).output().await.expect("it runs");
    assert!(init.status.success(), "{}", err(&init));
    let args = ["throughput", "--tasks", "10", "--rounds", "1", "--json", "--server", &url];
    let args = [&args[..], &["--against", "workers", "--runner", "bench=yes"]].concat();
    let output = bench(dir.path(), &args).await.output().await.expect("it runs");
    assert!(output.status.success(), "{}", err(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["facts"]["against"], "workers");
    assert_eq!(report["throughput"][0]["concurrency"], Value::Null);
    assert!(median(&report["throughput"][0]["tasksPerSecond"]) > 0.1);
    let listed = runlane(&["ls", "--json"]).output().await.expect("it runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
    assert!(worker.try_wait().expect("it can be asked").is_none(), "the worker lives");
    worker.kill().await.expect("it is killed");
}

#[tokio::test]
async fn a_wrong_command_line_says_what_is_wrong() {
    let dir = directory();
    for (args, sentence) in [
        (&["limts"][..], "no scenario"),
        (&["throughput", "--concurrency", "2,0"], "--concurrency is 0"),
        (&["latency", "--tasks", "0"], "--tasks is 0"),
        (&["latency", "--runner", "gpu=a100"], "--against workers"),
        (&["latency", "--against", "workers", "--runner", "gpu in"], "--runner"),
        (&["cancel", "--against", "workers"], "needs a worker of its own"),
        (&["limits", "--rounds", "0"], "--rounds"),
        (&["output", "--megabytes", "much"], "--megabytes"),
    ] {
        let output = bench(dir.path(), args).await.output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(sentence), "{args:?}: {}", err(&output));
    }
    assert_clean(dir.path());
}
