//! The compiled programs, run as the kernel runs them.

use std::collections::{BTreeMap, BTreeSet};

use nix::libc::{self, sock_filter};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::program::{NATIVE, NEWEST};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Runs a program on a call's data, as BPF's machine does.
fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number, arch, 0, 0].to_vec();
    data.extend(arguments.iter().flat_map(|value| [*value as u32, (*value >> 32) as u32]));
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match u32::from(code) {
            0x20 => accumulator = data[k as usize / 4],
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn answer(profile: Seccomp, number: libc::c_long, arguments: [u64; 3]) -> u32 {
    let [a, b, c] = arguments;
    run(program(profile), NATIVE, u32::try_from(number).unwrap(), [a, b, c, 0, 0, 0])
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

const PROFILES: [Seccomp; 2] = [Seccomp::Standard, Seccomp::Strict];

#[test]
fn every_number_gets_what_the_table_says_and_what_seccompiler_makes_of_it() {
    for profile in PROFILES {
        let actions = table::actions(profile);
        let theirs = seccompiler(&actions);
        for number in 0..=NEWEST {
            let expected = match actions.get(&number) {
                None => ALLOW,
                Some(program::Action::Errno(number)) => errno(*number),
                Some(_) => continue,
            };
            assert_eq!(run(program(profile), NATIVE, number, [0; 6]), expected, "{number}");
            // Its programs have one answer, so they leave out what doesn't exist.
            let theirs = run(&theirs, NATIVE, number, [0; 6]);
            let left_out = expected == errno(libc::ENOSYS);
            assert_eq!(theirs, if left_out { ALLOW } else { expected }, "{number}");
        }
    }
}

/// What seccompiler makes of the calls that are never permitted.
fn seccompiler(actions: &BTreeMap<u32, program::Action>) -> Vec<sock_filter> {
    let denied =
        actions.iter().filter(|(_, action)| **action == program::Action::Errno(libc::EPERM));
    let rules = denied.map(|(number, _)| (i64::from(*number), Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let not_permitted = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, not_permitted, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    program
        .iter()
        .map(|line| sock_filter { code: line.code, jt: line.jt, jf: line.jf, k: line.k })
        .collect()
}

#[test]
fn foreign_architectures_are_killed_and_numbers_that_no_table_could_know_do_not_exist() {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const AUDIT_ARCH_ARM: u32 = 0x4000_0028;
    const X32: u32 = 0x4000_0000;
    for profile in PROFILES {
        for arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0] {
            let answer = run(program(profile), arch, 20, [0; 6]);
            assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS);
        }
        for number in [NEWEST + 1, 1000, X32, X32 | 165, X32 | 39, u32::MAX] {
            assert_eq!(run(program(profile), NATIVE, number, [0; 6]), errno(libc::ENOSYS));
        }
    }
}

#[test]
fn strict_denies_everything_that_standard_does() {
    let (standard, strict) = (table::actions(Seccomp::Standard), table::actions(Seccomp::Strict));
    assert!(strict.len() > standard.len());
    for (number, action) in standard {
        assert!(strict[&number] == action || matches!(strict[&number], program::Action::Ask(_)));
    }
}

#[test]
fn new_namespaces_are_denied_and_threads_and_processes_are_not() {
    const THREAD: i32 = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
    let new = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    for profile in PROFILES {
        for flag in new {
            for flags in [flag, flag | libc::SIGCHLD, flag | THREAD] {
                let flags = [u64::from(flags.cast_unsigned()), 0, 0];
                assert_eq!(answer(profile, libc::SYS_clone, flags), errno(libc::EPERM));
                assert_eq!(answer(profile, libc::SYS_unshare, flags), errno(libc::EPERM));
            }
        }
        assert_eq!(answer(profile, libc::SYS_unshare, [0x80, 0, 0]), errno(libc::EPERM));
        assert_eq!(answer(profile, libc::SYS_unshare, [libc::CLONE_FILES as u64, 0, 0]), ALLOW);
        for flags in [libc::SIGCHLD, THREAD, libc::CLONE_VFORK | libc::CLONE_VM | libc::SIGCHLD] {
            assert_eq!(answer(profile, libc::SYS_clone, [flags as u64, 0, 0]), ALLOW);
        }
    }
}

#[test]
fn sockets_are_judged_by_family_type_and_protocol() {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let route = libc::NETLINK_ROUTE;
    let no_family = errno(libc::EAFNOSUPPORT);
    let cases = [
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ALLOW, ALLOW),
        (libc::AF_INET, libc::SOCK_STREAM | flags, libc::IPPROTO_TCP, ALLOW, ALLOW),
        (libc::AF_INET6, libc::SOCK_DGRAM | flags, 0, ALLOW, ALLOW),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP, ALLOW, no_family),
        (libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP, ALLOW, no_family),
        (libc::AF_NETLINK, libc::SOCK_RAW | flags, route, ALLOW, ALLOW),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, ALLOW, no_family),
        (libc::AF_PACKET, libc::SOCK_DGRAM, 0, ALLOW, no_family),
        (libc::AF_BLUETOOTH, libc::SOCK_STREAM, 0, ALLOW, no_family),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0, no_family, no_family),
        (libc::AF_ALG, libc::SOCK_SEQPACKET, 0, no_family, no_family),
    ];
    for (family, kind, protocol, standard, strict) in cases {
        let arguments = [family, kind, protocol].map(|value| u64::from(value.cast_unsigned()));
        for (profile, expected) in [(Seccomp::Standard, standard), (Seccomp::Strict, strict)] {
            let found = answer(profile, libc::SYS_socket, arguments);
            assert_eq!(found, expected, "{family} {kind} {protocol}");
        }
    }
}

