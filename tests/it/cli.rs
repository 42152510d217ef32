//! The real binary without a server: help, usage, checks, and the local executor.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary, without anything of the environment that could change what it does.
fn runlane() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlane"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    runlane().args(args).output().expect("the binary runs")
}

fn run_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut command = runlane();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input).expect("it reads its input");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits by itself")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("the file is written");
    path.to_str().expect("a UTF-8 path").to_owned()
}

#[test]
fn help_names_every_verb_and_every_exit_code() {
    let help = run(&["--help"]);
    assert_eq!(code(&help), 0);
    let text = out(&help);
    for verb in [
        "dev",
        "worker",
        "init",
        "run",
        "submit",
        "exec",
        "logs",
        "wait",
        "cancel",
        "status",
        "ls",
        "workers",
        "lanes",
        "check",
        "schema",
        "completions",
    ] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(verb)), "{verb}\n{text}");
    }
    for code in ["124", "126", "127", "130", "64", "65", "69", "75", "78", "128+N"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(code)), "{code}\n{text}");
    }
}

#[test]
fn each_flag_of_the_connection_names_its_variable() {
    let text = out(&run(&["run", "--help"]));
    for variable in ["RUNLANE_SERVER", "RUNLANE_CREDS", "RUNLANE_NAMESPACE", "RUNLANE_JSON"] {
        assert!(text.contains(variable), "{variable}\n{text}");
    }
}

#[test]
fn a_secret_in_the_environment_is_not_shown_by_help() {
    let help = runlane()
        .args(["run", "--help"])
        .env("RUNLANE_PASSWORD", "hunter2")
        .env("RUNLANE_TOKEN", "hunter2")
        .env("RUNLANE_SERVER", "nats://me:hunter2@host")
        .output()
        .expect("the binary runs");
    assert!(!out(&help).contains("hunter2"));
}

