//! What a task finds when it starts, and what is said when it can't.

use std::fs;
use std::os::fd::IntoRawFd;
use std::path::Path;

use runlane::exec::{ExitStatus, LaunchError, Launched, Process};
use runlane::task::Program;

use super::{Mark, command, executable, line, plan, run, sh, spawner};
use crate::support::proc::group_and_session;

#[tokio::test]
async fn output_comes_on_its_stream_and_the_exit_code_is_the_leaders() {
    let mark = Mark::new();
    let run = run(&mark, &sh(&mark, "echo out; echo err >&2; exit 7")).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(run.exit.status, ExitStatus::Exited(7));
    assert_eq!(run.exit.leftovers_killed, 0);
}

#[tokio::test]
async fn a_leader_that_dies_of_a_signal_says_which_real_time_signals_too() {
    for signal in [9, 6, 40] {
        let mark = Mark::new();
        let run = run(&mark, &sh(&mark, &format!("kill -{signal} $$"))).await;
        assert_eq!(run.exit.status, ExitStatus::Signaled(signal));
    }
}

#[tokio::test]
async fn the_environment_is_the_plans_and_nothing_else() {
    let mark = Mark::new();
    let mut plan = plan(&mark, command("env", &[]));
    plan.env.push(("EMPTY".to_owned(), String::new()));
    plan.env.push(("WITH".to_owned(), "a=b c".to_owned()));
    let run = run(&mark, &plan).await;
    let expected: Vec<_> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn standard_input_is_at_its_end_and_arguments_arrive_unchanged() {
    let mark = Mark::new();
    assert_eq!(run(&mark, &plan(&mark, command("cat", &[]))).await.stdout, "");
    let arguments = ["%s|", "", "a b", "$HOME", "ü\n", "--"];
    let run = run(&mark, &plan(&mark, command("printf", &arguments))).await;
    assert_eq!(run.stdout, "|a b|$HOME|ü\n|--|");
}

#[tokio::test]
async fn the_working_directory_is_the_plans_and_relative_programs_start_there() {
    let directory = tempfile::tempdir().unwrap();
    executable(&directory.path().join("here"), "#!/bin/sh\npwd -P\n");
    let mark = Mark::new();
    let mut plan = plan(&mark, command("./here", &[]));
    let cwd = fs::canonicalize(directory.path()).unwrap();
    plan.cwd = Some(cwd.clone());
    assert_eq!(run(&mark, &plan).await.stdout.trim_end(), cwd.to_str().unwrap());
}

#[tokio::test]
async fn the_leader_leads_a_session_and_a_group_of_its_own() {
    let mark = Mark::new();
    let Launched { pid, mut process, mut stdout, .. } =
        spawner().launch(&sh(&mark, "echo $$; exec sleep 1000")).await.unwrap();
    assert_eq!(line(&mut stdout).await, pid.to_string());
    assert_eq!(group_and_session(pid), (pid, pid));
    process.signal(runlane::exec::Signal::Kill).unwrap();
    assert_eq!(process.wait().await.unwrap().status, ExitStatus::Signaled(9));
    mark.assert_none_alive();
}

#[tokio::test]
async fn no_descriptor_of_the_worker_leaks_into_the_task() {
    // One that execve would not close: dup clears the flag.
    let leaky = nix::unistd::dup(fs::File::open("/proc/version").unwrap()).unwrap().into_raw_fd();
    assert!(leaky >= 3);
    let mark = Mark::new();
    let run = run(&mark, &sh(&mark, "ls /proc/$$/fd; readlink /proc/$$/fd/0")).await;
    assert_eq!(run.stdout, "0\n1\n2\n/dev/null\n");
}

#[tokio::test]
async fn signals_umask_and_oom_score_are_the_defaults() {
    let mark = Mark::new();
    let status = run(&mark, &plan(&mark, command("cat", &["/proc/self/status"]))).await.stdout;
    for line in ["Umask:\t0022", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(status.lines().any(|found| found == line), "no {line} in {status}");
    }
    let score = run(&mark, &plan(&mark, command("cat", &["/proc/self/oom_score_adj"]))).await;
    assert_eq!(score.stdout, "0\n");
}

#[tokio::test]
async fn the_task_can_read_no_variable_of_the_worker_from_its_ancestors() {
    let mark = Mark::new();
    // Its own parents up to the worker: task-init and spawner.
    let script = "p=$PPID; for i in 1 2; do tr '\\0' '\\n' </proc/$p/environ; \
                  p=$(sed 's/.*) //' /proc/$p/stat | cut -d' ' -f2); done";
    let run = run(&mark, &sh(&mark, script)).await;
    let names: Vec<_> = run.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["TMPDIR", "TMPDIR"]);
}

