//! Namespaces, mounts and work directories, looked at from inside; each with the same look without.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runlane::exec::{ExitStatus, LaunchError, Process, Spawner};
use runlane::task::{Enclosure, LaunchPlan, Mounts, Namespaces, Sandbox};

use super::{Mark, command, line, plan, run, sh, spawner};
use crate::support::proc::{parent, until};

fn enclosed(mark: &Mark, enclosure: Enclosure, script: &str) -> LaunchPlan {
    let sandbox = Sandbox { enclosure, ..Sandbox::default() };
    LaunchPlan { sandbox, ..sh(mark, script) }
}

/// Without root they can be made in a user namespace, as a worker's host probe would find.
fn namespaces() -> Namespaces {
    Namespaces { user: !nix::unistd::geteuid().is_root(), ..Namespaces::default() }
}

async fn says(mark: &Mark, enclosure: Enclosure, script: &str) -> String {
    let run = run(mark, &enclosed(mark, enclosure, script)).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(0), "{}{}", run.stdout, run.stderr);
    run.stdout.trim_end().to_owned()
}

#[tokio::test]
async fn each_namespace_is_new_only_if_it_is_asked_for() {
    let own = |name: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("the kernel has it");
        link.to_string_lossy().into_owned()
    };
    let names = ["user", "pid", "mnt", "ipc", "uts", "net"];
    let script = "for n in user pid mnt ipc uts net; do readlink /proc/self/ns/$n; done";
    let new = |at: usize| Namespaces {
        user: at == 0 || namespaces().user,
        pid: at == 1,
        mount: at == 2,
        ipc: at == 3,
        uts: at == 4,
        network: at == 5,
    };
    for (at, name) in names.iter().enumerate() {
        let mark = Mark::new();
        let enclosure = Enclosure { namespaces: new(at), ..Enclosure::default() };
        let said = says(&mark, enclosure, script).await;
        for (line, other) in said.lines().zip(names) {
            let is_new = line != own(other);
            assert_eq!(is_new, other == *name || other == "user" && new(at).user, "{name}: {line}");
        }
    }
}

fn pid_namespace() -> Enclosure {
    let namespaces = Namespaces { pid: true, mount: true, ..namespaces() };
    Enclosure { namespaces, ..Enclosure::default() }
}

#[tokio::test]
async fn a_pid_namespace_shows_the_task_and_nothing_else() {
    let mark = Mark::new();
    let script =
        "for d in /proc/[0-9]*; do echo ${d#/proc/}; done | sort -n | tr '\\n' ' '; echo; echo $$";
    let said = says(&mark, pid_namespace(), script).await;
    let (listed, own) = said.split_once('\n').expect("two lines");
    let listed: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(&listed[..2], ["1", own], "{said}");
    assert!(listed.len() <= 5, "the shell and its pipeline at most: {said}");
    let outside = says(&mark, Enclosure::default(), "echo $$").await;
    assert!(outside.parse::<i32>().expect("a number") > 5);
}

#[tokio::test]
async fn the_worker_knows_the_leader_of_a_pid_namespace_by_its_own_number() {
    let mark = Mark::new();
    let plan = enclosed(&mark, pid_namespace(), "echo ready; sleep 1000");
    let spawner = spawner().with_spares(0);
    let mut launched = spawner.launch(&plan).await.expect("it can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    assert!(mark.alive().contains(&launched.pid));
    drop(launched.process);
    mark.gone().await;
}

#[tokio::test]
async fn daemons_in_a_pid_namespace_die_with_their_leader_and_are_counted() {
    let mark = Mark::new();
    let script = "setsid -f sleep 1000; setsid -f sleep 1000; sleep 1000 & exit 3";
    let run = run(&mark, &enclosed(&mark, pid_namespace(), script)).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(3));
    assert_eq!(run.exit.leftovers_killed, 3);
}