#[test]
fn a_wrong_command_line_is_64() {
    for args in [
        &["fly"][..],
        &[],
        &["run", "--no-such-flag"],
        &["run"],
        &["run", "--id", "a.b", "--", "true"],
        &["ls", "--phase", "sleeping"],
        &["logs"],
        &["wait", "--timeout", "soon", "a"],
        &["schema", "no-such-schema"],
        &["run", "--label", "novalue", "--", "true"],
    ] {
        let output = run(args);
        assert_eq!(code(&output), 64, "{args:?}: {}", err(&output));
        assert!(!err(&output).is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn a_bad_task_is_65_with_every_problem_before_anything_is_connected() {
    let output = run(&["run", "--timeout", "soon", "--cwd", "here", "--", "true"]);
    assert_eq!(code(&output), 65, "{}", err(&output));
    assert!(err(&output).contains("timeout") && err(&output).contains("cwd"), "{}", err(&output));
}

#[test]
fn a_server_that_is_not_there_is_69_with_its_address_and_a_remedy() {
    for args in [&["run", "--", "true"][..], &["ls"], &["check"], &["logs", "a"], &["init"]] {
        // Port 1 of loopback has no listener.
        let mut command = runlane();
        let output = command.args(args).env("NATS_URL", "nats://127.0.0.1:1").output();
        let output = output.expect("the binary runs");
        assert_eq!(code(&output), 69, "{args:?}: {}", err(&output));
        let text = err(&output);
        assert!(text.starts_with("runlane: "), "{text}");
        assert!(text.contains("127.0.0.1:1") && text.contains("runlane dev"), "{text}");
    }
}

#[test]
fn a_flag_beats_the_variable_and_that_beats_nats_url() {
    let output = runlane()
        .args(["ls", "--server", "nats://127.0.0.1:1"])
        .env("RUNLANE_SERVER", "nats://127.0.0.1:2")
        .env("NATS_URL", "nats://127.0.0.1:3")
        .output()
        .expect("the binary runs");
    assert!(err(&output).contains("127.0.0.1:1"), "{}", err(&output));
    let output = runlane()
        .arg("ls")
        .env("RUNLANE_SERVER", "nats://127.0.0.1:2")
        .env("NATS_URL", "nats://127.0.0.1:3")
        .output()
        .expect("the binary runs");
    assert!(err(&output).contains("127.0.0.1:2"), "{}", err(&output));
}

#[test]
fn a_bad_configuration_is_78_with_every_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = write(dir.path(), "good.toml", "[worker]\ncapacity = 2\n");
    let output = run(&["check", &good]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let bad = "[worker]\nname = \"a.b\"\nlease = \"soon\"\n";
    let bad = write(dir.path(), "bad.toml", bad);
    for args in [&["check", &*bad][..], &["worker", "--config", &bad]] {
        let output = run(args);
        assert_eq!(code(&output), 78, "{}", err(&output));
        assert!(err(&output).contains("worker.name"), "{}", err(&output));
        assert!(err(&output).contains("worker.lease"), "{}", err(&output));
    }
    let unknown = write(dir.path(), "unknown.toml", "[worker]\ncapacitee = 2\n");
    let output = run(&["check", &unknown]);
    assert_eq!(code(&output), 78);
    assert!(err(&output).contains("unknown.toml:2"), "{}", err(&output));
    let wrong = ["ls", "--user", "me"];
    assert_eq!(code(&run(&wrong)), 78, "a user without a password");
}

#[test]
fn specs_are_checked_with_place_and_every_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let specs = "{\"command\":[\"a\"]}\n{\"command\":[],\"tiemout\":1}\nnot json\n";
    let file = write(dir.path(), "a.ndjson", specs);
    for args in [&["check", &*file][..], &["submit", &file]] {
        let output = run(args);
        assert_eq!(code(&output), 65, "{}", err(&output));
        let text = err(&output);
        assert!(text.contains("a.ndjson:2") && text.contains("a.ndjson:3"), "{text}");
        assert!(text.contains("$.command") && text.contains("tiemout"), "{text}");
        assert!(!text.contains("a.ndjson:1"), "{text}");
        assert_eq!(out(&output), "", "nothing is queued");
    }
    let output =
        run_with_input(&["check", "-"], b"- command: [echo]\n- script: echo\n  runtime: bash\n");
    assert_eq!((code(&output), out(&output).contains("2 valid")), (0, true), "{}", err(&output));
}

#[test]
fn completions_complete_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("submit"), "{shell}");
    }
}