#[test]
fn personalities_that_weaken_are_denied_and_asking_is_not() {
    let denied = errno(libc::EPERM);
    let cases = [
        (0xffff_ffff, ALLOW, ALLOW),
        (0, ALLOW, ALLOW),
        (0x0008, ALLOW, denied),
        (libc::ADDR_NO_RANDOMIZE as u64, ALLOW, denied),
        (libc::READ_IMPLIES_EXEC as u64, denied, denied),
        (libc::MMAP_PAGE_ZERO as u64, denied, denied),
    ];
    for (value, standard, strict) in cases {
        for (profile, expected) in [(Seccomp::Standard, standard), (Seccomp::Strict, strict)] {
            let found = answer(profile, libc::SYS_personality, [value, 0, 0]);
            assert_eq!(found, expected, "{value:#x}");
        }
    }
}

#[test]
fn strict_makes_no_devices_and_types_into_no_terminal() {
    let denied = errno(libc::EPERM);
    let kinds = [
        (libc::S_IFCHR, denied),
        (libc::S_IFBLK, denied),
        (libc::S_IFREG, ALLOW),
        (libc::S_IFIFO, ALLOW),
        (libc::S_IFSOCK, ALLOW),
        (0, ALLOW),
    ];
    for (kind, expected) in kinds {
        let mode = u64::from(kind | 0o644);
        assert_eq!(answer(Seccomp::Strict, libc::SYS_mknodat, [0, 0, mode]), expected);
        assert_eq!(answer(Seccomp::Standard, libc::SYS_mknodat, [0, 0, mode]), ALLOW);
    }
    for (request, expected) in
        [(libc::TIOCSTI, denied), (libc::TIOCLINUX, denied), (libc::TCGETS, ALLOW)]
    {
        assert_eq!(answer(Seccomp::Strict, libc::SYS_ioctl, [0, request, 0]), expected);
    }
}

#[test]
fn the_documented_table_is_the_whole_one() {
    for profile in PROFILES {
        let names: BTreeSet<_> =
            denied().filter(|call| call.profile <= profile).map(|call| call.name).collect();
        assert_eq!(names.len(), table::actions(profile).len());
    }
    assert!(denied().all(|call| !call.reason.is_empty() && !call.name.starts_with("SYS_")));
}
