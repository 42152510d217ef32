//! What a person sees first: a command runs, and what is wrong is told with its place and remedy.

use std::io::Read as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::timeout;

use super::{DEADLINE, Site, code, ended, err, out};

#[tokio::test]
async fn run_prints_each_line_on_its_stream_and_exits_with_the_tasks_code() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let output = site.cli(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((code(&output), &*out(&output), &*err(&output)), (7, "out\n", "err\n"));
    let output = site.cli(&["run", "--", "true"]).await;
    assert_eq!((code(&output), &*out(&output), &*err(&output)), (0, "", ""));
}

#[tokio::test]
async fn every_way_to_end_has_its_exit_code() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    for (args, wanted, said) in [
        (&["--", "sh", "-c", "kill -9 $$"][..], 137, "signal 9"),
        (&["--timeout", "100ms", "--", "sleep", "1000"], 124, "timeout"),
        (&["--", "no-such-program"], 127, "no-such-program"),
        (&["--", "/etc"], 126, "/etc"),
        (&["--cwd", "/no/such", "--", "true"], 126, "/no/such"),
    ] {
        let output = site.cli(&[&["run"], args].concat()).await;
        assert_eq!(code(&output), wanted, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(said), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
}

#[tokio::test]
async fn a_script_of_1_5_mib_runs() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let filler = format!("# {}\n", "x".repeat(98)).repeat(1_572_864 / 101);
    let script = format!("echo begin $1\n{filler}echo end; exit 3\n");
    assert!(script.len() > 1_500_000);
    let script = site.write("big.sh", script);
    let args = ["run", "--script", &script, "--runtime", "bash", "--", "here"];
    let output = site.cli(&args).await;
    assert_eq!((code(&output), &*out(&output)), (3, "begin here\nend\n"), "{}", err(&output));
}

#[tokio::test]
async fn a_script_that_is_too_large_is_told_with_both_numbers() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let script = site.write("huge.sh", "#\n".repeat(1_500_000));
    let output = site.cli(&["run", "--script", &script]).await;
    assert_eq!(code(&output), 65);
    let text = err(&output);
    assert!(text.contains("3000000") && text.contains("2097152"), "{text}");
}

#[tokio::test]
async fn a_task_that_nobody_knows_is_named_by_every_verb() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    for args in [
        &["status", "nobody"][..],
        &["logs", "nobody"],
        &["cancel", "nobody"],
        &["wait", "nobody", "--timeout", "1s"],
    ] {
        let output = site.cli(args).await;
        assert_ne!(code(&output), 0, "{args:?}");
        assert!(err(&output).contains("nobody"), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
    }
}

#[tokio::test]
async fn a_namespace_that_is_not_set_up_is_78_with_the_remedy() {
    let site = Site::new().await;
    for args in [&["run", "--", "true"][..], &["ls"], &["lanes"], &["check"], &["logs", "a"]] {
        let output = site.cli(args).await;
        assert_eq!(code(&output), 78, "{args:?}: {}", err(&output));
        assert!(err(&output).contains("runlane init"), "{args:?}: {}", err(&output));
    }
}

#[tokio::test]
async fn a_wrong_password_is_69_and_is_not_repeated() {
    let site =
        Site::with_server_config("authorization { user: me, password: \"right one\" }").await;
    let output = site.cli(&["ls", "--user", "me", "--password", "wr0ng"]).await;
    assert_eq!(code(&output), 69, "{}", err(&output));
    assert!(err(&output).contains(&site.server.url()), "{}", err(&output));
    assert!(!err(&output).contains("wr0ng"), "{}", err(&output));
}

#[tokio::test]
async fn a_task_that_nobody_can_take_says_which_label_is_missing() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let id = site.ok(&["submit", "--selector", "gpu=h200", "--", "true"]).await;
    let lanes = site.ok(&["lanes"]).await;
    assert!(lanes.contains("gpu=h200") && lanes.contains("w lacks"), "{lanes}");
    let output = site.cli(&["cancel", id.trim()]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(site.wait(id.trim()).await, 130);
}