#[test]
fn schemas_are_listed_printed_and_written() {
    let names = out(&run(&["schema"]));
    assert!(names.lines().count() >= 5, "{names}");
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("made/schemas");
    let output = run(&["schema", "--write", target.to_str().expect("a UTF-8 path")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for name in names.lines() {
        let printed = run(&["schema", name]);
        let json: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("JSON");
        assert!(json.get("$schema").is_some(), "{name}");
        let written = std::fs::read_dir(&target).expect("the directory is there");
        let same = |file: std::io::Result<std::fs::DirEntry>| {
            std::fs::read(file.expect("an entry").path()).expect("a file") == printed.stdout
        };
        assert!(written.into_iter().any(same), "{name}");
    }
}

#[test]
fn exec_is_the_task_with_its_streams_and_its_code() {
    let output = run(&["exec", "--", "sh", "-c", "printf out; printf err >&2; exit 7"]);
    assert_eq!((code(&output), &*out(&output), &*err(&output)), (7, "out", "err"));
    let output = run(&["exec", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(code(&output), 137);
    let output = run(&["exec", "--timeout", "100ms", "--", "sleep", "30"]);
    assert_eq!(code(&output), 124);
    assert_eq!(code(&run(&["exec", "--", "no-such-program"])), 127);
    assert_eq!(code(&run(&["exec", "--", "/no/such/program"])), 127);
    assert_eq!(code(&run(&["exec", "--", "/etc"])), 126);
    assert_eq!(code(&run(&["exec", "--cwd", "/no/such", "--", "true"])), 126);
}

#[test]
fn exec_takes_a_spec_with_flags_over_it() {
    let spec = b"script: echo \"$1 $A $B\"\nruntime: bash\nargs: [x]\nenv: {A: '1', B: '1'}\n";
    let output = run_with_input(&["exec", "--env", "B=2", "-"], spec);
    assert_eq!((code(&output), &*out(&output)), (0, "x 1 2\n"), "{}", err(&output));
}

#[test]
fn exec_hands_on_binary_output_as_it_is() {
    let output = run(&["exec", "--", "sh", "-c", "head -c 300000 /dev/zero; printf '\\377\\376'"]);
    let mut wanted = vec![0; 300_000];
    wanted.extend([0xff, 0xfe]);
    assert!(output.stdout == wanted, "{} bytes", output.stdout.len());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = runlane()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), &*err(&output)), (141, ""));
}

#[test]
fn a_runner_that_this_host_cannot_isolate_is_78_with_feature_reason_and_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let runner =
        "[worker]\ncgroup = \"none\"\n[[runner]]\nname = \"limited\"\nisolation = \"none\"\n";
    let required = format!("{runner}sandbox = {{ cgroup = {{ memory_max = \"1GiB\" }} }}\n");
    let required = write(dir.path(), "required.toml", &required);
    for args in [&["check", &*required][..], &["worker", "--config", &required]] {
        let output = run(args);
        assert_eq!(code(&output), 78, "{args:?}: {}", err(&output));
        let text = err(&output);
        for part in ["runner limited", "cgroup.memory", "worker.cgroup", "best_effort"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let output = run(&["check", "--json", &required]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &json["ok"]), (78, &false.into()));
    let found = &json["runners"][0]["onThisHost"];
    assert_eq!(found["missing"]["cgroup.memory"], "worker.cgroup is \"none\"", "{json}");

    let best_effort = format!(
        "{runner}sandbox = {{ best_effort = [\"cgroup\", \"cgroup.memory\"], cgroup = {{ memory_max = \"1GiB\" }} }}\n"
    );
    let best_effort = write(dir.path(), "best_effort.toml", &best_effort);
    let output = run(&["check", &best_effort]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let text = out(&output);
    assert!(
        text.contains("runner limited, isolation none on this host: ok, without cgroup"),
        "{text}"
    );
}

#[test]
fn the_preset_of_the_flag_beats_that_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    // Without a preset nothing needs it.
    let file =
        "[[runner]]\nname = \"r\"\nisolation = \"none\"\nsandbox = { no_new_privs = false }\n";
    let file = write(dir.path(), "worker.toml", file);
    for (args, variable) in [
        (&["worker", "--config", &*file, "--isolation", "strict"][..], ""),
        (&["worker", "--config", &file], "strict"),
    ] {
        let mut command = runlane();
        command.args(args);
        if !variable.is_empty() {
            command.env("RUNLANE_ISOLATION", variable);
        }
        let output = command.output().expect("the binary runs");
        assert_eq!(code(&output), 78, "{args:?}: {}", err(&output));
        assert!(err(&output).contains("runner[0].sandbox.no_new_privs"), "{}", err(&output));
    }
    assert_eq!(code(&run(&["worker", "--isolation", "lax"])), 64);
    assert_eq!(code(&run(&["run", "--isolation", "lax", "--", "true"])), 64);
}

#[test]
fn wishes_for_isolation_are_checked_before_anything_is_connected() {
    let wrong = ["--memory", "1KB", "--cpu", "half", "--pids", "0"];
    for verb in ["run", "submit", "exec"] {
        let output = run(&[&[verb][..], &wrong, &["--", "true"]].concat());
        assert_eq!(code(&output), 65, "{verb}: {}", err(&output));
        for place in ["$.isolation.memory", "$.isolation.cpu", "$.isolation.pids"] {
            assert!(err(&output).contains(place), "{verb}: {place}: {}", err(&output));
        }
    }
}

#[test]
fn exec_takes_the_preset_of_a_flag() {
    let output = run(&["exec", "--isolation", "none", "--", "echo", "hi"]);
    assert_eq!((code(&output), &*out(&output)), (0, "hi\n"), "{}", err(&output));
}
