//! What is denied, and why.
//!
//! Modelled on what Docker's default profile denies a container without added capabilities. Two things
//! that other lists deny stay allowed in `standard`, because ordinary tools need them and something else
//! bounds them: tracing (debuggers, strace), which Landlock keeps inside the task, and setting its own
//! memory policy (numeric libraries). `seccomp` and `landlock_*` stay allowed: they only tighten.

use std::collections::BTreeMap;

use nix::libc::{self, c_long};

use super::program::{Action, Clause, Rule, Test, Verdict};
use crate::task::Seccomp;

/// A denied system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Its name.
    pub name: &'static str,
    /// The first profile that denies it so; `strict` denies all that `standard` does, and more.
    pub profile: Seccomp,
    /// With which arguments. Empty: always.
    pub when: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Everything that the profiles deny on this architecture, in the order of the documentation.
pub fn denied() -> impl Iterator<Item = Denied> {
    groups().flat_map(|(profile, group)| {
        group.calls.iter().map(move |(name, _)| Denied {
            name: name.trim_start_matches("SYS_"),
            profile,
            when: group.when,
            reason: group.reason,
        })
    })
}

/// The actions of a profile by number.
pub(super) fn actions(profile: Seccomp) -> BTreeMap<u32, Action> {
    let groups = groups().filter(|(first, _)| *first <= profile);
    // What comes later in the table, from the stricter profile, replaces.
    let actions = groups.flat_map(|(_, group)| {
        group.calls.iter().map(|(_, number)| (number.cast_unsigned() as u32, group.action))
    });
    actions.collect()
}

struct Group {
    calls: &'static [(&'static str, c_long)],
    action: Action,
    when: &'static str,
    reason: &'static str,
}

fn groups() -> impl Iterator<Item = (Seccomp, &'static Group)> {
    let tagged = |profile| move |group| (profile, group);
    let standard = STANDARD.iter().chain(STANDARD_HERE).map(tagged(Seccomp::Standard));
    standard.chain(STRICT.iter().chain(STRICT_HERE).map(tagged(Seccomp::Strict)))
}

macro_rules! calls {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name)),*] };
}

const EPERM: Action = Action::Errno(libc::EPERM);
const ENOSYS: Action = Action::Errno(libc::ENOSYS);
const NOT_PERMITTED: Verdict = Verdict::Errno(libc::EPERM);
const NO_SUCH_FAMILY: Verdict = Verdict::Errno(libc::EAFNOSUPPORT);

/// Every CLONE_NEW* flag but the time namespace's, whose bit is a signal's in clone.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// CLONE_NEWTIME.
const NEW_TIME_NAMESPACE: u32 = 0x80;
/// The argument of personality(2) that only asks.
const ASK_PERSONALITY: u32 = u32::MAX;
/// PER_LINUX32 (what `uname` says), UNAME26, ADDR_NO_RANDOMIZE (debuggers).
const TAME_PERSONALITIES: u32 = 0x0006_0008;
/// The bits of a socket's type that aren't flags.
const SOCKET_TYPE: u32 = 0xf;
/// In a file's mode: set for both kinds of device and for nothing else that mknod makes.
const DEVICE: u32 = libc::S_IFCHR;

const fn deny_if(clauses: &'static [Clause]) -> Action {
    Action::Ask(Rule { clauses, otherwise: Verdict::Allow })
}

const fn allow(all: &'static [Test]) -> Clause {
    Clause { all, then: Verdict::Allow }
}