#[tokio::test]
async fn a_killed_first_process_takes_its_pid_namespace_with_it() {
    let mark = Mark::new();
    let plan = enclosed(&mark, pid_namespace(), "setsid -f sleep 1000; echo ready; sleep 1000");
    let mut launched = spawner().launch(&plan).await.expect("it can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    let init = nix::unistd::Pid::from_raw(parent(launched.pid));
    nix::sys::signal::kill(init, nix::sys::signal::SIGKILL).expect("it is there");
    launched.process.wait().await.expect_err("nobody can say how it ended");
    mark.gone().await;
}

#[tokio::test]
async fn a_network_namespace_has_a_loopback_interface_of_its_own_and_no_other() {
    let mark = Mark::new();
    let namespaces = Namespaces { network: true, ..namespaces() };
    let enclosure = Enclosure { namespaces, ..Enclosure::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    let script = format!(
        "python3 - <<'E'\nimport socket\nprint([n for _, n in socket.if_nameindex()])\n\
         s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
         socket.create_connection(s.getsockname()).close()\n\
         try:\n    socket.create_connection(('127.0.0.1', {port})); print('reached')\n\
         except OSError as e: print(type(e).__name__)\nE"
    );
    let said = says(&mark, enclosure, &script).await;
    let (names, reached) = said.split_once('\n').expect("two lines");
    assert!(names.starts_with("['lo'"), "{names}");
    assert_eq!(reached, "ConnectionRefusedError");
    let outside = says(&mark, Enclosure::default(), &script).await;
    assert!(outside.ends_with("\nreached"), "{outside}");
}

fn mounts(mounts: Mounts) -> Enclosure {
    let namespaces = Namespaces { mount: true, ..namespaces() };
    Enclosure { namespaces, mounts, ..Enclosure::default() }
}

#[tokio::test]
async fn a_private_tmp_is_empty_and_nothing_of_it_stays() {
    let mark = Mark::new();
    let file = tempfile::Builder::new().tempfile_in("/tmp").expect("it is writable");
    let name = file.path().display();
    let script = format!(
        "[ -e {name} ] && echo there; ls -A /tmp /var/tmp; echo x > {name}2; stat -c %a /tmp"
    );
    let private = Mounts { private_tmp: true, ..Mounts::default() };
    let said = says(&mark, mounts(private), &script).await;
    assert!(!said.contains("there") && said.ends_with("1777"), "{said}");
    assert!(!Path::new(&format!("{name}2")).exists());
    let public = says(&mark, mounts(Mounts::default()), &script).await;
    assert!(public.starts_with("there"), "{public}");
    std::fs::remove_file(format!("{name}2")).expect("without a private /tmp it is ours");
}

#[tokio::test]
async fn a_private_dev_shm_is_empty() {
    let mark = Mark::new();
    let file = tempfile::Builder::new().tempfile_in("/dev/shm").expect("it is writable");
    let script = format!("[ -e {} ] && echo there; true", file.path().display());
    let private = Mounts { private_dev_shm: true, ..Mounts::default() };
    assert_eq!(says(&mark, mounts(private), &script).await, "");
    assert_eq!(says(&mark, mounts(Mounts::default()), &script).await, "there");
}

#[tokio::test]
async fn a_read_only_root_leaves_what_was_excepted_writable() {
    let mark = Mark::new();
    let (fixed, open) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (fixed, open) = (fixed.path(), open.path());
    let script = format!(
        "touch {f}/x 2>/dev/null && echo fixed; touch {o}/x && echo open; chmod 700 {f} 2>/dev/null \
         && echo chmod; echo > /dev/null && echo null; true",
        f = fixed.display(),
        o = open.display()
    );
    let read_only =
        Mounts { read_only_root: true, read_write: vec![open.to_owned()], ..Mounts::default() };
    assert_eq!(says(&mark, mounts(read_only), &script).await, "open\nnull");
    let rest = says(&mark, mounts(Mounts::default()), &script).await;
    assert_eq!(rest, "fixed\nopen\nchmod\nnull");
}

#[tokio::test]
async fn a_read_only_path_is_read_only_and_one_that_is_missing_is_named() {
    let mark = Mark::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let script = format!("touch {}/x 2>/dev/null && echo written; true", path.display());
    let read_only = Mounts { read_only: vec![path], ..Mounts::default() };
    assert_eq!(says(&mark, mounts(read_only), &script).await, "");
    let missing = Mounts { read_only: vec!["/no/such/path".into()], ..Mounts::default() };
    let refused = spawner().launch(&enclosed(&mark, mounts(missing), "true")).await;
    let error = refused.expect_err("there is nothing to mount");
    assert_eq!(error.step(), "mounts");
    assert!(error.to_string().contains("/no/such/path"), "{error}");
}

#[tokio::test]
async fn hidden_files_and_directories_are_empty() {
    let mark = Mark::new();
    let directory = tempfile::tempdir().unwrap();
    let (file, below) = (directory.path().join("file"), directory.path().join("below"));
    std::fs::write(&file, "secret").unwrap();
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("x"), "secret").unwrap();
    let script = format!("cat {}; cat {}/x 2>/dev/null; true", file.display(), below.display());
    let missing = directory.path().join("missing");
    let hidden = Mounts { hidden: vec![file, below, missing], ..Mounts::default() };
    assert_eq!(says(&mark, mounts(hidden), &script).await, "");
    assert_eq!(says(&mark, mounts(Mounts::default()), &script).await, "secretsecret");
}

#[tokio::test]
async fn other_workers_work_directories_are_hidden_with_the_root_that_all_share() {
    let mark = Mark::new();
    let root = tempfile::tempdir().unwrap();
    let (own, other) = (root.path().join("own"), root.path().join("other"));
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&other).unwrap();
    let script = format!("ls {}; touch f && echo writable", root.path().display());
    for (hidden, seen) in [(vec![root.path().to_owned()], "own"), (Vec::new(), "other\nown")] {
        let enclosure = Enclosure {
            work_root: Some(own.clone()),
            ..mounts(Mounts { hidden, read_only_root: true, ..Mounts::default() })
        };
        let plan = LaunchPlan { cwd: None, ..enclosed(&mark, enclosure, &script) };
        let run = run(&mark, &plan).await;
        assert_eq!(run.stdout, format!("{seen}\nwritable\n"), "{}", run.stderr);
    }
}