#[tokio::test]
async fn a_worker_goes_on_though_nobody_reads_its_log_or_the_reader_is_gone() {
    let site = Site::new().await;
    site.ok(&["init"]).await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let config = site.write("w.toml", "");
    let mut command = site.runlane();
    command.args(["worker", "--name", "w", "--capacity", "4", "--config", &config]);
    let mut worker = command.stderr(writer).spawn().expect("the binary runs");
    // The command holds a writing end of its own.
    drop(command);
    // Two lines for each task, of some 140 bytes: three times what the pipe has room for.
    let specs = site.write("specs", "{\"command\":[\"true\"]}\n".repeat(700));
    let args = ["submit", &specs, "--wait"];
    assert_eq!(code(&site.cli(&args).await), 0, "they end while the log's pipe is full");
    let mut log = vec![0; 65_536];
    let read = reader.read(&mut log).expect("the log can be read");
    assert!(read > 32_768, "it was full: {read}");
    assert_eq!(code(&site.cli(&["run", "--", "true"]).await), 0);
    let read = reader.read(&mut log).expect("the log can be read");
    let log = String::from_utf8_lossy(&log[..read]);
    assert!(log.contains("were dropped: nobody read them in time dropped="), "{log}");
    drop(reader);
    assert_eq!(code(&site.cli(&["run", "--", "sh", "-c", "exit 7"]).await), 7);
    let pid = Pid::from_raw(worker.id().expect("it runs").try_into().expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("it is there");
    let status = timeout(DEADLINE, worker.wait()).await.expect("it ends").expect("it is ours");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// A worker with 60 places, started by a shell after another command.
fn limited(site: &Site, name: &str, first: &str) -> Command {
    let mut command = site.runlane_by("sh");
    let then = format!("{first}; exec \"$0\" worker --name {name} --capacity 60");
    command.args(["-c", &then, env!("CARGO_BIN_EXE_runlane")]);
    command
}

#[tokio::test]
async fn a_worker_has_as_many_open_files_as_it_may_and_its_tasks_what_it_was_given() {
    let site = Site::new().await;
    site.ok(&["init"]).await;
    let _worker = limited(&site, "w", "ulimit -Sn 100").spawn().expect("the shell runs");
    // Each has three files of its worker's open for a second.
    let specs = site
        .write("specs", "{\"script\":\"ulimit -Sn; sleep 1\",\"runtime\":\"bash\"}\n".repeat(60));
    let ids = site.ok(&["submit", &specs, "--wait"]).await;
    let id = ids.lines().last().expect("there are 60");
    assert_eq!(site.ok(&["logs", id]).await, "100\n");
    let worker = limited(&site, "v", "ulimit -n 100").spawn().expect("the shell runs");
    let output = ended(worker).await;
    assert_eq!(code(&output), 78);
    assert!(err(&output).contains("its hard limit is 100"), "{}", err(&output));
}

#[tokio::test]
async fn exec_ends_with_the_reader_of_its_output() {
    let site = Site::new().await;
    let mut shell = Command::new("bash");
    let script = "set -o pipefail; \"$0\" exec -- yes | head -1";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_runlane")]).current_dir(site.path(""));
    shell.stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let output = timeout(DEADLINE, shell.output()).await.expect("it ends").expect("bash runs");
    assert_eq!((code(&output), &*out(&output)), (141, "y\n"));
    let late = ["exec", "--start-by", "2020-01-01T00:00:00Z", "--delay", "1h", "--", "echo", "x"];
    assert_eq!(site.ok(&late).await, "x\n", "times of a start have no effect there");
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_told_by_verbs_that_would_wait_in_it() {
    let site = Site::new().await;
    for args in [
        &["wait", "a"][..],
        &["cancel", "a"],
        &["retry", "a"],
        &["purge", "a"],
        &["status", "a"],
        &["logs", "-f", "a"],
    ] {
        let output = site.cli(&[&["-n", "nowhere"], args].concat()).await;
        assert_eq!(code(&output), 78, "{args:?}: {}", err(&output));
        assert!(err(&output).contains("runlane init"), "{args:?}: {}", err(&output));
    }
    // Its streams would be those of another.
    let output = site.cli(&["-n", "Runlane", "ls"]).await;
    assert_eq!(code(&output), 78, "{}", err(&output));
    assert!(err(&output).contains("use lower case"), "{}", err(&output));
}

#[tokio::test]
async fn status_says_what_a_pending_task_waits_for() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    site.ok(&["submit", "--id", "later", "--delay", "1h", "-l", "team=a", "--", "true"]).await;
    let text = site.ok(&["status", "later"]).await;
    assert!(text.contains("waiting for its time to start: 2"), "{text}");
    assert!(text.contains("(in 59m") && text.contains("labels    team=a"), "{text}");
    site.ok(&["submit", "--id", "has", "--slot", "zz", "--", "sleep", "600"]).await;
    site.ok(&["submit", "--id", "wants", "--slot", "zz", "--admission", "queue", "--", "true"])
        .await;
    let waits = async || site.ok(&["status", "wants"]).await;
    let mut text = waits().await;
    let stands = async {
        while !text.contains("waiting for the slot zz: has has it") {
            text = waits().await;
        }
    };
    timeout(DEADLINE, stands).await.expect("it stands in the line");
    site.ok(&["submit", "--id", "again", "--restart", "on-failure", "--", "false"]).await;
    let retries = async {
        while !site.ok(&["status", "again"]).await.contains("waiting for its time to start") {}
    };
    timeout(DEADLINE, retries).await.expect("its first attempt fails");
}

#[tokio::test]
async fn status_of_a_task_that_has_ended_has_its_labels_and_what_it_runs_again() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    site.ok(&["run", "--id", "first", "-l", "team=a", "--", "true"]).await;
    let id = site.ok(&["retry", "first"]).await.trim().to_owned();
    site.ok(&["wait", &id]).await;
    let text = site.ok(&["status", &id]).await;
    assert!(text.contains("labels    team=a\nretry of  first"), "{text}");
}

#[tokio::test]
async fn a_worker_that_never_lost_its_connection_is_counted_as_connected() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = Site::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let flags = ["--metrics", &address];
    let _worker = site.worker_with("w", "", |command| _ = command.args(flags)).await;
    let mut socket = tokio::net::TcpStream::connect(&address).await.expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("it reads");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("it answers");
    assert!(text.contains("\nrunlane_nats_connected 1\n"), "{text}");
}

#[tokio::test]
async fn a_quiet_run_still_says_why_its_program_could_not_run() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let output = site.cli(&["-q", "run", "--", "no-such-program"]).await;
    assert_eq!(code(&output), 127);
    assert!(err(&output).contains("not found in PATH"), "{}", err(&output));
}
