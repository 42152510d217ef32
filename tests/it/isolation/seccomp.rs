//! System call filters, by calling.

use nix::errno::Errno;
use nix::libc;
use runlane::exec::ExitStatus;
use runlane::task::{Sandbox, Seccomp};

use super::{
    PYTHON, is_root, plain_users_spawner, program, python, refused, run, run_by, shell, skipped,
    succeeded,
};

/// Prints the error of each call `name:number:arguments…` of the command line.
const CALL: &str = r#"
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
for call in sys.argv[1:]:
    name, *numbers = call.split(":")
    ctypes.set_errno(0)
    libc.syscall(*[ctypes.c_long(int(number)) for number in numbers])
    print(name, errno.errorcode.get(ctypes.get_errno(), "done"))
"#;

/// Calls that root may make, with arguments that get errors of their own: EFAULT, EINVAL, EBADF, ….
const DENIED: [(&str, libc::c_long, &str); 14] = [
    ("mount", libc::SYS_mount, "1:1:0:0:0"),
    ("umount2", libc::SYS_umount2, "1:0"),
    ("pivot_root", libc::SYS_pivot_root, "1:1"),
    ("fsopen", libc::SYS_fsopen, "1:0"),
    ("setns", libc::SYS_setns, "-1:0"),
    ("unshare", libc::SYS_unshare, "134217728"), // CLONE_NEWIPC
    ("bpf", libc::SYS_bpf, "-1:0:0"),
    ("perf_event_open", libc::SYS_perf_event_open, "1:0:0:-1:0"),
    ("keyctl", libc::SYS_keyctl, "-1:0:0:0:0"),
    ("add_key", libc::SYS_add_key, "1:1:0:0:0"),
    ("finit_module", libc::SYS_finit_module, "-1:1:0"),
    ("syslog", libc::SYS_syslog, "-1:0:0"),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, "-1:1:0"),
    ("clock_settime", libc::SYS_clock_settime, "-1:1"),
];

fn filtered(seccomp: Option<Seccomp>) -> Sandbox {
    Sandbox { seccomp, no_new_privs: true, ..Sandbox::default() }
}

async fn call(seccomp: Option<Seccomp>, calls: &[(&str, libc::c_long, &str)]) -> Vec<String> {
    let calls =
        calls.iter().map(|(name, number, arguments)| format!("{name}:{number}:{arguments}"));
    let calls: Vec<_> = calls.collect();
    let arguments: Vec<_> = calls.iter().map(String::as_str).collect();
    let printed = python(&filtered(seccomp), CALL, &arguments).await;
    printed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_the_profile_denies_is_not_permitted_even_to_root() {
    if !is_root("calls that only root may make") {
        return;
    }
    let expected = DENIED.map(|(name, _, _)| format!("{name} EPERM"));
    assert_eq!(call(Some(Seccomp::Standard), &DENIED).await, expected);
    // The control: without the filter each call gets further.
    let free = call(None, &DENIED).await;
    let same: Vec<_> = free.iter().filter(|line| line.ends_with("EPERM")).collect();
    assert!(same.is_empty(), "{free:?}");
}

#[tokio::test]
async fn io_uring_and_clone3_seem_not_to_exist() {
    let calls =
        [("io_uring_setup", libc::SYS_io_uring_setup, "0:0"), ("clone3", libc::SYS_clone3, "0:0")];
    let missing = ["io_uring_setup ENOSYS", "clone3 ENOSYS"];
    assert_eq!(call(Some(Seccomp::Standard), &calls).await, missing);
    assert_ne!(call(None, &calls[1..]).await, missing[1..]);
}

#[tokio::test]
async fn strict_denies_tracing_and_rare_sockets_which_standard_allows() {
    let calls = [
        ("ptrace", libc::SYS_ptrace, "0:0:0:0"),
        ("netlink", libc::SYS_socket, "16:3:12"),
        ("sctp", libc::SYS_socket, "2:5:132"),
        ("route", libc::SYS_socket, "16:3:0"),
        ("tcp", libc::SYS_socket, "2:1:0"),
    ];
    let strict = call(Some(Seccomp::Strict), &calls).await;
    let expected =
        ["ptrace EPERM", "netlink EAFNOSUPPORT", "sctp EAFNOSUPPORT", "route done", "tcp done"];
    assert_eq!(strict, expected);
    let standard = call(Some(Seccomp::Standard), &calls).await;
    assert_eq!(standard[0], "ptrace done");
    assert!(!standard[1].ends_with("EAFNOSUPPORT"), "{standard:?}");
}

/// Runs machine code that is given in hexadecimal, as a function.
#[cfg(target_arch = "x86_64")]
const RUN_CODE: &str = r#"
import ctypes, mmap, sys
code = bytes.fromhex(sys.argv[1])
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print(ctypes.CFUNCTYPE(ctypes.c_long)(address)() > 0)
"#;

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_32_bit_call_ends_the_process() {
    // mov eax, 20 (getpid); int 0x80; ret
    let arguments = ["-c", RUN_CODE, "b814000000cd80c3"];
    let (mark, plan) = program(&filtered(Some(Seccomp::Standard)), PYTHON, &arguments);
    assert_eq!(run(&mark, &plan).await.exit.status, ExitStatus::Signaled(libc::SIGSYS));
    let (mark, plan) = program(&filtered(None), PYTHON, &arguments);
    let free = run(&mark, &plan).await;
    if free.exit.status != ExitStatus::Exited(0) {
        skipped(0, "the control of 32-bit calls", "this kernel has none");
        return;
    }
    assert_eq!(free.stdout, "True\n");
}

#[tokio::test]
async fn the_filter_is_on_and_never_sets_no_new_privs_by_itself() {
    let script = "import re; text = open('/proc/self/status').read(); \
                  print(re.findall(r'(?:NoNewPrivs|Seccomp|Seccomp_filters):\\s*(\\d+)', text))";
    let sandbox = filtered(Some(Seccomp::Standard));
    assert_eq!(python(&sandbox, script, &[]).await, "['1', '2', '1']\n");
    if !is_root("a filter without no_new_privs") {
        return;
    }
    let sandbox = Sandbox { no_new_privs: false, ..sandbox };
    assert_eq!(python(&sandbox, script, &[]).await, "['0', '2', '1']\n");
    let (_directory, spawner) = plain_users_spawner();
    let refusal = refused(&spawner, &sandbox).await;
    assert_eq!(refusal, ("seccomp".to_owned(), Errno::EACCES as i32));
}

#[tokio::test]
async fn a_plain_users_task_makes_no_user_namespace_though_its_worker_could() {
    if !is_root("a plain user's namespaces") {
        return;
    }
    let (_directory, spawner) = plain_users_spawner();
    let script = "unshare --user true 2>/dev/null && echo made; true";
    for (seccomp, expected) in [(Some(Seccomp::Standard), ""), (None, "made\n")] {
        let (mark, plan) = shell(&filtered(seccomp), script);
        assert_eq!(succeeded(run_by(&spawner, &mark, &plan).await), expected);
    }
}
