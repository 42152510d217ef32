//! Scripts: in a file, or as an argument.

use std::path::Path;

use runlane::exec::ExitStatus;
use runlane::task::Program;

use super::{Mark, plan, run};
use crate::support::proc::until;

/// As long as a script may be, less than what `execve` takes as arguments by far.
const LONG: usize = 1_500_000;

fn script(interpreter: &[&str], body: &str, args: &[&str]) -> Program {
    let owned = |strings: &[&str]| strings.iter().map(|string| (*string).to_owned()).collect();
    Program::ScriptFile {
        interpreter: owned(interpreter),
        body: body.to_owned(),
        args: owned(args),
    }
}

fn long(lines: &str) -> String {
    format!("#{}\n{lines}", "x".repeat(LONG))
}

#[tokio::test]
async fn a_long_bash_script_gets_its_arguments_and_an_empty_standard_input() {
    let mark = Mark::new();
    let body = long("echo \"$0\"; stat -c %a \"$0\" \"${0%/*}\"; cat; echo \"$#:$1:$2\"; exit 3\n");
    let run = run(&mark, &plan(&mark, script(&["bash", "-eu"], &body, &["a b", "-c"]))).await;
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[1..], ["600", "700", "2:a b:-c"], "{}", run.stderr);
    assert_eq!(run.exit.status, ExitStatus::Exited(3));
    let file = Path::new(lines[0]);
    assert!(file.is_absolute(), "{file:?}");
    // After the end is told: nobody waits for it.
    until("the script's directory is removed", || !file.parent().unwrap().exists()).await;
}

#[tokio::test]
async fn a_long_python_script_gets_its_arguments_and_an_empty_standard_input() {
    let mark = Mark::new();
    let body = long(
        "import sys\nprint(sys.argv[1:], repr(sys.stdin.read()), len(open(__file__).read()))\n",
    );
    let run = run(&mark, &plan(&mark, script(&["python3"], &body, &["a", "b c"]))).await;
    assert_eq!(run.stdout, format!("['a', 'b c'] '' {}\n", body.len()), "{}", run.stderr);
}

#[tokio::test]
async fn a_script_without_an_interpreter_there_leaves_no_file_behind() {
    let mark = Mark::new();
    let error = super::spawner()
        .launch(&plan(&mark, script(&["no-such-interpreter"], "body", &[])))
        .await
        .expect_err("there is no such interpreter");
    assert!(error.is_permanent(), "{error}");
    assert!(
        error.to_string().starts_with("exec: cannot run \"no-such-interpreter\": not found"),
        "{error}"
    );
}

#[tokio::test]
async fn a_script_as_an_argument_gets_its_arguments() {
    let mark = Mark::new();
    let program = Program::ScriptArgument {
        command: "sh".to_owned(),
        flag: "-c".to_owned(),
        body: "echo \"$0:$1\"; cat".to_owned(),
        args: vec!["zero".to_owned(), "one".to_owned()],
    };
    assert_eq!(run(&mark, &plan(&mark, program)).await.stdout, "zero:one\n");
}