#[tokio::test]
async fn in_a_strict_enclosure_the_kernels_switches_are_read_only() {
    let mark = Mark::new();
    let mut enclosure = mounts(Mounts { read_only_root: true, ..Mounts::default() });
    enclosure.namespaces.pid = true;
    let script = "cat /proc/sys/kernel/core_pattern > /dev/null; \
                  ( : > /proc/sys/kernel/core_pattern ) 2>/dev/null && echo written; \
                  ( : > /proc/sysrq-trigger ) 2>/dev/null && echo trigger; true";
    assert_eq!(says(&mark, enclosure, script).await, "");
}

fn work(root: &Path) -> Enclosure {
    Enclosure { work_root: Some(root.to_owned()), ..Enclosure::default() }
}

#[tokio::test]
async fn a_work_directory_is_private_the_tasks_home_and_start_and_is_removed_with_everything() {
    let mark = Mark::new();
    let root = tempfile::tempdir().unwrap();
    let mut plan = enclosed(
        &mark,
        work(root.path()),
        "pwd -P; echo $HOME; stat -c %a .; mkdir -p shut/below; touch shut/below/f; chmod 0 shut",
    );
    plan.cwd = None;
    let run = run(&mark, &plan).await;
    let lines: Vec<&str> = run.stdout.lines().collect();
    let real = std::fs::canonicalize(root.path()).unwrap();
    assert!(Path::new(lines[0]).starts_with(&real), "{lines:?}");
    assert!(lines[1].ends_with("/work") && lines[2] == "700", "{lines:?}");
    until("it is removed", || !Path::new(lines[0]).exists()).await;
}

#[tokio::test]
async fn the_work_directory_of_a_task_is_removed_after_its_workers_handle_is_dropped() {
    let mark = Mark::new();
    let root = tempfile::tempdir().unwrap();
    let mut plan = enclosed(&mark, work(root.path()), "touch f; echo ready; sleep 1000");
    plan.cwd = None;
    let spawner = Spawner::of_program(Path::new(env!("CARGO_BIN_EXE_runlane"))).with_spares(1);
    let mut launched = spawner.launch(&plan).await.expect("it can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    spawner.prepare(&plan.sandbox).await.expect("the spawner lives");
    drop(launched.process);
    drop(spawner);
    // The spare's directory too.
    until("nothing is left", || std::fs::read_dir(root.path()).unwrap().count() == 0).await;
    mark.gone().await;
}

#[tokio::test]
async fn other_tasks_work_directories_are_hidden_in_a_mount_namespace() {
    let mark = Mark::new();
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::create_dir(root.path().join("other")).unwrap();
    let script = format!("ls {} | grep -c other; touch f && echo writable", root.path().display());
    for (mount, read_only_root, others) in
        [(true, true, "0"), (true, false, "0"), (false, false, "1")]
    {
        let namespaces = Namespaces { mount, ..namespaces() };
        let mounts = Mounts { read_only_root, private_tmp: mount, ..Mounts::default() };
        let enclosure = Enclosure { namespaces, mounts, ..work(root.path()) };
        let mut plan = enclosed(&mark, enclosure, &script);
        plan.cwd = None;
        let run = run(&mark, &plan).await;
        assert_eq!(run.stdout, format!("{others}\nwritable\n"), "{}", run.stderr);
    }
}

#[tokio::test]
async fn a_work_root_that_is_missing_is_named() {
    let mark = Mark::new();
    let mut plan = plan(&mark, command("true", &[]));
    plan.sandbox.enclosure = work(Path::new("/no/such/root"));
    let error = spawner().launch(&plan).await.expect_err("there is no place");
    assert!(matches!(&error, LaunchError::Setup { step, .. } if step == "work_dir"), "{error:?}");
    assert!(error.to_string().contains("/no/such/root"), "{error}");
}