const STANDARD: &[Group] = &[
    Group {
        calls: calls![
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_chroot,
            SYS_open_tree,
            SYS_move_mount,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_fspick,
            SYS_mount_setattr,
        ],
        action: EPERM,
        when: "",
        reason: "what is mounted where is not the task's to change",
    },
    Group {
        // Linux 6.15; libc doesn't know it yet.
        calls: &[("SYS_open_tree_attr", 467)],
        action: EPERM,
        when: "",
        reason: "what is mounted where is not the task's to change",
    },
    Group {
        calls: calls![SYS_setns],
        action: EPERM,
        when: "",
        reason: "leaves the task's namespaces",
    },
    Group {
        calls: calls![SYS_unshare],
        action: deny_if(&[Clause {
            all: &[Test::Any(0, NEW_NAMESPACES | NEW_TIME_NAMESPACE)],
            then: NOT_PERMITTED,
        }]),
        when: "with a CLONE_NEW flag",
        reason: "a user namespace gives every capability in it, and so the kernel code that only root reaches",
    },
    Group {
        calls: calls![SYS_clone],
        action: deny_if(&[Clause { all: &[Test::Any(0, NEW_NAMESPACES)], then: NOT_PERMITTED }]),
        when: "with a CLONE_NEW flag",
        reason: "as unshare",
    },
    Group {
        calls: calls![SYS_clone3],
        action: ENOSYS,
        when: "",
        reason: "its flags are in memory, out of a filter's sight; C libraries go on with clone",
    },
    Group {
        calls: calls![SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register],
        action: ENOSYS,
        when: "",
        reason: "does what other system calls do without passing this filter, and has a history of holes",
    },
    Group {
        calls: calls![
            SYS_init_module,
            SYS_finit_module,
            SYS_delete_module,
            SYS_kexec_load,
            SYS_reboot,
            SYS_kexec_file_load,
        ],
        action: EPERM,
        when: "",
        reason: "changes or ends the kernel",
    },
    Group {
        calls: calls![SYS_bpf, SYS_perf_event_open, SYS_userfaultfd],
        action: EPERM,
        when: "",
        reason: "runs code in the kernel, measures it, or holds it up: the tools of kernel exploits",
    },
    Group {
        calls: calls![SYS_syslog, SYS_lookup_dcookie],
        action: EPERM,
        when: "",
        reason: "tells of the host and its other users",
    },
    Group {
        calls: calls![SYS_add_key, SYS_request_key, SYS_keyctl],
        action: EPERM,
        when: "",
        reason: "key rings belong to users and sessions, not to namespaces: a task could read the worker's",
    },
    Group {
        calls: calls![
            SYS_swapon,
            SYS_swapoff,
            SYS_acct,
            SYS_quotactl,
            SYS_quotactl_fd,
            SYS_nfsservctl,
            SYS_vhangup,
            SYS_sethostname,
            SYS_setdomainname,
        ],
        action: EPERM,
        when: "",
        reason: "administers the host",
    },
    Group {
        calls: calls![SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex],
        action: EPERM,
        when: "",
        reason: "the clock is the host's",
    },
    Group {
        calls: calls![SYS_open_by_handle_at, SYS_fanotify_init],
        action: EPERM,
        when: "",
        reason: "reaches files past the permissions of the directories above them",
    },
    Group {
        calls: calls![SYS_move_pages, SYS_migrate_pages],
        action: EPERM,
        when: "",
        reason: "moves the memory of other processes too",
    },
    Group {
        calls: calls![SYS_prlimit64],
        // The pointer to the new limit can't be tested: a filter sees 32 bits at a time.
        action: Action::Ask(Rule {
            clauses: &[allow(&[Test::Is(0, 0)])],
            otherwise: NOT_PERMITTED,
        }),
        when: "but for the process itself, as 0",
        reason: "a limit of CPU time kills, and no Landlock scope keeps it from the worker and other tasks of the same user",
    },
    Group {
        calls: calls![SYS_personality],
        action: deny_if(&[
            allow(&[Test::Is(0, ASK_PERSONALITY)]),
            Clause { all: &[Test::Any(0, !TAME_PERSONALITIES)], then: NOT_PERMITTED },
        ]),
        when: "but to ask, PER_LINUX32, UNAME26, ADDR_NO_RANDOMIZE",
        reason: "switches old behaviour on that hardening relies to be off",
    },
    Group {
        calls: calls![SYS_socket],
        action: deny_if(&[
            Clause { all: &[Test::Is(0, libc::AF_VSOCK.cast_unsigned())], then: NO_SUCH_FAMILY },
            Clause { all: &[Test::Is(0, libc::AF_ALG.cast_unsigned())], then: NO_SUCH_FAMILY },
        ]),
        when: "with AF_VSOCK or AF_ALG",
        reason: "vsock reaches the hypervisor past every network namespace; the kernel's cryptography is rarely used and often broken",
    },
];