#[tokio::test]
async fn usage_is_that_of_the_whole_tree() {
    let mark = Mark::new();
    let busy = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; true";
    let usage = run(&mark, &sh(&mark, busy)).await.exit.usage;
    assert!(usage.user.as_millis() >= 20, "{usage:?}");
    assert!((500_000..100_000_000).contains(&usage.max_rss_bytes), "{usage:?}");
}

#[tokio::test]
async fn a_task_that_can_not_start_names_the_step_the_path_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), "echo hi\n").unwrap();
    executable(Path::new(&path("garbage")), "\u{7f}not a program");
    executable(Path::new(&path("orphan")), "#!/no/such/interpreter\n");
    let cases = [
        (command("nope", &[]), r#"exec: cannot run "nope": not found in PATH /usr/bin:/bin"#.to_owned()),
        (command("/no/pe", &[]), r#"exec: cannot run "/no/pe": no such file or directory"#.to_owned()),
        (command(&path("plain"), &[]), format!("exec: cannot run {:?}: permission denied", path("plain"))),
        (command("/", &[]), r#"exec: cannot run "/": is a directory"#.to_owned()),
        (command(&path("plain/x"), &[]), format!("exec: cannot run {:?}: not a directory", path("plain/x"))),
        (
            command(&path("garbage"), &[]),
            format!("exec: cannot run {:?}: not in an executable format; a script needs a first line like #!/bin/sh", path("garbage")),
        ),
        (
            command(&path("orphan"), &[]),
            format!("exec: cannot run {:?}: the interpreter that its first line names was not found", path("orphan")),
        ),
        (
            script_argument(200_000),
            r#"exec: cannot run "sh": an argument has 200000 bytes, and Linux takes at most 131071"#.to_owned(),
        ),
        (command("a\0b", &[]), "exec: a zero byte at offset 10 of an argument or variable".to_owned()),
    ];
    for (program, message) in cases {
        let mark = Mark::new();
        let mut plan = plan(&mark, program);
        plan.env[0].1 = "/usr/bin:/bin".to_owned();
        let error = spawner().launch(&plan).await.expect_err(&message);
        assert_eq!(error.to_string(), message);
        assert!(error.is_permanent(), "{message}");
    }
}

#[tokio::test]
async fn a_missing_working_directory_is_the_step_chdir() {
    let mark = Mark::new();
    let mut plan = sh(&mark, "true");
    plan.cwd = Some("/no/such/directory".into());
    let error = spawner().launch(&plan).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"chdir: cannot enter "/no/such/directory": no such file or directory"#
    );
    assert_eq!((error.step(), error.is_permanent()), ("chdir", true));
}

#[tokio::test]
async fn a_spawner_that_is_no_runlane_is_a_passing_error() {
    for program in ["/no/such/program", "/bin/true"] {
        let mark = Mark::new();
        let spawner = runlane::exec::Spawner::of_program(Path::new(program));
        let error = spawner.launch(&sh(&mark, "true")).await.unwrap_err();
        assert!(
            matches!(error, LaunchError::Spawner { .. } | LaunchError::Interrupted(_)),
            "{error:?}"
        );
        assert_eq!((error.step(), error.is_permanent()), ("spawner", false));
    }
}

#[tokio::test]
async fn hundreds_of_launches_at_once_share_one_spawner() {
    let spawner = spawner();
    let mut launches = tokio::task::JoinSet::new();
    for code in 0..200 {
        let spawner = spawner.clone();
        launches.spawn(async move {
            let plan = sh(&Mark::new(), &format!("exit {code}"));
            let mut launched = spawner.launch(&plan).await.unwrap();
            (launched.process.wait().await.unwrap().status, code)
        });
    }
    for (status, code) in launches.join_all().await {
        assert_eq!(status, ExitStatus::Exited(code));
    }
}

fn script_argument(length: usize) -> Program {
    let body = "#".repeat(length);
    Program::ScriptArgument {
        command: "sh".to_owned(),
        flag: "-c".to_owned(),
        body,
        args: Vec::new(),
    }
}
