//! Capabilities in all five sets, and no_new_privs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use runlane::task::isolation::Preset;
use runlane::task::{Identity, Sandbox, UserIds};

use super::{
    AS_NOBODY, NOBODY, fields, is_root, open_directory, plain_users_spawner, preset, prints,
    python, refused, run_by, shell, spawner_by, status, succeeded,
};

const NOTHING: &str = "0000000000000000";

fn keeping(names: &[&str]) -> Sandbox {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Sandbox { capabilities: Some(names), no_new_privs: true, ..Sandbox::default() }
}

fn as_nobody(sandbox: Sandbox) -> Sandbox {
    let identity = Identity { user: UserIds::One(NOBODY), gid: None, groups: Vec::new() };
    Sandbox { identity: Some(identity), ..sandbox }
}

#[tokio::test]
async fn root_keeps_what_is_listed_in_every_set_and_nothing_else() {
    if !is_root("capabilities of root") {
        return;
    }
    // CAP_CHOWN 0, CAP_DAC_OVERRIDE 1, CAP_FOWNER 3, CAP_FSETID 4, CAP_KILL 5, CAP_SETGID 6,
    // CAP_SETUID 7, CAP_NET_BIND_SERVICE 10, CAP_SETFCAP 31.
    let field = status(&preset(Preset::Standard)).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "00000000800004fb", "{set}");
    }
    assert_eq!(field("CapAmb"), NOTHING);
    let field = status(&keeping(&[])).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), NOTHING, "{set}");
    }
}

#[tokio::test]
async fn another_user_keeps_what_is_listed_through_switch_and_execve() {
    if !is_root("capabilities through a switch") {
        return;
    }
    // CAP_NET_BIND_SERVICE 10, CAP_SYSLOG 34: the kernel has them in two halves.
    let field = status(&as_nobody(keeping(&["CAP_NET_BIND_SERVICE", "CAP_SYSLOG"]))).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000400000400", "{set}");
    }
    let back = "import os; os.setuid(0)";
    let kept = as_nobody(keeping(&["CAP_SETUID"]));
    assert_eq!(python(&kept, &format!("{back}; print(os.getuid())"), &[]).await, "0\n");
    let field = status(&as_nobody(keeping(&[]))).await;
    assert_eq!((field("CapPrm"), field("CapAmb")), (NOTHING.to_owned(), NOTHING.to_owned()));
}

#[tokio::test]
async fn what_is_listed_is_only_an_upper_bound() {
    if !is_root("capabilities of a plain user's worker") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    let (mark, plan) = shell(&keeping(&["CAP_SETUID"]), "cat /proc/self/status");
    let field = fields(succeeded(run_by(&spawner, &mark, &plan).await));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), NOTHING, "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
}

#[tokio::test]
async fn a_worker_that_can_not_cut_the_bounding_set_gives_nothing_more_all_the_same() {
    if !is_root("a worker with some capabilities") {
        return;
    }
    // Root in a container without CAP_SETPCAP.
    let (_directory, spawner) = spawner_by("setpriv --bounding-set=-setpcap");
    let (mark, plan) = shell(&keeping(&["CAP_CHOWN"]), "cat /proc/self/status");
    let field = fields(succeeded(run_by(&spawner, &mark, &plan).await));
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(field(set), "0000000000000001", "{set}");
    }
    // A plain user to whom systemd's AmbientCapabilities= gave two.
    let two = "+chown,+net_bind_service";
    let user = format!("{AS_NOBODY},{two} --ambient-caps={two}");
    let (_directory, spawner) = spawner_by(&user);
    let (mark, plan) = shell(&keeping(&["CAP_CHOWN"]), "cat /proc/self/status");
    let field = fields(succeeded(run_by(&spawner, &mark, &plan).await));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000001", "{set}");
    }
}

#[tokio::test]
async fn a_bounding_set_that_can_not_be_cut_is_refused_without_no_new_privs() {
    if !is_root("a plain user's bounding set") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    let sandbox = Sandbox { no_new_privs: false, ..keeping(&[]) };
    let refusal = refused(&spawner, &sandbox).await;
    assert_eq!(refusal, ("bounding".to_owned(), Errno::EPERM as i32));
}

#[tokio::test]
async fn a_set_user_id_program_gives_nothing_with_no_new_privs_and_does_without() {
    if !is_root("a set-user-id program") {
        return;
    }
    let (_directory, path) = open_directory();
    let program = path.join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let script = format!("{} -u", program.display());
    let sandbox = as_nobody(Sandbox { no_new_privs: true, ..Sandbox::default() });
    assert_eq!(prints(&sandbox, &script).await, "65534\n");
    // The control: the program and its file system could do it.
    let sandbox = as_nobody(Sandbox::default());
    assert_eq!(prints(&sandbox, &script).await, "0\n");
}
