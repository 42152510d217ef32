//! The dev server: a real nats-server, found or fetched, started, restarted, stopped.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runlane::devserver::{DevServer, DevServerError, DevServerOptions, Fetch, FindOptions, find};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::nats::{TestServer, binary, is_alive};
use crate::support::proc::{self, DEADLINE, children, until};

async fn stream_with_one_message(server: &TestServer) {
    let jetstream = server.jetstream().await;
    let config = stream::Config {
        name: "KEEP".to_owned(),
        subjects: vec!["keep.>".to_owned()],
        ..stream::Config::default()
    };
    jetstream.create_stream(config).await.expect("JetStream works");
    let ack = jetstream.publish("keep.a", "kept".into()).await.expect("published");
    ack.await.expect("stored");
}

async fn messages_kept(server: &TestServer) -> u64 {
    let stream = server.jetstream().await.get_stream("KEEP").await;
    stream.expect("the stream is there").cached_info().state.messages
}

async fn until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} survived");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_started_server_has_jetstream_and_takes_8_mib_payloads() {
    let server = TestServer::start().await;
    let connected = server.connect().await;
    assert_eq!(connected.server.max_payload, 8 * 1024 * 1024);
    stream_with_one_message(&server).await;
    assert_eq!(messages_kept(&server).await, 1);
    let pid = server.pid();
    drop(server);
    until_gone(pid).await;
}

#[tokio::test]
async fn a_restart_keeps_port_and_data_after_a_stop_and_after_a_crash() {
    let mut server = TestServer::start().await;
    let url = server.url();
    stream_with_one_message(&server).await;
    let first = server.pid();
    server.restart().await;
    assert!(!is_alive(first));
    assert_eq!((server.url(), messages_kept(&server).await), (url.clone(), 1));
    let second = server.pid();
    server.kill().await;
    assert!(!is_alive(second));
    server.restart().await;
    assert_eq!((server.url(), messages_kept(&server).await), (url, 1));
}

#[tokio::test]
async fn stop_ends_the_process_and_frees_the_directory() {
    let dir = tempfile::tempdir().expect("temp dir");
    let options = DevServerOptions::new(binary().await, dir.path());
    let server = DevServer::start(options.clone()).await.expect("starts");
    let pid = server.pid();
    server.stop().await.expect("stops");
    assert!(!is_alive(pid));
    let again = DevServer::start(options).await.expect("starts again");
    again.stop().await.expect("stops again");
}

#[tokio::test]
async fn the_server_is_in_its_own_process_group() {
    let server = TestServer::start().await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("alive");
    // proc_pid_stat(5): after the name come state, parent, group.
    let group = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2));
    assert_eq!(group, Some(server.pid().to_string().as_str()));
}

#[tokio::test]
async fn the_server_leaves_half_of_the_cores_to_the_worker_unless_it_is_told() {
    let server = TestServer::start().await;
    let environment = std::fs::read(format!("/proc/{}/environ", server.pid())).expect("it runs");
    let mut variables = environment.split(|byte| *byte == 0);
    let cores = variables.find_map(|variable| variable.strip_prefix(b"GOMAXPROCS="));
    let half = std::thread::available_parallelism().expect("known").get().div_ceil(2);
    let expected = std::env::var("GOMAXPROCS").unwrap_or_else(|_| half.to_string());
    assert_eq!(cores, Some(expected.as_bytes()));
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_and_names_the_first() {
    let dir = tempfile::tempdir().expect("temp dir");
    let options = DevServerOptions::new(binary().await, dir.path());
    let first = DevServer::start(options.clone()).await.expect("starts");
    let error = DevServer::start(options).await.expect_err("in use");
    assert!(
        matches!(error, DevServerError::InUse { pid: Some(pid), .. } if pid == first.pid()),
        "{error}"
    );
}

#[tokio::test]
async fn a_taken_port_and_a_wrong_configuration_show_the_servers_own_words() {
    let first = TestServer::start().await;
    let port = first.url().rsplit(':').next().and_then(|port| port.parse().ok());
    let dir = tempfile::tempdir().expect("temp dir");
    let mut options = DevServerOptions::new(binary().await, dir.path());
    options.port = port;
    let error = DevServer::start(options.clone()).await.expect_err("taken").to_string();
    assert!(error.contains("address already in use"), "{error}");
    options.port = None;
    options.extra_config = "no_such_option: 1".to_owned();
    let error = DevServer::start(options).await.expect_err("wrong").to_string();
    assert!(error.contains("no_such_option"), "{error}");
}

#[tokio::test]
async fn two_fetches_at_once_leave_one_whole_binary() {
    let cache = tempfile::tempdir().expect("temp dir");
    let options = FindOptions {
        cache_dir: Some(cache.path().to_owned()),
        fetch: Fetch::Allowed,
        ..FindOptions::default()
    };
    let (first, second) = tokio::join!(find(&options), find(&options));
    let (first, second) = (first.expect("fetched"), second.expect("fetched"));
    assert_eq!(first, second);
    let left: Vec<_> = std::fs::read_dir(cache.path()).expect("made").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let refused = FindOptions { fetch: Fetch::Refused, ..options };
    let cached = find(&refused).await.expect("from the cache");
    assert_eq!(cached.path, first.path);
    assert!(Path::new(&cached.path).starts_with(cache.path()));
}

/// `runlane dev` on a free port, ready to be used; returns it with the server's URL.
async fn dev(dir: &Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
    let path = std::env::var_os("PATH").expect("the tests have a PATH");
    command.env_clear().env("PATH", path).env("HOME", dir);
    command.env("RUNLANE_NATS_SERVER", binary().await);
    command.args(["dev", "--port", "0", "--isolation", "none", "--dir"]).arg(dir.join("server"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("it runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("in time").expect("readable");
    let url = line.split_whitespace().find(|word| word.starts_with("nats://"));
    let url = url.unwrap_or_else(|| panic!("{line:?} names its address")).trim_end_matches(',');
    (child, url.to_owned())
}

async fn echo(url: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
    command.args(["run", "--quiet", "--server", url, "--", "echo", "hi"]).stdin(Stdio::null());
    let output = timeout(DEADLINE, command.output()).await.expect("in time").expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hi\n", "{output:?}");
}

#[tokio::test]
async fn runlane_dev_runs_tasks_and_leaves_no_process_however_it_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut child, url) = dev(dir.path()).await;
        echo(&url).await;
        let pid = i32::try_from(child.id().expect("it runs")).expect("a process id");
        let processes = children(pid);
        assert!(processes.len() >= 3, "server, guard and spawner: {processes:?}");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        let status = timeout(DEADLINE, child.wait()).await.expect("in time").expect("it ends");
        assert_eq!(status.code(), (signal == Signal::SIGTERM).then_some(0));
        // The next one on the directory waits for the last one's server.
        let (mut next, url) = dev(dir.path()).await;
        echo(&url).await;
        until("its processes are gone", || !processes.iter().any(|pid| proc::is_alive(*pid))).await;
        next.kill().await.expect("it runs");
    }
}