#[cfg(target_arch = "x86_64")]
const STANDARD_HERE: &[Group] = &[
    Group {
        calls: calls![SYS_iopl, SYS_ioperm],
        action: EPERM,
        when: "",
        reason: "reaches the hardware",
    },
    Group {
        calls: calls![SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl],
        action: EPERM,
        when: "",
        reason: "nothing current uses it",
    },
];
#[cfg(not(target_arch = "x86_64"))]
const STANDARD_HERE: &[Group] = &[];

const STRICT: &[Group] = &[
    Group {
        calls: calls![
            SYS_ptrace,
            SYS_process_vm_readv,
            SYS_process_vm_writev,
            SYS_kcmp,
            SYS_pidfd_getfd,
        ],
        action: EPERM,
        when: "",
        reason: "looks into other processes; without it debuggers, strace and leak checkers don't run",
    },
    Group {
        calls: calls![SYS_personality],
        action: Action::Ask(Rule {
            clauses: &[allow(&[Test::Is(0, 0)]), allow(&[Test::Is(0, ASK_PERSONALITY)])],
            otherwise: NOT_PERMITTED,
        }),
        when: "but to ask, and 0",
        reason: "switches old behaviour on that hardening relies to be off",
    },
    Group {
        calls: calls![SYS_socket],
        action: Action::Ask(Rule {
            clauses: &[
                allow(&[Test::Is(0, libc::AF_UNIX.cast_unsigned())]),
                allow(&[Test::Is(0, libc::AF_INET.cast_unsigned()), STREAM]),
                allow(&[Test::Is(0, libc::AF_INET.cast_unsigned()), DATAGRAM]),
                allow(&[Test::Is(0, libc::AF_INET6.cast_unsigned()), STREAM]),
                allow(&[Test::Is(0, libc::AF_INET6.cast_unsigned()), DATAGRAM]),
                allow(&[
                    Test::Is(0, libc::AF_NETLINK.cast_unsigned()),
                    Test::Is(2, libc::NETLINK_ROUTE.cast_unsigned()),
                ]),
            ],
            otherwise: NO_SUCH_FAMILY,
        }),
        when: "but unix, TCP, UDP, and netlink's NETLINK_ROUTE, which getifaddrs needs",
        reason: "raw packets, and protocols whose kernel code is rarely used",
    },
    Group {
        calls: calls![SYS_mknodat],
        action: deny_if(&[Clause { all: &[Test::Any(2, DEVICE)], then: NOT_PERMITTED }]),
        when: "of a device",
        reason: "a device file reaches the hardware past the file system's permissions",
    },
    Group {
        calls: calls![SYS_ioctl],
        action: deny_if(&[
            Clause { all: &[Test::Is(1, libc::TIOCSTI as u32)], then: NOT_PERMITTED },
            Clause { all: &[Test::Is(1, libc::TIOCLINUX as u32)], then: NOT_PERMITTED },
        ]),
        when: "with TIOCSTI or TIOCLINUX",
        reason: "types into a terminal",
    },
    Group {
        calls: calls![SYS_mbind, SYS_set_mempolicy, SYS_set_mempolicy_home_node],
        action: EPERM,
        when: "",
        reason: "places memory on the host's nodes; libraries that try go on without",
    },
    Group {
        calls: calls![SYS_name_to_handle_at],
        action: EPERM,
        when: "",
        reason: "its handles are for open_by_handle_at",
    },
];

#[cfg(target_arch = "x86_64")]
const STRICT_HERE: &[Group] = &[
    Group {
        calls: calls![SYS_mknod],
        action: deny_if(&[Clause { all: &[Test::Any(1, DEVICE)], then: NOT_PERMITTED }]),
        when: "of a device",
        reason: "a device file reaches the hardware past the file system's permissions",
    },
    Group {
        calls: calls![SYS_modify_ldt],
        action: EPERM,
        when: "",
        reason: "16-bit code, a source of kernel holes",
    },
];
#[cfg(not(target_arch = "x86_64"))]
const STRICT_HERE: &[Group] = &[];

const STREAM: Test = Test::Masked(1, SOCKET_TYPE, libc::SOCK_STREAM.cast_unsigned());
const DATAGRAM: Test = Test::Masked(1, SOCKET_TYPE, libc::SOCK_DGRAM.cast_unsigned());
