//! Ordinary programs go on working in a sandbox.

use super::*;
use std::process::{Command, Stdio};

/// Each prints `ok` as its last line.
const PROGRAMS: [(&str, &str); 11] = [
    ("sh", "(echo a | cat | wc -l) && echo ok"),
    ("bash", "bash -c 'diff <(echo a) <(echo a) && echo ok'"),
    (
        "python3",
        r#"python3 -c '
import multiprocessing, socket, subprocess, threading, tempfile, concurrent.futures as f
assert subprocess.check_output(["echo", "hi"], text=True) == "hi\n"
t = threading.Thread(target=lambda: None); t.start(); t.join()
with multiprocessing.get_context("fork").Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]
with f.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as e: assert e.submit(abs, -1).result() == 1
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); c.close()
socket.getaddrinfo("localhost", 80)
tempfile.TemporaryFile().write(b"x")
print("ok")'"#,
    ),
    (
        "node",
        r#"node -e '
const fs = require("fs"), { execSync } = require("child_process"), { Worker } = require("worker_threads");
if (execSync("echo hi").toString() !== "hi\n") process.exit(1);
if (Object.keys(require("os").networkInterfaces()).length < 1) process.exit(2);
new Worker("process.exit(0)", { eval: true }).on("exit", () =>
  fs.promises.writeFile("x", "y").then(() => fs.promises.readFile("x")).then(() => console.log("ok")));'"#,
    ),
    (
        "git",
        "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q a && cd a && echo x >f && git add f && \
         git -c user.name=a -c user.email=a@b commit -qm x && cd .. && git clone -q a b && \
         test -f b/f && echo ok",
    ),
    (
        "cc",
        "printf '#include <stdio.h>\\nint main(void){puts(\"ok\");return 0;}' >m.c && cc -o m m.c && ./m",
    ),
    (
        "tar",
        "mkdir t && echo 1 >t/f && tar czf t.tgz t && rm -r t && tar xzf t.tgz && cat t/f && echo ok",
    ),
    ("strace", "strace -f -o s sh -c 'true | true' && grep -q execve s && echo ok"),
    (
        "gdb",
        "gdb -q -batch -ex 'break _exit' -ex run -ex 'info registers' -ex kill /bin/true >g && grep -q Breakpoint g && echo ok",
    ),
    ("perl", "perl -e 'fork // die; print qq(ok\\n) if wait > 0'"),
    ("runlane", "runlane --version && echo ok"),
];

#[tokio::test]
async fn ordinary_programs_work_in_the_standard_sandbox() {
    for (name, script) in PROGRAMS {
        works(&preset(Preset::Standard), name, script).await;
    }
}

#[tokio::test]
async fn ordinary_programs_work_in_the_strict_sandbox_but_those_that_trace() {
    for (name, script) in PROGRAMS {
        if ["strace", "gdb"].contains(&name) {
            continue;
        }
        works(&preset(Preset::Strict), name, script).await;
    }
}

async fn works(sandbox: &Sandbox, name: &str, script: &str) {
    if !installed(name) {
        skipped(0, name, "it isn't installed");
        return;
    }
    let (_directory, path) = open_directory();
    let (mark, mut plan) = shell(sandbox, script);
    plan.cwd = Some(path.clone());
    plan.env.push(("TMPDIR".to_owned(), path.to_str().expect("it is text").to_owned()));
    let programs =
        std::path::Path::new(env!("CARGO_BIN_EXE_runlane")).parent().expect("it is in a directory");
    plan.env[0].1 = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
    let run = run(&mark, &plan).await;
    let last = run.stdout.lines().last();
    assert_eq!(last, Some("ok"), "{name}: {:?} {} {}", run.exit.status, run.stdout, run.stderr);
}

fn installed(name: &str) -> bool {
    let version = if name == "sh" { "-c" } else { "--version" };
    let quiet = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let mut command =
        Command::new(if name == "runlane" { env!("CARGO_BIN_EXE_runlane") } else { name });
    command.arg(version).args((name == "sh").then_some("true"));
    quiet(command).is_ok_and(|status| status.success())
}
